//! Ends every call by its deadline, with DEADLINE_EXCEEDED, and every stream when the node stops.
//!
//! tonic's own timer would answer CANCELLED, so this one goes off a little earlier. What is sent on to another node gets the
//! time that is left here, so each node of a call's way ends it before the one that waits for it does.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use paymesh_contract::Fault;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Code, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::{
    body::{self, Bounded},
    call::{self, Call},
    methods::Method,
};

/// The time for a call whose caller gives none. Streams have none then.
pub const DEADLINE_DEFAULT_MS: u64 = 30_000;

/// The most time that a caller can ask for. What a call holds is free again by then; streams are bounded by their number.
const DEADLINE_MAX_MS: u64 = 300_000;

/// How much earlier than the caller's own timer ours goes off, so that our answer still gets there: a quarter of short ones.
const DEADLINE_MARGIN_MS: u64 = 20;

/// When to try again on another node, or on this one when it is back.
const RETRY_AFTER_MS: u64 = 500;

/// DEADLINE_EXCEEDED.
pub(crate) fn exceeded() -> Fault {
    Fault::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call's deadline has passed; GetRequestOutcome says what became of a write")
}

/// UNAVAILABLE `NODE_STOPPING`.
pub(crate) fn stopping() -> Fault {
    Fault::unavailable("NODE_STOPPING", "the node is stopping and ends its streams", Duration::from_millis(RETRY_AFTER_MS))
}

/// When streams end because the node stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// No new calls: streams that only tell ends now, they can be asked for again.
    pub(crate) draining: CancellationToken,
    /// The grace time is over: every stream ends now.
    pub(crate) stopped: CancellationToken,
}

/// Bounds each call's time.
#[derive(Clone)]
pub(crate) struct Deadline<S> {
    stop: Stop,
    inner: S,
}

impl<S> Deadline<S> {
    pub(crate) fn new(stop: Stop, inner: S) -> Self {
        Self { stop, inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Deadline<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let timeout = match call::parse_timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(fault) => return Box::pin(async { Ok(body::reply(fault)) }),
        };
        let now = Instant::now();
        let call = request.extensions_mut().get_mut::<Call>();
        let method = call.as_ref().and_then(|call| call.method);
        let mut deadline = deadline(now, timeout, method);
        if let Some(call) = call {
            // A call from inside that is part of another ends with it.
            deadline = [deadline, call.deadline].into_iter().flatten().min();
            call.deadline = deadline;
        }
        let stop = method.filter(|method| method.is_streaming()).map(|method| {
            // Who only tells can be asked again elsewhere or later.
            let stop = if method.policy.read_only { &self.stop.draining } else { &self.stop.stopped };
            let stopped = stop.clone().cancelled_owned();
            Box::pin(async {
                stopped.await;
                stopping()
            }) as body::End
        });
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Box::pin(async { Ok(body::reply(exceeded())) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = match deadline {
                Some(deadline) => match timeout_at(deadline, answer).await {
                    Ok(answer) => answer?,
                    Err(_) => return Ok(body::reply(exceeded())),
                },
                None => answer.await?,
            };
            Ok(answer.map(|inner| Bounded::body(inner, deadline, stop)))
        })
    }
}

