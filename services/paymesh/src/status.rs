//! `paymesh status`: what every region and shard is doing.
//!
//! Regions are asked at the same time; one from which nothing comes for two seconds is shown as down, with the reason, and its shards and
//! copies as unknown. Money in transit is
//! paired from answers given at slightly different moments, so under load it is about right; `verify` is exact.

mod rates;
mod replicas;

use std::{collections::BTreeMap, time::Duration};

use paymesh_contract::{
    mesh::v1::{BreakerState, ComponentProblem, GatewayStatus, GetStatusResponse, ShardState, ShardStatus},
    replication::v1::GetReplicationResponse,
};
use paymesh_topology::{Topology, Zone};
use paymesh_types::{RegionName, ShardRef};
use serde::Serialize;
use tonic::Status;

use crate::{
    args::{Setting, StatusArgs},
    clearing::Ways,
    client::{self, Mesh},
    exit::Exit,
    node,
    output::{self, Table, money},
    place, say,
    up::Interrupts,
};
use replicas::ReplicaReport;

/// What a region is called from which nothing comes.
const DOWN: &str = "down";

/// Ways with money on them that are shown one by one.
const WAYS_SHOWN_MAX: usize = 16;

/// Everything that is shown.
#[derive(Serialize)]
struct Report {
    mesh: String,
    regions: Vec<RegionReport>,
    vaults: Vec<VaultReport>,
    shards: Vec<ShardReport>,
    replicas: Vec<ReplicaReport>,
    inboxes: Vec<InboxReport>,
    in_transit: Vec<InTransit>,
    /// Of the zones under PSD2.
    fraud_rates: Vec<rates::ZoneRate>,
}

/// A vault that its region's node knows nothing of.
const ELSEWHERE: &str = "not there";

#[derive(Serialize)]
struct RegionReport {
    region: RegionName,
    /// Whether it said how it is.
    up: bool,
    /// `up`, `down`, or `refuses`: it answers, and does not tell this caller.
    state: &'static str,
    /// Why it is down or refuses.
    problem: Option<String>,
    /// What is wrong with the node beside its shards and copies.
    problems: Vec<NodeProblem>,
    /// The zone whose cards its node keeps, by the file that it has read.
    vault_zone: Option<String>,
    /// The gateways to acquirers, as the region's node sees them.
    gateways: Vec<GatewayReport>,
    version: Option<String>,
    grpc: String,
    http: String,
}

#[derive(Serialize)]
struct NodeProblem {
    component: String,
    /// Whether it works all the same, and will not for ever.
    works: bool,
    problem: String,
}

/// The vault of a zone.
#[derive(Serialize)]
struct VaultReport {
    zone: String,
    region: RegionName,
    /// Whether it is a process of its own.
    alone: bool,
    /// `up`, `unhealthy`, [`ELSEWHERE`], or what its region's node is instead.
    state: &'static str,
}

#[derive(Serialize)]
struct GatewayReport {
    gateway: String,
    /// `closed`, `half-open` or `open`.
    breaker: &'static str,
    /// One after the other.
    failures: u32,
    /// Absent when its breaker never opened.
    opened_ago_ms: Option<u64>,
    calls_in_flight: u32,
}

#[derive(Serialize)]
struct ShardReport {
    shard: String,
    leader: String,
    state: &'static str,
    problem: Option<String>,
    /// These are absent when the leader does not answer.
    epoch: Option<u64>,
    head_sequence: Option<u64>,
    projected_sequence: Option<u64>,
    queued_commands: Option<u64>,
}

/// What is wrong with what a shard hears from another.
#[derive(Serialize)]
struct InboxReport {
    shard: String,
    from: String,
    problem: String,
}

/// Money on one way between two shards, in minor units.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct InTransit {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) currency: String,
    /// Absent when the sender was not asked.
    pub(crate) sent_minor_units: Option<i64>,
    /// Absent when one of the two was not asked.
    pub(crate) in_transit_minor_units: Option<i128>,
    /// How long the oldest that was sent this way, in whatever currency, waits to be acknowledged; absent when nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unacknowledged_ms: Option<u64>,
}

