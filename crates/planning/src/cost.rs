//! Which instances meet a requirement at which cost, and what to reserve: the source document's "Cost Optimization".
//!
//! [`options`] is its right-sizing: a kind of instance suits that has the processors, the memory and the payments a second, at 50 for each processor; the
//! cheapest for each payment comes first. [`reservations`] and [`mix`] are its strategy: what is always needed is reserved, the peak is on demand, and work
//! that can wait runs where it may be interrupted. Nothing is booked: these are figures.

mod mix;
mod reserve;

use paymesh_topology::Prices;
use rust_decimal::Decimal;

use crate::{
    Error,
    figure::{exact, over, times, wholes, within},
};

pub use mix::{BASELINE, Mix, MixDemand, Part, mix};
pub use reserve::{Reservation, SpotOffer, reservations, spot_offers};

/// Payments a second of a processor (source document, "Resource Right-sizing").
pub const TPS_PER_CPU: u32 = 50;
/// Processors that may be required at most.
pub const CPU_MAX: Decimal = exact(1_000_000, 0);
/// GiB that may be required at most.
pub const MEMORY_GIB_MAX: Decimal = exact(10_000_000, 0);
/// Instances of one kind at most.
pub const INSTANCES_MAX: u64 = 100_000;
/// The least that may be required of anything.
pub const LEAST: Decimal = exact(1, 3);
/// Digits after the point of what is required.
pub const DIGITS_MAX: u32 = 3;

/// What is required, of all instances together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    cpu: Decimal,
    memory_gib: Decimal,
    tps: Decimal,
    instances_max: u64,
}

impl Requirement {
    /// Processors, memory and payments a second, of so many instances at most. The source document asks one instance for all of it.
    ///
    /// # Errors
    /// The figure that is out of bounds, by the name of its option.
    pub fn new(cpu: Decimal, memory_gib: Decimal, tps: Decimal, instances_max: u64) -> Result<Self, Error> {
        within("--instances", Decimal::from(instances_max), Decimal::ONE, Decimal::from(INSTANCES_MAX), 0)?;
        Ok(Self {
            cpu: within("--cpu", cpu, LEAST, CPU_MAX, DIGITS_MAX)?,
            memory_gib: within("--memory-gib", memory_gib, LEAST, MEMORY_GIB_MAX, DIGITS_MAX)?,
            tps: within("--tps", tps, LEAST, crate::capacity::TPS_MAX, DIGITS_MAX)?,
            instances_max,
        })
    }
}

/// A kind of instance that suits, in the number that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The kind.
    pub instance_type: String,
    /// How many of it.
    pub instances: u64,
    /// Payments a second of all of them, roughly: see [`TPS_PER_CPU`].
    pub estimated_tps: u64,
    /// An hour of all of them, on demand.
    pub cost_per_hour: Decimal,
    /// The same for each payment a second that they can do.
    pub cost_per_tps: Decimal,
}

/// The kinds that suit, by their cost for each payment a second; then the cheaper hour, then the name.
///
/// # Errors
/// [`Error::Impossible`] where none does, with what the best of them lacks.
pub fn options(requirement: &Requirement, prices: &Prices) -> Result<Vec<Choice>, Error> {
    let mut choices = Vec::new();
    for kind in prices.instance_types() {
        let tps_each = Decimal::from(kind.cpu) * Decimal::from(TPS_PER_CPU);
        let needed = [
            over("instances", requirement.cpu, Decimal::from(kind.cpu))?,
            over("instances", requirement.memory_gib, kind.memory_gib)?,
            over("instances", requirement.tps, tps_each)?,
        ];
        let [by_cpu, by_memory, by_tps] = needed.map(|needed| wholes("instances", needed));
        let instances = by_cpu?.max(by_memory?).max(by_tps?);
        if instances > requirement.instances_max {
            continue;
        }
        let estimated_tps = u64::from(kind.cpu) * u64::from(TPS_PER_CPU) * instances;
        let cost_per_hour = times("the cost", kind.per_hour, Decimal::from(instances))?;
        choices.push(Choice {
            instance_type: kind.name.clone(),
            instances,
            estimated_tps,
            cost_per_hour: cost_per_hour.normalize(),
            cost_per_tps: over("the cost", cost_per_hour, Decimal::from(estimated_tps))?.normalize(),
        });
    }
    if choices.is_empty() {
        return Err(Error::Impossible(lacking(requirement, prices)));
    }
    choices.sort_by(|a, b| {
        a.cost_per_tps.cmp(&b.cost_per_tps).then(a.cost_per_hour.cmp(&b.cost_per_hour)).then_with(|| a.instance_type.cmp(&b.instance_type))
    });
    Ok(choices)
}

/// Which requirement no kind meets in the numbers allowed or, where each is met by one kind or another, that none meets all.
fn lacking(requirement: &Requirement, prices: &Prices) -> String {
    let count = Decimal::from(requirement.instances_max);
    let kinds = prices.instance_types();
    let most = |of: fn(&paymesh_topology::InstanceType) -> Decimal| kinds.iter().map(of).max().unwrap_or_default() * count;
    let (cpu, memory) = (most(|kind| Decimal::from(kind.cpu)), most(|kind| kind.memory_gib));
    let tps = cpu * Decimal::from(TPS_PER_CPU);
    let mut missing = Vec::new();
    for (option, required, most, unit) in [
        ("--cpu", requirement.cpu, cpu, "processors"),
        ("--memory-gib", requirement.memory_gib, memory, "GiB"),
        ("--tps", requirement.tps, tps, "payments a second"),
    ] {
        if required > most {
            missing.push(format!("{option} {required}: the most is {} {unit}", most.normalize()));
        }
    }
    if missing.is_empty() {
        missing.push(format!(
            "--cpu {}, --memory-gib {} and --tps {}: each is met by some kind, all of them together by none",
            requirement.cpu, requirement.memory_gib, requirement.tps
        ));
    }
    let many = match requirement.instances_max {
        1 => "no kind of instance in prices.yaml is enough by itself".to_owned(),
        many => format!("no kind of instance in prices.yaml is enough, {many} of it at most"),
    };
    format!("{many}: {}; allow more with --instances, or add a larger kind to prices.yaml", missing.join("; "))
}
