//! The connections to one other region's node.
//!
//! They are made when first needed and again when lost. A node that cannot be reached costs each caller one connection
//! attempt, never a queue of them: when an attempt fails, every call that still waits to be sent fails with it. One that is silent
//! (`silence`) costs nothing: calls and callers' streams are refused at once. Calls that were on their way keep their connections, and
//! end as they will; those after the silence get new ones, because the old ones may take as long to notice that it is over as it lasted.
//!
//! Streams go over a connection of their own, because those who hold many, or do not read theirs, would hold up the calls
//! beside them; so do those by which this node follows the shards of the other, one each. No connection carries more than the other side takes: a call that finds all full is refused, and does not wait.

use std::{
    convert::Infallible,
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use paymesh_topology::{Limits, Region};
use paymesh_types::RegionName;
use tokio::sync::Notify;
use tonic::{
    ConnectError, Status, TimeoutExpired,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{Service, ServiceExt};

use crate::{
    Error,
    call::Call,
    dial::{Dialer, Security},
    methods::Kind,
    places::{Place, Places},
    silence::{self, Hearing},
};

/// Whether a region is reached. Not labelled `region`, which is the node's own.
pub(crate) const UP: &str = "paymesh_peer_up";

/// What is asked to hear whether a peer is there: whatever it answers will do.
const QUESTION_PATH: &str = "/grpc.health.v1.Health/Check";

/// Bytes of its answer at most; more are not read.
const QUESTION_ANSWER_BYTES_MAX: usize = 1_024;

/// Connections to each region for calls: two, so that one core's worth of encryption or one lost packet does not hold up
/// everything. Streams have others.
const CONNECTIONS: usize = 2;

/// Calls in progress on one connection at most, or as many as region-config lets the other side take.
const CONNECTION_CALLS_MAX: u32 = 2_048;

/// Streams of callers to each region in progress at most, and on each connection that this node follows by.
const STREAMS_MAX: u32 = 256;

/// How often a connection is asked whether it lives, also when nothing is in flight.
const KEEPALIVE_EVERY_MS: u64 = 5_000;

/// How long the answer may take before the connection counts as lost.
const KEEPALIVE_WAIT_MAX_MS: u64 = 5_000;

/// What may be in flight on one stream before the other side must take it: a batch of 8,192 payments and more.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// The same for one connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// What a stream of answers may have in flight before its caller must take it: some messages, over an ocean.
const ANSWERS_WINDOW_BYTES: u32 = 256 * 1024;

/// Why a call got no answer from a peer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Its time was over.
    Timeout,
    /// It never left: nothing has come from the node for a while.
    Silent,
    /// It never left: so many calls of its kind are in progress, the most there may be.
    Full(usize),
    /// It never left: the node could not be reached.
    NotSent(String),
    /// The connection broke. The call may have had its effect.
    Broken(String),
}

/// Another region's node.
pub(crate) struct Peer {
    region: RegionName,
    calls: [Connection; CONNECTIONS],
    streams: Connection,
    /// As many as it takes for a stream from each shard that the other leads, and its successor.
    feeds: Vec<Connection>,
    next: AtomicUsize,
    hearing: Arc<Hearing>,
    /// What questions go over.
    asking: (Dialer, Endpoint),
}

struct Connection {
    dialer: Dialer,
    endpoint: Endpoint,
    channel: RwLock<Channel>,
    places: Places,
    /// Told when an attempt to connect has failed.
    unreachable: Notify,
}

impl Peer {
    /// The peer of a region that leads so many shards. Connects to nothing yet; must be called within a tokio runtime.
    pub(crate) fn new(region: &Region, led: usize, limits: &Limits, security: &Security) -> Result<Self, Error> {
        let dialer = Dialer::new(security, region);
        let wrong = |source| Error::Endpoint { region: region.name.clone(), endpoint: region.grpc.to_string(), source };
        let endpoint = dialer
            .endpoint()
            .map_err(wrong)?
            .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_EVERY_MS))
            .keep_alive_timeout(Duration::from_millis(KEEPALIVE_WAIT_MAX_MS))
            .keep_alive_while_idle(true);
        let connection = |places: u32, stream_window_bytes: u32, window_bytes: u32| {
            let endpoint = endpoint.clone().initial_stream_window_size(stream_window_bytes).initial_connection_window_size(window_bytes);
            let channel = RwLock::new(dialer.connect_lazy(&endpoint));
            Connection { dialer: dialer.clone(), endpoint, channel, places: Places::new(places as usize), unreachable: Notify::new() }
        };
        let calls = CONNECTION_CALLS_MAX.min(limits.calls_per_connection);
        // Room for every stream's whole window: none that is not read takes another's.
        let streams = || connection(STREAMS_MAX, ANSWERS_WINDOW_BYTES, STREAMS_MAX * ANSWERS_WINDOW_BYTES);
        Ok(Self {
            region: region.name.clone(),
            calls: std::array::from_fn(|_| connection(calls, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)),
            streams: streams(),
            feeds: (0..(2 * led).div_ceil(STREAMS_MAX as usize)).map(|_| streams()).collect(),
            next: AtomicUsize::new(0),
            hearing: Arc::default(),
            asking: (dialer.clone(), endpoint),
        })
    }

    /// The region.
    pub(crate) fn region(&self) -> &RegionName {
        &self.region
    }

    /// A connection that has a place left, and the place.
    fn place(&self, kind: Kind) -> Result<(&Connection, Place), Unanswered> {
        let connections = match kind {
            Kind::Call => &self.calls[..],
            Kind::Stream => std::slice::from_ref(&self.streams),
            Kind::Feed => &self.feeds,
        };
        let first = self.next.fetch_add(1, Relaxed) % connections.len().max(1);
        let in_turn = connections[first..].iter().chain(&connections[..first]);
        let found =
            in_turn.map(|connection| (connection, connection.places.take())).find_map(|(connection, place)| Some((connection, place?)));
        found.ok_or_else(|| Unanswered::Full(connections.iter().map(|connection| connection.places.max()).sum()))
    }

    /// Sends a request and waits for the beginning of its answer, as long as the caller keeps waiting.
    pub(crate) async fn send(&self, request: Request<Body>, kind: Kind) -> Result<Response<Body>, Unanswered> {
        // Those who follow have a rule of their own for when to give up, and come back.
        if kind != Kind::Feed && self.hearing.is_silent() {
            return Err(Unanswered::Silent);
        }
        let (connection, place) = self.place(kind)?;
        // Made before the request is handed over: it hears of every failure from here on.
        let unreachable = connection.unreachable.notified();
        let sent = Arc::new(AtomicBool::new(false));
        let request = request.map(|body| Sent::body(body, Arc::clone(&sent)));
        let mut channel = connection.channel();
        let answer = async { channel.ready().await?.call(request).await };
        tokio::pin!(answer, unreachable);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            // What is on the wire of an older connection may still be answered.
            () = &mut unreachable => if sent.load(Acquire) { answer.await } else {
                return Err(Unanswered::NotSent("the connection could not be made".to_owned()));
            },
        };
        let answer = answered.map_err(|error| {
            let chain = chain(&error);
            if chain.iter().any(|error| error.is::<TimeoutExpired>()) {
                return Unanswered::Timeout;
            }
            let cause = chain.last().map(ToString::to_string).unwrap_or_default();
            if chain.iter().any(|error| error.is::<ConnectError>()) {
                connection.unreachable.notify_waiters();
                return Unanswered::NotSent(cause);
            }
            Unanswered::Broken(cause)
        })?;
        self.hearing.heard();
        // A caller's stream may be read late, so what comes of it says nothing of now.
        let hearing = (kind != Kind::Stream).then(|| Arc::clone(&self.hearing));
        Ok(Answer::of(answer, place, hearing))
    }

    /// What is sent from now on goes over new connections, streams that this node follows by included. What is under way keeps its own.
    pub(crate) fn renew(&self) {
        self.calls.iter().chain([&self.streams]).chain(&self.feeds).for_each(Connection::renew);
    }

    /// Listens whether the node is there, from a node of `own`, for as long as it is polled.
    pub(crate) async fn watch(&self, own: &RegionName) -> Infallible {
        let kept: Mutex<Option<Channel>> = Mutex::default();
        let ask = || async {
            let found = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut channel = found.unwrap_or_else(|| self.asking.0.connect_lazy(&self.asking.1));
            let answer = async { channel.ready().await?.call(question(own)).await }.await;
            match answer {
                Ok(answer) => {
                    // To its end, whatever it is: a stream that is broken off costs the other side more.
                    let _ = Limited::new(answer.into_body(), QUESTION_ANSWER_BYTES_MAX).collect().await;
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
                    Ok(())
                }
                Err(error) => match chain(&error) {
                    causes if causes.iter().any(|error| error.is::<ConnectError>()) => {
                        Err(causes.last().map(ToString::to_string).unwrap_or_default())
                    }
                    // Something is there, and it is not believed, or does not believe this node.
                    causes if causes.iter().any(|cause| is_refusal(*cause)) => {
                        Err(causes.last().map(ToString::to_string).unwrap_or_default())
                    }
                    // Closed by the other side: there is one, perhaps with as many connections as it takes.
                    _ => Ok(()),
                },
            }
        };
        let up = metrics::gauge!(UP, "peer" => self.region.to_string());
        let changed = |reached: bool, why: &str| {
            up.set(if reached { 1.0 } else { 0.0 });
            let region = &self.region;
            if reached {
                tracing::info!(%region, "a region is reached");
            } else {
                tracing::warn!(%region, why, "a region is silent: calls to it are refused until something comes from it");
                self.calls.iter().chain([&self.streams]).for_each(Connection::renew);
            }
        };
        silence::watch(&self.hearing, ask, changed).await
    }
}

