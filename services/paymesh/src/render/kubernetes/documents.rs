//! What of a region's objects has a name or an address of that region in it. Everything else is in deploy/kubernetes/base, written by hand.

use paymesh_identity::NodeName;
use paymesh_topology::{Access, KeySource, Network, Topology};
use paymesh_types::{RegionName, ZoneName};
use serde_json::{Value, json};

use super::{EDGE_PORT, HTTP_PORT, NAMESPACE};

/// The certificate of an edge is not its region's node's: it may call for users, and leads nothing.
const EDGE: &str = "edge";
/// Of a pod's files beside its audit log.
const SCRATCH_GIB: u64 = 4;

/// A region, and what its objects are called after.
pub(super) struct Place<'a> {
    pub(super) mesh: &'a str,
    pub(super) domain: &'a str,
    pub(super) region: &'a RegionName,
    /// The region's part of other names.
    pub(super) label: String,
    pub(super) zone: &'a ZoneName,
    /// The zones whose callers come in here.
    pub(super) entered_by: Vec<&'a ZoneName>,
    /// Its node and edges run here: it is more than a vault.
    pub(super) has_node: bool,
    /// The vault that runs here, as the deployed configuration calls it.
    pub(super) vault: Option<&'a RegionName>,
    /// Its addresses.
    pub(super) network: Network,
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE})
}

