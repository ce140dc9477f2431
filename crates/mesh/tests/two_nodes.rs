//! Two real nodes on loopback: what is forwarded, what comes back, and what happens when that does not work.

#![forbid(unsafe_code)]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{GET_BALANCE, GET_PAYMENT, Manner, Node, Wallet, framed, listener, send, topology, two_nodes};
use paymesh_contract::{
    payments::v1::GetPaymentRequest,
    wallet::v1::{GetBalanceRequest, wallet_service_client::WalletServiceClient},
};
use paymesh_mesh::{ENTRY_REGION_HEADER, HOPS_HEADER, MESSAGE_BYTES_MAX, RouteCount};
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use tonic::Code;

/// A request for a user's balance, with a field at its end that no version of the contract has.
fn balance_of(user_id: u64) -> Bytes {
    let mut message = GetBalanceRequest { user_id, read: None }.encode_to_vec();
    message.extend_from_slice(&[0xfa, 0x7f, 3, b'a', b'b', b'c']);
    framed(&message)
}

fn count(served_by: &str, from_peer: bool, calls: u64) -> RouteCount {
    RouteCount { served_by: served_by.parse().expect("a region"), from_peer, calls }
}

#[tokio::test]
async fn a_call_for_elsewhere_goes_as_the_bytes_it_came_in_and_its_answer_comes_back_whole() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    let body = balance_of(7);
    let headers = [("grpc-timeout", "5S"), ("x-canary", "do not pass on"), ("authorization", "neither")];
    let answer = send(&us_node.client().await, GET_BALANCE, &headers, body.clone()).await;
    assert_eq!((answer.fault.code, &answer.bytes), (Code::Ok, &framed(b"")));
    assert_eq!(answer.trailers["x-region"], "eu_west");
    assert!(us.seen().is_empty());
    let [(headers, seen)] = &eu.seen()[..] else { panic!("one call") };
    assert_eq!(seen, &body);
    assert_eq!([&headers[HOPS_HEADER], &headers[ENTRY_REGION_HEADER]], ["us_east", "us_east"]);
    assert!(!headers.contains_key("x-canary") && !headers.contains_key("authorization"), "{headers:?}");
    let timeout = headers["grpc-timeout"].to_str().expect("text").strip_suffix('u').expect("microseconds");
    assert!((4_000_000..5_000_000).contains(&timeout.parse::<u64>().expect("a number")), "{timeout}");
    // The directory's home is us_east: eu_west asked it for the zone of the user, too.
    assert_eq!(us_node.mesh.route_counts(), [count("us_east", true, 1), count("eu_west", false, 1)]);
    assert_eq!(eu_node.mesh.route_counts(), [count("eu_west", true, 1)]);
}

#[tokio::test]
async fn a_call_for_here_stays_here() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    let body = balance_of(8);
    assert_eq!(send(&us_node.client().await, GET_BALANCE, &[], body.clone()).await.trailers["x-region"], "us_east");
    assert_eq!(us.seen()[0].1, body, "the body is whole again behind the router");
    assert_eq!(send(&eu_node.client().await, GET_BALANCE, &[], body).await.trailers["x-region"], "us_east", "and from there it comes here");
    assert!(eu.seen().is_empty());
}

#[tokio::test]
async fn a_body_in_many_pieces_is_the_same_body() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let mut message = GetBalanceRequest { user_id: 7, read: None }.encode_to_vec();
    // 300,000 bytes in an unknown field: some twenty HTTP/2 frames.
    message.extend_from_slice(&[0xfa, 0x7f, 0xe0, 0xa7, 0x12]);
    message.resize(message.len() + 300_000, b'x');
    let body = framed(&message);
    assert_eq!(send(&us_node.client().await, GET_BALANCE, &[], body.clone()).await.fault.code, Code::Ok);
    assert_eq!(eu.seen()[0].1, body);
}

#[tokio::test]
async fn an_unknown_user_is_not_found_and_a_missing_key_is_named() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [_us_node, eu_node] = two_nodes(&us, &eu).await;
    let client = eu_node.client().await;
    let fault = send(&client, GET_BALANCE, &[], balance_of(10_001)).await.fault;
    assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (Code::NotFound, "USER_NOT_FOUND", Some("user_id")));
    let fault = send(&client, GET_BALANCE, &[], balance_of(0)).await.fault;
    assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidArgument, Some("user_id")));
    let fault = send(&client, "/made.up/Method", &[], balance_of(7)).await.fault;
    assert_eq!(fault.code, Code::Unimplemented);
}

