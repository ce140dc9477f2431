//! `paymesh plan capacity`: how much a traffic needs, by the source document's constants or by what was measured.

use std::path::PathBuf;

use paymesh_planning::{
    Error, Figure, HOURS_PER_MONTH,
    capacity::{self, Bound, Capacity, DEMAND_DIGITS_MAX, Demand, Layout, MARGIN_MAX, MULTIPLIER_MAX, Profile, Rates, TPS_MAX, TPS_MIN},
    decimal_within,
};
use paymesh_topology::Prices;
use rust_decimal::Decimal;
use serde::Serialize;

use super::measured::{self, Measured};
use crate::{
    args::Setting,
    client,
    exit::{self, Exit},
    output::{Table, say_json},
    say,
};

/// `paymesh plan capacity`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
What comes out, and how (`--json` has the same, with the source of each constant):
  peak_tps                  base-tps x peak-multiplier
  required_tps              peak_tps x safety-margin
  instances                 required_tps / TPS of an instance, rounded up
  database_connections      instances x connections of an instance
  redis_memory_gb           required_tps / 1,000, rounded up
  Kafka partitions          required_tps / events a second of a partition, rounded
                            up; never fewer than regions.yaml has of the topic
  journal bytes a day       base-tps x bytes of a payment x 86,400: one copy
  bandwidth between regions required_tps x bytes on the wire x copies x 8; copies
                            are the regions of a zone beside the leader, on
                            average over shards. Calls carried on to another
                            region are not in it
  cost                      instances x an hour of one; a month has 730 hours.
                            Traffic and storage are at base-tps, by prices.yaml

The default profile has the source document's constants: 100 TPS and 10
connections an instance, 1 GB of Redis for 1,000 TPS, 0.50 USD an hour. What the
document has no formula for goes by constants that the output explains.

The measured profile takes them from what bench has measured of this very program
(`cargo run --release -p bench -- node --shards 1,4 --json node.json`, and
`replication --sections wire`): TPS and processor time of a node, journal bytes,
bytes on the wire. A shard has one writer and a region one node, so it says too
what the mesh can carry as its shards are led, and what to do where that is less
than what is required.

Examples:
  paymesh plan capacity --base-tps 1000 --peak-multiplier 10 --safety-margin 1.5
  paymesh plan capacity --base-tps 1000 --profile measured --measured node.json

Exit codes:
  0  the plan is printed
  1  it is printed, and the mesh as it is configured cannot carry what is required
  2  an option, the configuration or a measurement cannot be used")]
pub(crate) struct CapacityArgs {
    /// Payments a second on a usual day
    #[arg(long, value_name = "N", default_value = "1000", value_parser = tps, allow_negative_numbers = true)]
    base_tps: Decimal,

    /// How many times of it there are at the peak
    #[arg(long, value_name = "N", default_value = "10", value_parser = multiplier, allow_negative_numbers = true)]
    peak_multiplier: Decimal,

    /// The margin above the peak, as a factor
    #[arg(long, value_name = "N", default_value = "1.5", value_parser = margin, allow_negative_numbers = true)]
    safety_margin: Decimal,

    /// What it goes by
    #[arg(long, value_enum, default_value_t = ProfileName::Default)]
    profile: ProfileName,

    /// A report that bench wrote with --json; may be given more than once
    #[arg(long, value_name = "FILE")]
    measured: Vec<PathBuf>,

    /// Takes measurements of another build of the same version as well; the output says so
    #[arg(long)]
    other_build: bool,

    /// Prints JSON; decimals are text
    #[arg(long)]
    json: bool,
}

/// What a capacity goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProfileName {
    /// The source document's constants
    Default,
    /// What bench has measured of this program
    Measured,
}

/// Payments a second, of an option.
pub(super) fn tps(text: &str) -> Result<Decimal, Error> {
    decimal_within("payments a second", text, TPS_MIN, TPS_MAX, DEMAND_DIGITS_MAX)
}

/// A peak in times of the base, of an option.
pub(super) fn multiplier(text: &str) -> Result<Decimal, Error> {
    decimal_within("a multiplier", text, Decimal::ONE, MULTIPLIER_MAX, DEMAND_DIGITS_MAX)
}

fn margin(text: &str) -> Result<Decimal, Error> {
    decimal_within("a margin", text, Decimal::ONE, MARGIN_MAX, DEMAND_DIGITS_MAX)
}

