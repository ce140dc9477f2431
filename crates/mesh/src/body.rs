//! Bodies and whole answers that the layers put together: faults, replayed requests, answers that are watched or cut off.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use paymesh_contract::Fault;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status, body::Body};

use crate::{frame, layers};

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

/// A request's body whose first message must be whole in time.
pub(crate) struct Prompt {
    inner: Body,
    /// None once there is nothing to wait for.
    awaited: Option<Awaited>,
}

struct Awaited {
    progress: frame::Progress,
    wait: Duration,
    until: Instant,
    /// Made at the first wait: most requests are whole when they begin.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Prompt {
    pub(crate) fn body(inner: Body, wait: Duration) -> Body {
        if inner.is_end_stream() {
            return inner;
        }
        let awaited = Awaited { progress: frame::Progress::default(), wait, until: Instant::now() + wait, sleep: None };
        Body::new(Self { inner, awaited: Some(awaited) })
    }
}

impl http_body::Body for Prompt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        let Some(awaited) = &mut this.awaited else { return polled };
        let Poll::Ready(frame) = polled else {
            let sleep = awaited.sleep.get_or_insert_with(|| Box::pin(sleep_until(awaited.until)));
            ready!(sleep.as_mut().poll(cx));
            let fault = layers::arrival::stalled(awaited.wait);
            this.awaited = None;
            this.inner = Body::empty();
            return Poll::Ready(Some(Err(fault.into())));
        };
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
        if data.is_none_or(|data| awaited.progress.add(data)) {
            this.awaited = None;
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

/// Calls `on_end` once with the call's outcome: at its trailers, or CANCELLED when the answer is dropped before.
pub(crate) fn observe(response: Response<Body>, on_end: impl FnOnce(Code) + Send + 'static) -> Response<Body> {
    if let Some(code) = code_in(response.headers()) {
        on_end(code);
        return response;
    }
    if response.body().is_end_stream() {
        on_end(Code::Unknown);
        return response;
    }
    response.map(|inner| Body::new(Observed { inner, on_end: Some(on_end) }))
}

struct Observed<F: FnOnce(Code)> {
    inner: Body,
    on_end: Option<F>,
}

impl<F: FnOnce(Code)> Observed<F> {
    fn end(&mut self, code: Code) {
        if let Some(on_end) = self.on_end.take() {
            on_end(code);
        }
    }
}

impl<F: FnOnce(Code)> Drop for Observed<F> {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

// The closure is never pinned.
impl<F: FnOnce(Code)> Unpin for Observed<F> {}

impl<F: FnOnce(Code)> http_body::Body for Observed<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(code_in(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => self.end(status.code()),
            None => self.end(Code::Unknown),
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