#[tokio::test]
async fn a_peer_that_is_down_is_unavailable_at_once_and_reached_again_when_it_is_back() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(7)).await.fault.code, Code::Ok);
    let topology = topology([us_node.port, eu_node.port], false);
    let port = eu_node.port;
    eu_node.stop().await;
    let began = Instant::now();
    for _ in 0..20 {
        let fault = send(&client, GET_BALANCE, &[("grpc-timeout", "5S")], balance_of(7)).await.fault;
        // After three seconds it is not tried any more.
        assert!(matches!(&*fault.reason, "PEER_UNAVAILABLE" | "PEER_SILENT"), "{fault}");
        assert_eq!(fault.code, Code::Unavailable, "{fault}");
        assert!(fault.retry_after.is_some() && fault.message.contains("eu_west"), "{fault}");
        assert!(fault.metadata.contains(&("region".to_owned(), "eu_west".to_owned())), "{fault:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
    let _eu_node = Node::start(&topology, "eu_west", listener, eu.clone());
    until_reason(&client, "OK").await;
    // Each of the two connections may first have found that it had been lost.
    for _ in 0..4 {
        assert_eq!(send(&client, GET_BALANCE, &[], balance_of(7)).await.fault.code, Code::Ok);
    }
}

#[tokio::test]
async fn a_peer_that_hangs_ends_at_the_deadline() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Hang));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    let began = Instant::now();
    let fault = send(&client, GET_BALANCE, &[("grpc-timeout", "300m")], balance_of(7)).await.fault;
    assert_eq!(fault.code, Code::DeadlineExceeded, "{fault}");
    // It would hang for ever: what is more than the deadline is this machine's.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_ends_at_the_deadline() {
    let (us_listener, us_port) = listener().await;
    // Connections stay in its backlog.
    let (_silent, eu_port) = listener().await;
    let us = Wallet::new("us_east", Manner::Answer);
    let us_node = Node::start(&topology([us_port, eu_port], false), "us_east", us_listener, us);
    let client = us_node.client().await;
    let began = Instant::now();
    let calls = (0..8).map(|_| send(&client, GET_BALANCE, &[("grpc-timeout", "300m")], balance_of(7)));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.fault.code, Code::DeadlineExceeded, "{}", answer.fault);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// us_east, and a port of eu_west where connections stay in the backlog, as those of a process that is stopped.
async fn one_node_and_a_silent_port() -> (Node, tokio::net::TcpListener, paymesh_topology::Topology) {
    let ((us_listener, us_port), (eu_listener, eu_port)) = (listener().await, listener().await);
    let topology = topology([us_port, eu_port], false);
    let us_node = Node::start(&topology, "us_east", us_listener, Wallet::new("us_east", Manner::Answer));
    (us_node, eu_listener, topology)
}

/// Calls until the answer is of that reason, and says how long the first such answer took.
async fn until_reason(client: &common::Client, reason: &str) -> Duration {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let began = Instant::now();
        let fault = send(client, GET_BALANCE, &[("grpc-timeout", "100m")], balance_of(7)).await.fault;
        if fault.reason == reason {
            return began.elapsed();
        }
        assert!(Instant::now() < deadline, "{fault}");
    }
}

#[tokio::test]
async fn calls_to_a_silent_peer_are_refused_at_once_until_it_says_something_and_those_under_way_are_not() {
    let (us_node, eu_listener, topology) = one_node_and_a_silent_port().await;
    let client = us_node.client().await;
    let began = Instant::now();
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { send(&client, GET_BALANCE, &[("grpc-timeout", "60S")], balance_of(7)).await.fault }
    });
    until_reason(&client, "PEER_SILENT").await;
    assert!(began.elapsed() > Duration::from_millis(2_800), "{:?} is not long enough to be sure", began.elapsed());
    let at_once = Instant::now();
    for _ in 0..100 {
        let fault = send(&client, GET_BALANCE, &[("grpc-timeout", "30S")], balance_of(7)).await.fault;
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "PEER_SILENT"), "{fault}");
        assert!(fault.retry_after.is_some() && fault.message.contains("nothing was done"), "{fault}");
        assert!(fault.metadata.contains(&("region".to_owned(), "eu_west".to_owned())), "{fault:?}");
    }
    assert!(at_once.elapsed() < Duration::from_secs(2), "100 calls took {:?}", at_once.elapsed());
    let here = send(&client, GET_BALANCE, &[], balance_of(8)).await.fault;
    assert_eq!(here.code, Code::Ok, "{here}");
    assert!(!under_way.is_finished());

    let _eu_node = Node::start(&topology, "eu_west", eu_listener, Wallet::new("eu_west", Manner::Answer));
    // The status of what succeeds has no reason but its code.
    until_reason(&client, "OK").await;
    let answered = tokio::time::timeout(Duration::from_secs(10), under_way).await.expect("it is answered").expect("no panic");
    assert_eq!(answered.code, Code::Ok, "{answered}");
}