/// Runs the command.
pub(crate) async fn run(setting: &Setting, args: StatusArgs) -> anyhow::Result<Exit> {
    let mesh = Mesh::open(setting)?;
    if let Some(seconds) = args.watch {
        return watch(&mesh, Duration::from_secs(seconds), args.json).await;
    }
    let report = ask(&mesh).await?;
    if args.json {
        output::say_json(&report)?;
    } else {
        say!("{}", text(&mesh.topology, &report));
    }
    Ok(exit(&report))
}

/// Shows it anew again and again, until Ctrl-C, or until nobody reads it.
async fn watch(mesh: &Mesh, every: Duration, json: bool) -> anyhow::Result<Exit> {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown = Exit::Good;
    // One for all turns: a Ctrl-C between two of them is heard too.
    let mut interrupts = Interrupts::new();
    loop {
        tokio::select! {
            report = async {
                turns.tick().await;
                ask(mesh).await
            } => {
                let report = report?;
                shown = exit(&report);
                let text = if json { serde_json::to_string(&report)? } else { text(&mesh.topology, &report) };
                if output::refresh(&text).is_err() {
                    return Ok(shown);
                }
            }
            () = interrupts.next() => return Ok(shown),
        }
    }
}

async fn ask(mesh: &Mesh) -> anyhow::Result<Report> {
    let (answers, copies) = tokio::join!(mesh.statuses(), mesh.replications());
    report(mesh, &answers, &copies)
}

fn exit(report: &Report) -> Exit {
    if report.regions.iter().any(|region| region.state == DOWN) {
        return Exit::Unreachable;
    }
    let nodes = report.regions.iter().all(|region| region.up && region.problems.iter().all(|problem| problem.works));
    let serving = report.shards.iter().all(|shard| shard.state == state_name(ShardState::Serving));
    let followed = !report.replicas.iter().any(|replica| replica.is_stopped() || replica.is_cut_off());
    let vaults = report.vaults.iter().all(|vault| vault.state != ELSEWHERE);
    if nodes && serving && followed && vaults && report.inboxes.is_empty() { Exit::Good } else { Exit::Failed }
}

fn report(
    mesh: &Mesh,
    answers: &BTreeMap<RegionName, Result<GetStatusResponse, Status>>,
    copies: &BTreeMap<RegionName, Result<GetReplicationResponse, Status>>,
) -> anyhow::Result<Report> {
    let mut states: BTreeMap<ShardRef, &ShardStatus> = BTreeMap::new();
    for status in answers.values().flatten() {
        for shard in &status.shards {
            states.insert(place::shard(shard.shard.as_ref())?, shard);
        }
    }
    let regions = mesh.topology.regions().map(|region| {
        let answer = answers.get(&region.name).map(Result::as_ref);
        RegionReport {
            region: region.name.clone(),
            up: matches!(answer, Some(Ok(_))),
            state: match answer {
                Some(Ok(_)) => "up",
                Some(Err(status)) if client::is_answer(status) => "refuses",
                _ => DOWN,
            },
            problem: answer.and_then(Result::err).map(client::explain),
            problems: answer.and_then(Result::ok).map(node_problems).unwrap_or_default(),
            vault_zone: answer.and_then(Result::ok).map(|status| status.vault_zone.clone()).filter(|zone| !zone.is_empty()),
            gateways: answer.and_then(Result::ok).map(gateways).unwrap_or_default(),
            version: answer.and_then(Result::ok).map(|status| status.version.clone()),
            grpc: region.grpc.to_string(),
            http: region.http.to_string(),
        }
    });
    let shards = mesh.topology.shards().into_iter().map(|shard| {
        let status = states.get(&shard).copied();
        ShardReport {
            leader: mesh.topology.leader(&shard).map(ToString::to_string).unwrap_or_default(),
            state: status.map_or("unknown", |status| state_name(status.state())),
            problem: status.filter(|status| !status.problem.is_empty()).map(|status| status.problem.clone()),
            epoch: status.map(|status| status.epoch),
            head_sequence: status.map(|status| status.head_sequence),
            projected_sequence: status.map(|status| status.projected_sequence),
            queued_commands: status.map(|status| status.queued_commands),
            shard: shard.to_string(),
        }
    });
    let mut inboxes = Vec::new();
    for (shard, status) in &states {
        for inbox in status.inbox.iter().filter(|inbox| !inbox.problem.is_empty()) {
            let from = place::shard(inbox.source.as_ref())?.to_string();
            inboxes.push(InboxReport { shard: shard.to_string(), from, problem: inbox.problem.clone() });
        }
    }
    let regions: Vec<RegionReport> = regions.collect();
    let heads = states.iter().map(|(shard, status)| (shard.clone(), status.head_sequence)).collect();
    Ok(Report {
        mesh: mesh.topology.mesh().to_owned(),
        vaults: vaults(&mesh.topology, &regions),
        regions,
        replicas: replicas::report(&mesh.topology, copies, &heads)?,
        shards: shards.collect(),
        inboxes,
        in_transit: in_transit(answers.values().flatten())?,
        fraud_rates: rates::report(&mesh.topology, &states),
    })
}

