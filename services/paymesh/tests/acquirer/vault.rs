//! VaultService.Authorize: a node's vault sends a card to a simulator, and says what became of it.

use std::{path::Path, sync::Arc, time::Duration};

use paymesh_acquirer_simulator::{Settings, serve};
use paymesh_contract::{
    Fault,
    common::v1::Money,
    directory::v1::{
        ClaimUserRequest, ClaimUserResponse, EnrollUserRequest, EnrollUserResponse, LookUpUsersRequest, LookUpUsersResponse, UserZone,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    timestamp,
    vault::v1::{
        AuthorizationOutcome as Outcome, AuthorizeRequest, AuthorizeResponse, CardDetails, CardholderAuthentication, ScaExemption,
        TokenizeRequest, vault_service_client::VaultServiceClient,
    },
};
use paymesh_mesh::{Mesh, MeshChannel, Security};
use paymesh_topology::{Gateways, Topology};
use paymesh_vault::{Acquirers, Clock, Vault, keys::FileKeys, store::SqliteStore};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Code, Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::{listed, now};

const VISA: &str = "4242424242424242";

const TOPOLOGY: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, vault], database: primary_master}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
  us: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:1', http: '127.0.0.1:2'}
  us_east: {grpc: '127.0.0.1:3', http: '127.0.0.1:4'}
";

/// All users are of `eu`.
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
        let users = ids.into_iter().map(|user_id| UserZone { user_id, zone: "eu".to_owned() }).collect();
        Ok(Response::new(LookUpUsersResponse { users }))
    }
}

struct Node {
    _folder: tempfile::TempDir,
    _opened: watch::Sender<Option<Vault>>,
    simulator: std::net::SocketAddr,
    client: VaultServiceClient<MeshChannel>,
}

async fn node() -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let simulator = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, Settings::default(), std::future::pending()));
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let topology = Arc::new(Topology::parse("test", TOPOLOGY).expect("a topology"));
    let yaml = format!(
        "defaults: {{timeout_ms: 700}}\ngateways:\n  sim: {{connector: simulator, url: 'http://{simulator}', zones: any}}\n  \
         dead: {{connector: simulator, url: 'http://{dead}', zones: any}}\n  american: {{connector: simulator, url: 'http://127.0.0.1:9', zones: [us]}}\n\
         rules:\n  - {{name: all, use: {{sim: 1}}}}\n"
    );
    let gateways = Gateways::parse("gateways.yaml", &yaml, &topology).unwrap_or_else(|errors| panic!("{errors}"));
    let clock: Clock = Arc::new(now);
    let acquirers = Acquirers::new(&gateways, Path::new(""), &clock).expect("acquirers");
    let folder = tempfile::tempdir().expect("a folder");
    let zone: paymesh_types::ZoneName = "eu".parse().expect("a zone");
    let keys = FileKeys::open(&folder.path().join("keys"), "test", &zone).expect("keys");
    let store = SqliteStore::open(&folder.path().join("data"), "test", &zone).await.expect("a store");
    let vault = Vault::open(zone, Arc::new(store), Arc::new(keys), clock).await.expect("a vault");
    let (opened, vault) = watch::channel(Some(vault));
    let mesh = Mesh::new(topology, "eu_west".parse().expect("a region"), Security::PlainText).expect("a mesh");
    mesh.attach(Routes::new(DirectoryServiceServer::new(Users)).add_service(paymesh_vault::service(vault, mesh.clone(), acquirers)));
    Node { _folder: folder, _opened: opened, simulator, client: VaultServiceClient::new(mesh.channel()) }
}

