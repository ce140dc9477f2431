//! How much a traffic needs: the source document's "Traffic Estimation", and what it has no formula for, from figures that each say where they come from.
//!
//! Two profiles. The document's goes by its constants and lets instances scale without end. The measured one goes by what a benchmark of this very program
//! has shown, and knows that a shard has one writer: more instances do not carry more payments of a region, more regions that lead shards do.
//! What is not in here: calls that a region carries on to another (they pass through its edges), the audit log, and cards.

mod layout;

use rust_decimal::Decimal;

use crate::{
    Error, Figure, HOURS_PER_MONTH,
    figure::{exact, over, plus, times, wholes, within},
};

pub use layout::{Layout, Lead, TopicLayout};

/// Payments a second at most: more than all the world makes, a thousand times over.
pub const TPS_MAX: Decimal = exact(1_000_000_000, 0);
/// The least rate that is planned for.
pub const TPS_MIN: Decimal = exact(1, 3);
/// A peak at most, in times of the base; the least is 1.
pub const MULTIPLIER_MAX: Decimal = exact(1_000, 0);
/// A safety margin at most, as a factor; the least is 1.
pub const MARGIN_MAX: Decimal = exact(100, 0);
/// Digits after the point of what is demanded.
pub const DEMAND_DIGITS_MAX: u32 = 3;

const SECONDS_PER_DAY: Decimal = exact(86_400, 0);
const BYTES_PER_GIB: Decimal = exact(1_073_741_824, 0);
const SECONDS_PER_HOUR: Decimal = exact(3_600, 0);

/// The traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    base_tps: Decimal,
    peak_multiplier: Decimal,
    safety_margin: Decimal,
}

impl Demand {
    /// A traffic of `base_tps` payments a second on a usual day, so many times of it at its peak, and a margin above that.
    ///
    /// # Errors
    /// The figure that is out of bounds, by the name of its option.
    pub fn new(base_tps: Decimal, peak_multiplier: Decimal, safety_margin: Decimal) -> Result<Self, Error> {
        Ok(Self {
            base_tps: within("--base-tps", base_tps, TPS_MIN, TPS_MAX, DEMAND_DIGITS_MAX)?,
            peak_multiplier: within("--peak-multiplier", peak_multiplier, Decimal::ONE, MULTIPLIER_MAX, DEMAND_DIGITS_MAX)?,
            safety_margin: within("--safety-margin", safety_margin, Decimal::ONE, MARGIN_MAX, DEMAND_DIGITS_MAX)?,
        })
    }

    /// Payments a second on a usual day.
    pub fn base_tps(&self) -> Decimal {
        self.base_tps
    }

    /// Payments a second at the peak.
    pub fn peak_tps(&self) -> Decimal {
        // At most 10^12 with six digits after the point: within a decimal's 28.
        self.base_tps * self.peak_multiplier
    }

    /// Payments a second that are planned for.
    pub fn required_tps(&self) -> Decimal {
        // At most 10^14 with nine digits after the point.
        self.peak_tps() * self.safety_margin
    }
}

/// What a plan goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Payments a second of an instance.
    pub instance_tps: Figure,
    /// Database connections of an instance.
    pub connections_per_instance: Figure,
    /// Payments a second for each GB of Redis.
    pub tps_per_redis_gb: Figure,
    /// An hour of an instance.
    pub instance_per_hour: Figure,
    /// Events a second of a Kafka partition.
    pub partition_events: Figure,
    /// Bytes of the journal for a payment.
    pub journal_bytes: Figure,
    /// Bytes that go to one copy in another region for a payment.
    pub wire_bytes: Figure,
    /// What was measured of the writers. `None`: nothing was, and nothing is said of them.
    pub writers: Option<Writers>,
}

/// What one process can do that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writers {
    /// Payments a second of a region's node, with all the shards that it leads.
    pub node_tps: Figure,
    /// Payments a second of a node that leads a single shard, where that was measured.
    pub shard_tps: Option<Figure>,
    /// Processor seconds of a million payments.
    pub cpu_seconds_per_million: Figure,
}

