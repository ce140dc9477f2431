//! A node beside the naive peer, each at the loads that suit it.

use super::{UNARY, node, sustained};
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
    report::Wanted,
    server::Server,
};

/// A node's stream, in multiples of the naive peer.
const STREAM_MULTIPLE_MIN: f64 = 20.0;

/// A node's unary calls, in multiples of the naive peer.
const UNARY_MULTIPLE_MIN: f64 = 3.0;

/// Payments of a batch for the naive peer, which pays one after the other: a larger batch would not be faster, and one
/// of 8,192 takes longer than a run.
const NAIVE_BATCH: usize = 256;

/// Runs the comparison for each number of shards.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few();
    for shards in lab.common.shards.clone() {
        let case = format!("{shards} shards, {accounts} accounts");
        let mut node = node::start(lab, &case, shards, accounts).await?;
        let mut naive = vec![start(lab, accounts).await?];
        let (ours_stream, naive_stream) = (lab.common.stream(), stream(lab));
        let (mut by_stream, mut by_unary) = (Vec::new(), Vec::new());
        for round in 1..=lab.common.rounds {
            let task = |side, mode| Task { case: &case, side, mode, payees: Payees::Uniform, accounts, round };
            let ours = lab.measure(task("node", ours_stream), &mut node).await?;
            let theirs = lab.measure(task("naive", naive_stream), &mut naive).await?;
            let ours_unary = lab.measure(task("node", UNARY), &mut node).await?;
            let theirs_unary = lab.measure(task("naive", UNARY), &mut naive).await?;
            // The stream is held against the faster of the peer's two ways.
            by_stream.push(sustained(&ours, &theirs).min(sustained(&ours, &theirs_unary)));
            by_unary.push(sustained(&ours_unary, &theirs_unary));
        }
        for (name, ratios, least) in [
            (format!("node / naive, {}, {shards} shards", ours_stream.name()), by_stream, STREAM_MULTIPLE_MIN),
            (format!("node / naive, {}, {shards} shards", UNARY.name()), by_unary, UNARY_MULTIPLE_MIN),
        ] {
            let median = lab.report.ratio(&name, ratios);
            lab.report.bar(&name, median, Wanted::AtLeast(least));
        }
    }
    Ok(())
}

/// Starts the naive peer with its accounts.
pub(super) async fn start(lab: &mut Lab, accounts: u64) -> anyhow::Result<Server> {
    let data = lab.folder("naive-data")?;
    lab.peer("naive", &["naive-server", "--data", &data.to_string_lossy(), "--accounts", &accounts.to_string()]).await
}

/// The stream load for the naive peer.
pub(super) fn stream(lab: &Lab) -> Mode {
    Mode::Stream { batch: NAIVE_BATCH, in_flight: lab.common.batches }
}