/// Plans.
pub(crate) fn run(setting: &Setting, args: &CapacityArgs) -> anyhow::Result<Exit> {
    let demand = Demand::new(args.base_tps, args.peak_multiplier, args.safety_margin).map_err(exit::unusable)?;
    let topology = client::load(&setting.config)?;
    let prices = Prices::load(&setting.config).map_err(exit::unusable)?;
    let profile = match args.profile {
        ProfileName::Default if !args.measured.is_empty() => {
            return Err(exit::unusable("--measured: the default profile takes no measurements; add --profile measured"));
        }
        ProfileName::Default if prices.currency().code() != "USD" => {
            let message = format!(
                "prices.yaml: currency: is {}, and the default profile's 0.50 an hour are USD; use --profile measured",
                prices.currency().code()
            );
            return Err(exit::unusable(message));
        }
        ProfileName::Default => Profile::document(),
        ProfileName::Measured => {
            let measured = Measured::read(&args.measured, args.other_build)?;
            measured::profile(measured, &topology, &prices)?
        }
    };
    let rates = Rates { traffic_per_gib: prices.traffic_between_regions_per_gib(), storage_per_gib_month: prices.storage_per_gib_month() };
    let capacity = capacity::plan(&demand, &profile, &Layout::of(&topology), &rates).map_err(exit::unusable)?;
    let report = Report::new(&demand, args.profile, &profile, &capacity, prices.currency().code());
    if args.json {
        say_json(&report)?;
    } else {
        print(&report, &capacity, &profile);
    }
    Ok(if capacity.bound.as_ref().is_some_and(|bound| !bound.fits) { Exit::Failed } else { Exit::Good })
}

/// The whole as JSON. Decimals are text, so that no reader makes floats of them.
#[derive(Debug, Serialize)]
struct Report {
    profile: &'static str,
    base_tps: String,
    peak_tps: String,
    required_tps: String,
    required_instances: u64,
    required_db_connections: u64,
    required_redis_memory_gb: u64,
    estimated_cost_per_hour: String,
    estimated_cost_per_month: String,
    currency: String,
    topics: Vec<TopicReport>,
    journal_bytes_per_day: u64,
    copies_in_other_regions: String,
    cross_region_bits_per_second: u64,
    cross_region_traffic_cost_per_month: String,
    journal_day_cost_per_month: String,
    bound: Option<BoundReport>,
    sources: Vec<SourceReport>,
}

#[derive(Debug, Serialize)]
struct TopicReport {
    topic: String,
    configured_partitions: u64,
    needed_partitions: u64,
}

#[derive(Debug, Serialize)]
struct BoundReport {
    fits: bool,
    mesh_tps: String,
    /// Absent: no number of them is enough.
    leading_regions_needed: Option<u64>,
    processors: u64,
    shard_required_tps: Option<String>,
    shard_measured_tps: Option<String>,
    regions: Vec<RegionReport>,
}

#[derive(Debug, Serialize)]
struct RegionReport {
    region: String,
    shards: u64,
    required_tps: String,
    node_tps: String,
    fits: bool,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    figure: &'static str,
    value: String,
    source: String,
}

impl Report {
    fn new(demand: &Demand, name: ProfileName, profile: &Profile, capacity: &Capacity, currency: &str) -> Self {
        Self {
            profile: match name {
                ProfileName::Default => "default",
                ProfileName::Measured => "measured",
            },
            base_tps: demand.base_tps().to_string(),
            peak_tps: capacity.peak_tps.to_string(),
            required_tps: capacity.required_tps.to_string(),
            required_instances: capacity.instances,
            required_db_connections: capacity.database_connections,
            required_redis_memory_gb: capacity.redis_memory_gb,
            estimated_cost_per_hour: money(capacity.cost_per_hour),
            estimated_cost_per_month: money(capacity.cost_per_month),
            currency: currency.to_owned(),
            topics: capacity
                .topics
                .iter()
                .map(|topic| TopicReport {
                    topic: topic.topic.clone(),
                    configured_partitions: topic.configured,
                    needed_partitions: topic.needed,
                })
                .collect(),
            journal_bytes_per_day: capacity.journal_bytes_per_day,
            copies_in_other_regions: capacity.copies.to_string(),
            cross_region_bits_per_second: capacity.cross_region_bits_per_second,
            cross_region_traffic_cost_per_month: money(capacity.traffic_per_month),
            journal_day_cost_per_month: money(capacity.journal_day_per_month),
            bound: capacity.bound.as_ref().map(BoundReport::new),
            sources: sources(profile)
                .into_iter()
                .map(|(figure, of)| SourceReport { figure, value: of.value.normalize().to_string(), source: of.source.clone() })
                .collect(),
        }
    }
}

impl BoundReport {
    fn new(bound: &Bound) -> Self {
        Self {
            fits: bound.fits,
            mesh_tps: bound.mesh_tps.to_string(),
            leading_regions_needed: bound.regions_needed,
            processors: bound.processors,
            shard_required_tps: bound.shard.map(|(required, _)| shown(required)),
            shard_measured_tps: bound.shard.map(|(_, measured)| shown(measured)),
            regions: bound
                .regions
                .iter()
                .map(|load| RegionReport {
                    region: load.region.clone(),
                    shards: load.shards,
                    required_tps: shown(load.required_tps),
                    node_tps: shown(load.node_tps),
                    fits: load.fits(),
                })
                .collect(),
        }
    }
}

