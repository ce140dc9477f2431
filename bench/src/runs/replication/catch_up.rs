//! How fast a follower catches up that was away, while its leader serves at half load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Alone, OURS, Pack, Run, THEIRS};
use crate::{peers::postgres::Pair, report::Wanted, watch::Place};

/// Entries caught up a second, of those that the leader commits a second when it is alone.
const TIMES_MIN: f64 = 3.0;

/// Who is behind by no more than what is committed in so long has caught up.
const CLOSE: Duration = Duration::from_millis(250);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long catching up may take.
const GIVE_UP: Duration = Duration::from_secs(600);

/// How long the load runs before the follower comes back.
const LOAD_FIRST: Duration = Duration::from_secs(1);

/// Sums over the shards.
#[derive(Debug, Clone, Copy)]
struct Sums {
    at: Instant,
    head: f64,
    stored: f64,
    readable: f64,
}

impl Sums {
    fn of(places: &[Place]) -> Self {
        let sum = |of: fn(&Place) -> i64| places.iter().map(of).sum::<i64>() as f64;
        Self { at: Instant::now(), head: sum(|place| place.head), stored: sum(|place| place.stored), readable: sum(|place| place.readable) }
    }
}

impl Run<'_> {
    /// Each side, as far behind as is asked for.
    pub(super) async fn catch_ups(&mut self, ours: Alone, mut theirs: Option<(&mut Pair, Alone)>) -> anyhow::Result<()> {
        let mut pack = Pack::start(self.lab, "catching up", 1, self.accounts).await?;
        let (mut stored, mut readable, mut postgres) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds() {
            let (behind, rates) = self.catch_up(&mut pack, ours).await?;
            stored.push(rates[0] / ours.entries);
            readable.push(rates[1] / ours.entries);
            if let Some((pair, alone)) = &mut theirs {
                let rate = self.postgres_catch_up(pair, *alone, behind).await?;
                postgres.extend(rate.map(|rate| rate / alone.payments));
            }
        }
        let name = "catching up / the leader's rate alone, stored";
        self.lab.report.ratio(name, stored.clone());
        self.lab.report.ratio("catching up / the leader's rate alone, readable", readable);
        if !postgres.is_empty() {
            self.lab.report.ratio("catching up / the publisher's rate alone, PostgreSQL", postgres);
        }
        self.bar(name, &stored, Wanted::AtLeast(TIMES_MIN));
        Ok(())
    }

    /// Gives back how many payments the follower was behind, and the entries a second that it stored and projected.
    async fn catch_up(&mut self, pack: &mut Pack, alone: Alone) -> anyhow::Result<(u64, [f64; 2])> {
        pack.current().await?;
        pack.kill_follower().await?;
        let behind = self.fall_behind(pack, alone).await?;
        let mut watch = pack.watch().await?;
        let close = alone.entries / 2.0 * CLOSE.as_secs_f64();
        let (mode, accounts) = (self.paced(alone.half()), self.accounts);
        let leader_before = pack.leader[0].sample()?.cpu_seconds;
        let leader = pack.leader.pop().context("there is no leader")?;
        let load = self.lab.pay(&leader, accounts, mode, GIVE_UP);
        let followed = async {
            tokio::time::sleep(LOAD_FIRST).await;
            let began = Sums::of(&watch.look().await?);
            pack.start_follower(1)?;
            let mut looks: [Option<Sums>; 3] = [None; 3];
            while looks.iter().any(Option::is_none) {
                tokio::time::sleep(LOOK_EVERY).await;
                ensure!(began.at.elapsed() < GIVE_UP, "a follower has not caught up after {GIVE_UP:?}");
                let now = Sums::of(&watch.look().await?);
                let reached = [now.stored > began.stored, now.head - now.stored <= close, now.head - now.readable <= close];
                for (look, _) in looks.iter_mut().zip(reached).filter(|(look, reached)| look.is_none() && *reached) {
                    *look = Some(now);
                }
            }
            let [Some(first), Some(stored), Some(readable)] = looks else { unreachable!("all were waited for") };
            Ok((began, first, stored, readable))
        };
        // The load ends with its process, once the follower has caught up.
        let followed = tokio::select! {
            ended = load => Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the load ended before the follower had caught up"))),
            followed = followed => followed,
        };
        pack.leader.push(leader);
        let (began, first, stored, readable) = followed?;
        let leader_cpu = pack.leader[0].sample()?.cpu_seconds - leader_before;
        let follower_cpu = pack.followers[0].sample()?.cpu_seconds;
        let took = |last: Sums| (last.at - first.at).as_secs_f64();
        let rates = [(stored.stored - began.stored) / took(stored), (readable.readable - began.readable) / took(readable)];
        let case = format!("{OURS}, {} entries behind", self.options.behind);
        let report = &mut self.lab.report;
        report.figure(&case, "entries/s of the leader alone", alone.entries);
        report.figure(&case, "entries/s that the leader commits meanwhile", (stored.head - first.head) / took(stored));
        report.figure(&case, "entries/s stored", rates[0]);
        report.figure(&case, "entries/s readable", rates[1]);
        report.figure(&case, "s until the copy is open", (first.at - began.at).as_secs_f64());
        report.figure(&case, "s until stored", took(stored));
        report.figure(&case, "s until readable", took(readable));
        report.figure(&case, "CPU s of the leader", leader_cpu);
        report.figure(&case, "CPU s of the follower", follower_cpu);
        Ok((behind, rates))
    }

    /// Commits as many entries as the follower, which is away, is to be behind; says how many payments that were.
    async fn fall_behind(&mut self, pack: &mut Pack, alone: Alone) -> anyhow::Result<u64> {
        let wanted = pack.entries().await? + self.options.behind;
        let mut payments = 0;
        loop {
            let missing = wanted.saturating_sub(pack.entries().await?);
            if missing == 0 {
                pack.current().await?;
                return Ok(payments);
            }
            let time = Duration::from_secs_f64(missing as f64 / alone.entries.max(1.0)).max(CLOSE);
            let (mode, accounts) = (self.closed(), self.accounts);
            payments += self.lab.pay(&pack.leader[0], accounts, mode, time).await?.answered;
            crate::server::drained(&mut pack.leader).await?;
        }
    }

    /// Gives back the payments a second that became visible; `None` where it does not catch up, which is a figure too.
    async fn postgres_catch_up(&mut self, pair: &mut Pair, alone: Alone, behind: u64) -> anyhow::Result<Option<f64>> {
        pair.caught_up().await?;
        pair.subscribe(false).await?;
        let mut load = pair.load(self.accounts, self.lab.seed()).await?;
        load.pay_all(self.batch, behind).await?;
        let mut load = pair.load(self.accounts, self.lab.seed()).await?;
        let close = alone.payments / 2.0 * CLOSE.as_secs_f64();
        let now = Instant::now();
        let paid = load.pay(self.lag_batch, Some(alone.half()), now, now + GIVE_UP);
        let followed = async {
            tokio::time::sleep(LOAD_FIRST).await;
            let (before, head_before) = (pair.visible().await?, pair.head().await?);
            pair.subscribe(true).await?;
            let began = Instant::now();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let (visible, head) = (pair.visible().await?, pair.head().await?);
                let took = began.elapsed();
                let left = (head - visible) as f64;
                if left <= close || took + 2 * LOAD_FIRST >= GIVE_UP {
                    let seconds = took.as_secs_f64();
                    let rates = [visible - before, head - head_before].map(|payments| payments as f64 / seconds);
                    return anyhow::Ok((seconds, rates, left, left <= close));
                }
            }
        };
        let (took, [rate, meanwhile], left, caught_up) = tokio::select! {
            ended = paid => return Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the load ended before its time"))),
            followed = followed => followed?,
        };
        let case = format!("{THEIRS}, as many payments behind");
        let report = &mut self.lab.report;
        report.figure(&case, "payments/s of the publisher alone", alone.payments);
        report.figure(&case, "payments/s that the publisher commits meanwhile", meanwhile);
        report.figure(&case, "payments/s visible", rate);
        if caught_up {
            report.figure(&case, "s until visible", took);
        } else {
            report.figure(&case, "s after which it was given up", took);
            report.figure(&case, "payments that it was behind then", left);
        }
        Ok(caught_up.then_some(rate))
    }
}
