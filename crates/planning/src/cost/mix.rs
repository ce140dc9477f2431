//! The strategy as a whole: a reserved baseline, a peak on demand, and batch work where it may be interrupted; beside all of it on demand.

use paymesh_topology::Prices;
use rust_decimal::Decimal;

use super::{
    TPS_PER_CPU,
    reserve::{priced, reservations},
};
use crate::{
    Error, HOURS_PER_MONTH,
    capacity::{DEMAND_DIGITS_MAX, MULTIPLIER_MAX, TPS_MAX, TPS_MIN},
    figure::{over, times, wholes, within},
};

/// The reservation of prices.yaml that carries the baseline.
pub const BASELINE: &str = "payment_processor";

/// A load to mix instances for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixDemand {
    base_tps: Decimal,
    peak_multiplier: Decimal,
    peak_hours: u64,
    batch_hours: u64,
}

impl MixDemand {
    /// Payments a second that are always there, so many times of it at the peak, the hours of a month that this takes, and instance-hours of batch work.
    ///
    /// # Errors
    /// The figure that is out of bounds, by the name of its option.
    pub fn new(base_tps: Decimal, peak_multiplier: Decimal, peak_hours: u64, batch_hours: u64) -> Result<Self, Error> {
        within("--peak-hours", Decimal::from(peak_hours), Decimal::ZERO, Decimal::from(HOURS_PER_MONTH), 0)?;
        within("--batch-hours", Decimal::from(batch_hours), Decimal::ZERO, Decimal::from(1_000_000), 0)?;
        Ok(Self {
            base_tps: within("--base-tps", base_tps, TPS_MIN, TPS_MAX, DEMAND_DIGITS_MAX)?,
            peak_multiplier: within("--peak-multiplier", peak_multiplier, Decimal::ONE, MULTIPLIER_MAX, DEMAND_DIGITS_MAX)?,
            peak_hours,
            batch_hours,
        })
    }
}

/// What the load takes and costs in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// Its parts: the reserved baseline, what of the baseline is not reserved, the peak, batch work.
    pub parts: Vec<Part>,
    /// A month of all of them.
    pub per_month: Decimal,
    /// A month of the same instances and hours, all on demand.
    pub on_demand_per_month: Decimal,
    /// The second less the first: negative where more is reserved than is used.
    pub saved_per_month: Decimal,
    /// The same in per cent of all on demand.
    pub saved_percent: Decimal,
}

/// Instances of one kind, bought in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What for.
    pub purpose: &'static str,
    /// How it is bought: `reserved`, `on demand`, `spot`.
    pub bought: &'static str,
    /// The kind of instance.
    pub instance_type: String,
    /// How many; of batch work none in particular.
    pub instances: Option<u64>,
    /// Hours of a month of all of them that are used.
    pub instance_hours: u64,
    /// What a month costs.
    pub per_month: Decimal,
    /// What the hours that are used would cost on demand.
    pub on_demand_per_month: Decimal,
}

/// Mixes.
///
/// # Errors
/// prices.yaml reserves nothing for `payment_processor`, has nothing that may be interrupted where batch work is asked for, or figures are too large together.
pub fn mix(demand: &MixDemand, prices: &Prices) -> Result<Mix, Error> {
    let what = "the cost of the mix";
    let reserved = reservations(prices)?.into_iter().find(|reserved| reserved.purpose == BASELINE).ok_or_else(|| {
        Error::Impossible(format!(
            "prices.yaml: reserved_instances.{BASELINE} is missing: it says what carries the baseline, and at which savings"
        ))
    })?;
    let kind = priced(prices, &reserved.instance_type, "reserved_instances.payment_processor")?;
    let each = Decimal::from(kind.cpu) * Decimal::from(TPS_PER_CPU);
    let needed = |tps: Decimal| wholes("instances", over("instances", tps, each)?);
    let base = needed(demand.base_tps)?;
    let peak = needed(times("the peak", demand.base_tps, demand.peak_multiplier)?)?;
    let hours = u64::from(HOURS_PER_MONTH);
    let count = |number: u64, hours: u64| number.checked_mul(hours).ok_or(Error::Overflow("instance-hours"));
    let on_demand = |price: Decimal, hours: u64| times(what, price, Decimal::from(hours));

    // What of the reservation is used: the baseline all month, the peak for its hours.
    let used_base = base.min(reserved.count);
    let used_peak = peak.min(reserved.count) - used_base;
    let used_hours = count(used_base, hours)?.saturating_add(count(used_peak, demand.peak_hours)?);
    let mut parts = vec![Part {
        purpose: "baseline",
        bought: "reserved",
        instance_type: kind.name.clone(),
        instances: Some(reserved.count),
        instance_hours: used_hours,
        per_month: reserved.reserved_per_month,
        on_demand_per_month: on_demand(kind.per_hour, used_hours)?,
    }];
    let beyond = base - used_base;
    let above = peak - base - used_peak;
    for (purpose, number, hours) in [("baseline beyond the reservation", beyond, hours), ("peak", above, demand.peak_hours)] {
        if number > 0 {
            let instance_hours = count(number, hours)?;
            let cost = on_demand(kind.per_hour, instance_hours)?;
            parts.push(Part {
                purpose,
                bought: "on demand",
                instance_type: kind.name.clone(),
                instances: Some(number),
                instance_hours,
                per_month: cost,
                on_demand_per_month: cost,
            });
        }
    }
    if demand.batch_hours > 0 {
        let spot = prices.spot().first().ok_or_else(|| {
            Error::Impossible(
                "prices.yaml: spot_instances is missing: it says what batch work may cost; or ask for --batch-hours 0".to_owned(),
            )
        })?;
        let kind = priced(prices, &spot.instance_type, &format!("spot_instances.{}", spot.purpose))?;
        parts.push(Part {
            purpose: "batch work",
            bought: "spot",
            instance_type: kind.name.clone(),
            instances: None,
            instance_hours: demand.batch_hours,
            per_month: on_demand(spot.max_price, demand.batch_hours)?,
            on_demand_per_month: on_demand(kind.per_hour, demand.batch_hours)?,
        });
    }
    let sum = |of: fn(&Part) -> Decimal| {
        parts.iter().map(of).try_fold(Decimal::ZERO, |sum, next| sum.checked_add(next)).ok_or(Error::Overflow(what))
    };
    let (per_month, all) = (sum(|part| part.per_month)?, sum(|part| part.on_demand_per_month)?);
    let saved = all - per_month;
    Ok(Mix {
        saved_percent: over(what, times(what, saved, Decimal::ONE_HUNDRED)?, all)?.round_dp(2).normalize(),
        per_month: per_month.normalize(),
        on_demand_per_month: all.normalize(),
        saved_per_month: saved.normalize(),
        parts,
    })
}
