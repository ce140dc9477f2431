# Names: `api.DOMAIN` leads to the nearest region, and `ZONE.api.DOMAIN` to the nearest of those that region-config lets the zone's callers in by. Each leads to
# a name that the region makes for itself (root `region`), so that no state has to read another's.
module "facts" {
  source    = "../facts"
  directory = var.region_config
}

locals {
  config = module.facts.facts.config
  domain = local.config.cloud.domain

  # A vault alone takes no calls.
  entries = { for name, region in local.config.regions : name => local.config.cloud.regions[name].aws_region if region.database != "none" }
  labels  = { for name in keys(local.entries) : name => replace(name, "_", "-") }

  # The regions that a name leads to.
  leads_to = merge(
    { api = keys(local.entries) },
    { for name, zone in local.config.zones : "${name}.api" => [for region in keys(local.entries) : region if try(zone.entry, "any") == "any" || contains(zone.regions, region)] },
  )
  records = merge([for name, regions in local.leads_to : { for region in regions : "${name}-${region}" => { name = name, region = region } }]...)

  # By latency, a name has one record for each region of AWS.
  twice = [for name, regions in local.leads_to : name if length(distinct([for region in regions : local.entries[region]])) < length(regions)]

  tags = { mesh = local.config.mesh, terraform = "global" }
}

resource "aws_route53_zone" "this" {
  name    = local.domain
  comment = "Names of the mesh ${local.config.mesh}"
  tags    = local.tags
}

resource "aws_route53_health_check" "region" {
  for_each          = local.entries
  type              = "HTTPS"
  fqdn              = "${local.labels[each.key]}.api.${local.domain}"
  port              = 443
  resource_path     = "/health"
  request_interval  = 30
  failure_threshold = 3
  enable_sni        = true
  tags              = merge(local.tags, { Name = each.key })
}

# When no region of a name is healthy, Route 53 takes all of them for healthy: still those of this name, and never others.
resource "aws_route53_record" "nearest" {
  for_each        = local.records
  zone_id         = aws_route53_zone.this.zone_id
  name            = "${each.value.name}.${local.domain}"
  type            = "CNAME"
  ttl             = 60
  records         = ["${local.labels[each.value.region]}.api.${local.domain}"]
  set_identifier  = each.value.region
  health_check_id = aws_route53_health_check.region[each.value.region].id

  latency_routing_policy {
    region = local.entries[each.value.region]
  }
}
