//! Records on their way to the writer. Whoever hands one over never waits; the writer takes all that there are.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{Damage, format::put_record};

/// Bytes that are not waited with any longer.
const GROUP_BYTES: usize = 1 << 20;

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something for the writer to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    records: usize,
    /// Records that were ever handed over.
    handed_over: u64,
    /// When the first of those that wait was handed over.
    since: Option<Instant>,
    /// The same of those that are being written.
    writing_since: Option<Instant>,
    /// Somebody waits until they are durable.
    urgent: bool,
    /// What was found to be wrong with the chain.
    damage: Option<Damage>,
    closing: bool,
    ended: bool,
}

/// What the writer has to do.
#[derive(Debug)]
pub(crate) struct Group {
    /// The records, each with its length before it.
    pub(crate) bytes: Vec<u8>,
    /// How many.
    pub(crate) records: usize,
    /// Records that were ever handed over, with these.
    pub(crate) handed_over: u64,
    pub(crate) damage: Option<Damage>,
    /// Nothing comes after these.
    pub(crate) closing: bool,
}

impl Queue {
    /// Hands a record over, and says how many that were; `None` where nobody will write it any more.
    pub(crate) fn push(&self, payload: &[u8], urgent: bool) -> Option<u64> {
        let mut waiting = self.waiting();
        if waiting.ended {
            return None;
        }
        put_record(&mut waiting.bytes, payload);
        waiting.records += 1;
        waiting.handed_over += 1;
        if waiting.since.is_none() {
            waiting.since = Some(Instant::now());
            self.changed.notify_one();
        }
        if urgent && !waiting.urgent || waiting.bytes.len() >= GROUP_BYTES {
            waiting.urgent = true;
            self.changed.notify_one();
        }
        Some(waiting.handed_over)
    }

    /// Waits for something to do, for `idle` at most: for records, until the first of them has waited for `linger`, or somebody waits for one.
    /// `spare` is what the next records are put into.
    pub(crate) fn take(&self, spare: Vec<u8>, linger: Duration, idle: Duration) -> Group {
        let until = Instant::now() + idle;
        let mut waiting = self.waiting();
        loop {
            let due = waiting.since.map_or(until, |since| (since + linger).min(until));
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || waiting.urgent || waiting.closing || waiting.damage.is_some() {
                break;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.urgent = false;
        waiting.writing_since = waiting.since.take();
        Group {
            bytes: std::mem::replace(&mut waiting.bytes, spare),
            records: std::mem::take(&mut waiting.records),
            handed_over: waiting.handed_over,
            damage: waiting.damage.take(),
            closing: waiting.closing,
        }
    }

    /// What was taken is durable.
    pub(crate) fn written(&self) {
        self.waiting().writing_since = None;
    }

    /// How long the oldest record that is not durable has waited.
    pub(crate) fn unsynced_for(&self) -> Option<Duration> {
        let waiting = self.waiting();
        waiting.writing_since.or(waiting.since).map(|since| since.elapsed())
    }

    /// Waits before something is tried again; says whether the log is to close meanwhile.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let waiting = self.waiting();
        let (waiting, _) =
            self.changed.wait_timeout_while(waiting, time, |waiting| !waiting.closing).unwrap_or_else(PoisonError::into_inner);
        waiting.closing
    }

    /// Tells the writer what is wrong with the chain.
    pub(crate) fn found(&self, damage: Damage) {
        self.waiting().damage.get_or_insert(damage);
        self.changed.notify_all();
    }

    /// Has the writer write what there is, and end.
    pub(crate) fn close(&self) {
        self.waiting().closing = true;
        self.changed.notify_all();
    }

    /// Whether the log is to close.
    pub(crate) fn is_closing(&self) -> bool {
        self.waiting().closing
    }

    /// Nobody writes any more. Says how many records were left.
    pub(crate) fn end(&self) -> usize {
        let mut waiting = self.waiting();
        waiting.ended = true;
        std::mem::take(&mut waiting.records)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is a whole record or a number: a panic elsewhere leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
