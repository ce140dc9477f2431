//! Which instances suit and what is reserved: the source document's table, and what must hold of any prices.

#![forbid(unsafe_code)]

use paymesh_planning::{
    Error, HOURS_PER_MONTH,
    cost::{Choice, MixDemand, Requirement, mix, options, reservations, spot_offers},
};
use paymesh_topology::Prices;
use proptest::prelude::*;
use rust_decimal::Decimal;

/// The source document's, and no more: "Resource Right-sizing" and "Reserved Capacity Planning".
const DOCUMENT: &str = r#"
currency: USD
instance_types:
  t3.medium: {cpu: 2, memory_gib: 4, per_hour: "0.0416"}
  t3.large: {cpu: 2, memory_gib: 8, per_hour: "0.0832"}
  c5.large: {cpu: 2, memory_gib: 4, per_hour: "0.085"}
  c5.xlarge: {cpu: 4, memory_gib: 8, per_hour: "0.17"}
  m5.large: {cpu: 1, memory_gib: 1, per_hour: "0.1"}
reserved_instances:
  payment_processor: {instance_type: c5.large, count: 10, term: 1_year, payment_option: partial_upfront, savings_percent: 40}
spot_instances:
  fraud_analysis: {instance_type: m5.large, max_price: "0.05", interruption_handling: graceful_shutdown}
traffic: {between_regions_per_gib: "0.02"}
storage: {per_gib_month: "0.115"}
"#;

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

fn prices() -> Prices {
    Prices::parse("prices.yaml", DOCUMENT).expect("prices")
}

fn requirement(cpu: &str, memory: &str, tps: &str, instances: u64) -> Requirement {
    Requirement::new(decimal(cpu), decimal(memory), decimal(tps), instances).expect("a requirement")
}

fn kinds(choices: &[Choice]) -> Vec<(&str, u64)> {
    choices.iter().map(|choice| (choice.instance_type.as_str(), choice.instances)).collect()
}

#[test]
fn the_documents_table_is_sorted_by_cost_for_each_tps() {
    let choices = options(&requirement("2", "4", "100", 1), &prices()).expect("some suit");
    let rows: Vec<_> = choices.iter().map(|of| (of.instance_type.as_str(), of.estimated_tps, of.cost_per_hour, of.cost_per_tps)).collect();
    // c5.large and c5.xlarge cost the same for each: the cheaper hour comes first, as in the document's order.
    assert_eq!(
        rows,
        [
            ("t3.medium", 100, decimal("0.0416"), decimal("0.000416")),
            ("t3.large", 100, decimal("0.0832"), decimal("0.000832")),
            ("c5.large", 100, decimal("0.085"), decimal("0.00085")),
            ("c5.xlarge", 200, decimal("0.17"), decimal("0.00085")),
        ]
    );
}

#[test]
fn a_kind_suits_that_has_all_of_what_is_required() {
    for (cpu, memory, tps, instances, wanted) in [
        ("3", "4", "100", 1, vec![("c5.xlarge", 1)]),
        ("2", "8", "100", 1, vec![("t3.large", 1), ("c5.xlarge", 1)]),
        ("2", "4", "101", 1, vec![("c5.xlarge", 1)]),
        ("2", "4", "200", 1, vec![("c5.xlarge", 1)]),
        ("2", "4", "200", 2, vec![("t3.medium", 2), ("t3.large", 2), ("c5.large", 2), ("c5.xlarge", 1)]),
        ("16", "8", "1", 4, vec![("c5.xlarge", 4)]),
    ] {
        let choices = options(&requirement(cpu, memory, tps, instances), &prices()).expect("some suit");
        assert_eq!(kinds(&choices), wanted, "{cpu} {memory} {tps} {instances}");
    }
}

#[test]
fn an_impossible_requirement_is_refused_with_what_is_missing() {
    for (cpu, memory, tps, instances, wanted) in [
        ("5", "4", "100", 1, "--cpu 5: the most is 4 processors"),
        ("2", "9", "100", 1, "--memory-gib 9: the most is 8 GiB"),
        ("2", "4", "201", 1, "--tps 201: the most is 200 payments a second"),
        ("9", "4", "401", 2, "--cpu 9: the most is 8 processors; --tps 401: the most is 400 payments a second"),
    ] {
        let error = options(&requirement(cpu, memory, tps, instances), &prices()).expect_err(wanted).to_string();
        assert!(error.contains(wanted) && error.contains("--instances"), "{error}");
        assert!(error.matches("the most is").count() == wanted.matches("the most is").count(), "only what is missing: {error}");
    }
    // Each by one kind, all by none.
    let apart = DOCUMENT.replace("c5.xlarge: {cpu: 4, memory_gib: 8", "c5.xlarge: {cpu: 4, memory_gib: 2");
    let apart = Prices::parse("prices.yaml", &apart).expect("prices");
    let error = options(&requirement("4", "8", "100", 1), &apart).expect_err("none suits").to_string();
    assert!(error.contains("each is met by some kind, all of them together by none"), "{error}");
}

