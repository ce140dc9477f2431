//! Where payments go: by rule, by weight, by cost, by health.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use paymesh_acquirers::{Health, Payment, Stage, WhyLeft, route};
use paymesh_cards::Brand;
use paymesh_topology::{Gateways, Topology};
use paymesh_types::{Currency, Money};
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const TOPOLOGY: &str = r#"
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_west], countries: [DE, FR]}
endpoints:
  us_east: {grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
  eu_west: {grpc: "127.0.0.1:3", http: "127.0.0.1:4"}
"#;

const GATEWAYS: &str = r#"
retries: {attempts: 3}
gateways:
  a: {connector: simulator, url: "http://127.0.0.1:7301", zones: any, cost: {basis_points: 100}}
  b: {connector: simulator, url: "http://127.0.0.1:7302", zones: any, cost: {basis_points: 50, fixed_minor: {EUR: 30}}}
  c: {connector: simulator, url: "http://127.0.0.1:7303", zones: [eu]}
  d: {connector: simulator, url: "http://127.0.0.1:7304", zones: any}
rules:
  - {name: french, when: {country: [FR], brand: [visa], currency: [EUR], amount: {from: "10.00", to: "20.00"}}, use: {c: 1}, then: [d, a, b]}
  - {name: cheap, when: {currency: [EUR], zone: [eu]}, use: {a: 1, b: 1, c: 1}, by: cost}
  - {name: rest, use: {a: 70, b: 30}, then: [c, d]}
"#;

fn gateways() -> Gateways {
    let topology = Topology::parse("regions.yaml", TOPOLOGY).expect("a topology");
    Gateways::parse("gateways.yaml", GATEWAYS, &topology).expect("gateways")
}

fn payment(minor: i64, currency: &str, brand: Brand, country: Option<&str>, zone: &str) -> Payment {
    Payment {
        amount: Money::new(minor, Currency::from_code(currency).expect(currency)).expect("an amount"),
        brand,
        country: country.map(|country| country.parse().expect("a country")),
        zone: zone.parse().expect("a zone"),
    }
}

fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    move |bound| random.random_range(0..bound)
}

fn names(payment: &Payment, health: impl Fn(&str) -> Health) -> (String, Vec<String>) {
    let route = route(&gateways(), payment, health, &mut seeded(1));
    (route.rule, route.candidates.into_iter().map(|candidate| candidate.gateway).collect())
}

#[test]
fn the_first_rule_that_fits_counts() {
    let table = [
        (payment(1_000, "EUR", Brand::Visa, Some("FR"), "eu"), "french"),
        (payment(2_000, "EUR", Brand::Visa, Some("FR"), "eu"), "french"),
        (payment(999, "EUR", Brand::Visa, Some("FR"), "eu"), "cheap"),
        (payment(2_001, "EUR", Brand::Visa, Some("FR"), "eu"), "cheap"),
        (payment(1_000, "EUR", Brand::Amex, Some("FR"), "eu"), "cheap"),
        (payment(1_000, "EUR", Brand::Visa, Some("DE"), "eu"), "cheap"),
        (payment(1_000, "EUR", Brand::Visa, None, "eu"), "cheap"),
        (payment(1_000, "USD", Brand::Visa, Some("FR"), "eu"), "rest"),
        (payment(1_000, "EUR", Brand::Visa, Some("US"), "global"), "rest"),
    ];
    for (payment, rule) in table {
        assert_eq!(names(&payment, |_| Health::Good).0, rule, "{payment:?}");
    }
}

#[test]
fn the_cheapest_is_first_where_the_rule_says_so() {
    // c costs nothing; 1 % against 0.5 % and 30: the same at 60.00.
    assert_eq!(names(&payment(5_000, "EUR", Brand::Visa, None, "eu"), |_| Health::Good).1, ["c", "a", "b"]);
    assert_eq!(names(&payment(7_000, "EUR", Brand::Visa, None, "eu"), |_| Health::Good).1, ["c", "b", "a"]);
}

