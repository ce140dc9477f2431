//! Edges: any number of processes that take a region's calls, of which nobody has to believe anything.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use paymesh_client::{Card, CardNumber, Expiry, seal};
use paymesh_contract::{
    Fault,
    audit::v1::{AuditRecord, CallerKind},
    common::v1::{ReadLevel, ReadOptions, ShardRef},
    directory::v1::{ClaimUserRequest, EnrollUserRequest, LookUpUsersRequest, directory_service_client::DirectoryServiceClient},
    mesh::v1::{GetTopologyRequest, mesh_service_client::MeshServiceClient},
    payments::v1::{CreatePaymentRequest, PaymentStatus, payment_service_client::PaymentServiceClient},
    replication::v1::{FollowRequest, FollowStart, follow_request::Message, replication_service_client::ReplicationServiceClient},
    vault::v1::{DescribeTokenRequest, GetVaultKeyRequest, TokenizeRequest, vault_service_client::VaultServiceClient},
    wallet::v1::{GetBalanceRequest, GetBalanceResponse, wallet_service_client::WalletServiceClient},
};
use paymesh_identity::{Identity, Trust};
use prost::bytes::Bytes;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tower::{Service as _, ServiceExt as _};
use uuid::Uuid;

use crate::{
    audit,
    callers::by,
    cards::proven,
    certificates::say_way,
    replicas,
    support::{FOUR_REGIONS, TestMesh, four_regions_with_vaults, free_port, operator, payment, signal},
    tokens::Issuer,
    vault_alone,
};

const REGION: &str = "us_west";
const WAIT_MAX: Duration = Duration::from_secs(30);

/// An edge of us_west. It ends with this value.
struct Edge {
    process: Child,
    grpc: u16,
    http: u16,
}

