//! What becomes of a payment, whatever fraud detection does: a real mesh of one node, and a fraud detection that answers, refuses, hangs or is not there.

#![forbid(unsafe_code)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    directory::v1::{
        ClaimUserRequest, ClaimUserResponse, EnrollUserRequest, EnrollUserResponse, LookUpUsersRequest, LookUpUsersResponse, UserZone,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    fraud::v1::{
        Assessment, Decision, ExplainRequest, ExplainResponse, ScoreRequest, ScoreResponse, ScoredPayment,
        fraud_service_server::{FraudService, FraudServiceServer},
    },
};
use paymesh_mesh::{Mesh, Security};
use paymesh_payment_processor::fraud::{Declined, Outcome, Scorer, Verdict, Why};
use paymesh_topology::{Fraud, Topology};
use paymesh_types::{Currency, Money, RequestId, Score};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, service::Routes};
use uuid::Uuid;

const TOPOLOGY: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
  us: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  us_east: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
";

const RULES: &str = "
version: test
reference_currency: EUR
rates: {USD: 0.5}
zones:
  eu: {deadline_ms: 150, when_unavailable: [{up_to: 1000, then: open}, {then: closed}]}
rules:
  first_payment: {weight: 0.1}
";

/// Past that, a payment has hung: the deadline many times over, for a machine that is busy.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

struct Users;

#[tonic::async_trait]
impl DirectoryService for Users {
    async fn enroll_user(&self, _: Request<EnrollUserRequest>) -> Result<Response<EnrollUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn claim_user(&self, _: Request<ClaimUserRequest>) -> Result<Response<ClaimUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn look_up_users(&self, request: Request<LookUpUsersRequest>) -> Result<Response<LookUpUsersResponse>, Status> {
        let ids = request.into_inner().user_ids;
        let users = ids.into_iter().map(|id| UserZone { user_id: id, zone: "eu".to_owned() }).collect();
        Ok(Response::new(LookUpUsersResponse { users }))
    }
}

/// What fraud detection does.
#[derive(Clone)]
enum Does {
    Answers(Option<Assessment>),
    Refuses(Fault),
    Hangs,
}

