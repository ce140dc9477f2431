//! Whatever the bytes: every method of fraud detection answers with a clean error or an answer.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use paymesh_contract::{Fault, policies};
use paymesh_mesh::{Mesh, Security};
use paymesh_topology::Topology;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::ServiceExt as _;

use crate::support::Place;

const CONFIG: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: '127.0.0.1:1', http: '127.0.0.2:1'}
";

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a small message"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The status of a call with these bytes, straight to the service: no router has looked at them before.
async fn call(routes: &Routes, path: &str, body: Bytes) -> Status {
    let mut request = Request::post(path).body(Body::new(Full::new(body))).expect("a request");
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let response = routes.clone().oneshot(request).await.expect("an answer");
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("an answer"))
}

#[tokio::test]
async fn every_method_takes_any_bytes_and_answers_clean() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let place = Place::new();
    let running = place.open().await;
    let (_opened, detector) = watch::channel(Some(running.detector.clone()));
    let topology = Topology::parse("test", CONFIG).unwrap_or_else(|errors| panic!("{errors}"));
    let mesh = Mesh::new(Arc::new(topology), "eu_west".parse().expect("a region"), Security::PlainText).expect("a mesh");
    let routes = Routes::new(paymesh_fraud_detection::service(detector, mesh));
    let mut bodies = vec![Bytes::new(), framed(b""), Bytes::from_static(&[0, 0, 0, 0, 9, 1]), Bytes::from_static(&[7])];
    for _ in 0..200 {
        let mut message = vec![0; random.random_range(1..120)];
        random.fill(&mut message[..]);
        bodies.push(framed(&message));
        // Texts in field 1 and 2, and a message in field 3 or 4: gets past the decoder more often.
        let field = random.random_range(3..5_u8);
        let mut likely = vec![1 << 3 | 2, 2, b'a', b'b', 2 << 3, 7, field << 3 | 2, 5, 1 << 3 | 2, 1];
        likely.extend([random.random_range(b'0'..=b'9'), 2 << 3, random.random_range(0..127)]);
        bodies.push(framed(&likely));
    }
    for policy in policies().methods().filter(|policy| policy.service == "paymesh.fraud.v1.FraudService") {
        assert_eq!(call(&routes, &policy.path, framed(b"")).await.code(), Code::InvalidArgument, "{}", policy.path);
        for body in &bodies {
            let status = call(&routes, &policy.path, body.clone()).await;
            assert!(!matches!(status.code(), Code::Ok | Code::Internal | Code::Unknown), "{} with {body:?}: {status:?}", policy.path);
            let fault = Fault::from_status(&status);
            assert!(!fault.reason.is_empty() && !fault.message.is_empty(), "{} with {body:?}: {status:?}", policy.path);
        }
    }
}
