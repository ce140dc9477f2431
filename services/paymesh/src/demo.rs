//! `paymesh demo`: the whole mesh on this machine, the shipped payments, and the proof of its books.
//!
//! Everything goes through the same doors as in operation: the nodes are processes of their own, the payments enter through
//! their gRPC ports. What is written in one region is read at once in another, and one region
//! is cut off for some seconds while payments go on. Besides `verify`, it compares the books with the file: the users that exist, the payments that were made,
//! the money that came in. The nodes and their storage are gone when it ends, unless `--keep`.

mod by_card;
mod cut;
mod own_writes;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use paymesh_topology::{ACCESS_FILE_NAME, FILE_NAME, FRAUD_FILE_NAME};
use paymesh_types::{Country, RegionName};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    args::{DEFAULT_CONFIG, DemoArgs, Setting},
    certs,
    client::{self, Mesh},
    exit::{Exit, unusable},
    note,
    output::{self, Table, money},
    say, status,
    submit::{self, Job},
    supervisor::{self, Logs, Node, Spec},
    up, verify,
};

/// The shipped payments; the same file is in `examples/`.
const PAYMENTS_CSV: &str = include_str!("../../../examples/payments.csv");
/// The shipped configuration, for when the program runs elsewhere.
const REGIONS_YAML: &str = include_str!("../../../region-config/regions.yaml");
const FRAUD_YAML: &str = include_str!("../../../region-config/fraud.yaml");
/// Who may call the demo's mesh: these commands.
const DEMO_ACCESS_YAML: &str = include_str!("demo/access.yaml");
/// How long the nodes may take to be ready.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long money may take to arrive, and copies to have all entries.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether it has.
const SETTLE_POLL: Duration = Duration::from_millis(100);
/// Instructions in flight.
const IN_FLIGHT: usize = 256;
/// Users who pay each other after the file.
const USERS_MAX: usize = 20;
/// Lines of a failed node's log that are shown.
const LOG_TAIL_LINES: usize = 20;

/// The JSON report.
#[derive(Serialize)]
struct Report {
    /// Whether everything was done and adds up.
    good: bool,
    /// What does not, besides what `submit` and `verify` list.
    problems: Vec<String>,
    submit: submit::Report,
    /// Calls of callers that entered at each region, by the region that served them.
    routes: BTreeMap<RegionName, BTreeMap<String, u64>>,
    /// From the last answer until nothing was in transit and every copy had all entries.
    settled_ms: u64,
    /// How many entries all copies together were behind at the last answer.
    behind_entries: u64,
    /// Absent where no zone has a vault.
    by_card: Option<by_card::Report>,
    /// Absent where every region leads something, and has no copies to read.
    own_writes: Option<own_writes::Report>,
    /// Absent where every region leads something, and none can be cut off without stopping payments.
    cut: Option<cut::Report>,
    verify: verify::Report,
}

