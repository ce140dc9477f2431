//! How many calls are made again: a share of those that are made, so that gateways in trouble are not given several times their load. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A retry, in the units of the budget.
const RETRY: u64 = 1000;
/// Of how many calls, and of how many seconds, what was not spent is kept.
const CALLS_KEPT: u64 = 500;
const SECONDS_KEPT: u64 = 2;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Retries for a hundred calls: 0 to 100.
    pub percent: u32,
    /// And so many a second in any case.
    pub per_second: u32,
}

/// What is left for retries.
#[derive(Debug)]
pub struct Budget {
    settings: BudgetSettings,
    left: u64,
    /// Up to when what comes with the time has been added.
    at: Instant,
}

impl Budget {
    /// One that has what comes in a second.
    pub fn new(settings: BudgetSettings, now: Instant) -> Self {
        Self { settings, left: u64::from(settings.per_second) * RETRY, at: now }
    }

    /// A call is made for the first time.
    pub fn earn(&mut self, now: Instant) {
        self.refill(now);
        self.add(u64::from(self.settings.percent) * RETRY / 100);
    }

    /// Whether a call may be made again; then it is paid for.
    pub fn spend(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.left.checked_sub(RETRY) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        // In steps of a millisecond, in which no fraction of a retry is lost.
        let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).min(SECONDS_KEPT * 1000);
        if ms > 0 {
            self.at = if ms == SECONDS_KEPT * 1000 { now } else { self.at + Duration::from_millis(ms) };
            self.add(ms * u64::from(self.settings.per_second) * RETRY / 1000);
        }
    }

    fn add(&mut self, more: u64) {
        let most = (CALLS_KEPT * u64::from(self.settings.percent) / 100 + SECONDS_KEPT * u64::from(self.settings.per_second)) * RETRY;
        self.left = self.left.saturating_add(more).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &mut Budget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn retries_are_a_share_of_the_calls_and_some_in_any_case() {
        let start = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 20, per_second: 10 }, start);
        assert_eq!(spent(&mut budget, start), 10, "what comes in a second");
        (0..50).for_each(|_| budget.earn(start));
        assert_eq!(spent(&mut budget, start), 10, "a fifth");
        assert_eq!(spent(&mut budget, start + Duration::from_millis(500)), 5, "with the time");
        assert_eq!(spent(&mut budget, start + Duration::from_secs(3600)), 20, "not saved up for ever");
        (0..1_000_000).for_each(|_| budget.earn(start + Duration::from_secs(3600)));
        assert_eq!(spent(&mut budget, start + Duration::from_secs(3600)), 120, "nor are those of calls");
    }

    #[test]
    fn none_is_none() {
        let start = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 0, per_second: 0 }, start);
        (0..1000).for_each(|_| budget.earn(start));
        assert_eq!(spent(&mut budget, start + Duration::from_secs(60)), 0);
    }
}
