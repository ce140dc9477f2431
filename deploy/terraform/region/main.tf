# One region of the mesh, with a state of its own: -var region=NAME.
terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "region" {
  description = "The region, as region-config/regions.yaml names it."
  type        = string
}

variable "region_config" {
  description = "The directory with regions.yaml. That of the repository when null."
  type        = string
  default     = null
}

variable "zone_id" {
  description = "The hosted zone of cloud.domain: output `zone_id` of root `global`. Null: no names are made."
  type        = string
  default     = null
}

variable "engines" {
  description = "What is made beside the cluster: database, cache, stream."
  type        = set(string)
  default     = ["database", "cache", "stream"]
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
  description = "How long logs are kept, in days, of the numbers that CloudWatch takes."
  type        = number
  default     = 400
}

locals {
  region_config = coalesce(var.region_config, "${path.module}/../../../region-config")
  # Wrong names are refused by the module, in words.
  aws_region = try(yamldecode(file("${local.region_config}/regions.yaml")).cloud.regions[var.region].aws_region, "us-east-1")
}

provider "aws" {
  region = local.aws_region
}

module "region" {
  source             = "../modules/region"
  region             = var.region
  region_config      = local.region_config
  zone_id            = var.zone_id
  engines            = var.engines
  protected          = var.protected
  kubernetes_version = var.kubernetes_version
  log_retention_days = var.log_retention_days
}

output "region" {
  description = "What was made."
  value = {
    region                 = module.region.region
    cluster                = module.region.cluster
    target_groups          = module.region.target_groups
    names                  = module.region.names
    database               = module.region.database
    roles                  = module.region.roles
    keys                   = module.region.keys
    topics                 = module.region.topics
    certificate_validation = module.region.certificate_validation
  }
}