impl Profile {
    /// The source document's constants ("Traffic Estimation"), and this project's measurements for what it has none of.
    pub fn document() -> Self {
        let says = |what: &str| format!("source document, \"Traffic Estimation\": {what}");
        Self {
            instance_tps: Figure::new(exact(100, 0), says("100 TPS an instance")),
            connections_per_instance: Figure::new(exact(10, 0), says("10 connections an instance")),
            tps_per_redis_gb: Figure::new(exact(1_000, 0), says("1 GB for each 1,000 TPS")),
            instance_per_hour: Figure::new(exact(50, 2), says("0.50 USD an instance and hour")),
            partition_events: Figure::new(
                exact(1_000, 0),
                "an assumption: one event a payment in each topic, which is the most, and 1,000 events a second for each partition, as a consumer that commits each to a database takes them",
            ),
            journal_bytes: Figure::new(
                exact(1_000, 0),
                "an assumption on the safe side: in short runs of bench the journal's file grew by some 70 bytes a payment in batches and by up to 900 call by call",
            ),
            wire_bytes: Figure::new(
                exact(68, 0),
                "bench/README.md, \"Replication\": 68 bytes on the wire for a payment and copy, in batches of 1,024",
            ),
            writers: None,
        }
    }
}

/// Prices that a capacity goes by, and a GiB is 2^30 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// A GiB from one region to another.
    pub traffic_per_gib: Decimal,
    /// A GiB kept for a month.
    pub storage_per_gib_month: Decimal,
}

/// What a traffic needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Payments a second at the peak.
    pub peak_tps: Decimal,
    /// Payments a second with the margin.
    pub required_tps: Decimal,
    /// Instances.
    pub instances: u64,
    /// Database connections.
    pub database_connections: u64,
    /// GB of Redis.
    pub redis_memory_gb: u64,
    /// Partitions by topic, those that region-config has and those that are needed.
    pub topics: Vec<Partitions>,
    /// Bytes that all journals grow by on a usual day, one copy of each.
    pub journal_bytes_per_day: u64,
    /// Copies in other regions of a payment's entries, on average over the shards.
    pub copies: Decimal,
    /// Bits a second between regions, at the rate that is planned for.
    pub cross_region_bits_per_second: u64,
    /// Instances, an hour.
    pub cost_per_hour: Decimal,
    /// The same for a month.
    pub cost_per_month: Decimal,
    /// Traffic between regions in a month of usual days.
    pub traffic_per_month: Decimal,
    /// What one more day of journals costs for each month that it is kept, all copies.
    pub journal_day_per_month: Decimal,
    /// What the writers can do, where that was measured.
    pub bound: Option<Bound>,
}

/// A topic's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// The topic.
    pub topic: String,
    /// In regions.yaml.
    pub configured: u64,
    /// That the rate needs.
    pub needed: u64,
}

/// What the mesh can carry as its shards are led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// What is required of each region that leads shards, where users are spread evenly over them, in the order of the file.
    pub regions: Vec<Load>,
    /// Payments a second at which the first of them is full.
    pub mesh_tps: Decimal,
    /// Regions that must lead, each of one zone and those evenly, for what is required. `None`: a shard alone is more than a node can, however many there are.
    pub regions_needed: Option<u64>,
    /// Payments a second that one shard must do, and can, where that was measured.
    pub shard: Option<(Decimal, Decimal)>,
    /// Processors that the payments take, all regions together, at the rate that is planned for.
    pub processors: u64,
    /// Whether all of it fits.
    pub fits: bool,
}

/// A region's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The region.
    pub region: String,
    /// The shards that it leads.
    pub shards: u64,
    /// Payments a second that it must do.
    pub required_tps: Decimal,
    /// That its node can.
    pub node_tps: Decimal,
}

impl Load {
    /// Whether its node can do it.
    pub fn fits(&self) -> bool {
        self.required_tps <= self.node_tps
    }
}

