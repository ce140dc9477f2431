//! Which faults happen when: drawn from a seed, before anything runs.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Between the beginnings of two faults, in milliseconds.
const APART_MS: std::ops::Range<u64> = 200..2_000;
/// How long the longest outages last: longer than connections live that get no answer (10 seconds).
const LONG_MS: std::ops::Range<u64> = 10_000..16_000;
/// One of so many cuts and pauses is a long one, where there is time for it.
const LONG_ONE_OF: u32 = 8;

/// A fault, and when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) what: What,
}

/// What goes wrong. Regions are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Nothing gets through between two.
    Cut(usize, usize),
    /// Nothing gets through from the first to the second.
    CutOneWay(usize, usize),
    /// Only so many bytes a second get through between two.
    Slow(usize, usize, u64),
    /// The process stands still: SIGSTOP, and at the end SIGCONT.
    Pause(usize),
    /// kill -9, and at the end a new start.
    Kill(usize),
}

impl What {
    /// What cannot have two faults at the same time: a node, or a pair of regions.
    fn target(self) -> (usize, usize) {
        match self {
            Self::Cut(one, other) | Self::CutOneWay(one, other) | Self::Slow(one, other, _) => (one.min(other), one.max(other)),
            Self::Pause(region) | Self::Kill(region) => (region, region),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ms for {:>5} ms: {:?}", self.at.as_millis(), self.lasts.as_millis(), self.what)
    }
}

/// Between two faults of one thing: each ends by a timer of its own, and a node that is let go of after it was killed is not there.
const BETWEEN: Duration = Duration::from_millis(500);

/// The faults of so much time, in the order in which they begin. All are over when the time is.
pub(crate) fn draw(seed: u64, regions: usize, time: Duration) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults: Vec<Fault> = Vec::new();
    let mut at = Duration::from_millis(random.random_range(APART_MS));
    while at < time {
        let one = random.random_range(0..regions);
        let other = (one + random.random_range(1..regions)) % regions;
        let (what, lasts_ms) = match random.random_range(0..20) {
            0..5 => (What::Cut(one, other), 300..5_000),
            5..10 => (What::CutOneWay(one, other), 300..5_000),
            10..13 => (What::Slow(one, other, random.random_range(20_000..200_000)), 2_000..6_000),
            13..16 => (What::Pause(one), 300..4_000),
            _ => (What::Kill(one), 100..3_000),
        };
        let long = random.random_ratio(1, LONG_ONE_OF) && !matches!(what, What::Slow(..));
        let lasts = Duration::from_millis(random.random_range(if long { LONG_MS } else { lasts_ms }));
        let busy = faults.iter().any(|fault| fault.what.target() == what.target() && fault.at + fault.lasts + BETWEEN >= at);
        if !busy && at + lasts <= time {
            faults.push(Fault { at, lasts, what });
        }
        at += Duration::from_millis(random.random_range(APART_MS));
    }
    faults
}

#[test]
fn a_plan_has_every_kind_of_fault_and_no_two_of_one_thing_at_the_same_time() {
    for seed in 0..50 {
        let time = Duration::from_secs(300);
        let plan = draw(seed, 4, time);
        assert_eq!(plan, draw(seed, 4, time), "a seed gives one plan");
        for kind in [
            |what| matches!(what, What::Cut(..)),
            |what| matches!(what, What::CutOneWay(..)),
            |what| matches!(what, What::Slow(..)),
            |what| matches!(what, What::Pause(_)),
            |what: What| matches!(what, What::Kill(_)),
        ] {
            assert!(plan.iter().any(|fault| kind(fault.what)), "seed {seed}: {plan:?}");
        }
        for (number, fault) in plan.iter().enumerate() {
            assert!(fault.at + fault.lasts <= time);
            let overlaps = |other: &&Fault| other.what.target() == fault.what.target() && other.at <= fault.at + fault.lasts + BETWEEN;
            assert_eq!(plan[number + 1..].iter().find(overlaps), None, "seed {seed}: {fault}");
        }
    }
}