impl Connection {
    fn channel(&self) -> Channel {
        self.channel.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is sent from now on goes over a new connection.
    fn renew(&self) {
        let new = self.dialer.connect_lazy(&self.endpoint);
        let old = std::mem::replace(&mut *self.channel.write().unwrap_or_else(PoisonError::into_inner), new);
        drop(old);
    }
}

/// Whether it says that what came is no TLS that this node takes, or that the other end did not take its own: that comes after the
/// handshake, as an alert.
fn is_refusal(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

/// A question whether a node is there, from a node of `own`: gRPC's own.
fn question(own: &RegionName) -> Request<Body> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Call::entering(own, QUESTION_PATH).write_headers(own, &mut headers);
    // One empty message.
    let mut request = Request::new(Body::new(Full::new(Bytes::from_static(&[0; 5]))));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(QUESTION_PATH);
    *request.headers_mut() = headers;
    request
}

/// An error and its causes, the root last.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut chain = vec![error];
    let mut last = error;
    while let Some(cause) = last.source() {
        chain.push(cause);
        last = cause;
    }
    chain
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.region)
    }
}

/// A request's body that notes when its connection begins to read it.
struct Sent {
    inner: Body,
    sent: Arc<AtomicBool>,
}

impl Sent {
    fn body(inner: Body, sent: Arc<AtomicBool>) -> Body {
        Body::new(Self { inner, sent })
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.sent.store(true, Release);
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body: it holds the call's place until its end, and tells that something comes.
struct Answer {
    inner: Body,
    place: Option<Place>,
    hearing: Option<Arc<Hearing>>,
}

impl Answer {
    fn of(answer: Response<Body>, place: Place, hearing: Option<Arc<Hearing>>) -> Response<Body> {
        if answer.body().is_end_stream() {
            return answer;
        }
        answer.map(|inner| Body::new(Self { inner, place: Some(place), hearing }))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let (Some(hearing), Some(Ok(_))) = (&self.hearing, &frame) {
            hearing.heard();
        }
        if !matches!(&frame, Some(Ok(frame)) if !frame.is_trailers()) {
            self.place = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_streams_and_feeds_fill_their_connections_and_then_there_is_no_place() {
        let topology = crate::mesh::tests::topology(&[1, 2]);
        let peer = |led| {
            let region = topology.region(&"eu_west".parse().expect("a name")).expect("a region");
            Peer::new(region, led, topology.limits(), &Security::PlainText).expect("a peer")
        };
        let kinds = [(Kind::Call, 4_096), (Kind::Stream, 256), (Kind::Feed, 1_024)];
        // 400 shards, and as many streams beside those that were lost.
        let many = peer(400);
        for (kind, max) in kinds {
            let mut held: Vec<_> = (0..max).map(|_| many.place(kind).expect("a place")).collect();
            assert!(matches!(many.place(kind), Err(Unanswered::Full(full)) if full == max));
            held.pop();
            held.push(many.place(kind).expect("a place that is free again"));
            for (other, _) in kinds.iter().filter(|(other, _)| *other != kind) {
                drop(many.place(*other).expect("a place of its own"));
            }
        }
        assert!(matches!(peer(0).place(Kind::Feed), Err(Unanswered::Full(0))), "it leads nothing that could be followed");
    }
}
