//! Bodies and whole answers that the layers put together: faults, replayed requests, answers that are watched or cut off.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use paymesh_contract::Fault;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status, body::Body};

use crate::{
    frame, layers,
    patience::Patience,
    places::{Held, Room},
};

/// The header or trailer that holds a call's outcome.
const STATUS_HEADER: &str = "grpc-status";

/// A fault as a whole answer.
pub(crate) fn reply(fault: Fault) -> Response<Body> {
    Status::from(fault).into_http()
}

/// A fault as the end of an answer that has begun.
fn trailers(fault: Fault) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    if Status::from(fault).add_header(&mut headers).is_err() {
        // A message or detail that is no header value; the code alone always is one.
        headers = HeaderMap::from_iter([(http::HeaderName::from_static(STATUS_HEADER), HeaderValue::from(Code::Internal as i32))]);
    }
    Frame::trailers(headers)
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS_HEADER).map(|code| Code::from_bytes(code.as_bytes()))
}

/// A request's body whose beginning was read already.
pub(crate) struct Replay {
    read: Option<Bytes>,
    rest: Body,
}

impl Replay {
    pub(crate) fn body(read: Bytes, rest: Body) -> Body {
        Body::new(Self { read: Some(read).filter(|read| !read.is_empty()), rest })
    }
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// A request's body whose messages must be plain, no larger than one may be, and whole in time.
pub(crate) struct Prompt {
    /// None once it was broken off.
    inner: Option<Body>,
    /// The method takes one message: its end is waited for too, and nothing else may come.
    single: bool,
    /// The end has come.
    ended: bool,
    progress: frame::Progress,
    patience: Patience,
    held: Held,
    broken_off: Arc<OnceLock<Fault>>,
}

impl Prompt {
    /// `broken_off` is told why, when it is.
    pub(crate) fn body(inner: Body, single: bool, wait: Duration, room: &Room, broken_off: Arc<OnceLock<Fault>>) -> Body {
        let (progress, patience, held) = (frame::Progress::default(), Patience::new(wait), room.holder());
        Body::new(Self { inner: Some(inner), single, ended: false, progress, patience, held, broken_off })
    }

    /// Whether something has begun that is not whole.
    fn awaits(&self) -> bool {
        !self.ended && (self.single || self.progress.whole() == 0 || self.progress.begun_bytes() > 0)
    }

    /// Takes note of what came.
    fn take(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.progress.add(data)?;
        let (whole, begun) = (self.progress.whole(), self.progress.begun_bytes());
        if self.single && (whole > 1 || (whole == 1 && begun > 0)) {
            return Err(frame::more_than_one());
        }
        if self.held.hold(begun) { Ok(()) } else { Err(layers::arrival::no_room(self.held.room().bytes_max())) }
    }

    fn break_off(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // What came of it is let go of now, whoever keeps the rest.
        (self.inner, self.ended) = (None, true);
        self.held.hold(0);
        let _ = self.broken_off.set(fault.clone());
        Poll::Ready(Some(Err(fault.into())))
    }
}

impl http_body::Body for Prompt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            if !this.awaits() {
                return Poll::Pending;
            }
            ready!(this.patience.poll_spent(cx));
            let fault = layers::arrival::stalled(this.patience.wait(), this.progress.whole() > 0 && !this.single);
            return this.break_off(fault);
        };
        this.patience.came();
        match frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            Some(data) => {
                if let Err(fault) = this.take(data) {
                    return this.break_off(fault);
                }
            }
            // Trailers, the end, or what broke it.
            None => this.ended = true,
        }
        if !this.awaits() {
            this.patience.renew();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Calls `on_end` once with the call's outcome, and the headers or trailers that say it: at its trailers, or CANCELLED when the answer is
/// dropped before.
pub(crate) fn observe(response: Response<Body>, on_end: impl FnOnce(Code, Option<&HeaderMap>) + Send + 'static) -> Response<Body> {
    if let Some(code) = code_in(response.headers()) {
        on_end(code, Some(response.headers()));
        return response;
    }
    if response.body().is_end_stream() {
        on_end(Code::Unknown, None);
        return response;
    }
    response.map(|inner| Body::new(Observed { inner, on_end: Some(on_end) }))
}

struct Observed<F: FnOnce(Code, Option<&HeaderMap>)> {
    inner: Body,
    on_end: Option<F>,
}

impl<F: FnOnce(Code, Option<&HeaderMap>)> Observed<F> {
    fn end(&mut self, code: Code, said_in: Option<&HeaderMap>) {
        if let Some(on_end) = self.on_end.take() {
            on_end(code, said_in);
        }
    }
}

impl<F: FnOnce(Code, Option<&HeaderMap>)> Drop for Observed<F> {
    fn drop(&mut self) {
        self.end(Code::Cancelled, None);
    }
}

// The closure is never pinned.
impl<F: FnOnce(Code, Option<&HeaderMap>)> Unpin for Observed<F> {}

impl<F: FnOnce(Code, Option<&HeaderMap>)> http_body::Body for Observed<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(code_in(trailers).unwrap_or(Code::Unknown), Some(trailers));
                }
            }
            Some(Err(status)) => self.end(status.code(), None),
            None => self.end(Code::Unknown, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer that ends at its deadline, or when something ends it, if it has not ended by itself.
pub(crate) struct Bounded {
    inner: Body,
    deadline: Option<Instant>,
    /// Made at the first wait: most answers are whole when they begin.
    sleep: Option<Pin<Box<Sleep>>>,
    stop: Option<End>,
    ended: bool,
}

/// Ends an answer when it is ready, and says why.
pub(crate) type End = Pin<Box<dyn Future<Output = Fault> + Send>>;

impl Bounded {
    pub(crate) fn body(inner: Body, deadline: Option<Instant>, stop: Option<End>) -> Body {
        if inner.is_end_stream() || (deadline.is_none() && stop.is_none()) {
            return inner;
        }
        Body::new(Self { inner, deadline, sleep: None, stop, ended: false })
    }

    /// Why the answer must end now, if it must.
    fn end(&mut self, cx: &mut Context<'_>) -> Option<Fault> {
        if let Some(deadline) = self.deadline {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.as_mut().poll(cx).is_ready() {
                return Some(layers::deadline::exceeded());
            }
        }
        match self.stop.as_mut()?.as_mut().poll(cx) {
            Poll::Ready(fault) => Some(fault),
            Poll::Pending => None,
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // A stream that always has something to say is asked too.
        let endless = self.stop.is_some();
        if !endless && let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if let Some(fault) = self.end(cx) {
            self.ended = true;
            self.inner = Body::empty();
            return Poll::Ready(Some(Ok(trailers(fault))));
        }
        if endless { Pin::new(&mut self.inner).poll_frame(cx) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer from a peer: a connection that breaks in its middle becomes a status that says so.
pub(crate) struct FromPeer<F> {
    inner: Body,
    on_break: Option<F>,
}

impl<F: FnOnce(Status) -> Fault + Send + 'static> FromPeer<F> {
    pub(crate) fn body(inner: Body, on_break: F) -> Body {
        Body::new(Self { inner, on_break: Some(on_break) })
    }
}

// The closure is never pinned.
impl<F> Unpin for FromPeer<F> {}

impl<F: FnOnce(Status) -> Fault> http_body::Body for FromPeer<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.on_break.is_none() {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Err(status)) => match self.on_break.take() {
                Some(on_break) => Poll::Ready(Some(Ok(trailers(on_break(status))))),
                None => Poll::Ready(None),
            },
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.on_break.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
