# PostgreSQL, by what the region's database is to the mesh: a master has servers in two zones of availability, a replica follows the master of its zone.
locals {
  postgresql       = "16"
  database_storage = 200
  database_logs    = ["postgresql", "upgrade"]
}

resource "aws_db_subnet_group" "data" {
  count       = local.has_database ? 1 : 0
  name        = local.name
  description = "Subnets without a way out"
  subnet_ids  = [for subnet in aws_subnet.data : subnet.id]
  tags        = local.tags
}

resource "aws_db_parameter_group" "this" {
  count       = local.has_database ? 1 : 0
  name        = "${local.name}-postgresql-${local.postgresql}"
  description = "TLS only; commits are durable; slow statements are logged"
  family      = "postgres${local.postgresql}"
  tags        = local.tags

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "synchronous_commit"
    value = "on"
  }
  # Source document, "Connection Pooling": compiling queries makes the slow ones faster and the time of all of them uneven.
  parameter {
    name  = "jit"
    value = "0"
  }
  # Of slow statements the text is logged, and not the values that it is given.
  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
  parameter {
    name  = "log_parameter_max_length"
    value = "0"
  }
}

# Its password is random, in no state, and known to nobody: nothing logs in yet. RDS makes no replica of a database whose password it keeps in Secrets Manager itself (RDS User Guide,
# "Limitations for Secrets Manager integration").
resource "aws_db_instance" "master" {
  count                           = local.has_database && local.is_master ? 1 : 0
  identifier                      = local.name
  engine                          = "postgres"
  engine_version                  = local.postgresql
  instance_class                  = "db.${local.cloud.machines.database}"
  allocated_storage               = local.database_storage
  max_allocated_storage           = local.database_storage * 10
  username                        = "paymesh"
  password_wo                     = uuid() # @v3: password
  password_wo_version             = 1      # @v3: license_model
  multi_az                        = true
  db_subnet_group_name            = aws_db_subnet_group.data[0].name
  parameter_group_name            = aws_db_parameter_group.this[0].name
  vpc_security_group_ids          = [aws_security_group.these["database"].id]
  publicly_accessible             = false
  storage_encrypted               = true
  kms_key_id                      = aws_kms_key.these["data"].arn
  backup_retention_period         = 35
  backup_window                   = "02:00-03:00"
  maintenance_window              = "sun:03:30-sun:04:30"
  copy_tags_to_snapshot           = true
  delete_automated_backups        = false
  deletion_protection             = local.protected
  skip_final_snapshot             = !local.protected
  final_snapshot_identifier       = "${local.name}-last"
  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = local.database_logs
  tags                            = merge(local.tags, { Name = local.name })

  lifecycle {
    # Whoever sets one sets it at RDS.
    ignore_changes = [password]
  }

  depends_on = [aws_cloudwatch_log_group.these]
}

# The copy of a master's database in another AWS region, encrypted there with that region's key of the same zone. The variables see to it that it is the same zone.
resource "aws_db_instance" "replica" {
  count                           = local.has_database && local.is_replica ? 1 : 0
  identifier                      = local.name
  replicate_source_db             = "arn:${local.partition}:rds:${local.sites[local.source].aws_region}:${local.account}:db:paymesh-${local.source_label}"
  instance_class                  = "db.${local.cloud.machines.database}"
  max_allocated_storage           = local.database_storage * 10
  db_subnet_group_name            = aws_db_subnet_group.data[0].name
  parameter_group_name            = aws_db_parameter_group.this[0].name
  vpc_security_group_ids          = [aws_security_group.these["database"].id]
  publicly_accessible             = false
  storage_encrypted               = true
  kms_key_id                      = aws_kms_key.these["data"].arn
  maintenance_window              = "sun:05:00-sun:06:00"
  copy_tags_to_snapshot           = true
  deletion_protection             = local.protected
  skip_final_snapshot             = true
  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = local.database_logs
  tags                            = merge(local.tags, { Name = local.name })

  depends_on = [aws_cloudwatch_log_group.these]
}
