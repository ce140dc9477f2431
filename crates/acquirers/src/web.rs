//! HTTP/1.1 to one acquirer: pooled connections, bounded bodies, a deadline, and how certain a failure is.
//!
//! hyper takes a request's body once it has a connection and writes to it, and not before: it is all about [`Outgoing`], which notes that. A call that ends
//! without that never left. Whatever happens after it leaves nobody the wiser.

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use paymesh_identity::Authorities;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use zeroize::Zeroizing;

use crate::{Class, Failure};

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long a connection that nobody uses is kept. Less than what acquirers and the balancers before them do, most often a minute.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Connections that nobody uses, at most.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long it may take to connect, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A client of one acquirer. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub(crate) struct Web {
    client: Client<Dialer, Outgoing>,
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// An answer's status, and its body as far as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Web {
    /// Of the acquirer at a URL: `http://HOST:PORT` or `https://HOST`, with nothing after it. In https it is believed by those authorities. `headers` go with every request.
    pub(crate) fn new(url: &str, authorities: Option<PathBuf>, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // Parts of a request are written from where they are: the number of a card is not copied once more.
            .http1_writev(true)
            .build(Dialer { authorities });
        Self { client, base: url.trim_end_matches('/').to_owned(), headers }
    }

    /// A URL of the acquirer's, whole.
    pub(crate) fn absolute(&self, url: &str) -> String {
        if url.starts_with('/') { format!("{}{url}", self.base) } else { url.to_owned() }
    }

    /// Asks for something, which changes nothing and says nothing while it fails: its failures are never certain.
    pub(crate) async fn get(&self, path: &str, deadline: Instant) -> Result<Reply, Failure> {
        self.send(Method::GET, path, &[], Outgoing::nothing(), deadline).await
    }

    /// Has something done.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Zeroizing<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        self.send(Method::POST, path, headers, Outgoing::new(body), deadline).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Outgoing,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let sent = Arc::clone(&body.sent);
        // What never left was not done.
        let failed = |class: Class, detail: String| {
            if sent.load(Ordering::Acquire) { Failure::unknown(class, detail) } else { Failure::not_done(class, detail) }
        };
        // A timer is rounded up, and a quick answer on an open connection would come before it.
        if deadline <= Instant::now() {
            return Err(failed(Class::Late, "no time is left".to_owned()));
        }
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header(header::ACCEPT, "application/json");
        for (name, value) in self.headers.iter().chain(headers) {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|_| Failure::not_done(Class::Configuration, "the URL is none"))?;
        let answered = timeout_at(deadline, async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| failed(if error.is_connect() { Class::Unreachable } else { Class::Broken }, words_of(&error)))?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| failed(Class::Malformed, format!("the answer ({}) was cut off or too long", status.as_u16())))?;
            Ok(Reply { status, headers, body: body.to_bytes() })
        });
        answered.await.unwrap_or_else(|_| Err(failed(Class::Timeout, "no answer in time".to_owned())))
    }
}

impl Reply {
    /// The body, where it has the shape that was agreed on.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // The library's words may quote the answer, and that a card's number.
        serde_json::from_slice(&self.body).map_err(|error| {
            let status = self.status.as_u16();
            Failure::unknown(
                Class::Malformed,
                format!(
                    "the answer ({status}, {} bytes) is not what was agreed on: {:?}, line {}",
                    self.body.len(),
                    error.classify(),
                    error.line()
                ),
            )
        })
    }
}

/// What went wrong, without a word of what was sent or answered.
fn words_of(error: &hyper_util::client::legacy::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return format!("{}: {}", if error.is_connect() { "no connection" } else { "the connection broke" }, io.kind());
        }
        source = cause.source();
    }
    if error.is_connect() { "no connection".to_owned() } else { "the connection broke, or what came over it is no HTTP".to_owned() }
}

/// A request's body, which is zeroed once nobody needs it.
pub(crate) struct Outgoing {
    bytes: Option<Bytes>,
    sent: Arc<AtomicBool>,
}

impl Outgoing {
    fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes: Some(Bytes::from_owner(bytes)), sent: Arc::default() }
    }

    fn nothing() -> Self {
        Self { bytes: None, sent: Arc::new(AtomicBool::new(true)) }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.sent.store(true, Ordering::Release);
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Makes connections, in TLS 1.3 where the URL says https.
#[derive(Clone)]
struct Dialer {
    authorities: Option<PathBuf>,
}

impl Dialer {
    async fn dial(self, uri: Uri) -> io::Result<Stream> {
        let other = |text: &str| io::Error::other(text.to_owned());
        let host = uri.host().ok_or_else(|| other("no host"))?.trim_matches(['[', ']']).to_owned();
        let secured = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if !secured {
            return Ok(Stream::Plain(stream));
        }
        // Read for each connection: who is believed may change while we run.
        let file = self.authorities.ok_or_else(|| other("no authorities"))?;
        let authorities = Authorities::load(&file).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Stream::Secured(Box::new(authorities.dial_web(&host, stream).await?)))
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialed = self.clone().dial(uri);
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            Ok(TokioIo::new(tokio::time::timeout(CONNECT_MAX, dialed).await.map_err(late)??))
        })
    }
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secured(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
