//! What a principal may take of a node: calls begun in a second, and calls in progress.
//!
//! The rate is a token bucket of two seconds' calls, kept as the time at which it would be full again (GCRA), so that it is one number and
//! no task fills it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use paymesh_topology::CallLimits;
use tokio::time::Instant;

/// Calls that may be begun at once are those of so many seconds.
const BURST_SECONDS: u64 = 2;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a principal has taken.
#[derive(Debug)]
pub(crate) struct Taken {
    limits: CallLimits,
    began: Instant,
    /// Nanoseconds from `began` at which the bucket is full again.
    full_at: AtomicU64,
    in_progress: Arc<AtomicUsize>,
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
pub struct InProgress(Arc<AtomicUsize>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why no call may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    Rate(Duration),
    InProgress(u32),
}

impl Taken {
    pub(crate) fn new(limits: CallLimits, now: Instant) -> Self {
        Self { limits, began: now, full_at: AtomicU64::new(0), in_progress: Arc::default() }
    }

    /// Takes a call's part.
    pub(crate) fn begin(&self, now: Instant) -> Result<InProgress, Exhausted> {
        let max = self.limits.calls_in_progress;
        let before = self.in_progress.fetch_add(1, Relaxed);
        let place = InProgress(Arc::clone(&self.in_progress));
        // One too many is given back by being dropped.
        if before >= max as usize {
            return Err(Exhausted::InProgress(max));
        }
        let Some(rate) = self.limits.calls_per_second else { return Ok(place) };
        let each = NANOS_PER_SECOND / u64::from(rate);
        let now = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        let furthest = now.saturating_add(BURST_SECONDS * NANOS_PER_SECOND);
        let next = |full_at: u64| full_at.max(now).saturating_add(each);
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| Some(next(full_at)).filter(|next| *next <= furthest));
        match taken {
            Ok(_) => Ok(place),
            Err(full_at) => Err(Exhausted::Rate(Duration::from_nanos(next(full_at).saturating_sub(furthest)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(calls_per_second: Option<u32>, calls_in_progress: u32, now: Instant) -> Taken {
        Taken::new(CallLimits { calls_per_second, calls_in_progress }, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_allows_two_seconds_calls_at_once_and_then_its_number_in_each() {
        let began = Instant::now();
        let taken = taken(Some(100), u32::MAX, began);
        let burst = (0..1_000).filter(|_| taken.begin(began).is_ok()).count();
        assert_eq!(burst, 200);
        assert_eq!(taken.begin(began).expect_err("none is left"), Exhausted::Rate(Duration::from_millis(10)));
        let mut allowed = 0;
        for step in 1..=1_000 {
            let now = began + Duration::from_millis(step * 10);
            allowed += (0..5).filter(|_| taken.begin(now).is_ok()).count();
        }
        assert_eq!(allowed, 1_000, "ten seconds' calls");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_takes_nothing() {
        let now = Instant::now();
        let taken = taken(Some(1), 1, now);
        let first = taken.begin(now).expect("the first");
        for _ in 0..100 {
            assert_eq!(taken.begin(now).expect_err("one is in progress"), Exhausted::InProgress(1));
        }
        drop(first);
        drop(taken.begin(now).expect("the second of the burst"));
        assert!(matches!(taken.begin(now), Err(Exhausted::Rate(_))));
        drop(taken.begin(now + Duration::from_secs(1)).expect("a second later, and none is in progress"));
    }
}
