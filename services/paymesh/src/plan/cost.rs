//! `paymesh plan cost`: which instances meet a requirement, what to reserve, and what a load costs by that strategy.

use paymesh_planning::{
    Error, HOURS_PER_MONTH,
    capacity::TPS_MAX,
    cost::{self, CPU_MAX, Choice, DIGITS_MAX, LEAST, MEMORY_GIB_MAX, Mix, MixDemand, Requirement, Reservation, SpotOffer, TPS_PER_CPU},
    decimal_within,
};
use paymesh_topology::Prices;
use rust_decimal::Decimal;
use serde::Serialize;

use super::capacity::{money, multiplier, tps};
use crate::{
    args::Setting,
    exit::{self, Exit},
    output::{Table, say_json},
    say,
};

/// `paymesh plan cost`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A kind of instance of prices.yaml suits that has the processors and the memory, and
50 payments a second for each processor (source document, \"Resource
Right-sizing\"). The cheapest for each payment a second comes first; then the
cheaper hour, then the name. The document asks one instance for all of it; with
--instances N, several of one kind may meet it together.

A reservation is paid whether it is used or not. It breaks even at so many hours of
a month that each of its instances is used for; and, where part is paid at the
start, after so many months of full use, when on demand would have cost as much.

The mix is the document's strategy for a load: the reservation `payment_processor`
carries the baseline, what is above it is on demand, and batch work takes the first
of spot_instances at its highest price. The hours of peak and batch work are
assumptions to replace: two hours a day, and four instance-hours a day.

Examples:
  paymesh plan cost --cpu 2 --memory-gib 4 --tps 100
  paymesh plan cost --cpu 16 --memory-gib 32 --tps 800 --instances 10
  paymesh plan cost --cpu 2 --memory-gib 4 --tps 100 --base-tps 2000 --peak-hours 40

Exit codes:
  0  it is printed
  2  nothing meets the requirement, and it says what is missing; or an option or
     prices.yaml cannot be used")]
pub(crate) struct CostArgs {
    /// Processors
    #[arg(long, value_name = "N", value_parser = cpu, allow_negative_numbers = true)]
    cpu: Decimal,

    /// Memory in GiB
    #[arg(long, value_name = "N", value_parser = memory, allow_negative_numbers = true)]
    memory_gib: Decimal,

    /// Payments a second
    #[arg(long, value_name = "N", value_parser = required_tps, allow_negative_numbers = true)]
    tps: Decimal,

    /// So many instances of one kind may meet it together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=cost::INSTANCES_MAX), allow_negative_numbers = true)]
    instances: u64,

    /// Of the mix: payments a second on a usual day
    #[arg(long, value_name = "N", default_value = "1000", value_parser = tps, allow_negative_numbers = true)]
    base_tps: Decimal,

    /// Of the mix: how many times of it there are at the peak
    #[arg(long, value_name = "N", default_value = "10", value_parser = multiplier, allow_negative_numbers = true)]
    peak_multiplier: Decimal,

    /// Of the mix: hours of a month at the peak
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=730), allow_negative_numbers = true)]
    peak_hours: u64,

    /// Of the mix: instance-hours of batch work in a month
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=1_000_000), allow_negative_numbers = true)]
    batch_hours: u64,

    /// Prints JSON; decimals are text
    #[arg(long)]
    json: bool,
}

fn cpu(text: &str) -> Result<Decimal, Error> {
    decimal_within("processors", text, LEAST, CPU_MAX, DIGITS_MAX)
}

fn memory(text: &str) -> Result<Decimal, Error> {
    decimal_within("GiB", text, LEAST, MEMORY_GIB_MAX, DIGITS_MAX)
}

fn required_tps(text: &str) -> Result<Decimal, Error> {
    decimal_within("payments a second", text, LEAST, TPS_MAX, DIGITS_MAX)
}

