//! Sends a call on to the region where it belongs, as the bytes it came in, and its answer back.
//!
//! A stream's answers come back as they come; any other answer comes back whole.
//!
//! Only headers that gRPC needs go with it, and ours, written anew: what else a caller sends stays at the entry.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, Version, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use paymesh_contract::Fault;
use paymesh_types::RegionName;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tracing::Instrument;

use crate::{
    body::{self, FromPeer},
    call::{self, Call, HOPS_MAX, TIMEOUT_HEADER},
    layers::{deadline, trace},
    methods::{Kind, Method},
    peer::{Peer, Unanswered},
    silence::SILENT_AFTER_MS,
};

/// When to try again: about the time of a connection attempt that is answered.
const RETRY_AFTER_MS: u64 = 200;

/// When to try a silent region again: it is heard as soon as it says something.
const SILENT_RETRY_AFTER_MS: u64 = 500;

/// Bytes of an answer at most that is not a stream: a batch's, each of whose payments failed with many words.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A caller's headers that go with the call: how its messages are written, and how its answers may be.
const PASSED_HEADERS: [header::HeaderName; 3] =
    [header::CONTENT_TYPE, header::HeaderName::from_static("grpc-encoding"), header::HeaderName::from_static("grpc-accept-encoding")];

/// Forwards `request`, which is part of `call`, from a node of `own` to `peer`. Every failure is an answer.
pub(crate) async fn forward(own: &RegionName, peer: &Peer, call: &Call, parts: Parts, body: Body) -> Response<Body> {
    let span = tracing::debug_span!(target: "paymesh::call", "forward", otel.kind = "client", paymesh.peer_region = %peer.region());
    async move {
        let request = match outgoing(own, peer, call, parts, body) {
            Ok(request) => request,
            Err(fault) => return body::reply(fault),
        };
        let kind = call.method.map_or(Kind::Call, Method::kind);
        let retry_is_safe = call.method.is_some_and(|method| method.policy.idempotent);
        let region = peer.region().clone();
        match peer.send(request, kind).await {
            Ok(answer) => {
                let broken = move |status: Status| unanswered(&region, Unanswered::Broken(status.message().to_owned()), retry_is_safe);
                if kind != Kind::Call { answer.map(|inner| FromPeer::body(inner, broken)) } else { whole(answer, broken).await }
            }
            Err(problem) => {
                tracing::debug!(%region, ?problem, "a forwarded call got no answer");
                body::reply(unanswered(&region, problem, retry_is_safe))
            }
        }
    }
    .instrument(span)
    .await
}

/// An answer that has come to its end. Then its part of the connection is free, also when the caller takes nothing of it:
/// some that wait to be taken would hold up all answers that share the connection.
async fn whole(answer: Response<Body>, broken: impl FnOnce(Status) -> Fault) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    if body.is_end_stream() {
        return Response::from_parts(parts, body);
    }
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(whole) => Response::from_parts(parts, Body::new(whole)),
        Err(error) => body::reply(broken(Status::from_error(error))),
    }
}

fn outgoing(own: &RegionName, peer: &Peer, call: &Call, parts: Parts, body: Body) -> Result<Request<Body>, Fault> {
    if call.passed.len() >= HOPS_MAX {
        let problem = format!("reached {own}, which would send it on to {}", peer.region());
        return Err(call::forwarding_loop(&call.passed, &problem));
    }
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    for name in PASSED_HEADERS {
        if let Some(value) = parts.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(deadline) = call.deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(deadline::exceeded());
        }
        headers.insert(TIMEOUT_HEADER, call::timeout_value(left));
    }
    call.write_headers(own, &mut headers);
    trace::pass_on(&parts.headers, &mut headers);
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = parts.uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn unanswered(region: &RegionName, problem: Unanswered, retry_is_safe: bool) -> Fault {
    let (message, retry) = match problem {
        Unanswered::Timeout => return deadline::exceeded(),
        Unanswered::Full(max) => {
            let message = format!("{max} calls or streams to region {region} are in progress, the most there may be");
            let fault = Fault::unavailable("PEER_OVERLOADED", message, Duration::from_millis(RETRY_AFTER_MS));
            return fault.with_metadata("region", region.as_str());
        }
        Unanswered::Silent => {
            let message = format!(
                "nothing has come from region {region} for {SILENT_AFTER_MS} ms or more: nothing was done, and nothing is sent to it until something comes"
            );
            let fault = Fault::unavailable("PEER_SILENT", message, Duration::from_millis(SILENT_RETRY_AFTER_MS));
            return fault.with_metadata("region", region.as_str());
        }
        Unanswered::NotSent(cause) => (format!("region {region} cannot be reached: {cause}"), true),
        Unanswered::Broken(cause) => (format!("the connection to region {region} broke before its answer: {cause}"), retry_is_safe),
    };
    let fault = Fault::new(Code::Unavailable, "PEER_UNAVAILABLE", message).with_metadata("region", region.as_str());
    if retry { fault.with_retry(Duration::from_millis(RETRY_AFTER_MS)) } else { fault }
}