/// The vault of each zone that has one, as its region's node says it is.
fn vaults(topology: &Topology, regions: &[RegionReport]) -> Vec<VaultReport> {
    let vault = |zone: &Zone| {
        let name = topology.vault(&zone.name)?;
        let node = regions.iter().find(|region| region.region == *name)?;
        let works = node.problems.iter().all(|problem| problem.works || problem.component != node::VAULT);
        Some(VaultReport {
            zone: zone.name.to_string(),
            region: name.clone(),
            alone: topology.region(name).is_some_and(|region| region.is_vault_alone()),
            state: match (node.up, works) {
                (true, _) if node.vault_zone.as_deref() != Some(zone.name.as_str()) => ELSEWHERE,
                (_, true) => node.state,
                (_, false) => "unhealthy",
            },
        })
    };
    topology.zones().filter_map(vault).collect()
}

fn node_problems(status: &GetStatusResponse) -> Vec<NodeProblem> {
    let said = status.problems.iter().cloned();
    said.map(|ComponentProblem { component, works, problem }| NodeProblem { component, works, problem }).collect()
}

fn gateways(status: &GetStatusResponse) -> Vec<GatewayReport> {
    let report = |gateway: &GatewayStatus| GatewayReport {
        gateway: gateway.gateway.clone(),
        breaker: match gateway.breaker() {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half-open",
            BreakerState::Open => "open",
            BreakerState::Unspecified => "unknown",
        },
        failures: gateway.failures,
        opened_ago_ms: gateway.opened_ago_ms,
        calls_in_flight: gateway.calls_in_flight,
    };
    status.gateways.iter().map(report).collect()
}

/// Pairs what the shards of these nodes say of each other.
pub(crate) fn in_transit<'a>(statuses: impl Iterator<Item = &'a GetStatusResponse>) -> anyhow::Result<Vec<InTransit>> {
    let mut ways = Ways::default();
    let mut answered = std::collections::BTreeSet::new();
    // A shard that does not serve says nothing of its books.
    for shard in statuses.flat_map(|status| &status.shards).filter(|shard| shard.state() == ShardState::Serving) {
        let name = place::shard(shard.shard.as_ref())?;
        ways.add_sent(&name, &shard.clearing)?;
        ways.add_received(&name, &shard.clearing)?;
        answered.insert(name);
    }
    ways.fill(|shard| answered.contains(shard));
    let known = ways.iter().map(|(way, totals)| InTransit {
        from: way.from.to_string(),
        to: way.to.to_string(),
        currency: way.currency.clone(),
        sent_minor_units: totals.sent,
        // The receiver may have been asked a moment after the sender: more arrived than had left is none in transit.
        in_transit_minor_units: totals.in_transit().map(|minor| minor.max(0)),
        unacknowledged_ms: totals.unacknowledged_ms,
    });
    Ok(known.collect())
}