#[tokio::test]
async fn a_peer_that_answers_no_call_for_seconds_is_slow_and_not_silent() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Hang));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let calls = (0..64).map(|_| send(&client, GET_BALANCE, &[("grpc-timeout", "300m")], balance_of(7)));
        for answer in futures::future::join_all(calls).await {
            assert_eq!(answer.fault.code, Code::DeadlineExceeded, "{}", answer.fault);
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_in_a_status_that_says_so() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Break));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let fault = send(&us_node.client().await, GET_BALANCE, &[], balance_of(7)).await.fault;
    assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "PEER_UNAVAILABLE"), "{fault}");
    assert!(fault.retry_after.is_some(), "GetBalance may be sent again");
}

#[tokio::test]
async fn regions_that_disagree_on_a_leader_do_not_play_ball_with_a_call() {
    let ((us_listener, us_port), (eu_listener, eu_port)) = (listener().await, listener().await);
    let (one, other) = (topology([us_port, eu_port], false), topology([us_port, eu_port], true));
    let us_node = Node::start(&one, "us_east", us_listener, Wallet::new("us_east", Manner::Answer));
    let _eu_node = Node::start(&other, "eu_west", eu_listener, Wallet::new("eu_west", Manner::Answer));
    let message = GetPaymentRequest { payment_id: "pay_eu_1_1_1".to_owned(), read: None }.encode_to_vec();
    let fault = send(&us_node.client().await, GET_PAYMENT, &[], framed(&message)).await.fault;
    assert_eq!((fault.code, fault.reason.as_ref()), (Code::FailedPrecondition, "FORWARDING_LOOP"), "{fault}");
    assert!(fault.message.contains("us_east -> eu_west"), "{fault}");
}

#[tokio::test]
async fn compressed_oversized_and_cut_off_messages_are_refused() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    let whole = balance_of(7);
    let mut compressed = whole.to_vec();
    compressed[0] = 1;
    let mut oversized = whole.to_vec();
    oversized[1..5].copy_from_slice(&u32::try_from(MESSAGE_BYTES_MAX + 1).expect("4 MiB").to_be_bytes());
    for (body, code) in [
        (Bytes::from(compressed), Code::Unimplemented),
        (Bytes::from(oversized), Code::ResourceExhausted),
        (whole.slice(..whole.len() - 1), Code::InvalidArgument),
        (whole.slice(..3), Code::InvalidArgument),
        (Bytes::new(), Code::InvalidArgument),
    ] {
        let fault = send(&client, GET_BALANCE, &[], body).await.fault;
        assert_eq!(fault.code, code, "{fault}");
    }
    assert!(us.seen().is_empty() && eu.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_bytes_as_a_body_get_an_answer() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    let runtime = tokio::runtime::Handle::current();
    let bodies = proptest::prop_oneof![
        proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
        // Behind a right prefix, so that the key is looked for.
        proptest::strategy::Strategy::prop_map(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), |bytes| framed(&bytes)
            .to_vec()),
    ];
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
        let sent = runner.run(&bodies, |body| {
            for path in
                [GET_BALANCE, GET_PAYMENT, "/paymesh.directory.v1.DirectoryService/EnrollUser", "/paymesh.events.v1.EventService/Subscribe"]
            {
                let body = Bytes::from(body.clone());
                let code = runtime.block_on(async { send(&client, path, &[("grpc-timeout", "5S")], body).await.fault.code });
                proptest::prop_assert!(!matches!(code, Code::Internal | Code::Unknown | Code::DeadlineExceeded), "{code:?}");
            }
            Ok(())
        });
        sent.unwrap_or_else(|error| panic!("{error}"));
    })
    .await
    .expect("no panic");
    assert_eq!(send(&us_node.client().await, GET_BALANCE, &[], balance_of(7)).await.fault.code, Code::Ok);
}

