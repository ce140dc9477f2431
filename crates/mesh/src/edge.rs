//! What stands around the services on the node's listener.

use std::{
    convert::Infallible,
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::net::TcpListener;
use tonic::{body::Body, service::Routes, transport::Server};
use tower::{Service, ServiceBuilder};

use crate::{
    Error,
    incoming::incoming,
    layers::{Answering, admit::Admit, arrival::Arrival, deadline::Deadline, metrics::Metrics, shed::Shed, trace::Trace},
    mesh::Mesh,
    peer::{CONNECTION_CALLS_MAX, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    router::{Entry, Router},
};

/// Calls in progress at most that are no streams.
const CALLS_MAX: usize = 8_192;

/// Callers' streams in progress at most: more than those that three peers may send here. A slow one may hold some megabytes.
const STREAMS_MAX: usize = 1_024;

/// Health checks and reflections in progress at most: balancers watch by them.
const PROBES_MAX: usize = 256;

/// Connections at most.
const CONNECTIONS_MAX: usize = 4_096;

/// How long a connection may take to say that it speaks HTTP/2.
const PREFACE_WAIT_MAX_MS: u64 = 5_000;

/// How long a call's first message may take to arrive: the largest at 4 Mbit/s.
const FIRST_MESSAGE_WAIT_MAX_MS: u64 = 10_000;

/// How long the calls in progress get to end when the node stops.
const DRAIN_WAIT_MAX_MS: u64 = 10_000;

/// How long cut-off streams get to tell their callers so.
const STOP_WAIT_MAX_MS: u64 = 1_000;

/// How often a connection is asked whether its other end lives.
const KEEPALIVE_EVERY_MS: u64 = 20_000;

/// How long the answer may take before the connection is closed.
const KEEPALIVE_WAIT_MAX_MS: u64 = 10_000;

/// A request's headers at most.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;

/// Bounds that an operator may want to change.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls in progress at most that are no streams: more are refused with UNAVAILABLE `NODE_OVERLOADED`.
    pub calls_max: usize,
    /// Streams of callers in progress at most: more are refused in the same way.
    pub streams_max: usize,
    /// Health checks and reflections in progress at most: more are refused in the same way.
    pub probes_max: usize,
    /// Calls of any kind in progress on one connection at most: more wait at the caller's side. Peers count on the default.
    pub connection_calls_max: u32,
    /// Connections at most: more are closed as they come.
    pub connections_max: usize,
    /// How long a connection may take to say that it speaks HTTP/2; then it is closed.
    pub preface_wait: Duration,
    /// How long a call's first message may take to be whole: then the call ends with DEADLINE_EXCEEDED `REQUEST_STALLED`.
    pub first_message_wait: Duration,
    /// How long the calls in progress get to end when the node stops.
    pub drain_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: CALLS_MAX,
            streams_max: STREAMS_MAX,
            probes_max: PROBES_MAX,
            connection_calls_max: CONNECTION_CALLS_MAX,
            connections_max: CONNECTIONS_MAX,
            preface_wait: Duration::from_millis(PREFACE_WAIT_MAX_MS),
            first_message_wait: Duration::from_millis(FIRST_MESSAGE_WAIT_MAX_MS),
            drain_wait: Duration::from_millis(DRAIN_WAIT_MAX_MS),
        }
    }
}

/// The service of the node's listener: the whole stack. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    stack: Stack,
}

type Stack = Trace<Metrics<Admit<Deadline<Shed<Arrival<Router>>>>>>;

/// The stack, top to bottom.
fn stack(mesh: Mesh, local: Routes, limits: Limits) -> Stack {
    let (region, stop, security) = (mesh.region().clone(), mesh.stop().clone(), mesh.security().clone());
    // Every other region may follow every shard led here; a stream that was lost may last for a while beside its successor.
    let topology = mesh.topology();
    let feeds_max = 2 * topology.led_by(&region).len() * topology.regions().count().saturating_sub(1);
    ServiceBuilder::new()
        // First, so that everything below happens within the call's span, and so that every layer finds the call's context.
        .layer_fn(move |inner| Trace::new(region.clone(), inner))
        // Above all that may refuse a call: what is refused counts too, and its time is the caller's time.
        .layer_fn(Metrics::new)
        // Who may not call is refused before anything is spent on the call, and after it was counted.
        .layer_fn(move |inner| Admit::new(security.clone(), inner))
        // Above all that may wait: a call that waits for its body, the directory or a peer ends by its deadline.
        .layer_fn(move |inner| Deadline::new(stop.clone(), inner))
        // Before a byte of the body is read: what is refused costs nothing. Below the deadline, so that a place is free again
        // when a call ends there.
        .layer_fn(move |inner| Shed::new(limits, feeds_max, inner))
        // Above all that reads the body. Below the places, which are few: they are what it frees.
        .layer_fn(move |inner| Arrival::new(limits.first_message_wait, inner))
        // The services here, or the node of another region.
        .service(Router::new(mesh, Some(local), Entry::Edge))
}

impl Edge {
    pub(crate) fn new(mesh: Mesh, local: Routes, limits: Limits) -> Self {
        Self { stack: stack(mesh, local, limits) }
    }
}

impl Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        self.stack.call(request)
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edge")
    }
}

/// HTTP/2 as the edge wants it: HTTP/1 and anything else on the port is closed by hyper.
fn server(limits: Limits) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.connection_calls_max)
        .http2_keepalive_interval(Some(Duration::from_millis(KEEPALIVE_EVERY_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(KEEPALIVE_WAIT_MAX_MS)))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
}

/// Serves until `shutdown` ends, then drains: no new calls, streams that only tell are ended, the rest may finish until
/// the limits' `drain_wait` is over.
pub(crate) async fn serve(
    mesh: &Mesh,
    edge: Edge,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let stop = mesh.stop().clone();
    let draining = stop.draining.clone();
    let signal = async move {
        shutdown.await;
        draining.cancel();
    };
    let serving = server(limits).serve_with_incoming_shutdown(edge, incoming(listener, limits, mesh.security().clone()), signal);
    let out_of_time = async {
        stop.draining.cancelled().await;
        tokio::time::sleep(limits.drain_wait).await;
        stop.stopped.cancel();
        tokio::time::sleep(Duration::from_millis(STOP_WAIT_MAX_MS)).await;
    };
    let served = tokio::select! {
        served = serving => served.map_err(Error::Listener),
        () = out_of_time => {
            tracing::warn!(wait = ?limits.drain_wait, "calls were still in progress when the node stopped");
            Ok(())
        }
    };
    stop.draining.cancel();
    stop.stopped.cancel();
    served
}
