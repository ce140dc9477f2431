# Places for secrets, by who reads them. Their values are put there by an operator, and are in no file and no state of Terraform.
locals {
  secrets = merge(
    local.is_vault_alone ? {} : { acquirers = "node" },
    local.has_vault ? { vault-acquirers = "vault", vault-pin = "vault" } : {},
  )
}

resource "aws_secretsmanager_secret" "these" {
  for_each                = local.secrets
  name                    = "paymesh/${local.label}/${each.key}"
  description             = "Read by ${each.value} of ${var.region}"
  kms_key_id              = aws_kms_key.these[each.value == "vault" ? "vault" : "data"].arn
  recovery_window_in_days = 30
  tags                    = local.tags
}