#[test]
fn requirements_out_of_bounds_are_refused_by_the_name_of_their_option() {
    for (cpu, memory, tps, instances, named) in [
        ("0", "4", "100", 1, "--cpu"),
        ("-2", "4", "100", 1, "--cpu"),
        ("1000001", "4", "100", 1, "--cpu"),
        ("2", "0", "100", 1, "--memory-gib"),
        ("2", "4", "0", 1, "--tps"),
        ("2", "4", "1000000001", 1, "--tps"),
        ("2", "4", "100", 0, "--instances"),
        ("2", "4", "100", 100_001, "--instances"),
    ] {
        let error = Requirement::new(decimal(cpu), decimal(memory), decimal(tps), instances).expect_err(named);
        assert!(matches!(error, Error::Bounds { name, .. } if name == named), "{error}");
    }
}

/// 10 x 0.085 x 730 hours is 620.50 on demand, 372.30 at 40 % less: 4,467.60 a year, half of it at the start.
#[test]
fn the_documents_reservation_saves_what_it_says_and_pays_from_438_hours() {
    let all = reservations(&prices()).expect("priced");
    let [reserved] = all.as_slice() else { panic!("one: {all:?}") };
    assert_eq!((reserved.on_demand_per_month, reserved.reserved_per_month), (decimal("620.5"), decimal("372.3")));
    assert_eq!((reserved.upfront, reserved.then_per_month), (decimal("2233.8"), decimal("186.15")));
    assert_eq!(reserved.saved_over_term, decimal("2978.4"));
    assert_eq!((reserved.break_even_hours_per_month, reserved.break_even_months), (decimal("438"), decimal("5.14")));
    let spot = spot_offers(&prices()).expect("priced");
    assert_eq!((spot[0].max_price, spot[0].savings_percent_min), (decimal("0.05"), decimal("50")));
}

#[test]
fn the_strategy_reserves_the_baseline_and_buys_the_peak_by_the_hour() {
    let of = |base: &str, peak: &str, hours, batch| {
        mix(&MixDemand::new(decimal(base), decimal(peak), hours, batch).expect("a load"), &prices()).expect("a mix")
    };
    // 10 instances all month, 90 more for 60 hours, and batch work at half of its price.
    let plan = of("1000", "10", 60, 120);
    let parts: Vec<_> = plan.parts.iter().map(|part| (part.purpose, part.bought, part.instances, part.per_month)).collect();
    assert_eq!(
        parts,
        [
            ("baseline", "reserved", Some(10), decimal("372.3")),
            ("peak", "on demand", Some(90), decimal("459")),
            ("batch work", "spot", None, decimal("6")),
        ]
    );
    assert_eq!((plan.per_month, plan.on_demand_per_month, plan.saved_per_month), (decimal("837.3"), decimal("1091.5"), decimal("254.2")));
    assert_eq!(plan.saved_percent, decimal("23.29"));
    // A baseline beyond the reservation is on demand all month.
    let plan = of("1200", "1", 60, 0);
    assert_eq!(
        plan.parts.iter().map(|part| (part.purpose, part.instances, part.instance_hours)).collect::<Vec<_>>(),
        [("baseline", Some(10), 7_300), ("baseline beyond the reservation", Some(2), 1_460)]
    );
    // What is reserved and hardly used costs more than it saves, and that is said.
    let plan = of("100", "1", 0, 0);
    assert_eq!((plan.per_month, plan.on_demand_per_month), (decimal("372.3"), decimal("62.05")));
    assert!(plan.saved_per_month < Decimal::ZERO && plan.saved_percent == decimal("-500"), "{plan:?}");
    // The peak uses what is reserved before it buys more.
    let plan = of("500", "3", 100, 0);
    assert_eq!(
        plan.parts.iter().map(|part| (part.instances, part.instance_hours)).collect::<Vec<_>>(),
        [(Some(10), 5 * 730 + 5 * 100), (Some(5), 500)]
    );
}

#[test]
fn the_baseline_has_its_reservation_by_name_and_batch_work_the_first_spot_offer() {
    let more = DOCUMENT
        .replace(
            "reserved_instances:\n",
            "reserved_instances:\n  database: {instance_type: c5.xlarge, count: 2, term: 3_year, payment_option: all_upfront, savings_percent: 60}\n",
        )
        .replace(
            "interruption_handling: graceful_shutdown}\n",
            "interruption_handling: graceful_shutdown}\n  reports: {instance_type: c5.large, max_price: \"0.04\", interruption_handling: graceful_shutdown}\n",
        );
    let prices = Prices::parse("prices.yaml", &more).expect("prices");
    assert_eq!((prices.reserved().len(), prices.spot().len()), (2, 2));
    let plan = mix(&MixDemand::new(decimal("1000"), decimal("1"), 0, 100).expect("a load"), &prices).expect("a mix");
    let parts: Vec<_> = plan.parts.iter().map(|part| (part.instance_type.as_str(), part.instances, part.per_month)).collect();
    assert_eq!(parts, [("c5.large", Some(10), decimal("372.3")), ("m5.large", None, decimal("5"))]);
}

