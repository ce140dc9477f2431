//! Ends calls whose first message does not come: whoever sends headers alone holds a place for a moment and no longer.
//!
//! What comes later is left to the services: a stream may be silent between its messages.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::{Code, body::Body};
use tower::Service;

use super::Answer;
use crate::body::Prompt;

/// DEADLINE_EXCEEDED `REQUEST_STALLED`. Not CANCELLED, which tonic takes for the end of the requests.
pub(crate) fn stalled(wait: Duration) -> Fault {
    let message = format!("the request's first message was not whole {wait:?} after its headers; nothing was done");
    Fault::new(Code::DeadlineExceeded, "REQUEST_STALLED", message)
}

/// Bounds the time of each call's first message.
#[derive(Clone)]
pub(crate) struct Arrival<S> {
    wait: Duration,
    inner: S,
}

impl<S> Arrival<S> {
    pub(crate) fn new(wait: Duration, inner: S) -> Self {
        Self { wait, inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Arrival<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let wait = self.wait;
        self.inner.call(request.map(|body| Prompt::body(body, wait)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::StreamExt as _;
    use http_body::Frame;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::{Instant, sleep};
    use tonic::Status;

    use super::*;
    use crate::layers::mock;

    const WAIT: Duration = Duration::from_secs(10);

    /// A service that reads the whole request, and says what it met.
    fn reading() -> mock::Mock {
        mock::service(|request| async {
            match request.into_body().collect().await {
                Ok(_) => mock::ok(b"answer"),
                Err(status) => status.into_http(),
            }
        })
    }

    /// These bytes, a second before each, and then an end or none.
    fn slow(pieces: &'static [&'static str], ends: bool) -> Body {
        let pieces = futures::stream::iter(pieces).then(|piece| async {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(piece.as_bytes())))
        });
        if ends { Body::new(StreamBody::new(pieces)) } else { Body::new(StreamBody::new(pieces.chain(futures::stream::pending()))) }
    }

    async fn sent(body: Body) -> Fault {
        let request = mock::request("/paymesh.payments.v1.PaymentService/StreamPayments").map(|_| body);
        mock::fault(Arrival::new(WAIT, reading()).call(request).await).await
    }

    #[tokio::test(start_paused = true)]
    async fn headers_alone_and_half_a_message_are_waited_for_so_long() {
        for pieces in [&[][..], &["\0\0\0\0"], &["\0\0\0\0\x02", "x"]] {
            let began = Instant::now();
            let fault = sent(slow(pieces, false)).await;
            assert_eq!((fault.code, fault.reason.as_ref()), (Code::DeadlineExceeded, "REQUEST_STALLED"), "{pieces:?}");
            assert_eq!(began.elapsed().as_secs(), 10, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_trickles_in_is_not_waited_for_longer() {
        let began = Instant::now();
        assert_eq!(sent(slow(&["\0\0\0\0\x40"; 60], true)).await.reason, "REQUEST_STALLED");
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_first_message_may_take_its_time() {
        let pieces = &["\0\0\0", "\0\x02x", "y", "", "", "", "", "", "", "", "", "\0\0\0\0\0"];
        let began = Instant::now();
        assert_eq!(sent(slow(pieces, true)).await.code, Code::Ok);
        assert_eq!(began.elapsed().as_secs(), 12);
        assert_eq!(sent(slow(&["\0\0"], true)).await.code, Code::Ok, "what ends is the reader's to judge");
    }
}
