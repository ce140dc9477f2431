//! Copies of a leader's journal in other regions, beside PostgreSQL's logical replication of the same rows.
//!
//! What a follower costs its leader, how late it is, how fast it catches up, and what goes over the wire.

mod catch_up;
mod lag;
mod pack;
mod rate;
mod wire;

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    lab::Lab,
    load::Mode,
    options::{ReplicationOptions, Section},
    peers::postgres::Pair,
    report::{Wanted, median},
};
use pack::Pack;

/// Names of sides.
const OURS: &str = "paymesh";
const THEIRS: &str = "PostgreSQL";

/// What is the same for all parts.
struct Run<'a> {
    lab: &'a mut Lab,
    options: &'a ReplicationOptions,
    accounts: u64,
    /// Payments of a batch where commits are counted, and where lags are.
    batch: usize,
    lag_batch: usize,
}

/// What one side reaches alone.
#[derive(Debug, Clone, Copy)]
struct Alone {
    /// Payments a second.
    payments: f64,
    /// Entries of journals a second; 0 where there are none.
    entries: f64,
}

impl Alone {
    /// Half of its payments a second.
    fn half(self) -> u64 {
        // A rate is a few million at most.
        (self.payments / 2.0) as u64
    }
}

/// Runs the parts that are wanted.
pub(crate) async fn run(lab: &mut Lab, options: &ReplicationOptions) -> anyhow::Result<()> {
    ensure!(options.followers.contains(&0), "--followers needs 0, the leader alone: the others are compared with it");
    let (accounts, batch) = (lab.common.few(), lab.common.batch.first().copied().unwrap_or(1));
    let lag_batch = lab.common.batch.last().copied().unwrap_or(batch);
    let mut run = Run { lab, options, accounts, batch, lag_batch };
    let ours = run.rates().await?;
    let mut pair = if options.without_postgres { None } else { Some(Pair::start(run.lab, accounts).await?) };
    let theirs = match &mut pair {
        Some(pair) => Some(run.postgres_rates(pair).await?),
        None => None,
    };
    if run.wants(Section::Lag) {
        run.lags(ours, pair.as_mut().zip(theirs)).await?;
    }
    if run.wants(Section::CatchUp) {
        run.catch_ups(ours, pair.as_mut().zip(theirs)).await?;
    }
    if run.wants(Section::Wire) {
        run.bytes(pair.as_mut()).await?;
    }
    Ok(())
}

impl Run<'_> {
    fn wants(&self, section: Section) -> bool {
        self.options.sections.is_empty() || self.options.sections.contains(&section)
    }

    fn rounds(&self) -> usize {
        self.lab.common.rounds
    }

    /// The largest batches, as many in flight as are asked for.
    fn closed(&self) -> Mode {
        self.lab.common.stream()
    }

    /// The small batches at their times.
    fn paced(&self, rate: u64) -> Mode {
        Mode::Paced { batch: self.lag_batch, rate }
    }

    /// When a run that begins now is warm, and when it ends.
    fn times(&self) -> (Instant, Instant) {
        let warm = Instant::now() + Duration::from_millis(self.lab.common.warm_up_ms());
        (warm, warm + Duration::from_millis(self.lab.common.measure_ms()))
    }

    fn bar(&mut self, name: &str, measured: &[f64], wanted: Wanted) {
        self.lab.report.bar(name, median(measured), wanted);
    }
}
