//! Consistent cuts, sampled while payments go on and things fail.
//!
//! Each leader is asked twice for the proof of its books. The first time it says what it had received from every other shard, and
//! up to which entry it had read that shard's journal; the second time, what it had sent by the very entry up to which it had
//! been read. The two must be the same to the cent, whatever is on its way: that is the cut. It is made here again, apart from the
//! program's own (`paymesh verify`), which is sampled beside it and must not find anything wrong either. A leader that does not
//! answer at the moment leaves its pairs out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::join_all;
use paymesh_contract::{
    common::v1::ShardRef,
    mesh::v1::{InboxCursor, ShardReport, VerifyShardRequest, mesh_service_client::MeshServiceClient, verify_shard_response::Step},
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::support::{PAYMESH, Run};

/// The shards that hold money, and the numbers of the regions that lead them.
const LEADERS: [(&str, u32, usize); 4] = [("global", 0, 0), ("global", 1, 1), ("eu", 0, 2), ("eu", 1, 2)];
/// Between two samples at least.
const APART_MIN: Duration = Duration::from_millis(500);
/// How long a leader may take to read its journal; one that takes longer is taken to be stopped.
const PROOF_MAX: Duration = Duration::from_secs(60);

/// What the samples found.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// Cuts through the whole mesh.
    pub(crate) whole: usize,
    /// Cuts through what answered.
    pub(crate) partial: usize,
    /// Pairs of shards that were compared in them, one way and one currency each.
    pub(crate) ways: usize,
    /// Those that were found with money in transit: cuts that find none prove little.
    pub(crate) ways_in_transit: usize,
    /// Runs of `paymesh verify`, and how many of them could ask everything.
    pub(crate) verified: usize,
    pub(crate) verified_whole: usize,
    /// What did not add up.
    pub(crate) wrong: Vec<String>,
}

type Name = (String, u32);
type Reports = BTreeMap<Name, ShardReport>;

/// Samples until it is told to stop.
pub(crate) async fn sample(entries: Vec<Channel>, config: PathBuf, stop: Arc<AtomicBool>) -> Cuts {
    let of_program = Arc::clone(&stop);
    let program = tokio::spawn(async move {
        let mut cuts = Cuts::default();
        while !of_program.load(Relaxed) && cuts.wrong.is_empty() {
            let begun = Instant::now();
            cuts.add_program(&config).await;
            rest(begun).await;
        }
        cuts
    });
    let mut cuts = Cuts::default();
    while !stop.load(Relaxed) && cuts.wrong.is_empty() {
        let begun = Instant::now();
        cuts.add(&entries).await;
        rest(begun).await;
    }
    let program = program.await.unwrap();
    cuts.wrong.extend(program.wrong);
    Cuts { verified: program.verified, verified_whole: program.verified_whole, ..cuts }
}

/// A proof reads whole journals: a third of the time goes to it, however long they are.
async fn rest(begun: Instant) {
    sleep((begun.elapsed() * 2).max(APART_MIN)).await;
}

impl Cuts {
    async fn add(&mut self, entries: &[Channel]) {
        let first = pass(entries, |_| Vec::new()).await;
        let second = pass(entries, |name| cursors_on(name, &first)).await;
        for ((zone, shard), report) in first.iter().chain(&second) {
            self.wrong.extend(report.problems.iter().map(|problem| format!("{zone}/{shard}: {problem}")));
            self.wrong.extend(report.sums.iter().filter(|sum| sum.total_minor_units != 0).map(|sum| format!("{zone}/{shard}: {sum:?}")));
        }
        for (receiver, report) in &first {
            for (sender, later) in second.iter().filter(|(sender, _)| *sender != receiver) {
                self.compare((sender, later), (receiver, report));
            }
        }
        let whole = first.len() == LEADERS.len() && second.len() == LEADERS.len();
        *if whole { &mut self.whole } else { &mut self.partial } += 1;
    }