/// What the profile goes by, each with its name.
fn sources(profile: &Profile) -> Vec<(&'static str, &Figure)> {
    let mut all = vec![
        ("TPS of an instance", &profile.instance_tps),
        ("connections of an instance", &profile.connections_per_instance),
        ("TPS for a GB of Redis", &profile.tps_per_redis_gb),
        ("an hour of an instance", &profile.instance_per_hour),
        ("events/s of a partition", &profile.partition_events),
        ("journal bytes a payment", &profile.journal_bytes),
        ("wire bytes a payment and copy", &profile.wire_bytes),
    ];
    if let Some(writers) = &profile.writers {
        all.push(("TPS of a region's node", &writers.node_tps));
        all.extend(writers.shard_tps.as_ref().map(|figure| ("TPS of a single shard", figure)));
        all.push(("CPU seconds a million payments", &writers.cpu_seconds_per_million));
    }
    all
}

fn print(report: &Report, capacity: &Capacity, profile: &Profile) {
    let mut needs = Table::new(["needed", "amount", "unit"]);
    let mut row = |what: &str, amount: String, unit: &str| needs.row([what.to_owned(), amount, unit.to_owned()]);
    let currency = &report.currency;
    row("rate at the peak", shown(capacity.peak_tps), "payments/s");
    row("rate with the margin", shown(capacity.required_tps), "payments/s");
    row("instances", capacity.instances.to_string(), "");
    row("database connections", capacity.database_connections.to_string(), "");
    row("Redis memory", capacity.redis_memory_gb.to_string(), "GB");
    for topic in &capacity.topics {
        let has =
            if topic.needed > topic.configured { format!("regions.yaml has {}", topic.configured) } else { "as in regions.yaml".into() };
        row(&format!("Kafka partitions, {}", topic.topic), topic.needed.to_string(), &has);
    }
    row("journals, a day at the base rate", capacity.journal_bytes_per_day.to_string(), "bytes, one copy");
    row("between regions, with the margin", capacity.cross_region_bits_per_second.to_string(), "bits/s");
    row("instances, an hour", money(capacity.cost_per_hour), currency);
    row(&format!("instances, a month of {HOURS_PER_MONTH} hours"), money(capacity.cost_per_month), currency);
    row("traffic between regions, a month", money(capacity.traffic_per_month), currency);
    row("a day of journals, each month kept", money(capacity.journal_day_per_month), &format!("{currency}, all copies"));
    say!("{needs}");
    if let Some(bound) = &capacity.bound {
        print_bound(bound);
    } else {
        say!("\nThis profile scales instances without end. A shard has one writer: --profile measured says what the mesh can carry.");
    }
    say!("\nWhere each figure comes from:");
    for (name, figure) in sources(profile) {
        say!("  {name}: {}\n    {}", shown(figure.value), figure.source);
    }
    say!(
        "  copies in other regions: {}\n    regions.yaml: the regions of a zone beside the leader, on average over its shards",
        capacity.copies
    );
}

fn print_bound(bound: &Bound) {
    let mut table = Table::new(["region", "shards led", "required/s", "its node/s", "verdict"]);
    for load in &bound.regions {
        let verdict = if load.fits() { "fits" } else { "too much" };
        table.row([load.region.clone(), load.shards.to_string(), shown(load.required_tps), shown(load.node_tps), verdict.to_owned()]);
    }
    say!("\nWhat the writers can do, where users are spread evenly over shards:\n{table}");
    say!("  as its shards are led, the mesh carries {} payments/s; all of it takes {} processors", bound.mesh_tps, bound.processors);
    if let Some((required, can)) = bound.shard {
        let verdict = if required <= can { "fits" } else { "too much: a zone needs more shards, which is decided before it has users" };
        say!("  a shard must do {} of {} payments/s: {verdict}", shown(required), shown(can));
    }
    if !bound.fits {
        say!(
            "\nIt cannot carry what is required. More instances do not help: a shard has one writer, in the node of the region that leads it."
        );
        match bound.regions_needed {
            Some(regions) => say!(
                "Let {regions} regions lead shards, those of a zone evenly: make regions masters (database: regional_master) and give them shards (zones.ZONE.leaders);\n\
                 or run nodes on faster machines and measure again."
            ),
            None => say!(
                "No number of regions is enough: one shard alone is more than a node can. Zones need more shards, which is decided before they have users (zones.ZONE.shards);\n\
                 or nodes faster machines: measure again."
            ),
        }
    }
}

/// An amount of money, to the hundredth; the rest is rounded.
pub(super) fn money(value: Decimal) -> String {
    let mut rounded = value.round_dp(2);
    rounded.rescale(2);
    rounded.to_string()
}

/// A rate, short.
fn shown(value: Decimal) -> String {
    value.round_dp(3).normalize().to_string()
}
