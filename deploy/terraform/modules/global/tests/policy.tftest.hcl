# What must hold of names and the CDN. Nothing of AWS is asked: the provider is mocked, and only plans are looked at.
# Each region's check is told from the others by its id.
mock_provider "aws" {
  override_during = plan
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_cloudfront_origin_access_identity" {
    defaults = { iam_arn = "arn:aws:iam::cloudfront:user/CloudFront Origin Access Identity E1" }
  }
  mock_resource "aws_route53_health_check" {
    defaults = { id = "11111111-1111-1111-1111-111111111111" }
  }
}

mock_provider "aws" {
  alias           = "us_east_1"
  override_during = plan
  mock_resource "aws_acm_certificate" {
    defaults = {
      arn = "arn:aws:acm:us-east-1:123456789012:certificate/1"
      domain_validation_options = [
        { domain_name = "cdn.pay.example.com", resource_record_name = "_1.cdn.pay.example.com.", resource_record_type = "CNAME", resource_record_value = "_2.acm-validations.aws." },
        { domain_name = "api.pay.example.com", resource_record_name = "_1.api.pay.example.com.", resource_record_type = "CNAME", resource_record_value = "_2.acm-validations.aws." },
        { domain_name = "eu.api.pay.example.com", resource_record_name = "_1.eu.api.pay.example.com.", resource_record_type = "CNAME", resource_record_value = "_2.acm-validations.aws." },
        { domain_name = "global.api.pay.example.com", resource_record_name = "_1.global.api.pay.example.com.", resource_record_type = "CNAME", resource_record_value = "_2.acm-validations.aws." },
      ]
    }
  }
  mock_resource "aws_acm_certificate_validation" {
    defaults = { certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/1" }
  }
  mock_resource "aws_wafv2_web_acl" {
    defaults = { arn = "arn:aws:wafv2:us-east-1:123456789012:global/webacl/paymesh-cdn/1" }
  }
}

override_resource {
  target          = aws_route53_health_check.region["us_east"]
  override_during = plan
  values          = { id = "us_east" }
}

override_resource {
  target          = aws_route53_health_check.region["us_west"]
  override_during = plan
  values          = { id = "us_west" }
}

override_resource {
  target          = aws_route53_health_check.region["eu_west"]
  override_during = plan
  values          = { id = "eu_west" }
}

override_resource {
  target          = aws_route53_health_check.region["asia_pacific"]
  override_during = plan
  values          = { id = "asia_pacific" }
}

variables {
  region_config = "../../../../region-config"
}

run "names_of_eu_lead_to_regions_of_eu_alone" {
  command = plan
  assert {
    condition     = output.leads_to["eu.api"] == ["eu_west"] && [for record in aws_route53_record.nearest : record.records if record.name == "eu.api.pay.example.com"] == [toset(["eu-west.api.pay.example.com"])]
    error_message = "a caller of eu may be led out of it"
  }
  assert {
    condition     = toset(output.leads_to["api"]) == toset(keys(module.facts.facts.config.regions)) && toset(output.leads_to["global.api"]) == toset(keys(module.facts.facts.config.regions))
    error_message = "a region takes every call, and is not led to"
  }
}

run "the_nearest_region_that_is_healthy_is_led_to" {
  command = plan
  assert {
    condition     = { for name, check in aws_route53_health_check.region : name => check.fqdn } == { us_east = "us-east.api.pay.example.com", us_west = "us-west.api.pay.example.com", eu_west = "eu-west.api.pay.example.com", asia_pacific = "asia-pacific.api.pay.example.com" }
    error_message = "the health of another region is looked at"
  }
  assert {
    condition     = alltrue([for record in aws_route53_record.nearest : record.health_check_id == record.set_identifier && record.records == toset(["${replace(record.set_identifier, "_", "-")}.api.pay.example.com"])])
    error_message = "a record leads elsewhere, or goes by another's health"
  }
  assert {
    condition     = alltrue([for name, record in aws_route53_record.nearest : record.latency_routing_policy[0].region == module.facts.facts.config.cloud.regions[record.set_identifier].aws_region && record.health_check_id != ""])
    error_message = "a record is not by latency, or not looked after"
  }
  assert {
    condition     = alltrue([for check in aws_route53_health_check.region : check.type == "HTTPS" && check.resource_path == "/health"])
    error_message = "health is looked at in clear, or elsewhere"
  }
}

run "calls_are_never_cached_and_files_for_a_day" {
  command = plan
  assert {
    condition     = alltrue([for behaviour in aws_cloudfront_distribution.this.ordered_cache_behavior : behaviour.min_ttl == 0 && behaviour.default_ttl == 0 && behaviour.max_ttl == 0 && behaviour.forwarded_values[0].headers == toset(["Authorization", "X-Request-ID"]) && behaviour.target_origin_id == "api" if behaviour.path_pattern == "/api/*"])
    error_message = "an answer to a call is cached, or its headers are not forwarded"
  }
  assert {
    condition     = alltrue([for behaviour in aws_cloudfront_distribution.this.ordered_cache_behavior : behaviour.default_ttl == 86400 && behaviour.compress && behaviour.target_origin_id == "static" if behaviour.path_pattern != "/api/*"])
    error_message = "files are not kept for a day, or not compressed"
  }
  assert {
    condition     = [for behaviour in aws_cloudfront_distribution.this.ordered_cache_behavior : behaviour.path_pattern] == ["/static/*", "/js/*", "/css/*", "/api/*"]
    error_message = "paths are others than those of the source document"
  }
  assert {
    condition     = aws_cloudfront_distribution.this.default_cache_behavior[0].max_ttl == 0 && aws_cloudfront_distribution.this.default_cache_behavior[0].target_origin_id == "static"
    error_message = "what no path is for is a call"
  }
}

run "nothing_goes_in_clear_and_no_file_is_public" {
  command = plan
  assert {
    condition     = alltrue([for behaviour in concat(aws_cloudfront_distribution.this.ordered_cache_behavior, aws_cloudfront_distribution.this.default_cache_behavior) : behaviour.viewer_protocol_policy == "https-only"])
    error_message = "a path is served in clear"
  }
  assert {
    condition     = aws_cloudfront_distribution.this.viewer_certificate[0].minimum_protocol_version == "TLSv1.2_2021" && alltrue(flatten([for origin in aws_cloudfront_distribution.this.origin : [for custom in origin.custom_origin_config : custom.origin_protocol_policy == "https-only"]]))
    error_message = "an older TLS is spoken, or the origin is asked in clear"
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.static.block_public_acls && aws_s3_bucket_public_access_block.static.block_public_policy && aws_s3_bucket_public_access_block.static.ignore_public_acls && aws_s3_bucket_public_access_block.static.restrict_public_buckets
    error_message = "the bucket can be public"
  }
  assert {
    condition     = alltrue(flatten([for statement in data.aws_iam_policy_document.static.statement : [for action in statement.actions : action == "s3:GetObject"]]))
    error_message = "the CDN may do more than read files"
  }
  assert {
    condition     = flatten([for statement in data.aws_iam_policy_document.static.statement : [for principals in statement.principals : principals.identifiers]]) == [aws_cloudfront_origin_access_identity.static.iam_arn]
    error_message = "somebody else reads the files"
  }
  assert {
    condition     = flatten([for origin in aws_cloudfront_distribution.this.origin : origin.domain_name if origin.origin_id == "api"]) == ["api.pay.example.com"]
    error_message = "calls go to somebody else"
  }
}

run "a_region_is_led_to_once_region_config_has_it" {
  command = plan
  variables {
    region_config = "../facts/tests/sound"
  }
  assert {
    condition     = toset(output.leads_to["api"]) == toset(["us_east", "us_west", "eu_west"]) && output.leads_to["eu.api"] == ["eu_west"]
    error_message = "regions come from somewhere else than region-config"
  }
}

run "a_firewall_stands_before_the_cdn_where_it_is_asked_for" {
  command = plan
  variables {
    firewall = true
  }
  assert {
    condition     = length(aws_wafv2_web_acl.this) == 1 && alltrue([for rule in aws_wafv2_web_acl.this[0].rule : length(rule.action) == 0 || length(rule.action[0].count) == 0]) && aws_wafv2_web_acl.this[0].scope == "CLOUDFRONT" && aws_cloudfront_distribution.this.web_acl_id != null
    error_message = "there is none"
  }
  assert {
    condition     = can(regex("^[A-Za-z0-9_+=:#@/,.-][A-Za-z0-9_+=:#@/,. -]+[A-Za-z0-9_+=:#@/,.-]$", aws_wafv2_web_acl.this[0].description))
    error_message = "WAF refuses a character of the description"
  }
}
