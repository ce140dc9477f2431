//! Whatever the bytes: every method answers with a clean error or an answer, and the node goes on.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use paymesh_contract::{DOMAIN, Fault, policies, policy::MethodPolicy};
use paymesh_payment_processor::services;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tonic::{Code, Status, body::Body};
use tower::ServiceExt as _;

use crate::support::{Node, cache, no_problems};

/// The methods of the services under test.
fn methods() -> impl Iterator<Item = &'static MethodPolicy> {
    let others = [
        "paymesh.audit.v1.AuditService",
        "paymesh.replication.v1.ReplicationService",
        "paymesh.vault.v1.VaultService",
        "paymesh.fraud.v1.FraudService",
    ];
    policies().methods().filter(move |policy| !others.contains(&&*policy.service))
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a small message"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The status of a call with these bytes, straight to the services: no router has looked at them before. An endless answer
/// is given up after its first part.
async fn call(node: &Node, path: &str, body: Bytes) -> Status {
    let routes = services(node.shards.clone(), node.copies.clone(), node.mesh.clone(), no_problems(), None, cache()).routes;
    let mut request = Request::post(path).body(Body::new(Full::new(body))).expect("a request");
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let response = routes.oneshot(request).await.expect("an answer");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let mut body = response.into_body();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await;
        let Ok(frame) = frame else { return Status::ok("it goes on") };
        let frame = frame.expect("an answer ends with its trailers").expect("frames");
        if let Some(trailers) = frame.trailers_ref() {
            return Status::from_header_map(trailers).expect("a status");
        }
        if path.ends_with("/Subscribe") {
            return Status::ok("it tails");
        }
    }
}

#[tokio::test]
async fn every_method_takes_any_bytes_and_answers_clean() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let node = Node::start().await;
    node.users(&[(1, 100)]).await;
    let mut bodies = vec![
        Bytes::new(),
        framed(b""),
        Bytes::from_static(&[0, 0, 0, 0, 9, 1]),
        Bytes::from_static(&[1, 0, 0, 0, 0]),
        Bytes::from_static(&[7]),
    ];
    for _ in 0..60 {
        let mut message = vec![0; random.random_range(1..80)];
        random.fill(&mut message[..]);
        bodies.push(framed(&message));
        // A number in field 1, 2 or 3, then rubbish: gets past the decoder more often.
        let field = random.random_range(1..4_u8);
        let mut likely = vec![field << 3, random.random_range(0..128), (field % 3 + 1) << 3 | 2, 2];
        likely.extend([random.random_range(b'A'..=b'Z'), random.random_range(b'A'..=b'Z')]);
        bodies.push(framed(&likely));
    }
    for policy in methods() {
        for body in &bodies {
            let status = call(&node, &policy.path, body.clone()).await;
            assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{} with {body:?}: {status:?}", policy.path);
            if status.code() == Code::Ok {
                continue;
            }
            let fault = Fault::from_status(&status);
            let info = tonic_types::StatusExt::get_details_error_info(&status);
            assert_eq!(info.map(|info| info.domain).as_deref(), Some(DOMAIN), "{} with {body:?}: {status:?}", policy.path);
            assert!(!fault.reason.is_empty() && !fault.message.is_empty());
        }
    }
    assert_eq!(node.balance(1).await, (100, 0));
    node.close().await;
}

#[tokio::test]
async fn an_empty_request_is_refused_where_anything_is_needed() {
    let node = Node::start().await;
    for policy in methods() {
        let status = call(&node, &policy.path, framed(b"")).await;
        let nothing_needed = matches!(policy.method.as_str(), "GetTopology" | "GetStatus");
        let wanted = if nothing_needed { Code::Ok } else { Code::InvalidArgument };
        assert_eq!(status.code(), wanted, "{}: {status:?}", policy.path);
    }
    node.close().await;
}

/// A message of 70,000 empty items of its list `field`, which does not decode at its end.
fn empty_items(field: u8) -> Bytes {
    let mut message = [field << 3 | 2, 0].repeat(70_000);
    message.extend([field << 3 | 2, 1, 0xff]);
    framed(&message)
}

#[tokio::test]
async fn the_items_of_a_message_are_counted_before_it_is_decoded() {
    let node = Node::start().await;
    for (path, field) in [
        ("/paymesh.payments.v1.PaymentService/CreatePayments", 1),
        ("/paymesh.payments.v1.PaymentService/StreamPayments", 2),
        ("/paymesh.directory.v1.DirectoryService/EnrollUser", 4),
        ("/paymesh.mesh.v1.MeshService/VerifyShard", 2),
    ] {
        let status = call(&node, path, empty_items(field)).await;
        assert_eq!(Fault::from_status(&status).reason, "TOO_MANY_ITEMS", "{path}: {status:?}");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    node.close().await;
}

#[tokio::test]
async fn a_message_above_the_bound_is_refused_by_its_size() {
    let node = Node::start().await;
    let path = "/paymesh.payments.v1.PaymentService/CreatePayments";
    let huge = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 0]);
    let status = call(&node, path, huge).await;
    assert_eq!(Fault::from_status(&status).reason, "MESSAGE_TOO_LARGE", "{status:?}");
    assert_eq!(status.code(), Code::ResourceExhausted);
    node.close().await;
}
