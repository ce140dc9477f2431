# Logs: encrypted with the zone's key, and kept for as long as the audit logs of nodes are.
locals {
  logs = merge(
    { paths = "/paymesh/${local.label}/paths", cluster = "/aws/eks/${local.name}/cluster" },
    local.has_stream ? { kafka = "/paymesh/${local.label}/kafka" } : {},
    # By the names that RDS writes to; groups that it made itself would be under no key of ours, and be kept for ever.
    local.has_database ? { for log in local.database_logs : log => "/aws/rds/instance/${local.name}/${log}" } : {},
  )
}

resource "aws_cloudwatch_log_group" "these" {
  for_each          = local.logs
  name              = each.value
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.these["data"].arn
  tags              = local.tags
}

# Who spoke to whom in the network: addresses and ports, and nothing of what was said.
resource "aws_flow_log" "this" {
  vpc_id               = aws_vpc.this.id
  traffic_type         = "ALL"
  log_destination_type = "cloud-watch-logs"
  log_destination      = aws_cloudwatch_log_group.these["paths"].arn
  iam_role_arn         = aws_iam_role.paths.arn
  tags                 = merge(local.tags, { Name = local.name })
}

data "aws_iam_policy_document" "paths_assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "paths" {
  name               = "${local.name}-paths"
  assume_role_policy = data.aws_iam_policy_document.paths_assume.json
  tags               = local.tags
}

data "aws_iam_policy_document" "paths" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    resources = ["${aws_cloudwatch_log_group.these["paths"].arn}:*"]
  }
}

resource "aws_iam_role_policy" "paths" {
  name   = "write"
  role   = aws_iam_role.paths.id
  policy = data.aws_iam_policy_document.paths.json
}
