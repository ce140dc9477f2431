# Two keys of the zone in this AWS region: what is encrypted with them cannot be read elsewhere, and to disable one closes what it is for. Neither is a
# multi-region key: those could be copied out of the zone.
locals {
  keys = merge(
    { data = "Data of zone ${local.zone}: journals, databases, logs, secrets" },
    local.has_vault ? { vault = "Data of the vault of zone ${local.zone}" } : {},
  )
  autoscaling_role = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
}

data "aws_iam_policy_document" "key" {
  for_each = local.keys

  # Who administers the account says who administers the key. Without this statement nobody could ever change it.
  statement {
    sid = "Administer"
    actions = [
      "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags", "kms:PutKeyPolicy",
      "kms:EnableKeyRotation", "kms:EnableKey", "kms:DisableKey", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription",
      "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant",
      "kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext",
    ]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  # Volumes of machines are made by the autoscaling of EC2, which has a role of its own in every account; what IAM says does not reach it
  # (AWS, "Required AWS KMS key policy for use with encrypted volumes").
  statement {
    sid       = "Machines"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = [local.autoscaling_role]
    }
  }
  statement {
    sid       = "MachinesVolumes"
    actions   = ["kms:CreateGrant"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = [local.autoscaling_role]
    }
    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
  }

  # Logs are encrypted by CloudWatch itself, and only those of this account here.
  dynamic "statement" {
    for_each = each.key == "data" ? [1] : []
    content {
      sid       = "Logs"
      actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"]
      resources = ["*"]
      principals {
        type        = "Service"
        identifiers = ["logs.${local.aws_region}.amazonaws.com"]
      }
      condition {
        test     = "ArnLike"
        variable = "kms:EncryptionContext:aws:logs:arn"
        values   = [for group in ["/paymesh/*", "/aws/eks/${local.name}/*", "/aws/rds/instance/${local.name}/*"] : "arn:${local.partition}:logs:${local.aws_region}:${local.account}:log-group:${group}"]
      }
    }
  }

  # Alarms go to a topic that is encrypted too.
  dynamic "statement" {
    for_each = each.key == "data" ? [1] : []
    content {
      sid       = "Alarms"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]
      principals {
        type        = "Service"
        identifiers = ["cloudwatch.amazonaws.com"]
      }
    }
  }
}

resource "aws_kms_key" "these" {
  for_each                = local.keys
  description             = each.value
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key[each.key].json
  tags                    = merge(local.tags, { Name = "${local.name}-${each.key}" })
}

# Two regions of a zone may be in one AWS region, so the region is in the alias too.
resource "aws_kms_alias" "these" {
  for_each      = local.keys
  name          = each.key == "data" ? "alias/paymesh-${local.zone}-${local.label}" : "alias/paymesh-${local.zone}-${local.label}-vault"
  target_key_id = aws_kms_key.these[each.key].key_id
}

# Volumes that say nothing themselves are encrypted all the same, with the account's key; those of nodes and vaults name the zone's (deploy/kubernetes).
resource "aws_ebs_encryption_by_default" "this" {
  enabled = true
}
