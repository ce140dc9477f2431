//! The nodes' audit logs: read and verified from outside, over restarts and crashes, and what somebody changes in them is found and named.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    audit::v1::{AuditRecord, ReadAuditRequest, audit_service_client::AuditServiceClient, log_note::Event},
};
use tonic::Code;

use crate::support::{ONE_REGION, Run, TestMesh};

const REGION: &str = "eu_west";
/// The first file of the first chain, below the log's directory.
const FIRST_FILE: &str = "chain-00001/00000000000000000001.log";

/// What a node's log has.
async fn read(mesh: &TestMesh, from_sequence: u64) -> Result<Vec<AuditRecord>, Fault> {
    let mut client = AuditServiceClient::new(mesh.channel(REGION));
    let fault = |status: tonic::Status| Fault::from_status(&status);
    let mut answers = client.read_audit(ReadAuditRequest { from_sequence, follow: false }).await.map_err(fault)?.into_inner();
    let mut records = Vec::new();
    while let Some(answer) = answers.message().await.map_err(fault)? {
        assert_eq!(answer.last_hash.len(), 32);
        records.extend(answer.records);
    }
    Ok(records)
}

/// What became of the log itself, in order.
fn events(records: &[AuditRecord]) -> Vec<&'static str> {
    let word = |record: &AuditRecord| match record.note.as_ref()?.event.as_ref()? {
        Event::ChainBegun(_) => Some("begun"),
        Event::Opened(_) => Some("opened"),
        Event::Closed(_) => Some("closed"),
        Event::LetGo(_) => Some("let go"),
        Event::CallsRefused(_) => Some("refused"),
    };
    records.iter().filter_map(word).collect()
}

fn verified(mesh: &TestMesh) -> (Run, serde_json::Value) {
    let run = mesh.run(&["verify", "--json"]);
    let report = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    (run, report)
}

fn flip(path: &Path, byte: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut at = [0];
    file.read_exact_at(&mut at, byte).unwrap();
    file.write_all_at(&[at[0] ^ 1], byte).unwrap();
}

fn wait_for_health(mesh: &TestMesh, wanted: impl Fn(u16, &str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, health) = mesh.http(REGION, "/health").unwrap();
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        if wanted(status, health["checks"]["audit"]["error"].as_str().unwrap_or_default()) {
            return;
        }
        assert!(Instant::now() < deadline, "{health}\n{}", mesh.logs(REGION));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_audit_log_says_when_it_came_and_left_and_is_verified() {
    let mut mesh = TestMesh::started(ONE_REGION);
    let (run, report) = verified(&mesh);
    assert_eq!(run.code, 0, "{run:?}\n{}", mesh.logs(REGION));
    let log = &report["audit_logs"][0];
    assert_eq!((&log["region"], &log["good"], &log["first_sequence"]), (&REGION.into(), &true.into(), &1.into()), "{report}");
    assert_eq!(events(&read(&mesh, 0).await.unwrap()), ["begun", "opened"]);
    assert!(mesh.stop(REGION).success());
    mesh.start(REGION);
    mesh.kill(REGION);
    mesh.start(REGION);
    let records = read(&mesh, 0).await.unwrap();
    assert_eq!(events(&records), ["begun", "opened", "closed", "opened", "opened"], "one that was killed did not say that it left");
    assert!(records.iter().zip(1..).all(|(record, sequence)| record.sequence == sequence && record.region == REGION));
    let (run, after) = verified(&mesh);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(after["audit_logs"][0]["last_sequence"].as_u64() > report["audit_logs"][0]["last_sequence"].as_u64());
    let text = mesh.run(&["verify"]);
    assert!(text.code == 0 && text.stdout.contains("1 audit logs are what their nodes wrote"), "{text:?}");

    let refused = read(&mesh, 1_000_000).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.reason, refused.field.as_deref()),
        (Code::OutOfRange, "POSITION_IN_THE_FUTURE", Some("from_sequence"))
    );
    // Who follows is sent what comes, and is let go when the node leaves.
    let last = records.last().unwrap().sequence;
    let mut client = AuditServiceClient::new(mesh.channel(REGION));
    let mut following = client.read_audit(ReadAuditRequest { from_sequence: last, follow: true }).await.unwrap().into_inner();
    assert_eq!(following.message().await.unwrap().unwrap().records[0].sequence, last);
    assert!(mesh.stop(REGION).success(), "{}", mesh.logs(REGION));
    let end =
        tokio::time::timeout(Duration::from_secs(10), async { while following.message().await.is_ok_and(|answer| answer.is_some()) {} })
            .await;
    end.expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_is_flipped_in_an_audit_log_makes_verify_fail_naming_file_and_record() {
    let mut mesh = TestMesh::started(ONE_REGION);
    let audit = mesh.data(REGION).join("audit");
    wait_for_health(&mesh, |status, _| status == 200);
    let length = fs::metadata(audit.join(FIRST_FILE)).unwrap().len();
    // Within the last record: that the node came.
    flip(&audit.join(FIRST_FILE), length - 40);
    let wanted = format!("audit log of {REGION}: {FIRST_FILE}, record 2: it does not continue the hash chain");
    let run = mesh.run(&["verify"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains(&format!("WRONG  {wanted}")), "{run:?}");
    // It stays wrong, also after a restart, until the evidence is moved away; the node goes on meanwhile, and says so.
    wait_for_health(&mesh, |status, error| status == 503 && error.contains(FIRST_FILE) && error.contains("move it out of"));
    assert_eq!(mesh.http(REGION, "/ready").unwrap().0, 200);
    assert!(mesh.stop(REGION).success());
    mesh.start(REGION);
    let (run, report) = verified(&mesh);
    assert_eq!((run.code, &report["problems"]), (1, &serde_json::json!([wanted])), "{run:?}");
    let records = read(&mesh, 0).await.unwrap();
    let Some(Event::ChainBegun(begun)) = records[0].note.clone().unwrap().event else { panic!("{records:?}") };
    let damage = begun.damage.unwrap();
    assert_eq!((begun.chain, begun.after_sequence, &*damage.file, damage.sequence), (2, 2, FIRST_FILE, 2));
    let refused = read(&mesh, 1).await.unwrap_err();
    assert_eq!((refused.code, &*refused.reason), (Code::OutOfRange, "POSITION_NOT_KEPT"));
    assert_eq!(refused.metadata, [("first_sequence".to_owned(), "3".to_owned())]);

    assert_eq!(fs::metadata(audit.join(FIRST_FILE)).unwrap().len(), length, "evidence is not touched");
    fs::rename(audit.join("chain-00001"), mesh.data(REGION).join("evidence")).unwrap();
    let (run, report) = verified(&mesh);
    assert_eq!(run.code, 0, "{report}");
    wait_for_health(&mesh, |status, _| status == 200);
    mesh.wait_logged(REGION, "the audit log is damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_whose_end_was_cut_off_is_not_taken_for_what_a_crash_leaves() {
    let mut mesh = TestMesh::started(ONE_REGION);
    mesh.kill(REGION);
    let file = mesh.data(REGION).join("audit").join(FIRST_FILE);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    mesh.start(REGION);
    let run = mesh.run(&["verify"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains(&format!("WRONG  audit log of {REGION}: {FIRST_FILE}, record 2: it is cut off")), "{run:?}");
}
