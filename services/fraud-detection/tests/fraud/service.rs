//! FraudService through its generated client and the mesh of one node.

use std::sync::Arc;

use paymesh_contract::{
    Fault,
    common::v1::Money,
    directory::v1::{
        ClaimUserRequest, ClaimUserResponse, EnrollUserRequest, EnrollUserResponse, LookUpUsersRequest, LookUpUsersResponse, UserZone,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    fraud::v1::{
        Decision, ExplainRequest, PaymentKind, ReasonCode, ScoreRequest, ScoredCard, ScoredPayment,
        fraud_service_client::FraudServiceClient,
    },
};
use paymesh_fraud_detection::{Detector, device_hash};
use paymesh_mesh::{Mesh, MeshChannel, Security};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::support::{Place, Running, topology};

/// Users below 100 are of `eu`, those below 200 of `us`, which scores nothing, and there are no others.
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
        let zone = |id: u64| if id < 100 { Some("eu") } else { (id < 200).then_some("us") };
        let ids = request.into_inner().user_ids;
        let users = ids.into_iter().filter_map(|id| Some(UserZone { user_id: id, zone: zone(id)?.to_owned() })).collect();
        Ok(Response::new(LookUpUsersResponse { users }))
    }
}

struct Node {
    _place: Place,
    _running: Option<Running>,
    _opened: watch::Sender<Option<Detector>>,
    client: FraudServiceClient<MeshChannel>,
}

async fn node(opened: bool) -> Node {
    let place = Place::new();
    let running = if opened { Some(place.open().await) } else { None };
    let (opened, detector) = watch::channel(running.as_ref().map(|running| running.detector.clone()));
    let mesh = Mesh::new(Arc::new(topology()), "eu_west".parse().expect("a region"), Security::PlainText).expect("a mesh");
    mesh.attach(Routes::new(DirectoryServiceServer::new(Users)).add_service(paymesh_fraud_detection::service(detector, mesh.clone())));
    let client = FraudServiceClient::new(mesh.channel());
    Node { _place: place, _running: running, _opened: opened, client }
}

fn asked(payer_id: u64) -> ScoredPayment {
    ScoredPayment {
        payer_id,
        payee_id: 2,
        amount: Some(Money { minor_units: 1_000, currency_code: "EUR".to_owned() }),
        kind: PaymentKind::Card.into(),
        card: Some(ScoredCard { fingerprint: vec![7; 16], bin: "424242".to_owned(), country: "FR".to_owned() }),
        device: "a phone".to_owned(),
        entry_region: "us_east".to_owned(),
        residence_country: "DE".to_owned(),
        asked_at: None,
    }
}

fn score(payer_id: u64) -> ScoreRequest {
    ScoreRequest { request_id: Uuid::now_v7().to_string(), payment: Some(asked(payer_id)) }
}

#[tokio::test]
async fn a_payment_is_scored_explained_and_scored_again() {
    let mut node = node(true).await;
    let explained = node.client.explain(ExplainRequest { payment: Some(asked(1)) }).await.expect("an explanation").into_inner();
    assert_eq!(explained.device_hash, device_hash("a phone"));
    let request = score(1);
    let answer = node.client.score(request.clone()).await.expect("a score").into_inner();
    assert_eq!(answer.assessment, explained.assessment);
    let assessment = answer.assessment.clone().expect("an assessment");
    // 1 - 0.9 * 0.6: a first payment, by a card of another country.
    assert_eq!((assessment.score, assessment.decision(), assessment.decline_above), (4_600, Decision::Accept, 8_000));
    let codes: Vec<ReasonCode> = assessment.reasons.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes, [ReasonCode::FirstPayment, ReasonCode::CardAbroad]);
    assert!(assessment.rules_version.starts_with("test-"), "{}", assessment.rules_version);
    assert_eq!(node.client.score(request.clone()).await.expect("the same").into_inner(), answer);
    let other = ScoreRequest { payment: Some(asked(3)), ..request };
    let fault = Fault::from_status(&node.client.score(other).await.expect_err("another payment"));
    assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (Code::AlreadyExists, "REQUEST_ID_REUSED", Some("payment")));
    let printed = format!("{:?} {answer:?}", score(1));
    assert!(!printed.contains("a phone") && !printed.contains("424242") && !printed.contains("FR"), "{printed}");
}

#[tokio::test]
async fn a_list_decides_whatever_else_is_so() {
    let mut node = node(true).await;
    for (payer, payee, decision, points) in
        [(66, 2, Decision::Decline, 10_000), (1, 66, Decision::Decline, 10_000), (77, 2, Decision::Accept, 0)]
    {
        let request = ScoreRequest { payment: Some(ScoredPayment { payee_id: payee, ..asked(payer) }), ..score(payer) };
        let assessment = node.client.score(request).await.expect("a score").into_inner().assessment.expect("an assessment");
        assert_eq!((assessment.decision(), assessment.score), (decision, points), "{payer} to {payee}");
    }
}

#[tokio::test]
async fn what_cannot_be_scored_is_told_in_the_contracts_words() {
    let mut open = node(true).await;
    let mut closed = node(false).await;
    let retry = |status: &Status| Fault::from_status(status).retry_after.is_some();
    for (answer, code, reason, field) in [
        (open.client.score(score(150)).await, Code::FailedPrecondition, "FRAUD_NOT_IN_ZONE", Some("payment.payer_id")),
        (open.client.score(score(250)).await, Code::NotFound, "USER_NOT_FOUND", Some("payment.payer_id")),
        (open.client.score(score(0)).await, Code::InvalidArgument, "INVALID_FIELD", Some("payment.payer_id")),
        (
            open.client.score(ScoreRequest { request_id: "7".to_owned(), ..score(1) }).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some("request_id"),
        ),
        (closed.client.score(score(1)).await, Code::Unavailable, "FRAUD_UNAVAILABLE", None),
    ] {
        let status = answer.expect_err(reason);
        let fault = Fault::from_status(&status);
        assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (code, reason, field), "{fault}");
        assert_eq!(retry(&status), code == Code::Unavailable, "{fault}");
    }
}
