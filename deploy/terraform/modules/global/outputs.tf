output "zone_id" {
  description = "The hosted zone of the mesh's names: -var zone_id of root `region`."
  value       = aws_route53_zone.this.zone_id
}

output "name_servers" {
  description = "What the registrar of cloud.domain has to be told."
  value       = aws_route53_zone.this.name_servers
}

output "leads_to" {
  description = "The regions that each name of the mesh leads to, of which the nearest is taken."
  value       = local.leads_to

  precondition {
    condition     = length(local.twice) == 0
    error_message = "regions.yaml: cloud.regions: two regions in one AWS region cannot be told apart by latency, at the names ${join(", ", local.twice)}."
  }
}

output "cdn" {
  description = "The CDN: its name, and the bucket of its files."
  value       = { name = local.cdn_name, bucket = aws_s3_bucket.static.id }
}
