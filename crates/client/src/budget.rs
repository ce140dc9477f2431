//! How many retries there may be: a share of the calls, so that a mesh in trouble is not given several times its load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a retry costs.
const RETRY_COST: u64 = 100;
/// What a call adds: one retry for five calls.
const CALL_GAIN: u64 = 20;
/// What there is at first: retries of a client that has just begun.
const AT_FIRST: u64 = 20 * RETRY_COST;
/// What there can be.
const MOST: u64 = 100 * RETRY_COST;

#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU64::new(AT_FIRST))
    }
}

impl Budget {
    /// A call is made.
    pub(crate) fn earn(&self) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |left| (left < MOST).then_some((left + CALL_GAIN).min(MOST)));
    }

    /// Whether there may be another retry; then it is paid for.
    pub(crate) fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(RETRY_COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_calls_once_what_there_was_at_first_is_used_up() {
        let budget = Budget::default();
        let spent = |calls: u64| {
            (0..calls).for_each(|_| budget.earn());
            (0..10_000).take_while(|_| budget.spend()).count()
        };
        assert_eq!(spent(0), 20);
        assert_eq!(spent(4), 0);
        assert_eq!(spent(1), 1);
        assert_eq!(spent(1_000_000), 100, "they are not saved up for ever");
    }
}
