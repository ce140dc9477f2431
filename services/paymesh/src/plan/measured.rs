//! The measured profile: reports that `bench NAME --json FILE` wrote, of this very program.
//!
//! A report names the program that it measured by its version and the hash of its file; what is another's is refused. Which run and which field a figure
//! comes from is in its source. Of several rounds the median counts, of several cases (accounts) the worst, of several unary loads the best.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path, path::PathBuf};

use anyhow::Context as _;
use paymesh_planning::{
    Error, Figure,
    capacity::{Profile, Writers},
};
use paymesh_topology::{Prices, Topology};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{exit::unusable, note};

/// Bytes of a report at most.
const REPORT_BYTES_MAX: u64 = 64 << 20;
/// Reports at most.
const REPORTS_MAX: usize = 16;
/// A rate of a node at most, and a number of bytes or seconds likewise: what is more was not measured.
const MEASURED_MAX: u32 = 1_000_000_000;
/// Calls in flight at least where a unary load says something of capacity: one alone measures the time of a call.
const IN_FLIGHT_MIN: u64 = 16;

/// The part of a report that plans go by. What else is in it is not looked at.
#[derive(Debug, Deserialize)]
struct Report {
    bench: String,
    optimised: bool,
    program: Option<Program>,
    runs: Vec<Run>,
    figures: Vec<Measurement>,
}

#[derive(Debug, Deserialize)]
struct Program {
    version: String,
    blake3: String,
}

#[derive(Debug, Deserialize)]
struct Run {
    case: String,
    side: String,
    load: String,
    payees: String,
    answered: u64,
    sustained: Exact,
    cpu_seconds_per_million: Exact,
    journal_bytes_per_payment: Exact,
}

#[derive(Debug, Deserialize)]
struct Measurement {
    case: String,
    name: String,
    rounds: Vec<Exact>,
}

/// A number by its text: JSON's own is as good as any, and no float is reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Exact(Decimal);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = serde_json::Number::deserialize(deserializer)?.to_string();
        let read = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text)).ok();
        let read = read.filter(|read| (Decimal::ZERO..=Decimal::from(MEASURED_MAX)).contains(read));
        // Six digits: more than a measurement has, and room for products.
        read.map(|read| Self(read.round_dp(6))).ok_or_else(|| D::Error::custom(format!("must be 0 to {MEASURED_MAX}, not {text}")))
    }
}

/// All reports.
#[derive(Debug)]
pub(crate) struct Measured {
    reports: Vec<(String, Report)>,
}

/// One group of runs: what differs in its round alone.
#[derive(Debug, Clone)]
struct Group {
    rate: Decimal,
    cpu_seconds_per_million: Decimal,
    journal_bytes: Decimal,
    source: String,
}

impl Measured {
    /// Reads reports of this program.
    pub(crate) fn read(files: &[PathBuf], other_build: bool) -> anyhow::Result<Self> {
        if files.is_empty() || files.len() > REPORTS_MAX {
            return Err(unusable(format!(
                "--measured: the measured profile takes 1 to {REPORTS_MAX} reports that bench wrote with --json, not {}",
                files.len()
            )));
        }
        let own = own_hash()?;
        let mut reports = Vec::new();
        for file in files {
            let name = file.display().to_string();
            let report = read_one(file, &name)?;
            same_program(&name, &report, &own, other_build)?;
            if !report.optimised {
                note!("{name}: measured without optimisation: these figures say that it works, and nothing of what a release build does");
            }
            reports.push((name, report));
        }
        Ok(Self { reports })
    }

