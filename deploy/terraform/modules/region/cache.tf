# Redis: a primary and a replica in each of two other zones of availability, which take over by themselves.
locals {
  cache_members = 3
}

resource "aws_elasticache_subnet_group" "this" {
  count       = local.has_cache ? 1 : 0
  name        = local.name
  description = "Subnets without a way out"
  subnet_ids  = [for subnet in aws_subnet.data : subnet.id]
}

resource "aws_elasticache_replication_group" "this" {
  count                      = local.has_cache ? 1 : 0
  replication_group_id       = "pm-${local.label}"
  description                = "Cache of ${var.region}" # @v3: replication_group_description
  engine                     = "redis"
  engine_version             = "6.x"
  node_type                  = "cache.${local.cloud.machines.cache}"
  num_cache_clusters         = local.cache_members # @v3: number_cache_clusters
  port                       = 6379
  automatic_failover_enabled = true
  multi_az_enabled           = true
  subnet_group_name          = aws_elasticache_subnet_group.this[0].name
  security_group_ids         = [aws_security_group.these["cache"].id]
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  kms_key_id                 = aws_kms_key.these["data"].arn
  snapshot_retention_limit   = 0 # What is in a cache is elsewhere too.
  maintenance_window         = "sun:04:30-sun:05:30"
  tags                       = merge(local.tags, { Name = local.name })
}
