//! The node's connections as they come in.
//!
//! Bounded in number, of all and of each address, and in the time that they take to begin: what does not say that it speaks HTTP/2 is
//! closed. A connection that does is watched for how it behaves (`conduct`) and closed when that is too much; it may stay without calls
//! for a while (`usage`), and whether its other end lives is asked by HTTP/2's own pings. When none can be accepted,
//! for example because the process has no file descriptor left, the next attempt waits a little.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, stream};
use paymesh_identity::Accepted;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

use crate::{
    Limits, Security,
    addresses::{Addresses, OfAddress},
    conduct::Conduct,
    http2,
    places::{Place, Places},
    usage::Usage,
};

pub(crate) const REFUSED: &str = "paymesh_connections_refused_total";

/// The bytes that every HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// How long to wait after a connection could not be accepted.
const ACCEPT_RETRY_MS: u64 = 100;

/// How often refused connections are logged at most. Each one is counted.
const LOG_EVERY_MS: u64 = 10_000;

/// The connections of a listener, without end.
pub(crate) fn incoming(listener: TcpListener, limits: &Limits, security: Security) -> impl Stream<Item = Connection> + use<> {
    let incoming = Incoming {
        listener,
        security,
        places: Places::new(limits.connections_max),
        addresses: Addresses::new(limits.address_connections_max, Arc::clone(&limits.trusted_networks)),
        limits: limits.clone(),
        refusals: Refusals::default(),
    };
    stream::unfold(incoming, |mut incoming| async move { Some((incoming.next().await, incoming)) })
}

struct Incoming {
    listener: TcpListener,
    security: Security,
    places: Places,
    addresses: Addresses,
    limits: Limits,
    refusals: Refusals,
}

impl Incoming {
    async fn next(&mut self) -> Connection {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.refusals.add("accept", || format!("it could not be accepted: {error}"));
                    sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                    continue;
                }
            };
            let Some(of_address) = self.addresses.take(address.ip()) else {
                let max = self.addresses.max();
                self.refusals.add("address", || format!("there are {max} from {}, the most that one address may have", address.ip()));
                continue;
            };
            let Some(place) = self.places.take() else {
                let max = self.places.max();
                self.refusals.add("limit", || format!("there are {max}, the most there may be"));
                continue;
            };
            // Answers are small and wanted at once. A connection that is gone already shows when it is read.
            let _ = stream.set_nodelay(true);
            let preface = Preface { bytes: PREFACE_BYTES, wait: Box::pin(sleep(self.limits.preface_wait)) };
            let wire = match &self.security {
                Security::Certificates { identity, .. } => Wire::Tls(identity.accept(stream)),
                Security::PlainText => Wire::Plain(stream),
            };
            return Connection {
                wire,
                address,
                preface: Some(preface),
                conduct: Conduct::new(&self.limits),
                usage: Usage::new(),
                refusals: self.refusals.clone(),
                _place: place,
                _of_address: of_address,
            };
        }
    }
}

/// Counts the connections that are refused and closed, and says now and then that there are some. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Refusals {
    /// When one was last logged.
    logged: Arc<Mutex<Option<Instant>>>,
}

impl Refusals {
    fn add(&self, why: &'static str, problem: impl FnOnce() -> String) {
        metrics::counter!(REFUSED, "why" => why).increment(1);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= Duration::from_millis(LOG_EVERY_MS)) {
            *logged = Some(Instant::now());
            tracing::warn!(why, problem = problem(), "connections are refused");
        }
    }
}

/// A connection that has a place, and must begin in time.
pub(crate) struct Connection {
    wire: Wire,
    address: SocketAddr,
    /// None once it has come.
    preface: Option<Preface>,
    conduct: Conduct,
    usage: Usage,
    refusals: Refusals,
    _place: Place,
    _of_address: OfAddress,
}

struct Preface {
    /// Still to come.
    bytes: usize,
    wait: Pin<Box<Sleep>>,
}

/// What carries its bytes.
enum Wire {
    Plain(TcpStream),
    Tls(Accepted),
}

/// Who is at the other end of a request's connection. None: it is in plain text, and nobody knows.
#[derive(Debug, Clone)]
pub(crate) struct OtherEnd(pub(crate) Option<paymesh_identity::Connected>);

/// What every request knows of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Of {
    pub(crate) other: OtherEnd,
    pub(crate) usage: Usage,
    pub(crate) from: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = Of;

    fn connect_info(&self) -> Of {
        let other = match &self.wire {
            Wire::Plain(_) => OtherEnd(None),
            Wire::Tls(accepted) => OtherEnd(Some(accepted.peer())),
        };
        Of { other, usage: self.usage.clone(), from: self.address }
    }
}

