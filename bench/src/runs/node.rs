//! A durable node: streams and unary calls, uniform and with a hot payee, with few accounts and with many.

use super::{BAR_IN_FLIGHT, UNARY, sustained};
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
    options::Part,
    region::Mesh,
    report::Wanted,
    server::Server,
};

/// A node's unary rate, of the echo server's.
const ECHO_SHARE_MIN: f64 = 0.5;

/// The rate with a hot payee, of the rate without.
const HOT_SHARE_MIN: f64 = 0.8;

/// The rate with many accounts, of the rate with few.
const ACCOUNTS_SHARE_MIN: f64 = 0.8;

/// The rate in TLS and with a token, of the rate in plain text.
const SECURITY_SHARE_MIN: f64 = 0.85;

/// Resident memory of a node, in MiB.
const RESIDENT_MIB_MAX: f64 = 1_024.0;

/// Runs all parts for each number of shards.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let shards = lab.common.shards.clone();
    for shards in shards {
        with_shards(lab, shards).await?;
    }
    Ok(())
}

async fn with_shards(lab: &mut Lab, shards: u16) -> anyhow::Result<()> {
    let few = lab.common.few();
    let case = format!("{shards} shards, {few} accounts");
    let mut node = start(lab, &case, shards, few).await?;
    if lab.common.wants(Part::Stream) {
        for batch in lab.common.batch.clone() {
            let mode = Mode::Stream { batch, in_flight: lab.common.batches };
            for round in 1..=lab.common.rounds {
                let task = Task { case: &case, side: "node", mode, payees: Payees::Uniform, accounts: few, round };
                lab.measure(task, &mut node).await?;
            }
        }
    }
    if lab.common.wants(Part::Unary) {
        unary(lab, &case, &mut node).await?;
    }
    if lab.common.wants(Part::Hot) {
        hot(lab, &case, &mut node).await?;
    }
    if lab.common.wants(Part::Accounts)
        && let Some(many) = lab.common.many()
    {
        accounts(lab, shards, &case, &mut node, many).await?;
    }
    if lab.common.wants(Part::Security) {
        security(lab, shards, &case, &mut node).await?;
    }
    let nodes = lab.report.runs.iter().filter(|run| run.side == "node" && run.case.starts_with(&format!("{shards} shards, ")));
    let peak = nodes.map(|run| run.peak_bytes >> 20).max().unwrap_or_default();
    lab.report.bar(&format!("peak resident MiB, {shards} shards"), peak as f64, Wanted::AtMost(RESIDENT_MIB_MAX));
    Ok(())
}

/// A node of a mesh of one region, with its users enrolled.
pub(super) async fn start(lab: &mut Lab, case: &str, shards: u16, accounts: u64) -> anyhow::Result<Vec<Server>> {
    let mesh = Mesh::new(1, shards)?;
    let mut nodes = lab.mesh(&mesh).await?;
    lab.enrol(case, &mut nodes, accounts, mesh.places[0].country).await?;
    Ok(nodes)
}

async fn unary(lab: &mut Lab, case: &str, node: &mut [Server]) -> anyhow::Result<()> {
    let accounts = lab.common.few();
    let mut echo = vec![lab.peer("echo", &["echo-server"]).await?];
    for in_flight in lab.common.in_flight.clone() {
        let mode = Mode::Unary { in_flight };
        let mut ratios = Vec::new();
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case, side, mode, payees: Payees::Uniform, accounts, round };
            let ours = lab.measure(task("node"), node).await?;
            let floor = lab.measure(task("echo"), &mut echo).await?;
            ratios.push(sustained(&ours, &floor));
        }
        let name = format!("node / echo, {}, {case}", mode.name());
        let median = lab.report.ratio(&name, ratios);
        if in_flight == BAR_IN_FLIGHT {
            lab.report.bar(&name, median, Wanted::AtLeast(ECHO_SHARE_MIN));
        }
    }
    Ok(())
}

async fn hot(lab: &mut Lab, case: &str, node: &mut [Server]) -> anyhow::Result<()> {
    let accounts = lab.common.few();
    for mode in [lab.common.stream(), UNARY] {
        let mut ratios = Vec::new();
        for round in 1..=lab.common.rounds {
            let task = |payees| Task { case, side: "node", mode, payees, accounts, round };
            let uniform = lab.measure(task(Payees::Uniform), node).await?;
            let hot = lab.measure(task(Payees::Hot), node).await?;
            ratios.push(sustained(&hot, &uniform));
        }
        let name = format!("hot payee / uniform, {}, {case}", mode.name());
        let median = lab.report.ratio(&name, ratios);
        lab.report.bar(&name, median, Wanted::AtLeast(HOT_SHARE_MIN));
    }
    Ok(())
}

/// In TLS, where every call shows a token, beside plain text.
async fn security(lab: &mut Lab, shards: u16, case: &str, node: &mut [Server]) -> anyhow::Result<()> {
    let accounts = lab.common.few();
    let mesh = Mesh::new(1, shards)?;
    let mut secured = lab.secured_mesh(&mesh).await?;
    lab.enrol(case, &mut secured, accounts, mesh.places[0].country).await?;
    for mode in [lab.common.stream(), UNARY] {
        let mut ratios = Vec::new();
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case, side, mode, payees: Payees::Uniform, accounts, round };
            let plain = lab.measure(task("node"), node).await?;
            let in_tls = lab.measure(task("secured"), &mut secured).await?;
            ratios.push(sustained(&in_tls, &plain));
        }
        let name = format!("TLS and tokens / plain text, {}, {case}", mode.name());
        let median = lab.report.ratio(&name, ratios);
        lab.report.bar(&name, median, Wanted::AtLeast(SECURITY_SHARE_MIN));
    }
    Ok(())
}

async fn accounts(lab: &mut Lab, shards: u16, case: &str, node: &mut [Server], many: u64) -> anyhow::Result<()> {
    let few = lab.common.few();
    let large_case = format!("{shards} shards, {many} accounts");
    let mut large = start(lab, &large_case, shards, many).await?;
    for mode in [lab.common.stream(), UNARY] {
        let mut ratios = Vec::new();
        for round in 1..=lab.common.rounds {
            let task = |case, accounts| Task { case, side: "node", mode, payees: Payees::Uniform, accounts, round };
            let with_few = lab.measure(task(case, few), node).await?;
            let with_many = lab.measure(task(&large_case, many), &mut large).await?;
            ratios.push(sustained(&with_many, &with_few));
        }
        let name = format!("{many} accounts / {few}, {}, {shards} shards", mode.name());
        let median = lab.report.ratio(&name, ratios);
        lab.report.bar(&name, median, Wanted::AtLeast(ACCOUNTS_SHARE_MIN));
    }
    Ok(())
}
