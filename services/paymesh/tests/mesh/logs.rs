//! Nobody reads what a program prints: it goes on.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use paymesh_contract::payments::v1::StreamPaymentsRequest;

use crate::support::{ONE_REGION, TestMesh, payment, signal, wait_within};

const REGION: &str = "eu_west";
/// How long a call may take, on a machine that is busy with other tests.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Lines of the log that the node has dropped so far.
fn dropped(mesh: &TestMesh) -> u64 {
    let (_, metrics) = mesh.http(REGION, "/metrics").expect("a node that nobody reads still answers");
    let line = metrics.lines().find(|line| line.starts_with("paymesh_log_lines_dropped_total"));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// A program that waits for its reader answers nobody: that must not hold the test.
async fn answered<T>(calls: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_TIME_MAX, calls).await.expect("an answer")
}

async fn enrol(mesh: &TestMesh) {
    for user in [1, 2] {
        answered(mesh.enrol(REGION, user, "DE", 1_000_000)).await;
    }
}

async fn pay(mesh: &TestMesh, times: u32) {
    for _ in 0..times {
        answered(mesh.payments(REGION).create_payment(payment(1, 2, 1))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_nobody_reads_serves_and_says_later_how_many_lines_it_dropped() {
    let mut mesh = TestMesh::new(ONE_REGION);
    let unread = mesh.spawn_unread(REGION, "trace");
    mesh.wait_ready(REGION);
    enrol(&mesh).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    // The pipe is full then, and so is what may wait.
    while dropped(&mesh) == 0 {
        assert!(Instant::now() < deadline, "the node does not drop lines");
        pay(&mesh, 50).await;
    }
    assert_eq!(mesh.http(REGION, "/health").unwrap().0, 200);
    mesh.assert_books();

    let (say, said) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(unread).lines().map_while(Result::ok) {
            if line.contains("lines of the log were dropped so far") {
                let _ = say.try_send(line);
            }
        }
    });
    said.recv_timeout(ANSWER_TIME_MAX).expect("the log says that lines are missing");
    assert!(mesh.stop(REGION).success());
}

/// `paymesh up`, ended with the test.
struct Up(Option<Child>);

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Its nodes end with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn up(mesh: &TestMesh, filter: &str) -> Up {
    let mut command = mesh.command(&["up", "--data", mesh.data("up").to_str().unwrap()]);
    command.env("RUST_LOG", filter).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let up = Up(Some(command.spawn().unwrap()));
    let deadline = Instant::now() + Duration::from_secs(60);
    while mesh.http(REGION, "/ready").is_none_or(|(status, _)| status != 200) {
        assert!(Instant::now() < deadline, "the node of `up` is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    up
}

#[tokio::test(flavor = "multi_thread")]
async fn up_goes_on_reading_its_nodes_and_hears_ctrl_c_when_nobody_reads_it() {
    let mesh = TestMesh::new(ONE_REGION);
    let mut up = up(&mesh, "trace");
    enrol(&mesh).await;
    // Far more than the pipes and all that may wait on the way hold.
    pay(&mesh, 1_500).await;
    assert_eq!(dropped(&mesh), 0, "the node is read, whoever reads its supervisor");
    let child = up.0.take().unwrap();
    signal(child.id(), "INT");
    let run = wait_within(child, Duration::from_secs(30));
    assert_eq!(run.code, 0);
}

/// The longest that a node takes: a stream that its caller does not end is waited for, and then cut off.
#[tokio::test(flavor = "multi_thread")]
async fn up_does_not_kill_a_node_that_drains_for_as_long_as_a_node_may() {
    let mesh = TestMesh::new(ONE_REGION);
    let mut up = up(&mesh, "info");
    enrol(&mesh).await;
    let batch = StreamPaymentsRequest { batch_id: 1, payments: vec![payment(1, 2, 1)] };
    let batches = stream::iter([batch]).chain(stream::pending());
    let mut client = mesh.payments(REGION);
    let mut answers = answered(client.stream_payments(batches)).await.unwrap().into_inner();
    assert!(answered(answers.message()).await.unwrap().is_some());
    let child = up.0.take().unwrap();
    signal(child.id(), "INT");
    let run = wait_within(child, Duration::from_secs(40));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("left"), "the node had the time to say so: {run:?}");
}
