//! The nodes' audit logs: read and verified from outside, over restarts and crashes, and what somebody changes in them is found and named.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    audit::v1::{AuditRecord, CallerKind, ReadAuditRequest, audit_service_client::AuditServiceClient, log_note::Event},
    payments::v1::{CreatePaymentRequest, CreatePaymentsRequest, payment_service_client::PaymentServiceClient},
};
use paymesh_identity::Trust;
use serde_json::json;
use tonic::{Code, transport::Endpoint};
use uuid::Uuid;

use crate::{
    support::{FOUR_REGIONS, ONE_REGION, Run, TestMesh, payment},
    tokens::{Issuer, bearer},
};

const WAIT_MAX: Duration = Duration::from_secs(30);

const REGION: &str = "eu_west";
/// The first file of the first chain, below the log's directory.
const FIRST_FILE: &str = "chain-00001/00000000000000000001.log";

/// What the node's log has.
async fn read(mesh: &TestMesh, from_sequence: u64) -> Result<Vec<AuditRecord>, Fault> {
    read_at(mesh, REGION, from_sequence).await
}

/// What a region's node's log has.
pub(crate) async fn read_at(mesh: &TestMesh, region: &str, from_sequence: u64) -> Result<Vec<AuditRecord>, Fault> {
    let mut client = AuditServiceClient::new(mesh.channel(region));
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
        Event::AnonymousCalls(_) => Some("anonymous"),
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
    let status = mesh.run(&["status"]);
    assert!(status.code == 1 && status.stdout.contains(&format!("{REGION}: audit is unhealthy: ")), "{status:?}");
    let evidence = fs::read(audit.join(FIRST_FILE)).unwrap();
    assert!(mesh.stop(REGION).success());
    mesh.start(REGION);
    let (run, report) = verified(&mesh);
    assert_eq!((run.code, &report["problems"]), (1, &serde_json::json!([wanted])), "{run:?}");
    let records = read(&mesh, 0).await.unwrap();
    let Some(Event::ChainBegun(begun)) = records[0].note.clone().unwrap().event else { panic!("{records:?}") };
    let damage = begun.damage.clone().unwrap();
    // It ended with the records of the calls that were made since.
    assert!(begun.after_sequence > 2, "{begun:?}");
    assert_eq!((begun.chain, &*damage.file, damage.sequence), (2, FIRST_FILE, 2));
    let refused = read(&mesh, 1).await.unwrap_err();
    assert_eq!((refused.code, &*refused.reason), (Code::OutOfRange, "POSITION_NOT_KEPT"));
    assert_eq!(refused.metadata, [("first_sequence".to_owned(), (begun.after_sequence + 1).to_string())]);

    assert!(fs::read(audit.join(FIRST_FILE)).unwrap() == evidence, "evidence is not touched");
    fs::rename(audit.join("chain-00001"), mesh.data(REGION).join("evidence")).unwrap();
    let (run, report) = verified(&mesh);
    assert_eq!(run.code, 0, "{report}");
    wait_for_health(&mesh, |status, _| status == 200);
    assert_eq!(mesh.run(&["status"]).code, 0);
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

#[tokio::test(flavor = "multi_thread")]
async fn every_call_leaves_a_record_of_who_did_what_to_whom_where_it_came_in_and_at_the_home() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let service = Issuer::of(&mesh).token(json!({"client_id": "service", "jti": "token-7"}));
    mesh.enrol("us_east", 10, "DE", 1_000).await;
    mesh.enrol("us_east", 11, "DE", 0).await;
    let trust = Trust::load(&mesh.credentials().unwrap()).unwrap();
    let connector = trust.connector("127.0.0.1", mesh.grpc_port("us_west"), WAIT_MAX);
    let channel = Endpoint::from_shared(format!("http://{}", mesh.grpc_address("us_west"))).unwrap().connect_with_connector_lazy(connector);
    let by = |request: CreatePaymentRequest| {
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("authorization", bearer(&service));
        request
    };
    let mut payments = PaymentServiceClient::new(channel);
    let (made, refused) = (payment(10, 11, 5), payment(999, 11, 5));
    payments.create_payment(by(made.clone())).await.unwrap();
    payments.create_payment(by(refused.clone())).await.unwrap_err();
    let batch = CreatePaymentsRequest { payments: (0..40).map(|_| payment(10, 11, 1)).collect() };
    mesh.payments("us_west").create_payments(batch).await.unwrap();

    let deadline = Instant::now() + WAIT_MAX;
    let find = async |region: &str, wanted: &dyn Fn(&AuditRecord) -> bool| loop {
        let records = read_at(&mesh, region, 1).await.unwrap();
        if let Some(found) = records.iter().find(|record| wanted(record)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{region} has no such record: {records:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let id = |text: &str| Uuid::parse_str(text).unwrap().as_bytes().to_vec();
    for region in ["us_west", "eu_west"] {
        let record = find(region, &|record| record.request_id == id(&made.request_id)).await;
        let caller = record.caller.unwrap();
        assert_eq!(
            (caller.kind(), caller.principal.as_str(), caller.token_id.as_str()),
            (CallerKind::Token, "service", "token-7"),
            "{region}"
        );
        assert_eq!(record.method, "/paymesh.payments.v1.PaymentService/CreatePayment");
        assert_eq!((record.scopes, record.entry_region.as_str(), record.code), (vec!["payments.write".to_owned()], "us_west", 0));
        assert_eq!(record.subjects.unwrap().user_ids, [10], "{region}");
        assert!(record.peer_address.starts_with("127.0.0.1:") && record.duration_us > 0, "{region}: {}", record.peer_address);
    }
    let record = find("us_west", &|record| record.request_id == id(&refused.request_id)).await;
    assert_eq!((record.code, record.reason.as_str()), (Code::NotFound as i32, "USER_NOT_FOUND"));
    for region in ["us_west", "eu_west"] {
        let record = find(region, &|record| record.method.ends_with("/CreatePayments")).await;
        let (caller, subjects) = (record.caller.unwrap(), record.subjects.unwrap());
        assert_eq!((caller.kind(), caller.principal.as_str()), (CallerKind::Certificate, "operator"), "{region}");
        assert_eq!((subjects.user_ids.len(), subjects.count), (32, 40), "{region}: of many it has the first, and how many there are");
    }
    // A node by itself, and a stream once it has ended.
    let record = find("us_east", &|record| record.method.ends_with("/ClaimUser")).await;
    assert_eq!(record.subjects.unwrap().user_ids.len(), 1);
    let (run, report) = verified(&mesh);
    assert!(run.code == 0 && report["audit_logs"].as_array().is_some_and(|logs| logs.len() == 4), "{report:#}");
}
