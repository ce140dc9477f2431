//! What a node refuses to start with, and what it says.

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use crate::support::{ONE_REGION, Run, TestMesh, wait_within};

/// Starts a node that must end by itself.
fn node(mesh: &TestMesh, region: &str, data: &str) -> Run {
    let mut command = mesh.command(&["node", "--region", region, "--data", data]);
    wait_within(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), Duration::from_secs(30))
}

fn rewrite(mesh: &TestMesh, change: impl FnOnce(String) -> String) {
    let path = mesh.config().join("regions.yaml");
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

fn all(run: &Run) -> String {
    format!("{}{}", run.stdout, run.stderr)
}

#[test]
fn a_node_listens_on_nothing_but_loopback_and_says_why() {
    for address in ["0.0.0.0", "192.0.2.1"] {
        let mesh = TestMesh::new(ONE_REGION);
        rewrite(&mesh, |text| text.replacen("127.0.0.1", address, 1));
        let run = node(&mesh, "eu_west", mesh.data("eu_west").to_str().unwrap());
        assert_eq!(run.code, 2, "{run:?}");
        assert!(all(&run).contains("loopback") && all(&run).contains(address), "{run:?}");
    }
}

#[test]
fn a_port_in_use_ends_the_node_naming_it() {
    let mesh = TestMesh::new(ONE_REGION);
    let port = mesh.grpc_port("eu_west");
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let run = node(&mesh, "eu_west", mesh.data("eu_west").to_str().unwrap());
    assert!(run.code == 1 || run.code == 2, "{run:?}");
    let up = mesh.run(&["up", "--data", mesh.data("up").to_str().unwrap()]);
    assert_eq!(up.code, 1, "{up:?}");
    for run in [run, up] {
        let said = all(&run);
        let who = format!("eu_west: cannot listen on 127.0.0.1:{port}, its endpoints.eu_west.grpc");
        assert!(said.contains(&who) && said.contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{run:?}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_ends_the_node_naming_it() {
    let mesh = TestMesh::new(ONE_REGION);
    // A file where the directory should be: permission bits do not bind root, which tests may run as.
    let data = mesh.file("not-a-directory", "");
    let run = node(&mesh, "eu_west", data.to_str().unwrap());
    assert!(run.code == 1 || run.code == 2, "{run:?}");
    assert!(all(&run).contains("not-a-directory"), "{run:?}");
}

#[test]
fn an_unknown_region_or_a_bad_configuration_ends_the_node_naming_it() {
    let mesh = TestMesh::new(ONE_REGION);
    let run = node(&mesh, "atlantis", mesh.data("atlantis").to_str().unwrap());
    assert_eq!(run.code, 2, "{run:?}");
    assert!(all(&run).contains("atlantis"), "{run:?}");
    assert!(!mesh.data("atlantis").exists(), "nothing was made");

    rewrite(&mesh, |text| text.replacen("shards: 2", "shards: 0", 1));
    let run = node(&mesh, "eu_west", mesh.data("eu_west").to_str().unwrap());
    assert_eq!(run.code, 2, "{run:?}");
    assert!(all(&run).contains("regions.yaml") && all(&run).contains("shards"), "{run:?}");
    assert!(!mesh.data("eu_west").exists(), "nothing was made");
}

#[test]
fn two_nodes_cannot_share_a_data_directory() {
    let mesh = TestMesh::started(ONE_REGION);
    let other = TestMesh::new(ONE_REGION);
    let run = node(&other, "eu_west", mesh.data("eu_west").to_str().unwrap());
    assert_ne!(run.code, 0, "{run:?}");
    assert!(all(&run).contains("eu_west"), "{run:?}");
}

/// The books of two regions are not to be mixed in one file, whatever path somebody mistyped.
#[test]
fn a_data_directory_of_another_region_or_mesh_is_refused() {
    let mut mesh = TestMesh::started(ONE_REGION);
    assert!(mesh.stop("eu_west").success());
    let data = mesh.data("eu_west");
    let before = fs::read_dir(&data).unwrap().count();
    for (change, wanted) in [("mesh: test", "mesh: other"), ("eu_west", "eu_north")].map(|(from, to)| {
        let other = TestMesh::new(ONE_REGION);
        rewrite(&other, |text| text.replace(from, to));
        let region = if from == "eu_west" { to } else { "eu_west" };
        (node(&other, region, data.to_str().unwrap()), to.to_owned())
    }) {
        assert_eq!(change.code, 2, "{change:?}");
        let said = all(&change);
        let name = wanted.rsplit(' ').next().unwrap();
        assert!(said.contains("belongs to mesh test region eu_west") && said.contains(name), "{said}");
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), before, "nothing was made");
    mesh.start("eu_west");
}

/// The zone's users are at the shards that their number gave them when they came.
#[test]
fn a_zone_whose_number_of_shards_was_changed_under_its_data_is_refused_its_new_shard_too() {
    let mut mesh = TestMesh::started(ONE_REGION);
    assert!(mesh.stop("eu_west").success());
    rewrite(&mesh, |text| text.replacen("shards: 2", "shards: 3", 1));
    mesh.start("eu_west");
    let (status, health) = mesh.http("eu_west", "/health").unwrap();
    assert_eq!(status, 503, "{health}");
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    for index in 0..3 {
        let why = health["checks"][format!("shard eu/{index}")]["error"].as_str().unwrap_or_default().to_owned();
        let said = why.contains("of 2, not to mesh test shard ") && why.contains(&format!("eu/{index} of 3"));
        assert!(said && !why.contains("tried again"), "eu/{index}: {health}");
    }
    assert_eq!(health["checks"]["shard directory/0"]["status"], "healthy", "{health}");
    assert!(mesh.stop("eu_west").success());
    rewrite(&mesh, |text| text.replacen("shards: 3", "shards: 2", 1));
    mesh.start("eu_west");
    assert_eq!(mesh.http("eu_west", "/health").unwrap().0, 200, "nothing was made of the third");
}

#[test]
fn a_supervised_node_leaves_gracefully_when_its_standard_input_closes() {
    let mut mesh = TestMesh::started(ONE_REGION);
    assert!(mesh.stop("eu_west").success(), "{}", mesh.logs("eu_west"));
}
