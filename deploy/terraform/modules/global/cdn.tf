# The CDN (source document, "CDN for Static Content"): files for a day, and calls never.
locals {
  cdn_name = "cdn.${local.domain}"
  day      = 86400
}

# CloudFront takes certificates of this region of AWS only. The names of the whole mesh are in it too: the records by which AWS sees that they are ours are the same for
# the certificates of all regions, so they are made here, once, and go with no region.
resource "aws_acm_certificate" "cdn" {
  provider                  = aws.us_east_1
  domain_name               = local.cdn_name
  subject_alternative_names = sort([for name in keys(local.leads_to) : "${name}.${local.domain}"])
  validation_method         = "DNS"
  tags                      = merge(local.tags, { Name = local.cdn_name })

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  proofs = { for proof in aws_acm_certificate.cdn.domain_validation_options : proof.domain_name => proof }
}

resource "aws_route53_record" "proof" {
  for_each        = toset(concat([local.cdn_name], [for name in keys(local.leads_to) : "${name}.${local.domain}"]))
  zone_id         = aws_route53_zone.this.zone_id
  name            = local.proofs[each.key].resource_record_name
  type            = local.proofs[each.key].resource_record_type
  records         = [local.proofs[each.key].resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "cdn" {
  provider                = aws.us_east_1
  certificate_arn         = aws_acm_certificate.cdn.arn
  validation_record_fqdns = [for record in aws_route53_record.proof : record.fqdn]
}

resource "aws_s3_bucket" "static" {
  bucket = "${replace(local.domain, ".", "-")}-static"
  tags   = local.tags
}

resource "aws_s3_bucket_public_access_block" "static" {
  bucket                  = aws_s3_bucket.static.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_cloudfront_origin_access_identity" "static" {
  comment = "Reads the files of ${local.cdn_name}"
}

data "aws_iam_policy_document" "static" {
  statement {
    sid       = "Files"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.static.arn}/*"]
    principals {
      type        = "AWS"
      identifiers = [aws_cloudfront_origin_access_identity.static.iam_arn]
    }
  }
}

resource "aws_s3_bucket_policy" "static" {
  bucket     = aws_s3_bucket.static.id
  policy     = data.aws_iam_policy_document.static.json
  depends_on = [aws_s3_bucket_public_access_block.static]
}

resource "aws_cloudfront_distribution" "this" {
  comment         = "Files and calls of ${local.config.mesh}"
  enabled         = true
  aliases         = [local.cdn_name]
  price_class     = "PriceClass_All"
  http_version    = "http2"
  is_ipv6_enabled = true
  # It takes minutes until a change is everywhere, and nothing here waits for it.
  wait_for_deployment = false
  web_acl_id          = var.firewall ? aws_wafv2_web_acl.this[0].arn : null
  tags                = local.tags

  origin {
    origin_id   = "static"
    domain_name = aws_s3_bucket.static.bucket_regional_domain_name
    s3_origin_config {
      origin_access_identity = aws_cloudfront_origin_access_identity.static.cloudfront_access_identity_path
    }
  }

  origin {
    origin_id   = "api"
    domain_name = "api.${local.domain}"
    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
    }
  }

  # What no path below is for: files, which are not kept.
  default_cache_behavior {
    target_origin_id       = "static"
    allowed_methods        = ["GET", "HEAD"]
    cached_methods         = ["GET", "HEAD"]
    viewer_protocol_policy = "https-only"
    compress               = true
    min_ttl                = 0
    default_ttl            = 0
    max_ttl                = 0
    forwarded_values {
      query_string = false
      cookies {
        forward = "none"
      }
    }
  }

  dynamic "ordered_cache_behavior" {
    for_each = ["/static/*", "/js/*", "/css/*"]
    content {
      path_pattern           = ordered_cache_behavior.value
      target_origin_id       = "static"
      allowed_methods        = ["GET", "HEAD"]
      cached_methods         = ["GET", "HEAD"]
      viewer_protocol_policy = "https-only"
      compress               = true
      min_ttl                = local.day
      default_ttl            = local.day
      max_ttl                = local.day
      forwarded_values {
        query_string = false
        cookies {
          forward = "none"
        }
      }
    }
  }

  ordered_cache_behavior {
    path_pattern           = "/api/*"
    target_origin_id       = "api"
    allowed_methods        = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
    cached_methods         = ["GET", "HEAD"]
    viewer_protocol_policy = "https-only"
    compress               = false
    min_ttl                = 0
    default_ttl            = 0
    max_ttl                = 0
    forwarded_values {
      query_string = true
      headers      = ["Authorization", "X-Request-ID"]
      cookies {
        forward = "none"
      }
    }
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    acm_certificate_arn      = aws_acm_certificate_validation.cdn.certificate_arn
    ssl_support_method       = "sni-only"
    minimum_protocol_version = "TLSv1.2_2021"
  }
}

resource "aws_route53_record" "cdn" {
  zone_id = aws_route53_zone.this.zone_id
  name    = local.cdn_name
  type    = "A"

  alias {
    name                   = aws_cloudfront_distribution.this.domain_name
    zone_id                = aws_cloudfront_distribution.this.hosted_zone_id
    evaluate_target_health = false
  }
}
