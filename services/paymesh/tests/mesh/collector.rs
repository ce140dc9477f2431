//! A collector of traces that keeps what it is sent, as bytes.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};
use tower::Service;

/// Listens for OTLP over gRPC as long as its runtime lives. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    /// The collector, and where it listens.
    pub(crate) async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        tokio::spawn(Server::builder().add_service(collector.clone()).serve_with_incoming(TcpIncoming::from(listener)));
        (collector, url)
    }

    /// Whether these words are in what was sent so far.
    pub(crate) fn was_sent(&self, words: &str) -> bool {
        self.sent.lock().unwrap().windows(words.len()).any(|window| window == words.as_bytes())
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<Request<Body>> for Collector {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = self.sent.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            sent.lock().unwrap().extend_from_slice(&body);
            // An empty message: all of it was taken.
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let answer = Full::from(vec![0; 5]).with_trailers(async move { Some(Ok(trailers)) });
            let answer = Response::builder().header("content-type", "application/grpc").body(Body::new(answer));
            Ok(answer.unwrap())
        })
    }
}
