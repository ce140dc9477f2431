//! One span for each call, named `call`, in the caller's trace.
//!
//! It has the method, the entry region, the outcome: nothing of the request or its answer. Spans are at level DEBUG under
//! the target `paymesh::call`: they cost nothing unless they are exported or asked for.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use paymesh_types::RegionName;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Answer, Answering};
use crate::{
    body,
    call::{Call, Sender},
    incoming::OtherEnd,
};

/// W3C Trace Context's headers (<https://www.w3.org/TR/trace-context/>).
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Reads a call's headers, and spans the rest.
#[derive(Clone)]
pub(crate) struct Trace<S> {
    region: RegionName,
    inner: S,
}

impl<S> Trace<S> {
    pub(crate) fn new(region: RegionName, inner: S) -> Self {
        Self { region, inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Trace<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let call = Call::arrived(&self.region, request.uri().path(), request.headers(), sender(&request));
        // A peer that asks whether the node is there asks all the time, and is no part of anybody's trace.
        let question = call.method.is_none() && call.is_from_peer();
        let span = if question { Span::none() } else { span(&call, &self.region, request.headers()) };
        request.extensions_mut().insert(call);
        if span.is_disabled() {
            return Box::pin(self.inner.call(request));
        }
        // The layers below are called within the span too, not only polled in it.
        let answer = span.in_scope(|| self.inner.call(request));
        let ending = span.clone();
        Box::pin(
            async move {
                let answer = answer.await?;
                Ok(body::observe(answer, move |code, _| {
                    ending.record("rpc.grpc.status_code", code as i32);
                }))
            }
            .instrument(span),
        )
    }
}

/// Who is at the other end of the request's connection now: its certificate may have ended meanwhile.
fn sender(request: &Request<Body>) -> Sender<'_> {
    match request.extensions().get::<OtherEnd>().and_then(|OtherEnd(connected)| connected.as_ref()) {
        None => Sender::Unproven,
        Some(connected) => {
            let now = SystemTime::now();
            let node = connected.node(now).map(|node| Sender::Node(node.region()));
            node.or_else(|| connected.edge(now).map(|edge| Sender::Edge(edge.region()))).unwrap_or(Sender::Caller)
        }
    }
}

fn span(call: &Call, region: &RegionName, headers: &HeaderMap) -> Span {
    // What a caller made up instead of a method's name stays out.
    let (service, method) =
        call.method.map_or(("unknown", "unknown"), |method| (method.policy.service.as_str(), method.policy.method.as_str()));
    let span = tracing::debug_span!(
        target: "paymesh::call",
        "call",
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        paymesh.region = %region,
        paymesh.entry_region = %call.entry_region(),
        paymesh.from_peer = call.is_from_peer(),
    );
    if !span.is_disabled() {
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
        // Without a layer that exports there is no trace to belong to.
        let _ = span.set_parent(parent);
    }
    span
}

/// Carries the trace on to another node: of the span that is current here, or as it came when nothing is traced here.
pub(crate) fn pass_on(from: &HeaderMap, to: &mut HeaderMap) {
    let span = Span::current();
    if !span.is_disabled() {
        let context = span.context();
        global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut HeadersMut(to)));
    }
    if !to.contains_key(TRACE_HEADERS[0]) {
        for name in TRACE_HEADERS {
            if let Some(value) = from.get(name) {
                to.insert(name, value.clone());
            }
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}
