# What is public: the balancer of callers, which ends their TLS and begins another to an edge, and those of the mesh, which pass bytes on to where
# the other end of a connection is known by its certificate.
locals {
  callers = local.is_vault_alone ? 0 : 1
  # Kubernetes registers its pods by these names (deploy/kubernetes).
  group_name = { for kind in ["edge", "vault", "hooks", "node", "vnode"] : kind => "pm-${local.label}-${kind}" }

  # Source document, "ALB with Health Checks".
  health = { path = "/health", interval = 30, timeout = 5, healthy = 2, unhealthy = 3 }

  # Every name that leads here (root `global`): the region's own, that of all, and those of the zones whose callers come in here.
  entered_by        = sort([for name, zone in local.config.zones : name if try(zone.entry, "any") == "any" || contains(zone.regions, var.region)])
  certificate_names = concat(["${local.label}.api.${local.domain}", "api.${local.domain}"], [for name in local.entered_by : "${name}.api.${local.domain}"])
}

resource "aws_acm_certificate" "callers" {
  count                     = local.callers
  domain_name               = local.certificate_names[0]
  subject_alternative_names = slice(local.certificate_names, 1, length(local.certificate_names))
  validation_method         = "DNS"
  tags                      = merge(local.tags, { Name = local.name })

  lifecycle {
    create_before_destroy = true
  }
}

