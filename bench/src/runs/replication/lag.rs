//! How late a follower is at half of its leader's load.

use std::time::Duration;

use anyhow::ensure;

use super::{Alone, OURS, Pack, Run, THEIRS};
use crate::{peers::postgres::Pair, report::Wanted, watch::Lag};

/// How late a copy may be over the link's own delay, which is none here, in milliseconds.
const LAG_P99_MS_MAX: f64 = 25.0;

/// How long what is on its way may take when the load has ended.
const GIVE_UP: Duration = Duration::from_secs(300);

impl Run<'_> {
    /// Each side at half of its own rate, and at half of the other's.
    pub(super) async fn lags(&mut self, ours: Alone, mut theirs: Option<(&mut Pair, Alone)>) -> anyhow::Result<()> {
        let mut pack = Pack::start(self.lab, "lag", 1, self.accounts).await?;
        let (mut p99, mut against) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds() {
            let (stored, readable) = self.lag(&mut pack, ours.half(), "half of its own rate").await?;
            p99.push(stored.ms(0.99));
            let Some((pair, alone)) = &mut theirs else { continue };
            let visible = self.postgres_lag(pair, alone.half(), "half of its own rate").await?;
            against.push([stored.ms(0.99) / visible.ms(0.99), readable.ms(0.99) / visible.ms(0.99)]);
            self.lag(&mut pack, alone.half(), "half of PostgreSQL's rate").await?;
            self.postgres_lag(pair, ours.half(), "half of paymesh's rate").await?;
        }
        self.bar("lag p99 ms at half load, stored", &p99, Wanted::AtMost(LAG_P99_MS_MAX));
        if against.is_empty() {
            return Ok(());
        }
        for (name, index) in [("stored", 0), ("readable", 1)] {
            let name = format!("lag p99 at half load: paymesh, {name} / PostgreSQL, visible");
            let rounds: Vec<f64> = against.iter().map(|both| both[index]).collect();
            self.lab.report.ratio(&name, rounds.clone());
            self.bar(&name, &rounds, Wanted::AtMost(1.0));
        }
        Ok(())
    }

    async fn lag(&mut self, pack: &mut Pack, rate: u64, what: &str) -> anyhow::Result<(Lag, Lag)> {
        let case = format!("{OURS}, {what}");
        let mut watch = pack.watch().await?;
        let (warm, end) = self.times();
        let (mode, accounts) = (self.paced(rate), self.accounts);
        let time = Duration::from_millis(self.lab.common.warm_up_ms() + self.lab.common.measure_ms());
        let (paid, lags) = tokio::join!(self.lab.pay(&pack.leader[0], accounts, mode, time), watch.lags(warm, end, GIVE_UP));
        let (paid, (stored, readable)) = (paid?, lags?);
        ensure!(stored.count() > 0, "nothing was committed while lags were measured");
        self.note(&case, paid.rate, &[("stored", &stored), ("readable", &readable)]);
        pack.current().await?;
        Ok((stored, readable))
    }

    async fn postgres_lag(&mut self, pair: &mut Pair, rate: u64, what: &str) -> anyhow::Result<Lag> {
        let case = format!("{THEIRS}, {what}");
        let mut load = pair.load(self.accounts, self.lab.seed()).await?;
        let (warm, end) = self.times();
        let (paid, visible) = pair.lags(load.pay(self.lag_batch, Some(rate), warm, end), warm).await?;
        ensure!(visible.count() > 0, "nothing was committed while lags were measured");
        self.note(&case, paid.rate, &[("visible", &visible)]);
        Ok(visible)
    }

    fn note(&mut self, case: &str, rate: f64, lags: &[(&str, &Lag)]) {
        let report = &mut self.lab.report;
        report.figure(case, "payments/s", rate);
        for (what, lag) in lags {
            report.figure(case, &format!("committed to {what}, p50 ms"), lag.ms(0.5));
            report.figure(case, &format!("committed to {what}, p99 ms"), lag.ms(0.99));
        }
    }
}