#[test]
fn each_gateway_is_a_candidate_or_has_a_reason() {
    let french = payment(1_500, "EUR", Brand::Visa, Some("FR"), "eu");
    let route = route(&gateways(), &french, |name| if name == "c" { Health::Open } else { Health::Good }, &mut seeded(1));
    let candidates: Vec<_> =
        route.candidates.iter().map(|candidate| (candidate.gateway.as_str(), candidate.stage, candidate.cost_minor)).collect();
    assert_eq!(candidates, [("d", Stage::FallBack, 0), ("a", Stage::FallBack, 15), ("b", Stage::FallBack, 38)]);
    let left: Vec<_> = route.left.iter().map(|left| (left.gateway.as_str(), left.why)).collect();
    assert_eq!(left, [("c", WhyLeft::Open)]);

    let all = |payment: &Payment, health: Health| paymesh_acquirers::route(&gateways(), payment, |_| health, &mut seeded(1));
    let route = all(&payment(1_000, "USD", Brand::Visa, None, "global"), Health::Probing);
    assert_eq!(route.candidates.len(), 3, "probes need calls");
    let left: Vec<_> = route.left.iter().map(|left| (left.gateway.as_str(), left.why)).collect();
    assert_eq!(left, [("c", WhyLeft::Zone)]);
    let route = all(&payment(1_000, "EUR", Brand::Visa, None, "eu"), Health::Open);
    assert!(route.candidates.is_empty());
    assert_eq!(
        route.left.iter().filter(|left| left.why == WhyLeft::NotInRule).map(|left| left.gateway.as_str()).collect::<Vec<_>>(),
        ["d"]
    );
    let route = all(&payment(1_000, "USD", Brand::Visa, None, "eu"), Health::Good);
    assert_eq!(route.left.iter().map(|left| (left.gateway.as_str(), left.why)).collect::<Vec<_>>(), [("d", WhyLeft::Enough)]);
}

#[test]
fn weights_are_kept_over_many_payments() {
    let (gateways, payment) = (gateways(), payment(1_000, "USD", Brand::Visa, None, "global"));
    let (mut roll, mut first) = (seeded(3), BTreeMap::<String, u32>::new());
    for _ in 0..10_000 {
        let route = route(&gateways, &payment, |_| Health::Good, &mut roll);
        *first.entry(route.candidates[0].gateway.clone()).or_default() += 1;
    }
    // Four standard deviations of 10,000 draws at 70 %: 183.
    assert!((6_817..=7_183).contains(&first["a"]), "{first:?}");
    assert_eq!(first["a"] + first["b"], 10_000, "a fall-back is never first while others are well");
}

proptest! {
    #[test]
    fn every_gateway_is_in_a_route_once_and_a_seed_makes_it_again(
        minor in 1..1_000_000_i64,
        currency in prop::sample::select(vec!["EUR", "USD", "JPY"]),
        zone in prop::sample::select(vec!["eu", "global"]),
        brand in prop::sample::select(Brand::ALL.to_vec()),
        open in prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "d"]), 0..4),
        seed in any::<u64>(),
    ) {
        let (gateways, payment) = (gateways(), payment(minor, currency, brand, Some("FR"), zone));
        let health = |name: &str| if open.contains(name) { Health::Open } else { Health::Good };
        let first = route(&gateways, &payment, health, &mut seeded(seed));
        prop_assert_eq!(&first, &route(&gateways, &payment, health, &mut seeded(seed)));
        let named: Vec<&str> = first.candidates.iter().map(|candidate| candidate.gateway.as_str()).chain(first.left.iter().map(|left| left.gateway.as_str())).collect();
        prop_assert_eq!(named.len(), 4);
        prop_assert_eq!(named.into_iter().collect::<BTreeSet<_>>().len(), 4);
        prop_assert!(first.candidates.iter().all(|candidate| !open.contains(candidate.gateway.as_str())));
        prop_assert!(first.candidates.iter().all(|candidate| candidate.gateway != "c" || zone == "eu"));
        // Picked ones before fall-backs.
        let stages: Vec<bool> = first.candidates.iter().map(|candidate| candidate.stage == Stage::FallBack).collect();
        prop_assert!(stages.is_sorted());
    }
}
