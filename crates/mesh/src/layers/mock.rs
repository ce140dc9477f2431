//! Services and requests for tests of one layer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use paymesh_contract::Fault;
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::Answering;
use crate::call::Call;

type Handler = dyn Fn(Request<Body>) -> Answering + Send + Sync;

#[derive(Clone)]
pub(crate) struct Mock(Arc<Handler>);

impl Service<Request<Body>> for Mock {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        (self.0)(request)
    }
}

/// A service of an asynchronous function.
pub(crate) fn service<F>(handler: impl Fn(Request<Body>) -> F + Send + Sync + 'static) -> Mock
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Mock(Arc::new(move |request| {
        let answer = handler(request);
        Box::pin(async { Ok(answer.await) })
    }))
}

/// A service that answers at once.
pub(crate) fn answering(handler: impl Fn(Request<Body>) -> Response<Body> + Send + Sync + 'static) -> Mock {
    service(move |request| std::future::ready(handler(request)))
}

/// A request as the layers below the first get it.
pub(crate) fn request(path: &str) -> Request<Body> {
    let mut request = Request::post(path).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Call::entering(&"us_east".parse().expect("a region"), path));
    request
}

pub(crate) fn request_from_peer(path: &str) -> Request<Body> {
    let mut request = request(path);
    request.extensions_mut().get_mut::<Call>().expect("a call").passed.push("eu_west".parse().expect("a region"));
    request
}

/// The same that an edge sends.
pub(crate) fn request_from_edge(path: &str) -> Request<Body> {
    let mut request = request_from_peer(path);
    request.extensions_mut().get_mut::<Call>().expect("a call").by_edge = true;
    request
}

/// An answer of one message.
pub(crate) fn ok(data: &'static [u8]) -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    Status::ok("").add_header(&mut trailers).expect("a status");
    let frames = [Ok::<_, Status>(Frame::data(Bytes::from_static(data))), Ok(Frame::trailers(trailers))];
    Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))))
}

/// A body that never goes on.
pub(crate) fn hanging_body() -> Body {
    Body::new(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>()))
}

/// Reads an answer to its end: its bytes and its status.
pub(crate) async fn read(response: Result<Response<Body>, Infallible>) -> (Bytes, Status) {
    let (parts, body) = response.expect("infallible").into_parts();
    let collected = body.collect().await.expect("a whole body");
    let in_trailers = collected.trailers().and_then(Status::from_header_map);
    let status = Status::from_header_map(&parts.headers).or(in_trailers).unwrap_or_else(|| Status::new(Code::Unknown, "no status"));
    (collected.to_bytes(), status)
}

/// Reads an answer to its end: what its status says.
pub(crate) async fn fault(response: Result<Response<Body>, Infallible>) -> Fault {
    Fault::from_status(&read(response).await.1)
}
