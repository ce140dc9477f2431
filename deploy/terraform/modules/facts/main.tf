# region-config, read once for every module, and what must hold in it between regions. `paymesh` checks the same and more, with lines; what is wrong is
# said here too, because Terraform can be run by itself. Nothing is made of facts that do not hold: every consumer waits for this output.
terraform {
  required_version = ">= 1.11"
}

variable "directory" {
  description = "The directory with regions.yaml, which nodes read too."
  type        = string
}

locals {
  config = yamldecode(file("${var.directory}/regions.yaml"))
  cloud  = try(local.config.cloud, { domain = "", machines = {}, kafka = {}, regions = {} })
  sites  = try(local.cloud.regions, {})

  zone_of = merge([for name, zone in local.config.zones : { for region in zone.regions : region => name }]...)
  masters = {
    for name, zone in local.config.zones : name => [
      for region in zone.regions : region
      if contains(["primary_master", "regional_master"], try(local.config.regions[region].database, ""))
    ]
  }
  # Whose database a region's is a replica of: what is said, or the only master that there is.
  source_of = {
    for name, region in local.config.regions : name => try(local.sites[name].replica_of, one(local.masters[local.zone_of[name]]), "")
    if region.database == "read_replica"
  }
}

# What must hold between regions. `paymesh` checks the same, and more, with lines.
locals {
  placeless = [for name in keys(local.config.regions) : name if !can(local.sites[name].network) || !can(local.sites[name].aws_region)]

  # The first address and the one after the last, as numbers.
  spans = {
    for name, site in local.sites : name => {
      first = sum([for index, byte in split(".", split("/", site.network)[0]) : tonumber(byte) * pow(256, 3 - index)])
      after = sum([for index, byte in split(".", split("/", site.network)[0]) : tonumber(byte) * pow(256, 3 - index)]) + pow(2, 32 - tonumber(split("/", site.network)[1]))
    } if can(cidrnetmask(site.network))
  }
  overlaps = flatten([
    for one, span in local.spans : [
      for other, others in local.spans : "${one} and ${other}" if index(keys(local.spans), one) < index(keys(local.spans), other) && span.first < others.after && others.first < span.after
    ]
  ])

  outside_of_their_zone = [
    for name, zone in local.zone_of : "${name} in ${local.sites[name].aws_region}"
    if can(local.sites[name].aws_region) && !contains(try(local.config.zones[zone].aws_regions, [try(local.sites[name].aws_region, "")]), try(local.sites[name].aws_region, ""))
  ]
  # London and Zurich are in Europe and not in the Economic Area.
  outside_of_the_gdpr = [
    for name, zone in local.config.zones : name
    if anytrue([for region in zone.regions : contains(try(local.config.regions[region].compliance, []), "GDPR")])
    && (length(try(zone.aws_regions, [])) == 0 || anytrue([for aws_region in try(zone.aws_regions, []) : !startswith(aws_region, "eu") || contains(["eu-west-2", "eu-central-2"], aws_region)]))
  ]
  foreign_replicas = [
    for name, source in local.source_of : "${name} of ${source == "" ? "nobody" : source}"
    if !contains(try(local.masters[local.zone_of[name]], []), source)
  ]

  # A region and a zone have names below `api`, and a name leads to one of them.
  called_as_zones = [for name in keys(local.config.regions) : name if contains(keys(local.config.zones), replace(name, "_", "-"))]
  # Names of databases have no two hyphens in a row, and none at an end.
  misshapen = [for name in keys(local.config.regions) : name if can(regex("__|^_|_$", name))]

  # The longest of a region's names of target groups is pm-REGION-vault.
  long_names = [for name in keys(local.config.regions) : name if length(name) > 23]
}

output "facts" {
  description = "The configuration; the zone of each region; and whose database each replica is of."
  value       = { config = local.config, zone_of = local.zone_of, source_of = local.source_of }

  precondition {
    condition     = can(local.config.cloud.regions)
    error_message = "regions.yaml: cloud: is missing, so nothing says where the regions are deployed."
  }
  precondition {
    condition     = length(local.placeless) == 0
    error_message = "regions.yaml: cloud.regions: no place for ${join(", ", local.placeless)}: each has an aws_region and a network."
  }
  precondition {
    condition     = length(local.overlaps) == 0
    error_message = "regions.yaml: cloud.regions: networks overlap: ${join("; ", local.overlaps)}."
  }
  precondition {
    condition     = length(local.outside_of_their_zone) == 0
    error_message = "regions.yaml: cloud.regions: where data of their zone may not be (zones.ZONE.aws_regions): ${join("; ", local.outside_of_their_zone)}."
  }
  precondition {
    condition     = length(local.outside_of_the_gdpr) == 0
    error_message = "regions.yaml: zones: under the GDPR, and without aws_regions, or with such as are outside of the European Economic Area: ${join(", ", local.outside_of_the_gdpr)}."
  }
  precondition {
    condition     = length(local.foreign_replicas) == 0
    error_message = "regions.yaml: cloud.regions: a replica copies the database of a master of its own zone: ${join("; ", local.foreign_replicas)}."
  }
  precondition {
    condition     = length(local.called_as_zones) == 0
    error_message = "regions.yaml: regions: called as a zone, so that a name of the DNS would lead to both: ${join(", ", local.called_as_zones)}."
  }
  precondition {
    condition     = length(local.misshapen) == 0
    error_message = "regions.yaml: regions: a region that is deployed has no two _ in a row and none at an end of its name, because databases have no such hyphens: ${join(", ", local.misshapen)}."
  }
  precondition {
    condition     = length(local.long_names) == 0
    error_message = "regions.yaml: regions: the name of a region that is deployed has 23 bytes at most, because those of its target groups have 32: ${join(", ", local.long_names)}."
  }
}