/// When a call ends: by its caller's word, or else by what its method is.
fn deadline(now: Instant, timeout: Option<Duration>, method: Option<&Method>) -> Option<Instant> {
    let timeout = match (timeout, method) {
        (Some(timeout), _) => {
            let timeout = timeout - (timeout / 4).min(Duration::from_millis(DEADLINE_MARGIN_MS));
            let lasting = method.is_none_or(Method::is_streaming);
            if lasting { timeout } else { timeout.min(Duration::from_millis(DEADLINE_MAX_MS)) }
        }
        // Health's Watch and reflection are streams too, as far as is known here.
        (None, None) => return None,
        (None, Some(method)) if method.is_streaming() => return None,
        (None, Some(_)) => Duration::from_millis(DEADLINE_DEFAULT_MS),
    };
    // Further than a clock can say is as good as none.
    now.checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::layers::mock;

    const UNARY: &str = "/paymesh.wallet.v1.WalletService/GetBalance";
    const STREAM: &str = "/paymesh.events.v1.EventService/Subscribe";

    fn with_timeout(mut request: Request<Body>, timeout: &'static str) -> Request<Body> {
        request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static(timeout));
        request
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_a_little_before_its_callers_own_timer() {
        let mut layer = Deadline::new(Stop::default(), mock::service(|_| pending()));
        let began = Instant::now();
        let fault = mock::fault(layer.call(with_timeout(mock::request(UNARY), "200m")).await).await;
        assert_eq!(fault.code, Code::DeadlineExceeded);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(180) && took < Duration::from_millis(200), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_timeout_gets_the_default_and_a_stream_gets_none() {
        let mut layer = Deadline::new(Stop::default(), mock::service(|_| pending()));
        let began = Instant::now();
        assert_eq!(mock::fault(layer.call(mock::request(UNARY)).await).await.code, Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), DEADLINE_DEFAULT_MS / 1_000);
        let hours = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hours, layer.call(mock::request(STREAM))).await.is_err(), "the stream still waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_gets_five_minutes_at_most_and_a_stream_what_it_asks_for() {
        let mut layer = Deadline::new(Stop::default(), mock::service(|_| pending()));
        let began = Instant::now();
        let fault = mock::fault(layer.call(with_timeout(mock::request(UNARY), "99999999H")).await).await;
        assert_eq!((fault.code, began.elapsed().as_secs()), (Code::DeadlineExceeded, DEADLINE_MAX_MS / 1_000));
        let began = Instant::now();
        mock::fault(layer.call(with_timeout(mock::request(STREAM), "2H")).await).await;
        assert_eq!(began.elapsed().as_secs(), 7_199);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_hangs_after_its_headers_ends_too() {
        for path in [UNARY, STREAM] {
            let mut layer = Deadline::new(Stop::default(), mock::answering(|_| Response::new(mock::hanging_body())));
            let fault = mock::fault(layer.call(with_timeout(mock::request(path), "1S")).await).await;
            assert_eq!(fault.code, Code::DeadlineExceeded, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_answers_ends_when_the_node_drains_and_one_of_requests_when_it_stops() {
        let stop = Stop::default();
        let mut layer = Deadline::new(stop.clone(), mock::answering(|_| Response::new(mock::hanging_body())));
        let telling = layer.call(mock::request(STREAM)).await;
        let asking = layer.call(mock::request("/paymesh.payments.v1.PaymentService/StreamPayments")).await;
        stop.draining.cancel();
        assert_eq!(mock::fault(telling).await.reason, "NODE_STOPPING");
        let asking = tokio::spawn(mock::fault(asking));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!asking.is_finished(), "it may finish what it has begun");
        stop.stopped.cancel();
        assert_eq!(asking.await.expect("no panic").reason, "NODE_STOPPING");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_a_call_ends_with_the_call() {
        let mut layer = Deadline::new(Stop::default(), mock::service(|_| pending()));
        let mut request = mock::request(UNARY);
        let began = Instant::now();
        request.extensions_mut().get_mut::<Call>().expect("a call").deadline = Some(began + Duration::from_secs(2));
        assert_eq!(mock::fault(layer.call(request).await).await.code, Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[tokio::test]
    async fn a_timeout_that_is_none_is_refused() {
        let mut layer = Deadline::new(Stop::default(), mock::service(|_| pending()));
        let fault = mock::fault(layer.call(with_timeout(mock::request(UNARY), "soon")).await).await;
        assert_eq!((fault.code, fault.field.as_deref()), (Code::InvalidArgument, Some("grpc-timeout")));
        let fault = mock::fault(layer.call(with_timeout(mock::request(UNARY), "0S")).await).await;
        assert_eq!(fault.code, Code::DeadlineExceeded);
    }
}