impl Edge {
    fn start(mesh: &TestMesh, number: usize) -> Self {
        let (grpc, http) = (free_port(), free_port());
        let name = format!("edge-{number}");
        let (data, at) = (mesh.data(&name), |port: u16| format!("127.0.0.1:{port}"));
        let args = ["edge", "--supervised", "--region", REGION, "--data", data.to_str().unwrap()];
        let mut command = mesh.command(&args);
        command.args(["--listen-grpc", &at(grpc), "--listen-http", &at(http)]);
        let log = fs::File::options().create(true).append(true).open(mesh.file(&format!("{name}.log"), "")).unwrap();
        let process = command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut edge = Self { process, grpc, http };
        let until = Instant::now() + WAIT_MAX;
        while edge.get("/ready").is_none_or(|(status, _)| status != 200) {
            assert!(edge.process.try_wait().unwrap().is_none() && Instant::now() < until, "{name} does not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        edge
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// Waits until gRPC's own health says so, which is told of readiness a moment after HTTP's.
    async fn says_that_it_serves(&self, mesh: &TestMesh) {
        let (mut health, until) = (HealthClient::new(self.channel(mesh)), Instant::now() + WAIT_MAX);
        while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status() != ServingStatus::Serving {
            assert!(Instant::now() < until, "it does not say that it serves");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it is scaled by.
    fn waiting(&self) -> usize {
        self.metric("payment_queue_length")
    }

    fn metric(&self, name: &str) -> usize {
        let metrics = self.get("/metrics").unwrap().1;
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }

    /// A connection from one who shows nothing but what each call has.
    fn channel(&self, mesh: &TestMesh) -> Channel {
        self.by(&Trust::load(&mesh.credentials().unwrap()).unwrap())
    }

    fn by(&self, trust: &Trust) -> Channel {
        let connector = trust.connector("127.0.0.1", self.grpc, WAIT_MAX);
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.grpc)).unwrap().connect_with_connector_lazy(connector)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    Fault::from_status(&answer.expect_err("it must be refused")).reason.into_owned()
}

fn enrolment(user_id: u64, country: &str) -> EnrollUserRequest {
    EnrollUserRequest {
        request_id: Uuid::now_v7().to_string(),
        user_id,
        residence_country: country.to_owned(),
        currency_codes: vec!["EUR".to_owned()],
    }
}

/// Waits until so many calls were answered.
async fn wait_for(answered: &AtomicUsize, many: usize) {
    let until = Instant::now() + WAIT_MAX;
    while answered.load(Relaxed) < many {
        assert!(Instant::now() < until, "{} were answered", answered.load(Relaxed));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether nobody answered: the connection was closed, or the mesh says that it could not be done now.
fn is_no_answer(status: &Status) -> bool {
    use std::error::Error as _;
    status.source().is_some_and(|source| source.is::<tonic::transport::Error>()) || status.code() == Code::Unavailable
}

/// Pays through one of the edges, and through the other when there is no answer, by the same request id, until there is one.
async fn pay(channels: Vec<Channel>, first: usize, token: String, request: CreatePaymentRequest) -> PaymentStatus {
    let until = Instant::now() + WAIT_MAX;
    for turn in first.. {
        let mut client = PaymentServiceClient::new(channels[turn % channels.len()].clone());
        match client.create_payment(by(&token, request.clone())).await {
            Ok(answer) => return answer.into_inner().payment.unwrap().status(),
            Err(status) => {
                assert!(is_no_answer(&status), "{status:?}");
                assert!(Instant::now() < until, "{status:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    unreachable!("turns do not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_carry_what_they_are_given_and_one_that_is_killed_loses_no_answered_payment() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    let (mut one, other) = (Edge::start(&mesh, 1), Edge::start(&mesh, 2));
    let channels = vec![one.channel(&mesh), other.channel(&mesh)];
    let mut directory = DirectoryServiceClient::new(channels[0].clone());
    for (user, country) in [(31, "JP"), (41, "FR")] {
        directory.enroll_user(by(&token, enrolment(user, country))).await.unwrap();
    }
    for user in [10, 20] {
        mesh.enrol("us_east", user, if user == 10 { "US" } else { "DE" }, 1_000_000).await;
    }
    let payers = [(10_u64, 31_u64), (20, 41)];
    // Eight at a time, so that some are under way whenever it goes.
    let (mut paying, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for lane in 0..8_usize {
        let (channels, token, answered) = (channels.clone(), token.clone(), answered.clone());
        paying.spawn(async move {
            let mut statuses = Vec::new();
            for number in (lane..200).step_by(8) {
                let (payer, payee) = payers[number % 2];
                statuses.push(pay(channels.clone(), number / 2, token.clone(), payment(payer, payee, 100)).await);
                answered.fetch_add(1, Relaxed);
            }
            statuses
        });
    }
    wait_for(&answered, 60).await;
    one.process.kill().unwrap();
    one.process.wait().unwrap();
    assert!(answered.load(Relaxed) < 200, "it went while calls were under way");
    let paid: Vec<PaymentStatus> = paying.join_all().await.into_iter().flatten().collect();
    assert_eq!(paid.len(), 200);
    assert!(paid.iter().all(|status| matches!(status, PaymentStatus::Completed | PaymentStatus::InTransit)), "{paid:?}");
    let until = Instant::now() + WAIT_MAX;
    while mesh.balance("us_east", 31).await + mesh.balance("eu_west", 41).await < 20_000 {
        assert!(Instant::now() < until, "the money does not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each once, however often it was sent.
    for (user, wanted) in [(10, 990_000), (20, 990_000), (31, 10_000), (41, 10_000)] {
        assert_eq!(mesh.balance("us_west", user).await, wanted, "{user}");
    }
    let books = mesh.assert_books();
    assert!(!books.is_null());

    // What it says of itself: the paths and the figure that Kubernetes asks it for.
    for path in ["/health", "/ready"] {
        assert_eq!(other.get(path).unwrap().0, 200, "{path}");
    }
    assert_eq!(other.waiting(), 0);
    // What the region says of itself it says by its node.
    let mut operations = MeshServiceClient::new(channels[1].clone());
    let topology = operations.get_topology(by(&token, GetTopologyRequest {})).await.unwrap().into_inner();
    assert_eq!(topology.region, REGION);
}

/// What an edge would sign itself is nobody's: crates/client/tests/sealing.rs.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_goes_through_an_edge_sealed_to_the_key_that_its_vaults_node_has_signed() {
    let mesh = TestMesh::started(&four_regions_with_vaults());
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 11, "DE", 0).await;
    let edge = Edge::start(&mesh, 1);
    let mut vault = VaultServiceClient::new(edge.channel(&mesh));
    let answer = vault.get_vault_key(by(&token, GetVaultKeyRequest { user_id: 11 })).await.unwrap().into_inner();
    let key = proven(&mesh, "eu_west", 11, &answer).unwrap();
    let card = Card { number: CardNumber::parse("5200828282828210").unwrap(), expiry: Expiry::new(7, 2031).unwrap() };
    let sealed_card = Some(seal(&card, &key).unwrap());
    let taking = TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id: 11, card: None, sealed_card };
    let taken = vault.tokenize(by(&token, taking)).await.unwrap().into_inner().description.unwrap();
    assert_eq!((taken.last_four.as_str(), taken.user_id), ("8210", 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_scaled_by_the_calls_that_wait_for_their_answers() {
    const CALLS: usize = 7;
    let mesh = TestMesh::started(FOUR_REGIONS);
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 10, "US", 700).await;
    let edge = Edge::start(&mesh, 1);
    let wallets = WalletServiceClient::new(edge.channel(&mesh));
    let get = || by(&token, GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() });
    // The edge knows whose the user is from then on, and asks nobody but the home.
    wallets.clone().get_balance(get()).await.unwrap();
    assert_eq!(edge.waiting(), 0);
    let until = Instant::now() + WAIT_MAX;
    loop {
        mesh.signal("us_east", "STOP");
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (mut client, request) = (wallets.clone(), get());
            calls.spawn(async move { client.get_balance(request).await.map(drop) });
        }
        let mut early = None;
        while early.is_none() && edge.waiting() != CALLS {
            assert!(Instant::now() < until, "{} of {CALLS} are said to wait", edge.waiting());
            tokio::time::sleep(Duration::from_millis(5)).await;
            early = calls.try_join_next();
        }
        mesh.signal("us_east", "CONT");
        let Some(early) = early else {
            calls.join_all().await.into_iter().collect::<Result<(), Status>>().unwrap();
            break;
        };
        // A region that has said nothing for three seconds is not waited for. This machine was too busy to look before that: again, once it is back.
        assert_eq!(reason(early.unwrap()), "PEER_SILENT");
        calls.join_all().await;
        while wallets.clone().get_balance(get()).await.is_err() {
            assert!(Instant::now() < until, "us_east does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    while edge.waiting() != 0 {
        assert!(Instant::now() < until, "{} still wait", edge.waiting());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_leaves_finishes_what_it_has_taken() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 10, "US", 1_000_000).await;
    mesh.enrol("us_east", 14, "US", 0).await;
    let mut edge = Edge::start(&mesh, 1);
    let channel = edge.channel(&mesh);
    let (mut calls, so_far) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..8 {
        let (mut client, token, so_far) = (PaymentServiceClient::new(channel.clone()), token.clone(), so_far.clone());
        calls.spawn(async move {
            let mut answered = 0;
            loop {
                match client.create_payment(by(&token, payment(10, 14, 1))).await {
                    Ok(_) => answered += 1,
                    // Not taken any more: nothing was done, as the balance shows.
                    Err(status) => {
                        assert!(is_no_answer(&status), "{status:?}");
                        return answered;
                    }
                }
                so_far.fetch_add(1, Relaxed);
            }
        });
    }
    wait_for(&so_far, 40).await;
    signal(edge.process.id(), "TERM");
    let answered: i64 = calls.join_all().await.into_iter().sum();
    assert_eq!(edge.process.wait().unwrap().code(), Some(0));
    assert!(answered >= 40);
    let until = Instant::now() + WAIT_MAX;
    while mesh.balance("us_east", 14).await != answered {
        assert!(Instant::now() < until, "{answered} were answered, and {} are there", mesh.balance("us_east", 14).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the region's copies have all that there is: what they do not have when their leader goes is nowhere to be read.
async fn has_its_copies(mesh: &TestMesh) {
    for (shard, head) in mesh.heads().iter().filter(|(shard, _)| shard.starts_with("global/") || shard.starts_with("directory/")) {
        replicas::wait_for(mesh, REGION, shard, replicas::is_current(*head)).await;
    }
}

async fn read(channel: &Channel, token: &str, user_id: u64) -> Result<GetBalanceResponse, Status> {
    let read = Some(ReadOptions { level: ReadLevel::Local.into(), ..ReadOptions::default() });
    let mut request = by(token, GetBalanceRequest { user_id, read });
    request.set_timeout(WAIT_MAX);
    WalletServiceClient::new(channel.clone()).get_balance(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_region_has_a_copy_of_is_read_through_an_edge_also_while_the_home_and_the_directory_are_away() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 10, "US", 700).await;
    mesh.enrol("us_east", 14, "US", 300).await;
    let edge = Edge::start(&mesh, 1);
    let channel = edge.channel(&mesh);
    has_its_copies(&mesh).await;
    let answer = read(&channel, &token, 10).await.unwrap();
    assert_eq!((answer.balances[0].booked_minor_units, answer.source.unwrap().region.as_str()), (700, REGION));
    mesh.kill("us_east");
    let until = Instant::now() + WAIT_MAX;
    // It has never heard of this user, and nobody can be asked but its own region's node.
    loop {
        match read(&channel, &token, 14).await {
            Ok(answer) if answer.balances.first().is_some_and(|balance| balance.booked_minor_units == 300) => break,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let balance = GetBalanceRequest { user_id: 14, ..GetBalanceRequest::default() };
    let refused = WalletServiceClient::new(channel).get_balance(by(&token, balance)).await.expect_err("its home is away");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    // Who has a certificate is refused by the edge itself: the home, which it knows of this user, would say the same, and is away.
    let mut by_certificate = WalletServiceClient::new(edge.by(&operator(&mesh.credentials().unwrap())));
    let known = GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() };
    assert_eq!(reason(by_certificate.get_balance(known).await), "TOKENS_ONLY");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_directory_says_nothing_an_edge_asks_its_own_regions_node() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    mesh.enrol("us_east", 14, "US", 300).await;
    let edge = Edge::start(&mesh, 1);
    has_its_copies(&mesh).await;
    // Over connections that are there, all of them: what is asked is under way when it gets no answer.
    for user in 1_000..1_012 {
        assert_eq!(reason(read(&edge.channel(&mesh), &token, user).await), "USER_NOT_FOUND");
    }
    mesh.signal("us_east", "STOP");
    let begun = Instant::now();
    let answer = read(&edge.channel(&mesh), &token, 14).await;
    mesh.signal("us_east", "CONT");
    let answer = answer.unwrap_or_else(|status| panic!("after {:?}: {status:?}", begun.elapsed()));
    assert_eq!((answer.balances[0].booked_minor_units, answer.source.unwrap().region.as_str()), (300, REGION));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_answers_for_its_own_health_whoever_is_away() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    let edge = Edge::start(&mesh, 1);
    for region in mesh.regions() {
        mesh.kill(&region);
    }
    // Its callers hear in words who is away.
    edge.says_that_it_serves(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_knows_callers_by_tokens_and_lets_nobody_else_in() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let issuer = Issuer::of(&mesh);
    mesh.enrol("us_east", 10, "US", 700).await;
    mesh.enrol("us_east", 20, "DE", 700).await;
    let edge = Edge::start(&mesh, 1);
    let balance = |user_id| GetBalanceRequest { user_id, ..GetBalanceRequest::default() };
    let mut wallets = WalletServiceClient::new(edge.channel(&mesh));
    assert_eq!(reason(wallets.get_balance(balance(10)).await), "NO_CREDENTIAL");
    let [app, slow, europe] = [json!({"client_id": "app", "sub": "10"}), json!({"client_id": "slow"}), json!({"client_id": "europe"})];
    let [app, slow, europe] = [app, slow, europe].map(|claims| issuer.token(claims));
    wallets.get_balance(by(&app, balance(10))).await.unwrap();
    assert_eq!(reason(wallets.get_balance(by(&app, balance(20))).await), "NOT_YOUR_USER");
    assert_eq!(reason(wallets.get_balance(by(&europe, balance(10))).await), "NOT_YOUR_USER");
    wallets.get_balance(by(&europe, balance(20))).await.unwrap();
    let mut payments = PaymentServiceClient::new(edge.channel(&mesh));
    assert_eq!(reason(payments.create_payment(by(&slow, payment(10, 20, 1))).await), "SCOPE_MISSING");
    // What edges ask on their own behalf nobody asks through them.
    let look = || LookUpUsersRequest { user_ids: vec![10] };
    let mut directory = DirectoryServiceClient::new(edge.channel(&mesh));
    assert_eq!(reason(directory.look_up_users(look()).await), "NO_CREDENTIAL");
    for (token, wanted) in [(&slow, "SCOPE_MISSING"), (&app, "NOT_YOUR_USERS")] {
        assert_eq!(reason(directory.look_up_users(by(token, look())).await), wanted);
    }
    // Nor is the directory asked for users who are none of the caller's.
    let asked = edge.metric("paymesh_directory_misses_total");
    for user in 1_000..1_050 {
        assert_eq!(reason(wallets.get_balance(by(&app, balance(user))).await), "NOT_YOUR_USER");
    }
    assert_eq!(edge.metric("paymesh_directory_misses_total"), asked);
    // Whoever has a certificate is known to nodes.
    let by_certificate = edge.by(&operator(&mesh.credentials().unwrap()));
    assert_eq!(reason(WalletServiceClient::new(by_certificate.clone()).get_balance(balance(10)).await), "TOKENS_ONLY");
    WalletServiceClient::new(by_certificate).get_balance(by(&app, balance(10))).await.unwrap();
    // Who may make two calls a second has no more of them at the home through a second edge.
    let other = Edge::start(&mesh, 2);
    let mut both = [WalletServiceClient::new(edge.channel(&mesh)), WalletServiceClient::new(other.channel(&mesh))];
    let (begun, mut taken) = (Instant::now(), 0);
    for number in 0..12_usize {
        match both[number % 2].get_balance(by(&slow, balance(20))).await {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(Fault::from_status(&status).reason, "RATE_LIMITED", "{status:?}"),
        }
    }
    // Those of two seconds at once, and two for each second; each edge by itself lets as many through.
    let most = 5 + 2 * begun.elapsed().as_millis() / 1_000;
    assert!(taken <= most, "{taken} of 12 were taken within {:?}", begun.elapsed());
    // Nor does anybody follow a journal through it.
    let start =
        FollowStart { shard: Some(ShardRef { zone: "global".to_owned(), shard: 0 }), region: REGION.to_owned(), ..FollowStart::default() };
    let said = stream::iter([FollowRequest { message: Some(Message::Start(start)) }]);
    assert_eq!(reason(ReplicationServiceClient::new(edge.channel(&mesh)).follow(said).await), "NODES_ONLY");
}

/// A connection to a region's node from somebody who has taken an edge of us_west over.
fn as_edge(mesh: &TestMesh, to: &str) -> Channel {
    let credentials = mesh.credentials().unwrap().join(format!("{REGION}-edge"));
    let identity = Identity::load_edge(&credentials, "test", &REGION.parse().unwrap(), SystemTime::now()).unwrap();
    let connector = identity.connector(&to.parse().unwrap(), "127.0.0.1", mesh.grpc_port(to), WAIT_MAX);
    Endpoint::from_shared(format!("http://{}", mesh.grpc_address(to))).unwrap().connect_with_connector_lazy(connector)
}

fn from<T>(hops: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    say_way(&mut request, Some(hops));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_an_edge_over_can_do_nothing_but_with_tokens_that_come_by() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 10, "US", 700).await;
    for to in ["us_east", REGION, "eu_west"] {
        let channel = as_edge(&mesh, to);
        // What nodes send each other.
        for hops in [None, Some(REGION)] {
            let start = FollowStart {
                shard: Some(ShardRef { zone: "global".to_owned(), shard: 0 }),
                region: REGION.to_owned(),
                ..FollowStart::default()
            };
            let mut follow = Request::new(stream::iter([FollowRequest { message: Some(Message::Start(start)) }]));
            say_way(&mut follow, hops);
            assert_eq!(reason(ReplicationServiceClient::new(channel.clone()).follow(follow).await), "NODES_ONLY", "{to} {hops:?}");
        }
        let mut directory = DirectoryServiceClient::new(channel.clone());
        assert_eq!(reason(directory.claim_user(from(REGION, ClaimUserRequest::default())).await), "NODES_ONLY", "{to}");
        // What nodes may ask too, as nodes.
        let describe = DescribeTokenRequest { vault_token: "vt_x".to_owned() };
        assert_eq!(reason(VaultServiceClient::new(channel.clone()).describe_token(from(REGION, describe)).await), "NO_CREDENTIAL", "{to}");
        // In a caller's name, without its token: of nobody, and of the operator, whose certificate is no secret.
        let balance = GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() };
        let mut wallets = WalletServiceClient::new(channel.clone());
        assert_eq!(reason(wallets.get_balance(from(REGION, balance.clone())).await), "NO_CREDENTIAL", "{to}");
        let pem = fs::read_to_string(mesh.credentials().unwrap().join("operator/tls.crt")).unwrap();
        let certificate: String = pem.lines().skip(1).take_while(|line| !line.starts_with("-----END")).collect();
        let mut passed = from(REGION, balance.clone());
        passed.metadata_mut().insert("paymesh-caller-certificate", certificate.parse().unwrap());
        assert_eq!(reason(wallets.get_balance(passed).await), "TOKENS_ONLY", "{to}");
        // As another region's, and as one that others have passed calls to.
        for hops in ["us_east", "eu_west"] {
            assert_eq!(reason(wallets.get_balance(from(hops, balance.clone())).await), "NOT_THAT_NODE", "{to} {hops}");
        }
        let mut request = Request::new(balance);
        request.metadata_mut().insert("paymesh-hops", "us_east,us_west".parse().unwrap());
        request.metadata_mut().insert("paymesh-entry-region", "us_east".parse().unwrap());
        assert_eq!(reason(wallets.get_balance(request).await), "NOT_THAT_NODE", "{to}");
        // As nobody in particular: not even that hides whose connection it is.
        assert_eq!(reason(wallets.get_balance(GetBalanceRequest::default()).await), "NO_CREDENTIAL", "{to}");
        // Whose a user is it has to ask.
        let look = LookUpUsersRequest { user_ids: vec![10] };
        let found = directory.look_up_users(from(REGION, look)).await.unwrap().into_inner().users;
        assert_eq!(found.iter().map(|user| user.zone.as_str()).collect::<Vec<_>>(), ["global"], "{to}");
    }

    // With a token that came by it is its caller: that, and whose edge it came by, is in the log.
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    let mut stolen = by(&token, GetBalanceRequest { user_id: 10, ..GetBalanceRequest::default() });
    say_way(&mut stolen, Some(REGION));
    WalletServiceClient::new(as_edge(&mesh, "us_east")).get_balance(stolen).await.unwrap();
    // Whose connection it was is in the log, whatever was tried. The last record is there a moment after its answer.
    let by_token =
        |record: &&AuditRecord| record.edge_region == REGION && record.caller.as_ref().is_some_and(|caller| caller.principal == "service");
    let until = Instant::now() + WAIT_MAX;
    let records = loop {
        let records = audit::read_at(&mesh, "us_east", 1).await.unwrap();
        if records.iter().filter(by_token).count() == 1 {
            break records;
        }
        assert!(Instant::now() < until, "{records:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(records.iter().all(|record| record.edge_region.is_empty() || record.edge_region == REGION));
    let by_edge = |record: &&AuditRecord| {
        record.caller.as_ref().is_some_and(|caller| caller.kind() == CallerKind::Edge && caller.principal == REGION)
    };
    let tried: BTreeSet<String> = records.iter().filter(by_edge).map(|record| record.reason.clone()).collect();
    let wanted = ["", "NODES_ONLY", "NOT_THAT_NODE", "NO_CREDENTIAL", "TOKENS_ONLY"].map(str::to_owned);
    assert!(tried.is_superset(&BTreeSet::from(wanted)), "{tried:?}");

    let is_nobodys = |record: &&AuditRecord| {
        let kind = record.caller.as_ref().map(|caller| caller.kind());
        kind == Some(CallerKind::Anonymous) && !record.reason.is_empty()
    };
    assert_eq!(records.iter().find(is_nobodys), None, "whose connection it was is known of each");

    // Its certificate makes no node of whoever has it.
    let mine = mesh.credentials().unwrap().parent().unwrap().join("taken");
    fs::create_dir_all(mine.join(REGION)).unwrap();
    let edges = mesh.credentials().unwrap().join(format!("{REGION}-edge"));
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::copy(edges.join(file), mine.join(REGION).join(file)).unwrap();
    }
    fs::copy(mesh.credentials().unwrap().join("ca.crt"), mine.join("ca.crt")).unwrap();
    let data = mesh.data("taken-data");
    let run = mesh.run(&["--credentials", mine.to_str().unwrap(), "node", "--region", REGION, "--data", data.to_str().unwrap()]);
    assert!(run.code == 2 && run.stderr.contains("is that of spiffe://test/region/us_west/edge"), "{run:?}");
}

/// Begins so many calls that say nothing more, and gives what was answered, in order: those that were held have REQUEST_STALLED, once they had to be whole.
fn headers_alone(
    channel: &Channel,
    path: &'static str,
    headers: &[(&'static str, String)],
    many: usize,
) -> FuturesUnordered<JoinHandle<Fault>> {
    let begin = |_| {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
        let mut request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(tonic::body::Body::new(body)).unwrap();
        let mut channel = channel.clone();
        tokio::spawn(async move {
            let mut answer = channel.ready().await.unwrap().call(request).await.unwrap();
            let status = Status::from_header_map(answer.headers());
            let status = match status {
                Some(status) => status,
                None => Status::from_header_map(answer.body_mut().collect().await.unwrap().trailers().unwrap()).unwrap(),
            };
            Fault::from_status(&status)
        })
    };
    (0..many).map(begin).collect()
}

/// Whoever may make a few calls, or none, holds places by sending headers, and those are theirs.
#[tokio::test(flavor = "multi_thread")]
async fn who_begins_calls_and_does_not_end_them_shuts_nobody_else_out() {
    let mesh = TestMesh::started(&format!("{FOUR_REGIONS}limits: {{calls: 64, probes: 16}}\n"));
    mesh.enrol("us_east", 10, "US", 700).await;
    let edge = Edge::start(&mesh, 1);

    // Anybody: all watches that there may be, and checks that do not end.
    let stranger = edge.channel(&mesh);
    let mut watches = Vec::new();
    for number in 0..17 {
        match HealthClient::new(stranger.clone()).watch(HealthCheckRequest::default()).await {
            Ok(watch) => watches.push(watch),
            Err(status) => assert_eq!((number, &*reason::<()>(Err(status))), (16, "NODE_OVERLOADED")),
        }
    }
    assert_eq!(watches.len(), 16);
    let checks = headers_alone(&stranger, "/grpc.health.v1.Health/Check", &[], 9);
    // An app, whose principal has no bound of its own: a quarter of the places, and what an edge is scaled by does not grow.
    let token = Issuer::of(&mesh).token(json!({"client_id": "service"}));
    let by_token = [("authorization", format!("Bearer {token}"))];
    let app = headers_alone(&edge.channel(&mesh), "/paymesh.wallet.v1.WalletService/GetBalance", &by_token, 17);
    // Whoever has an edge's certificate, at the home of the directory: a sixteenth.
    let way = ["paymesh-hops", "paymesh-entry-region"].map(|name| (name, REGION.to_owned()));
    let taken = headers_alone(&as_edge(&mesh, "us_east"), "/paymesh.directory.v1.DirectoryService/LookUpUsers", &way, 5);

    // One too many of each is refused, while the others are held.
    let mut groups = [checks, app, taken];
    let mut refused = Vec::new();
    for group in &mut groups {
        refused.push(tokio::time::timeout(WAIT_MAX, group.next()).await.unwrap().unwrap().unwrap());
    }
    edge.says_that_it_serves(&mesh).await;
    assert_eq!(edge.waiting(), 0);
    assert_eq!(mesh.balance("us_east", 10).await, 700, "others are served");
    assert_eq!(
        refused.iter().map(|fault| &*fault.reason).collect::<Vec<_>>(),
        ["NODE_OVERLOADED", "TOO_MANY_IN_PROGRESS", "NODE_OVERLOADED"]
    );
    assert!(refused[0].message.contains("8 health checks of one connection"), "{refused:?}");
    assert!(refused[2].message.contains("edges of us_west have 4 calls of their own in progress"), "{refused:?}");
    for (group, held) in groups.into_iter().zip([8, 16, 4]) {
        let answers: Vec<Fault> = group.map(Result::unwrap).collect().await;
        assert_eq!(answers.iter().filter(|fault| fault.reason == "REQUEST_STALLED").count(), held, "{answers:?}");
    }
}

#[test]
fn an_edge_that_cannot_be_says_why_before_it_listens() {
    let mesh = TestMesh::new(FOUR_REGIONS);
    let data = mesh.data("edge");
    let start = |words: &[&str]| {
        let all = ["edge", "--region"].iter().chain(words).copied().chain(["--data", data.to_str().unwrap()]);
        mesh.run(&all.collect::<Vec<_>>())
    };
    let run = start(&[REGION]);
    assert!(run.code == 2 && run.stderr.contains("--listen-grpc and --listen-http are missing"), "{run:?}");
    let run = start(&[REGION, "--listen-grpc", "localhost:7100", "--listen-http", "127.0.0.1:0"]);
    assert!(run.code == 2 && run.stderr.contains("an IP address and a port are wanted, such as 0.0.0.0:7100"), "{run:?}");
    let run = start(&["mars", "--listen-grpc", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
    assert!(run.code == 2 && run.stderr.contains("region `mars` is not in the configuration"), "{run:?}");
    let alone = TestMesh::new(&vault_alone::configuration());
    let data_alone = alone.data("edge");
    let run = alone.run(&["edge", "--region", "eu_vault", "--data", data_alone.to_str().unwrap(), "--listen-grpc", "127.0.0.1:0"]);
    assert!(run.code == 2 && run.stderr.contains("region eu_vault is a vault alone"), "{run:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let run = start(&[REGION, "--listen-grpc", &taken.local_addr().unwrap().to_string(), "--listen-http", "127.0.0.1:0"]);
    assert!(run.code == 2 && run.stderr.contains("--listen-grpc: cannot listen on"), "{run:?}");
    let run = start(&[REGION, "--vault-keys", "keys", "--listen-grpc", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
    assert!(run.code == 2 && run.stderr.contains("--vault-keys: an edge has no vault"), "{run:?}");
    let run = start(&[REGION, "--listen-grpc", "0.0.0.0:0", "--listen-http", "127.0.0.1:0", "--plain-text"]);
    assert!(run.code == 2 && run.stderr.contains("--listen-grpc is 0.0.0.0:0: in plain text"), "{run:?}");
}
