//! Refuses calls when too many are in progress: a queue that only grows helps nobody.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::body::Body;
use tower::Service;

use super::{Answer, Answering};
use crate::{body, call::Call};

pub(crate) const SHED: &str = "paymesh_calls_shed_total";

/// When to try again.
const RETRY_AFTER_MS: u64 = 100;

/// Bounds the calls in progress, each until its answer's last byte.
///
/// gRPC's own health and reflection pass: an overloaded node must still be able to say that it lives.
#[derive(Clone)]
pub(crate) struct Shed<S> {
    calls_max: usize,
    calls: Arc<AtomicUsize>,
    inner: S,
}

impl<S> Shed<S> {
    pub(crate) fn new(calls_max: usize, inner: S) -> Self {
        Self { calls_max, calls: Arc::default(), inner }
    }
}

/// A place among the calls in progress.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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
        if request.extensions().get::<Call>().is_none_or(|call| call.method.is_none()) {
            return Box::pin(self.inner.call(request));
        }
        let before = self.calls.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(&self.calls));
        if before >= self.calls_max {
            metrics::counter!(SHED).increment(1);
            let fault = Fault::unavailable(
                "NODE_OVERLOADED",
                format!("the node has {} calls in progress, its most", self.calls_max),
                Duration::from_millis(RETRY_AFTER_MS),
            );
            return Box::pin(async { Ok(body::reply(fault)) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let place = place;
            let answer = answer.await?;
            Ok(body::observe(answer, move |_| drop(place)))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::layers::mock;

    const PATH: &str = "/paymesh.wallet.v1.WalletService/GetBalance";

    #[tokio::test]
    async fn one_call_too_many_is_refused_with_retry_info_and_a_finished_one_makes_room() {
        let mut layer = Shed::new(1, mock::answering(|_| mock::ok(b"answer")));
        let first = layer.call(mock::request(PATH)).await.expect("infallible");
        let fault = mock::fault(layer.call(mock::request(PATH)).await).await;
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "NODE_OVERLOADED"));
        assert_eq!(fault.retry_after, Some(Duration::from_millis(RETRY_AFTER_MS)));
        mock::read(Ok(first)).await;
        assert_eq!(mock::fault(layer.call(mock::request(PATH)).await).await.code, Code::Ok, "the first was read to its end");
    }

    #[tokio::test]
    async fn a_call_that_its_caller_gives_up_makes_room() {
        let mut layer = Shed::new(1, mock::answering(|_| mock::ok(b"answer")));
        drop(layer.call(mock::request(PATH)));
        drop(layer.call(mock::request(PATH)).await);
        assert_eq!(mock::fault(layer.call(mock::request(PATH)).await).await.code, Code::Ok);
    }

    #[tokio::test]
    async fn health_checks_pass_an_overloaded_node() {
        let mut layer = Shed::new(0, mock::answering(|_| mock::ok(b"answer")));
        assert_eq!(mock::fault(layer.call(mock::request("/grpc.health.v1.Health/Check")).await).await.code, Code::Ok);
        assert_eq!(mock::fault(layer.call(mock::request(PATH)).await).await.code, Code::Unavailable);
    }
}