/// Plans.
pub(crate) fn run(setting: &Setting, args: &CostArgs) -> anyhow::Result<Exit> {
    let requirement = Requirement::new(args.cpu, args.memory_gib, args.tps, args.instances).map_err(exit::unusable)?;
    let demand = MixDemand::new(args.base_tps, args.peak_multiplier, args.peak_hours, args.batch_hours).map_err(exit::unusable)?;
    let prices = Prices::load(&setting.config).map_err(exit::unusable)?;
    let options = cost::options(&requirement, &prices).map_err(exit::unusable)?;
    let reservations = cost::reservations(&prices).map_err(exit::unusable)?;
    let spot = cost::spot_offers(&prices).map_err(exit::unusable)?;
    // Without a reservation for it there is no such strategy; the rest is said all the same.
    let mix = prices
        .reserved()
        .iter()
        .any(|reserved| reserved.purpose == cost::BASELINE)
        .then(|| cost::mix(&demand, &prices))
        .transpose()
        .map_err(exit::unusable)?;
    let currency = prices.currency().code();
    if args.json {
        say_json(&Report::new(currency, &options, &reservations, &spot, mix.as_ref()))?;
    } else {
        print(currency, &options, &reservations, &spot);
        match &mix {
            Some(mix) => print_mix(currency, args, mix),
            None => say!("\nprices.yaml reserves nothing for `{}`: there is no mix to show", cost::BASELINE),
        }
    }
    Ok(Exit::Good)
}

/// The whole as JSON. Decimals are text, so that no reader makes floats of them.
#[derive(Debug, Serialize)]
struct Report {
    currency: String,
    options: Vec<OptionReport>,
    reserved: Vec<ReservedReport>,
    spot: Vec<SpotReport>,
    mix: Option<MixReport>,
}

#[derive(Debug, Serialize)]
struct OptionReport {
    #[serde(rename = "type")]
    kind: String,
    instances: u64,
    estimated_tps: u64,
    cost_per_hour: String,
    cost_per_tps: String,
}

#[derive(Debug, Serialize)]
struct ReservedReport {
    purpose: String,
    instance_type: String,
    count: u64,
    term: &'static str,
    payment_option: &'static str,
    on_demand_per_month: String,
    reserved_per_month: String,
    upfront: String,
    then_per_month: String,
    saved_over_term: String,
    break_even_hours_per_month: String,
    break_even_months: String,
}

#[derive(Debug, Serialize)]
struct SpotReport {
    purpose: String,
    instance_type: String,
    on_demand_per_hour: String,
    max_price: String,
    savings_percent_min: String,
}

#[derive(Debug, Serialize)]
struct MixReport {
    per_month: String,
    on_demand_per_month: String,
    saved_per_month: String,
    saved_percent: String,
    parts: Vec<PartReport>,
}

#[derive(Debug, Serialize)]
struct PartReport {
    purpose: &'static str,
    bought: &'static str,
    instance_type: String,
    instances: Option<u64>,
    instance_hours: u64,
    per_month: String,
    on_demand_per_month: String,
}

impl Report {
    fn new(currency: &str, options: &[Choice], reservations: &[Reservation], spot: &[SpotOffer], mix: Option<&Mix>) -> Self {
        let options = options.iter().map(|choice| OptionReport {
            kind: choice.instance_type.clone(),
            instances: choice.instances,
            estimated_tps: choice.estimated_tps,
            cost_per_hour: choice.cost_per_hour.to_string(),
            cost_per_tps: choice.cost_per_tps.to_string(),
        });
        let reserved = reservations.iter().map(|reservation| ReservedReport {
            purpose: reservation.purpose.clone(),
            instance_type: reservation.instance_type.clone(),
            count: reservation.count,
            term: reservation.term.as_str(),
            payment_option: reservation.payment_option.as_str(),
            on_demand_per_month: money(reservation.on_demand_per_month),
            reserved_per_month: money(reservation.reserved_per_month),
            upfront: money(reservation.upfront),
            then_per_month: money(reservation.then_per_month),
            saved_over_term: money(reservation.saved_over_term),
            break_even_hours_per_month: reservation.break_even_hours_per_month.to_string(),
            break_even_months: reservation.break_even_months.to_string(),
        });
        let spot = spot.iter().map(|offer| SpotReport {
            purpose: offer.purpose.clone(),
            instance_type: offer.instance_type.clone(),
            on_demand_per_hour: offer.on_demand_per_hour.to_string(),
            max_price: offer.max_price.to_string(),
            savings_percent_min: offer.savings_percent_min.to_string(),
        });
        let mix = mix.map(|mix| MixReport {
            per_month: money(mix.per_month),
            on_demand_per_month: money(mix.on_demand_per_month),
            saved_per_month: money(mix.saved_per_month),
            saved_percent: mix.saved_percent.to_string(),
            parts: mix
                .parts
                .iter()
                .map(|part| PartReport {
                    purpose: part.purpose,
                    bought: part.bought,
                    instance_type: part.instance_type.clone(),
                    instances: part.instances,
                    instance_hours: part.instance_hours,
                    per_month: money(part.per_month),
                    on_demand_per_month: money(part.on_demand_per_month),
                })
                .collect(),
        });
        Self { currency: currency.to_owned(), options: options.collect(), reserved: reserved.collect(), spot: spot.collect(), mix }
    }
}

