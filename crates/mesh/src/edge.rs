//! What stands around the services on the node's listener.

use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use paymesh_topology::Network;
use tokio::net::TcpListener;
use tonic::{body::Body, service::Routes, transport::Server};
use tower::{Service, ServiceBuilder};

use crate::{
    Error, connections,
    incoming::{self, incoming},
    layers::{
        Answering,
        admit::Admit,
        arrival::Arrival,
        audit::{self, Audit},
        busy::Busy,
        deadline::Deadline,
        headers::Headers,
        metrics::Metrics,
        shed::Shed,
        trace::Trace,
    },
    mesh::Mesh,
    peer::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    router::{Entry, Router},
};

/// How long the calls in progress get to end when the node stops.
const DRAIN_WAIT_MAX_MS: u64 = 10_000;

/// How long cut-off streams get to tell their callers so.
const STOP_WAIT_MAX_MS: u64 = 1_000;

/// How often a connection is asked whether its other end lives.
const KEEPALIVE_EVERY_MS: u64 = 20_000;

/// How long the answer may take before the connection is closed.
const KEEPALIVE_WAIT_MAX_MS: u64 = 10_000;

/// How many times the headers that a call may have HTTP/2 takes: what is between the two gets an answer that says why. Past four times that it closes
/// the connection.
const HEADERS_HEADROOM: u32 = 2;

/// Calls at most that are broken off before the node came to look at them; then their connection is closed. h2's own bound, 20, is
/// what a balancer's callers break off while a busy node gets no turn.
const UNSEEN_RESETS_MAX: usize = 256;

/// Calls at most that break HTTP/2's rules, or are more than may be in progress, in a connection's whole life; then it is closed. Without
/// one, whoever breaks a rule in each call has as many in progress as it likes (CVE-2025-8671): tonic sets none.
const FAULTY_CALLS_MAX: usize = 4_096;

/// Bounds that an operator may want to change. Those of region-config are explained there, and have their defaults there.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls in progress at most that are no streams: more are refused with UNAVAILABLE `NODE_OVERLOADED`.
    pub calls_max: usize,
    /// Streams of callers in progress at most: more are refused in the same way.
    pub streams_max: usize,
    /// Watches of health and reflections in progress at most: more are refused in the same way. Checks of health are bounded by connection.
    pub probes_max: usize,
    /// Calls of any kind in progress on one connection at most: more wait at the caller's side. Peers count on what region-config says.
    pub connection_calls_max: u32,
    /// Bytes of a call's headers at most: more are refused with RESOURCE_EXHAUSTED `HEADERS_TOO_LARGE`.
    pub headers_bytes_max: u32,
    /// Bytes of all requests at most that are not whole yet: those that bring more are refused with UNAVAILABLE `NODE_OVERLOADED`.
    pub arriving_bytes_max: usize,
    /// How long a message may take to be whole, and the end of a call that has one: then the call ends with DEADLINE_EXCEEDED
    /// `REQUEST_STALLED`. The same for a frame and a block of headers: then the connection is closed.
    pub arrival_wait: Duration,
    /// Connections at most: more are closed as they come.
    pub connections_max: usize,
    /// Connections of one address at most: more are closed as they come.
    pub address_connections_max: usize,
    /// Networks whose addresses are not held to that.
    pub trusted_networks: Arc<[Network]>,
    /// How long a connection may take to say that it speaks HTTP/2; then it is closed.
    pub preface_wait: Duration,
    /// How long a connection may be without calls; then it is closed in good order.
    pub idle_wait: Duration,
    /// Calls that a connection may break off each second in the long run; more close it.
    pub resets_per_second: u32,
    /// Frames that are no part of a call and that a connection may send each second in the long run; more close it.
    pub control_frames_per_second: u32,
    /// How long the calls in progress get to end when the node stops.
    pub drain_wait: Duration,
}

