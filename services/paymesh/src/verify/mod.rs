//! `paymesh verify`: proves the books of the whole mesh.
//!
//! Two passes over every shard, each at the shard's leader; what is compared and why two passes are needed is in `books`.
//! A shard that cannot be asked is a failure: unknown books are not proven ones. Then every region proves its copies of other
//! regions' shards (`copies`), and every node its audit log (`audits`).

mod audits;
mod books;
mod copies;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use paymesh_contract::{
    Fault,
    mesh::v1::{InboxCursor, ShardReport, VerifyShardRequest, verify_shard_response::Step},
};
use paymesh_types::{RegionName, ShardRef};
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use tonic::Code;

use self::{audits::AuditSummary, books::Reports, copies::CopySummary};
use crate::{
    args::{Setting, VerifyArgs},
    client::{self, Mesh},
    exit::Exit,
    output::{self, Table, money},
    progress::Progress,
    say,
    status::{self, InTransit},
};

/// Shards that are read at the same time.
const SHARDS_AT_ONCE_MAX: usize = 4;
/// Steps of progress that wait to be shown.
const STEPS_MAX: usize = 64;
/// How long a node may say nothing of a journal while it is there: others of its journals may be read first.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// How often a node that says nothing is asked whether it is there, and how often it is said that it is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether everything adds up.
    pub(crate) good: bool,
    /// What does not.
    pub(crate) problems: Vec<String>,
    /// Shards and audit logs that could not be asked, copies that could not be compared, and why.
    pub(crate) unreachable: BTreeMap<String, String>,
    pub(crate) shards: Vec<ShardSummary>,
    pub(crate) copies: Vec<CopySummary>,
    pub(crate) audit_logs: Vec<AuditSummary>,
    pub(crate) in_transit: Vec<InTransit>,
}

/// One shard that was read.
#[derive(Debug, Serialize)]
pub(crate) struct ShardSummary {
    pub(crate) shard: String,
    pub(crate) leader: String,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) chain_hash: String,
    pub(crate) users: u64,
    pub(crate) payments: u64,
    pub(crate) currencies: BTreeMap<String, CurrencySummary>,
}

/// The books of one currency of one shard, in minor units.
#[derive(Debug, Serialize)]
pub(crate) struct CurrencySummary {
    pub(crate) wallets: i64,
    pub(crate) external: i64,
    pub(crate) clearing: i64,
    pub(crate) cards: i64,
    pub(crate) held: i64,
}

/// Why a shard, or a copy of one, could not be verified.
#[derive(Debug)]
enum Trouble {
    /// Its node does not answer, or does not serve yet.
    Unreachable(String),
    /// The node answered, and the answer is that something is wrong.
    Refused(String),
}

impl Trouble {
    fn of(status: &tonic::Status) -> Self {
        let (why, fault) = (client::explain(status), Fault::from_status(status));
        let is_starting = fault.metadata.iter().any(|(key, value)| (key.as_str(), value.as_str()) == ("state", "starting"));
        if matches!(&*fault.reason, "SHARD_NOT_SERVING" | "SHARD_HISTORY_MISSING") && !is_starting {
            return Self::Refused(why);
        }
        match status.code() {
            // The node itself says that something is wrong with what it holds.
            Code::NotFound | Code::DataLoss | Code::FailedPrecondition | Code::InvalidArgument => Self::Refused(why),
            _ => Self::Unreachable(why),
        }
    }

