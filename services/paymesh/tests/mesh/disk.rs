//! Disks that are full or cannot be written: real file systems of a few megabytes, in a mount namespace of the node's own.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use paymesh_contract::{Fault, payments::v1::CreatePaymentRequest};
use tonic::Code;

use crate::support::{ONE_REGION, PAYMESH, Run, TestMesh, payment, wait_within};

const REGION: &str = "eu_west";
/// How long a node may take to notice that there is room again: it tries every second.
const NOTICE_MAX: Duration = Duration::from_secs(30);

/// Runs a program in a mount namespace of its own, in which a small disk is mounted at `$0`, once `first` is done there.
fn on_a_disk(options: &str, first: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "--", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o {options} paymesh-test \"$0\" && {first} && exec \"$@\""));
    command
}

/// Whether this machine lets us: some containers do not.
#[allow(clippy::print_stderr, reason = "a test that did not happen says so")]
fn can_mount() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let can =
        on_a_disk("size=1m", "true").arg(directory.path()).arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: this machine gives no mount namespace, so there is no small disk to fill");
    }
    can
}

/// A file that takes all room that the disk has left.
struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk up to `left` bytes.
    fn fill(path: PathBuf, left: u64) -> Self {
        let mut file = fs::File::create(&path).unwrap();
        loop {
            match file.write_all(&[0; 16 << 10]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length - left).unwrap();
        Self(path)
    }

    fn drop_it(self) {
        fs::remove_file(self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_payments_loses_none_and_serves_again_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let mut mesh = TestMesh::new(ONE_REGION);
    let data = mesh.data(REGION);
    fs::create_dir(&data).unwrap();
    let mut command = on_a_disk("size=32m", "true");
    command.env("PAYMESH_CONFIG", mesh.config()).env_remove("RUST_LOG");
    command.arg(&data).arg(PAYMESH).args(["--plain-text", "node", "--supervised", "--region", REGION, "--data"]).arg(&data);
    mesh.spawn_command(REGION, command);
    mesh.wait_ready(REGION);
    // Of two shards, so that money is on its way between them when the disk fills up.
    for user in [1, 2] {
        mesh.enrol(REGION, user, "DE", 1_000_000).await;
    }
    let ballast = Ballast::fill(mesh.outside(REGION, &data.join("ballast")), 600 << 10);

    let mut paid: Vec<CreatePaymentRequest> = Vec::new();
    let refused = loop {
        let request = payment(1, 2, 1);
        match tokio::time::timeout(Duration::from_secs(20), mesh.payments(REGION).create_payment(request.clone())).await {
            Ok(Ok(_)) => paid.push(request),
            Ok(Err(status)) => {
                let fault = Fault::from_status(&status);
                assert!(fault.code == Code::Unavailable && fault.retry_after.is_some(), "{fault}");
                // Whichever of the two meets the end of the disk first.
                let is_the_shards = fault.reason == "SHARD_NOT_SERVING" && fault.message.contains("full");
                assert!(is_the_shards || fault.reason == "AUDIT_UNAVAILABLE", "{fault}");
                break request;
            }
            Err(_) => panic!("no answer within 20 s\n{}", mesh.logs(REGION)),
        }
        assert!(paid.len() < 20_000, "the disk does not fill up");
    };
    assert!(!paid.is_empty(), "nothing was paid before the disk was full");
    mesh.wait_logged(REGION, "is full");
    // It goes on refusing, at once, and does not end.
    for _ in 0..5 {
        let answer = tokio::time::timeout(Duration::from_secs(20), mesh.payments(REGION).create_payment(payment(1, 2, 1))).await;
        let status = answer.expect("an answer").expect_err("the disk is full");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    // A small write may find a little room yet, and the shard is well for as long as that takes.
    let deadline = Instant::now() + NOTICE_MAX;
    loop {
        let _ = mesh.payments(REGION).create_payment(payment(1, 2, 1)).await;
        let (code, health) = mesh.http(REGION, "/health").unwrap();
        let status = mesh.run(&["status"]);
        let why = "shard eu/1\":{\"status\":\"unhealthy\",\"error\":\"it takes no writes until its storage works again";
        if code == 503 && health.contains(why) && health.contains("is full") && status.stdout.contains("takes no writes") {
            assert_eq!(status.code, 1, "{status:?}");
            break;
        }
        assert!(Instant::now() < deadline, "payments are refused: {health} {status:?}\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(mesh.http(REGION, "/ready").unwrap().0, 200, "it reads and forwards");

    ballast.drop_it();
    let deadline = Instant::now() + NOTICE_MAX;
    // The same request again: it counts once, whether or not it was written when its caller was refused.
    while let Err(status) = mesh.payments(REGION).create_payment(refused.clone()).await {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(Instant::now() < deadline, "still refused {NOTICE_MAX:?} after there is room: {status}\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while mesh.http(REGION, "/health").unwrap().0 != 200 {
        assert!(Instant::now() < deadline, "it is not healthy again\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for request in &paid {
        mesh.payments(REGION).create_payment(request.clone()).await.expect("what was paid is answered again");
    }
    let expected = 1_000_000 - i64::try_from(paid.len()).unwrap() - 1;
    assert_eq!(mesh.balance(REGION, 1).await, expected);
    let deadline = Instant::now() + NOTICE_MAX;
    while mesh.balance(REGION, 2).await != 2_000_000 - expected {
        assert!(Instant::now() < deadline, "the payee has {} cents\n{}", mesh.balance(REGION, 2).await, mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mesh.assert_books();
    assert!(mesh.stop(REGION).success(), "{}", mesh.logs(REGION));
}

/// A node whose disk is full before it has made its files.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_on_a_full_disk_serves_once_there_is_room() {
    if !can_mount() {
        return;
    }
    let mut mesh = TestMesh::new(ONE_REGION);
    let data = mesh.data(REGION);
    fs::create_dir(&data).unwrap();
    // Four pages are left: for the files that say whose the directory is, not for the storage.
    let fill = format!("head -c {} /dev/zero > \"$0/ballast\"", (32 << 20) - (4 << 12));
    let mut command = on_a_disk("size=32m", &fill);
    command.env("PAYMESH_CONFIG", mesh.config()).env_remove("RUST_LOG");
    command.arg(&data).arg(PAYMESH).args(["--plain-text", "node", "--supervised", "--region", REGION, "--data"]).arg(&data);
    mesh.spawn_command(REGION, command);
    let deadline = Instant::now() + NOTICE_MAX;
    for shard in ["eu/0", "eu/1", "directory/0"] {
        loop {
            let health = mesh.http(REGION, "/health").map_or_else(Default::default, |(_, health)| health);
            let checks = serde_json::from_str::<serde_json::Value>(&health).unwrap_or_default()["checks"].clone();
            if checks[format!("shard {shard}")]["error"].as_str().is_some_and(|why| why.contains("is full; it is tried again")) {
                break;
            }
            assert!(Instant::now() < deadline, "{shard}: {health}\n{}", mesh.logs(REGION));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(mesh.http(REGION, "/health").unwrap().0, 503);
    assert_eq!(mesh.http(REGION, "/ready").unwrap().0, 503, "it serves nothing");
    // Calls that come all the same are answered, once it listens.
    mesh.wait_logged(REGION, "serving");
    let refused = Fault::from_status(&mesh.payments(REGION).create_payment(payment(1, 2, 1)).await.unwrap_err());
    // No record could be kept of it, so that is asked first.
    assert_eq!((refused.code, refused.reason.as_ref()), (Code::Unavailable, "AUDIT_UNAVAILABLE"), "{refused}");
    // What only says how the node does goes on.
    let status = mesh.run(&["status"]);
    assert!(status.code == 1 && status.stdout.contains("is full"), "{status:?}");

    fs::remove_file(mesh.outside(REGION, &data.join("ballast"))).unwrap();
    let deadline = Instant::now() + NOTICE_MAX;
    while mesh.http(REGION, "/health").unwrap().0 != 200 {
        assert!(Instant::now() < deadline, "still refused {NOTICE_MAX:?} after there is room\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for user in [1, 2] {
        mesh.enrol(REGION, user, "DE", 1_000).await;
    }
    // Of two shards: each follows the other from when both are open.
    mesh.payments(REGION).create_payment(payment(1, 2, 100)).await.unwrap();
    mesh.payments(REGION).create_payment(payment(2, 1, 300)).await.unwrap();
    let deadline = Instant::now() + NOTICE_MAX;
    while (mesh.balance(REGION, 1).await, mesh.balance(REGION, 2).await) != (1_200, 800) {
        assert!(Instant::now() < deadline, "the money does not arrive\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mesh.assert_books();
    assert!(mesh.stop(REGION).success(), "{}", mesh.logs(REGION));
}

#[test]
fn a_read_only_disk_ends_the_node_naming_the_directory() {
    if !can_mount() {
        return;
    }
    let mesh = TestMesh::new(ONE_REGION);
    let data = mesh.data(REGION);
    fs::create_dir(&data).unwrap();
    let mut command = on_a_disk("size=1m,ro", "true");
    command
        .env("PAYMESH_CONFIG", mesh.config())
        .arg(&data)
        .arg(PAYMESH)
        .args(["--plain-text", "node", "--region", REGION, "--data"])
        .arg(&data);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let run: Run = wait_within(child, Duration::from_secs(30));
    assert_eq!(run.code, 2, "{run:?}");
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(said.contains(data.to_str().unwrap()) && said.contains("cannot be written to") && said.contains("Read-only"), "{said}");
}
