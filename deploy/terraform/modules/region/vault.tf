# What only the vault has: subnets (network.tf), a key (keys.tf), machines (compute.tf), paths (access.tf), and a database of its own here.
locals {
  has_vault_database = local.has_vault && contains(var.engines, "database")
}

resource "aws_db_subnet_group" "vault" {
  count       = local.has_vault_database ? 1 : 0
  name        = "${local.name}-vault"
  description = "The subnets of the vault"
  subnet_ids  = [for subnet in aws_subnet.vault : subnet.id]
  tags        = local.tags
}

resource "aws_db_parameter_group" "vault" {
  count       = local.has_vault_database ? 1 : 0
  name        = "${local.name}-vault-postgresql-${local.postgresql}"
  description = "TLS only; commits are durable"
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
}

# No statement of it is logged, for there are ciphertexts of cards in them.
resource "aws_db_instance" "vault" {
  count                         = local.has_vault_database ? 1 : 0
  identifier                    = "${local.name}-vault"
  engine                        = "postgres"
  engine_version                = local.postgresql
  instance_class                = "db.${local.cloud.machines.vault}"
  allocated_storage             = 50
  max_allocated_storage         = 500
  username                      = "paymesh_vault"
  manage_master_user_password   = true                              # @v3: password
  master_user_secret_kms_key_id = aws_kms_key.these["vault"].key_id # @v3: license_model
  multi_az                      = true
  db_subnet_group_name          = aws_db_subnet_group.vault[0].name
  parameter_group_name          = aws_db_parameter_group.vault[0].name
  vpc_security_group_ids        = [aws_security_group.these["vaultdb"].id]
  publicly_accessible           = false
  storage_encrypted             = true
  kms_key_id                    = aws_kms_key.these["vault"].arn
  backup_retention_period       = 7 # Who was erased is in no backup after a week (ADR 0017).
  backup_window                 = "02:00-03:00"
  maintenance_window            = "sun:03:30-sun:04:30"
  copy_tags_to_snapshot         = true
  deletion_protection           = local.protected
  skip_final_snapshot           = !local.protected
  final_snapshot_identifier     = "${local.name}-vault-last"
  auto_minor_version_upgrade    = true
  tags                          = merge(local.tags, { Name = "${local.name}-vault" })
}
