//! prices.yaml: one row for each mistake, what a sound file means, and the one that ships.

#![forbid(unsafe_code)]

mod common;

use common::{Schema, region_config};
use paymesh_topology::{Interruption, PaymentOption, Prices, Term, Topology};
use rust_decimal::Decimal;

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"currency: USD # 1
instance_types: # 2
  t3.medium: {cpu: 2, memory_gib: 4, per_hour: "0.0416"} # 3
  m5.large: {cpu: 2, memory_gib: 7.5, per_hour: 0.096} # 4
reserved_instances: # 5
  payment_processor: # 6
    instance_type: t3.medium # 7
    count: 10 # 8
    term: 1_year # 9
    payment_option: partial_upfront # 10
    savings_percent: 40 # 11
spot_instances: # 12
  fraud_analysis: {instance_type: m5.large, max_price: 0.05, interruption_handling: graceful_shutdown} # 13
traffic: {between_regions_per_gib: 1} # 14
storage: {per_gib_month: "0.115"} # 15
"#;

fn parse(yaml: &str) -> Result<Prices, Vec<String>> {
    Prices::parse("prices.yaml", yaml).map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

#[test]
fn a_sound_file_means_what_it_says_with_quotes_and_without() {
    let prices = parse(SOUND).expect("a sound file");
    assert_eq!(prices.currency().code(), "USD");
    let medium = prices.instance_type("t3.medium").expect("it has a price");
    assert_eq!((medium.cpu, medium.memory_gib, medium.per_hour), (2, decimal("4"), decimal("0.0416")));
    let large = prices.instance_type("m5.large").expect("it has a price");
    assert_eq!((large.memory_gib, large.per_hour), (decimal("7.5"), decimal("0.096")));
    let [reserved] = prices.reserved() else { panic!("one reservation: {:?}", prices.reserved()) };
    assert_eq!((reserved.count, reserved.term.months(), reserved.payment_option.upfront_percent()), (10, 12, 50));
    let [spot] = prices.spot() else { panic!("one of spot: {:?}", prices.spot()) };
    assert_eq!((spot.max_price, spot.interruption_handling), (decimal("0.05"), Interruption::GracefulShutdown));
    assert_eq!((prices.traffic_between_regions_per_gib(), prices.storage_per_gib_month()), (decimal("1"), decimal("0.115")));
    Schema::of("prices.schema.json").validate(SOUND).expect("the schema takes it too");
}

#[test]
fn an_unquoted_price_is_the_decimal_that_is_written() {
    for digits in ["9999.999999", "0.1", "0.3", "1234.567891", "0.0416", "0.000003", "10000"] {
        // The spot price stays below it.
        let sound = SOUND.replace("max_price: 0.05", "max_price: 0.000001");
        let bare = sound.replace("per_hour: 0.096", &format!("per_hour: {digits}"));
        let quoted = sound.replace("per_hour: 0.096", &format!("per_hour: \"{digits}\""));
        assert_eq!(parse(&bare).expect("a sound file").instance_types()[1].per_hour, decimal(digits));
        assert_eq!(parse(&bare), parse(&quoted));
    }
}

#[test]
fn every_mistake_is_named_with_its_line_and_key() {
    let price = "must be a decimal above 0 and up to 10000, with at most 6 digits after the point and nothing else";
    for (from, to, wanted) in [
        ("currency: USD", "currency: usd", "prices.yaml:1: currency: "),
        ("currency: USD # 1\n", "", "prices.yaml: currency: is missing"),
        ("t3.medium: {cpu: 2,", "t3.medium: {cpu: 0,", "prices.yaml:3: instance_types.t3.medium.cpu: must be 1 to 1024, not 0"),
        ("t3.medium: {cpu: 2,", "t3.medium: {", "prices.yaml:3: instance_types.t3.medium.cpu: is missing"),
        ("t3.medium: {cpu: 2,", "t3.medium: {cpu: 2, gpu: 1,", "prices.yaml:3: instance_types.t3.medium.gpu: unknown key"),
        ("  m5.large: {cpu", "  M5: {cpu", "prices.yaml:4: instance_types.M5: must be a kind of machine such as c5.large, not `M5`"),
        (
            "memory_gib: 7.5",
            "memory_gib: -1",
            "prices.yaml:4: instance_types.m5.large.memory_gib: must be a decimal above 0 and up to 65536",
        ),
        ("\"0.0416\"", "\"$0.0416\"", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not `$0.0416`")),
        ("\"0.0416\"", "0", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not 0")),
        ("\"0.0416\"", "-0.1", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not -0.1")),
        ("\"0.0416\"", ".nan", "prices.yaml:3: value `.nan` is not a finite number"),
        ("\"0.0416\"", ".inf", "prices.yaml:3: value `.inf` is not a finite number"),
        ("\"0.0416\"", "1e30", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}")),
        ("\"0.0416\"", "10000.1", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not 10000.1")),
        ("\"0.0416\"", "\"0.0000001\"", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not `0.0000001`")),
        ("\"0.0416\"", "[1]", &format!("prices.yaml:3: instance_types.t3.medium.per_hour: {price}, not a list")),
        (
            "instance_type: t3.medium",
            "instance_type: t3.medum",
            "prices.yaml:7: reserved_instances.payment_processor.instance_type: instance_types has no price of `t3.medum`; did you mean `t3.medium`?",
        ),
        ("count: 10 ", "count: 0 ", "prices.yaml:8: reserved_instances.payment_processor.count: must be 1 to 10000, not 0"),
        (
            "1_year",
            "2_year",
            "prices.yaml:9: reserved_instances.payment_processor.term: `2_year` is not a known term; did you mean `1_year`?",
        ),
        (
            "partial_upfront",
            "later",
            "prices.yaml:10: reserved_instances.payment_processor.payment_option: `later` is not a known payment option",
        ),
        (
            "savings_percent: 40",
            "savings_percent: 100",
            "prices.yaml:11: reserved_instances.payment_processor.savings_percent: must be 1 to 99, not 100",
        ),
        (
            "max_price: 0.05",
            "max_price: 0.096",
            "prices.yaml:13: spot_instances.fraud_analysis.max_price: must be less than an hour on demand, which is 0.096",
        ),
        ("graceful_shutdown", "kill", "prices.yaml:13: spot_instances.fraud_analysis.interruption_handling: `kill` is not a known"),
        ("between_regions_per_gib: 1", "", "prices.yaml:14: traffic.between_regions_per_gib: is missing"),
        ("storage: {per_gib_month: \"0.115\"} # 15\n", "", "prices.yaml: storage: is missing"),
        ("storage:", "currency: EUR\nstorage:", "prices.yaml:15: currency: the key stands twice; the first is on line 1"),
    ] {
        let yaml = SOUND.replacen(from, to, 1);
        assert_ne!(yaml, SOUND, "{from} is in the sound file");
        let problems = parse(&yaml).expect_err(to);
        assert!(problems.iter().any(|problem| problem.starts_with(wanted)), "{to}: wanted {wanted}, got {problems:#?}");
        assert_eq!(problems.len(), 1, "one mistake is said once: {problems:#?}");
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let yaml = SOUND.replace("USD", "X").replace("count: 10 ", "count: x ").replace("max_price: 0.05", "max_price: 9");
    assert_eq!(parse(&yaml).expect_err("three mistakes").len(), 3);
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    // A folder of the workspace that has no prices.
    let error = Prices::load(&region_config().join("../proto")).expect_err("there is none").to_string();
    assert!(error.contains("prices.yaml: is missing: ") && error.lines().count() == 1, "{error}");
    let error = Prices::load(&region_config().join("not-there")).expect_err("there is none").to_string();
    assert!(error.contains("not-there: there is no such folder or file") && !error.contains("prices.yaml"), "{error}");
}

/// The source document, "Resource Right-sizing" and "Reserved Capacity Planning".
#[test]
fn the_shipped_file_has_the_documents_figures_and_a_price_of_every_machine() {
    let prices = Prices::load(&region_config()).expect("the shipped prices");
    for (name, cpu, memory, per_hour) in
        [("t3.medium", 2, "4", "0.0416"), ("t3.large", 2, "8", "0.0832"), ("c5.large", 2, "4", "0.085"), ("c5.xlarge", 4, "8", "0.17")]
    {
        let kind = prices.instance_type(name).expect(name);
        assert_eq!((kind.cpu, kind.memory_gib, kind.per_hour), (cpu, decimal(memory), decimal(per_hour)), "{name}");
    }
    let reserved: Vec<_> = prices
        .reserved()
        .iter()
        .map(|of| (of.purpose.as_str(), of.instance_type.as_str(), of.count, of.term, of.payment_option, of.savings_percent))
        .collect();
    assert_eq!(
        reserved,
        [
            ("payment_processor", "c5.large", 10, Term::OneYear, PaymentOption::PartialUpfront, 40),
            ("database", "r5.xlarge", 2, Term::ThreeYears, PaymentOption::AllUpfront, 60),
        ]
    );
    let [spot] = prices.spot() else { panic!("one of spot") };
    assert_eq!((spot.purpose.as_str(), spot.instance_type.as_str(), spot.max_price), ("fraud_analysis", "m5.large", decimal("0.05")));
    let topology = Topology::load(&region_config()).expect("the shipped regions");
    let machines = &topology.cloud().expect("a cloud").machines;
    for machine in [&machines.node, &machines.edge, &machines.vault, &machines.database, &machines.cache, &machines.broker] {
        assert!(prices.instance_type(machine).is_some(), "{machine} has no price");
    }
    let text = std::fs::read_to_string(region_config().join("prices.yaml")).expect("the file");
    Schema::of("prices.schema.json").validate(&text).expect("the schema takes it too");
}
