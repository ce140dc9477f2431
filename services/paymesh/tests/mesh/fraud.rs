//! Payments scored across regions: at their payer's home or near it in the zone, whichever region is called; by rules that change while nodes run.

use std::{
    fs,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    audit::v1::{ReadAuditRequest, audit_service_client::AuditServiceClient},
    fraud::v1::{
        Assessment, Decision, ExplainRequest, PaymentKind, ReasonCode, ScoreRequest, ScoredCard, ScoredPayment,
        fraud_service_client::FraudServiceClient,
    },
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{
    remains::{files_below, has},
    support::{FOUR_REGIONS, TestMesh, euro},
};

const DEVICE: &str = "the phone of somebody in Berlin";
const WAIT_MAX: Duration = Duration::from_secs(30);

const RULES: &str = "
version: first
reference_currency: EUR
rules:
  user_count: [{per: hour, from: 0, full: 100, weight: 1}]
  entry_abroad: {weight: 0.25}
";

/// The four regions; fraud detection everywhere but in asia_pacific, as it ships.
fn four_regions_with_fraud() -> String {
    FOUR_REGIONS
        .replace(
            "us_east: {primary: true, services: [payment_processor]",
            "us_east: {primary: true, services: [payment_processor, fraud_detection]",
        )
        .replace(
            "us_west: {primary: false, services: [payment_processor]",
            "us_west: {primary: false, services: [payment_processor, fraud_detection]",
        )
        .replace(
            "eu_west: {primary: false, services: [payment_processor]",
            "eu_west: {primary: false, services: [payment_processor, fraud_detection]",
        )
}

fn with_rules(config: &str) -> TestMesh {
    let mesh = TestMesh::new(config);
    fs::write(mesh.config().join("fraud.yaml"), RULES).unwrap();
    mesh
}

fn fraud(mesh: &TestMesh, via: &str) -> FraudServiceClient<Channel> {
    FraudServiceClient::new(mesh.channel(via))
}

fn asked(payer_id: u64, via: &str) -> ScoredPayment {
    ScoredPayment {
        payer_id,
        payee_id: 99,
        amount: Some(euro(1_000)),
        kind: PaymentKind::Card.into(),
        card: Some(ScoredCard { fingerprint: vec![7; 16], bin: "424242".to_owned(), country: "DE".to_owned() }),
        device: DEVICE.to_owned(),
        entry_region: via.to_owned(),
        residence_country: "DE".to_owned(),
        asked_at: None,
    }
}

fn request(payer_id: u64, via: &str) -> ScoreRequest {
    ScoreRequest { request_id: Uuid::now_v7().to_string(), payment: Some(asked(payer_id, via)) }
}

async fn score(mesh: &TestMesh, via: &str, request: &ScoreRequest) -> Assessment {
    fraud(mesh, via).score(request.clone()).await.unwrap().into_inner().assessment.unwrap()
}

async fn explain(mesh: &TestMesh, via: &str, payer: u64) -> Assessment {
    let request = ExplainRequest { payment: Some(asked(payer, via)) };
    fraud(mesh, via).explain(request).await.unwrap().into_inner().assessment.unwrap()
}

fn count(assessment: &Assessment) -> u64 {
    assessment.reasons.iter().find(|reason| reason.code() == ReasonCode::UserCount).unwrap().value
}

/// Payments that a region has scored since its node began.
fn scored_at(mesh: &TestMesh, region: &str) -> u64 {
    let (_, metrics) = mesh.http(region, "/metrics").unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("paymesh_fraud_scores_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_scored_in_their_zone_from_anywhere_and_once() {
    let mut mesh = with_rules(&four_regions_with_fraud());
    mesh.start_all();
    for (user, country) in [(10, "US"), (11, "DE"), (99, "US")] {
        mesh.enrol("us_east", user, country, 0).await;
    }
    let mut expected = 0;
    for via in mesh.regions() {
        for user in [10, 11] {
            // What is explained is what is scored then, and nothing counts for it.
            let explained = explain(&mesh, &via, user).await;
            let request = request(user, &via);
            let scored = score(&mesh, &via, &request).await;
            assert_eq!((scored.score, &scored.reasons), (explained.score, &explained.reasons), "{user} by {via}");
            assert_eq!(count(&scored), expected + 1, "{user} by {via}: its home counts all of them");
            let abroad = scored.reasons.iter().any(|reason| reason.code() == ReasonCode::EntryAbroad);
            assert_eq!(abroad, (user == 11) != (via == "eu_west"), "{user} by {via}");
            for again in mesh.regions() {
                assert_eq!(score(&mesh, &again, &request).await, scored, "the same request by {again}");
            }
        }
        expected += 1;
    }
    // us_west runs fraud detection too, and leads no shard; what is known of a user of the eu stays there.
    let at = |region| scored_at(&mesh, region);
    assert_eq!((at("us_east"), at("us_west"), at("eu_west")), (4, 0, 4));
    assert!(!mesh.data("asia_pacific").join("fraud").exists());

    // Whoever was called is asked for the record of whom it was about.
    let mut records =
        AuditServiceClient::new(mesh.channel("asia_pacific")).read_audit(ReadAuditRequest::default()).await.unwrap().into_inner();
    let mut users = Vec::new();
    while let Some(read) = records.message().await.unwrap() {
        let of_scores = read.records.iter().filter(|record| record.method.ends_with("FraudService/Score"));
        users.extend(of_scores.flat_map(|record| record.subjects.clone().unwrap_or_default().user_ids));
    }
    assert!(users.contains(&10) && users.contains(&11), "{users:?}");

    // A crash a moment later loses nothing, and counts nothing twice.
    let before = request(11, "asia_pacific");
    let scored = score(&mesh, "asia_pacific", &before).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    mesh.kill("eu_west");
    let down = Fault::from_status(&fraud(&mesh, "asia_pacific").score(before.clone()).await.unwrap_err());
    assert_eq!(down.reason, "PEER_UNAVAILABLE");
    mesh.start("eu_west");
    let deadline = Instant::now() + WAIT_MAX;
    let again = loop {
        match fraud(&mesh, "asia_pacific").score(before.clone()).await {
            Ok(answer) => break answer.into_inner().assessment.unwrap(),
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(again, scored);
    assert_eq!(count(&explain(&mesh, "us_west", 11).await), expected + 2);

    // Whatever stands for a device is in no file and no log.
    for region in mesh.regions() {
        assert!(mesh.stop(&region).success());
        let files = files_below(&mesh.data(&region));
        assert!(files.len() > 2, "{region}");
        for (path, content) in files {
            assert!(!has(&content, DEVICE.as_bytes()), "{}", path.display());
        }
        assert!(!mesh.logs(&region).contains(DEVICE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_fraud_detection_holds_nobody_up() {
    let mut mesh = with_rules(&four_regions_with_fraud());
    mesh.start_all();
    mesh.enrol("us_east", 11, "DE", 0).await;
    score(&mesh, "us_west", &request(11, "us_west")).await;
    mesh.signal("eu_west", "STOP");
    let begun = Instant::now();
    let mut asked = tonic::Request::new(request(11, "us_west"));
    asked.set_timeout(Duration::from_millis(300));
    let fault = Fault::from_status(&fraud(&mesh, "us_west").score(asked).await.unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(&*fault.reason, "DEADLINE_EXCEEDED" | "PEER_UNAVAILABLE"), "{fault}");
    mesh.signal("eu_west", "CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_read_again_while_a_node_runs_and_a_bad_file_changes_nothing() {
    let config = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
zones:
  eu: {shards: 2, regions: [eu_west], countries: [DE, FR]}
";
    let mut mesh = with_rules(config);
    mesh.start("eu_west");
    mesh.enrol("eu_west", 11, "DE", 0).await;
    let write = |yaml: &str| fs::write(mesh.config().join("fraud.yaml"), yaml).unwrap();
    let wait_for = async |version: &str| {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let explained = explain(&mesh, "eu_west", 11).await;
            if explained.rules_version.starts_with(version) {
                return explained;
            }
            assert!(Instant::now() < deadline, "{version}: {explained:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let first = wait_for("first-").await;
    assert_eq!((first.score, first.decision()), (100, Decision::Accept));

    write(&RULES.replace("user_count", "user_cuont"));
    mesh.wait_logged("eu_west", "rules.user_cuont: unknown key; did you mean `user_count`?");
    let (_, health) = mesh.http("eu_west", "/health").unwrap();
    assert!(health.contains("payments are scored by rules that were read before") && health.contains("fraud.yaml:5"), "{health}");
    let status = mesh.run(&["status"]);
    assert!(status.stdout.contains("fraud rules") || status.stderr.contains("fraud rules"), "{status:?}");
    assert_eq!(explain(&mesh, "eu_west", 11).await.rules_version, first.rules_version);
    let (_, metrics) = mesh.http("eu_west", "/metrics").unwrap();
    assert!(metrics.lines().any(|line| line.starts_with("paymesh_fraud_rules_refused_total") && line.ends_with(" 1")), "{metrics}");

    write(&format!("{}block: {{users: [11]}}\n", RULES.replace("first", "second")));
    let second = wait_for("second-").await;
    assert_eq!((second.score, second.decision()), (10_000, Decision::Decline));
    assert_eq!(second.reasons[1].code(), ReasonCode::BlockedUser);

    fs::remove_file(mesh.config().join("fraud.yaml")).unwrap();
    mesh.wait_logged("eu_west", "fraud.yaml is gone");
    assert_eq!(explain(&mesh, "eu_west", 11).await.rules_version, second.rules_version, "nobody is let through by a file that is gone");

    // A node does not start by a file that is wrong.
    assert!(mesh.stop("eu_west").success());
    fs::write(mesh.config().join("fraud.yaml"), "version: 7\n").unwrap();
    let data = mesh.data("eu_west");
    let refused = mesh.run(&["node", "--region", "eu_west", "--data", data.to_str().unwrap()]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("fraud.yaml:1: version: must be text, not 7"), "{refused:?}");
}
