# What an operator is called for. What the mesh itself measures is alerted on by Prometheus (docs/incidents.md).
resource "aws_sns_topic" "alarms" {
  name              = "${local.name}-alarms"
  kms_master_key_id = aws_kms_key.these["data"].key_id
  tags              = local.tags
}

locals {
  databases = merge(
    local.has_database && local.is_master ? { database = one(aws_db_instance.master[*].identifier) } : {},
    local.has_database && local.is_replica ? { database = one(aws_db_instance.replica[*].identifier) } : {},
    local.has_vault_database ? { vault_database = one(aws_db_instance.vault[*].identifier) } : {},
  )
  gibibyte = 1073741824

  alarms = merge(
    local.is_vault_alone ? {} : {
      callers_errors = {
        what       = "One answer a second through the balancer of callers is an HTTP error of an edge (errors of calls are in gRPC's own words, which Prometheus counts)"
        metric     = "HTTPCode_Target_5XX_Count", namespace = "AWS/ApplicationELB", statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 300, missing = "notBreaching"
        dimensions = { LoadBalancer = try(aws_lb.callers[0].arn_suffix, "") }
      }
      callers_unserved = {
        what       = "One call a second through the balancer of callers ends with an error of the balancer"
        metric     = "HTTPCode_ELB_5XX_Count", namespace = "AWS/ApplicationELB", statistic = "Sum", comparison = "GreaterThanThreshold", threshold = 300, missing = "notBreaching"
        dimensions = { LoadBalancer = try(aws_lb.callers[0].arn_suffix, "") }
      }
      callers_without_edges = {
        what       = "The balancer of callers has no edge that answers"
        metric     = "HealthyHostCount", namespace = "AWS/ApplicationELB", statistic = "Minimum", comparison = "LessThanThreshold", threshold = 1, missing = "breaching"
        dimensions = { LoadBalancer = try(aws_lb.callers[0].arn_suffix, ""), TargetGroup = try(aws_lb_target_group.grpc["edge"].arn_suffix, "") }
      }
    },
    { for mesh, kind in local.meshes : "${kind}_gone" => {
      what       = "Other regions reach no ${kind} of this one"
      metric     = "HealthyHostCount", namespace = "AWS/NetworkELB", statistic = "Minimum", comparison = "LessThanThreshold", threshold = 1, missing = "breaching"
      dimensions = { LoadBalancer = aws_lb.mesh[mesh].arn_suffix, TargetGroup = aws_lb_target_group.mesh[mesh].arn_suffix }
    } },
    { for name, identifier in local.databases : "${name}_storage" => {
      what       = "Less than 20 GiB are free at the database"
      metric     = "FreeStorageSpace", namespace = "AWS/RDS", statistic = "Minimum", comparison = "LessThanThreshold", threshold = 20 * local.gibibyte, missing = "breaching"
      dimensions = { DBInstanceIdentifier = identifier }
    } },
    { for name, identifier in local.databases : "${name}_cpu" => {
      what       = "The database has been busy for a quarter of an hour"
      metric     = "CPUUtilization", namespace = "AWS/RDS", statistic = "Average", comparison = "GreaterThanThreshold", threshold = 80, missing = "breaching"
      dimensions = { DBInstanceIdentifier = identifier }
    } },
    local.has_database && local.is_replica ? {
      database_lag = {
        what       = "The replica is more than a minute behind ${local.source}"
        metric     = "ReplicaLag", namespace = "AWS/RDS", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 60, missing = "breaching"
        dimensions = { DBInstanceIdentifier = one(aws_db_instance.replica[*].identifier) }
      }
    } : {},
    # Figures are those of a member and of a broker, and alarms take none over several.
    { for member in range(local.has_cache ? local.cache_members : 0) : "cache_memory_${member + 1}" => {
      what       = "A member of Redis has used up nine tenths of its memory"
      metric     = "DatabaseMemoryUsagePercentage", namespace = "AWS/ElastiCache", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 90, missing = "breaching"
      dimensions = { CacheClusterId = "${one(aws_elasticache_replication_group.this[*].id)}-${format("%03d", member + 1)}", CacheNodeId = "0001" }
    } },
    { for broker in range(local.has_stream ? local.kafka.brokers : 0) : "stream_disk_${broker + 1}" => {
      what       = "A broker of Kafka has used up four fifths of its disk"
      metric     = "KafkaDataLogsDiskUsed", namespace = "AWS/Kafka", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 80, missing = "breaching"
      dimensions = { "Cluster Name" = one(aws_msk_cluster.this[*].cluster_name), "Broker ID" = tostring(broker + 1) }
    } },
  )
}

resource "aws_cloudwatch_metric_alarm" "these" {
  for_each            = local.alarms
  alarm_name          = "${local.name}-${replace(each.key, "_", "-")}"
  alarm_description   = each.value.what
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags
}
