//! What a leader commits alone and with followers, and what they cost it.

use std::collections::BTreeMap;

use super::{Alone, OURS, Pack, Run, THEIRS};
use crate::{
    lab::Task,
    load::Payees,
    peers::postgres::{Paid, Pair},
    report::{Wanted, median},
    sample::Process,
};

/// What one follower costs its leader, as a share of the leader's rate.
const COST_MAX: f64 = 0.1;

/// One run.
struct Measured {
    payments: f64,
    entries: f64,
    /// CPU seconds of the leader for a million payments, until all followers have caught up.
    leader_cpu: f64,
}

impl Run<'_> {
    /// Runs the leader with each number of followers, in turn.
    pub(super) async fn rates(&mut self) -> anyhow::Result<Alone> {
        let mut packs = Vec::new();
        for followers in self.options.followers.clone() {
            packs.push((followers, Pack::start(self.lab, &case(followers), followers, self.accounts).await?));
        }
        let mut all: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
        for round in 1..=self.rounds() {
            for (followers, pack) in &mut packs {
                let measured = self.rate(pack, *followers, round).await?;
                all.entry(*followers).or_default().push(measured);
            }
        }
        let alone = &all[&0];
        for (followers, with) in all.iter().filter(|(followers, _)| **followers > 0) {
            let per = |of: fn(&Measured) -> f64| alone.iter().zip(with).map(|(alone, with)| of(with) / of(alone)).collect::<Vec<_>>();
            self.lab.report.ratio(&format!("rate with {} / alone", case(*followers)), per(|run| run.payments));
            // A leader whose payments take more of the processor makes fewer of them with the processor it has. What the
            // followers themselves use of the same processor is not in it.
            let costs: Vec<f64> = per(|run| run.leader_cpu).iter().map(|times| (1.0 - 1.0 / times) / *followers as f64).collect();
            let name = format!("share of the leader's rate that a follower costs, of {}", case(*followers));
            let cost = self.lab.report.ratio(&name, costs);
            self.lab.report.bar(&name, cost, Wanted::AtMost(COST_MAX));
        }
        let of = |value: fn(&Measured) -> f64| median(&all[&0].iter().map(value).collect::<Vec<_>>());
        Ok(Alone { payments: of(|run| run.payments), entries: of(|run| run.entries) })
    }

    async fn rate(&mut self, pack: &mut Pack, followers: usize, round: usize) -> anyhow::Result<Measured> {
        let case = case(followers);
        let (mode, accounts) = (self.closed(), self.accounts);
        let before = Cpu::of(pack)?;
        let entries = pack.entries().await?;
        let task = Task { case: &case, side: OURS, mode, payees: Payees::Uniform, accounts, round };
        let run = self.lab.measure(task, &mut pack.leader).await?;
        let entries = pack.entries().await? - entries;
        let drained = std::time::Instant::now();
        pack.current().await?;
        let late = drained.elapsed();
        let after = Cpu::of(pack)?;
        let millions = run.answered as f64 / 1e6;
        let leader_cpu = (after.leader - before.leader) / millions;
        let report = &mut self.lab.report;
        report.figure(&case, "CPU s of the leader for a million payments, until all have caught up", leader_cpu);
        if followers > 0 {
            let each = (after.followers - before.followers) / millions / followers as f64;
            report.figure(&case, "CPU s of a follower for a million payments", each);
            report.figure(&case, "followers current after the leader is, s", late.as_secs_f64());
        }
        Ok(Measured { payments: run.sustained, entries: run.sustained * entries as f64 / run.answered as f64, leader_cpu })
    }

    /// PostgreSQL alone and with its subscriber, in turn. It stays subscribed.
    pub(super) async fn postgres_rates(&mut self, pair: &mut Pair) -> anyhow::Result<Alone> {
        let (mut alone, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds() {
            pair.subscribe(false).await?;
            let without = self.postgres_rate(pair, "0 subscribers").await?;
            pair.subscribe(true).await?;
            pair.caught_up().await?;
            let with = self.postgres_rate(pair, "1 subscriber").await?;
            alone.push(without);
            ratios.push(with / without);
        }
        self.lab.report.ratio("PostgreSQL's rate with 1 subscriber / alone", ratios);
        Ok(Alone { payments: median(&alone), entries: 0.0 })
    }

    async fn postgres_rate(&mut self, pair: &mut Pair, case: &str) -> anyhow::Result<f64> {
        let case = format!("{THEIRS}, {case}");
        // It stays connected until the end: what a server's process used that has just ended may be in nobody's account.
        let mut load = pair.load(self.accounts, self.lab.seed()).await?;
        let before = (pair.publisher.sample()?, pair.subscriber.sample()?);
        let (warm, end) = self.times();
        let Paid { rate, payments, .. } = load.pay(self.batch, None, warm, end).await?;
        // Who is not subscribed is not waited for.
        if case.ends_with("1 subscriber") {
            pair.caught_up().await?;
        }
        let after = (pair.publisher.sample()?, pair.subscriber.sample()?);
        let per_million = |after: Process, before: Process| (after.cpu_seconds - before.cpu_seconds) * 1e6 / payments as f64;
        let report = &mut self.lab.report;
        report.figure(&case, "payments/s", rate);
        report.figure(&case, "CPU s of the publisher for a million payments", per_million(after.0, before.0));
        report.figure(&case, "CPU s of the subscriber for a million payments", per_million(after.1, before.1));
        Ok(rate)
    }
}

/// CPU seconds since the processes began.
struct Cpu {
    leader: f64,
    followers: f64,
}

impl Cpu {
    fn of(pack: &Pack) -> anyhow::Result<Self> {
        let followers = pack.followers.iter().map(|follower| Ok(follower.sample()?.cpu_seconds)).sum::<anyhow::Result<f64>>()?;
        Ok(Self { leader: pack.leader[0].sample()?.cpu_seconds, followers })
    }
}

fn case(followers: usize) -> String {
    format!("{followers} follower{}", if followers == 1 { "" } else { "s" })
}
