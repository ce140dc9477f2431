//! Nodes know each other by their certificates, and believe nothing else.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use futures::stream;
use paymesh_client::{Client, Options, Session};
use paymesh_contract::{
    Fault,
    common::v1::ShardRef,
    directory::v1::{ClaimUserRequest, directory_service_client::DirectoryServiceClient},
    replication::v1::{
        FollowRequest, FollowResponse, FollowStart, ReadCheckpointRequest, follow_request::Message,
        replication_service_client::ReplicationServiceClient,
    },
    vault::v1::{AuthorizeRequest, CardDetails, DescribeTokenRequest, TokenizeRequest, vault_service_client::VaultServiceClient},
};
use paymesh_identity::{Authority, Identity, NodeName};
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::support::{FOUR_REGIONS, Launch, TestMesh, euro, four_regions_with_vaults, operator, payment};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// A connection to a region's node from somebody with the credentials of another region.
pub(crate) fn as_node_of(mesh: &TestMesh, own: &str, to: &str) -> Channel {
    with_credentials(mesh, &mesh.credentials().unwrap().join(own), own, to)
}

/// The same, with credentials that are somewhere else.
fn with_credentials(mesh: &TestMesh, directory: &Path, own: &str, to: &str) -> Channel {
    let identity = Identity::load(directory, "test", &own.parse().unwrap(), SystemTime::now()).unwrap();
    let connector = identity.connector(&to.parse().unwrap(), "127.0.0.1", mesh.grpc_port(to), WAIT_MAX);
    Endpoint::from_shared(format!("http://{}", mesh.grpc_address(to))).unwrap().connect_with_connector_lazy(connector)
}

/// Follows a shard of us_east by this connection, as this region, with what a node says of the way that it came; the first answer.
async fn follow(channel: Channel, region: &str, hops: Option<&'static str>) -> Result<Option<FollowResponse>, Status> {
    begin_to_follow(channel, region, hops).await?.message().await
}

async fn begin_to_follow(channel: Channel, region: &str, hops: Option<&'static str>) -> Result<Streaming<FollowResponse>, Status> {
    let start =
        FollowStart { shard: Some(ShardRef { zone: "global".to_owned(), shard: 0 }), region: region.to_owned(), ..FollowStart::default() };
    let said = stream::iter([FollowRequest { message: Some(Message::Start(start)) }]);
    let mut request = Request::new(futures::StreamExt::chain(said, stream::pending()));
    say_way(&mut request, hops);
    Ok(ReplicationServiceClient::new(channel).follow(request).await?.into_inner())
}

