//! The hop: the same payments at the payers' home, and by way of another region's node; and the echo server as the floor.

use super::UNARY;
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
    region::Mesh,
    report::Wanted,
};

/// What forwarding adds to a call, in times of a bare echo call.
const ADDED_ECHOES_MAX: f64 = 1.0;

/// Users: few, so that the node in between has found the homes of all of them before it is measured.
const ACCOUNTS_MAX: u64 = 256;

/// Runs the comparison at one call in flight, where the time of a call is its own, and at many.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few().min(ACCOUNTS_MAX);
    let shards = lab.common.shards.first().copied().unwrap_or(1);
    let case = format!("2 regions of {shards} shards, {accounts} accounts");
    let mesh = Mesh::new(2, shards)?;
    let mut nodes = lab.mesh(&mesh).await?;
    lab.enrol(&case, &mut nodes, accounts, mesh.places[0].country).await?;
    let mut echo = vec![lab.peer("echo", &["echo-server"]).await?];
    for mode in [Mode::Unary { in_flight: 1 }, UNARY] {
        let (mut added, mut slowdown) = (Vec::new(), Vec::new());
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case: &case, side, mode, payees: Payees::Uniform, accounts, round };
            let home = lab.measure(task("home"), &mut nodes).await?;
            nodes.reverse();
            let via = lab.measure(task("forwarded"), &mut nodes).await;
            nodes.reverse();
            let via = via?;
            let floor = lab.measure(task("echo"), &mut echo).await?;
            added.push((via.p50_us as f64 - home.p50_us as f64) / floor.p50_us as f64);
            slowdown.push(via.sustained / home.sustained);
        }
        lab.report.ratio(&format!("forwarded / home, {}: rate", mode.name()), slowdown);
        let name = format!("(forwarded - home) / echo, {}: p50", mode.name());
        let median = lab.report.ratio(&name, added);
        if mode != UNARY {
            lab.report.bar(&name, median, Wanted::AtMost(ADDED_ECHOES_MAX));
        }
    }
    Ok(())
}
