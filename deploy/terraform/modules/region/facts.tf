# What region-config says of this region. No fact of it is written anywhere else.
module "facts" {
  source    = "../facts"
  directory = var.region_config
}

locals {
  config = module.facts.facts.config
  cloud  = local.config.cloud
  sites  = local.cloud.regions

  facts      = local.config.regions[var.region]
  site       = local.sites[var.region]
  zone       = module.facts.facts.zone_of[var.region]
  label      = replace(var.region, "_", "-")
  name       = "paymesh-${local.label}"
  aws_region = local.site.aws_region
  domain     = local.cloud.domain

  is_master  = contains(["primary_master", "regional_master"], local.facts.database)
  is_replica = local.facts.database == "read_replica"
  # A vault alone is a region without a database: there is no cluster of nodes and edges, and no balancer for callers.
  is_vault_alone = local.facts.database == "none"
  has_vault      = contains(local.facts.services, "vault")

  has_database = contains(var.engines, "database") && !local.is_vault_alone
  has_cache    = contains(var.engines, "cache") && !local.is_vault_alone
  has_stream   = contains(var.engines, "stream") && !local.is_vault_alone

  source       = try(module.facts.facts.source_of[var.region], "")
  source_label = replace(local.source, "_", "-")

  protected = coalesce(var.protected, try(local.cloud.protected, true))

  tags = { mesh = local.config.mesh, region = var.region, zone = local.zone, terraform = "region" }
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

# Of those of us-east-1, us-west-1 and ca-central-1, one each takes no cluster (EKS User Guide, "Subnet requirements and considerations").
data "aws_availability_zones" "these" {
  state            = "available"
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 3
      error_message = "cloud.regions.${var.region}.aws_region: ${local.aws_region} has less than three zones of availability for this account that take a cluster."
    }
  }
}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  places    = slice(data.aws_availability_zones.these.names, 0, 3)
}