    /// The node's runs that say something of capacity, by the number of shards.
    fn by_shards(&self) -> BTreeMap<u64, Vec<&Run>> {
        let runs: Vec<&Run> = self
            .reports
            .iter()
            .filter(|(_, report)| report.bench == "node" || report.bench == "all")
            .flat_map(|(_, report)| &report.runs)
            .filter(|run| (run.side == "node" || run.side == "secured") && run.payees == "Uniform" && run.answered > 0)
            .filter(|run| {
                run.load.strip_prefix("unary ").is_none_or(|flight| flight.parse().is_ok_and(|flight: u64| flight >= IN_FLIGHT_MIN))
            })
            .collect();
        let mut by_shards: BTreeMap<u64, Vec<&Run>> = BTreeMap::new();
        for run in runs {
            if let Some(shards) = run.case.split_once(" shards").and_then(|(shards, _)| shards.parse().ok()) {
                by_shards.entry(shards).or_default().push(run);
            }
        }
        // Call by call rather than in batches; and as deployed, in TLS and with tokens: where that was measured.
        for runs in by_shards.values_mut() {
            for keep in [(|run| run.load.starts_with("unary ")) as fn(&Run) -> bool, |run| run.side == "secured"] {
                if runs.iter().any(|run| keep(run)) {
                    runs.retain(|run| keep(run));
                }
            }
        }
        by_shards
    }

    /// Bytes on the wire for a payment and copy: the most of any batch size, which are the smallest batches'.
    fn wire_bytes(&self) -> Option<Figure> {
        let figures = self.reports.iter().filter(|(_, report)| report.bench == "replication").flat_map(|(file, report)| {
            let ours = report.figures.iter().filter(|of| of.case.starts_with("paymesh, ") && of.name == "bytes on the wire for a payment");
            ours.filter(|of| !of.rounds.is_empty()).map(move |of| (file, of))
        });
        figures
            .map(|(file, of)| (median(of.rounds.iter().map(|exact| exact.0)), file, of))
            .max_by_key(|(bytes, ..)| *bytes)
            .map(|(bytes, file, of)| Figure::new(bytes, format!("{file}: bench replication, figures, \"{}\" of \"{}\"", of.name, of.case)))
    }
}

/// The best unary load in its worst case.
fn best(shards: u64, runs: &[&Run]) -> Option<Group> {
    let mut loads: BTreeMap<&str, BTreeMap<(&str, &str), Vec<&Run>>> = BTreeMap::new();
    for run in runs {
        loads.entry(&run.load).or_default().entry((&run.case, &run.side)).or_default().push(run);
    }
    let group = |load: &str, (case, side): (&str, &str), runs: &[&Run]| {
        let of = |value: fn(&Run) -> Decimal| median(runs.iter().map(|run| value(run)));
        Group {
            rate: of(|run| run.sustained.0),
            cpu_seconds_per_million: of(|run| run.cpu_seconds_per_million.0),
            journal_bytes: mean_journal_bytes(runs),
            source: format!("runs of \"{case}\", side {side}, load \"{load}\" with {shards} shards, median of {}", runs.len()),
        }
    };
    loads
        .iter()
        .filter_map(|(load, cases)| cases.iter().map(|(case, runs)| group(load, *case, runs)).min_by_key(|group| group.rate))
        .max_by_key(|group| group.rate)
}

/// Over all payments of the runs: the file grows in steps, of which one run has several and the next none. 0 where they are too many to be counted.
fn mean_journal_bytes(runs: &[&Run]) -> Decimal {
    let payments: Decimal = runs.iter().map(|run| Decimal::from(run.answered)).sum();
    let bytes = runs.iter().try_fold(Decimal::ZERO, |sum, run| {
        Decimal::from(run.answered).checked_mul(run.journal_bytes_per_payment.0).and_then(|bytes| sum.checked_add(bytes))
    });
    bytes.and_then(|bytes| bytes.checked_div(payments)).unwrap_or_default().round_dp(3)
}

