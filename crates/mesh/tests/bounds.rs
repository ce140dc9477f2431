//! Callers who hold connections, streams and places on purpose: what they can hold is bounded, and others are served beside them.

#![forbid(unsafe_code)]

mod common;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use common::{Client, GET_BALANCE, Manner, Node, Wallet, framed, listener, open, read, send, silent, topology, two_nodes_with};
use futures::future::join_all;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use paymesh_contract::{events::v1::SubscribeRequest, wallet::v1::GetBalanceRequest};
use paymesh_mesh::Limits;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, body::Body};

const SUBSCRIBE: &str = "/paymesh.events.v1.EventService/Subscribe";

/// What must happen at once, on a machine that may be very busy with other things.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it hangs")
}

fn balance_of(user_id: u64) -> Bytes {
    framed(&GetBalanceRequest { user_id, read: None }.encode_to_vec())
}

/// A subscription to a journal of eu_west, which begins and then has nothing to say.
async fn subscribe(client: &Client) -> Response<Incoming> {
    let request = SubscribeRequest { zone: "eu".to_owned(), shard: 1, from_sequence: 1, read: None };
    open(client, SUBSCRIBE, &[], Body::new(Full::new(framed(&request.encode_to_vec())))).await
}

async fn two_nodes(limits: Limits) -> [Node; 2] {
    two_nodes_with(&Wallet::new("us_east", Manner::Answer), &Wallet::new("eu_west", Manner::Answer), limits).await
}

#[tokio::test]
async fn calls_of_headers_alone_end_soon_and_make_room() {
    let limits = Limits { calls_max: 4, arrival_wait: Duration::from_millis(500), ..Limits::default() };
    let [us_node, _eu_node] = two_nodes(limits).await;
    let client = us_node.client().await;
    let stalled: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { read(open(&client, GET_BALANCE, &[("grpc-timeout", "99999999H")], silent()).await).await.fault }
            })
        })
        .collect();
    while send(&client, GET_BALANCE, &[], balance_of(8)).await.fault.reason != "NODE_OVERLOADED" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for fault in soon(join_all(stalled)).await {
        let fault = fault.expect("no panic");
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::DeadlineExceeded, "REQUEST_STALLED"), "{fault}");
    }
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(8)).await.fault.code, Code::Ok);
}

#[tokio::test]
async fn streams_that_stay_open_leave_calls_their_places() {
    let limits = Limits { calls_max: 2, streams_max: 2, ..Limits::default() };
    let [_us_node, eu_node] = two_nodes(limits).await;
    let client = eu_node.client().await;
    let _held = [soon(subscribe(&client)).await, soon(subscribe(&client)).await];
    let refused = soon(async { read(subscribe(&client).await).await }).await.fault;
    assert_eq!((refused.code, refused.reason.as_ref()), (Code::Unavailable, "NODE_OVERLOADED"), "{refused}");
    assert!(refused.retry_after.is_some());
    assert_eq!(soon(send(&client, GET_BALANCE, &[], balance_of(7))).await.fault.code, Code::Ok);
}

#[tokio::test]
async fn streams_to_another_region_do_not_hold_up_the_calls_to_it() {
    // As if the peer's connections took 4 at once: what is above waits at this side.
    let limits = Limits { connection_calls_max: 4, ..Limits::default() };
    let ((us_listener, us_port), (eu_listener, eu_port)) = (listener().await, listener().await);
    let topology = topology([us_port, eu_port], false);
    let us_node = Node::start(&topology, "us_east", us_listener, Wallet::new("us_east", Manner::Answer));
    let _eu_node = Node::start_with(&topology, "eu_west", eu_listener, Wallet::new("eu_west", Manner::Answer), limits);
    let client = us_node.client().await;
    // The peer's word for how many it takes comes with its first answer.
    let _first = soon(subscribe(&client)).await;
    let held: Vec<_> = (0..12)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { read(subscribe(&client).await).await.fault }
            })
        })
        .collect();
    while us_node.mesh.route_counts().iter().map(|count| count.calls).sum::<u64>() < 13 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Long enough for those that find room to be on their way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..4 {
        let fault = soon(send(&client, GET_BALANCE, &[("grpc-timeout", "3S")], balance_of(7))).await.fault;
        assert_eq!(fault.code, Code::Ok, "{fault}");
    }
    assert!(held.iter().all(|stream| !stream.is_finished()));
}

