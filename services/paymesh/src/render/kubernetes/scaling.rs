//! How many edges there are, as Kubernetes is told: an autoscaler of the Deployment, and jobs that set its bounds by the clock.
//!
//! An autoscaler knows no targets at a time and no thresholds with a duration. A scheduled entry's `target_capacity` is therefore nowhere here: the autoscaler is within
//! the new bounds at once, and finds its own number. A rule's percentage and duration are how fast it may go.

use paymesh_topology::{Network, Reactive, Scaling};
use paymesh_types::RegionName;
use serde_json::{Value, json};

use super::NAMESPACE;

/// What is scaled, and what the autoscaler is called.
const EDGE: &str = "edge";
/// The account, role and pods of the jobs.
const SCALING: &str = "scaling";
/// Kubernetes' own client, of the version that base is written for.
const KUBECTL: &str = "registry.k8s.io/kubectl:v1.33.0";
/// Where Kubernetes' API is within a cluster: the addresses of services, as deploy/terraform has them.
const SERVICES: &str = "172.20.0.0/16";

/// The documents of a region that has edges.
pub(super) fn documents(scaling: &Scaling, region: &RegionName, network: Network) -> Vec<Value> {
    let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": SCALING}});
    let mut all = vec![
        autoscaler(scaling),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(SCALING), "automountServiceAccountToken": false}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata(SCALING),
            "rules": [{"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "resourceNames": [EDGE], "verbs": ["get", "patch"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(SCALING),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SCALING},
            "subjects": [{"kind": "ServiceAccount", "name": SCALING, "namespace": NAMESPACE}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(SCALING),
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": SCALING}},
                "policyTypes": ["Egress"],
                "egress": [{
                    "to": [{"ipBlock": {"cidr": SERVICES}}, {"ipBlock": {"cidr": network.to_string()}}],
                    "ports": [{"protocol": "TCP", "port": 443}],
                }],
            },
        }),
    ];
    all.extend(scaling.scheduled.iter().map(|entry| {
        let patch = json!({"spec": {"minReplicas": entry.min, "maxReplicas": entry.max}}).to_string();
        json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata(&format!("{SCALING}-{}", entry.name.replace('_', "-"))),
            "spec": {
                "schedule": entry.schedule.to_crontab(),
                "timeZone": time_zone(scaling, region),
                "concurrencyPolicy": "Replace",
                "startingDeadlineSeconds": 600,
                "successfulJobsHistoryLimit": 1,
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {"spec": {
                    "backoffLimit": 5,
                    "activeDeadlineSeconds": 300,
                    "template": {
                        // As a part of the whole it may look names up.
                        "metadata": {"labels": {"app.kubernetes.io/name": SCALING, "app.kubernetes.io/part-of": "paymesh"}},
                        "spec": {
                            "restartPolicy": "Never",
                            "serviceAccountName": SCALING,
                            // Not beside a node or a vault, whose machines have their ways.
                            "nodeSelector": {"paymesh/pool": EDGE},
                            // By it the job is who may patch the autoscaler, and nobody else.
                            "automountServiceAccountToken": true,
                            "securityContext": {
                                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                            },
                            "containers": [{
                                "name": SCALING,
                                "image": KUBECTL,
                                "args": ["patch", "hpa", EDGE, "--namespace", NAMESPACE, "--type", "merge", "--patch", patch],
                                "securityContext": {
                                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                                },
                                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                            }],
                        },
                    },
                }},
            },
        })
    }));
    all
}

/// UTC is what Kubernetes calls it too.
fn time_zone<'a>(scaling: &'a Scaling, region: &RegionName) -> &'a str {
    match scaling.time_zone(region) {
        "UTC" => "Etc/UTC",
        other => other,
    }
}

fn autoscaler(scaling: &Scaling) -> Value {
    let autoscaler = &scaling.autoscaler;
    let resource = |name: &str, percent: u32| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}});
    let policies = |rules: &[Reactive]| {
        let of_rule = |rule: &Reactive| json!({"type": "Percent", "value": rule.percent, "periodSeconds": rule.duration_seconds});
        Value::from_iter(rules.iter().map(of_rule))
    };
    let longest = |rules: &[Reactive]| rules.iter().map(|rule| rule.duration_seconds).max().unwrap_or_default();
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": EDGE, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": EDGE},
            "minReplicas": autoscaler.min,
            "maxReplicas": autoscaler.max,
            "metrics": [
                resource("cpu", autoscaler.cpu_percent),
                resource("memory", autoscaler.memory_percent),
                {"type": "Pods", "pods": {"metric": {"name": "payment_queue_length"}, "target": {"type": "AverageValue", "averageValue": autoscaler.queue_length.to_string()}}},
            ],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": policies(&scaling.scale_up)},
                "scaleDown": {"stabilizationWindowSeconds": longest(&scaling.scale_down), "selectPolicy": "Max", "policies": policies(&scaling.scale_down)},
            },
        },
    })
}
