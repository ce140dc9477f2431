//! What a traffic needs: the source document's own example, a table, and what must hold of any traffic.

#![forbid(unsafe_code)]

use paymesh_planning::{
    Error, Figure,
    capacity::{Capacity, Demand, Layout, Lead, Profile, Rates, TopicLayout, Writers, plan},
    decimal_within,
};
use paymesh_topology::Topology;
use proptest::prelude::*;
use rust_decimal::Decimal;

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

fn demand(base: &str, peak: &str, margin: &str) -> Demand {
    Demand::new(decimal(base), decimal(peak), decimal(margin)).expect("a demand")
}

/// Two zones: four shards with two copies beside the leader, four with none.
fn layout() -> Layout {
    Layout {
        leads: vec![Lead { region: "us_east".into(), shards: 4 }, Lead { region: "eu_west".into(), shards: 4 }],
        zones: vec![(4, 2), (4, 0)],
        topics: vec![
            TopicLayout { name: "payment_events".into(), partitions: 24 },
            TopicLayout { name: "fraud_alerts".into(), partitions: 12 },
        ],
    }
}

fn rates() -> Rates {
    Rates { traffic_per_gib: decimal("0.02"), storage_per_gib_month: decimal("0.115") }
}

fn by_document(demand: &Demand) -> Capacity {
    plan(demand, &Profile::document(), &layout(), &rates()).expect("a plan")
}

fn measured(node: &str, shard: Option<&str>) -> Profile {
    let figure = |text: &str| Figure::new(decimal(text), "measured");
    let writers = Writers { node_tps: figure(node), shard_tps: shard.map(figure), cpu_seconds_per_million: figure("40") };
    Profile { instance_tps: figure(node), writers: Some(writers), ..Profile::document() }
}

/// Source document, "Traffic Estimation".
#[test]
fn the_documents_example_comes_out_as_in_the_document() {
    let plan = by_document(&demand("1000", "10", "1.5"));
    assert_eq!((plan.peak_tps, plan.required_tps), (decimal("10000"), decimal("15000")));
    assert_eq!((plan.instances, plan.database_connections, plan.redis_memory_gb), (150, 1_500, 15));
    assert_eq!((plan.cost_per_hour.to_string(), plan.cost_per_month), ("75.00".to_owned(), decimal("54750")));
    assert_eq!(plan.bound, None, "the document knows none");
}

#[test]
fn whole_things_are_rounded_up() {
    for (base, peak, margin, instances, connections, redis) in [
        ("0.001", "1", "1", 1, 10, 1),
        ("100", "1", "1", 1, 10, 1),
        ("100.001", "1", "1", 2, 20, 1),
        ("1000", "1", "1", 10, 100, 1),
        ("1000", "1", "1.001", 11, 110, 2),
        ("333.333", "3", "1", 10, 100, 1),
        ("1000000000", "1000", "100", 1_000_000_000_000, 10_000_000_000_000, 100_000_000_000),
    ] {
        let plan = by_document(&demand(base, peak, margin));
        let found = (plan.instances, plan.database_connections, plan.redis_memory_gb);
        assert_eq!(found, (instances, connections, redis), "{base} x {peak} x {margin}");
    }
}

#[test]
fn what_the_document_has_no_formula_for_follows_from_stated_constants() {
    let plan = by_document(&demand("1000", "10", "1.5"));
    // 1,000 bytes x 1,000 payments x 86,400 seconds.
    assert_eq!(plan.journal_bytes_per_day, 86_400_000_000);
    // Half of the shards have two copies, half have none: one on average. 68 bytes x 15,000 payments x 8 bits.
    assert_eq!((plan.copies, plan.cross_region_bits_per_second), (Decimal::ONE, 8_160_000));
    // 15,000 events of 1,000 a partition; what regions.yaml has already stays.
    assert_eq!(plan.topics.iter().map(|topic| (topic.configured, topic.needed)).collect::<Vec<_>>(), [(24, 24), (12, 15)]);
    // 68,000 bytes/s x 3,600 x 730 / 2^30 x 0.02; and two copies of a day's journals at 0.115.
    assert_eq!(plan.traffic_per_month.round_dp(4), decimal("3.3286"));
    assert_eq!(plan.journal_day_per_month.round_dp(4), decimal("18.5072"));
}

