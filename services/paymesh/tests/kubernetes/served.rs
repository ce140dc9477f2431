//! That the manifests ask the binary for what it has: paths, ports, metrics, flags, names of certificates.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use paymesh_topology::Topology;
use serde_json::{Value, json};

use crate::{
    built::{self, Documents, array},
    support::{PAYMESH, Run, TestMesh, four_regions_with_vaults, free_port},
};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// Every path that anything would ask a process for: its probes, and Prometheus.
fn paths(documents: &Documents) -> BTreeSet<String> {
    let probes = documents.processes().into_iter().flat_map(|(_, pod)| array(&pod["spec"]["containers"])).flat_map(|container| {
        ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| container[probe]["httpGet"]["path"].as_str().unwrap().to_owned())
    });
    let monitors = documents.of_kind("ServiceMonitor").flat_map(|monitor| array(&monitor["spec"]["endpoints"]));
    probes.chain(monitors.map(|endpoint| endpoint["path"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn what_is_asked_for_is_served_and_a_sick_node_is_not_killed() {
    let mut mesh = TestMesh::new(&four_regions_with_vaults());
    // Whose keys cannot be read: sick, and no restart would help.
    let keys = mesh.file("keys", "no directory");
    let data = mesh.data("us_east");
    let args = ["node", "--supervised", "--trust-own-journals", "--region", "us_east", "--data", data.to_str().unwrap()];
    let mut command = mesh.command(&args);
    command.arg("--vault-keys").arg(keys);
    mesh.spawn_command("us_east", command);
    let until = Instant::now() + WAIT_MAX;
    while mesh.http("us_east", "/health").is_none_or(|(_, health)| !health.contains("does not open"))
        || mesh.http("us_east", "/ready").unwrap().0 != 200
    {
        assert!(Instant::now() < until, "{:?}\n{}", mesh.http("us_east", "/health"), mesh.logs("us_east"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let all = built::all();
    for (region, documents) in &all {
        for path in paths(documents) {
            assert_eq!(mesh.http("us_east", &path).unwrap().0, 200, "{region} asks for {path}");
        }
        for (owner, pod) in documents.processes() {
            let container = &pod["spec"]["containers"][0];
            let path = |probe: &str| container[probe]["httpGet"]["path"].as_str().unwrap().to_owned();
            assert_eq!(mesh.http("us_east", &path("livenessProbe")).unwrap().0, 200, "{region}: {owner} would be killed again and again");
            assert_eq!(path("readinessProbe"), "/ready", "{region}: {owner}");
        }
    }
    assert_eq!(mesh.http("us_east", "/health").unwrap().0, 503, "this one was sick all the time");
    // Who is scaled is an edge, and is asked itself.
    let edge = Edge::start(&mesh);
    for (_, documents) in &all {
        for path in paths(documents) {
            assert_eq!(edge.get(&path).unwrap().0, 200, "an edge is asked for {path}");
        }
    }
    let metrics = edge.get("/metrics").unwrap().1;
    let served: BTreeSet<&str> =
        metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    for metric in all.iter().flat_map(|(_, documents)| scaled_by(documents)) {
        assert!(served.contains(metric.as_str()), "an autoscaler asks for {metric}, which nobody tells");
    }
    // What README.md has the Prometheus adapter serve.
    let readme = fs::read_to_string(built::root().join("deploy/kubernetes/README.md")).unwrap();
    assert!(readme.contains("payment_queue_length") && served.contains("payment_queue_length"));
}

/// An edge of us_east, which ends with this value.
struct Edge {
    process: std::process::Child,
    http: u16,
}

impl Edge {
    fn start(mesh: &TestMesh) -> Self {
        let (grpc, http) = (free_port(), free_port());
        let data = mesh.data("edge");
        let mut command = mesh.command(&["edge", "--supervised", "--region", "us_east", "--data", data.to_str().unwrap()]);
        command.args(["--listen-grpc", &format!("127.0.0.1:{grpc}"), "--listen-http", &format!("127.0.0.1:{http}")]);
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let edge = Self { process, http };
        let until = Instant::now() + WAIT_MAX;
        while edge.get("/ready").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < until, "the edge does not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        edge
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Metrics of the process's own that autoscalers go by.
fn scaled_by(documents: &Documents) -> Vec<String> {
    let metrics = documents.of_kind("HorizontalPodAutoscaler").flat_map(|scaler| array(&scaler["spec"]["metrics"]));
    metrics.filter_map(|metric| metric["pods"]["metric"]["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn ports_are_where_the_process_listens() {
    for (region, documents) in built::all() {
        for (owner, pod) in documents.processes() {
            let container = &pod["spec"]["containers"][0];
            for (port, flag) in [("grpc", "--listen-grpc=0.0.0.0:"), ("http", "--listen-http=0.0.0.0:")] {
                let named = array(&container["ports"]).iter().find(|named| named["name"] == port).unwrap();
                let listens = array(&container["args"]).iter().find_map(|arg| arg.as_str()?.strip_prefix(flag)).unwrap();
                assert_eq!(named["containerPort"].to_string(), listens, "{region}: {owner}");
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "http", "{region}: {owner}");
            }
        }
        let monitored = documents.of_kind("ServiceMonitor").next().unwrap();
        let selector = &monitored["spec"]["selector"];
        let services: Vec<&Value> =
            documents.of_kind("Service").filter(|service| built::selects(selector, &service["metadata"]["labels"])).collect();
        assert_eq!(services.len(), documents.processes().len(), "{region}: each process is asked once");
        for endpoint in array(&monitored["spec"]["endpoints"]) {
            assert!(services.iter().all(|service| array(&service["spec"]["ports"]).iter().any(|port| port["name"] == endpoint["port"])));
        }
    }
}

fn help(command: &str) -> Option<String> {
    let run = Run::from(Command::new(PAYMESH).args([command, "--help"]).stdin(Stdio::null()).output().unwrap());
    (run.code == 0).then_some(run.stdout)
}

/// Flags that the deployed processes are given.
#[test]
fn arguments_are_those_that_the_command_line_knows() {
    for (region, documents) in built::all() {
        for (owner, pod) in documents.processes() {
            let args: Vec<&str> = array(&pod["spec"]["containers"][0]["args"]).iter().map(|arg| arg.as_str().unwrap()).collect();
            let help = help(args[0]).unwrap_or_else(|| panic!("{region}: {owner}: there is no `paymesh {}`", args[0]));
            for flag in args[1..].iter().map(|arg| arg.split('=').next().unwrap()) {
                assert!(
                    help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                    "{region}: {owner}: `paymesh {}` has no {flag}",
                    args[0]
                );
            }
        }
    }
}

/// The deployed configuration is one that the binary reads; the certificates are those that it would make, in the directories where it looks for them.
#[test]
fn certificates_are_those_that_paymesh_certs_would_make_of_the_deployed_configuration() {
    for (region, documents) in built::all() {
        let directory = tempfile::tempdir().unwrap();
        let config = built::root().join("deploy/kubernetes/overlays").join(&region).join("config");
        let deployed = Topology::load(&config).unwrap();
        let run =
            Command::new(PAYMESH).arg("--config").arg(config).arg("certs").arg(directory.path()).stdin(Stdio::null()).output().unwrap();
        let run = Run::from(run);
        assert_eq!(run.code, 0, "{run:?}");
        for (owner, pod) in documents.processes().into_iter().filter(|(owner, _)| owner.starts_with("StatefulSet")) {
            let spec = &pod["spec"];
            let container = &spec["containers"][0];
            let name = container["env"][0]["value"].as_str().unwrap();
            let mount = array(&container["volumeMounts"]).iter().find(|mount| mount["name"] == "certificate").unwrap();
            assert_eq!(mount["mountPath"], format!("/etc/paymesh/credentials/{name}"), "{region}: {owner}");
            assert!(directory.path().join(name).join("tls.crt").is_file(), "{region}: {owner}: there is no region {name}");
            let volume = array(&spec["volumes"]).iter().find(|volume| volume["name"] == "certificate").unwrap();
            let certificate =
                documents.of_kind("Certificate").find(|certificate| certificate["spec"]["secretName"] == volume["secret"]["secretName"]);
            let certificate = certificate.unwrap_or_else(|| panic!("{region}: {owner}: nobody makes its certificate"));
            let uris = array(&certificate["spec"]["uris"]);
            assert_eq!(uris.len(), 1);
            let found_at = deployed.regions().find(|region| region.name.as_str() == name).unwrap().grpc.host();
            assert_eq!(array(&certificate["spec"]["dnsNames"]), [Value::from(found_at)], "{region}: {owner}");
            assert!(run.stdout.contains(uris[0].as_str().unwrap()), "{region}: {owner}: {uris:?}\n{}", run.stdout);
        }
    }
}

/// Rules and callers change while processes run; what they read only once rolls them.
#[test]
fn a_changed_topology_rolls_the_pods_and_changed_rules_do_not() {
    for (region, documents) in built::all() {
        let maps: Vec<(String, Vec<&String>)> = documents
            .of_kind("ConfigMap")
            .map(|map| (map["metadata"]["name"].as_str().unwrap().to_owned(), map["data"].as_object().unwrap().keys().collect()))
            .collect();
        let (rules, topology): (Vec<_>, Vec<_>) = maps.iter().partition(|(name, _)| name == "rules");
        assert_eq!(rules[0].1, ["access.yaml", "fraud.yaml"], "{region}");
        assert!(topology[0].0.starts_with("topology-"), "{region}: {maps:?}");
        assert_eq!(topology[0].1, ["gateways.yaml", "regions.yaml"], "{region}");
        for (owner, pod) in documents.processes() {
            let volume = array(&pod["spec"]["volumes"]).iter().find(|volume| volume["name"] == "region-config").unwrap();
            let sources: Vec<&Value> = array(&volume["projected"]["sources"]).iter().map(|source| &source["configMap"]["name"]).collect();
            assert_eq!(sources, [&Value::from(topology[0].0.as_str()), &Value::from("rules")], "{region}: {owner}");
            // What is nearest to the outside has no rules of fraud and no acquirers to tell.
            let items: Vec<&Value> = array(&volume["projected"]["sources"]).iter().map(|source| &source["configMap"]["items"]).collect();
            let only = |file: &str| json!([{"key": file, "path": file}]);
            let wanted = if owner.ends_with("edge") { [only("regions.yaml"), only("access.yaml")] } else { [Value::Null, Value::Null] };
            assert_eq!(items, [&wanted[0], &wanted[1]], "{region}: {owner}");
        }
    }
}
