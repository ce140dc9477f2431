//! What must hold of everything that would run in a cluster.

use std::collections::BTreeSet;

use paymesh_topology::{Scaling, Topology};
use serde_json::{Value, json};

use crate::built::{self, Documents, array, name, selects};

/// What is wrong with one region's documents, by rule.
fn wrong(documents: &Documents) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    for (owner, pod) in documents.pods() {
        let spec = &pod["spec"];
        let security = &spec["securityContext"];
        demand(security["runAsNonRoot"] == true, format!("{owner}: may run as root"));
        demand(security["runAsUser"].as_u64().is_some_and(|user| user >= 10_000), format!("{owner}: has no user of its own"));
        demand(security["seccompProfile"]["type"] == "RuntimeDefault", format!("{owner}: every system call is open"));
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            demand(spec[host].is_null(), format!("{owner}: {host}"));
        }
        demand(!spec["serviceAccountName"].is_null(), format!("{owner}: runs as the namespace's default account"));
        let volumes = array(&spec["volumes"]);
        demand(volumes.iter().all(|volume| volume["hostPath"].is_null()), format!("{owner}: has a folder of its machine"));
        for container in array(&spec["containers"]).iter().chain(array(&spec["initContainers"])) {
            let security = &container["securityContext"];
            demand(security["readOnlyRootFilesystem"] == true, format!("{owner}: writes to its image"));
            demand(security["allowPrivilegeEscalation"] == false, format!("{owner}: may become more"));
            demand(security["privileged"].is_null(), format!("{owner}: privileged"));
            demand(security["capabilities"] == json!({"drop": ["ALL"]}), format!("{owner}: keeps capabilities"));
            for (kind, what) in [("limits", "memory"), ("requests", "memory"), ("requests", "cpu")] {
                demand(container["resources"][kind][what].is_string(), format!("{owner}: has no {kind} of {what}"));
            }
        }
        let policies =
            || documents.of_kind("NetworkPolicy").filter(|policy| selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"]));
        for direction in ["Ingress", "Egress"] {
            let named = |policy: &&Value| array(&policy["spec"]["policyTypes"]).contains(&json!(direction));
            demand(policies().any(|policy| named(&policy)), format!("{owner}: no policy says what its {direction} is"));
        }
    }
    for (owner, pod) in documents.processes() {
        let spec = &pod["spec"];
        // Every process of a mesh asks others: without a way to them, a vault does not know whose a user is, and a node has no copies.
        let elsewhere = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}});
        let leads_there = |rule: &Value| {
            array(&rule["to"]).contains(&elsewhere) && array(&rule["ports"]).contains(&json!({"protocol": "TCP", "port": 7100}))
        };
        let reaches = documents
            .of_kind("NetworkPolicy")
            .filter(|policy| selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"]))
            .any(|policy| array(&policy["spec"]["egress"]).iter().any(leads_there));
        demand(reaches, format!("{owner}: does not reach other regions' nodes"));
        demand(spec["automountServiceAccountToken"] == false, format!("{owner}: has a token of the cluster's"));
        for container in array(&spec["containers"]) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                demand(!container[probe].is_null(), format!("{owner}: has no {probe}"));
            }
        }
        let grace = spec["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
        let pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
        let drain = paymesh_mesh::Limits::default().drain_wait.as_secs();
        demand(
            grace >= pause + drain + 20,
            format!("{owner}: is killed after {grace} seconds, with {pause} of pause and {drain} of drain"),
        );
        let budgets =
            documents.of_kind("PodDisruptionBudget").filter(|budget| selects(&budget["spec"]["selector"], &pod["metadata"]["labels"]));
        demand(budgets.count() == 1, format!("{owner}: has not one disruption budget"));
    }
    for budget in documents.of_kind("PodDisruptionBudget") {
        let pods = documents.pods().into_iter().filter(|(_, pod)| selects(&budget["spec"]["selector"], &pod["metadata"]["labels"])).count();
        demand(pods == 1, format!("{}: is of {pods} workloads", name(budget)));
    }
    for service in documents.of_kind("Service") {
        let selector = json!({"matchLabels": service["spec"]["selector"]});
        let pods = documents.pods().into_iter().filter(|(_, pod)| selects(&selector, &pod["metadata"]["labels"])).count();
        demand(pods == 1, format!("{}: is of {pods} workloads", name(service)));
        let grpc = array(&service["spec"]["ports"]).iter().find(|port| port["name"] == "grpc");
        demand(grpc.is_some_and(|port| port["appProtocol"] == "https"), format!("{}: does not say that gRPC is in TLS", name(service)));
        demand(service["spec"]["type"].is_null(), format!("{}: is open to more than the cluster", name(service)));
    }
    // One writer of a shard, and one vault of a zone.
    for alone in documents.of_kind("StatefulSet") {
        demand(alone["spec"]["replicas"] == 1, format!("{}: may be two", name(alone)));
        demand(alone["spec"]["updateStrategy"]["type"] == "RollingUpdate", format!("{}: is not replaced one after the other", name(alone)));
        demand(
            alone["spec"]["persistentVolumeClaimRetentionPolicy"] == json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
            format!("{}: its volume goes with it", name(alone)),
        );
        for claim in array(&alone["spec"]["volumeClaimTemplates"]) {
            demand(claim["spec"]["accessModes"] == json!(["ReadWriteOncePod"]), format!("{}: two pods may write its volume", name(alone)));
            let class = claim["spec"]["storageClassName"].as_str().and_then(|class| documents.named("StorageClass", class));
            demand(class.is_some(), format!("{}: its class of storage is not there", name(alone)));
        }
    }
    for class in documents.of_kind("StorageClass") {
        let encrypted = class["parameters"]["encrypted"] == "true" && class["parameters"]["kmsKeyId"].is_string();
        demand(encrypted, format!("{}: is not encrypted under a key of ours", name(class)));
        demand(
            class["reclaimPolicy"] == "Retain" && class["volumeBindingMode"] == "WaitForFirstConsumer",
            format!("{}: is lost with its claim, or in the wrong zone", name(class)),
        );
    }
    for scaler in documents.of_kind("HorizontalPodAutoscaler") {
        let target = &scaler["spec"]["scaleTargetRef"];
        demand(target["kind"] == "Deployment" && target["name"] == "edge", format!("{}: scales {target}", name(scaler)));
    }
    let edge = documents.named("Deployment", "edge");
    let scalers = documents.of_kind("HorizontalPodAutoscaler").count();
    demand(scalers == usize::from(edge.is_some()), format!("{scalers} autoscalers of edges"));
    let (jobs, entries) = (documents.of_kind("CronJob").count(), scheduled());
    demand(edge.is_none() || jobs == entries, format!("{jobs} jobs set the bounds, and scaling.yaml has {entries} entries"));
    for role in documents.of_kind("Role").filter(|role| role["metadata"]["name"] == "scaling") {
        let wanted = json!([{"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "resourceNames": ["edge"], "verbs": ["get", "patch"]}]);
        demand(role["rules"] == wanted, "who sets bounds may do more than that".to_owned());
    }
    demand(edge.is_none_or(|edge| edge["spec"]["replicas"].is_null()), "edge: two say how many there are".to_owned());
    demand(
        edge.is_none_or(|edge| edge["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0),
        "edge: fewer while they are replaced".to_owned(),
    );
    let nothing =
        documents.of_kind("NetworkPolicy").any(|policy| policy["spec"] == json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    demand(nothing, "what no policy names is open".to_owned());
    for policy in documents.of_kind("NetworkPolicy") {
        let rules = || {
            array(&policy["spec"]["ingress"])
                .iter()
                .map(|rule| (rule, "from"))
                .chain(array(&policy["spec"]["egress"]).iter().map(|rule| (rule, "to")))
        };
        for (rule, side) in rules() {
            demand(
                !array(&rule[side]).is_empty() && !array(&rule["ports"]).is_empty(),
                format!("{}: a rule is for everybody or every port", name(policy)),
            );
        }
    }
    vault_lets_in(documents)
        .into_iter()
        .filter(|who| !allowed_at_the_vault(documents, who))
        .for_each(|who| demand(false, format!("the vault lets in {who}")));
    let machines = |kind, name: &str| documents.named(kind, name).map(|workload| &workload["spec"]["template"]["spec"]["nodeSelector"]);
    if let Some(vault) = machines("StatefulSet", "vault") {
        demand(vault.is_object(), "the vault runs anywhere".to_owned());
        demand(
            Some(vault) != machines("StatefulSet", "node") && Some(vault) != machines("Deployment", "edge"),
            "the vault shares machines".to_owned(),
        );
    }
    for job in documents.of_kind("CronJob") {
        let on = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["nodeSelector"];
        demand(*on == json!({"paymesh/pool": "edge"}), format!("{} runs beside a node or a vault", built::name(job)));
    }
    let accounts: Vec<&Value> = documents.processes().into_iter().map(|(_, pod)| &pod["spec"]["serviceAccountName"]).collect();
    let distinct: BTreeSet<String> = accounts.iter().map(ToString::to_string).collect();
    demand(distinct.len() == accounts.len(), "two processes share an account".to_owned());
    wrong
}

/// Entries of the shipped scaling.yaml.
fn scheduled() -> usize {
    let config = built::root().join("region-config");
    let topology = Topology::load(&config).unwrap();
    Scaling::load(&config, &topology).unwrap().scheduled.len()
}

/// Who may open connections to the vault: each peer of each policy with its port.
fn vault_lets_in(documents: &Documents) -> Vec<Value> {
    let Some((_, vault)) = documents.processes().into_iter().find(|(owner, _)| owner == "StatefulSet vault") else { return Vec::new() };
    let policies =
        documents.of_kind("NetworkPolicy").filter(|policy| selects(&policy["spec"]["podSelector"], &vault["metadata"]["labels"]));
    let mut who = Vec::new();
    for rule in policies.flat_map(|policy| array(&policy["spec"]["ingress"])) {
        for peer in array(&rule["from"]) {
            who.extend(array(&rule["ports"]).iter().map(|port| json!({"peer": peer, "port": port["port"]})));
        }
    }
    who
}

/// Edges and nodes: by their names within the cluster, by way of the load balancer from beyond it; and whoever asks for its metrics.
fn allowed_at_the_vault(documents: &Documents, who: &Value) -> bool {
    let (peer, port) = (&who["peer"], &who["port"]);
    // By way of its load balancer, which keeps addresses, and lets in by the security group.
    let anywhere = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}});
    // Where the region's load balancers are.
    let own = documents.named("NetworkPolicy", "edge-balancers").map(|policy| &policy["spec"]["ingress"][0]["from"][0]);
    let pod = |name: &str| json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}});
    if *port == 7100 {
        return *peer == pod("edge") || *peer == pod("node") || *peer == anywhere;
    }
    // The health that its load balancer asks for, and metrics.
    *port == 7200 && (own == Some(peer) || peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "monitoring")
}

