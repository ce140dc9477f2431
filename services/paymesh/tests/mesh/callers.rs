//! Callers who may: each for those that it acts for, as long as its credential holds, and everywhere alike.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use paymesh_client::{Client, Options, Session, Token};
use paymesh_contract::{
    Fault,
    common::v1::ShardRef,
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    events::v1::{SubscribeRequest, event_service_client::EventServiceClient},
    mesh::v1::{GetStatusRequest, GetTopologyRequest, VerifyShardRequest, mesh_service_client::MeshServiceClient},
    payments::v1::{
        CaptureMode, CapturePaymentRequest, CreatePaymentRequest, CreatePaymentsRequest, GetPaymentRequest, GetRequestOutcomeRequest,
        PaymentStatus, RefundPaymentRequest, VoidPaymentRequest, payment_outcome::Outcome, payment_service_client::PaymentServiceClient,
    },
    replication::v1::{GetReplicationRequest, VerifyReplicaRequest, replication_service_client::ReplicationServiceClient},
    wallet::v1::{GetBalanceRequest, wallet_service_client::WalletServiceClient},
};
use paymesh_identity::Trust;
use prost::{Message as _, bytes::Bytes};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tower::{Service as _, ServiceExt as _};
use uuid::Uuid;

use crate::{
    remains::{files_below, has},
    support::{ACCESS, FOUR_REGIONS, Launch, TestMesh, payment},
    tokens::{self, Issuer, bearer},
};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// A connection to a region from one who shows nothing of itself but what each call has.
pub(crate) fn unknown(mesh: &TestMesh, region: &str) -> Channel {
    let trust = Trust::load(&mesh.credentials().unwrap()).unwrap();
    let connector = trust.connector("127.0.0.1", mesh.grpc_port(region), WAIT_MAX);
    Endpoint::from_shared(format!("http://{}", mesh.grpc_address(region))).unwrap().connect_with_connector_lazy(connector)
}

/// A request of whoever has this token.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer(token));
    request
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    Fault::from_status(&answer.expect_err("it must be refused")).reason.into_owned()
}