impl From<&paymesh_topology::Limits> for Limits {
    fn from(limits: &paymesh_topology::Limits) -> Self {
        Self {
            calls_max: limits.calls,
            streams_max: limits.streams,
            probes_max: limits.probes,
            connection_calls_max: limits.calls_per_connection,
            headers_bytes_max: limits.header_bytes,
            arriving_bytes_max: limits.arriving_bytes,
            arrival_wait: limits.arrival,
            connections_max: limits.connections,
            address_connections_max: limits.connections_per_address,
            trusted_networks: Arc::from(limits.trusted_networks.as_slice()),
            preface_wait: limits.connection_start,
            idle_wait: limits.connection_idle,
            resets_per_second: limits.resets_per_second,
            control_frames_per_second: limits.control_frames_per_second,
            drain_wait: Duration::from_millis(DRAIN_WAIT_MAX_MS),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&paymesh_topology::Limits::default())
    }
}

/// The service of the node's listener: the whole stack. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    stack: Stack,
}

type Stack = Trace<Busy<Metrics<Audit<Headers<Admit<Deadline<Shed<Arrival<Router>>>>>>>>>;

/// The stack, top to bottom.
fn stack(mesh: Mesh, local: Routes, limits: &Limits) -> Stack {
    let log = mesh.audit();
    let (region, stop, security) = (mesh.region().clone(), mesh.stop().clone(), mesh.security().clone());
    // Every other region may follow every shard led here; a stream that was lost may last for a while beside its successor.
    let topology = mesh.topology();
    let known = Arc::clone(topology);
    let feeds_max = 2 * topology.led_by(&region).len() * topology.regions().count().saturating_sub(1);
    ServiceBuilder::new()
        // First, so that everything below happens within the call's span, and so that every layer finds the call's context.
        .layer_fn(move |inner| Trace::new(region.clone(), inner))
        // A call that is refused is a use of its connection, so above all that refuses; below what finds out who calls.
        .layer_fn(Busy::new)
        // Above all that may refuse a call: what is refused counts too, and its time is the caller's time.
        .layer_fn(Metrics::new)
        // Above all that may refuse a call: who was refused is what such a log is for. Nothing is done without a place for its record.
        .layer_fn(move |inner| Audit::new(log.clone(), inner))
        // Before anything is read out of them again.
        .layer_fn(move |inner| Headers::new(limits.headers_bytes_max, inner))
        // Who may not call is refused before anything is spent on the call, and after it was counted.
        .layer_fn(move |inner| Admit::new(security.clone(), known.clone(), inner))
        // Above all that may wait: a call that waits for its body, the directory or a peer ends by its deadline.
        .layer_fn(move |inner| Deadline::new(stop.clone(), inner))
        // Before a byte of the body is read: what is refused costs nothing. Below the deadline, so that a place is free again
        // when a call ends there.
        .layer_fn(move |inner| Shed::new(limits, feeds_max, inner))
        // Above all that reads the body. Below the places, which are few: they are what it frees.
        .layer_fn(move |inner| Arrival::new(limits, inner))
        // The services here, or the node of another region.
        .service(Router::new(mesh, Some(local), Entry::Edge))
}

impl Edge {
    pub(crate) fn new(mesh: Mesh, local: Routes, limits: &Limits) -> Self {
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

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        // One thing is all that tonic hands over of a connection.
        if let Some(incoming::Of { other, usage, from }) = request.extensions_mut().remove() {
            request.extensions_mut().insert(audit::From(from));
            request.extensions_mut().insert(other);
            request.extensions_mut().insert(usage);
        }
        self.stack.call(request)
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edge")
    }
}

/// HTTP/2 as the edge wants it: HTTP/1 and anything else on the port is closed by hyper.
fn server(limits: &Limits) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.connection_calls_max)
        .http2_keepalive_interval(Some(Duration::from_millis(KEEPALIVE_EVERY_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(KEEPALIVE_WAIT_MAX_MS)))
        .http2_max_header_list_size(limits.headers_bytes_max.saturating_mul(HEADERS_HEADROOM))
        .http2_max_pending_accept_reset_streams(Some(UNSEEN_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(FAULTY_CALLS_MAX))
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
    let incoming = incoming(listener, &limits, mesh.security().clone());
    let serving = connections::serve(server(&limits), edge, incoming, limits.idle_wait, signal);
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
