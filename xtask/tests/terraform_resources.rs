//! What Terraform makes is what its policies know. A policy (`modules/*/tests`) looks at resources by their addresses: one that is new is looked at by none, and
//! could be public, a copy of data elsewhere, or a way around. So a new one belongs here, and with it an assertion there, or a reason why none is needed.

#![forbid(unsafe_code)]

use std::{fs, path::Path};

/// Of the data and networks: `TYPE.NAME`, without `aws_`.
const REGION: &str = "acm_certificate.callers acm_certificate_validation.callers cloudwatch_log_group.these cloudwatch_metric_alarm.these db_instance.master
    db_instance.replica db_instance.vault db_parameter_group.this db_parameter_group.vault db_subnet_group.data db_subnet_group.vault
    default_security_group.this ebs_encryption_by_default.this eip.nat eks_cluster.this eks_node_group.these elasticache_replication_group.this
    elasticache_subnet_group.this flow_log.this iam_openid_connect_provider.cluster iam_role.account iam_role.cluster iam_role.machine iam_role.paths
    iam_role_policy.paths iam_role_policy.secrets iam_role_policy_attachment.cluster iam_role_policy_attachment.machine internet_gateway.this
    kms_alias.these kms_key.these launch_template.these lb.callers lb.mesh lb_listener.callers lb_listener.mesh lb_listener_rule.these
    lb_target_group.grpc lb_target_group.hooks lb_target_group.mesh msk_cluster.this msk_configuration.this nat_gateway.this route.nat route.out
    route53_record.proof route53_record.region route_table.data route_table.private route_table.public route_table_association.data
    route_table_association.private route_table_association.public route_table_association.vault secretsmanager_secret.these security_group.these
    security_group_rule.in security_group_rule.names_in security_group_rule.names_out security_group_rule.out sns_topic.alarms ssm_parameter.topics
    subnet.data subnet.private subnet.public subnet.vault vpc.this";

/// Of names and the CDN.
const GLOBAL: &str = "acm_certificate.cdn acm_certificate_validation.cdn cloudfront_distribution.this cloudfront_origin_access_identity.static
    route53_health_check.region route53_record.cdn route53_record.nearest route53_record.proof route53_zone.this s3_bucket.static s3_bucket_policy.static
    s3_bucket_public_access_block.static wafv2_web_acl.this";

/// What no policy could see: it stands within a resource, and adds to what another says.
const NOWHERE: [&str; 6] = ["ingress", "egress", "route {", "associate_public_ip_address", "network_interfaces {", "managed_policy_arns"];

fn sources(module: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/terraform/modules").join(module);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|extension| extension == "tf"));
    files.map(|path| fs::read_to_string(path).expect("a source") + "\n").collect()
}

/// Every resource of a module, in order.
fn resources(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let mut words = line.strip_prefix("resource ")?.split('"');
        let (kind, name) = (words.nth(1)?, words.nth(1)?);
        Some(format!("{}.{name}", kind.strip_prefix("aws_").unwrap_or(kind)))
    };
    let mut found: Vec<String> = text.lines().filter_map(of_line).collect();
    found.sort_unstable();
    found
}

#[test]
fn every_resource_is_one_that_policies_know() {
    for (module, known) in [("region", REGION), ("global", GLOBAL), ("facts", "")] {
        let text = sources(module);
        assert_eq!(resources(&text), known.split_whitespace().collect::<Vec<_>>(), "modules/{module}");
        // Indented or not, a block begins a line.
        assert_eq!(
            text.matches("resource \"").count(),
            known.split_whitespace().count(),
            "modules/{module}: a resource does not begin its line"
        );
        for word in NOWHERE {
            assert!(!text.lines().any(|line| line.trim_start().starts_with(word)), "modules/{module}: `{word}`");
        }
    }
}

/// The world is named in two rules, which policies hold against a list, and in two routes: of the public subnets, and out through a gateway.
#[test]
fn the_world_is_named_where_policies_look() {
    let named: usize = ["region", "global", "facts"].map(|module| sources(module).matches("0.0.0.0/0").count()).iter().sum();
    assert_eq!((named, sources("region").matches("::/0").count()), (4, 0));
}

/// RDS makes no replica of a database whose password it keeps itself, and a password that Terraform keeps is in a state. No plan shows either.
#[test]
fn a_master_has_a_password_that_nobody_keeps() {
    let text = sources("region");
    let master =
        text.split("resource \"aws_db_instance\" \"master\"").nth(1).and_then(|rest| rest.split("\n}").next()).expect("there is one");
    assert!(master.contains("password_wo ") && !master.contains("manage_master_user_password"), "{master}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("password ")), "a password would be in a state");
}