impl Place<'_> {
    fn workloads(&self) -> Vec<&'static str> {
        let node = if self.has_node { ["node", EDGE].as_slice() } else { &[] };
        node.iter().copied().chain(self.vault.map(|_| "vault")).collect()
    }

    /// The folders of base that it needs.
    pub(super) fn bases(&self) -> Vec<String> {
        std::iter::once("common").chain(self.workloads()).map(|name| format!("../../base/{name}")).collect()
    }

    /// Certificates by cert-manager: each process has one URI, as `paymesh certs` makes them.
    pub(super) fn certificates(&self) -> anyhow::Result<Vec<Value>> {
        let Self { label, domain, .. } = self;
        let certificate = |name: &str, region: &RegionName, service: &str, hosts: &[String]| {
            let uri = NodeName::new(self.mesh, region, service)
                .ok_or_else(|| crate::exit::unusable(format!("a certificate cannot name the mesh {}", self.mesh)))?;
            anyhow::Ok(json!({
                "apiVersion": "cert-manager.io/v1",
                "kind": "Certificate",
                "metadata": metadata(name),
                "spec": {
                    "secretName": format!("{name}-certificate"),
                    "uris": [uri.to_string()],
                    "dnsNames": hosts,
                    "usages": ["digital signature", "server auth", "client auth"],
                    "duration": "2160h",
                    "renewBefore": "720h",
                    "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                    "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "paymesh-mesh"},
                },
            }))
        };
        let mut all = Vec::new();
        if self.has_node {
            all.push(certificate("node", self.region, NodeName::NODE, &[format!("{label}.nodes.{domain}")])?);
            // Every name that leads here, as its balancer's certificate has them.
            let zones = self.entered_by.iter().map(|zone| format!("{zone}.api.{domain}"));
            let hosts: Vec<String> = [format!("api.{domain}"), format!("{label}.api.{domain}")].into_iter().chain(zones).collect();
            all.push(certificate(EDGE, self.region, EDGE, &hosts)?);
        }
        if let Some(vault) = self.vault {
            all.push(certificate("vault", vault, NodeName::NODE, &[format!("{label}-vault.nodes.{domain}")])?);
        }
        Ok(all)
    }

    /// Which pods are in which target groups, that Terraform makes.
    pub(super) fn balancers(&self) -> Vec<Value> {
        let binding = |name: &str, service: &str, port: &str| {
            json!({
                "apiVersion": "elbv2.k8s.aws/v1beta1",
                "kind": "TargetGroupBinding",
                "metadata": metadata(name),
                "spec": {
                    "targetGroupName": format!("pm-{}-{name}", self.label),
                    "targetType": "ip",
                    "serviceRef": {"name": service, "port": port},
                },
            })
        };
        let mut all = Vec::new();
        if self.has_node {
            all.extend([binding("edge", EDGE, "grpc"), binding("hooks", EDGE, "http"), binding("node", "node", "grpc")]);
            // Calls for the vault enter as all do, and have a group of their own where the region has one.
            all.extend(self.vault.map(|_| binding("vault", EDGE, "grpc")));
        }
        all.extend(self.vault.map(|_| binding("vnode", "vault", "grpc")));
        all
    }

    /// What has addresses: load balancers, which are in the region's network, and what is outside of it.
    pub(super) fn network(&self, access: Option<&Access>) -> Vec<Value> {
        let own = json!([{"ipBlock": {"cidr": self.network.to_string()}}]);
        let tcp = |ports: &[u16]| Value::from_iter(ports.iter().map(|port| json!({"protocol": "TCP", "port": port})));
        let policy = |name: String, pod: &str, direction: &str, rules: Value| {
            let mut spec = json!({"podSelector": {"matchLabels": {"app.kubernetes.io/name": pod}}, "policyTypes": [direction]});
            spec[direction.to_lowercase()] = rules;
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(&name), "spec": spec})
        };
        let mut policies = Vec::new();
        // Other regions are reached at their load balancers, which are public: both ends know each other by certificates.
        let anywhere = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}});
        for pod in self.workloads() {
            let entering = match pod {
                // Callers are behind the region's load balancer. Webhooks and health checks come to the other port.
                EDGE => json!([{"from": own, "ports": tcp(&[EDGE_PORT, HTTP_PORT])}]),
                // Peers, by way of a load balancer that keeps their addresses; which of them may, its security group says. What that asks itself, it asks at the other port.
                _ => json!([{"from": [anywhere], "ports": tcp(&[EDGE_PORT])}, {"from": own, "ports": tcp(&[HTTP_PORT])}]),
            };
            policies.push(policy(format!("{pod}-balancers"), pod, "Ingress", entering));
            // A vault too asks the directory's home whose a user is, and tells users' homes what became of their cards.
            policies.push(policy(format!("{pod}-peers"), pod, "Egress", json!([{"to": [anywhere], "ports": tcp(&[EDGE_PORT])}])));
        }
        let asks = |access: &Access| {
            access.issuers().iter().any(|issuer| matches!(&issuer.keys, KeySource::Url { url, .. } if url.starts_with("https:")))
        };
        if self.has_node && access.is_some_and(asks) {
            // Nodes and vaults reach them as they reach acquirers.
            let outside = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"]}});
            policies.push(policy("edge-issuers".to_owned(), EDGE, "Egress", json!([{"to": [outside], "ports": tcp(&[443])}])));
        }
        policies
    }

    /// Volumes under the key of the compliance zone; the vault's under its own. They outlive what uses them.
    pub(super) fn storage(&self) -> Vec<Value> {
        let class = |name: &str, key: String| {
            json!({
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": name},
                "provisioner": "ebs.csi.aws.com",
                "parameters": {"type": "gp3", "encrypted": "true", "kmsKeyId": key, "csi.storage.k8s.io/fstype": "ext4"},
                "reclaimPolicy": "Retain",
                "allowVolumeExpansion": true,
                "volumeBindingMode": "WaitForFirstConsumer",
            })
        };
        let key = format!("alias/paymesh-{}-{}", self.zone, self.label);
        let node = self.has_node.then(|| class("paymesh-data", key.clone()));
        node.into_iter().chain(self.vault.map(|_| class("paymesh-vault", format!("{key}-vault")))).collect()
    }

    /// What the region's name and configuration change in base, by the name of the file.
    pub(super) fn patches(&self, topology: &Topology) -> Vec<(String, Value)> {
        let mut patches = Vec::new();
        for workload in self.workloads() {
            let (kind, region, directory) = match workload {
                EDGE => ("Deployment", self.region, format!("{}-{EDGE}", self.region)),
                "vault" => ("StatefulSet", self.vault.unwrap_or(self.region), self.vault.unwrap_or(self.region).to_string()),
                _ => ("StatefulSet", self.region, self.region.to_string()),
            };
            let mut container = json!({
                "name": workload,
                "env": [{"name": "REGION", "value": region.as_str()}],
                "volumeMounts": [{"name": "certificate", "mountPath": format!("/etc/paymesh/credentials/{directory}"), "readOnly": true}],
            });
            let mut pod = json!({});
            if workload == EDGE {
                let size = format!("{}Gi", topology.audit_retention().bytes.div_ceil(1 << 30) + SCRATCH_GIB);
                container["resources"] = json!({"limits": {"ephemeral-storage": size}});
                pod["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": size}}]);
            }
            pod["containers"] = json!([container]);
            let patch = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata(workload), "spec": {"template": {"spec": pod}}});
            patches.push((workload.to_owned(), patch));
        }
        patches
    }
}
