//! Whether a connection is of use: calls are, and nothing else is.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::Context,
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::places::Places;

/// Health checks of a connection in progress at most. Each is answered at once, so that only who does not end their requests has more.
const CHECKS_MAX: usize = 8;

/// Whose calls come over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// Callers', or nobody's yet.
    Anybody,
    /// An edge's.
    Edge,
    /// A node's.
    Node,
}

/// What a connection is used for. Cheap to clone; all clones are of the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Calls in progress.
    calls: AtomicUsize,
    /// When the last call began or ended, in milliseconds from the beginning.
    last_ms: AtomicU64,
    /// A [`Party`], by its number.
    of: AtomicU8,
    /// It is to end now.
    cut: AtomicBool,
    /// For health checks, of which whoever is at the other end may have so many in progress.
    checks: Places,
    /// Who reads the connection, and wants to hear of that.
    reader: AtomicWaker,
    gone: CancellationToken,
}

impl Usage {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            began: Instant::now(),
            calls: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
            of: AtomicU8::new(Party::Anybody as u8),
            cut: AtomicBool::new(false),
            checks: Places::new(CHECKS_MAX),
            reader: AtomicWaker::new(),
            gone: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A call begins. It lasts until what is returned is dropped.
    pub(crate) fn call(&self) -> InCall {
        self.inner.calls.fetch_add(1, AcqRel);
        InCall(Arc::clone(&self.inner))
    }

    /// The connection's own places for health checks.
    pub(crate) fn checks(&self) -> &Places {
        &self.inner.checks
    }

    /// Whose calls came over it: the most that one of them proved.
    pub(crate) fn party(&self) -> Party {
        match self.inner.of.load(Relaxed) {
            of if of == Party::Node as u8 => Party::Node,
            of if of == Party::Edge as u8 => Party::Edge,
            _ => Party::Anybody,
        }
    }

    /// A call of this party's came over it.
    pub(crate) fn is_of(&self, party: Party) {
        if self.party() < party {
            self.inner.of.fetch_max(party as u8, Relaxed);
        }
    }

    /// Ends once there has been no call for so long.
    pub(crate) async fn idle(&self, wait: Duration) {
        loop {
            let quiet = match self.inner.calls.load(Acquire) {
                0 => self.inner.now_ms().saturating_sub(self.inner.last_ms.load(Acquire)),
                _ => 0,
            };
            match wait.checked_sub(Duration::from_millis(quiet)) {
                None | Some(Duration::ZERO) => return,
                Some(left) => sleep(left).await,
            }
        }
    }

    /// Has the connection end now, whatever its other end thinks of it.
    pub(crate) fn cut(&self) {
        self.inner.cut.store(true, Release);
        self.inner.reader.wake();
    }

    /// Whether the connection is to end now. Whoever asks hears of it later, too.
    pub(crate) fn is_cut(&self, cx: &mut Context<'_>) -> bool {
        self.inner.reader.register(cx.waker());
        self.inner.cut.load(Acquire)
    }

    /// Ends once the connection does.
    pub(crate) async fn gone(&self) {
        self.inner.gone.cancelled().await;
    }

    /// The connection has ended.
    pub(crate) fn ended(&self) {
        self.inner.gone.cancel();
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct InCall(Arc<Inner>);

impl Drop for InCall {
    fn drop(&mut self) {
        // Noted before the call is gone: who finds none in progress finds when the last one was.
        self.0.last_ms.store(self.0.now_ms(), Release);
        self.0.calls.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_its_last_call_ended_so_long_ago() {
        let (usage, began) = (Usage::new(), Instant::now());
        usage.idle(WAIT).await;
        assert_eq!(began.elapsed(), WAIT, "one without any call");

        let (usage, began) = (Usage::new(), Instant::now());
        let stream = usage.call();
        assert!(timeout(10 * WAIT, usage.idle(WAIT)).await.is_err(), "a stream goes on");
        advance(Duration::from_secs(7)).await;
        drop(usage.call());
        drop(stream);
        usage.idle(WAIT).await;
        assert_eq!(began.elapsed(), 11 * WAIT + Duration::from_secs(7));
    }
}