#[test]
fn a_mix_without_a_reservation_or_spot_says_which_key_is_missing() {
    let load = MixDemand::new(decimal("1000"), decimal("2"), 10, 5).expect("a load");
    for (without, wanted) in
        [("  payment_processor:", "reserved_instances.payment_processor is missing"), ("  fraud_analysis:", "spot_instances is missing")]
    {
        let text: String = DOCUMENT.lines().filter(|line| !line.starts_with(without)).map(|line| format!("{line}\n")).collect();
        let text = text.replace("reserved_instances:\nspot", "spot").replace("spot_instances:\ntraffic", "traffic");
        let error = mix(&load, &Prices::parse("prices.yaml", &text).expect("prices")).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

proptest! {
    #[test]
    fn options_are_sorted_and_each_is_enough(
        cpu in 1..64_u32,
        memory in 1..128_u32,
        tps in 1..5_000_u32,
        instances in 1..64_u64,
    ) {
        let wanted = Requirement::new(cpu.into(), memory.into(), tps.into(), instances).expect("within the bounds");
        let prices = prices();
        if let Ok(choices) = options(&wanted, &prices) {
            prop_assert!(choices.windows(2).all(|pair| (pair[0].cost_per_tps, pair[0].cost_per_hour) <= (pair[1].cost_per_tps, pair[1].cost_per_hour)));
            for choice in choices {
                let kind = prices.instance_type(&choice.instance_type).expect("it has a price");
                let count = Decimal::from(choice.instances);
                let enough = |count: Decimal| {
                    Decimal::from(kind.cpu) * count >= Decimal::from(cpu)
                        && kind.memory_gib * count >= Decimal::from(memory)
                        && Decimal::from(kind.cpu * 50) * count >= Decimal::from(tps)
                };
                prop_assert!(choice.instances <= instances && enough(count) && !enough(count - Decimal::ONE));
                prop_assert_eq!(choice.cost_per_hour, kind.per_hour * count);
            }
        }
    }

    #[test]
    fn a_reservation_breaks_even_where_the_costs_are_equal(savings in 1..=99_u32, price in 2..=10_000_000_u32, count in 1..=10_000_u64, option in 0..3_usize) {
        let option = ["all_upfront", "partial_upfront", "no_upfront"][option];
        let text = DOCUMENT
            .replace("c5.large: {cpu: 2, memory_gib: 4, per_hour: \"0.085\"}", &format!("c5.large: {{cpu: 2, memory_gib: 4, per_hour: \"{}\"}}", Decimal::new(price.into(), 3)))
            .replace("savings_percent: 40", &format!("savings_percent: {savings}"))
            .replace("count: 10,", &format!("count: {count},"))
            .replace("partial_upfront", option);
        let all = reservations(&Prices::parse("prices.yaml", &text).expect("prices")).expect("priced");
        let reserved = &all[0];
        let per_hour = Decimal::new(price.into(), 3) * Decimal::from(count);
        // So many hours on demand cost what a month of the reservation does.
        prop_assert_eq!(per_hour * reserved.break_even_hours_per_month, reserved.reserved_per_month);
        // What is paid at the start and month by month is the whole, and what it saves is the rest.
        let twelve = Decimal::from(12);
        prop_assert_eq!(reserved.upfront + reserved.then_per_month * twelve, reserved.reserved_per_month * twelve);
        prop_assert_eq!(per_hour * Decimal::from(HOURS_PER_MONTH * 12), reserved.reserved_per_month * twelve + reserved.saved_over_term);
        // After so many months both have cost the same, to a hundredth of a month.
        let months = reserved.break_even_months;
        let apart = reserved.upfront + reserved.then_per_month * months - reserved.on_demand_per_month * months;
        prop_assert!(apart.abs() <= reserved.on_demand_per_month * Decimal::new(1, 2), "{} apart", apart);
    }

    #[test]
    fn a_larger_load_never_costs_less(base in 1..100_000_u32, more in 0..100_000_u32, peak in 1..100_u32, hours in 0..=730_u64) {
        let of = |base: u32| mix(&MixDemand::new(base.into(), peak.into(), hours, 10).expect("a load"), &prices()).expect("a mix");
        prop_assert!(of(base).per_month <= of(base + more).per_month);
    }
}
