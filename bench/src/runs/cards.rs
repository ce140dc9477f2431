//! Payments by card: what the mesh adds to the time that the acquirer takes by itself; and how fast cards are taken in.
//!
//! Both sides are asked at the same times, in turn: the acquirer alone, through the connector that nodes have, for an authorization and its capture; and the
//! mesh for a payment by card that is captured at once. What is added is the difference, round by round.

use super::BAR_IN_FLIGHT;
use crate::{
    lab::{Lab, Task},
    load::{CARDS_PER_USER_MAX, Mode, Pace, Payees},
    options::{CardsOptions, CardsSection},
    region::Mesh,
    report::{Run, Wanted, median},
    server::Server,
};

/// Milliseconds that the mesh adds to the acquirer's time at p99: at the rate of `--rate`, and at half of the most that it makes.
const ADDED_MS_MAX: f64 = 5.0;
const ADDED_AT_HALF_MS_MAX: f64 = 12.0;

/// Cards taken in a second.
const TAKEN_IN_MIN: f64 = 5_000.0;

/// No vault of a machine for development takes in more a second: that many users are made ready.
const TAKEN_IN_MAX: u64 = 20_000;

/// Users who pay and are paid. Each has a card before anything is measured.
const ACCOUNTS_MAX: u64 = 256;

/// Payments in flight where the most is measured, and so many more for each millisecond that the acquirer takes: most of those wait for it.
const IN_FLIGHT_OF_A_MILLISECOND: u64 = 4;

/// Runs all parts.
pub(crate) async fn run(lab: &mut Lab, options: &CardsOptions) -> anyhow::Result<()> {
    let wants = |section| options.sections.is_empty() || options.sections.contains(&section);
    if wants(CardsSection::Charge) {
        for latency_ms in &options.latency_ms {
            charge(lab, *latency_ms, options.rate).await?;
        }
    }
    if wants(CardsSection::Tokenize) {
        take_in(lab).await?;
    }
    Ok(())
}

/// A mesh and its acquirer.
struct Pair {
    case: String,
    acquirer: [Server; 1],
    nodes: Vec<Server>,
    accounts: u64,
}

async fn charge(lab: &mut Lab, latency_ms: u64, rate: u64) -> anyhow::Result<()> {
    let accounts = lab.common.few().min(ACCOUNTS_MAX);
    let mut pair = start(lab, &format!("acquirer at {latency_ms} ms"), latency_ms, accounts).await?;
    beside(lab, &mut pair, rate, ADDED_MS_MAX).await?;
    let in_flight = BAR_IN_FLIGHT + usize::try_from(latency_ms * IN_FLIGHT_OF_A_MILLISECOND)?;
    let mut most = Vec::new();
    for round in 1..=lab.common.rounds {
        let mode = Mode::Card { pace: Pace::Closed { in_flight } };
        most.push(pair.through_the_mesh(lab, mode, round).await?.sustained);
    }
    beside(lab, &mut pair, half(median(&most)), ADDED_AT_HALF_MS_MAX).await
}

/// The acquirer alone and the mesh, in turn, at so many payments a second.
async fn beside(lab: &mut Lab, pair: &mut Pair, rate: u64, added_ms_max: f64) -> anyhow::Result<()> {
    let pace = Pace::Timed { rate };
    let (load, mut added) = (Mode::Card { pace }.name(), Vec::new());
    for round in 1..=lab.common.rounds {
        let alone = pair.at_the_acquirer(lab, Mode::Charge { pace }, round).await?;
        let through = pair.through_the_mesh(lab, Mode::Card { pace }, round).await?;
        lab.report.figure(&pair.case, &format!("added p50 ms, {load}"), milliseconds(through.p50_us) - milliseconds(alone.p50_us));
        let p99 = milliseconds(through.p99_us) - milliseconds(alone.p99_us);
        lab.report.figure(&pair.case, &format!("added p99 ms, {load}"), p99);
        added.push(p99);
    }
    lab.report.bar(&format!("added p99 ms, {load}, {}", pair.case), median(&added), Wanted::AtMost(added_ms_max));
    Ok(())
}

impl Pair {
    async fn at_the_acquirer(&mut self, lab: &mut Lab, mode: Mode, round: usize) -> anyhow::Result<Run> {
        let task = Task { case: &self.case, side: "acquirer", mode, payees: Payees::Uniform, accounts: self.accounts, round };
        lab.measure(task, &mut self.acquirer).await
    }

    async fn through_the_mesh(&mut self, lab: &mut Lab, mode: Mode, round: usize) -> anyhow::Result<Run> {
        let task = Task { case: &self.case, side: "mesh", mode, payees: Payees::Uniform, accounts: self.accounts, round };
        lab.measure(task, &mut self.nodes).await
    }
}

async fn take_in(lab: &mut Lab) -> anyhow::Result<()> {
    const SIDES: [bool; 2] = [false, true];
    let seconds = (lab.common.warm_up_ms() + lab.common.measure_ms()).div_ceil(1_000);
    let cards = TAKEN_IN_MAX * seconds * (lab.common.rounds * SIDES.len()) as u64;
    // No user is to be told that the vault keeps no more of theirs.
    let accounts = lab.common.few().max(cards.div_ceil(CARDS_PER_USER_MAX) + 1);
    let Pair { case, acquirer: _acquirer, mut nodes, .. } = start(lab, "cards taken in", 0, accounts).await?;
    let mut rates = SIDES.map(|_| Vec::new());
    for round in 1..=lab.common.rounds {
        for (sealed, rates) in SIDES.into_iter().zip(&mut rates) {
            let mode = Mode::Tokenize { in_flight: BAR_IN_FLIGHT, sealed };
            let task = Task { case: &case, side: "vault", mode, payees: Payees::Uniform, accounts, round };
            rates.push(lab.measure(task, &mut nodes).await?.sustained);
        }
    }
    for (sealed, rates) in SIDES.into_iter().zip(&rates) {
        let load = Mode::Tokenize { in_flight: BAR_IN_FLIGHT, sealed }.name();
        lab.report.bar(&format!("cards taken in a second, {load}"), median(rates), Wanted::AtLeast(TAKEN_IN_MIN));
    }
    Ok(())
}

/// An acquirer, and a mesh of one region in TLS with tokens that charges cards there, with its users enrolled.
async fn start(lab: &mut Lab, name: &str, latency_ms: u64, accounts: u64) -> anyhow::Result<Pair> {
    let shards = lab.common.shards.first().copied().unwrap_or(1);
    let case = format!("{name}, {shards} shards, {accounts} accounts");
    let acquirer = lab.acquirer(latency_ms).await?;
    let mesh = Mesh::charging(&acquirer.endpoint, shards)?;
    let mut nodes = lab.secured_mesh(&mesh).await?;
    lab.enrol(&case, &mut nodes, accounts, mesh.places[0].country).await?;
    Ok(Pair { case, acquirer: [acquirer], nodes, accounts })
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}

fn half(rate: f64) -> u64 {
    ((rate / 2.0) as u64).max(1)
}