/// Runs the command.
pub(crate) async fn run(setting: &Setting, args: DemoArgs) -> anyhow::Result<Exit> {
    let scratch = Scratch::new(args.keep)?;
    // The regions are those of the configuration; who may call is the demo's own business.
    let config = scratch.path.join("region-config");
    fs::create_dir(&config)?;
    fs::write(config.join(ACCESS_FILE_NAME), DEMO_ACCESS_YAML)?;
    if setting.config.exists() {
        let regions = if setting.config.is_dir() { setting.config.join(FILE_NAME) } else { setting.config.clone() };
        // Mistakes are told of the file that has them.
        client::load(&regions)?;
        fs::copy(&regions, config.join(FILE_NAME))?;
        let fraud = regions.with_file_name(FRAUD_FILE_NAME);
        if fraud.exists() {
            fs::copy(&fraud, config.join(FRAUD_FILE_NAME))?;
        }
    } else if setting.config != Path::new(DEFAULT_CONFIG) {
        // Whoever names one wants that one played with.
        return Err(unusable(format!(
            "{}: there is no such configuration; without --config and PAYMESH_CONFIG, the demo uses the one that the program was built with",
            setting.config.display()
        )));
    } else {
        note!("{} does not exist here; the demo uses the configuration that the program was built with", setting.config.display());
        fs::write(config.join(FILE_NAME), REGIONS_YAML)?;
        fs::write(config.join(FRAUD_FILE_NAME), FRAUD_YAML)?;
    }
    // Also here nodes are believed by their certificates alone, and callers by theirs.
    let credentials = scratch.path.join("credentials");
    certs::make_for_now(&client::load(&config)?, &credentials)?;
    let setting = Setting { config, credentials: Some(credentials) };
    let mesh = Mesh::open(&setting)?;
    supervisor::check_ports(&mesh.topology)?;
    let acquirers = by_card::Acquirers::start(&setting.config, &mesh.topology, &scratch.path.join("acquirers")).await?;
    let file = scratch.path.join("payments.csv");
    fs::write(&file, first_payments(PAYMENTS_CSV, args.payments))?;

    let mut interrupts = up::Interrupts::new();
    let mut nodes = start(&mesh, &setting, &scratch.path)?;
    let exit = tokio::select! {
        played = play(&mesh, &mut nodes, &acquirers, &file, args.json.as_deref()) => played,
        () = interrupts.next() => Err(anyhow::anyhow!("interrupted")),
    };
    if exit.is_err() {
        show_logs(&mut nodes, &scratch.path);
    }
    let stopped = futures::future::join_all(nodes.into_iter().map(async |node| (node.region.clone(), node.stop().await))).await;
    let mut exit = exit?;
    for (region, stopped) in stopped {
        if let Err(why) = stopped {
            say!("WRONG  the node of {region} did not drain: {why}");
            exit = exit.max(Exit::Failed);
        }
    }
    if args.keep {
        say!("storage and logs are kept in {}", scratch.path.display());
    }
    Ok(exit)
}

/// Starts a node for every region.
fn start(mesh: &Mesh, setting: &Setting, scratch: &Path) -> anyhow::Result<Vec<Node>> {
    let specs = mesh.topology.regions().map(|region| Spec {
        region: region.name.clone(),
        http: region.http.clone(),
        setting: setting.clone(),
        data: supervisor::data_of(region, scratch),
        json_logs: false,
        otlp: None,
        trust_own_journals: false,
        logs: Logs::File(log_of(scratch, &region.name)),
    });
    specs.map(|spec| spec.start()).collect()
}

async fn play(mesh: &Mesh, nodes: &mut [Node], acquirers: &by_card::Acquirers, file: &Path, json: Option<&Path>) -> anyhow::Result<Exit> {
    let started = Instant::now();
    supervisor::all_ready(nodes, READY_TIME_MAX).await?;
    say!("{} regions are up, each a process of its own, in mutual TLS, after {} ms", nodes.len(), started.elapsed().as_millis());

    let job = Job { file: file.to_owned(), namespace: String::new(), in_flight: IN_FLIGHT, progress: None };
    let submit = submit::play_all(mesh, &job).await?;
    say!("\nSUBMIT");
    submit.say();

    let routes = routes(mesh).await?;
    say!("\nWHERE CALLS CAME IN, AND WHICH REGION SERVED THEM");
    say_routes(mesh, &routes);

    say!("\nCOPIES IN OTHER REGIONS");
    let waiting = Instant::now();
    let behind_entries = entries_behind(mesh).await;
    let mut left = settle(mesh).await?;
    let settled_ms = u64::try_from(waiting.elapsed().as_millis()).unwrap_or(u64::MAX);
    say!("{behind_entries} entries behind at the last answer, all there, and no money in transit, {settled_ms} ms later");
    let csv = fs::read_to_string(file)?;
    say!("\nBY CARD");
    let by_card = by_card::run(mesh, acquirers, &csv).await?;
    say!("\nREADS OF ONE'S OWN WRITES, AND A REGION CUT OFF");
    let own_writes = own_writes::run(mesh, &csv).await?;
    let cut = cut::run(mesh, nodes, &csv).await?;
    left.extend(settle(mesh).await?);

    say!("\nVERIFY");
    let verify = verify::verify(mesh).await?;
    verify.say(mesh);

    let besides = by_card.as_ref().map_or(0, |by_card| by_card.payments)
        + cut.as_ref().map_or(0, |cut| cut.payments)
        + own_writes.as_ref().map_or(0, |own| own.payments);
    let mut problems = against_file(&submit, besides, &verify);
    problems.extend(left);
    problems.extend(by_card.as_ref().and_then(|by_card| by_card::against_acquirers(by_card, &verify)));
    for node in nodes {
        if let Some(status) = node.has_ended() {
            problems.push(format!("the node of {} died: {status}", node.region));
        }
    }
    for problem in &problems {
        say!("WRONG  {problem}");
    }
    let good = problems.is_empty() && verify.good && submit.finished && submit.tally.failed == 0;
    say!("\n{}", if good { "demo: everything was done, and adds up" } else { "demo: FAILED, see above" });
    if let Some(path) = json {
        output::write_json(path, &Report { good, problems, submit, routes, settled_ms, behind_entries, by_card, own_writes, cut, verify })?;
    }
    Ok(if good { Exit::Good } else { Exit::Failed })
}