#[tokio::test]
async fn calls_from_inside_take_the_same_road() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    let mut client = WalletServiceClient::new(us_node.mesh.channel());
    client.get_balance(GetBalanceRequest { user_id: 7, read: None }).await.expect("forwarded");
    client.get_balance(GetBalanceRequest { user_id: 8, read: None }).await.expect("a function call");
    assert_eq!((us.seen().len(), eu.seen().len()), (1, 1));
    assert!(us.seen()[0].0.get(HOPS_HEADER).is_none() && eu.seen()[0].0[HOPS_HEADER] == "us_east");
    let status = client.get_balance(GetBalanceRequest { user_id: 10_001, read: None }).await.expect_err("nobody");
    assert_eq!(status.code(), Code::NotFound);
    let to_eu = us_node.mesh.to_region(&"eu_west".parse().expect("a region")).expect("a region of the mesh");
    // User 8 is not at home there; who names the region has done the routing. The node there sends it home.
    WalletServiceClient::new(to_eu).get_balance(GetBalanceRequest { user_id: 8, read: None }).await.expect("forwarded twice");
    assert_eq!(us.seen()[1].0[HOPS_HEADER], "us_east,eu_west");
    assert!(us_node.mesh.route_counts().iter().all(|count| count.from_peer), "calls from inside did not enter here");
    assert_eq!(eu_node.mesh.route_counts(), [count("us_east", true, 1), count("eu_west", true, 1)]);
}

#[tokio::test]
async fn a_stopped_node_lets_go_of_its_services() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(8)).await.fault.code, Code::Ok);
    drop(us_node.stop().await);
    drop(client);
    for _ in 0..100 {
        if Arc::strong_count(&us.seen) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} still hold the services", Arc::strong_count(&us.seen) - 1);
}

/// Copies of eu/1 as us_east has them, and of the directory as eu_west has it: user 7 is in it, and nobody else.
struct Held {
    fit: std::sync::atomic::AtomicBool,
}

#[tonic::async_trait]
impl paymesh_mesh::Copies for Held {
    fn can_read(&self, shard: &paymesh_types::ShardRef) -> bool {
        shard.to_string() == "eu/1" && self.fit.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn zones_of(&self, users: &[paymesh_types::UserId]) -> Vec<(paymesh_types::UserId, paymesh_types::ZoneName)> {
        users.iter().filter(|user| user.get() == 7).map(|user| (*user, "eu".parse().expect("a zone"))).collect()
    }
}

#[tokio::test]
async fn a_read_that_says_so_is_answered_by_a_copy_here_while_it_can_be_read() {
    use paymesh_contract::common::v1::{ReadLevel, ReadOptions};
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, _eu_node] = two_nodes(&us, &eu).await;
    let held = Arc::new(Held { fit: true.into() });
    us_node.mesh.read_from(held.clone());
    let request = |user_id, level: ReadLevel| {
        let read = Some(ReadOptions { level: level.into(), ..ReadOptions::default() });
        framed(&GetBalanceRequest { user_id, read }.encode_to_vec())
    };
    let client = us_node.client().await;
    // 7 is of eu/1, and so is 9; 8 is of global/0.
    for (fit, user, level, answered_by) in [
        (true, 7, ReadLevel::Local, "us_east"),
        (true, 9, ReadLevel::Local, "us_east"),
        (true, 7, ReadLevel::Home, "eu_west"),
        (true, 7, ReadLevel::Unspecified, "eu_west"),
        (true, 8, ReadLevel::Local, "us_east"),
        (false, 7, ReadLevel::Local, "eu_west"),
    ] {
        held.fit.store(fit, std::sync::atomic::Ordering::Relaxed);
        let answer = send(&client, GET_BALANCE, &[], request(user, level)).await;
        assert_eq!(answer.fault.code, Code::Ok, "{:?}", answer.fault);
        assert_eq!(answer.trailers["x-region"], answered_by, "{fit} {user} {level:?}");
    }
}

#[tokio::test]
async fn a_user_that_the_copy_of_the_directory_knows_is_found_while_its_home_is_away() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    us_node.stop().await;
    eu_node.mesh.read_from(Arc::new(Held { fit: false.into() }));
    let client = eu_node.client().await;
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(7)).await.trailers["x-region"], "eu_west");
    let fault = send(&client, GET_BALANCE, &[], balance_of(9)).await.fault;
    assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "PEER_UNAVAILABLE"), "it may exist");
}