    fn at(self, mesh: &Mesh, region: &RegionName) -> Self {
        let endpoint = mesh.topology.region(region).map(|region| region.grpc.to_string()).unwrap_or_default();
        match self {
            Self::Unreachable(why) => Self::Unreachable(format!("at {region} ({endpoint}): {why}")),
            Self::Refused(why) => Self::Refused(format!("at {region}: {why}")),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(setting: &Setting, args: VerifyArgs) -> anyhow::Result<Exit> {
    let mesh = Mesh::open(setting)?;
    let report = verify(&mesh).await?;
    if args.json {
        output::say_json(&report)?;
    } else {
        report.say(&mesh);
    }
    Ok(report.exit())
}

/// Verifies the whole mesh.
pub(crate) async fn verify(mesh: &Mesh) -> anyhow::Result<Report> {
    let mut problems = Vec::new();
    let mut unreachable = BTreeMap::new();
    let mut sort = |troubles: BTreeMap<ShardRef, Trouble>| {
        for (shard, trouble) in troubles {
            match trouble {
                Trouble::Unreachable(why) => {
                    unreachable.insert(shard.to_string(), why);
                }
                Trouble::Refused(why) => problems.push(format!("{shard}: {why}")),
            }
        }
    };

    let all: Vec<_> = mesh.topology.shards().into_iter().map(|shard| (shard, Vec::new())).collect();
    let (first, troubles) = pass(mesh, "reading journals", all).await;
    sort(troubles);
    let mut again = Vec::new();
    for shard in first.keys() {
        again.push((shard.clone(), books::cursors_on(shard, &first)?));
    }
    let (second, troubles) = pass(mesh, "pairing shards  ", again).await;
    sort(troubles);

    let findings = books::compare(&first, &second)?;
    problems.extend(findings.problems);
    let copies = copies::compare(mesh, &second).await?;
    problems.extend(copies.problems);
    unreachable.extend(copies.unreachable);
    let audits = audits::verify(mesh).await;
    problems.extend(audits.problems);
    unreachable.extend(audits.unreachable);
    problems.sort();
    problems.dedup();
    let shards = second.iter().map(|(shard, report)| summary(mesh, shard, report)).collect();
    Ok(Report {
        good: problems.is_empty() && unreachable.is_empty(),
        problems,
        unreachable,
        shards,
        copies: copies.all,
        audit_logs: audits.all,
        in_transit: findings.in_transit,
    })
}

/// Reads the journals of these shards, a few at a time.
async fn pass(mesh: &Mesh, what: &str, shards: Vec<(ShardRef, Vec<InboxCursor>)>) -> (Reports, BTreeMap<ShardRef, Trouble>) {
    let (steps, mut progress_of) = mpsc::channel::<(ShardRef, u64, u64)>(STEPS_MAX);
    let reads = futures::stream::iter(shards).map(|(shard, sent_by)| {
        let steps = steps.clone();
        async move {
            let read = read_shard(mesh, &shard, sent_by, |read, head| {
                // Only shown: a step that finds no room is left out, the next one says more.
                let _ = steps.try_send((shard.clone(), read, head));
            });
            let result = read.await;
            (shard, result)
        }
    });
    let mut reads = std::pin::pin!(reads.buffer_unordered(SHARDS_AT_ONCE_MAX));
    let mut progress = Progress::new(what, 0);
    let mut far: BTreeMap<ShardRef, (u64, u64)> = BTreeMap::new();
    // When each that is being read was last heard of.
    let mut waited: BTreeMap<ShardRef, Instant> = BTreeMap::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let (mut reports, mut troubles) = (Reports::new(), BTreeMap::new());
    loop {
        tokio::select! {
            read = reads.next() => {
                let Some((shard, read)) = read else { break };
                waited.remove(&shard);
                match read {
                    Ok(report) => {
                        reports.insert(shard, report);
                    }
                    Err(trouble) => {
                        troubles.insert(shard, trouble);
                    }
                }
            }
            Some((shard, read, head)) = progress_of.recv() => {
                if !reports.contains_key(&shard) && !troubles.contains_key(&shard) {
                    waited.insert(shard.clone(), Instant::now());
                }
                far.insert(shard, (read, head));
                progress.set_total(far.values().map(|(_, head)| head).sum());
                progress.set_done(far.values().map(|(read, _)| read).sum(), "entries");
            }
            _ = looks.tick() => waited.iter().filter(|(_, since)| since.elapsed() >= LOOK_EVERY).for_each(|(shard, since)| {
                let leader = mesh.topology.leader(shard).map(RegionName::as_str).unwrap_or_default();
                progress.note(&format!("paymesh: {leader} has said nothing of {shard} for {} s", since.elapsed().as_secs()));
            }),
        }
    }
    progress.finish();
    (reports, troubles)
}

async fn read_shard(mesh: &Mesh, shard: &ShardRef, sent_by: Vec<InboxCursor>, on_step: impl Fn(u64, u64)) -> Result<ShardReport, Trouble> {
    let leader = mesh.topology.leader(shard).expect("every shard of the configuration has a leader");
    on_step(0, 0);
    let read = async {
        there(mesh, leader).await?;
        let mut node = mesh.operator(leader);
        let request = VerifyShardRequest { shard: Some(shard.into()), sent_by };
        let mut steps = said(mesh, leader, node.verify_shard(request)).await?.into_inner();
        while let Some(step) = said(mesh, leader, steps.message()).await? {
            match step.step {
                Some(Step::ReadSequence(read)) => on_step(read, step.head_sequence),
                Some(Step::Report(report)) => return Ok(report),
                None => {}
            }
        }
        Err(Trouble::Unreachable("the answer ended before its result".to_owned()))
    };
    read.await.map_err(|trouble: Trouble| trouble.at(mesh, leader))
}

/// What a node says next. One that says nothing is asked whether it is there, and if not is not waited for.
async fn said<T>(mesh: &Mesh, region: &RegionName, next: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, Trouble> {
    let mut next = std::pin::pin!(next);
    let began = Instant::now();
    while began.elapsed() < SILENCE_MAX {
        match timeout(LOOK_EVERY, &mut next).await {
            Ok(said) => return said.map_err(|status| Trouble::of(&status)),
            Err(_) => there(mesh, region).await?,
        }
    }
    Err(Trouble::Unreachable(format!("it is there, and has said nothing of it for {} s", SILENCE_MAX.as_secs())))
}

async fn there(mesh: &Mesh, region: &RegionName) -> Result<(), Trouble> {
    mesh.there(region).await.map_err(|status| Trouble::Unreachable(client::explain(&status)))
}

fn summary(mesh: &Mesh, shard: &ShardRef, report: &ShardReport) -> ShardSummary {
    let position = report.position.clone().unwrap_or_default();
    ShardSummary {
        shard: shard.to_string(),
        leader: mesh.topology.leader(shard).map(ToString::to_string).unwrap_or_default(),
        epoch: position.epoch,
        sequence: position.sequence,
        chain_hash: output::hex(&report.chain_hash),
        users: report.users,
        payments: report.payments,
        currencies: report
            .sums
            .iter()
            .map(|sum| {
                let summary = CurrencySummary {
                    wallets: sum.wallets_minor_units,
                    external: sum.external_minor_units,
                    clearing: sum.clearing_minor_units,
                    cards: sum.cards_minor_units,
                    held: sum.held_minor_units,
                };
                (sum.currency_code.clone(), summary)
            })
            .collect(),
    }
}

impl Report {
    /// The command's exit code.
    pub(crate) fn exit(&self) -> Exit {
        match (self.problems.is_empty(), self.unreachable.is_empty()) {
            (true, true) => Exit::Good,
            (false, _) => Exit::Failed,
            (true, false) => Exit::Unreachable,
        }
    }

    /// Prints it.
    pub(crate) fn say(&self, mesh: &Mesh) {
        let mut table = Table::new(["shard", "leader", "entries", "users", "payments", "chain"]);
        for shard in &self.shards {
            let chain = shard.chain_hash.get(..16).unwrap_or(&shard.chain_hash);
            table.row([
                shard.shard.clone(),
                shard.leader.clone(),
                shard.sequence.to_string(),
                shard.users.to_string(),
                shard.payments.to_string(),
                format!("{chain}.."),
            ]);
        }
        say!("{table}\n");
        let mut table = Table::new(["shard", "wallets", "outside world", "clearing", "cards", "sum"]);
        for shard in &self.shards {
            for (code, sum) in &shard.currencies {
                let total: i128 = [sum.wallets, sum.external, sum.clearing, sum.cards].into_iter().map(i128::from).sum();
                let show = |minor: i64| money(minor.into(), code);
                let [wallets, external, clearing, cards] = [sum.wallets, sum.external, sum.clearing, sum.cards].map(show);
                table.row([shard.shard.clone(), wallets, external, clearing, cards, money(total, code)]);
            }
        }
        if !table.is_empty() {
            say!("{table}");
        }
        let mut table = Table::new(["audit log", "from", "to", "chain"]);
        for log in &self.audit_logs {
            let chain = log.head_hash.get(..16).unwrap_or(&log.head_hash);
            table.row([log.region.clone(), log.first_sequence.to_string(), log.last_sequence.to_string(), format!("{chain}..")]);
        }
        if !table.is_empty() {
            say!("\n{table}");
        }
        status::say_in_transit(&mesh.topology, &self.in_transit, self.shards.len() < mesh.topology.shards().len());
        for (shard, why) in &self.unreachable {
            say!("NOT VERIFIED  {shard}: {why}");
        }
        for problem in &self.problems {
            say!("WRONG  {problem}");
        }
        if self.good {
            say!("\neverything adds up: {} shards, every chain whole, every sum zero, every pair mirrored", self.shards.len());
            if !self.copies.is_empty() {
                say!("{} copies in other regions are what their leaders have", self.copies.len());
            }
            say!("{} audit logs are what their nodes wrote", self.audit_logs.len());
        } else {
            say!("\nnot proven: {} found wrong, {} could not be asked or compared", self.problems.len(), self.unreachable.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_shard_that_is_being_opened_is_not_verified_and_one_that_refuses_is_wrong() {
        let refused = |reason: &'static str| Fault::unavailable(reason, "no", Duration::from_secs(1));
        assert!(matches!(Trouble::of(&refused("SHARD_NOT_SERVING").into()), Trouble::Refused(_)));
        assert!(matches!(Trouble::of(&refused("SHARD_HISTORY_MISSING").into()), Trouble::Refused(_)));
        let starting = refused("SHARD_NOT_SERVING").with_metadata("state", "starting");
        assert!(matches!(Trouble::of(&starting.into()), Trouble::Unreachable(_)));
        assert!(matches!(Trouble::of(&refused("NODE_OVERLOADED").into()), Trouble::Unreachable(_)));
    }
}