/// Calls of callers by the region where they entered and the one that served them.
async fn routes(mesh: &Mesh) -> anyhow::Result<BTreeMap<RegionName, BTreeMap<String, u64>>> {
    let mut routes = BTreeMap::new();
    for (region, status) in mesh.statuses().await {
        let status = status.map_err(|status| anyhow::anyhow!("{region}: {}", client::explain(&status)))?;
        let mut served: BTreeMap<String, u64> = BTreeMap::new();
        for route in status.routes.iter().filter(|route| !route.from_peer) {
            *served.entry(route.served_by.clone()).or_default() += route.calls;
        }
        routes.insert(region, served);
    }
    Ok(routes)
}

fn say_routes(mesh: &Mesh, routes: &BTreeMap<RegionName, BTreeMap<String, u64>>) {
    let mut table = Table::new(["entered at", "calls", "served there", "forwarded", "to"]);
    for region in mesh.topology.regions() {
        let Some(served) = routes.get(&region.name) else { continue };
        let here = served.get(region.name.as_str()).copied().unwrap_or(0);
        let elsewhere: Vec<_> = served.iter().filter(|(by, calls)| by.as_str() != region.name.as_str() && **calls > 0).collect();
        let forwarded: u64 = elsewhere.iter().map(|(_, calls)| **calls).sum();
        let to: Vec<_> = elsewhere.iter().map(|(by, calls)| format!("{by} {calls}")).collect();
        table.row([region.name.to_string(), (here + forwarded).to_string(), here.to_string(), forwarded.to_string(), to.join(", ")]);
    }
    say!("{table}");
}

/// Waits until no money is in transit and every copy has all entries; says what is not so when the time is up.
async fn settle(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    loop {
        let statuses = mesh.statuses().await;
        let ways = status::in_transit(statuses.values().flatten())?;
        let open = ways.into_iter().filter(|way| way.in_transit_minor_units != Some(0));
        let mut left: Vec<_> = open.map(|way| format!("money from {} to {} has not arrived", way.from, way.to)).collect();
        let behind = entries_behind(mesh).await;
        if behind > 0 {
            left.push(format!("copies in other regions are {behind} entries behind"));
        }
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(SETTLE_POLL).await;
    }
}

/// How many entries all copies together lack, as those that answer know it.
async fn entries_behind(mesh: &Mesh) -> u64 {
    let copies = mesh.replications().await;
    let behind = copies.values().flatten().flat_map(|said| &said.replicas);
    behind.map(|replica| replica.head_sequence.saturating_sub(replica.stored_sequence)).sum()
}

/// What the books say against what the file asked for, and the payments that were made besides.
fn against_file(submit: &submit::Report, besides: u64, verify: &verify::Report) -> Vec<String> {
    let mut problems = Vec::new();
    let accepted = |kind: &str| submit.kinds.get(kind).copied().unwrap_or(0);
    let users: u64 = verify.shards.iter().map(|shard| shard.users).sum();
    if users != accepted("enrol") {
        problems.push(format!("{} users were enrolled and {users} are in the books", accepted("enrol")));
    }
    let payments: u64 = verify.shards.iter().map(|shard| shard.payments).sum();
    let asked = accepted("payment") + submit.declined_payments + besides;
    if payments != asked {
        problems.push(format!("{asked} payments were answered and {payments} are in the books"));
    }
    let mut outside: BTreeMap<&str, i128> = BTreeMap::new();
    for (code, sum) in verify.shards.iter().flat_map(|shard| &shard.currencies) {
        *outside.entry(code).or_default() -= i128::from(sum.external);
    }
    for (code, minor) in &submit.money_in {
        let booked = outside.remove(code).unwrap_or(0);
        if booked != *minor {
            problems.push(format!("{} came in by the file and {} by the books", money(*minor, code), money(booked, code)));
        }
    }
    for (code, minor) in outside.into_iter().filter(|(_, minor)| *minor != 0) {
        problems.push(format!("nothing came in by the file in {code}, and {} by the books", money(minor, code)));
    }
    problems
}

