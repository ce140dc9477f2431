# What must hold of every region, whatever is changed. Nothing of AWS is asked: the provider is mocked, and only plans are looked at.
mock_provider "aws" {
  override_during = plan

  mock_data "aws_availability_zones" {
    defaults = { names = ["a", "b", "c"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/11111111-1111-1111-1111-111111111111", key_id = "11111111-1111-1111-1111-111111111111" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:one" }
  }
  mock_resource "aws_eks_cluster" {
    defaults = { identity = [{ oidc = [{ issuer = "https://oidc.example/id" }] }] }
  }
}

# Each is told from the others: what is compared is which.
override_resource {
  target          = aws_kms_key.these["data"]
  override_during = plan
  values          = { arn = "arn:aws:kms:eu-west-1:123456789012:key/data", key_id = "data" }
}

override_resource {
  target          = aws_kms_key.these["vault"]
  override_during = plan
  values          = { arn = "arn:aws:kms:eu-west-1:123456789012:key/vault", key_id = "vault" }
}

override_resource {
  target          = aws_security_group.these["node"]
  override_during = plan
  values          = { id = "node" }
}

override_resource {
  target          = aws_security_group.these["edge"]
  override_during = plan
  values          = { id = "edge" }
}

override_resource {
  target          = aws_security_group.these["vault"]
  override_during = plan
  values          = { id = "vault" }
}

override_resource {
  target          = aws_security_group.these["database"]
  override_during = plan
  values          = { id = "database" }
}

override_resource {
  target          = aws_security_group.these["vaultdb"]
  override_during = plan
  values          = { id = "vaultdb" }
}

override_resource {
  target          = aws_security_group.these["callers"]
  override_during = plan
  values          = { id = "callers" }
}

override_resource {
  target          = aws_security_group.these["mesh"]
  override_during = plan
  values          = { id = "mesh" }
}

override_resource {
  target          = aws_security_group.these["vmesh"]
  override_during = plan
  values          = { id = "vmesh" }
}

override_resource {
  target          = aws_security_group.these["cluster"]
  override_during = plan
  values          = { id = "cluster" }
}

override_resource {
  target          = aws_security_group.these["cache"]
  override_during = plan
  values          = { id = "cache" }
}

override_resource {
  target          = aws_security_group.these["stream"]
  override_during = plan
  values          = { id = "stream" }
}

override_resource {
  target          = aws_route_table.public
  override_during = plan
  values          = { id = "public" }
}

override_resource {
  target          = aws_route_table.data
  override_during = plan
  values          = { id = "data" }
}

override_resource {
  target          = aws_secretsmanager_secret.these["acquirers"]
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:acquirers" }
}

override_resource {
  target          = aws_secretsmanager_secret.these["vault-acquirers"]
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:vault-acquirers" }
}

override_resource {
  target          = aws_secretsmanager_secret.these["vault-pin"]
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:vault-pin" }
}

variables {
  region_config = "../../../../region-config"
  region        = "eu_west"
}

run "an_eu_regions_data_does_not_leave_its_zone" {
  command = plan

  assert {
    condition     = length(aws_db_instance.replica) == 0
    error_message = "the database of eu_west is a master, and there is no replica of it here"
  }
  assert {
    condition     = alltrue([for key in aws_kms_key.these : try(key.multi_region, false) != true && key.enable_key_rotation])
    error_message = "a key can be copied out of its zone, or is never changed"
  }
  assert {
    condition     = contains(module.facts.facts.config.zones.eu.aws_regions, output.region.aws_region)
    error_message = "it lies outside of its zone"
  }
  # Backups are where their database is: nothing copies them on.
  assert {
    condition     = aws_db_instance.master[0].backup_retention_period >= 7 && aws_db_instance.vault[0].backup_retention_period <= 7
    error_message = "journals have backups for a week at least, and those of a vault are gone after one"
  }
  assert {
    condition     = alltrue([for database in concat(aws_db_instance.master, aws_db_instance.vault) : database.multi_az])
    error_message = "a database is in one zone of availability"
  }
  assert {
    condition     = alltrue([for database in concat(aws_db_instance.master, aws_db_instance.vault) : database.replicate_source_db == null])
    error_message = "a master is a replica"
  }
}

run "replicas_copy_a_master_of_their_own_zone" {
  command = plan
  variables {
    region = "us_west"
  }
  assert {
    condition     = length(aws_db_instance.master) == 0 && aws_db_instance.replica[0].replicate_source_db == "arn:aws:rds:us-east-1:123456789012:db:paymesh-us-east"
    error_message = "the replica of us_west is not of us_east"
  }
  assert {
    condition     = !aws_db_instance.replica[0].publicly_accessible && alltrue([for log in aws_db_instance.replica[0].enabled_cloudwatch_logs_exports : contains([for group in aws_cloudwatch_log_group.these : group.name], "/aws/rds/instance/paymesh-us-west/${log}")])
    error_message = "a replica is public, or its logs are under no key of the zone"
  }
  assert {
    condition     = aws_db_instance.replica[0].storage_encrypted && aws_db_instance.replica[0].kms_key_id == aws_kms_key.these["data"].arn
    error_message = "a replica is encrypted with its own region's key of the zone"
  }
  assert {
    condition     = length(aws_db_instance.vault) == 0 && length(aws_subnet.vault) == 0 && !contains(keys(aws_kms_key.these), "vault")
    error_message = "us_west has no vault, and nothing for one"
  }
}

run "nothing_is_public_but_the_balancers" {
  command = plan

  assert {
    condition     = alltrue([for database in concat(aws_db_instance.master, aws_db_instance.vault) : !database.publicly_accessible])
    error_message = "a database is public"
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access == false && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "the API of Kubernetes is public"
  }
  assert {
    condition = alltrue([
      for name, rule in aws_security_group_rule.in : contains(["world-callers-443", "world-mesh-7100", "world-vmesh-7100"], name) if try(length(rule.cidr_blocks), 0) > 0
    ])
    error_message = "the world reaches more than the listeners of the balancers"
  }
  assert {
    condition     = alltrue([for name, rule in aws_security_group_rule.in : rule.from_port == rule.to_port && rule.protocol == "tcp"])
    error_message = "a path is wider than a port"
  }
  assert {
    condition     = alltrue([for rule in aws_security_group_rule.names_in : rule.from_port == 53 && rule.to_port == 53 && try(length(rule.cidr_blocks), 0) == 0 && rule.security_group_id == "node" && contains(["node", "edge", "vault"], rule.source_security_group_id)])
    error_message = "names are answered to somebody else"
  }
  assert {
    condition     = { for name, rule in aws_lb_listener_rule.these : name => flatten([for condition in rule.condition : [for pattern in condition.path_pattern : pattern.values]]) } == { vault = ["/paymesh.vault.v1.VaultService/*"], hooks = ["/api/v1/webhooks/*"], health = ["/health"], calls = ["/paymesh.*"] } && aws_lb_listener.callers[0].default_action[0].type == "fixed-response"
    error_message = "the world reaches other paths of a process than those that are for it"
  }
  assert {
    condition     = aws_lb_listener.callers[0].port == 443 && alltrue([for listener in aws_lb_listener.mesh : listener.port == 7100]) && aws_lb.callers[0].drop_invalid_header_fields && aws_lb.callers[0].idle_timeout > 300
    error_message = "a balancer listens elsewhere, passes headers on that are none, or ends calls that may still be answered"
  }
  assert {
    condition     = alltrue([for rule in aws_security_group_rule.out : try(length(rule.cidr_blocks), 0) == 0 || contains([443, 7100], rule.to_port)]) && alltrue([for rule in aws_security_group_rule.names_out : try(length(rule.cidr_blocks), 0) == 0])
    error_message = "something leaves by another way than HTTPS and the mesh's own"
  }
  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.data), values(aws_subnet.vault), values(aws_subnet.public)) : try(subnet.map_public_ip_on_launch, false) != true])
    error_message = "machines get public addresses"
  }
  assert {
    condition     = length(aws_route_table_association.data) == 3 && alltrue([for association in aws_route_table_association.data : association.route_table_id == aws_route_table.data.id]) && aws_route.out.route_table_id != aws_route_table.data.id
    error_message = "the subnets of data have a way out"
  }
}