#[test]
fn every_rule_holds_in_every_region() {
    for (region, documents) in built::all() {
        assert_eq!(wrong(&documents), Vec::<String>::new(), "{region}");
    }
}

/// A rule that nothing can break is none: each of these changes is found.
#[test]
fn each_rule_finds_what_breaks_it() {
    let Some((_, documents)) = built::all().into_iter().find(|(region, _)| region == "us_east") else { return };
    let container = "/spec/template/spec/containers/0";
    let table: Vec<(&str, &str, String, Value)> = vec![
        ("Deployment", "edge", "/spec/template/spec/securityContext/runAsNonRoot".into(), json!(false)),
        ("Deployment", "edge", "/spec/template/spec/securityContext/runAsUser".into(), json!(0)),
        ("Deployment", "edge", "/spec/template/spec/securityContext/seccompProfile/type".into(), json!("Unconfined")),
        ("StatefulSet", "node", "/spec/template/spec/serviceAccountName".into(), json!("edge")),
        ("StatefulSet", "node", "/spec/template/spec/automountServiceAccountToken".into(), json!(true)),
        ("StatefulSet", "node", "/spec/template/spec/terminationGracePeriodSeconds".into(), json!(10)),
        ("StatefulSet", "vault", format!("{container}/securityContext/readOnlyRootFilesystem"), json!(false)),
        ("StatefulSet", "vault", format!("{container}/securityContext/allowPrivilegeEscalation"), json!(true)),
        ("StatefulSet", "vault", format!("{container}/securityContext/capabilities/drop"), json!([])),
        ("StatefulSet", "vault", format!("{container}/livenessProbe"), Value::Null),
        ("StatefulSet", "vault", format!("{container}/resources/limits/memory"), Value::Null),
        ("Role", "scaling", "/rules/0/resourceNames".into(), Value::Null),
        ("CronJob", "scaling-morning-rush", "/spec/jobTemplate/spec/template/spec/securityContext/runAsUser".into(), json!(0)),
        ("CronJob", "scaling-morning-rush", "/spec/jobTemplate/spec/template/spec/nodeSelector".into(), Value::Null),
        ("HorizontalPodAutoscaler", "edge", "/spec/scaleTargetRef/name".into(), json!("node")),
        ("StatefulSet", "node", "/spec/replicas".into(), json!(2)),
        ("StatefulSet", "node", "/spec/volumeClaimTemplates/0/spec/accessModes".into(), json!(["ReadWriteMany"])),
        ("StatefulSet", "node", "/spec/volumeClaimTemplates/0/spec/storageClassName".into(), json!("gp2")),
        ("StatefulSet", "vault", "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted".into(), json!("Delete")),
        ("StatefulSet", "vault", "/spec/template/spec/nodeSelector".into(), json!({"paymesh/pool": "node"})),
        ("Deployment", "edge", "/spec/strategy/rollingUpdate/maxUnavailable".into(), json!("25%")),
        ("PodDisruptionBudget", "node", "/spec/selector/matchLabels/app.kubernetes.io~1name".into(), json!("nodes")),
        ("Service", "edge", "/spec/ports/0/appProtocol".into(), json!("kubernetes.io/h2c")),
        ("Service", "vault", "/spec/selector/app.kubernetes.io~1name".into(), json!("other")),
        ("StorageClass", "paymesh-vault", "/parameters/encrypted".into(), json!("false")),
        ("StorageClass", "paymesh-data", "/reclaimPolicy".into(), json!("Delete")),
        ("NetworkPolicy", "nothing", "/spec/policyTypes".into(), json!(["Ingress"])),
        ("NetworkPolicy", "vault", "/spec/ingress/0/from/0".into(), json!({"podSelector": {}})),
        ("NetworkPolicy", "vault", "/spec/ingress/0/from".into(), json!([])),
        ("NetworkPolicy", "vault-balancers", "/spec/ingress/1/from/0/ipBlock/cidr".into(), json!("0.0.0.0/0")),
        ("NetworkPolicy", "vault-balancers", "/spec/ingress/0/ports/0/port".into(), json!(22)),
        ("NetworkPolicy", "vault-peers", "/spec/egress/0/ports/0/port".into(), json!(443)),
        ("NetworkPolicy", "edge-peers", "/spec/egress/0/to".into(), json!([])),
        ("NetworkPolicy", "vault-balancers", "/spec/ingress/1/from/0/ipBlock/cidr".into(), json!("10.17.0.0/16")),
    ];
    for (kind, name, pointer, value) in table {
        let mut changed = Documents(documents.0.clone());
        let document = changed.0.iter_mut().find(|document| document["kind"] == kind && document["metadata"]["name"] == name).unwrap();
        let place = document.pointer_mut(&pointer).unwrap_or_else(|| panic!("{kind} {name} has no {pointer}"));
        assert_ne!(*place, value);
        *place = value;
        assert!(!wrong(&changed).is_empty(), "{kind} {name} {pointer}: nobody minds");
    }
    let scaler = json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "node"}, "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "node"}}});
    let mut scaled = Documents(documents.0.clone());
    scaled.0.push(scaler);
    assert!(!wrong(&scaled).is_empty(), "a scaled node is two writers of a shard");
}

