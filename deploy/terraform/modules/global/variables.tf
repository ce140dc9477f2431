variable "region_config" {
  description = "The directory with regions.yaml, which nodes read too."
  type        = string
}

variable "firewall" {
  description = "Whether a web application firewall stands before the CDN: AWS' common rules, and a limit by address. It costs by the request."
  type        = bool
  default     = false
}

variable "requests_per_address" {
  description = "Requests that the firewall lets through from one address in five minutes."
  type        = number
  default     = 10000

  validation {
    condition     = var.requests_per_address >= 100 && var.requests_per_address <= 20000000
    error_message = "requests_per_address: 100 to 20000000, as AWS counts."
  }
}