fn text(topology: &Topology, report: &Report) -> String {
    let mut text = format!("mesh {}\n", report.mesh);
    let mut table = Table::new(["region", "state", "version", "grpc", "http"]);
    for region in &report.regions {
        let version = region.version.clone().unwrap_or_else(|| "unknown".to_owned());
        table.row([region.region.to_string(), region.state.to_owned(), version, region.grpc.clone(), region.http.clone()]);
    }
    text.push_str(&format!("\n{table}\n"));
    for region in &report.regions {
        if let Some(problem) = &region.problem {
            let how = if region.state == DOWN { "is down" } else { "answers, and refuses this" };
            text.push_str(&format!("  {} {how}: {problem}\n", region.region));
        }
        for NodeProblem { component, works, problem } in &region.problems {
            let how = if *works { "warns" } else { "is unhealthy" };
            text.push_str(&format!("  {}: {component} {how}: {problem}\n", region.region));
        }
    }

    text.push_str(&vaults_text(&report.vaults));

    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut table = Table::new(["shard", "leader", "state", "epoch", "head", "projected", "queued"]);
    for shard in &report.shards {
        table.row([
            shard.shard.clone(),
            shard.leader.clone(),
            shard.state.to_owned(),
            number(shard.epoch),
            number(shard.head_sequence),
            number(shard.projected_sequence),
            number(shard.queued_commands),
        ]);
    }
    text.push_str(&format!("\n{table}\n"));
    for shard in &report.shards {
        if let Some(problem) = &shard.problem {
            let how = if shard.state == state_name(ShardState::Starting) { "does not serve yet" } else { "does not serve" };
            text.push_str(&format!("  {} {how}: {problem}\n", shard.shard));
        }
    }
    text.push_str(&gateways_text(&report.regions));
    text.push_str(&rates::text(&report.fraud_rates));
    text.push_str(&replicas::text(&report.replicas));
    if !report.inboxes.is_empty() {
        text.push('\n');
    }
    for inbox in &report.inboxes {
        text.push_str(&format!("  {} from {}: {}\n", inbox.shard, inbox.from, inbox.problem));
    }
    if report.regions.iter().any(|region| region.up) {
        let partial = report.shards.iter().any(|shard| shard.state != "serving");
        text.push_str(&format!("\n{}", in_transit_text(topology, &report.in_transit, partial)));
    }
    text.trim_end().to_owned()
}

/// The vaults; nothing where there are none.
fn vaults_text(vaults: &[VaultReport]) -> String {
    let mut table = Table::new(["vault of", "region", "process", "state"]);
    for VaultReport { zone, region, alone, state } in vaults {
        let process = if *alone { "its own" } else { "the region's node" };
        table.row([zone.clone(), region.to_string(), process.to_owned(), (*state).to_owned()]);
    }
    let mut text = if table.is_empty() { String::new() } else { format!("\n{table}\n") };
    for VaultReport { zone, region, .. } in vaults.iter().filter(|vault| vault.state == ELSEWHERE) {
        text.push_str(&format!(
            "  {region}'s node keeps no cards of zone {zone}, by the regions.yaml that it has read: this one is another\n"
        ));
    }
    text
}

/// The gateways of each region; nothing where there are none.
fn gateways_text(regions: &[RegionReport]) -> String {
    let mut table = Table::new(["gateway", "from", "breaker", "failures", "opened", "in flight"]);
    for region in regions {
        for gateway in &region.gateways {
            let opened = gateway.opened_ago_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} s ago", ms / 1_000));
            table.row([
                gateway.gateway.clone(),
                region.region.to_string(),
                gateway.breaker.to_owned(),
                gateway.failures.to_string(),
                opened,
                gateway.calls_in_flight.to_string(),
            ]);
        }
    }
    if table.is_empty() { String::new() } else { format!("\n{table}\n") }
}

/// Prints the ways that have money on them; when they are many, summed up by the regions that lead the shards.
///
/// `partial`: not every shard was asked.
pub(crate) fn say_in_transit(topology: &Topology, ways: &[InTransit], partial: bool) {
    say!("\n{}", in_transit_text(topology, ways, partial));
}

