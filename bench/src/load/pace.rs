//! When calls begin: as soon as others have ended, or each at its time.

use std::{
    cell::RefCell,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::client::Meter;

/// Calls of a timed load in flight at most. What is due beyond them waits, and its time runs.
const TIMED_IN_FLIGHT_MAX: usize = 4_096;

/// When calls begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// One for each that has ended.
    Closed {
        /// Calls in flight.
        in_flight: usize,
    },
    /// Each at its time, evenly spaced.
    Timed {
        /// Payments a second.
        rate: u64,
    },
}

impl Pace {
    /// As it is said in tables: `64`, `at 200/s`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Closed { in_flight } => in_flight.to_string(),
            Self::Timed { rate } => format!("at {rate}/s"),
        }
    }

    /// Makes calls until the meter says stop, and waits for the last. The time of a timed call runs from when it was due: a client or a server that falls
    /// behind does not look faster for it.
    pub(super) async fn run(self, meter: Meter, call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<Meter> {
        let meter = RefCell::new(meter);
        match self {
            Self::Closed { in_flight } => closed(in_flight, &meter, call).await?,
            Self::Timed { rate } => timed(rate, &meter, call).await?,
        }
        Ok(meter.into_inner())
    }
}

async fn closed(in_flight: usize, meter: &RefCell<Meter>, call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    ensure!(in_flight > 0, "at least one call must be in flight");
    let lane = async || {
        loop {
            let began = Instant::now();
            call().await?;
            if !meter.borrow_mut().answer(began, 1) {
                return Ok(());
            }
        }
    };
    try_join_all((0..in_flight).map(|_| lane())).await.map(drop)
}

async fn timed(rate: u64, meter: &RefCell<Meter>, call: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    ensure!(rate > 0, "a rate of nothing a second has no calls");
    let (sender, mut turns) = mpsc::channel(1);
    let (every, stop_at) = (Duration::from_secs(1).div_f64(rate as f64), meter.borrow().stop_at);
    // The runtime's timers are good to a millisecond, which is as long as a call.
    let clock = spawn_blocking(move || tick(every, stop_at, &sender));
    let one = async |due| {
        call().await?;
        meter.borrow_mut().answer(due, 1);
        anyhow::Ok(())
    };
    let (mut calls, mut ticking) = (FuturesUnordered::new(), true);
    loop {
        tokio::select! {
            Some(ended) = calls.next(), if !calls.is_empty() => ended?,
            turn = turns.recv(), if ticking && calls.len() < TIMED_IN_FLIGHT_MAX => match turn {
                Some(due) => calls.push(one(due)),
                None => ticking = false,
            },
            else => break,
        }
    }
    clock.await.context("the clock of the calls was cut off")
}

/// Says when calls are due, until there are none or nobody listens.
fn tick(every: Duration, stop_at: Instant, turns: &mpsc::Sender<Instant>) {
    let mut due = Instant::now();
    while due < stop_at {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if turns.blocking_send(due).is_err() {
            return;
        }
        due += every;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn meter(measure: Duration) -> Meter {
        Meter::new(Duration::ZERO, measure).expect("a meter")
    }

    #[tokio::test]
    async fn timed_calls_are_as_many_as_the_rate_says_and_wait_from_when_they_are_due() {
        let calls = Cell::new(0_u64);
        // The second call holds the thread up, so that those after it begin late.
        let call = async || {
            calls.set(calls.get() + 1);
            if calls.get() == 2 {
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        };
        let meter = Pace::Timed { rate: 100 }.run(meter(Duration::from_millis(300)), call).await.expect("no call fails");
        let report = meter.report().expect("a report");
        assert_eq!((calls.get(), report.answered), (30, 30));
        // Twenty of thirty were due meanwhile. With clocks that start with the calls, all but one would be short.
        assert!(report.p50_us >= 10_000 && report.max_us >= 200_000, "{report:?}");
    }

    #[tokio::test]
    async fn a_closed_loop_has_as_many_in_flight_and_no_more() {
        let (now, most) = (Cell::new(0), Cell::new(0));
        let call = async || {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.set(now.get() - 1);
            Ok(())
        };
        Pace::Closed { in_flight: 7 }.run(meter(Duration::from_millis(50)), call).await.expect("no call fails");
        assert_eq!((now.get(), most.get()), (0, 7));
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_the_run() {
        for pace in [Pace::Closed { in_flight: 2 }, Pace::Timed { rate: 100 }] {
            let failed = pace.run(meter(Duration::from_secs(60)), async || anyhow::bail!("no")).await;
            assert!(failed.is_err(), "{pace:?}");
        }
    }
}
