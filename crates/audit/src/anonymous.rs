//! How many records callers leave whom nobody knows, and edges whose calls are refused.
//!
//! Whoever reaches the port can be refused without end, and each refusal is a record: a few thousand in a second would push what known callers did out of
//! the bytes that a log may have. So there is a record for each of the first, and of what comes faster than that for some in each second; the others
//! are counted, and the log says how many.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two records in the long run: some 200 MB a day.
const EVERY_MS: u64 = 100;
/// Records at once, after nobody came for a while.
const AT_ONCE: u64 = 10_000;

/// Counts them. A bucket that leaks: as GCRA (ITU-T I.371) has it.
#[derive(Debug)]
pub(crate) struct Anonymous {
    began: Instant,
    /// When the bucket would be empty, in milliseconds.
    empty_at: AtomicU64,
    at_once: u64,
    /// Without a record, since the log last said so.
    unrecorded: AtomicU64,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { began: Instant::now(), empty_at: AtomicU64::new(0), at_once: AT_ONCE, unrecorded: AtomicU64::new(0) }
    }
}

impl Anonymous {
    /// Whether one more leaves a record. False: it is counted.
    pub(crate) fn leaves_record(&self) -> bool {
        let leaves = self.has_room(self.began.elapsed());
        if !leaves {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(crate::UNRECORDED).increment(1);
        }
        leaves
    }

    fn has_room(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let filled = |empty_at: u64| {
            let filled = empty_at.max(now) + EVERY_MS;
            (filled - now <= self.at_once * EVERY_MS).then_some(filled)
        };
        self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled).is_ok()
    }

    /// How many were counted since this was last asked.
    pub(crate) fn take_unrecorded(&self) -> u64 {
        self.unrecorded.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_leave_records_at_once_and_after_that_one_now_and_then() {
        let anonymous = Anonymous { at_once: 5, ..Anonymous::default() };
        let at = |ms| Duration::from_millis(ms);
        let recorded = |ms| (0..100).filter(|_| anonymous.has_room(at(ms))).count();
        assert_eq!([recorded(0), recorded(0), recorded(99), recorded(100), recorded(100)], [5, 0, 0, 1, 0]);
        assert_eq!([recorded(350), recorded(400), recorded(10_000), recorded(10_000)], [2, 1, 5, 0]);
    }
}