struct Fake {
    does: Does,
    asked: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl FraudService for Fake {
    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let payment = request.get_ref().payment.clone().unwrap_or_default();
        assert!(payment.payer_id == 1 && payment.amount.is_some_and(|amount| amount.minor_units > 0));
        self.asked.fetch_add(1, Relaxed);
        match &self.does {
            Does::Answers(assessment) => Ok(Response::new(ScoreResponse { assessment: assessment.clone() })),
            Does::Refuses(fault) => Err(fault.clone().into()),
            Does::Hangs => std::future::pending().await,
        }
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn topology() -> Topology {
    Topology::parse("test", TOPOLOGY).unwrap_or_else(|errors| panic!("{errors}"))
}

fn rules() -> Option<Arc<Fraud>> {
    Some(Arc::new(Fraud::parse("test", RULES, &topology()).unwrap_or_else(|errors| panic!("{errors}"))))
}

/// A scorer beside a fraud detection that does so; none: there is no such service at the node. And how often it was asked.
fn scorer(does: Option<Does>, rules: Option<Arc<Fraud>>) -> (Scorer, Arc<AtomicU64>) {
    let mesh = Mesh::new(Arc::new(topology()), "eu_west".parse().expect("a region"), Security::PlainText).expect("a mesh");
    let asked = Arc::new(AtomicU64::new(0));
    let mut routes = Routes::new(DirectoryServiceServer::new(Users));
    if let Some(does) = does {
        routes = routes.add_service(FraudServiceServer::new(Fake { does, asked: asked.clone() }));
    }
    mesh.attach(routes);
    // The sender is dropped: the rules stay as they are.
    (Scorer::new(mesh, watch::channel(rules).1), asked)
}

async fn verdict_in(scorer: &Scorer, zone: &str, minor: i64, code: &str) -> Verdict {
    let amount = Money::new(minor, Currency::from_code(code).expect("a currency")).expect("an amount");
    let request = RequestId::try_from(Uuid::now_v7()).expect("an id");
    let payment = ScoredPayment { payer_id: 1, payee_id: 2, ..Default::default() };
    let begun = Instant::now();
    let verdict = scorer.verdict(&zone.parse().expect("a zone"), request, amount, payment, None).await;
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    verdict
}

async fn verdict(scorer: &Scorer, minor: i64) -> Verdict {
    verdict_in(scorer, "eu", minor, "EUR").await
}

fn assessed(decision: Decision, score: u32) -> Does {
    let assessment = Assessment { score, decision: decision.into(), rules_version: "theirs".to_owned(), ..Default::default() };
    Does::Answers(Some(assessment))
}

#[tokio::test]
async fn what_was_scored_is_done_whatever_the_amount() {
    for (decision, score, outcome) in [
        (Decision::Accept, 100, Outcome::Accept),
        (Decision::Review, 6_000, Outcome::Review(Why::Score)),
        (Decision::Decline, 9_000, Outcome::Decline(Declined::FraudDetected)),
    ] {
        let (scorer, asked) = scorer(Some(assessed(decision, score)), rules());
        for minor in [1, 1_000, 100_000] {
            let wanted = Verdict { outcome, score: Score::new(score), rules_version: Some("theirs".to_owned()) };
            assert_eq!(verdict(&scorer, minor).await, wanted);
        }
        assert_eq!(asked.load(Relaxed), 3, "each is asked about once");
    }
    assert_eq!(Declined::FraudDetected.reason(), "FRAUD_DETECTED");
}

/// Hung, down, refused, overloaded, nonsense: each is decided by the zone's policy, by its amount.
#[tokio::test]
async fn what_is_not_scored_is_decided_by_the_zones_policy_and_never_hangs() {
    let refuses = |code, reason: &'static str| Some(Does::Refuses(Fault::new(code, reason, "no")));
    for (how, does) in [
        ("hangs", Some(Does::Hangs)),
        ("is not there", None),
        ("is not open", refuses(Code::Unavailable, "FRAUD_UNAVAILABLE")),
        ("is overloaded", refuses(Code::Unavailable, "FRAUD_OVERLOADED")),
        ("does not like it", refuses(Code::InvalidArgument, "INVALID_FIELD")),
        ("fails", refuses(Code::Internal, "INTERNAL")),
        ("answers nothing", Some(Does::Answers(None))),
        ("answers no decision", Some(assessed(Decision::Unspecified, 100))),
        ("answers no score", Some(assessed(Decision::Accept, 10_001))),
    ] {
        let (scorer, _) = scorer(does, rules());
        let version = rules().map(|rules| rules.version().to_owned());
        let wanted = |outcome| Verdict { outcome, score: None, rules_version: version.clone() };
        let open = wanted(Outcome::Review(Why::Unscored));
        let closed = wanted(Outcome::Decline(Declined::FraudUnavailable));
        assert_eq!(verdict(&scorer, 1_000).await, open, "{how}");
        assert_eq!(verdict(&scorer, 1_001).await, closed, "{how}");
        assert_eq!(verdict_in(&scorer, "eu", 2_000, "USD").await, open, "{how}: by what it is worth");
        assert_eq!(verdict_in(&scorer, "eu", 1, "GBP").await, closed, "{how}: nobody knows what that is worth");
    }
    assert_eq!(Declined::FraudUnavailable.reason(), "FRAUD_UNAVAILABLE");
}

#[tokio::test]
async fn a_payment_that_ends_sooner_does_not_wait_for_its_zone() {
    let slow = RULES.replace("deadline_ms: 150", "deadline_ms: 5000");
    let rules = Fraud::parse("test", &slow, &topology()).unwrap_or_else(|errors| panic!("{errors}"));
    let (scorer, _) = scorer(Some(Does::Hangs), Some(Arc::new(rules)));
    let begun = Instant::now();
    let soon = tokio::time::Instant::now() + Duration::from_millis(100);
    let amount = Money::new(1, Currency::from_code("EUR").expect("EUR")).expect("an amount");
    let request = RequestId::try_from(Uuid::now_v7()).expect("an id");
    let payment = ScoredPayment { payer_id: 1, payee_id: 2, ..Default::default() };
    let verdict = scorer.verdict(&"eu".parse().expect("a zone"), request, amount, payment, Some(soon)).await;
    assert_eq!(verdict.outcome, Outcome::Review(Why::Unscored));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_zone_without_fraud_detection_accepts_and_one_without_rules_is_closed() {
    let (with_rules, asked) = scorer(Some(assessed(Decision::Decline, 9_000)), rules());
    assert_eq!(verdict_in(&with_rules, "us", 1, "USD").await, Verdict { outcome: Outcome::Accept, score: None, rules_version: None });
    assert_eq!(asked.load(Relaxed), 0);
    let (without, _) = scorer(Some(Does::Hangs), None);
    let wanted = Verdict { outcome: Outcome::Decline(Declined::FraudUnavailable), score: None, rules_version: None };
    assert_eq!(verdict(&without, 1).await, wanted);
}