/// Begins to subscribe to the first shard of global, and says so no sooner than `go`.
async fn held_back(
    mesh: &TestMesh,
    region: &str,
    token: &str,
    go: impl Future<Output = ()> + Send + 'static,
) -> http::Response<tonic::body::Body> {
    let message = SubscribeRequest { zone: "global".to_owned(), from_sequence: 1, ..SubscribeRequest::default() }.encode_to_vec();
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    framed.extend(message);
    let body = StreamBody::new(stream::once(async move {
        go.await;
        Ok::<_, Status>(Frame::data(Bytes::from(framed)))
    }));
    let request = http::Request::post("/paymesh.events.v1.EventService/Subscribe")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(tonic::body::Body::new(body))
        .unwrap();
    let mut channel = unknown(mesh, region);
    channel.ready().await.unwrap().call(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_acts_for_the_user_of_its_token_in_every_region_and_for_nobody_else() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let issuer = Issuer::of(&mesh);
    for (user, country) in [(10, "US"), (11, "DE"), (12, "US")] {
        mesh.enrol("us_east", user, country, 10_000).await;
    }
    let [payer, payee, other] = [10, 11, 12].map(|user: u64| issuer.token(json!({"client_id": "app", "sub": user.to_string()})));
    for region in mesh.regions() {
        let channel = unknown(&mesh, &region);
        let (mut payments, mut wallets) = (PaymentServiceClient::new(channel.clone()), WalletServiceClient::new(channel));
        let held = CreatePaymentRequest { capture_mode: CaptureMode::Manual.into(), ..payment(10, 11, 100) };
        assert_eq!(reason(payments.create_payment(by(&payee, held.clone())).await), "NOT_YOUR_USER", "{region}");
        let made = payments.create_payment(by(&payer, held)).await.unwrap().into_inner().payment.unwrap();
        let get = || GetPaymentRequest { payment_id: made.payment_id.clone(), ..GetPaymentRequest::default() };
        // Both ends see it, and none else; who is there and who is not look the same to them.
        for token in [&payer, &payee] {
            let seen = payments.get_payment(by(token, get())).await.unwrap().into_inner().payment.unwrap();
            assert_eq!(seen.status(), PaymentStatus::Authorized, "{region}");
        }
        let hidden = payments.get_payment(by(&other, get())).await.unwrap_err();
        let missing = GetPaymentRequest { payment_id: later_id(&made.payment_id), ..get() };
        let missing = payments.get_payment(by(&other, missing)).await.unwrap_err();
        let told = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
        assert_eq!(told(&hidden), told(&missing), "{region}");
        let capture = |id: &str| CapturePaymentRequest {
            request_id: Uuid::new_v4().to_string(),
            payment_id: id.to_owned(),
            ..CapturePaymentRequest::default()
        };
        assert_eq!(reason(payments.capture_payment(by(&other, capture(&made.payment_id))).await), "NOT_YOUR_USER", "{region}");
        // What becomes of what is held, and of what was paid, is the payee's to say.
        assert_eq!(reason(payments.capture_payment(by(&payer, capture(&made.payment_id))).await), "NOT_YOUR_USER", "{region}");
        let void = VoidPaymentRequest { request_id: Uuid::new_v4().to_string(), payment_id: made.payment_id.clone() };
        assert_eq!(reason(payments.void_payment(by(&payer, void)).await), "NOT_YOUR_USER", "{region}");
        payments.capture_payment(by(&payee, capture(&made.payment_id))).await.unwrap();
        let refund = || RefundPaymentRequest {
            request_id: Uuid::new_v4().to_string(),
            payment_id: made.payment_id.clone(),
            amount_minor_units: Some(1),
        };
        for token in [&other, &payer] {
            assert_eq!(reason(payments.refund_payment(by(token, refund())).await), "NOT_YOUR_USER", "{region}");
        }
        // Once the money has arrived.
        let (refund, deadline) = (refund(), Instant::now() + WAIT_MAX);
        while let Err(status) = payments.refund_payment(by(&payee, refund.clone())).await {
            assert_eq!(Fault::from_status(&status).reason, "PAYMENT_NOT_REFUNDABLE", "{region}");
            assert!(Instant::now() < deadline, "{region}: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        // Each payment of a batch by itself.
        let batch =
            CreatePaymentsRequest { payments: vec![payment(10, 11, 1), payment(12, 11, 1), payment(10, 12, 1), payment(999, 11, 1)] };
        let outcomes = payments.create_payments(by(&payer, batch)).await.unwrap().into_inner().outcomes;
        let told: Vec<String> = outcomes
            .into_iter()
            .map(|outcome| match outcome.outcome.unwrap() {
                Outcome::Receipt(_) => "made".to_owned(),
                Outcome::Error(error) => error.reason,
            })
            .collect();
        assert_eq!(told, ["made", "NOT_YOUR_USER", "made", "NOT_YOUR_USER"], "{region}");

        let balance = |user_id| GetBalanceRequest { user_id, ..GetBalanceRequest::default() };
        wallets.get_balance(by(&other, balance(12))).await.unwrap();
        let theirs = wallets.get_balance(by(&other, balance(10))).await.unwrap_err();
        let nobodys = wallets.get_balance(by(&other, balance(999))).await.unwrap_err();
        assert_eq!((theirs.code(), theirs.message()), (nobodys.code(), nobodys.message()), "{region}");
    }
    mesh.assert_books();
}

/// The id of a payment that is not there yet.
fn later_id(id: &str) -> String {
    let (rest, last) = id.rsplit_once('_').unwrap();
    format!("{rest}_{}", last.parse::<u64>().unwrap() + 100_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_in_one_zone_learns_nothing_of_another() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let europe = Issuer::of(&mesh).token(json!({"client_id": "europe"}));
    mesh.enrol("us_east", 10, "US", 10_000).await;
    mesh.enrol("us_east", 11, "DE", 10_000).await;
    // Nor does it take back what one of its own users has paid to one who is another zone's.
    let paid = mesh.payments("us_east").create_payment(payment(11, 10, 5)).await.unwrap().into_inner().payment.unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    let mut payments = PaymentServiceClient::new(unknown(&mesh, "eu_west"));
    let get = || GetPaymentRequest { payment_id: paid.payment_id.clone(), ..GetPaymentRequest::default() };
    while payments.get_payment(by(&europe, get())).await.unwrap().into_inner().payment.unwrap().status() != PaymentStatus::Completed {
        assert!(Instant::now() < deadline, "the payment does not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refund =
        RefundPaymentRequest { request_id: Uuid::new_v4().to_string(), payment_id: paid.payment_id.clone(), amount_minor_units: None };
    assert_eq!(reason(payments.refund_payment(by(&europe, refund)).await), "NOT_YOUR_USER");
    for region in ["us_east", "asia_pacific", "eu_west"] {
        let channel = unknown(&mesh, region);
        let (mut payments, mut wallets) = (PaymentServiceClient::new(channel.clone()), WalletServiceClient::new(channel.clone()));
        let balance = |user_id| GetBalanceRequest { user_id, ..GetBalanceRequest::default() };
        wallets.get_balance(by(&europe, balance(11))).await.unwrap();
        let told = |status: Status| (status.code(), status.message().to_owned(), status.details().to_vec());
        let theirs = told(wallets.get_balance(by(&europe, balance(10))).await.unwrap_err());
        assert_eq!(theirs, told(wallets.get_balance(by(&europe, balance(999))).await.unwrap_err()), "{region}");
        // It may not pay there either, as nothing says that it may; nor is it told who could be paid.
        let mut there = payment(11, 10, 1);
        let theirs = payments.create_payment(by(&europe, there.clone())).await.unwrap_err();
        there.payee_id = 998;
        let nobody = payments.create_payment(by(&europe, there)).await.unwrap_err();
        assert_eq!(theirs.message().replace("10", "X"), nobody.message().replace("998", "X"), "{region}");
        assert_eq!((theirs.code(), nobody.code()), (Code::NotFound, Code::NotFound), "{region}");
        let batch = CreatePaymentsRequest { payments: vec![payment(11, 10, 1)] };
        let outcomes = payments.create_payments(by(&europe, batch)).await.unwrap().into_inner().outcomes;
        let Some(Outcome::Error(error)) = &outcomes[0].outcome else { panic!("{region}: {outcomes:?}") };
        assert_eq!(error.reason, "USER_NOT_FOUND", "{region}");
        let enrol = EnrollUserRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: 16,
            residence_country: "US".to_owned(),
            currency_codes: vec![],
        };
        assert_eq!(reason(DirectoryServiceClient::new(channel).enroll_user(by(&europe, enrol)).await), "NOT_YOUR_USER", "{region}");
    }
    // By a certificate it is the same principal, also where the call is passed on.
    let directory = mesh.credentials().unwrap();
    let made = mesh.run(&["certs", "--caller", "europe", directory.to_str().unwrap()]);
    assert!(made.code == 0 && !made.stdout.contains("nodes do not know europe"), "{made:?}");
    // Of a region that is gone: its node and its edges are no callers.
    for gone in ["gone", "gone-edge"] {
        fs::create_dir(directory.join(gone)).unwrap();
        fs::copy(directory.join("us_west/tls.crt"), directory.join(gone).join("tls.crt")).unwrap();
    }
    let others = mesh.run(&["certs", "--caller", "nobody", directory.to_str().unwrap()]);
    for wanted in ["nodes do not know nobody yet: access.yaml has no principal of that name", "the certificate of europe is as it was"] {
        assert!(others.code == 0 && others.stdout.contains(wanted), "{wanted}: {others:?}");
    }
    assert!(!others.stdout.contains("gone"), "{others:?}");
    let credentials = mesh.credentials().unwrap();
    let trust = Trust::load_with_certificate(&credentials, &credentials.join("europe")).unwrap();
    for region in ["us_west", "eu_west"] {
        let connector = trust.connector("127.0.0.1", mesh.grpc_port(region), WAIT_MAX);
        let endpoint = Endpoint::from_shared(format!("http://{}", mesh.grpc_address(region))).unwrap();
        let mut wallets = WalletServiceClient::new(endpoint.connect_with_connector_lazy(connector));
        let balance = |user_id| GetBalanceRequest { user_id, ..GetBalanceRequest::default() };
        wallets.get_balance(balance(11)).await.unwrap();
        assert_eq!(reason(wallets.get_balance(balance(10)).await), "NOT_YOUR_USER", "{region}");
    }
}

/// What is told of all users together tells amounts of each: who is bound gets none of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_bound_is_told_no_sums_of_others() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let issuer = Issuer::of(&mesh);
    let shard = || Some(ShardRef { zone: "global".to_owned(), shard: 0 });
    for (token, wanted) in [
        (issuer.token(json!({"client_id": "app", "sub": "12"})), "NOT_YOUR_USERS"),
        (issuer.token(json!({"client_id": "europe"})), "NOT_YOUR_USERS"),
        (issuer.token(json!({"client_id": "service"})), ""),
    ] {
        let mut operations = MeshServiceClient::new(unknown(&mesh, "us_east"));
        let mut replication = ReplicationServiceClient::new(unknown(&mesh, "us_west"));
        let told = [
            operations.get_status(by(&token, GetStatusRequest {})).await.map(drop),
            operations.verify_shard(by(&token, VerifyShardRequest { shard: shard(), ..VerifyShardRequest::default() })).await.map(drop),
            replication.get_replication(by(&token, GetReplicationRequest {})).await.map(drop),
            replication
                .verify_replica(by(&token, VerifyReplicaRequest { shard: shard(), ..VerifyReplicaRequest::default() }))
                .await
                .map(drop),
        ];
        let reasons = told.map(|told| told.err().map(|status| Fault::from_status(&status).reason.into_owned()).unwrap_or_default());
        assert_eq!(reasons, [wanted; 4]);
        operations.get_topology(by(&token, GetTopologyRequest {})).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_refunds_can_ask_what_became_of_it() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 10, "US", 10_000).await;
    mesh.enrol("us_east", 12, "US", 0).await;
    let paid = mesh.payments("us_east").create_payment(payment(10, 12, 100)).await.unwrap().into_inner().payment.unwrap();
    let issuer = Issuer::of(&mesh);
    let (payer, payee) = (issuer.token(json!({"client_id": "app", "sub": "10"})), issuer.token(json!({"client_id": "app", "sub": "12"})));
    let mut payments = PaymentServiceClient::new(unknown(&mesh, "us_west"));
    let request_id = Uuid::new_v4().to_string();
    let refund = RefundPaymentRequest { request_id: request_id.clone(), payment_id: paid.payment_id.clone(), amount_minor_units: Some(10) };
    payments.refund_payment(by(&payee, refund)).await.unwrap();
    let ask = |user_id| GetRequestOutcomeRequest { user_id, request_id: request_id.clone() };
    for (token, user) in [(&payee, 12), (&payer, 10)] {
        let outcome = payments.get_request_outcome(by(token, ask(user))).await.unwrap().into_inner();
        assert_eq!((&*outcome.kind, outcome.payment.unwrap().payment_id), ("refund_completed", paid.payment_id.clone()));
    }
    assert_eq!(reason(payments.get_request_outcome(by(&payee, ask(10))).await), "NOT_YOUR_USER");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_looks_at_the_credential_itself() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    // At the home of the money nobody knows the service, whatever the region that is called thinks.
    let apart = mesh.config().with_file_name("apart");
    fs::create_dir(&apart).unwrap();
    fs::copy(mesh.config().join("regions.yaml"), apart.join("regions.yaml")).unwrap();
    fs::write(apart.join("access.yaml"), ACCESS.replace("client_id: service", "client_id: another")).unwrap();
    mesh.launch("us_east", Launch { config: Some(apart), ..Launch::default() });
    mesh.start_all();
    let service = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 10, "US", 1_000).await;
    mesh.enrol("us_east", 11, "DE", 1_000).await;
    for user in [10, 11] {
        let mut wallets = WalletServiceClient::new(unknown(&mesh, "eu_west"));
        let answer = wallets.get_balance(by(&service, GetBalanceRequest { user_id: user, ..GetBalanceRequest::default() })).await;
        match user {
            10 => assert_eq!(reason(answer), "PRINCIPAL_UNKNOWN"),
            _ => drop(answer.unwrap()),
        }
    }
    let mut payments = PaymentServiceClient::new(unknown(&mesh, "eu_west"));
    let batch = CreatePaymentsRequest { payments: vec![payment(10, 11, 1), payment(11, 10, 1)] };
    let outcomes = payments.create_payments(by(&service, batch)).await.unwrap().into_inner().outcomes;
    let Some(Outcome::Error(error)) = &outcomes[0].outcome else { panic!("{outcomes:?}") };
    assert_eq!(error.reason, "PRINCIPAL_UNKNOWN");
    assert!(matches!(outcomes[1].outcome, Some(Outcome::Receipt(_))), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_their_credential_and_with_the_word_of_access_yaml() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let issuer = Issuer::of(&mesh);
    mesh.enrol("us_east", 10, "US", 1_000).await;
    let subscribe = |region: &'static str, token: String| {
        let mut events = EventServiceClient::new(unknown(&mesh, region));
        async move {
            let request = SubscribeRequest { zone: "global".to_owned(), from_sequence: 1, ..SubscribeRequest::default() };
            let mut stream = events.subscribe(by(&token, request)).await.unwrap().into_inner();
            assert!(!stream.message().await.unwrap().unwrap().events.is_empty(), "it tells what there is");
            let began = Instant::now();
            let ended = loop {
                match tokio::time::timeout(WAIT_MAX * 2, stream.message()).await.expect("an end") {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended without a word"),
                    Err(status) => break status,
                }
            };
            (Fault::from_status(&ended).reason.into_owned(), began.elapsed())
        }
    };
    // At the home and where it is passed on. Clocks may be 30 seconds apart, so a token that ended 18 seconds ago has 12 left.
    let short = issuer.token(json!({"client_id": "service", "exp": tokens::now() - 18, "iat": tokens::now() - 60}));
    // One that does not say what it asks for before its token ends: sooner than it would be taken to stall.
    let shorter = issuer.token(json!({"client_id": "service", "exp": tokens::now() - 25, "iat": tokens::now() - 60}));
    let silent = async {
        let answer = held_back(&mesh, "us_west", &shorter, std::future::pending()).await;
        Fault::from_status(&Status::from_header_map(answer.headers()).unwrap()).reason.into_owned()
    };
    let (at_home, passed_on, silent) = tokio::join!(subscribe("us_east", short.clone()), subscribe("us_west", short.clone()), silent);
    for (reason, took) in [at_home, passed_on] {
        assert_eq!(reason, "CREDENTIAL_EXPIRED");
        assert!(took < WAIT_MAX, "{took:?}");
    }
    assert_eq!(silent, "CREDENTIAL_EXPIRED");
    // A principal that is taken out of access.yaml; also where its streams had only begun to ask for something.
    let long = issuer.token(json!({"client_id": "service"}));
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let begun = held_back(&mesh, "us_east", &long, async { drop(gone.await) });
    let taken_out = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs::write(mesh.config().join("access.yaml"), ACCESS.replace("client_id: service", "client_id: another")).unwrap();
        let mut wallets = WalletServiceClient::new(unknown(&mesh, "us_east"));
        let ask = || by(&long, GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() });
        while wallets.get_balance(ask()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Where it has not ended already.
        let _ = go.send(());
    };
    let (ended, begun, ()) = tokio::join!(subscribe("us_east", long.clone()), begun, taken_out);
    assert_eq!(ended.0, "PRINCIPAL_UNKNOWN");
    let status = match Status::from_header_map(begun.headers()) {
        Some(status) => status,
        None => {
            let trailers = tokio::time::timeout(WAIT_MAX, begun.into_body().collect()).await.expect("an end").unwrap();
            Status::from_header_map(trailers.trailers().unwrap()).unwrap()
        }
    };
    assert_eq!(Fault::from_status(&status).reason, "PRINCIPAL_UNKNOWN");

    // What cannot be used is said, and changes nothing.
    fs::write(mesh.config().join("access.yaml"), ACCESS.replace("mesh.read,", "mesh.raed,")).unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    let health = || mesh.http("us_east", "/health").unwrap();
    while !health().1.contains("did you mean `mesh.read`?") {
        assert!(Instant::now() < deadline, "{}", health().1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(health().0, 200, "it still works: {}", health().1);
    assert_eq!(mesh.balance("us_east", 10).await, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_more_of_a_node_than_its_share() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let issuer = Issuer::of(&mesh);
    mesh.enrol("us_east", 10, "US", 1_000).await;
    let slow = issuer.token(json!({"client_id": "slow"}));
    let mut wallets = WalletServiceClient::new(unknown(&mesh, "us_west"));
    let mut told = Vec::new();
    for _ in 0..20 {
        let answer = wallets.get_balance(by(&slow, GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() })).await;
        told.push(answer.map(|_| ()).map_err(|status| Fault::from_status(&status)));
    }
    let let_in = told.iter().filter(|told| told.is_ok()).count();
    assert!((4..=12).contains(&let_in), "two a second, and four at once: {told:?}");
    let fault = told.into_iter().find_map(Result::err).unwrap();
    assert_eq!((fault.code, &*fault.reason), (Code::ResourceExhausted, "RATE_LIMITED"), "{fault}");
    assert!(fault.retry_after.is_some_and(|wait| !wait.is_zero() && wait <= Duration::from_secs(1)), "{fault:?}");
    // Where its calls are passed on to, they have taken nothing: of each node its callers take a share.
    let mut at_home = WalletServiceClient::new(unknown(&mesh, "us_east"));
    at_home.get_balance(by(&slow, GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() })).await.unwrap();
    // Others have shares of their own.
    assert_eq!(mesh.balance("us_west", 10).await, 1_000);

    tokio::time::sleep(Duration::from_secs(2)).await;
    let subscribe = SubscribeRequest { zone: "global".to_owned(), from_sequence: 1, ..SubscribeRequest::default() };
    let mut events = EventServiceClient::new(unknown(&mesh, "us_east"));
    let stream = events.subscribe(by(&slow, subscribe.clone())).await.unwrap();
    let second = events.subscribe(by(&slow, subscribe.clone())).await;
    assert_eq!(reason(second), "TOO_MANY_IN_PROGRESS");
    drop(stream);
    let deadline = Instant::now() + WAIT_MAX;
    while let Err(status) = events.subscribe(by(&slow, subscribe.clone())).await {
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[test]
fn a_node_does_not_start_with_what_callers_cannot_be_known_by() {
    let mesh = TestMesh::new(FOUR_REGIONS);
    let start = |wanted: &str| {
        let run = mesh.run(&["node", "--region", "us_east", "--data", mesh.data("us_east").to_str().unwrap()]);
        assert!(run.code == 2 && run.stderr.contains(wanted), "{wanted:?}: {run:?}");
    };
    fs::write(mesh.config().join("access.yaml"), ACCESS.replacen("zones: any", "zones: []", 1)).unwrap();
    start("access.yaml:8: principals.operator.zones: must list at least one zone");
    fs::write(mesh.config().join("access.yaml"), ACCESS).unwrap();
    let keys = mesh.credentials().unwrap().join("issuer/jwks.json");
    fs::write(&keys, r#"{"keys": []}"#).unwrap();
    start("issuer/jwks.json: has no key");
    fs::remove_file(&keys).unwrap();
    start("issuer/jwks.json: cannot be read");
    let run = mesh.run(&["--credentials", "nowhere", "node", "--region", "us_east", "--data", mesh.data("us_east").to_str().unwrap()]);
    assert!(run.code == 2 && run.stderr.contains("there are no credentials in nowhere"), "{run:?}");
}

/// Not at any level that an operator would use, and not for a caller whom it is refused to either.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_key_is_in_what_nodes_say_or_leave_behind() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    for region in mesh.regions() {
        mesh.spawn_logging(&region, "debug");
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    let issuer = Issuer::of(&mesh);
    mesh.enrol("us_east", 10, "US", 1_000).await;
    let (good, bad) = (issuer.token(json!({"client_id": "service"})), issuer.wrongly_signed(json!({"client_id": "service"})));
    for region in mesh.regions() {
        let mut wallets = WalletServiceClient::new(unknown(&mesh, &region));
        let request = || GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() };
        wallets.get_balance(by(&good, request())).await.unwrap();
        let refused = wallets.get_balance(by(&bad, request())).await.unwrap_err();
        assert!(!format!("{refused:?}").contains(&bad[..40]));
    }
    // What is signed of each, and the line of a key that has all of it.
    let mut secrets = vec![good.rsplit('.').next().unwrap().to_owned(), bad.rsplit('.').next().unwrap().to_owned()];
    for region in mesh.regions() {
        let key = fs::read_to_string(mesh.credentials().unwrap().join(&region).join("tls.key")).unwrap();
        secrets.push(key.lines().nth(1).unwrap().to_owned());
    }
    for region in mesh.regions() {
        let process = mesh.process(&region);
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "no core file is left: {core}");
        let told = [
            ("the log", mesh.logs(&region).into_bytes()),
            ("/health", mesh.http(&region, "/health").unwrap().1.into_bytes()),
            ("/metrics", mesh.http(&region, "/metrics").unwrap().1.into_bytes()),
            ("the command line", fs::read(format!("/proc/{process}/cmdline")).unwrap()),
        ];
        let files = files_below(&mesh.data(&region)).into_iter().map(|(path, content)| (path.display().to_string(), content));
        for (place, text) in told.map(|(place, text)| (place.to_owned(), text)).into_iter().chain(files) {
            for secret in &secrets {
                assert!(!has(&text, secret.as_bytes()), "a secret is in {place} of {region}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_command_line_pays() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 10, "US", 1_000).await;
    mesh.enrol("us_east", 12, "US", 0).await;
    let issued = mesh.run(&["token", "app", "--user", "10", "--minutes", "5"]);
    assert_eq!(issued.code, 0, "{issued:?}");
    let mut payments = PaymentServiceClient::new(unknown(&mesh, "asia_pacific"));
    payments.create_payment(by(issued.stdout.trim(), payment(10, 12, 5))).await.unwrap();
    assert_eq!(mesh.balance("us_east", 10).await, 995);

    // Whom nodes do not know is told that, and not that they are down.
    let stranger = mesh.data("stranger");
    fs::create_dir(&stranger).unwrap();
    fs::copy(mesh.credentials().unwrap().join("ca.crt"), stranger.join("ca.crt")).unwrap();
    let status = mesh.run(&["--credentials", stranger.to_str().unwrap(), "status"]);
    assert!(status.code == 1 && status.stdout.contains("us_east answers, and refuses this: NO_CREDENTIAL"), "{status:?}");

    // The client library shows what is in a file.
    let file = mesh.file("token", &issued.stdout);
    let trust = Some(Trust::load(&mesh.credentials().unwrap()).unwrap());
    let endpoint = format!("https://{}", mesh.grpc_address("us_west"));
    let client = |token| Client::connect([endpoint.clone()], Options { trust: trust.clone(), token, ..Options::default() }).unwrap();
    client(Some(Token::File(file))).call(&Session::new(), payment(10, 12, 5)).await.unwrap();
    let refused = client(None).call(&Session::new(), payment(10, 12, 5)).await.unwrap_err();
    assert!(refused.to_string().starts_with("NO_CREDENTIAL"), "{refused}");
    assert_eq!(mesh.balance("us_east", 10).await, 990);

    for (args, wanted) in [
        (&["token", "nobody"][..], "has no principal `nobody`; it has operator, service"),
        (&["token", "operator"], "operator is not known by tokens, but by a certificate"),
        (&["token", "app"], "name one"),
        (&["token", "service", "--minutes", "44640"], "holds for 86400 s at most"),
    ] {
        let run = mesh.run(args);
        assert!(run.code == 2 && run.stderr.contains(wanted), "{wanted}: {run:?}");
    }
}