#[tokio::test]
async fn one_stream_too_many_to_another_region_is_refused_at_once() {
    let [us_node, _eu_node] = two_nodes(Limits::default()).await;
    let client = us_node.client().await;
    let mut held = soon(join_all((0..256).map(|_| subscribe(&client)))).await;
    let refused = soon(async { read(subscribe(&client).await).await }).await.fault;
    assert_eq!((refused.code, refused.reason.as_ref()), (Code::Unavailable, "PEER_OVERLOADED"), "{refused}");
    assert!(refused.retry_after.is_some() && refused.message.contains("eu_west"), "{refused}");
    assert_eq!(soon(send(&client, GET_BALANCE, &[], balance_of(7))).await.fault.code, Code::Ok);
    held.pop();
    let again = async {
        loop {
            let stream = subscribe(&client).await;
            // A refusal is whole in its headers.
            if !stream.headers().contains_key("grpc-status") {
                return;
            }
        }
    };
    soon(again).await;
}

#[tokio::test]
async fn answers_that_nobody_takes_do_not_hold_up_those_of_others() {
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::AnswerMuch));
    let [us_node, _eu_node] = two_nodes_with(&us, &eu, Limits::default()).await;
    let idle = us_node.client_that_takes(1_000).await;
    // More than both connections to the peer may have in flight.
    let ask = || open(&idle, GET_BALANCE, &[], Body::new(Full::new(balance_of(7))));
    let untaken = soon(join_all((0..128).map(|_| ask()))).await;
    for _ in 0..4 {
        let answer = soon(send(&us_node.client().await, GET_BALANCE, &[("grpc-timeout", "3S")], balance_of(7))).await;
        assert_eq!((answer.fault.code, answer.bytes.len()), (Code::Ok, 300_005), "{}", answer.fault);
    }
    drop(untaken);
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_and_make_room() {
    let limits = Limits { connections_max: 3, preface_wait: Duration::from_millis(500), ..Limits::default() };
    let ((us_listener, us_port), (_eu_listener, eu_port)) = (listener().await, listener().await);
    let topology = topology([us_port, eu_port], false);
    let us_node = Node::start_with(&topology, "us_east", us_listener, Wallet::new("us_east", Manner::Answer), limits);
    let client = us_node.client().await;
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(8)).await.fault.code, Code::Ok);
    let connect = async || TcpStream::connect(("127.0.0.1", us_port)).await.expect("a connection");
    let (mut silent, mut slow) = (connect().await, connect().await);
    let mut many = connect().await;
    // To its end, or until the connection breaks.
    let closed = async |stream: &mut TcpStream| drop(stream.read_to_end(&mut Vec::new()).await);
    soon(closed(&mut many)).await;
    let trickle = async {
        for byte in b"PRI * HTTP/2.0" {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        closed(&mut slow).await;
    };
    soon(async { tokio::join!(closed(&mut silent), trickle) }).await;
    let other = us_node.client().await;
    assert_eq!(soon(send(&other, GET_BALANCE, &[], balance_of(8))).await.fault.code, Code::Ok, "there is room again");
    assert_eq!(send(&client, GET_BALANCE, &[], balance_of(8)).await.fault.code, Code::Ok, "a connection without calls may stay");
}

#[tokio::test]
async fn a_connection_without_calls_is_closed_in_good_order_and_its_caller_comes_again() {
    let limits = Limits { idle_wait: Duration::from_millis(300), ..Limits::default() };
    let [us_node, _eu_node] = two_nodes(limits).await;
    let (idle, streaming) = (us_node.client().await, us_node.client().await);
    let _stream = soon(subscribe(&streaming)).await;
    assert_eq!(send(&idle, GET_BALANCE, &[], balance_of(7)).await.fault.code, Code::Ok);
    soon(async {
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!streaming.is_closed(), "an open stream is a use");
    // Connections between nodes come and go likewise, and no call is lost by it.
    for _ in 0..3 {
        assert_eq!(send(&us_node.client().await, GET_BALANCE, &[], balance_of(7)).await.fault.code, Code::Ok);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

/// A node gives up the calls that its callers give up. Whoever closed its connection for that would end everybody's.
#[tokio::test]
async fn a_nodes_connection_is_not_closed_for_the_calls_that_it_breaks_off() {
    // A caller's would be, after eight.
    let limits = Limits { connection_calls_max: 4, resets_per_second: 1, ..Limits::default() };
    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Hang));
    let [us_node, _eu_node] = two_nodes_with(&us, &eu, limits).await;
    let call = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move { send(&client, GET_BALANCE, &[("grpc-timeout", "60S")], balance_of(7)).await.fault })
    };
    let arrived = async |calls: usize| {
        soon(async {
            while eu.seen().len() < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    let patient = us_node.client().await;
    // One on each of the connections to the other node.
    let lasting = [call(&patient), call(&patient)];
    arrived(2).await;
    let mut calls = 2;
    for _ in 0..10 {
        let client = us_node.client().await;
        for _ in 0..6 {
            let given_up = call(&client);
            calls += 1;
            arrived(calls).await;
            given_up.abort();
        }
    }
    // Long enough for the last to have been broken off.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(lasting.iter().all(|call| !call.is_finished()), "they have been on their way all the time");
}
