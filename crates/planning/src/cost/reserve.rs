//! What reservations and interruptible instances save, and when a reservation has paid.
//!
//! A reservation is paid for all hours of its term, used or not. So there are two points at which it breaks even: the hours of a month that an instance
//! must be used for, below which on demand is cheaper; and, where part is paid at the start, the month in which what was spent on demand would have caught up.

use paymesh_topology::{InstanceType, PaymentOption, Prices, Reserved, Term};
use rust_decimal::Decimal;

use crate::{
    Error, HOURS_PER_MONTH,
    figure::{over, times},
};

/// A reservation of prices.yaml, all of its instances together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What for.
    pub purpose: String,
    /// The kind of instance.
    pub instance_type: String,
    /// How many.
    pub count: u64,
    /// For how long.
    pub term: Term,
    /// When it is paid.
    pub payment_option: PaymentOption,
    /// A month of the same hours on demand.
    pub on_demand_per_month: Decimal,
    /// A month of it, what was paid at the start spread over the term.
    pub reserved_per_month: Decimal,
    /// What is paid at the start.
    pub upfront: Decimal,
    /// What is paid each month after that.
    pub then_per_month: Decimal,
    /// What the whole term saves, where every hour is used.
    pub saved_over_term: Decimal,
    /// Hours of a month that each instance must be used for; below, on demand is cheaper.
    pub break_even_hours_per_month: Decimal,
    /// Months of full use after which on demand would have cost what has been paid.
    pub break_even_months: Decimal,
}

/// Instances that may be taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpotOffer {
    /// What for.
    pub purpose: String,
    /// The kind of instance.
    pub instance_type: String,
    /// An hour on demand.
    pub on_demand_per_hour: Decimal,
    /// An hour at most.
    pub max_price: Decimal,
    /// What is saved at least, in per cent of on demand.
    pub savings_percent_min: Decimal,
}

/// All reservations, in the order of the file.
///
/// # Errors
/// A kind without a price, or figures that are too large together.
pub fn reservations(prices: &Prices) -> Result<Vec<Reservation>, Error> {
    prices.reserved().iter().map(|reserved| reservation(reserved, prices)).collect()
}

/// All that may be interrupted, in the order of the file.
///
/// # Errors
/// As of [`reservations`].
pub fn spot_offers(prices: &Prices) -> Result<Vec<SpotOffer>, Error> {
    let hundred = Decimal::ONE_HUNDRED;
    prices
        .spot()
        .iter()
        .map(|spot| {
            let kind = priced(prices, &spot.instance_type, &format!("spot_instances.{}", spot.purpose))?;
            let share = over("savings", times("savings", spot.max_price, hundred)?, kind.per_hour)?;
            Ok(SpotOffer {
                purpose: spot.purpose.clone(),
                instance_type: spot.instance_type.clone(),
                on_demand_per_hour: kind.per_hour,
                max_price: spot.max_price,
                savings_percent_min: (hundred - share).round_dp(2).normalize(),
            })
        })
        .collect()
}

fn reservation(reserved: &Reserved, prices: &Prices) -> Result<Reservation, Error> {
    let what = "the reservation's cost";
    let kind = priced(prices, &reserved.instance_type, &format!("reserved_instances.{}", reserved.purpose))?;
    let (hours, months) = (Decimal::from(HOURS_PER_MONTH), Decimal::from(reserved.term.months()));
    let percent = |of: Decimal, percent: u32| over(what, times(what, of, Decimal::from(percent))?, Decimal::ONE_HUNDRED);
    let on_demand_per_month = times(what, times(what, kind.per_hour, Decimal::from(reserved.count))?, hours)?;
    let reserved_per_month = percent(on_demand_per_month, 100 - reserved.savings_percent)?;
    let whole = times(what, reserved_per_month, months)?;
    let upfront = percent(whole, reserved.payment_option.upfront_percent())?;
    let then_per_month = over(what, whole - upfront, months)?;
    Ok(Reservation {
        purpose: reserved.purpose.clone(),
        instance_type: reserved.instance_type.clone(),
        count: reserved.count,
        term: reserved.term,
        payment_option: reserved.payment_option,
        on_demand_per_month: on_demand_per_month.normalize(),
        reserved_per_month: reserved_per_month.normalize(),
        upfront: upfront.normalize(),
        then_per_month: then_per_month.normalize(),
        saved_over_term: (times(what, on_demand_per_month, months)? - whole).normalize(),
        break_even_hours_per_month: percent(hours, 100 - reserved.savings_percent)?.normalize(),
        // What is paid each month is less than on demand: at least one per cent is saved.
        break_even_months: over(what, upfront, on_demand_per_month - then_per_month)?.round_dp(2).normalize(),
    })
}

/// A kind of instance, which something names.
pub(super) fn priced<'a>(prices: &'a Prices, name: &str, needed_by: &str) -> Result<&'a InstanceType, Error> {
    prices.instance_type(name).ok_or_else(|| Error::Unpriced { name: name.to_owned(), needed_by: needed_by.to_owned() })
}