#[test]
fn figures_out_of_bounds_are_refused_by_the_name_of_their_option() {
    for (base, peak, margin, named) in [
        ("0", "10", "1.5", "--base-tps"),
        ("-1", "10", "1.5", "--base-tps"),
        ("1000000000.001", "10", "1.5", "--base-tps"),
        ("0.0001", "10", "1.5", "--base-tps"),
        ("1000", "0.9", "1.5", "--peak-multiplier"),
        ("1000", "1001", "1.5", "--peak-multiplier"),
        ("1000", "10", "0.999", "--safety-margin"),
        ("1000", "10", "101", "--safety-margin"),
    ] {
        let error = Demand::new(decimal(base), decimal(peak), decimal(margin)).expect_err(named);
        assert!(matches!(error, Error::Bounds { name, .. } if name == named), "{error}");
        assert!(error.to_string().starts_with(&format!("{named}: must be ")), "{error}");
    }
}

#[test]
fn a_figure_is_digits_and_a_point_and_nothing_else() {
    let read = |text| decimal_within("x", text, Decimal::ZERO, Decimal::from(1_000), 3);
    let long = "9".repeat(400);
    for text in ["", " 1", "1 ", "+1", "-1", "1e3", "1_0", "NaN", "inf", ".5", "1.2.3", "1,5", "0x10", "1001", "0.0001", &long] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("x: must be 0 to 1000") && error.len() < 160, "{error}");
    }
    for (text, value) in [("0", "0"), ("1.5", "1.5"), ("1.500000", "1.5"), ("1000", "1000"), ("007", "7")] {
        assert_eq!(read(text).expect(text), decimal(value));
    }
}

#[test]
fn the_writers_bound_the_mesh_however_many_instances_there_are() {
    // Each of two regions leads half of the shards: 7,500 payments a second of 15,000.
    let bound = |node, shard| {
        let plan = plan(&demand("1000", "10", "1.5"), &measured(node, shard), &layout(), &rates()).expect("a plan");
        plan.bound.expect("the writers were measured")
    };
    let fits = bound("7500", Some("1875"));
    assert!(fits.fits && fits.regions.iter().all(|load| load.required_tps == decimal("7500") && load.fits()), "{fits:?}");
    assert_eq!((fits.mesh_tps, fits.regions_needed, fits.processors), (decimal("15000"), Some(2), 1));
    let too_slow = bound("7499.999", None);
    assert!(!too_slow.fits && too_slow.regions_needed == Some(4) && too_slow.mesh_tps < decimal("15000"), "{too_slow:?}");
    let slow_shard = bound("7500", Some("1874.999"));
    assert!(!slow_shard.fits && slow_shard.shard == Some((decimal("1875"), decimal("1874.999"))), "{slow_shard:?}");
}

#[test]
fn the_region_that_leads_most_is_full_first() {
    let mut layout = layout();
    layout.leads = vec![Lead { region: "a".into(), shards: 6 }, Lead { region: "b".into(), shards: 2 }];
    let plan = plan(&demand("1000", "1", "1"), &measured("700", None), &layout, &rates()).expect("a plan");
    let bound = plan.bound.expect("the writers were measured");
    assert_eq!(
        bound.regions.iter().map(|load| (load.required_tps, load.fits())).collect::<Vec<_>>(),
        [(decimal("750"), false), (decimal("250"), true)]
    );
    assert_eq!((bound.mesh_tps, bound.regions_needed, bound.fits), (decimal("933"), Some(2), false));
}

