# Kubernetes: a cluster whose machines are apart by what runs on them.
resource "aws_eks_cluster" "this" {
  name                      = local.name
  version                   = var.kubernetes_version
  role_arn                  = aws_iam_role.cluster.arn
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  tags                      = local.tags

  vpc_config {
    subnet_ids              = [for subnet in aws_subnet.private : subnet.id]
    security_group_ids      = [aws_security_group.these["cluster"].id]
    endpoint_private_access = true
    endpoint_public_access  = false
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.these["data"].arn
    }
  }

  kubernetes_network_config {
    service_ipv4_cidr = "172.20.0.0/16"
  }

  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.these]
}

locals {
  # A directory for a region that is retired may have regions.yaml alone.
  scaling   = yamldecode(fileexists("${var.region_config}/scaling.yaml") ? file("${var.region_config}/scaling.yaml") : "autoscaler: {max: 100}")
  edges_max = max(local.scaling.autoscaler.max, [for entry in try(local.scaling.scheduled_scaling, []) : entry.max_capacity]...)
  # How many machines there are. Edges follow the autoscaler, which asks for machines by asking for pods.
  pools = merge(
    { node = { machine = local.cloud.machines.node, min = 2, max = 3, subnets = local.is_vault_alone ? "vault" : "private" } },
    # An edge asks for most of a machine, so there are as many at most as edges.
    local.is_vault_alone ? {} : { edge = { machine = local.cloud.machines.edge, min = 3, max = local.edges_max, subnets = "private" } },
    local.has_vault ? { vault = { machine = local.cloud.machines.vault, min = 2, max = 3, subnets = "vault" } } : {},
  )
  subnets_of = {
    private = [for subnet in aws_subnet.private : subnet.id]
    vault   = [for subnet in aws_subnet.vault : subnet.id]
  }
}

resource "aws_launch_template" "these" {
  for_each               = local.pools
  name                   = "${local.name}-${each.key}"
  instance_type          = each.value.machine
  vpc_security_group_ids = [aws_security_group.these[each.key].id]
  update_default_version = true

  # Whoever gets into a pod does not get the machine's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = 50
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = aws_kms_key.these[each.key == "vault" ? "vault" : "data"].arn
      delete_on_termination = true
    }
  }
}

resource "aws_eks_node_group" "these" {
  for_each        = local.pools
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.machine.arn
  subnet_ids      = local.subnets_of[each.value.subnets]
  labels          = { "paymesh/pool" = each.key }
  tags            = local.tags

  scaling_config {
    desired_size = each.value.min
    min_size     = each.value.min
    max_size     = each.value.max
  }

  launch_template {
    id      = aws_launch_template.these[each.key].id
    version = aws_launch_template.these[each.key].latest_version
  }

  lifecycle {
    # The cluster's autoscaler changes it.
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.machine]
}
