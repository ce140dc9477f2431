# Who may speak to whom, one line for each: everything that is not here is refused. AWS takes no apostrophe in the description of a group.
locals {
  groups = merge(
    {
      cluster = "The control plane of Kubernetes"
      node    = "Machines of the node of the region"
      edge    = "Machines of its edges"
    },
    local.is_vault_alone ? {} : { callers = "The balancer that callers reach" },
    local.is_vault_alone ? {} : { mesh = "The balancer that other regions reach the node by" },
    local.has_vault ? { vault = "Machines of the vault", vmesh = "The balancer that the vault is reached by" } : {},
    local.has_database ? { database = "The database of journals" } : {},
    local.has_vault_database ? { vaultdb = "The database of the vault" } : {},
    local.has_cache ? { cache = "Redis" } : {},
    local.has_stream ? { stream = "Kafka" } : {},
  )

  grpc = 7100
  http = 7200

  # from, to, port. `world` is everybody, and `aws` what is outside of the network.
  paths = [
    ["world", "callers", 443],
    ["world", "mesh", local.grpc],
    ["world", "vmesh", local.grpc],
    ["callers", "edge", local.grpc],
    ["callers", "edge", local.http],
    ["mesh", "node", local.grpc],
    ["mesh", "node", local.http],
    ["vmesh", "vault", local.grpc],
    ["vmesh", "vault", local.http],
    ["edge", "node", local.grpc],
    ["edge", "vault", local.grpc],
    ["node", "vault", local.grpc],
    # What the cluster needs itself runs beside the node, on machines of which there are several (deploy/kubernetes/README.md says how it is kept there): Prometheus, who looks at
    # edges and vaults; what measures processors (metrics-server, at the agents, which answers at 10250 or, as EKS' own, at 10251); webhooks; and what brings figures from Prometheus to the autoscaler.
    ["node", "node", local.http],
    ["node", "edge", local.http],
    ["node", "vault", local.http],
    ["node", "node", 10250],
    ["node", "edge", 10250],
    ["node", "vault", 10250],
    ["node", "node", 9443],
    ["node", "node", 6443],
    ["node", "node", 9090],
    ["node", "database", 5432],
    ["vault", "vaultdb", 5432],
    ["node", "cache", 6379],
    ["node", "stream", 9094],
    # Kubernetes: its API, its agents, and what it asks in the cluster (webhooks).
    ["node", "cluster", 443],
    ["edge", "cluster", 443],
    ["vault", "cluster", 443],
    ["cluster", "node", 10250],
    ["cluster", "edge", 10250],
    ["cluster", "vault", 10250],
    ["cluster", "node", 10251],
    ["cluster", "node", 9443],
    ["cluster", "node", 6443],
    # Other regions' nodes and vaults, acquirers, and the services of AWS.
    ["node", "aws", 443],
    ["edge", "aws", 443],
    ["vault", "aws", 443],
    ["node", "aws", local.grpc],
    ["edge", "aws", local.grpc],
    # A vault asks the directory's home whose a user is, and tells users' homes what became of their cards: at the balancers of those nodes.
    ["vault", "aws", local.grpc],
  ]
  # Names are looked up at CoreDNS, which runs beside the node, on any of its machines.
  asks_names = [for group in ["node", "edge", "vault"] : group if contains(keys(local.groups), group)]

  known = concat(keys(local.groups), ["world", "aws"])
  open  = [for path in local.paths : { from = path[0], to = path[1], port = path[2] } if contains(local.known, path[0]) && contains(local.known, path[1])]
}

resource "aws_security_group" "these" {
  for_each    = local.groups
  name        = "${local.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${local.name}-${each.key}" })
}

resource "aws_security_group_rule" "in" {
  for_each                 = { for path in local.open : "${path.from}-${path.to}-${path.port}" => path if path.to != "aws" }
  type                     = "ingress"
  description              = "from ${each.value.from}"
  security_group_id        = aws_security_group.these[each.value.to].id
  protocol                 = "tcp"
  from_port                = each.value.port
  to_port                  = each.value.port
  source_security_group_id = each.value.from == "world" ? null : aws_security_group.these[each.value.from].id
  cidr_blocks              = each.value.from == "world" ? ["0.0.0.0/0"] : null
}

resource "aws_security_group_rule" "out" {
  for_each                 = { for path in local.open : "${path.from}-${path.to}-${path.port}" => path if path.from != "world" }
  type                     = "egress"
  description              = "to ${each.value.to}"
  security_group_id        = aws_security_group.these[each.value.from].id
  protocol                 = "tcp"
  from_port                = each.value.port
  to_port                  = each.value.port
  source_security_group_id = each.value.to == "aws" ? null : aws_security_group.these[each.value.to].id
  cidr_blocks              = each.value.to == "aws" ? ["0.0.0.0/0"] : null
}

resource "aws_security_group_rule" "names_in" {
  for_each                 = { for pair in setproduct(local.asks_names, ["tcp", "udp"]) : "${pair[0]}-${pair[1]}" => { group = pair[0], protocol = pair[1] } }
  type                     = "ingress"
  description              = "names, for ${each.value.group}"
  security_group_id        = aws_security_group.these["node"].id
  protocol                 = each.value.protocol
  from_port                = 53
  to_port                  = 53
  source_security_group_id = aws_security_group.these[each.value.group].id
}

resource "aws_security_group_rule" "names_out" {
  for_each                 = { for pair in setproduct(local.asks_names, ["tcp", "udp"]) : "${pair[0]}-${pair[1]}" => { group = pair[0], protocol = pair[1] } }
  type                     = "egress"
  description              = "names, of CoreDNS"
  security_group_id        = aws_security_group.these[each.value.group].id
  protocol                 = each.value.protocol
  from_port                = 53
  to_port                  = 53
  source_security_group_id = aws_security_group.these["node"].id
}
