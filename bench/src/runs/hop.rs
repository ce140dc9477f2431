//! A way to a node that goes by another process: the same payments straight and by way of it, with the echo server as the floor.

use super::UNARY;
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
    report::Wanted,
    server::Server,
};

/// Users at most: few, so that the process in between has found the homes of all of them before it is measured.
pub(super) const ACCOUNTS_MAX: u64 = 256;

/// Measures both ways, with one call in flight, where the time of a call is its own, and with many. `servers` are the users' home and the process in
/// between, which `side` names. `added_max` is the bar of what that adds to a call, in times of a bare echo call.
pub(super) async fn measure(
    lab: &mut Lab,
    (case, side): (&str, &str),
    accounts: u64,
    servers: &mut [Server; 2],
    added_max: Option<f64>,
) -> anyhow::Result<()> {
    let mut echo = vec![lab.peer("echo", &["echo-server"]).await?];
    for mode in [Mode::Unary { in_flight: 1 }, UNARY] {
        let (mut added, mut slowdown) = (Vec::new(), Vec::new());
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case, side, mode, payees: Payees::Uniform, accounts, round };
            let home = lab.measure(task("home"), servers).await?;
            let before = servers[1].sample()?.cpu_seconds;
            servers.reverse();
            let via = lab.measure(task(side), servers).await;
            servers.reverse();
            let via = via?;
            let cpu_seconds = servers[1].sample()?.cpu_seconds - before;
            let floor = lab.measure(task("echo"), &mut echo).await?;
            added.push((via.p50_us as f64 - home.p50_us as f64) / floor.p50_us as f64);
            slowdown.push(via.sustained / home.sustained);
            let name = format!("payments/s for each processor that it fills itself, {side}, {}", mode.name());
            lab.report.figure(case, &name, via.answered as f64 / cpu_seconds);
        }
        lab.report.ratio(&format!("{side} / home, {}: rate", mode.name()), slowdown);
        let name = format!("({side} - home) / echo, {}: p50", mode.name());
        let median = lab.report.ratio(&name, added);
        if let (Some(max), true) = (added_max, mode != UNARY) {
            lab.report.bar(&name, median, Wanted::AtMost(max));
        }
    }
    Ok(())
}
