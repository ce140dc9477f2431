//! The layers of the edge's stack, each on its own and tested with a mock below it. [`crate::edge`] puts them in order.

pub(crate) mod admit;
pub(crate) mod arrival;
pub(crate) mod audit;
pub(crate) mod busy;
pub(crate) mod deadline;
pub(crate) mod headers;
pub(crate) mod metrics;
pub(crate) mod shed;
pub(crate) mod trace;

use std::{convert::Infallible, future::Future, pin::Pin};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

/// What every layer of the stack is and stands on: it answers every request, and is always ready for the next.
pub(crate) trait Answer:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answer for S where S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static {}

/// An answer on its way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

#[cfg(test)]
pub(crate) mod mock;