fn print(currency: &str, options: &[Choice], reservations: &[Reservation], spot: &[SpotOffer]) {
    let mut table = Table::new(["type", "instances", "estimated TPS", "an hour", "an hour for each TPS"]);
    for choice in options {
        table.row([
            choice.instance_type.clone(),
            choice.instances.to_string(),
            choice.estimated_tps.to_string(),
            choice.cost_per_hour.to_string(),
            choice.cost_per_tps.round_dp(9).normalize().to_string(),
        ]);
    }
    say!("What suits, the cheapest for each payment a second first ({currency}; {TPS_PER_CPU} TPS a processor):\n{table}");
    let mut table =
        Table::new(["reserved for", "what", "term", "a month", "on demand", "at the start", "then a month", "pays from", "after"]);
    for reservation in reservations {
        table.row([
            reservation.purpose.clone(),
            format!("{} x {}", reservation.count, reservation.instance_type),
            format!("{} {}", reservation.term, reservation.payment_option),
            money(reservation.reserved_per_month),
            money(reservation.on_demand_per_month),
            money(reservation.upfront),
            money(reservation.then_per_month),
            format!("{} of {HOURS_PER_MONTH} h used", reservation.break_even_hours_per_month),
            format!("{} months", reservation.break_even_months),
        ]);
    }
    if !table.is_empty() {
        say!("\nWhat is reserved ({currency}), and when it has paid:\n{table}");
    }
    let mut table = Table::new(["may be interrupted", "what", "an hour at most", "on demand", "saves at least"]);
    for offer in spot {
        table.row([
            offer.purpose.clone(),
            offer.instance_type.clone(),
            offer.max_price.to_string(),
            offer.on_demand_per_hour.to_string(),
            format!("{} %", offer.savings_percent_min),
        ]);
    }
    if !table.is_empty() {
        say!("\nWork that can wait ({currency}):\n{table}");
    }
}

fn print_mix(currency: &str, args: &CostArgs, mix: &Mix) {
    let mut table = Table::new(["part", "bought", "type", "instances", "hours used", "a month", "on demand"]);
    for part in &mix.parts {
        table.row([
            part.purpose.to_owned(),
            part.bought.to_owned(),
            part.instance_type.clone(),
            part.instances.map_or_else(|| "-".to_owned(), |instances| instances.to_string()),
            part.instance_hours.to_string(),
            money(part.per_month),
            money(part.on_demand_per_month),
        ]);
    }
    say!(
        "\nThe mix for {} payments/s, {} times that for {} hours a month, {} instance-hours of batch work ({currency}):\n{table}",
        args.base_tps,
        args.peak_multiplier,
        args.peak_hours,
        args.batch_hours
    );
    say!(
        "  {} a month; all on demand {}: {} saved, {} %",
        money(mix.per_month),
        money(mix.on_demand_per_month),
        money(mix.saved_per_month),
        mix.saved_percent
    );
}