#[test]
fn a_region_has_a_vault_where_region_config_says_so_and_nowhere_else() {
    for (region, documents) in built::all() {
        let has = ["us_east", "eu_west"].contains(&region.as_str());
        assert_eq!(documents.named("StatefulSet", "vault").is_some(), has, "{region}");
        let about =
            documents.0.iter().filter(|document| document["metadata"]["name"].as_str().is_some_and(|name| name.contains("vault"))).count();
        assert_eq!(about > 0, has, "{region}");
    }
}

/// Targets by Terraform's names, of ports that services have.
#[test]
fn load_balancers_are_bound_to_ports_that_are_there() {
    for (region, documents) in built::all() {
        let mut groups = BTreeSet::new();
        for binding in documents.of_kind("TargetGroupBinding") {
            let service = &binding["spec"]["serviceRef"];
            let found = documents.named("Service", service["name"].as_str().unwrap());
            let ports = found.map_or(&[][..], |found| array(&found["spec"]["ports"]));
            assert!(ports.iter().any(|port| port["name"] == service["port"]), "{region}: {service}");
            let group = binding["spec"]["targetGroupName"].as_str().unwrap();
            assert!(group.len() <= 32, "{group}");
            groups.insert(group.to_owned());
        }
        let vault: &[&str] = if documents.named("StatefulSet", "vault").is_some() { &["vault", "vnode"] } else { &[] };
        let wanted = ["edge", "hooks", "node"].iter().chain(vault).map(|name| format!("pm-{}-{name}", region.replace('_', "-"))).collect();
        assert_eq!(groups, wanted, "{region}");
    }
}
