//! Refuses calls when too many are in progress: a queue that only grows helps nobody.
//!
//! Calls that end by themselves, streams that last as long as their callers want, those by which other nodes follow this
//! one, and what tells whether the node lives have places of their own, so that none of them crowds out another.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::body::Body;
use tower::Service;

use super::{Answer, Answering};
use crate::{Limits, body, call::Call, methods::Kind, places::Places, usage::Usage};

pub(crate) const SHED: &str = "paymesh_calls_shed_total";

/// gRPC's own question whether a process lives (grpc/health/v1/health.proto).
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// When to try again.
const RETRY_AFTER_MS: u64 = 100;

/// UNAVAILABLE `NODE_OVERLOADED`, counted.
pub(crate) fn overloaded(message: String) -> Fault {
    metrics::counter!(SHED).increment(1);
    Fault::unavailable("NODE_OVERLOADED", message, Duration::from_millis(RETRY_AFTER_MS))
}

/// Bounds the calls in progress, each until its answer's last byte.
#[derive(Clone)]
pub(crate) struct Shed<S> {
    calls: Places,
    streams: Places,
    feeds: Places,
    /// For what the contract does not have: watches of gRPC's own health, and reflection, which last as long as whoever began them likes. A check of the
    /// health takes none of them: it has places of its connection's own, so that nobody keeps a balancer from being told that the node lives.
    probes: Places,
    inner: S,
}

impl<S> Shed<S> {
    /// With these limits, and places for so many streams between nodes.
    pub(crate) fn new(limits: &Limits, feeds_max: usize, inner: S) -> Self {
        Self {
            calls: Places::new(limits.calls_max),
            streams: Places::new(limits.streams_max),
            feeds: Places::new(feeds_max),
            probes: Places::new(limits.probes_max),
            inner,
        }
    }

    /// The places for calls such as this one, and what to call those that hold them.
    fn places<'a>(&'a self, request: &'a Request<Body>) -> (&'a Places, &'static str) {
        match request.extensions().get::<Call>().and_then(|call| call.method) {
            None => match request.extensions().get::<Usage>().filter(|_| request.uri().path() == HEALTH_CHECK) {
                Some(usage) => (usage.checks(), "health checks of one connection"),
                None => (&self.probes, "watches of health and reflections"),
            },
            Some(method) => match method.kind() {
                Kind::Call => (&self.calls, "calls"),
                Kind::Stream => (&self.streams, "streams"),
                Kind::Feed => (&self.feeds, "streams of other nodes"),
            },
        }
    }
}

impl<S: Answer> Service<Request<Body>> for Shed<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let (places, kind) = self.places(&request);
        let Some(place) = places.take() else {
            let fault = overloaded(format!("the node has {} {kind} in progress, its most", places.max()));
            return Box::pin(async { Ok(body::reply(fault)) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let place = place;
            let answer = answer.await?;
            Ok(body::observe(answer, move |_, _| drop(place)))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::layers::mock;

    const PATH: &str = "/paymesh.wallet.v1.WalletService/GetBalance";
    const STREAM: &str = "/paymesh.events.v1.EventService/Subscribe";
    const FOLLOW: &str = "/paymesh.replication.v1.ReplicationService/Follow";
    const HEALTH: &str = "/grpc.health.v1.Health/Check";

    /// A node with so many places for calls, streams and health checks.
    fn shed(calls_max: usize, streams_max: usize, probes_max: usize) -> Shed<mock::Mock> {
        let limits = Limits { calls_max, streams_max, probes_max, ..Limits::default() };
        Shed::new(&limits, 1, mock::answering(|_| mock::ok(b"answer")))
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_with_retry_info_and_a_finished_one_makes_room() {
        let mut layer = shed(1, 1, 1);
        let first = layer.call(mock::request(PATH)).await.expect("infallible");
        let fault = mock::fault(layer.call(mock::request(PATH)).await).await;
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "NODE_OVERLOADED"));
        assert_eq!(fault.retry_after, Some(Duration::from_millis(RETRY_AFTER_MS)));
        mock::read(Ok(first)).await;
        assert_eq!(mock::fault(layer.call(mock::request(PATH)).await).await.code, Code::Ok, "the first was read to its end");
    }

    #[tokio::test]
    async fn a_call_that_its_caller_gives_up_makes_room() {
        let mut layer = shed(1, 1, 1);
        drop(layer.call(mock::request(PATH)));
        drop(layer.call(mock::request(PATH)).await);
        assert_eq!(mock::fault(layer.call(mock::request(PATH)).await).await.code, Code::Ok);
    }

    #[tokio::test]
    async fn calls_streams_feeds_and_health_checks_do_not_take_each_others_places() {
        let paths = [PATH, STREAM, FOLLOW, HEALTH];
        for full in paths {
            let mut layer = shed(1, 1, 1);
            let _held = layer.call(mock::request(full)).await;
            for path in paths {
                let wanted = if path == full { Code::Unavailable } else { Code::Ok };
                assert_eq!(mock::fault(layer.call(mock::request(path)).await).await.code, wanted, "{path} beside {full}");
            }
        }
    }
}