# The record by which AWS sees that the region's name is ours. Those of the other names are the same for every region, and root `global` has made them.
resource "aws_route53_record" "proof" {
  count           = var.zone_id == null ? 0 : local.callers
  zone_id         = var.zone_id
  name            = local.proof[0].resource_record_name
  type            = local.proof[0].resource_record_type
  records         = [local.proof[0].resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

locals {
  proof = [for proof in flatten([for certificate in aws_acm_certificate.callers : tolist(certificate.domain_validation_options)]) : proof if proof.domain_name == local.certificate_names[0]]
}

# A listener takes a certificate that is issued. Without a hosted zone somebody else has to make the records, and to apply again.
resource "aws_acm_certificate_validation" "callers" {
  count           = var.zone_id == null ? 0 : local.callers
  certificate_arn = aws_acm_certificate.callers[0].arn
  depends_on      = [aws_route53_record.proof]
}

resource "aws_lb" "callers" {
  count                      = local.callers
  name                       = "pm-${local.label}"
  internal                   = false
  load_balancer_type         = "application"
  security_groups            = [aws_security_group.these["callers"].id]
  subnets                    = [for subnet in aws_subnet.public : subnet.id]
  drop_invalid_header_fields = true
  enable_http2               = true
  idle_timeout               = 330 # A call may take five minutes.
  enable_deletion_protection = local.protected
  tags                       = merge(local.tags, { Name = "pm-${local.label}" })
}

# gRPC, in TLS to the edge as well. Where the region has a vault, the calls for it have a group of their own; elsewhere edges carry them on like any other. What gRPC's health service says is no HTTP path: here a process counts that answers at all, and which pods are ready is
# Kubernetes' to say, which takes the others out of the group.
resource "aws_lb_target_group" "grpc" {
  for_each             = local.is_vault_alone ? toset([]) : toset(local.has_vault ? ["edge", "vault"] : ["edge"])
  name                 = local.group_name[each.key]
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  port                 = local.grpc
  protocol             = "HTTPS"
  protocol_version     = "GRPC"
  deregistration_delay = 30
  tags                 = merge(local.tags, { Name = local.group_name[each.key] })

  health_check {
    path                = "/grpc.health.v1.Health/Check"
    port                = local.grpc
    protocol            = "HTTPS"
    matcher             = "0"
    interval            = local.health.interval
    timeout             = local.health.timeout
    healthy_threshold   = local.health.healthy
    unhealthy_threshold = local.health.unhealthy
  }
}

resource "aws_lb_target_group" "hooks" {
  count                = local.callers
  name                 = local.group_name.hooks
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  port                 = local.http
  protocol             = "HTTP"
  deregistration_delay = 30
  tags                 = merge(local.tags, { Name = local.group_name.hooks })

  health_check {
    path                = local.health.path
    port                = local.http
    protocol            = "HTTP"
    matcher             = "200"
    interval            = local.health.interval
    timeout             = local.health.timeout
    healthy_threshold   = local.health.healthy
    unhealthy_threshold = local.health.unhealthy
  }
}

resource "aws_lb_listener" "callers" {
  count             = local.callers
  load_balancer_arn = aws_lb.callers[0].arn
  port              = 443
  protocol          = "HTTPS"
  # TLS 1.3, and 1.2 for those who have no 1.3: Route 53's health checks, and the CDN as it asks an origin.
  ssl_policy      = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn = var.zone_id == null ? aws_acm_certificate.callers[0].arn : aws_acm_certificate_validation.callers[0].certificate_arn

  # What is not in the contract is for nobody outside: gRPC's own health, which the balancer asks by itself, and reflection.
  default_action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }
}

locals {
  rules = local.is_vault_alone ? {} : merge(
    local.has_vault ? { vault = { priority = 10, path = "/paymesh.vault.v1.VaultService/*", group = "vault" } } : {},
    {
      hooks = { priority = 20, path = "/api/v1/webhooks/*", group = "hooks" }
      # Whether the region is there, for the health checks of its name.
      health = { priority = 30, path = "/health", group = "hooks" }
      calls  = { priority = 40, path = "/paymesh.*", group = "edge" }
    },
  )
}

resource "aws_lb_listener_rule" "these" {
  for_each     = local.rules
  listener_arn = aws_lb_listener.callers[0].arn
  priority     = each.value.priority

  action {
    type             = "forward"
    target_group_arn = each.value.group == "hooks" ? aws_lb_target_group.hooks[0].arn : aws_lb_target_group.grpc[each.value.group].arn
  }
  condition {
    path_pattern {
      values = [each.value.path]
    }
  }
}

# The mesh's own: TCP, so that both ends of the TLS are nodes.
locals {
  meshes = merge(
    local.is_vault_alone ? {} : { mesh = "node" },
    local.has_vault ? { vmesh = "vnode" } : {},
  )
}

resource "aws_lb" "mesh" {
  for_each                         = local.meshes
  name                             = "pm-${local.label}-${each.key}"
  internal                         = false
  load_balancer_type               = "network"
  security_groups                  = [aws_security_group.these[each.key].id]
  subnets                          = [for subnet in aws_subnet.public : subnet.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = local.protected
  tags                             = merge(local.tags, { Name = "pm-${local.label}-${each.key}" })
}

resource "aws_lb_target_group" "mesh" {
  for_each             = local.meshes
  name                 = local.group_name[each.value]
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  port                 = local.grpc
  protocol             = "TCP"
  deregistration_delay = 30
  # A node counts connections by address: seen as the balancer's, all of the world would have those of three.
  preserve_client_ip = true
  tags               = merge(local.tags, { Name = local.group_name[each.value] })

  # Whether the process lives, and not how it does: there is one, which tells its peers in words what it cannot do. A balancer that counts it out breaks the connections that it still serves
  # by, and a pod that is not ready is not replaced by a new one. A network balancer counts up and down alike.
  health_check {
    path                = "/metrics"
    port                = local.http
    protocol            = "HTTP"
    interval            = local.health.interval
    healthy_threshold   = local.health.unhealthy
    unhealthy_threshold = local.health.unhealthy
  }
}

resource "aws_lb_listener" "mesh" {
  for_each          = local.meshes
  load_balancer_arn = aws_lb.mesh[each.key].arn
  port              = local.grpc
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.mesh[each.key].arn
  }
}

# The region's own names. Those of the whole mesh lead to them (root `global`).
locals {
  dns_names = var.zone_id == null ? {} : merge(
    local.is_vault_alone ? {} : { "${local.label}.api" = { name = try(aws_lb.callers[0].dns_name, ""), zone = try(aws_lb.callers[0].zone_id, "") } },
    local.is_vault_alone ? {} : { "${local.label}.nodes" = { name = try(aws_lb.mesh["mesh"].dns_name, ""), zone = try(aws_lb.mesh["mesh"].zone_id, "") } },
    local.has_vault ? { "${local.label}-vault.nodes" = { name = try(aws_lb.mesh["vmesh"].dns_name, ""), zone = try(aws_lb.mesh["vmesh"].zone_id, "") } } : {},
  )
}

resource "aws_route53_record" "region" {
  for_each = local.dns_names
  zone_id  = var.zone_id
  name     = "${each.key}.${local.domain}"
  type     = "A"

  alias {
    name                   = each.value.name
    zone_id                = each.value.zone
    evaluate_target_health = true
  }
}