impl Node {
    async fn token(&self, number: &str) -> String {
        let card = CardDetails { number: number.to_owned(), expiry_month: 7, expiry_year: 2033 };
        let request = TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id: 7, card: Some(card), sealed_card: None };
        let taken = self.client.clone().tokenize(request).await.expect("a card").into_inner();
        taken.description.expect("a description").vault_token
    }

    async fn asked(&self, number: &str, reference: &str) -> AuthorizeRequest {
        AuthorizeRequest {
            vault_token: self.token(number).await,
            user_id: 7,
            gateway: "sim".to_owned(),
            reference: reference.to_owned(),
            begun_at: Some(timestamp(now())),
            amount: Some(Money { minor_units: 1_250, currency_code: "EUR".to_owned() }),
            ..AuthorizeRequest::default()
        }
    }

    async fn authorize(&self, request: AuthorizeRequest) -> Result<AuthorizeResponse, Status> {
        let answer = self.client.clone().authorize(request).await;
        let printed = format!("{answer:?}");
        assert!(!printed.contains("42424242") && !printed.contains("40000099"), "{printed}");
        answer.map(Response::into_inner)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_an_authorization_is_said_in_types() {
    let node = node().await;
    // (number, outcome, decline's reason, failure's class)
    let table = [
        (VISA, Outcome::Approved, "", ""),
        ("4000000000009995", Outcome::Declined, "INSUFFICIENT_FUNDS", ""),
        ("4000002760003184", Outcome::ActionRequired, "", ""),
        ("4000009999000014", Outcome::Unknown, "", "timeout"),
        ("4000009999000048", Outcome::Unknown, "", "server_error"),
        ("4000009999000055", Outcome::Unknown, "", "malformed"),
        ("4000009999000071", Outcome::Unknown, "", "mismatch"),
        ("4000009999000097", Outcome::NotDone, "", "overloaded"),
    ];
    for (index, (number, outcome, reason, class)) in table.into_iter().enumerate() {
        let asked = node.asked(number, &format!("typed.{index}")).await;
        let answer = node.authorize(asked).await.expect("an answer");
        assert_eq!(
            (answer.outcome(), answer.decline_reason.as_str(), answer.failure_class.as_str()),
            (outcome, reason, class),
            "{answer:?}"
        );
        assert_eq!(!answer.charge_id.is_empty(), matches!(outcome, Outcome::Approved | Outcome::ActionRequired), "{answer:?}");
        if outcome == Outcome::ActionRequired {
            assert!(!format!("{answer:?}").contains(&answer.challenge_id), "who has it may answer it");
        }
    }
    // Nobody listens there: the next gateway may be tried.
    let asked = AuthorizeRequest { gateway: "dead".to_owned(), ..node.asked(VISA, "typed.dead").await };
    let answer = node.authorize(asked).await.expect("an answer");
    assert_eq!((answer.outcome(), answer.failure_class.as_str()), (Outcome::NotDone, "unreachable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_reference_is_charged_once_and_a_challenge_is_gone_on_with() {
    let node = node().await;
    let asked = node.asked(VISA, "once").await;
    let first = node.authorize(asked.clone()).await.expect("an answer");
    assert_eq!(node.authorize(asked.clone()).await.expect("an answer"), first);
    let other = AuthorizeRequest { amount: Some(Money { minor_units: 1, currency_code: "EUR".to_owned() }), ..asked };
    let other = node.authorize(other).await.expect("an answer");
    assert_eq!((other.outcome(), other.failure_class.as_str()), (Outcome::Unknown, "refused"));

    let exempt = AuthorizeRequest {
        authentication: CardholderAuthentication::Exempt.into(),
        exemption: ScaExemption::LowValue.into(),
        ..node.asked("4000002760003184", "challenged").await
    };
    assert_eq!(node.authorize(exempt.clone()).await.expect("an answer").outcome(), Outcome::ActionRequired, "the issuer turns it down");
    let answered = AuthorizeRequest {
        authentication: CardholderAuthentication::Answered.into(),
        challenge_answer: "123456".to_owned(),
        exemption: ScaExemption::Unspecified.into(),
        ..exempt
    };
    assert_eq!(node.authorize(answered).await.expect("an answer").outcome(), Outcome::Approved);
    let simulator = node.simulator;
    let listed = tokio::task::spawn_blocking(move || listed(simulator)).await.expect("a list");
    let wanted = ["challenged", "once"].map(|reference| (reference.to_owned(), ("authorized".to_owned(), 0)));
    assert_eq!(listed, wanted.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_names_its_reason_and_field_and_reaches_no_gateway() {
    let node = node().await;
    let sound = node.asked(VISA, "refused").await;
    let with = |change: fn(&mut AuthorizeRequest)| {
        let mut request = sound.clone();
        change(&mut request);
        request
    };
    for (request, code, reason, field) in [
        (with(|request| request.user_id = 8), Code::NotFound, "TOKEN_NOT_FOUND", "vault_token"),
        (with(|request| request.vault_token = format!("card_eu_{}", "a".repeat(32))), Code::NotFound, "TOKEN_NOT_FOUND", "vault_token"),
        (with(|request| request.user_id = 0), Code::InvalidArgument, "INVALID_FIELD", "user_id"),
        (with(|request| request.gateway = "smi".to_owned()), Code::FailedPrecondition, "GATEWAY_NOT_FOUND", "gateway"),
        (with(|request| request.gateway = "american".to_owned()), Code::FailedPrecondition, "GATEWAY_NOT_IN_ZONE", "gateway"),
        (with(|request| request.reference = "a b".to_owned()), Code::InvalidArgument, "INVALID_FIELD", "reference"),
        (with(|request| request.begun_at = None), Code::InvalidArgument, "INVALID_FIELD", "begun_at"),
        (with(|request| request.amount = None), Code::InvalidArgument, "INVALID_FIELD", "amount"),
        (
            with(|request| request.amount.as_mut().expect("set").minor_units = 0),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "amount.minor_units",
        ),
        (with(|request| request.authentication = 99), Code::InvalidArgument, "INVALID_FIELD", "authentication"),
        (with(|request| request.challenge_answer = "123456".to_owned()), Code::InvalidArgument, "INVALID_FIELD", "challenge_answer"),
        (with(|request| request.exemption = 1), Code::InvalidArgument, "INVALID_FIELD", "exemption"),
        (
            with(|request| request.authentication = CardholderAuthentication::Exempt.into()),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "exemption",
        ),
    ] {
        let fault = Fault::from_status(&node.authorize(request).await.expect_err(reason));
        assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (code, reason, Some(field)), "{fault}");
    }
    let simulator = node.simulator;
    let listed = tokio::task::spawn_blocking(move || listed(simulator)).await.expect("a list");
    assert!(listed.is_empty(), "{listed:?}");
}

/// The caller's deadline is nearer than the gateway's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unknown_is_said_before_the_caller_has_gone() {
    let node = node().await;
    let mut request = Request::new(node.asked("4000009999000014", "hurry").await);
    request.set_timeout(Duration::from_millis(400));
    let answer = node.client.clone().authorize(request).await.expect("an answer, and no DEADLINE_EXCEEDED").into_inner();
    assert_eq!((answer.outcome(), answer.failure_class.as_str()), (Outcome::Unknown, "timeout"));
}
