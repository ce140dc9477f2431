# Kafka, with the settings of region-config (the source document's).
locals {
  kafka = local.cloud.kafka
}

resource "aws_msk_configuration" "this" {
  count          = local.has_stream ? 1 : 0
  name           = local.name
  description    = "Topics are made with their settings, and not by whoever names one first"
  kafka_versions = ["3.6.0"]
  server_properties = join("\n", [
    "auto.create.topics.enable=false",
    "default.replication.factor=${local.kafka.replication_factor}",
    "min.insync.replicas=${max(1, local.kafka.replication_factor - 1)}",
    "num.partitions=${local.kafka.partitions_per_topic}",
    "unclean.leader.election.enable=false",
  ])
}

resource "aws_msk_cluster" "this" {
  count                  = local.has_stream ? 1 : 0
  cluster_name           = local.name
  kafka_version          = "3.6.0"
  number_of_broker_nodes = local.kafka.brokers
  enhanced_monitoring    = "PER_BROKER"
  tags                   = merge(local.tags, { Name = local.name })

  broker_node_group_info {
    instance_type   = "kafka.${local.cloud.machines.broker}"
    client_subnets  = [for subnet in aws_subnet.data : subnet.id]
    security_groups = [aws_security_group.these["stream"].id]
    storage_info {
      ebs_storage_info {
        volume_size = 1000
      }
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.this[0].arn
    revision = aws_msk_configuration.this[0].latest_revision
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = aws_kms_key.these["data"].arn
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.these["kafka"].name
      }
    }
  }
}

# AWS makes no topics. Whoever does finds here what they are to be.
resource "aws_ssm_parameter" "topics" {
  count       = local.has_stream ? 1 : 0
  name        = "/paymesh/${local.label}/topics"
  description = "The topics of Kafka and their settings"
  type        = "String"
  value       = jsonencode(local.kafka.topics)
  tags        = local.tags
}