    /// What one shard had sent another by the cut, and what that one had received.
    fn compare(&mut self, (sender, later): (&Name, &ShardReport), (receiver, report): (&Name, &ShardReport)) {
        let mut ways: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
        for line in report.clearing.iter().filter(|line| line.peer.as_ref().is_some_and(|peer| name(peer) == *sender)) {
            ways.entry(&line.currency_code).or_default()[0] += line.received_minor_units;
        }
        for (place, lines) in [(1, &later.sent_by), (2, &later.clearing)] {
            for line in lines.iter().filter(|line| line.peer.as_ref().is_some_and(|peer| name(peer) == *receiver)) {
                ways.entry(&line.currency_code).or_default()[place] += line.sent_minor_units;
            }
        }
        for (currency, [received, sent_by_then, sent]) in ways {
            if received != sent_by_then || sent < received {
                self.wrong.push(format!(
                    "{sender:?} to {receiver:?}: {received} of {currency} arrived, {sent_by_then} had left by then, {sent} since"
                ));
            }
            self.ways += 1;
            self.ways_in_transit += usize::from(sent > received);
        }
    }

    async fn add_program(&mut self, config: &Path) {
        match verify(config).await {
            Ok(report) => {
                self.wrong.extend(wrong(&report));
                self.verified += 1;
                self.verified_whole += usize::from(report["unreachable"].as_object().is_some_and(serde_json::Map::is_empty));
            }
            Err(run) => self.wrong.push(format!("{run:?}")),
        }
    }
}

fn name(shard: &ShardRef) -> Name {
    (shard.zone.clone(), shard.shard)
}

/// What the second pass asks of a sender: what it had sent by where the others had read it.
fn cursors_on(sender: &Name, first: &Reports) -> Vec<InboxCursor> {
    let cursors = first.iter().flat_map(|(receiver, report)| report.inbox.iter().map(move |cursor| (receiver, cursor)));
    let on_it = cursors.filter(|(_, cursor)| cursor.source.as_ref().is_some_and(|source| name(source) == *sender));
    on_it
        .map(|((zone, shard), cursor)| InboxCursor {
            source: Some(ShardRef { zone: zone.clone(), shard: *shard }),
            sequence: cursor.sequence,
            ..InboxCursor::default()
        })
        .collect()
}

/// The proofs of all leaders that answer.
async fn pass(entries: &[Channel], sent_by: impl Fn(&Name) -> Vec<InboxCursor>) -> Reports {
    let proofs = LEADERS.into_iter().map(|(zone, shard, leader)| {
        let name = (zone.to_owned(), shard);
        let request = VerifyShardRequest { shard: Some(ShardRef { zone: zone.to_owned(), shard }), sent_by: sent_by(&name) };
        let mut client = MeshServiceClient::new(entries[leader].clone());
        let proof = async move {
            let mut steps = client.verify_shard(request).await.ok()?.into_inner();
            loop {
                if let Some(Step::Report(report)) = steps.message().await.ok()??.step {
                    return Some(report);
                }
            }
        };
        async move { Some((name, timeout(PROOF_MAX, proof).await.ok()??)) }
    });
    join_all(proofs).await.into_iter().flatten().collect()
}

/// Runs `paymesh verify`.
///
/// # Errors
///
/// What it said, when that is no report.
pub(crate) async fn verify(config: &Path) -> Result<Value, Run> {
    let mut command = Command::new(PAYMESH);
    command
        .env("PAYMESH_CONFIG", config)
        .env("PAYMESH_CREDENTIALS", config.with_file_name("credentials"))
        .env_remove("RUST_LOG")
        .args(["verify", "--json"])
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || Run::from(command.output().unwrap())).await.unwrap();
    serde_json::from_str(&run.stdout).map_err(|_| run)
}

/// What a report of `paymesh verify` says is wrong, and what its figures say.
pub(crate) fn wrong(report: &Value) -> Vec<String> {
    let mut wrong: Vec<String> = report["problems"].as_array().unwrap().iter().map(ToString::to_string).collect();
    for shard in report["shards"].as_array().unwrap() {
        for (currency, sums) in shard["currencies"].as_object().unwrap() {
            let sum: i64 = ["wallets", "external", "clearing"].iter().map(|part| sums[*part].as_i64().unwrap()).sum();
            if sum != 0 {
                wrong.push(format!("{}: {sum} of {currency} too much", shard["shard"]));
            }
        }
    }
    for way in report["in_transit"].as_array().unwrap() {
        if way["in_transit_minor_units"].as_i64().is_some_and(|minor| minor < 0) {
            wrong.push(format!("more arrived than left: {way}"));
        }
    }
    wrong
}
