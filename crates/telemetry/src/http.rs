//! `/health`, `/ready` and `/metrics` over HTTP/1.1.
//!
//! Everything is bounded, because a load balancer's port is where strangers knock first: connections, the size of a request's
//! head, and how long one connection may live. One request a connection; bodies are not read. No request waits for anything.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::{Error, Health, Metrics, Report};

/// Connections served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send its request's head.
const HEAD_WAIT_MAX_MS: u64 = 5_000;

/// How long one connection may live.
const CONNECTION_WAIT_MAX_MS: u64 = 15_000;

/// A request's line and headers at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How often histograms are moved into their buckets.
const UPKEEP_EVERY_MS: u64 = 5_000;

/// How long to wait after the listener failed to accept, for example because the process has no file descriptor left.
const ACCEPT_RETRY_MS: u64 = 100;

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

/// The answer of `/health`.
#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    report: Report,
    timestamp: String,
}

/// Serves `/health`, `/ready` and `/metrics` until `shutdown` ends. The caller owns the task and notices its end.
///
/// `/health`: 200 when every component works, else 503, with each component and why it does not work. `/ready`: 200 when
/// calls should be sent here, else 503. `/metrics`: Prometheus' text form.
///
/// # Errors
/// When the listener is unusable from the start.
pub async fn serve_http(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "health and metrics are served");
    let router = router(health, metrics.clone());
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Owned here: connections end with the server.
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(Duration::from_millis(UPKEEP_EVERY_MS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            accepted = accept => accepted,
            _ = upkeep.tick() => {
                metrics.upkeep();
                continue;
            }
            // Takes the ended ones off the set.
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the http listener could not accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _slot = slot;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_millis(HEAD_WAIT_MAX_MS))
                .max_buf_size(HEAD_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off or breaks the protocol is its own problem.
            let _ = tokio::time::timeout(Duration::from_millis(CONNECTION_WAIT_MAX_MS), connection).await;
        });
    }
}

fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(show_health))
        .route("/ready", get(show_ready))
        .route("/metrics", get(show_metrics))
        .with_state(Shared { health, metrics })
}

async fn show_health(State(shared): State<Shared>) -> Response {
    let report = shared.health.report();
    let code = if report.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Body { report, timestamp: jiff::Timestamp::now().to_string() })).into_response()
}

async fn show_ready(State(shared): State<Shared>) -> Response {
    let report = shared.health.report();
    let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Body { report, timestamp: jiff::Timestamp::now().to_string() })).into_response()
}

async fn show_metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<Result<(), Error>>,
    }

    async fn serve(health: &Health) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (_, metrics) = Metrics::recorder("us_east").expect("a recorder");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(serve_http(listener, health.clone(), metrics, shutdown));
        Server { address, stop, task }
    }

    impl Server {
        async fn send(&self, request: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).await.expect("a connection");
            stream.write_all(request).await.expect("sent");
            let mut answer = Vec::new();
            // A reset after the answer is as good as its end.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        }

        async fn get(&self, path: &str) -> String {
            self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await
        }
    }

    #[tokio::test]
    async fn health_turns_503_and_names_the_component_and_why() {
        let health = Health::new("us_east");
        let shard = health.component("shard global/0");
        let server = serve(&health).await;
        assert!(server.get("/health").await.starts_with("HTTP/1.1 503"), "starting is not healthy");
        assert!(server.get("/ready").await.starts_with("HTTP/1.1 503"));
        shard.healthy();
        let good = server.get("/health").await;
        assert!(good.starts_with("HTTP/1.1 200") && good.contains(r#""status":"healthy""#) && good.contains("us_east"), "{good}");
        assert!(server.get("/ready").await.starts_with("HTTP/1.1 200"));
        shard.unhealthy("segment 17 does not match its hash");
        let bad = server.get("/health").await;
        assert!(bad.starts_with("HTTP/1.1 503"), "{bad}");
        assert!(bad.contains(r#""shard global/0":{"status":"unhealthy","error":"segment 17 does not match its hash"}"#), "{bad}");
        assert!(server.get("/ready").await.starts_with("HTTP/1.1 200"), "its other shards serve");
        assert!(server.get("/metrics").await.starts_with("HTTP/1.1 200"));
        assert!(server.get("/elsewhere").await.starts_with("HTTP/1.1 404"));
        server.stop.send(()).expect("it runs");
        server.task.await.expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn an_oversized_head_and_nonsense_are_refused_and_the_server_goes_on() {
        let health = Health::new("us_east");
        health.component("shard").healthy();
        let server = serve(&health).await;
        let mut request = b"GET /health HTTP/1.1\r\nx: ".to_vec();
        request.resize(4 * HEAD_BYTES_MAX, b'a');
        let answer = server.send(&request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        let answer = server.send(b"\x00\xff\x16\x03\x01\r\n\r\n").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(server.get("/health").await.starts_with("HTTP/1.1 503"), "the dropped handle is a component that died");
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_request_is_cut_off() {
        let server = serve(&Health::new("us_east")).await;
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(b"GET /health HT").await.expect("sent");
        let mut answer = Vec::new();
        let limit = Duration::from_millis(CONNECTION_WAIT_MAX_MS);
        tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await.expect("cut off before the limit").ok();
    }
}
