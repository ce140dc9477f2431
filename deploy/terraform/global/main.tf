# What the mesh has once: its names and the CDN.
terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "region_config" {
  description = "The directory with regions.yaml. That of the repository when null."
  type        = string
  default     = null
}

variable "firewall" {
  description = "Whether a web application firewall stands before the CDN."
  type        = bool
  default     = false
}

locals {
  region_config = coalesce(var.region_config, "${path.module}/../../../region-config")
  config        = yamldecode(file("${local.region_config}/regions.yaml"))
  # Files lie where the primary region is. What is wrong with the file is said by the module.
  home = try(one([for name, region in local.config.regions : local.config.cloud.regions[name].aws_region if region.primary]), "us-east-1")
}

provider "aws" {
  region = local.home
}

# CloudFront takes certificates and firewalls of this region of AWS only.
provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"
}

module "global" {
  source        = "../modules/global"
  region_config = local.region_config
  firewall      = var.firewall

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }
}

output "zone_id" {
  description = "The hosted zone of the mesh's names: -var zone_id of root `region`."
  value       = module.global.zone_id
}

output "mesh" {
  description = "What was made."
  value = {
    name_servers = module.global.name_servers
    leads_to     = module.global.leads_to
    cdn          = module.global.cdn
  }
}
