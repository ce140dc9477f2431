//! More connections than a node can hold, from callers who never say anything.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::{Launch, ONE_REGION, TestMesh};

const REGION: &str = "eu_west";
/// Files that the node may open.
const FILES_MAX: usize = 256;
/// How long a node may take to be rid of them: it gives each five seconds, on a machine that is busy with other tests.
const RID_OF_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_a_node_its_files_and_others_their_turn() {
    let mut mesh = TestMesh::new(ONE_REGION);
    let limited = ["sh", "-c", &format!("ulimit -n {FILES_MAX} && exec \"$@\""), "sh"].map(str::to_owned);
    mesh.launch(REGION, Launch { before: limited.into(), ..Launch::default() });
    mesh.start(REGION);
    mesh.enrol(REGION, 7, "DE", 100).await;

    let silent: Vec<TcpStream> = (0..2 * FILES_MAX).map(|_| TcpStream::connect(("127.0.0.1", mesh.grpc_port(REGION))).unwrap()).collect();
    let refused = |why: &str| {
        let (_, text) = mesh.http(REGION, "/metrics").expect("the node has files left for its health");
        text.lines().any(|line| line.starts_with("paymesh_connections_refused_total") && line.contains(&format!("why=\"{why}\"")))
    };
    let until = Instant::now() + RID_OF_MAX;
    while !(refused("limit") && refused("preface")) {
        assert!(Instant::now() < until, "{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!refused("accept"), "it never ran out of files");
    assert_eq!(mesh.balance(REGION, 7).await, 100);
    let logged = mesh.logs(REGION).matches("connections are refused").count();
    assert!((1..=4).contains(&logged), "{logged} lines for hundreds of connections");
    drop(silent);
    assert!(mesh.stop(REGION).success(), "{}", mesh.logs(REGION));
}
