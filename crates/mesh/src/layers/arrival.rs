//! Ends calls whose request does not come: whoever sends headers alone, or half a message, holds a place for a moment and no longer.
//!
//! A call of one message must be whole in time, its end included. A stream may be silent between its messages, and each that has begun
//! must be whole in time. None may be compressed or larger than one may be, and what is not whole has so many bytes in all calls together:
//! otherwise those who never end their requests could have the node keep as much as it takes calls.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use paymesh_contract::Fault;
use tonic::{Code, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::{
    Limits,
    body::{self, Prompt},
    call::Call,
    frame,
    places::Room,
};

/// gRPC's own headers for how a request's messages are written, and how they may be (PROTOCOL-HTTP2.md, "Message-Encoding").
const ENCODING_HEADER: &str = "grpc-encoding";
const ACCEPT_ENCODING_HEADER: &str = "grpc-accept-encoding";
const PLAIN: &str = "identity";

/// When to try again where there is no room.
const RETRY_AFTER_MS: u64 = 500;

/// DEADLINE_EXCEEDED `REQUEST_STALLED`. Not CANCELLED, which tonic takes for the end of the requests.
pub(crate) fn stalled(wait: Duration, later: bool) -> Fault {
    let message = if later {
        format!("a message of the stream was not whole after {wait:?}: the stream ends")
    } else {
        format!("the request was not whole after {wait:?}, or its first message where it is a stream; nothing was done")
    };
    Fault::new(Code::DeadlineExceeded, "REQUEST_STALLED", message)
}

/// UNAVAILABLE `NODE_OVERLOADED`.
pub(crate) fn no_room(bytes_max: usize) -> Fault {
    let message = format!("requests that are not whole yet have {bytes_max} bytes on this node, the most they may have");
    Fault::unavailable("NODE_OVERLOADED", message, Duration::from_millis(RETRY_AFTER_MS))
}

/// Bounds the time and the room of each call's request.
#[derive(Clone)]
pub(crate) struct Arrival<S> {
    wait: Duration,
    room: Room,
    inner: S,
}

impl<S> Arrival<S> {
    pub(crate) fn new(limits: &Limits, inner: S) -> Self {
        Self { wait: limits.arrival_wait, room: Room::new(limits.arriving_bytes_max), inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Arrival<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        if request.headers().get(ENCODING_HEADER).is_some_and(|encoding| encoding != PLAIN) {
            let mut answer = body::reply(frame::compressed());
            answer.headers_mut().insert(ACCEPT_ENCODING_HEADER, HeaderValue::from_static(PLAIN));
            return Box::pin(async { Ok(answer) });
        }
        if request.body().is_end_stream() {
            return Box::pin(self.inner.call(request));
        }
        // What the contract does not have may be a stream, as reflection is.
        let method = request.extensions().get::<Call>().and_then(|call| call.method);
        let single = method.is_some_and(|method| !method.policy.client_streaming);
        let broken_off = Arc::new(OnceLock::new());
        let answer = self.inner.call(request.map(|body| Prompt::body(body, single, self.wait, &self.room, Arc::clone(&broken_off))));
        Box::pin(async move {
            let answer = answer.await?;
            // Whoever reads it, here or in another region, has an error of its own for a request that breaks off: this is why.
            Ok(broken_off.get().map_or(answer, |fault| body::reply(fault.clone())))
        })
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

    const STREAM: &str = "/paymesh.payments.v1.PaymentService/StreamPayments";
    const CALL: &str = "/paymesh.payments.v1.PaymentService/CreatePayment";

    fn arrival(arriving_bytes_max: usize) -> Arrival<mock::Mock> {
        Arrival::new(&Limits { arrival_wait: WAIT, arriving_bytes_max, ..Limits::default() }, reading())
    }

    async fn sent_to(path: &str, body: Body) -> Fault {
        mock::fault(arrival(1_000).call(mock::request(path).map(|_| body)).await).await
    }

    async fn sent(body: Body) -> Fault {
        sent_to(STREAM, body).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_one_message_is_waited_for_to_its_end_and_has_no_other() {
        for (pieces, ends, reason) in [
            (&["\0\0\0\0\x01", "x"][..], true, "OK"),
            (&["\0\0\0\0\x01x"], false, "REQUEST_STALLED"),
            (&["\0\0\0\0\x01x", "\0\0\0\0\x01x"], true, "MALFORMED_REQUEST"),
            (&["\0\0\0\0\x01x", "", "", "", "\0"], true, "MALFORMED_REQUEST"),
        ] {
            let began = Instant::now();
            let fault = sent_to(CALL, slow(pieces, ends)).await;
            assert_eq!(fault.reason, reason, "{pieces:?}");
            assert_eq!(began.elapsed().as_secs(), if reason == "REQUEST_STALLED" { 10 } else { pieces.len() as u64 }, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_message_of_a_stream_that_has_begun_must_be_whole_in_time() {
        let began = Instant::now();
        let fault = sent(slow(&["\0\0\0\0\x01x", "", "", "", "", "", "", "", "", "", "", "\0\0\0\0\x02x"], false)).await;
        assert_eq!(fault.reason, "REQUEST_STALLED");
        assert!(fault.message.contains("a message of the stream"), "{fault}");
        assert_eq!(began.elapsed().as_secs(), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn compressed_and_oversized_messages_are_refused_wherever_they_stand() {
        for path in [STREAM, CALL, "/grpc.health.v1.Health/Check"] {
            assert_eq!(sent_to(path, slow(&["\x01"], false)).await.reason, "COMPRESSION_NOT_SUPPORTED", "{path}");
            assert_eq!(sent_to(path, slow(&["\0\x01\0\0\0"], false)).await.reason, "MESSAGE_TOO_LARGE", "{path}");
        }
        assert_eq!(sent(slow(&["\0\0\0\0\x01x", "\x01"], false)).await.reason, "COMPRESSION_NOT_SUPPORTED");
        for (encoding, reason) in [("gzip", "COMPRESSION_NOT_SUPPORTED"), ("identity", "OK")] {
            let mut request = mock::request(CALL).map(|_| slow(&["\0\0\0\0\x01x"], true));
            request.headers_mut().insert(ENCODING_HEADER, HeaderValue::from_static(encoding));
            assert_eq!(mock::fault(arrival(1_000).call(request).await).await.reason, reason, "{encoding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_whole_has_so_much_room_in_all_calls_together() {
        let mut layer = arrival(1_000);
        let half: &'static str = "\0\0\0\x03\0xxxxxxxxxx";
        let begin = |layer: &mut Arrival<mock::Mock>| {
            let answer = layer.call(mock::request(CALL).map(|_| slow(Vec::leak(vec![half; 30]), false)));
            tokio::spawn(async { mock::fault(answer.await).await })
        };
        // Fifteen bytes a second each: after seven seconds ten of them have more than a thousand.
        let ten: Vec<_> = (0..10).map(|_| begin(&mut layer)).collect();
        let began = Instant::now();
        let mut reasons = Vec::new();
        for fault in ten {
            let fault = fault.await.expect("no panic");
            assert!(fault.reason != "NODE_OVERLOADED" || fault.retry_after.is_some());
            reasons.push(fault.reason);
        }
        let refused = reasons.iter().filter(|reason| *reason == "NODE_OVERLOADED").count();
        assert!((1..10).contains(&refused), "{reasons:?}");
        assert!(began.elapsed() <= WAIT);
        // All of it is free again.
        assert_eq!(mock::fault(layer.call(mock::request(CALL).map(|_| slow(&["\0\0\0\0\x01x"], true))).await).await.code, Code::Ok);
        assert!(layer.room.holder().hold(1_000));
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
