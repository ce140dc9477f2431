variable "region" {
  description = "The region, as region-config/regions.yaml names it."
  type        = string

  validation {
    condition     = contains(keys(module.facts.facts.config.regions), var.region)
    error_message = "regions.yaml: no region is called `${var.region}`; its regions are ${join(", ", sort(keys(module.facts.facts.config.regions)))}."
  }
}

variable "region_config" {
  description = "The directory with regions.yaml, which nodes read too."
  type        = string
}

variable "engines" {
  description = "What is made beside the cluster: `database`, `cache`, `stream`. The binary of this version uses none of them yet: its journals are on the volume of the region's node."
  type        = set(string)
  default     = ["database", "cache", "stream"]

  validation {
    condition     = length(setsubtract(var.engines, ["database", "cache", "stream"])) == 0
    error_message = "engines: known are database, cache and stream."
  }
}

variable "zone_id" {
  description = "The hosted zone of cloud.domain, as root `global` makes it. Null: no names are made for this region."
  type        = string
  default     = null
}

variable "protected" {
  description = "Whether databases and balancers refuse to be deleted, and databases leave a last snapshot. As cloud.protected says when null; false to retire a region."
  type        = bool
  default     = null
}

variable "kubernetes_version" {
  description = "Of the cluster. Its upgrades are one minor version at a time."
  type        = string
  default     = "1.33"
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 400

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653], var.log_retention_days)
    error_message = "log_retention_days: CloudWatch keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827 or 3653 days."
  }
}
