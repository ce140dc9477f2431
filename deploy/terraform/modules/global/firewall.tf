# Before the CDN, where it is asked for.
resource "aws_wafv2_web_acl" "this" {
  provider    = aws.us_east_1
  count       = var.firewall ? 1 : 0
  name        = "paymesh-cdn"
  description = "Common rules of AWS, and a limit by address"
  scope       = "CLOUDFRONT"
  tags        = local.tags

  default_action {
    allow {}
  }

  rule {
    name     = "common"
    priority = 10
    override_action {
      none {}
    }
    statement {
      managed_rule_group_statement {
        name        = "AWSManagedRulesCommonRuleSet"
        vendor_name = "AWS"
      }
    }
    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "paymesh-cdn-common"
      sampled_requests_enabled   = false
    }
  }

  rule {
    name     = "by-address"
    priority = 20
    action {
      block {}
    }
    statement {
      rate_based_statement {
        limit              = var.requests_per_address
        aggregate_key_type = "IP"
      }
    }
    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "paymesh-cdn-by-address"
      sampled_requests_enabled   = false
    }
  }

  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = "paymesh-cdn"
    # Samples have the headers of requests in them.
    sampled_requests_enabled = false
  }
}