/// The profile of what was measured; the document's constants where nothing can be.
pub(crate) fn profile(measured: Measured, topology: &Topology, prices: &Prices) -> anyhow::Result<Profile> {
    let by_shards = measured.by_shards();
    let (shards, runs) = by_shards.last_key_value().ok_or_else(|| {
        unusable("--measured: no report has runs of a node; `bench node --json FILE` writes one (unary loads with 16 calls in flight at least, or streams)")
    })?;
    let node = best(*shards, runs).ok_or_else(|| unusable("--measured: no report has runs of a node"))?;
    let shard = by_shards.get(&1).filter(|_| *shards > 1).and_then(|runs| best(1, runs));
    for (what, value) in [("sustained", node.rate), ("cpu_seconds_per_million", node.cpu_seconds_per_million)] {
        if value <= Decimal::ZERO {
            return Err(unusable(format!("--measured: {what} is 0 in the {}: the runs were too short", node.source)));
        }
    }
    let cloud = topology.cloud().ok_or_else(|| unusable("regions.yaml: cloud is missing: cloud.machines.node says what a node runs on"))?;
    let machine = &cloud.machines.node;
    let kind = prices
        .instance_type(machine)
        .ok_or_else(|| unusable(Error::Unpriced { name: machine.clone(), needed_by: "regions.yaml's cloud.machines.node".to_owned() }))?;
    let document = Profile::document();
    let of_node = |value: Decimal, field: &str| Figure::new(value, format!("bench node, {field}; {}", node.source));
    let journal_bytes = if node.journal_bytes > Decimal::ZERO {
        of_node(node.journal_bytes, "journal_bytes_per_payment")
    } else {
        Figure::new(document.journal_bytes.value, format!("not measured (the runs were too short); {}", document.journal_bytes.source))
    };
    let wire_bytes = measured.wire_bytes().unwrap_or_else(|| {
        let source = format!("not in these reports (`bench replication --sections wire`); {}", document.wire_bytes.source);
        Figure::new(document.wire_bytes.value, source)
    });
    let not_used = |figure: Figure| Figure::new(figure.value, format!("{}; not measured: nodes do not use it yet", figure.source));
    Ok(Profile {
        instance_tps: of_node(node.rate, "sustained"),
        connections_per_instance: not_used(document.connections_per_instance),
        tps_per_redis_gb: not_used(document.tps_per_redis_gb),
        instance_per_hour: Figure::new(kind.per_hour, format!("prices.yaml: instance_types.{machine}, regions.yaml's cloud.machines.node")),
        partition_events: not_used(document.partition_events),
        journal_bytes,
        wire_bytes,
        writers: Some(Writers {
            node_tps: of_node(node.rate, "sustained"),
            shard_tps: shard.map(|shard| Figure::new(shard.rate, format!("bench node, sustained; {}", shard.source))),
            cpu_seconds_per_million: of_node(node.cpu_seconds_per_million, "cpu_seconds_per_million"),
        }),
    })
}

fn read_one(file: &Path, name: &str) -> anyhow::Result<Report> {
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| unusable(format!("{name}: cannot be read: {error}")))?;
    if text.len() as u64 > REPORT_BYTES_MAX {
        return Err(unusable(format!("{name}: is larger than {REPORT_BYTES_MAX} bytes")));
    }
    serde_json::from_str(&text)
        .map_err(|error| unusable(format!("{name}: is no report that this version's bench wrote with --json: {error}")))
}

/// The report is of this program's version and, unless another build may be, of this very file.
fn same_program(name: &str, report: &Report, own: &str, other_build: bool) -> anyhow::Result<()> {
    let program = report.program.as_ref().ok_or_else(|| {
        unusable(format!("{name}: program is missing: `bench {}` started no node, so that it measured none", report.bench))
    })?;
    let version = concat!("paymesh ", env!("CARGO_PKG_VERSION"));
    if program.version != version {
        return Err(unusable(format!(
            "{name}: program.version: it is of {}, and this is {version}: measure this one",
            program.version.escape_debug()
        )));
    }
    if program.blake3 != own {
        let message = "program.blake3: another build of the same version was measured";
        if !other_build {
            return Err(unusable(format!("{name}: {message}: measure this one, or take it with --other-build")));
        }
        note!("{name}: {message}, and is taken as asked");
    }
    Ok(())
}

/// The hash of this program's file.
fn own_hash() -> anyhow::Result<String> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let mut hasher = blake3::Hasher::new();
    File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ())).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The value in the middle; of two in the middle the lower, which is on the safe side of a rate. 0 of nothing.
fn median(values: impl Iterator<Item = Decimal>) -> Decimal {
    let mut sorted: Vec<Decimal> = values.collect();
    sorted.sort_unstable();
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or_default()
}
