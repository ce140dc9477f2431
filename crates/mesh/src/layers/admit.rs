//! Refuses what the sender may not call. Denied is what the contract says so of; who calls is known from the connection.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::{Code, body::Body};
use tower::Service;

use super::Answer;
use crate::{body, call::Call};

/// Lets calls of the methods for nodes pass from nodes only.
#[derive(Clone)]
pub(crate) struct Admit<S> {
    inner: S,
}

impl<S> Admit<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Admit<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    // Nothing is done to an answer here, so it needs no box of its own.
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.extensions().get::<Call>().map(admitted) {
            Some(Err(fault)) => Either::Right(ready(Ok(body::reply(fault)))),
            _ => Either::Left(self.inner.call(request)),
        }
    }
}

fn admitted(call: &Call) -> Result<(), Fault> {
    match call.method {
        Some(method) if method.policy.nodes_only && call.node().is_none() => {
            let message = format!("{} is for nodes of the mesh, and this call does not come from one", method.policy.path);
            Err(Fault::new(Code::PermissionDenied, "NODES_ONLY", message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::mock;

    #[tokio::test]
    async fn what_is_for_nodes_passes_from_nodes_only() {
        let mut layer = Admit::new(mock::answering(|_| mock::ok(b"answer")));
        for policy in paymesh_contract::policies().methods() {
            let fault = mock::fault(layer.call(mock::request(&policy.path)).await).await;
            let wanted = if policy.nodes_only { (Code::PermissionDenied, "NODES_ONLY") } else { (Code::Ok, "") };
            assert_eq!(fault.code, wanted.0, "{}", policy.path);
            assert!(fault.reason == wanted.1 || !policy.nodes_only, "{fault}");
            assert_eq!(mock::fault(layer.call(mock::request_from_peer(&policy.path)).await).await.code, Code::Ok, "{}", policy.path);
        }
    }
}