/// A shard is led whole, and by one region: so many regions are enough, and one less is not.
#[test]
fn so_many_regions_must_lead_that_none_has_more_shards_than_its_node_can() {
    let mut layout = layout();
    layout.zones = vec![(4, 1), (4, 1)];
    let needed = |node| {
        let plan = plan(&demand("1000", "10", "1.5"), &measured(node, None), &layout, &rates()).expect("a plan");
        plan.bound.expect("the writers were measured").regions_needed
    };
    // A shard of 8 is 1,875 payments a second of 15,000.
    for (node, wanted) in [
        ("15000", Some(2)),
        ("7500", Some(2)),
        ("5625", Some(4)),
        ("3750", Some(4)),
        ("3000", Some(8)),
        ("1875", Some(8)),
        ("1874.999", None),
    ] {
        assert_eq!(needed(node), wanted, "{node}");
    }
}

#[test]
fn the_layout_is_the_configurations() {
    let yaml = r#"
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  us_west: {primary: false, services: [payment_processor], database: read_replica}
  us_vault: {primary: false, services: [vault], database: none}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 3, regions: [us_east, us_west, us_vault], countries: [US]}
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
  us_west: {grpc: "127.0.0.1:3", http: "127.0.0.1:4"}
  us_vault: {grpc: "127.0.0.1:5", http: "127.0.0.1:6"}
  eu_west: {grpc: "127.0.0.1:7", http: "127.0.0.1:8"}
"#;
    let layout = Layout::of(&Topology::parse("regions.yaml", yaml).expect("a topology"));
    // The directory's shards, which the primary leads too, are none of users; a vault has no copies.
    let leads = |region: &str, shards| Lead { region: region.into(), shards };
    assert_eq!(layout.leads, [leads("us_east", 3), leads("eu_west", 1)]);
    assert_eq!(layout.zones, [(3, 1), (1, 0)]);
    assert_eq!(layout.topics, []);
}

fn thousandths(range: std::ops::RangeInclusive<i64>) -> impl Strategy<Value = Decimal> {
    range.prop_map(|number| Decimal::new(number, 3))
}

proptest! {
    #[test]
    fn more_traffic_never_needs_or_costs_less(
        base in thousandths(1..=1_000_000_000_000),
        more in thousandths(0..=1_000_000_000),
        peak in thousandths(1_000..=1_000_000),
        margin in thousandths(1_000..=100_000),
    ) {
        let larger = (base + more).min(Decimal::from(1_000_000_000));
        let of = |base| by_document(&Demand::new(base, peak, margin).expect("within the bounds"));
        let (less, more) = (of(base), of(larger));
        let figures = |plan: &Capacity| {
            let partitions = plan.topics.iter().map(|topic| topic.needed).sum::<u64>();
            [plan.instances, plan.database_connections, plan.redis_memory_gb, partitions, plan.journal_bytes_per_day, plan.cross_region_bits_per_second]
        };
        for (less, more) in figures(&less).into_iter().zip(figures(&more)) {
            prop_assert!(less <= more);
        }
        prop_assert!(less.cost_per_hour <= more.cost_per_hour && less.cost_per_month <= more.cost_per_month);
        prop_assert!(less.traffic_per_month <= more.traffic_per_month && less.journal_day_per_month <= more.journal_day_per_month);
    }

    #[test]
    fn instances_are_enough_and_one_less_is_not(
        base in thousandths(1..=1_000_000_000_000),
        peak in thousandths(1_000..=1_000_000),
        margin in thousandths(1_000..=100_000),
    ) {
        let plan = by_document(&Demand::new(base, peak, margin).expect("within the bounds"));
        prop_assert_eq!(plan.required_tps, base * peak * margin);
        let hundred = Decimal::ONE_HUNDRED;
        prop_assert!(Decimal::from(plan.instances) * hundred >= plan.required_tps);
        prop_assert!(Decimal::from(plan.instances - 1) * hundred < plan.required_tps);
    }
}