pub(crate) fn say_way<T>(request: &mut Request<T>, hops: Option<&'static str>) {
    if let Some(hops) = hops {
        request.metadata_mut().insert("paymesh-hops", hops.parse().unwrap());
        request.metadata_mut().insert("paymesh-entry-region", hops.parse().unwrap());
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str) {
    let fault = Fault::from_status(&answer.unwrap_err());
    assert_eq!((fault.code, &*fault.reason), (Code::PermissionDenied, reason), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_believed_to_be_the_one_that_its_certificate_names_and_no_other() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 10, "US", 1_000).await;

    // A caller is no node, whatever it says.
    let caller = || mesh.channel("us_east");
    refused(follow(caller(), "us_west", None).await, "NODES_ONLY");
    refused(follow(caller(), "us_west", Some("us_west")).await, "NOT_THAT_NODE");
    let mut request = Request::new(payment(10, 12, 1));
    say_way(&mut request, Some("us_west"));
    let mut payments = paymesh_contract::payments::v1::payment_service_client::PaymentServiceClient::new(caller());
    refused(payments.create_payment(request).await, "NOT_THAT_NODE");
    let checkpoint = ReadCheckpointRequest {
        shard: Some(ShardRef { zone: "global".to_owned(), shard: 0 }),
        region: "us_west".to_owned(),
        ..ReadCheckpointRequest::default()
    };
    refused(ReplicationServiceClient::new(caller()).read_checkpoint(checkpoint.clone()).await, "NODES_ONLY");

    // A node of a zone that may not hold the other's entries, which says that it is one that may.
    let other_zone = || as_node_of(&mesh, "eu_west", "us_east");
    refused(follow(other_zone(), "us_west", Some("us_west")).await, "NOT_THAT_NODE");
    refused(follow(other_zone(), "us_west", Some("eu_west")).await, "NOT_THAT_NODE");
    refused(follow(other_zone(), "us_west", None).await, "NODES_ONLY");
    let mut request = Request::new(checkpoint);
    say_way(&mut request, Some("eu_west"));
    refused(ReplicationServiceClient::new(other_zone()).read_checkpoint(request).await, "NOT_THAT_NODE");

    // The one that it is gets what that may hold.
    let segments = |answer: Option<FollowResponse>| answer.unwrap().segments.len();
    assert!(segments(follow(as_node_of(&mesh, "us_west", "us_east"), "us_west", Some("us_west")).await.unwrap()) > 0);

    // Who dials a region hangs up on another's node.
    let directory = mesh.credentials().unwrap().join("us_west");
    let identity = Identity::load(&directory, "test", &"us_west".parse().unwrap(), SystemTime::now()).unwrap();
    let astray = identity.connector(&"eu_west".parse().unwrap(), "127.0.0.1", mesh.grpc_port("us_east"), WAIT_MAX);
    let astray = Endpoint::from_shared(format!("http://{}", mesh.grpc_address("us_east"))).unwrap().connect_with_connector_lazy(astray);
    let status = follow(astray, "us_west", Some("us_west")).await.unwrap_err();
    assert!(format!("{status:?}").contains("is that of spiffe://test/region/us_east/node"), "{status:?}");

    // In plain text nobody is anybody.
    let plain = Endpoint::from_shared(format!("http://{}", mesh.grpc_address("us_east"))).unwrap().connect_lazy();
    let status = follow(plain, "us_west", Some("us_west")).await.unwrap_err();
    assert!(std::error::Error::source(&status).is_some(), "the connection ends before there is an answer: {status:?}");
    let deadline = Instant::now() + WAIT_MAX;
    let counted =
        || mesh.http("us_east", "/metrics").unwrap().1.contains("paymesh_connections_refused_total{region=\"us_east\",why=\"tls\"}");
    while !counted() {
        assert!(Instant::now() < deadline, "{}", mesh.http("us_east", "/metrics").unwrap().1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_taken_into_use_and_no_stream_ends() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    for user in [10, 12] {
        mesh.enrol("us_east", user, "US", 1_000).await;
    }
    let not_after = |region: &str| value(&mesh, region, "paymesh_certificate_not_after_seconds");
    let reconnects = |region: &str| value(&mesh, region, "paymesh_replica_reconnects_total");
    let before: Vec<_> = mesh.regions().iter().map(|region| (not_after(region), reconnects(region))).collect();
    let renewed = mesh.run(&["certs", "--hours", "4000", mesh.credentials().unwrap().to_str().unwrap()]);
    assert_eq!(renewed.code, 0, "{renewed:?}");
    let deadline = Instant::now() + WAIT_MAX;
    for (region, (not_after_then, _)) in mesh.regions().iter().zip(&before) {
        while not_after(region) <= *not_after_then {
            assert!(Instant::now() < deadline, "{region} still has its old certificate");
            mesh.payments("us_west").create_payment(payment(10, 12, 1)).await.unwrap();
        }
    }
    for region in mesh.regions() {
        mesh.payments(&region).create_payment(payment(10, 12, 1)).await.unwrap();
    }
    let after: Vec<_> = mesh.regions().iter().map(|region| reconnects(region)).collect();
    assert_eq!(after, before.iter().map(|(_, reconnects)| *reconnects).collect::<Vec<_>>(), "no replica lost its stream");

    // Files that cannot be used are said, and change nothing.
    let key = mesh.credentials().unwrap().join("us_east").join("tls.key");
    std::fs::write(&key, "no key").unwrap();
    let health = || mesh.http("us_east", "/health").unwrap();
    while !health().1.contains("has no private key") {
        assert!(Instant::now() < deadline + WAIT_MAX, "{}", health().1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(health().0, 200, "it still works: {}", health().1);
    mesh.payments("us_west").create_payment(payment(10, 12, 1)).await.unwrap();
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_stream_ends_with_the_certificate_that_it_was_begun_with() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let (scratch, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let authority = Authority::open(&mesh.credentials().unwrap(), "test", now).unwrap();
    let name = NodeName::new("test", &"us_west".parse().unwrap(), NodeName::NODE).unwrap();
    let directory = scratch.path().join("us_west");
    authority.issue_node(&name, &["127.0.0.1".to_owned()], &directory, now, Duration::from_secs(6)).unwrap();
    let mut stream = begin_to_follow(with_credentials(&mesh, &directory, "us_west", "us_east"), "us_west", Some("us_west")).await.unwrap();
    let ended = tokio::time::timeout(WAIT_MAX, async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break Fault::from_status(&status),
            }
        }
    });
    let ended = ended.await.expect("an end");
    let held = now.elapsed().unwrap();
    assert_eq!((ended.code, &*ended.reason), (Code::Unauthenticated, "CREDENTIAL_EXPIRED"), "{ended}");
    assert!((4..15).contains(&held.as_secs()), "{held:?}");
}

/// By the steps of docs/security.md. The client is the same all the while, as are the nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_authority_takes_over_and_nobody_restarts() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    for user in [10, 12] {
        mesh.enrol("us_east", user, "US", 1_000).await;
    }
    let credentials = mesh.credentials().unwrap();
    let options = Options { trust: Some(operator(&credentials)), ..Options::default() };
    let client = Client::connect([format!("https://{}", mesh.grpc_address("us_west"))], options).unwrap();
    let session = Session::new();
    let pay = async || client.call(&session, payment(10, 12, 1)).await.map(drop);
    pay().await.unwrap();
    let new = mesh.data("new");
    assert_eq!(mesh.run(&["certs", new.to_str().unwrap()]).code, 0);
    let old = mesh.data("old");
    fs::create_dir_all(old.join("operator")).unwrap();
    for file in ["ca.crt", "operator/tls.crt", "operator/tls.key"] {
        fs::copy(credentials.join(file), old.join(file)).unwrap();
    }
    let authority = fs::read_to_string(new.join("ca.crt")).unwrap();
    let everywhere: Vec<_> = mesh.regions().iter().map(|region| credentials.join(region)).chain([credentials.clone()]).collect();
    let step = async || {
        tokio::time::sleep(Duration::from_secs(10)).await;
        pay().await.unwrap();
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let status = mesh.run(&["status"]);
            if status.code == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{status:?}");
        }
    };
    for directory in &everywhere {
        let both = fs::read_to_string(directory.join("ca.crt")).unwrap() + &authority;
        fs::write(directory.join("ca.crt"), both).unwrap();
    }
    step().await;
    for directory in mesh.regions().iter().map(String::as_str).chain(["operator"]) {
        for file in ["tls.key", "tls.crt"] {
            fs::copy(new.join(directory).join(file), credentials.join(directory).join(file)).unwrap();
        }
    }
    step().await;
    for directory in &everywhere {
        fs::write(directory.join("ca.crt"), &authority).unwrap();
    }
    step().await;
    for region in mesh.regions() {
        let (status, health) = mesh.http(&region, "/health").unwrap();
        assert!(status == 200 && !health.contains("warning"), "{region}: {health}");
    }
    // Who has the old authority's certificate is turned away, and sees that somebody does it.
    let deadline = Instant::now() + WAIT_MAX;
    fs::copy(new.join("ca.crt"), old.join("ca.crt")).unwrap();
    let status = || mesh.run(&["--credentials", old.to_str().unwrap(), "status"]);
    while !status().stdout.contains("us_east answers, and refuses this: received fatal alert") {
        assert!(Instant::now() < deadline, "{:?}", status());
    }
    mesh.assert_books();
}

