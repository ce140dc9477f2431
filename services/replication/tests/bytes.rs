//! Whatever the bytes: every method answers with a clean error or an answer.

#![forbid(unsafe_code)]

use std::{sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use paymesh_contract::{DOMAIN, Fault, policies};
use paymesh_mesh::{Mesh, Security};
use paymesh_replication::{Replicas, Replication};
use paymesh_shard::Shards;
use paymesh_topology::Topology;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tonic::{Code, Status, body::Body, service::Routes};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

const CONFIG: &str = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
zones:
  global: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  us_east: {grpc: '127.0.0.1:1', http: '127.0.0.2:1'}
";

fn routes() -> Routes {
    let topology = Topology::parse("test", CONFIG).unwrap_or_else(|errors| panic!("{errors}"));
    let mesh = Mesh::new(Arc::new(topology), "us_east".parse().expect("a region's name"), Security::PlainText).expect("a mesh");
    Routes::new(Replication::new(mesh, Shards::default(), Replicas::default()).server())
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a small message"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The status that a call with these bytes ends with, or begins with.
async fn call(routes: &Routes, path: &str, body: Bytes) -> Status {
    let mut request = Request::post(path).body(Body::new(Full::new(body))).expect("a request");
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let answered = tokio::time::timeout(Duration::from_secs(5), routes.clone().oneshot(request));
    let response = answered.await.expect("in time").expect("an answer");
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("an answer"))
}

#[tokio::test]
async fn every_method_takes_any_bytes_and_answers_clean() {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let routes = routes();
    let mut bodies = vec![Bytes::new(), Bytes::from_static(&[0, 0, 0, 0, 9, 1]), Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 0])];
    for _ in 0..60 {
        let mut message = vec![0; random.random_range(1..80)];
        random.fill(&mut message[..]);
        bodies.push(framed(&message));
    }
    let methods: Vec<_> = policies().methods().filter(|policy| policy.service == "paymesh.replication.v1.ReplicationService").collect();
    assert_eq!(methods.len(), 4);
    for policy in methods {
        for body in &bodies {
            let status = call(&routes, &policy.path, body.clone()).await;
            if status.code() == Code::Ok {
                continue;
            }
            assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{} with {body:?}: {status:?}", policy.path);
            assert_eq!(status.get_details_error_info().map(|info| info.domain).as_deref(), Some(DOMAIN), "{}: {status:?}", policy.path);
            assert!(!Fault::from_status(&status).reason.is_empty() && !status.message().is_empty());
        }
        let nothing_needed = policy.method == "GetReplication";
        let status = call(&routes, &policy.path, framed(b"")).await;
        assert_eq!(status.code(), if nothing_needed { Code::Ok } else { Code::InvalidArgument }, "{}: {status:?}", policy.path);
    }
}