/// Plans.
///
/// # Errors
/// Figures that are too large together.
pub fn plan(demand: &Demand, profile: &Profile, layout: &Layout, rates: &Rates) -> Result<Capacity, Error> {
    let required = demand.required_tps();
    let instances = wholes("the number of instances", over("the number of instances", required, profile.instance_tps.value)?)?;
    let of_instances = |what, each: Decimal| times(what, Decimal::from(instances), each);
    let partitions = wholes("the number of partitions", over("the number of partitions", required, profile.partition_events.value)?)?;
    let topics = layout
        .topics
        .iter()
        .map(|topic| Partitions {
            topic: topic.name.clone(),
            configured: topic.partitions,
            // Partitions can be added and never taken away: what is there stays.
            needed: topic.partitions.max(partitions),
        })
        .collect();
    let journal = times("a day's journal", times("a day's journal", demand.base_tps, profile.journal_bytes.value)?, SECONDS_PER_DAY)?;
    let copies = layout.copies()?;
    let wire = |tps: Decimal| times("the traffic between regions", times("the traffic", tps, profile.wire_bytes.value)?, copies);
    let cost_per_hour = of_instances("the cost", profile.instance_per_hour.value)?;
    let gib = |bytes: Decimal| over("GiB", bytes, BYTES_PER_GIB);
    let month_bytes = times("a month's traffic", wire(demand.base_tps)?, SECONDS_PER_HOUR * Decimal::from(HOURS_PER_MONTH))?;
    let kept = times("the journals", journal, plus("copies", copies, Decimal::ONE)?)?;
    Ok(Capacity {
        peak_tps: demand.peak_tps().normalize(),
        required_tps: required.normalize(),
        instances,
        database_connections: wholes("the connections", of_instances("the connections", profile.connections_per_instance.value)?)?,
        redis_memory_gb: wholes("the memory", over("the memory", required, profile.tps_per_redis_gb.value)?)?,
        topics,
        journal_bytes_per_day: wholes("a day's journal", journal)?,
        copies: copies.round_dp(3).normalize(),
        cross_region_bits_per_second: wholes("the bandwidth", times("the bandwidth", wire(required)?, exact(8, 0))?)?,
        cost_per_hour,
        cost_per_month: times("the cost", cost_per_hour, Decimal::from(HOURS_PER_MONTH))?,
        traffic_per_month: times("the traffic's cost", gib(month_bytes)?, rates.traffic_per_gib)?,
        journal_day_per_month: times("the journals' cost", gib(kept)?, rates.storage_per_gib_month)?,
        bound: profile.writers.as_ref().map(|writers| bound(required, writers, layout)).transpose()?,
    })
}

/// A shard is led whole: a region can lead so many that are within its node's rate, and a zone needs a region for each so many of its own.
fn regions_needed(required: Decimal, node: Decimal, layout: &Layout) -> Result<Option<u64>, Error> {
    let shards = Decimal::from(layout.shards().max(1));
    let each = over("shards of a region", times("shards of a region", node, shards)?, required)?.floor();
    if each < Decimal::ONE {
        return Ok(None);
    }
    let mut regions = 0_u64;
    for (shards, _) in &layout.zones {
        regions = regions.saturating_add(wholes("regions", over("regions", Decimal::from(*shards), each)?)?);
    }
    Ok(Some(regions))
}

/// Users are spread evenly over shards by their ids; over zones they are as many as their shards, which is for the operator to see to.
fn bound(required: Decimal, writers: &Writers, layout: &Layout) -> Result<Bound, Error> {
    let shards = Decimal::from(layout.shards().max(1));
    let node = writers.node_tps.value;
    let of = |led: u64| over("a region's share", times("a region's share", required, Decimal::from(led))?, shards);
    let mut regions = Vec::new();
    for lead in &layout.leads {
        regions.push(Load { region: lead.region.clone(), shards: lead.shards, required_tps: of(lead.shards)?, node_tps: node });
    }
    let fullest = Decimal::from(layout.leads.iter().map(|lead| lead.shards).max().unwrap_or(1).max(1));
    let shard = match &writers.shard_tps {
        Some(figure) => Some((of(1)?, figure.value)),
        None => None,
    };
    let processors = over("processors", times("processors", required, writers.cpu_seconds_per_million.value)?, exact(1_000_000, 0))?;
    Ok(Bound {
        fits: regions.iter().all(Load::fits) && shard.is_none_or(|(needed, can)| needed <= can),
        regions,
        mesh_tps: over("the mesh's rate", times("the mesh's rate", node, shards)?, fullest)?.floor(),
        regions_needed: regions_needed(required, node, layout)?,
        shard,
        processors: wholes("processors", processors)?,
    })
}