run "aws_takes_the_names_and_descriptions" {
  command = plan
  assert {
    condition     = alltrue([for group in aws_security_group.these : can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", group.description))])
    error_message = "the description of a security group has a character that EC2 refuses"
  }
  assert {
    condition     = alltrue([for rule in concat(values(aws_security_group_rule.in), values(aws_security_group_rule.out), values(aws_security_group_rule.names_in), values(aws_security_group_rule.names_out)) : can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", rule.description))])
    error_message = "the description of a rule has a character that EC2 refuses"
  }
}

# Kubernetes registers pods in these (deploy/kubernetes, test `load_balancers_are_bound_to_ports_that_are_there` has the same names).
run "a_region_with_a_vault_has_a_group_for_it" {
  command = plan
  assert {
    condition     = toset(values(output.target_groups)) == toset(["pm-eu-west-edge", "pm-eu-west-hooks", "pm-eu-west-node", "pm-eu-west-vault", "pm-eu-west-vnode"])
    error_message = "groups are others than those that pods are registered in"
  }
  assert {
    condition     = { for name, rule in local.rules : name => rule.group } == { vault = "vault", hooks = "hooks", health = "hooks", calls = "edge" }
    error_message = "calls go to another group"
  }
  assert {
    condition     = [aws_acm_certificate.callers[0].domain_name, aws_acm_certificate.callers[0].subject_alternative_names] == ["eu-west.api.pay.example.com", toset(["api.pay.example.com", "eu.api.pay.example.com", "global.api.pay.example.com"])]
    error_message = "a name leads here that the certificate does not have"
  }
  assert {
    condition     = alltrue([for group in aws_lb_target_group.mesh : group.preserve_client_ip == "true" && group.health_check[0].path == "/metrics" && group.health_check[0].port == "7200"])
    error_message = "peers have the balancer's address, or a node is counted out for what it does not do"
  }
  assert {
    condition     = aws_eks_node_group.these["edge"].scaling_config[0].max_size >= yamldecode(file("${var.region_config}/scaling.yaml")).autoscaler.max
    error_message = "there are fewer machines than edges"
  }
  assert {
    condition     = jsonencode({ for name, alarm in aws_cloudwatch_metric_alarm.these : name => keys(alarm.dimensions) if contains(["AWS/ElastiCache", "AWS/Kafka"], alarm.namespace) }) == jsonencode(merge({ for member in [1, 2, 3] : "cache_memory_${member}" => ["CacheClusterId", "CacheNodeId"] }, { for broker in range(1, local.kafka.brokers + 1) : "stream_disk_${broker}" => ["Broker ID", "Cluster Name"] }))
    error_message = "an alarm is about a figure that nobody sends"
  }
}

run "a_region_without_a_vault_has_none" {
  command = plan
  variables {
    region = "us_west"
  }
  assert {
    condition     = toset(values(output.target_groups)) == toset(["pm-us-west-edge", "pm-us-west-hooks", "pm-us-west-node"]) && !contains(keys(aws_lb_listener_rule.these), "vault")
    error_message = "calls for a vault go to a group without pods"
  }
  assert {
    condition     = aws_acm_certificate.callers[0].subject_alternative_names == toset(["api.pay.example.com", "global.api.pay.example.com"])
    error_message = "the certificate has other names than those that lead here"
  }
}

run "a_vault_alone_is_found_where_kubernetes_says" {
  command = plan
  variables {
    region        = "safe"
    region_config = "../facts/tests/vault_alone"
    zone_id       = "Z1"
  }
  assert {
    condition     = output.names == ["safe-vault.nodes.pay.example.com"] && toset(values(output.target_groups)) == toset(["pm-safe-vnode"])
    error_message = "peers look for it elsewhere, or pods are registered elsewhere"
  }
}

run "the_vault_is_reached_by_nodes_edges_and_its_balancer_alone" {
  command = plan
  assert {
    condition     = toset([for path in local.open : path.from if path.to == "vault"]) == toset(["vmesh", "edge", "node", "cluster"])
    error_message = "somebody else reaches the vault"
  }
  assert {
    condition     = toset([for path in local.open : path.from if path.to == "aws" && path.port == 7100]) == toset(["node", "edge", "vault"])
    error_message = "a process does not reach other regions' nodes: without them a vault does not know whose a user is"
  }
  assert {
    condition     = toset([for path in local.open : path.from if path.to == "vaultdb"]) == toset(["vault"])
    error_message = "somebody else reaches the vault's database"
  }
  assert {
    condition     = alltrue([for port in ["53-tcp", "53-udp"] : length([for rule in aws_security_group_rule.names_in : rule if rule.source_security_group_id == "node" && rule.protocol == split("-", port)[1]]) == 1])
    error_message = "machines beside each other do not find names on one another"
  }
  assert {
    condition     = length(setsubtract(toset(["node-edge-10250", "node-vault-10250", "node-node-10250", "cluster-node-6443"]), toset(keys(aws_security_group_rule.in)))) == 0
    error_message = "the autoscaler has no figures"
  }
  assert {
    condition     = toset([for path in local.open : path.from if path.to == "database"]) == toset(["node"])
    error_message = "somebody else reaches the journals' database"
  }
  assert {
    condition     = length(setintersection(toset(values(local.layers.vault)), toset(concat(values(local.layers.private), values(local.layers.data), values(local.layers.public))))) == 0
    error_message = "the vault shares subnets"
  }
  assert {
    condition     = aws_db_instance.vault[0].vpc_security_group_ids == toset(["vaultdb"]) && aws_db_instance.master[0].vpc_security_group_ids == toset(["database"])
    error_message = "a database is reached as another is"
  }
  assert {
    condition     = alltrue([for pool, template in aws_launch_template.these : template.vpc_security_group_ids == toset([pool])])
    error_message = "machines are reached as others are"
  }
  assert {
    condition     = aws_secretsmanager_secret.these["vault-pin"].kms_key_id == aws_kms_key.these["vault"].arn && aws_db_instance.master[0].kms_key_id == aws_kms_key.these["data"].arn
    error_message = "what is the vault's is under another's key, or the other way about"
  }
  assert {
    condition     = aws_db_instance.vault[0].kms_key_id == aws_kms_key.these["vault"].arn && aws_eks_node_group.these["vault"].labels["paymesh/pool"] == "vault"
    error_message = "the vault has no key or no machines of its own"
  }
}

run "everything_is_encrypted_at_rest_and_in_transit" {
  command = plan

  assert {
    condition     = alltrue([for database in concat(aws_db_instance.master, aws_db_instance.vault) : database.storage_encrypted && database.kms_key_id != null])
    error_message = "a database is not encrypted"
  }
  assert {
    condition     = alltrue([for group in concat(aws_db_parameter_group.this, aws_db_parameter_group.vault) : contains([for parameter in group.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1")])
    error_message = "a database takes connections in clear"
  }
  assert {
    condition     = tostring(aws_elasticache_replication_group.this[0].at_rest_encryption_enabled) == "true" && aws_elasticache_replication_group.this[0].transit_encryption_enabled && aws_elasticache_replication_group.this[0].kms_key_id != null
    error_message = "Redis is not encrypted"
  }
  assert {
    condition     = aws_msk_cluster.this[0].encryption_info[0].encryption_in_transit[0].client_broker == "TLS" && aws_msk_cluster.this[0].encryption_info[0].encryption_in_transit[0].in_cluster && aws_msk_cluster.this[0].encryption_info[0].encryption_at_rest_kms_key_arn != null
    error_message = "Kafka is not encrypted"
  }
  assert {
    condition     = aws_lb_listener.callers[0].protocol == "HTTPS" && aws_lb_listener.callers[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06" && alltrue([for group in aws_lb_target_group.grpc : group.protocol == "HTTPS"])
    error_message = "calls go in clear, in an older TLS than 1.2, or in one that Route 53's health checks do not speak"
  }
  assert {
    condition     = alltrue([for listener in aws_lb_listener.mesh : listener.protocol == "TCP"])
    error_message = "the balancers of the mesh end its TLS"
  }
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"]) && alltrue([for template in aws_launch_template.these : tostring(template.block_device_mappings[0].ebs[0].encrypted) == "true" && template.metadata_options[0].http_tokens == "required"])
    error_message = "secrets or volumes of the cluster are not encrypted"
  }
  assert {
    condition     = alltrue([for pool, template in aws_launch_template.these : template.block_device_mappings[0].ebs[0].kms_key_id == aws_kms_key.these[pool == "vault" ? "vault" : "data"].arn && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "a volume is under another key, or a pod gets the credentials of its machine"
  }
  assert {
    condition     = alltrue([for key in aws_kms_key.these : key.deletion_window_in_days == 30]) && alltrue([for secret in aws_secretsmanager_secret.these : secret.recovery_window_in_days == 30])
    error_message = "a key or a secret that is deleted by mistake is gone too soon"
  }
  assert {
    condition     = alltrue([for group in aws_cloudwatch_log_group.these : group.kms_key_id != null]) && alltrue([for secret in aws_secretsmanager_secret.these : secret.kms_key_id != null]) && aws_sns_topic.alarms.kms_master_key_id != null
    error_message = "logs, secrets or alarms are not encrypted"
  }
  assert {
    condition     = alltrue([for group in aws_cloudwatch_log_group.these : group.kms_key_id == aws_kms_key.these["data"].arn && group.retention_in_days == var.log_retention_days]) && alltrue([for log in aws_db_instance.master[0].enabled_cloudwatch_logs_exports : contains([for group in aws_cloudwatch_log_group.these : group.name], "/aws/rds/instance/paymesh-eu-west/${log}")])
    error_message = "a log is under no key of the zone, or kept for ever"
  }
  assert {
    condition     = contains([for parameter in aws_db_parameter_group.this[0].parameter : "${parameter.name}=${parameter.value}"], "log_parameter_max_length=0") && length(coalesce(aws_db_instance.vault[0].enabled_cloudwatch_logs_exports, [])) == 0
    error_message = "values of statements are logged"
  }
}

run "keys_are_used_by_who_is_named" {
  command = plan
  assert {
    condition = alltrue(flatten([
      for document in values(data.aws_iam_policy_document.key) : [for statement in document.statement : [for principals in statement.principals : [for principal in principals.identifiers : !strcontains(principal, "*")]]]
    ]))
    error_message = "anybody may use a key"
  }
  assert {
    condition = alltrue([
      for document in values(data.aws_iam_policy_document.key) : contains(flatten([for statement in document.statement : [for principals in statement.principals : principals.identifiers] if contains(statement.actions, "kms:CreateGrant") && length(statement.condition) == 1]), "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling")
    ])
    error_message = "no machine could be started: who starts them may not use the key of its volume"
  }
}

run "no_action_in_iam_has_a_wildcard" {
  command = plan
  assert {
    condition = alltrue(flatten([
      for document in concat(
        values(data.aws_iam_policy_document.key), values(data.aws_iam_policy_document.assume), values(data.aws_iam_policy_document.account),
        values(data.aws_iam_policy_document.secrets), [data.aws_iam_policy_document.paths, data.aws_iam_policy_document.paths_assume],
      ) : [for statement in document.statement : [for action in statement.actions : !strcontains(action, "*")]]
    ]))
    error_message = "an action has a wildcard"
  }
  assert {
    condition     = { for account, document in data.aws_iam_policy_document.secrets : account => [for arn in document.statement[0].resources : element(split(":", arn), 6)] } == { node = ["acquirers"], vault = ["vault-acquirers", "vault-pin"] } && { for account, document in data.aws_iam_policy_document.secrets : account => document.statement[1].resources } == { node = toset(["arn:aws:kms:eu-west-1:123456789012:key/data"]), vault = toset(["arn:aws:kms:eu-west-1:123456789012:key/vault"]) }
    error_message = "an account reads another's secrets"
  }
  assert {
    condition     = alltrue([for account, document in data.aws_iam_policy_document.account : contains(flatten([for condition in document.statement[0].condition : condition.values if endswith(condition.variable, ":sub") && condition.test == "StringEquals"]), "system:serviceaccount:paymesh:${account}") && length(document.statement[0].condition) == 2])
    error_message = "somebody else becomes an account"
  }
  assert {
    condition     = toset([for attachment in aws_iam_role_policy_attachment.machine : attachment.policy_arn]) == toset([for name in ["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly"] : "arn:aws:iam::aws:policy/${name}"]) && aws_iam_role_policy_attachment.cluster.policy_arn == "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    error_message = "machines or the control plane may do more"
  }
  assert {
    condition     = alltrue(flatten([for document in values(data.aws_iam_policy_document.secrets) : [for statement in document.statement : [for resource in statement.resources : resource != "*"]]]))
    error_message = "an account reads secrets of others"
  }
}

run "health_is_looked_at_as_the_source_document_says" {
  command = plan
  assert {
    condition     = alltrue([for group in concat(values(aws_lb_target_group.grpc), aws_lb_target_group.hooks) : group.health_check[0].interval == 30 && group.health_check[0].timeout == 5 && group.health_check[0].healthy_threshold == 2 && group.health_check[0].unhealthy_threshold == 3])
    error_message = "intervals, timeouts or thresholds are others"
  }
  assert {
    condition     = aws_lb_target_group.hooks[0].health_check[0].path == "/health"
    error_message = "the path of health is another"
  }
  assert {
    condition     = aws_lb_target_group.grpc["edge"].protocol_version == "GRPC" && aws_lb_target_group.grpc["vault"].protocol_version == "GRPC"
    error_message = "payments and the vault's calls are gRPC"
  }
}

run "kafka_is_as_region_config_says" {
  command = plan
  assert {
    condition     = aws_msk_cluster.this[0].number_of_broker_nodes == 9 && jsondecode(aws_ssm_parameter.topics[0].value)["payment_events"] == { partitions = 24, replication_factor = 3, retention_ms = 604800000 }
    error_message = "brokers or topics are others than those of the source document"
  }
}

run "engines_that_are_left_out_are_not_made" {
  command = plan
  variables {
    engines = []
  }
  assert {
    condition     = length(aws_db_instance.master) + length(aws_db_instance.vault) + length(aws_elasticache_replication_group.this) + length(aws_msk_cluster.this) == 0
    error_message = "an engine is made that nobody asked for"
  }
}

run "an_unknown_region_is_refused" {
  command = plan
  variables {
    region = "eu_wst"
  }
  expect_failures = [var.region]
}

run "a_regions_names_are_its_own" {
  command = plan
  variables {
    zone_id = "Z0123456789"
  }
  assert {
    condition     = toset([for record in aws_route53_record.region : record.name]) == toset(["eu-west.api.pay.example.com", "eu-west.nodes.pay.example.com", "eu-west-vault.nodes.pay.example.com"])
    error_message = "the names of the region are others"
  }
}

run "what_has_data_refuses_to_be_deleted_unless_region_config_or_who_retires_it_says_otherwise" {
  command = plan
  variables {
    region_config = "../facts/tests/sound"
  }
  assert {
    condition     = aws_db_instance.master[0].deletion_protection && !aws_db_instance.master[0].skip_final_snapshot && aws_db_instance.vault[0].deletion_protection && aws_lb.callers[0].enable_deletion_protection
    error_message = "it can be deleted by mistake"
  }
}