fn in_transit_text(topology: &Topology, ways: &[InTransit], partial: bool) -> String {
    let open: Vec<_> = ways.iter().filter(|way| way.in_transit_minor_units != Some(0)).collect();
    if open.is_empty() {
        let known = if partial { "no money is known to be in transit; not every shard was asked" } else { "no money in transit" };
        return format!("  {known}");
    }
    let leaders: BTreeMap<String, String> = topology
        .shards()
        .into_iter()
        .filter_map(|shard| topology.leader(&shard).map(|leader| (shard.to_string(), leader.to_string())))
        .collect();
    let by_region = open.len() > WAYS_SHOWN_MAX;
    let name = |shard: &String| if by_region { leaders.get(shard).unwrap_or(shard).clone() } else { shard.clone() };
    let mut sums: BTreeMap<(String, String, &str), Sum> = BTreeMap::new();
    let none = Sum { sent: Some(0), in_transit: Some(0), oldest_ms: None };
    for way in open {
        let sum = sums.entry((name(&way.from), name(&way.to), way.currency.as_str())).or_insert(none);
        sum.sent = sum.sent.zip(way.sent_minor_units).map(|(sum, more)| sum + i128::from(more));
        sum.in_transit = sum.in_transit.zip(way.in_transit_minor_units).map(|(sum, more)| sum + more);
        sum.oldest_ms = sum.oldest_ms.max(way.unacknowledged_ms);
    }
    let mut table = Table::new(["from", "to", "sent so far", "in transit", "oldest"]);
    for ((from, to, currency), sum) in sums {
        // A currency is named also where there is no sum: two rows of one way are two currencies.
        let sent = sum.sent.map_or_else(|| format!("{currency} unknown: the sender was not asked"), |minor| money(minor, currency));
        let in_transit = sum.in_transit.map_or_else(|| format!("{currency} unknown: not both were asked"), |minor| money(minor, currency));
        let oldest = sum.oldest_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()));
        table.row([from, to, sent, in_transit, oldest]);
    }
    let mut text = table.to_string();
    if by_region {
        text.push_str("\n  (summed up by region; --json has every pair of shards)");
    }
    if partial {
        text.push_str("\n  (not every shard was asked: there may be more)");
    }
    text
}

/// What is on the ways from one place to another in one currency: minor units, `None` where not all was asked.
#[derive(Debug, Clone, Copy)]
struct Sum {
    sent: Option<i128>,
    in_transit: Option<i128>,
    oldest_ms: Option<u64>,
}

fn state_name(state: ShardState) -> &'static str {
    match state {
        ShardState::Unspecified => "unknown",
        ShardState::Starting => "starting",
        ShardState::Serving => "serving",
        ShardState::Refusing => "refusing",
    }
}

#[cfg(test)]
mod tests {
    use paymesh_contract::common::v1 as common;

    use super::*;
    use crate::clearing::tests::{clearing, shard};

    fn serving(name: &str, clearing: Vec<paymesh_contract::mesh::v1::Clearing>) -> ShardStatus {
        ShardStatus {
            shard: Some(common::ShardRef::from(&shard(name))),
            state: ShardState::Serving.into(),
            clearing,
            ..ShardStatus::default()
        }
    }

    #[test]
    fn money_is_said_to_be_in_transit_only_where_both_shards_were_asked() {
        let yaml = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor], database: primary_master}
zones:
  eu: {shards: 3, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
";
        let topology = Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"));
        let text = |shards: Vec<ShardStatus>, partial| {
            let answer = GetStatusResponse { shards, ..GetStatusResponse::default() };
            in_transit_text(&topology, &in_transit([&answer].into_iter()).expect("valid"), partial)
        };
        let (sender, receiver) = (clearing("eu/1", 150, 0), clearing("eu/0", 0, 100));
        let both = text(vec![serving("eu/0", vec![sender.clone()]), serving("eu/1", vec![receiver.clone()])], false);
        assert!(both.contains("0.50 EUR") && !both.contains("asked"), "{both}");
        let sender_only = text(vec![serving("eu/0", vec![sender])], true);
        assert!(sender_only.contains("1.50 EUR") && sender_only.contains("EUR unknown: not both were asked"), "{sender_only}");
        assert!(sender_only.contains("not every shard was asked: there may be more"), "{sender_only}");
        let receiver_only = text(vec![serving("eu/1", vec![receiver])], true);
        assert!(receiver_only.contains("EUR unknown: the sender was not asked"), "two rows of a way are two currencies: {receiver_only}");
        assert_eq!(text(vec![serving("eu/0", vec![])], true), "  no money is known to be in transit; not every shard was asked");
        assert_eq!(text(vec![serving("eu/0", vec![])], false), "  no money in transit");
    }
}