impl Connection {
    /// What it is used for.
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    fn poll_wire_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_wire_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_wire_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends it when it has not begun in time. To be asked before anything is read or written: a handshake may wait in either.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.preface.as_mut().is_some_and(|preface| preface.wait.as_mut().poll(cx).is_ready()) {
            return Ok(());
        }
        self.preface = None;
        self.refusals.add("preface", || format!("one from {} did not begin in time", self.address));
        Err(io::Error::new(io::ErrorKind::TimedOut, "the connection did not begin in time"))
    }

    /// Counts, once, a connection in TLS that ends before it has begun: what is read or written first shakes hands.
    fn noted<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let (Poll::Ready(Err(error)), Wire::Tls(_), Some(_)) = (&done, &self.wire, &self.preface) {
            self.preface = None;
            metrics::counter!(REFUSED, "why" => "tls").increment(1);
            tracing::debug!(%error, "a connection ended before it had begun");
        }
        done
    }

    /// Ends it for how it behaves. Its other end is told, where there is room for it on the wire.
    fn closed(&mut self, cx: &mut Context<'_>, why: &'static str) -> io::Error {
        self.refusals.add(why, || {
            let wait = self.conduct.arrival_wait();
            format!(
                "one from {} is closed: too many frames that are no part of a call, or one that was not whole in {wait:?}",
                self.address
            )
        });
        if self.conduct.may_speak() {
            // As far as it goes at once: who does not read is not waited for.
            let _ = self.poll_wire_write(cx, &http2::enhance_your_calm(why));
            let _ = self.poll_wire_flush(cx);
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, why)
    }

    /// Takes note of bytes that went.
    fn went(&mut self, bytes: &[u8]) {
        if let Some(why) = self.conduct.went(bytes) {
            self.refusals.add(why, || format!("one from {} broke the bounds or the rules of HTTP/2", self.address));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.usage.ended();
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Asked first: one byte now and then is no preface either.
        this.in_time(cx)?;
        let before = buffer.filled().len();
        let read = this.poll_wire_read(cx, buffer);
        if read.is_pending() && this.usage.is_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection did not end in time")));
        }
        if read.is_pending() && this.preface.is_none() {
            let why = ready!(this.conduct.poll_slow(cx));
            return Poll::Ready(Err(this.closed(cx, why)));
        }
        ready!(this.noted(read))?;
        let mut came = &buffer.filled()[before..];
        if let Some(preface) = &mut this.preface {
            let of_preface = preface.bytes.min(came.len());
            preface.bytes -= of_preface;
            came = &came[of_preface..];
        }
        this.preface.take_if(|preface| preface.bytes == 0);
        if let Err(why) = this.conduct.came(came, this.usage.party()) {
            return Poll::Ready(Err(this.closed(cx, why)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let written = self.poll_wire_write(cx, bytes);
        let count = ready!(self.noted(written))?;
        self.went(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let written = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        };
        let count = ready!(self.noted(written))?;
        let mut left = count;
        for piece in pieces {
            let of_piece = piece.len().min(left);
            self.went(&piece[..of_piece]);
            left -= of_piece;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        let flushed = self.poll_wire_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener as StdListener, UdpSocket},
        os::fd::OwnedFd,
    };

    use futures::StreamExt as _;
    use paymesh_telemetry::Metrics;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn limits(connections_max: usize) -> Limits {
        Limits { connections_max, preface_wait: Duration::from_millis(200), ..Limits::default() }
    }

    async fn accepted(incoming: &mut (impl Stream<Item = Connection> + Unpin)) -> Connection {
        incoming.next().await.expect("no end")
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_at_once_and_an_ended_one_makes_room() {
        let (recorder, recorded) = Metrics::recorder("us_east").expect("a recorder");
        let _recording = metrics::set_default_local_recorder(&recorder);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut incoming = Box::pin(incoming(listener, &limits(1), Security::PlainText));
        let _first = TcpStream::connect(address).await.expect("a connection");
        let held = accepted(&mut incoming).await;
        let (mut second, mut byte) = (TcpStream::connect(address).await.expect("a connection"), [0]);
        tokio::select! {
            _ = incoming.next() => panic!("there was no place for it"),
            read = second.read(&mut byte) => assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0), "it is closed"),
        }
        assert!(recorded.render().contains(r#"why="limit"} 1"#), "{}", recorded.render());
        drop(held);
        let _third = TcpStream::connect(address).await.expect("a connection");
        accepted(&mut incoming).await;
    }

    #[tokio::test]
    async fn a_listener_that_cannot_accept_is_asked_ten_times_a_second_and_no_more() {
        let (recorder, recorded) = Metrics::recorder("us_east").expect("a recorder");
        let _recording = metrics::set_default_local_recorder(&recorder);
        // A socket that is no listener fails as one does that has no file descriptor left: at once, and every time.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let listener = TcpListener::from_std(StdListener::from(OwnedFd::from(socket))).expect("a socket");
        UdpSocket::bind("127.0.0.1:0").expect("a port").send_to(b"ready", address).expect("sent");
        let mut incoming = Box::pin(incoming(listener, &limits(1), Security::PlainText));
        assert!(tokio::time::timeout(Duration::from_millis(350), incoming.next()).await.is_err());
        let text = recorded.render();
        let line = text.lines().find(|line| line.contains(r#"why="accept""#)).unwrap_or_else(|| panic!("{text}"));
        let failures: u32 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        assert!((1..=4).contains(&failures), "{failures} attempts in 350 ms");
    }
}
