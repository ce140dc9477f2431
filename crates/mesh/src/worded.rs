//! What tonic itself says of a request's bytes, in the contract's words.
//!
//! tonic answers INTERNAL when a message does not decode, and gives no reason. Here the caller is at fault: INVALID_ARGUMENT
//! `MALFORMED_REQUEST`. Statuses of the services' own carry details and pass as they are.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::{TryFutureExt as _, future::MapOk};
use http::{Request, Response};
use paymesh_contract::Fault;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service;

const STATUS_HEADER: &str = "grpc-status";

/// A generated server whose refusals of requests that do not decode are the contract's.
#[derive(Debug, Clone)]
pub struct Worded<S>(pub S);

impl<S: NamedService> NamedService for Worded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Worded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(reworded)
    }
}

fn reworded(response: Response<Body>) -> Response<Body> {
    // An answer that has a message has its status in the trailers, and is not about the request's bytes.
    if !response.headers().contains_key(STATUS_HEADER) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.details().is_empty() && tonics_own(status.code()) => unreadable(&status).into_http(),
        _ => response,
    }
}

fn tonics_own(code: Code) -> bool {
    matches!(code, Code::Internal | Code::OutOfRange | Code::ResourceExhausted)
}

/// What to answer where a request could not be read, `status` being tonic's words for it.
pub fn unreadable(status: &Status) -> Status {
    let fault = match status.code() {
        Code::Internal | Code::Unknown => Fault::new(Code::InvalidArgument, "MALFORMED_REQUEST", status.message()),
        Code::OutOfRange | Code::ResourceExhausted => Fault::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", status.message()),
        _ => return status.clone(),
    };
    fault.into()
}
