output "region" {
  description = "The region, and where it is."
  value       = { name = var.region, zone = local.zone, aws_region = local.aws_region, network = local.site.network }
}

output "cluster" {
  description = "The cluster of Kubernetes: `aws eks update-kubeconfig --region AWS_REGION --name CLUSTER`, from within the network."
  value       = aws_eks_cluster.this.name
}

output "target_groups" {
  description = "The target groups that Kubernetes registers pods in, by kind."
  value = merge(
    { for kind, group in aws_lb_target_group.grpc : kind => group.name },
    local.is_vault_alone ? {} : { hooks = one(aws_lb_target_group.hooks[*].name) },
    { for mesh, kind in local.meshes : kind => aws_lb_target_group.mesh[mesh].name },
  )
}

output "names" {
  description = "The region's own names in the DNS, none where there is no zone_id."
  value       = [for record in aws_route53_record.region : record.name]
}

output "certificate_validation" {
  description = "The records by which AWS sees that the names of the certificate are ours. Where there is a zone_id they are there."
  value       = flatten([for certificate in aws_acm_certificate.callers : tolist(certificate.domain_validation_options)])
}

output "database" {
  description = "The identifier of the region's database, if there is one, and whose replica it is."
  value = local.has_database ? {
    identifier = one(concat(aws_db_instance.master[*].identifier, aws_db_instance.replica[*].identifier))
    replica_of = local.source == "" ? null : local.source
  } : null
}

output "roles" {
  description = "The roles of the service accounts: their annotation eks.amazonaws.com/role-arn."
  value       = { for name, role in aws_iam_role.account : name => role.arn }
}

output "topics" {
  description = "The topics of Kafka and their settings."
  value       = local.has_stream ? local.kafka.topics : {}
}

output "keys" {
  description = "The aliases of the keys of the zone's data here."
  value       = { for name, alias in aws_kms_alias.these : name => alias.name }
}