/// The sum of a metric's values, over its labels.
fn value(mesh: &TestMesh, region: &str, name: &str) -> f64 {
    let metrics = mesh.http(region, "/metrics").unwrap().1;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn a_node_with_credentials_that_do_not_fit_does_not_start_and_says_which_file() {
    let mesh = TestMesh::new(FOUR_REGIONS);
    let credentials = mesh.credentials().unwrap();
    let (east, west) = (credentials.join("us_east"), credentials.join("us_west"));
    let start = |wanted: &str| {
        let run = mesh.run(&["node", "--region", "us_east", "--data", mesh.data("us_east").to_str().unwrap()]);
        assert!(run.code == 2 && run.stderr.contains(wanted), "{wanted:?}: {run:?}");
    };
    std::fs::copy(west.join("tls.key"), east.join("tls.key")).unwrap();
    start("us_east/tls.key: is not the key of the certificate beside it");
    std::fs::copy(west.join("tls.crt"), east.join("tls.crt")).unwrap();
    start("us_east/tls.crt: is that of spiffe://test/region/us_west/node; this node is spiffe://test/region/us_east/node");
    std::fs::remove_file(east.join("ca.crt")).unwrap();
    start("us_east/ca.crt: cannot be read");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(east.join("tls.key"), open).unwrap();
    start("us_east/tls.key: its mode is 644");
}

/// In TLS too, where whoever says nothing leaves a handshake open, and not only a preface.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_never_shake_hands_are_closed_and_do_not_hold_up_leaving() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    let limited = ["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"].map(str::to_owned);
    mesh.launch("us_east", Launch { before: limited.into(), ..Launch::default() });
    mesh.start_all();
    mesh.enrol("us_east", 10, "US", 1_000).await;
    let connect = || TcpStream::connect(("127.0.0.1", mesh.grpc_port("us_east"))).unwrap();
    let mut silent: Vec<TcpStream> = (0..512).map(|_| connect()).collect();
    // Some begin a ClientHello and go no further.
    for stream in silent.iter_mut().step_by(2) {
        let _ = stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
    }
    let deadline = Instant::now() + WAIT_MAX;
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Closed, or reset.
        while stream.read(&mut [0; 64]).is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
            assert!(Instant::now() < deadline, "a connection that says nothing is still open");
        }
    }
    assert_eq!(mesh.balance("us_east", 10).await, 1_000, "there is room for others");
    let last = connect();
    let leaving = Instant::now();
    assert!(mesh.stop("us_east").success());
    assert!(leaving.elapsed() < Duration::from_secs(8), "it waited for one that says nothing: {:?}", leaving.elapsed());
    drop(last);
}

