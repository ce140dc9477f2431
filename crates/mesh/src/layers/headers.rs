//! Refuses calls with more headers than they need, in words: HTTP/2's own bound, which is further out, answers nothing that a gRPC caller
//! understands.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::{Code, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::body;

/// What each header counts for besides its name and value (RFC 9113, section 6.5.2).
const HEADER_BYTES: usize = 32;

/// Bounds the bytes of each call's headers.
#[derive(Clone)]
pub(crate) struct Headers<S> {
    bytes_max: usize,
    inner: S,
}

impl<S> Headers<S> {
    pub(crate) fn new(bytes_max: u32, inner: S) -> Self {
        Self { bytes_max: bytes_max as usize, inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Headers<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let bytes = bytes(&request);
        if bytes <= self.bytes_max {
            return Box::pin(self.inner.call(request));
        }
        let message = format!("the call's headers have {bytes} bytes, and {} is the most", self.bytes_max);
        let fault = Fault::new(Code::ResourceExhausted, "HEADERS_TOO_LARGE", message);
        Box::pin(async { Ok(body::reply(fault)) })
    }
}

/// What a request's headers count for, its path among them.
fn bytes(request: &Request<Body>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES).sum::<usize>();
    headers + request.uri().path().len() + HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::layers::mock;

    const PATH: &str = "/paymesh.wallet.v1.WalletService/GetBalance";

    async fn sent(path: &str, value_bytes: usize) -> Fault {
        let mut request = mock::request(path);
        request.headers_mut().insert("x", HeaderValue::from_str(&"x".repeat(value_bytes)).expect("a value"));
        mock::fault(Headers::new(4_096, mock::answering(|_| mock::ok(b"answer"))).call(request).await).await
    }

    #[tokio::test]
    async fn headers_are_taken_up_to_their_most_and_refused_in_words_past_it() {
        let room = 4_096 - PATH.len() - 1 - 2 * HEADER_BYTES;
        assert_eq!(sent(PATH, room).await.code, Code::Ok);
        let fault = sent(PATH, room + 1).await;
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::ResourceExhausted, "HEADERS_TOO_LARGE"));
        assert!(fault.message.contains("4097 bytes, and 4096"), "{fault}");
        assert_eq!(sent(&format!("/{}", "x".repeat(5_000)), 0).await.reason, "HEADERS_TOO_LARGE", "a path is one too");
    }
}
