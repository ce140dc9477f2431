//! The edge: the same payments at the node, and by way of an edge of its region, in TLS and with tokens; and the echo server as the floor.

use super::UNARY;
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
    region::Mesh,
};

/// Users: few, so that the edge has found the homes of all of them before it is measured.
const ACCOUNTS_MAX: u64 = 256;

/// Runs the comparison at one call in flight, where the time of a call is its own, and at many.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few().min(ACCOUNTS_MAX);
    let shards = lab.common.shards.first().copied().unwrap_or(1);
    let case = format!("an edge and a node of {shards} shards, {accounts} accounts");
    let mesh = Mesh::new(1, shards)?;
    let mut servers = lab.secured_mesh(&mesh).await?;
    lab.enrol(&case, &mut servers, accounts, mesh.places[0].country).await?;
    // Beside the node from the start, so that both sides leave the same processes running.
    servers.push(lab.edge(&mesh, &servers[0]).await?);
    let mut echo = vec![lab.peer("echo", &["echo-server"]).await?];
    for mode in [Mode::Unary { in_flight: 1 }, UNARY] {
        let (mut added, mut slowdown) = (Vec::new(), Vec::new());
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case: &case, side, mode, payees: Payees::Uniform, accounts, round };
            let home = lab.measure(task("home"), &mut servers).await?;
            let before = servers[1].sample()?.cpu_seconds;
            servers.reverse();
            let via = lab.measure(task("edge"), &mut servers).await;
            servers.reverse();
            let via = via?;
            let cpu_seconds = servers[1].sample()?.cpu_seconds - before;
            let floor = lab.measure(task("echo"), &mut echo).await?;
            added.push((via.p50_us as f64 - home.p50_us as f64) / floor.p50_us as f64);
            slowdown.push(via.sustained / home.sustained);
            // What `paymesh plan simulate --edge-tps` wants to know.
            let name = format!("the edge's own payments/s for each processor that it fills, {}", mode.name());
            lab.report.figure(&case, &name, via.answered as f64 / cpu_seconds);
        }
        lab.report.ratio(&format!("edge / home, {}: rate", mode.name()), slowdown);
        lab.report.ratio(&format!("(edge - home) / echo, {}: p50", mode.name()), added);
    }
    Ok(())
}