/// What homes ask of the directory while they enrol is not for callers: nobody takes a claim back.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_cannot_claim_an_id_for_a_zone() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let mut directory = DirectoryServiceClient::new(mesh.channel("us_west"));
    refused(directory.claim_user(ClaimUserRequest { user_id: 77, zone: "global".to_owned() }).await, "NODES_ONLY");
    mesh.enrol("us_west", 77, "DE", 0).await;
}

/// Tokens of one zone pass nodes of others, which have nothing to ask for with them; and users are claimed by homes of their zone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_zone_has_no_card_described_or_charged_and_claims_no_user() {
    let mesh = TestMesh::started(&four_regions_with_vaults());
    mesh.enrol("us_east", 11, "DE", 0).await;
    let card = CardDetails { number: "4242424242424242".to_owned(), expiry_month: 7, expiry_year: 2031 };
    let taking = TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id: 11, card: Some(card), sealed_card: None };
    let taken = VaultServiceClient::new(mesh.channel("eu_west")).tokenize(taking).await.unwrap().into_inner().description.unwrap();
    let vault_token = taken.vault_token;
    for own in ["asia_pacific", "us_east"] {
        let mut vault = VaultServiceClient::new(as_node_of(&mesh, own, "eu_west"));
        let mut describe = Request::new(DescribeTokenRequest { vault_token: vault_token.clone() });
        say_way(&mut describe, Some(own));
        refused(vault.describe_token(describe).await, "NOT_YOUR_ZONE");
        let mut charge = Request::new(AuthorizeRequest {
            vault_token: vault_token.clone(),
            user_id: 11,
            gateway: "simulator_a".to_owned(),
            reference: "another.1".to_owned(),
            begun_at: Some(SystemTime::now().into()),
            amount: Some(euro(5_000)),
            ..AuthorizeRequest::default()
        });
        say_way(&mut charge, Some(own));
        refused(vault.authorize(charge).await, "NOT_YOUR_ZONE");
    }
    // The directory is in us_east.
    for (own, zone, may) in [("asia_pacific", "eu", false), ("eu_west", "global", false), ("eu_west", "eu", true)] {
        let mut claim = Request::new(ClaimUserRequest { user_id: 77, zone: zone.to_owned() });
        say_way(&mut claim, Some(own));
        let claimed = DirectoryServiceClient::new(as_node_of(&mesh, own, "us_east")).claim_user(claim).await;
        if may {
            claimed.unwrap();
        } else {
            refused(claimed, "NOT_YOUR_ZONE");
        }
    }
}
