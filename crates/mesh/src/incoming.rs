//! The node's connections as they come in.
//!
//! Bounded in number, and in the time that they take to begin: what does not say that it speaks HTTP/2 is closed. A connection
//! that does may stay without calls; whether its other end lives is asked by HTTP/2's own pings. When none can be accepted,
//! for example because the process has no file descriptor left, the next attempt waits a little.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
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
    places::{Place, Places},
};

pub(crate) const REFUSED: &str = "paymesh_connections_refused_total";

/// The bytes that every HTTP/2 client begins with (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// How long to wait after a connection could not be accepted.
const ACCEPT_RETRY_MS: u64 = 100;

/// How often refused connections are logged at most. Each one is counted.
const LOG_EVERY_MS: u64 = 10_000;

/// The connections of a listener, without end.
pub(crate) fn incoming(listener: TcpListener, limits: Limits, security: Security) -> impl Stream<Item = Result<Connection, Infallible>> {
    let incoming =
        Incoming { listener, security, places: Places::new(limits.connections_max), preface_wait: limits.preface_wait, logged: None };
    stream::unfold(incoming, |mut incoming| async move { Some((Ok(incoming.next().await), incoming)) })
}

struct Incoming {
    listener: TcpListener,
    security: Security,
    places: Places,
    preface_wait: Duration,
    /// When a refused connection was last logged.
    logged: Option<Instant>,
}

impl Incoming {
    async fn next(&mut self) -> Connection {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.refused("accept", || format!("it could not be accepted: {error}"));
                    sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                    continue;
                }
            };
            let Some(place) = self.places.take() else {
                let max = self.places.max();
                self.refused("limit", || format!("there are {max}, the most there may be"));
                continue;
            };
            // Answers are small and wanted at once. A connection that is gone already shows when it is read.
            let _ = stream.set_nodelay(true);
            let preface = Preface { bytes: PREFACE_BYTES, wait: Box::pin(sleep(self.preface_wait)) };
            let wire = match &self.security {
                Security::Certificates { identity, .. } => Wire::Tls(identity.accept(stream)),
                Security::PlainText => Wire::Plain(stream),
            };
            return Connection { wire, preface: Some(preface), _place: place };
        }
    }

    fn refused(&mut self, why: &'static str, problem: impl FnOnce() -> String) {
        metrics::counter!(REFUSED, "why" => why).increment(1);
        let due = self.logged.is_none_or(|logged| logged.elapsed() >= Duration::from_millis(LOG_EVERY_MS));
        if due {
            self.logged = Some(Instant::now());
            tracing::warn!(problem = problem(), "connections are refused");
        }
    }
}

/// A connection that has a place, and must begin in time.
pub(crate) struct Connection {
    wire: Wire,
    /// None once it has come.
    preface: Option<Preface>,
    _place: Place,
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

impl Connected for Connection {
    type ConnectInfo = OtherEnd;

    fn connect_info(&self) -> OtherEnd {
        match &self.wire {
            Wire::Plain(_) => OtherEnd(None),
            Wire::Tls(accepted) => OtherEnd(Some(accepted.peer())),
        }
    }
}

impl Connection {
    fn poll_wire_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Ends it when it has not begun in time. To be asked before anything is read or written: a handshake may wait in either.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.preface.as_mut().is_some_and(|preface| preface.wait.as_mut().poll(cx).is_ready()) {
            return Ok(());
        }
        self.preface = None;
        metrics::counter!(REFUSED, "why" => "preface").increment(1);
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
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Asked first: one byte now and then is no preface either.
        this.in_time(cx)?;
        if this.preface.is_none() {
            return this.poll_wire_read(cx, buffer);
        }
        let before = buffer.filled().len();
        let read = this.poll_wire_read(cx, buffer);
        ready!(this.noted(read))?;
        let came = buffer.filled().len() - before;
        if let Some(preface) = &mut this.preface {
            preface.bytes = preface.bytes.saturating_sub(came);
        }
        this.preface.take_if(|preface| preface.bytes == 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let written = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.noted(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let written = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        };
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        let flushed = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
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

    async fn accepted(incoming: &mut (impl Stream<Item = Result<Connection, Infallible>> + Unpin)) -> Connection {
        incoming.next().await.expect("no end").expect("infallible")
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_at_once_and_an_ended_one_makes_room() {
        let (recorder, recorded) = Metrics::recorder("us_east").expect("a recorder");
        let _recording = metrics::set_default_local_recorder(&recorder);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut incoming = Box::pin(incoming(listener, limits(1), Security::PlainText));
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
        let mut incoming = Box::pin(incoming(listener, limits(1), Security::PlainText));
        assert!(tokio::time::timeout(Duration::from_millis(350), incoming.next()).await.is_err());
        let text = recorded.render();
        let line = text.lines().find(|line| line.contains(r#"why="accept""#)).unwrap_or_else(|| panic!("{text}"));
        let failures: u32 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        assert!((1..=4).contains(&failures), "{failures} attempts in 350 ms");
    }
}
