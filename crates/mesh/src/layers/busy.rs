//! Notes which connections are of use: those with calls in progress.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::{Answer, Answering};
use crate::{
    body,
    call::Call,
    usage::{Party, Usage},
};

/// Holds each call's connection until the call's answer has gone.
#[derive(Clone)]
pub(crate) struct Busy<S> {
    inner: S,
}

impl<S> Busy<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Busy<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let Some(usage) = request.extensions().get::<Usage>() else { return Box::pin(self.inner.call(request)) };
        // By now it is known whether the connection may say so.
        if let Some(call) = request.extensions().get::<Call>().filter(|call| call.is_from_peer()) {
            usage.is_of(if call.node().is_some() { Party::Node } else { Party::Edge });
        }
        let in_call = usage.call();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let in_call = in_call;
            let answer = answer.await?;
            Ok(body::observe(answer, move |_, _| drop(in_call)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layers::mock;

    const PATH: &str = "/paymesh.events.v1.EventService/Subscribe";

    async fn is_idle(usage: &Usage) -> bool {
        tokio::time::timeout(Duration::from_secs(120), usage.idle(Duration::from_secs(60))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_in_use_until_the_answer_is_read_or_given_up() {
        let mut layer = Busy::new(mock::answering(|_| mock::ok(b"answer")));
        let usage = Usage::new();
        let mut call = || {
            let mut request = mock::request(PATH);
            request.extensions_mut().insert(usage.clone());
            layer.call(request)
        };
        let waiting = call();
        assert!(!is_idle(&usage).await);
        drop(waiting);
        assert!(is_idle(&usage).await);
        let answer = call().await;
        assert!(!is_idle(&usage).await);
        mock::read(answer).await;
        assert!(is_idle(&usage).await);
        assert_eq!(usage.party(), Party::Anybody);
    }

    #[tokio::test]
    async fn a_connection_that_an_edges_call_comes_over_is_an_edges() {
        let usage = Usage::new();
        let mut request = mock::request_from_edge(PATH);
        request.extensions_mut().insert(usage.clone());
        drop(Busy::new(mock::answering(|_| mock::ok(b"answer"))).call(request));
        assert_eq!(usage.party(), Party::Edge);
    }

    #[tokio::test]
    async fn a_connection_that_a_nodes_call_comes_over_is_a_nodes() {
        let usage = Usage::new();
        let mut request = mock::request_from_peer(PATH);
        request.extensions_mut().insert(usage.clone());
        drop(Busy::new(mock::answering(|_| mock::ok(b"answer"))).call(request));
        assert_eq!(usage.party(), Party::Node);
    }
}