/// Some users of such countries who hold EUR, in the order in which the file enrols them.
fn users(payments_csv: &str, is_of: impl Fn(Country) -> bool) -> Vec<u64> {
    let enrolled = payments_csv.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split(',').collect();
        let holds_euro = columns.get(1) == Some(&"enrol") && columns.get(5)?.split(';').any(|code| code == "EUR");
        let country = columns.get(6)?.parse().ok().filter(|country| holds_euro && is_of(*country));
        country.and(columns.get(2)?.parse().ok())
    });
    enrolled.take(USERS_MAX).collect()
}

/// The file up to its `payments`-th payment or transfer.
fn first_payments(csv: &str, payments: Option<u32>) -> String {
    let Some(payments) = payments else { return csv.to_owned() };
    let mut left = payments;
    let is_payment = |line: &str| matches!(line.split(',').nth(1), Some("payment" | "transfer"));
    let lines = csv.lines().filter(|line| match (is_payment(line), left) {
        (false, _) => true,
        (true, 0) => false,
        (true, _) => {
            left -= 1;
            true
        }
    });
    lines.fold(String::new(), |mut file, line| {
        file.push_str(line);
        file.push('\n');
        file
    })
}

/// Where a node of the demo logs.
fn log_of(scratch: &Path, region: &RegionName) -> PathBuf {
    scratch.join(format!("{region}.log"))
}

/// Shows the end of the logs of the nodes that have ended.
fn show_logs(nodes: &mut [Node], scratch: &Path) {
    for node in nodes {
        if node.has_ended().is_none() {
            continue;
        }
        let log = fs::read_to_string(log_of(scratch, &node.region)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        note!("the end of the log of {}:", node.region);
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES)) {
            note!("  {line}");
        }
    }
}

/// A directory of the demo's own, removed with everything in it when dropped, unless it is to be kept.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: bool) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("paymesh-demo-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).with_context(|| format!("cannot make the demo's directory {}", path.display()))?;
        Ok(Self { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is in the system's directory for temporary files, and named after its maker.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_of_the_zone_who_hold_euro() {
        let csv = "id,kind,user,counterparty,amount,currency,country,via,reference\n\
                   a,enrol,7,,,USD;EUR,ES,us_east,\nb,enrol,8,,,USD,US,us_east,\nc,enrol,9,,,EUR,US,,\nd,deposit,9,,5,EUR,,,\n";
        assert_eq!(users(csv, |country| Ok(country) == "US".parse()), [9]);
    }

    #[test]
    fn the_shipped_file_has_what_the_demo_promises() {
        let lines: Vec<Vec<&str>> = PAYMENTS_CSV.lines().skip(1).map(|line| line.split(',').collect()).collect();
        let payments = lines.iter().filter(|line| matches!(line[1], "payment" | "transfer")).count();
        assert!(payments >= 10_000, "{payments}");
        for region in ["us_east", "us_west", "eu_west", "asia_pacific"] {
            assert!(lines.iter().filter(|line| line[7] == region).count() >= 1_000, "{region}");
        }
        for country in ["DE", "US"] {
            assert!(lines.iter().any(|line| line[1] == "enrol" && line[6] == country), "{country}");
        }
    }

    #[test]
    fn a_shorter_demo_has_the_first_payments_and_everyone_in_them() {
        let few = first_payments(PAYMENTS_CSV, Some(100));
        let of = |kind: &str, text: &str| text.lines().filter(|line| line.split(',').nth(1) == Some(kind)).count();
        assert_eq!(of("payment", &few) + of("transfer", &few), 100);
        assert_eq!(of("enrol", &few), of("enrol", PAYMENTS_CSV));
        assert_eq!(first_payments(PAYMENTS_CSV, None), PAYMENTS_CSV);
    }
}
