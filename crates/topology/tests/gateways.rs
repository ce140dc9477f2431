//! gateways.yaml: one row for each mistake, and what a sound file says.

#![forbid(unsafe_code)]

mod common;

use std::{path::PathBuf, time::Duration};

use common::{Schema, region_config};
use paymesh_cards::Brand;
use paymesh_topology::{BreakerRule, ConnectorKind, Gateways, Preference, Retries, Topology, ZoneGrant};
use paymesh_types::{Currency, Money};

const TOPOLOGY: &str = r#"
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: "127.0.0.1:7101", http: "127.0.0.1:7201"}
  eu_west: {grpc: "127.0.0.1:7102", http: "127.0.0.1:7202"}
"#;

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"defaults: # 1
  timeout_ms: 2000 # 2
  breaker: {failures: 4} # 3
retries: {percent: 10, attempts: 2} # 4
gateways: # 5
  sim: # 6
    connector: simulator # 7
    url: http://127.0.0.1:7301/ # 8
    zones: any # 9
    cost: {basis_points: "139.5", fixed_minor: {EUR: 25}} # 10
  card: # 11
    connector: stripe # 12
    url: https://api.stripe.example # 13
    authorities: ca.pem # 14
    credentials: stripe.key # 15
    zones: [eu] # 16
    calls_in_flight: 7 # 17
    breaker: {open_seconds: 5, probes: 2} # 18
rules: # 19
  - name: dear # 20
    when: {currency: [EUR], amount: {from: "100.00", to: 2000}, zone: [eu], brand: [visa], country: [DE]} # 21
    use: {card: 3, sim: 1} # 22
    by: cost # 23
  - name: rest # 24
    use: {sim: 1} # 25
    then: [card] # 26
batches: {in_flight: 3} # 27
"#;

fn parse(yaml: &str) -> Result<Gateways, Vec<String>> {
    let topology = Topology::parse("regions.yaml", TOPOLOGY).expect("a topology");
    Gateways::parse("gateways.yaml", yaml, &topology).map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn a_sound_file_says_what_it_says() {
    let gateways = parse(SOUND).expect("a sound file");
    let [sim, card] = gateways.gateways() else { panic!("two gateways") };
    assert_eq!((sim.connector, sim.url.as_str(), &sim.zones), (ConnectorKind::Simulator, "http://127.0.0.1:7301", &ZoneGrant::Any));
    assert_eq!((sim.timeout, sim.calls_in_flight), (Duration::from_secs(2), 256));
    assert_eq!(sim.breaker, BreakerRule { failures: 4, open_for: Duration::from_secs(30), probes: 1 });
    assert_eq!(card.breaker, BreakerRule { failures: 4, open_for: Duration::from_secs(5), probes: 2 });
    assert_eq!((card.calls_in_flight, &card.credentials), (7, &Some(PathBuf::from("stripe.key"))));
    assert_eq!(gateways.retries(), Retries { percent: 10, per_second: 10, attempts: 2 });
    assert_eq!(gateways.batch_in_flight(), 3);
    let [dear, rest] = gateways.rules() else { panic!("two rules") };
    assert_eq!((dear.when.from_minor, dear.when.to_minor, dear.by), (Some(10_000), Some(200_000), Preference::Cost));
    assert_eq!(dear.when.brands, Some([Brand::Visa].into()));
    assert_eq!((&rest.gateways, &rest.then), (&vec![("sim".to_owned(), 1)], &vec!["card".to_owned()]));
    let euros = |minor| Money::new(minor, Currency::from_code("EUR").expect("EUR")).expect("an amount");
    // 1.395 % of 100.00, and of 0.01, rounded up, and a quarter.
    assert_eq!((sim.cost.of(euros(10_000)), sim.cost.of(euros(1))), (165, 26));
}

/// (what is written, what is written instead, the lines of the error, whether the schema refuses it too)
type Row = (&'static str, &'static str, &'static [&'static str], bool);

const ROWS: &[Row] = &[
    ("retries:", "retrys:", &["gateways.yaml:4: retrys: unknown key; did you mean `retries`?"], true),
    ("timeout_ms: 2000", "timeout_ms: 99", &["gateways.yaml:2: defaults.timeout_ms: must be 100 to 60000, not 99"], true),
    ("{failures: 4}", "{failures: 0}", &["gateways.yaml:3: defaults.breaker.failures: must be 1 to 1000, not 0"], true),
    ("in_flight: 3", "in_flight: 0", &["gateways.yaml:27: batches.in_flight: must be 1 to 1024, not 0"], true),
    ("in_flight: 3", "inflight: 3", &["gateways.yaml:27: batches.inflight: unknown key; did you mean `in_flight`?"], true),
    ("percent: 10", "percent: 101", &["gateways.yaml:4: retries.percent: must be 0 to 100, not 101"], true),
    (
        "  sim: # 6",
        "  Sim: # 6",
        &[
            "gateways.yaml:6: gateways.Sim: a name is 1 to 32 of a-z, 0-9 and _, beginning with a letter, not `Sim`",
            "gateways.yaml:22: rules[0].use.sim: no gateway is called `sim`; did you mean `Sim`?",
            "gateways.yaml:25: rules[1].use.sim: no gateway is called `sim`; did you mean `Sim`?",
        ],
        true,
    ),
    (
        "connector: simulator",
        "connector: similator",
        &["gateways.yaml:7: gateways.sim.connector: `similator` is not a known connector; did you mean `simulator`?"],
        true,
    ),
    (
        "http://127.0.0.1:7301/",
        "http://acquirer.example",
        &[
            "gateways.yaml:8: gateways.sim.url: must be https://HOST, or http://127.0.0.1:PORT on this machine, with nothing after it, not `http://acquirer.example`",
        ],
        true,
    ),
    (
        "http://127.0.0.1:7301/",
        "http://127.0.0.1:7301/v1",
        &[
            "gateways.yaml:8: gateways.sim.url: must be https://HOST, or http://127.0.0.1:PORT on this machine, with nothing after it, not `http://127.0.0.1:7301/v1`",
        ],
        true,
    ),
    (
        "http://127.0.0.1:7301/",
        "http://127.0.0.1:7202",
        &["gateways.yaml:8: gateways.sim.url: the node of eu_west listens on port 7202"],
        false,
    ),
    (
        "http://127.0.0.1:7301/ # 8",
        "https://api.stripe.example\n    authorities: ca.pem",
        &["gateways.yaml:14: gateways.card.url: is another gateway's too (line 8): one that fails would fail as two"],
        false,
    ),
    ("    zones: any # 9\n", "", &["gateways.yaml:6: gateways.sim.zones: is missing"], true),
    (
        "zones: [eu] # 16",
        "zones: [ue] # 16",
        &["gateways.yaml:16: gateways.card.zones[0]: no zone is called `ue`; did you mean `eu`?"],
        false,
    ),
    (
        "\"139.5\"",
        "139.5",
        &[
            "gateways.yaml:10: gateways.sim.cost.basis_points: must be 0 to 10000, with two digits after the point at most and in quotes then, such as \"139.5\", not 139.5",
        ],
        true,
    ),
    (
        "{EUR: 25}",
        "{EUX: 25}",
        &["gateways.yaml:10: gateways.sim.cost.fixed_minor.EUX: a currency is an ISO 4217 code such as EUR, not `EUX`"],
        false,
    ),
    (
        "    authorities: ca.pem # 14\n",
        "",
        &["gateways.yaml:13: gateways.card.url: needs `authorities` beside it: a file with those that are believed there, as PEM"],
        true,
    ),
    (
        "    credentials: stripe.key # 15\n",
        "",
        &["gateways.yaml:11: gateways.card: needs `credentials`: a file with the key that it knows us by"],
        true,
    ),
    (
        "use: {card: 3, sim: 1}",
        "use: {card: 3, simm: 1}",
        &["gateways.yaml:22: rules[0].use.simm: no gateway is called `simm`; did you mean `sim`?"],
        false,
    ),
    ("use: {card: 3, sim: 1}", "use: {card: 0, sim: 1}", &["gateways.yaml:22: rules[0].use.card: must be 1 to 1000000, not 0"], true),
    (
        "currency: [EUR]",
        "currency: [EUR, USD]",
        &["gateways.yaml:21: rules[0].when.amount: needs a `currency` beside it, and one only: an amount is of one"],
        true,
    ),
    (
        "from: \"100.00\"",
        "from: \"100.001\"",
        &["gateways.yaml:21: rules[0].when.amount.from: EUR has 2 digits after the point, `100.001` has 3"],
        false,
    ),
    ("to: 2000", "to: 99", &["gateways.yaml:21: rules[0].when.amount: `from` is more than `to`: no amount fits"], false),
    (
        "brand: [visa]",
        "brand: [visas]",
        &["gateways.yaml:21: rules[0].when.brand[0]: `visas` is not a known brand; did you mean `visa`?"],
        true,
    ),
    (
        "country: [DE]",
        "country: [XX]",
        &["gateways.yaml:21: rules[0].when.country[0]: must be an ISO 3166-1 alpha-2 code such as DE, not `XX`"],
        false,
    ),
    ("by: cost", "by: price", &["gateways.yaml:23: rules[0].by: `price` is not a known preference; known are: weight, cost"], true),
    ("then: [card]", "then: [sim]", &["gateways.yaml:26: rules[1].then[0]: sim is in `use` too"], false),
    ("then: [card]", "then: [crad]", &["gateways.yaml:26: rules[1].then[0]: no gateway is called `crad`; did you mean `card`?"], false),
    (
        "name: rest # 24",
        "name: rest # 24\n    when: {currency: [EUR]}",
        &["gateways.yaml:24: rules[1]: the last rule must be without `when`: otherwise there are payments that no rule is for"],
        false,
    ),
    (
        "    when: {currency: [EUR], amount: {from: \"100.00\", to: 2000}, zone: [eu], brand: [visa], country: [DE]} # 21\n",
        "",
        &["gateways.yaml:23: rules[1]: is never reached: all that it is for, the rule dear takes before it (line 20)"],
        false,
    ),
    (
        "use: {sim: 1} # 25\n    then: [card] # 26",
        "use: {card: 1} # 25",
        &["gateways.yaml:24: rules[1]: no gateway of this rule serves the zone global"],
        false,
    ),
    ("name: rest", "name: dear", &["gateways.yaml:24: rules[1]: another rule is called dear too (line 20)"], false),
];

#[test]
fn every_mistake_names_its_file_line_and_key() {
    let schema = Schema::of("gateways.schema.json");
    assert_eq!(schema.validate(SOUND), Ok(()));
    for (from, to, wanted, schema_refuses) in ROWS {
        assert_eq!(SOUND.matches(from).count(), 1, "`{from}` must stand once");
        let text = SOUND.replace(from, to);
        let problems = parse(&text).expect_err(to);
        assert_eq!(problems, *wanted, "{from} -> {to}");
        assert_eq!(schema.validate(&text).is_err(), *schema_refuses, "the schema: {from} -> {to}");
    }
}

/// Which of two rules, one after the other, are told that the second is never reached.
#[test]
fn a_rule_is_never_reached_where_one_before_it_takes_all_that_it_is_for_and_only_there() {
    let table = [
        ("currency: [EUR]", "currency: [USD]", false),
        ("currency: [EUR, USD]", "currency: [USD]", true),
        ("currency: [USD]", "currency: [EUR, USD]", false),
        ("brand: [visa]", "brand: [amex]", false),
        ("brand: [visa, amex]", "brand: [amex], currency: [EUR]", true),
        ("country: [DE]", "country: [FR]", false),
        ("country: [DE]", "country: [DE], zone: [eu]", true),
        ("zone: [eu]", "zone: [global]", false),
        ("zone: [eu]", "currency: [EUR]", false),
        ("currency: [EUR], amount: {to: 10}", "currency: [EUR], amount: {to: 20}", false),
        ("currency: [EUR], amount: {from: 5}", "currency: [EUR], amount: {from: 4}", false),
        ("currency: [EUR], amount: {from: 5}", "currency: [EUR], amount: {from: 5, to: 9}", true),
        ("currency: [EUR], amount: {from: 5, to: 9}", "currency: [EUR]", false),
        // Both have an amount, and of different currencies.
        ("currency: [EUR], amount: {from: 1}", "currency: [USD], amount: {from: 5}", false),
    ];
    for (first, second, never) in table {
        let text = SOUND.split("rules:").next().expect("a beginning").to_owned()
            + &format!(
                "rules:\n  - {{name: first, when: {{{first}}}, use: {{sim: 1}}}}\n  - {{name: second, when: {{{second}}}, use: {{sim: 1}}}}\n  \
                 - {{name: rest, use: {{sim: 1}}}}\n"
            );
        match parse(&text) {
            Ok(_) => assert!(!never, "{first} / {second}"),
            Err(problems) => {
                assert!(never, "{first} / {second}: {problems:?}");
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert!(problems[0].contains("rules[1]: is never reached"), "{problems:?}");
            }
        }
    }
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(parse("").expect_err("empty"), ["gateways.yaml: gateways: is missing", "gateways.yaml: rules: is missing"]);
    assert_eq!(
        parse("gateways: {}\nrules: []").expect_err("empty"),
        ["gateways.yaml:1: gateways: must have 1 to 64 gateways, not 0", "gateways.yaml:2: rules: must list 1 to 256 rules, not 0"]
    );
    assert!(parse("rules: [").is_err());
}

#[test]
fn the_shipped_file_is_sound_and_its_gateways_serve_everybody() {
    let topology = Topology::load(&region_config()).expect("the shipped topology");
    let gateways = Gateways::load(&region_config(), &topology).expect("sound").expect("it ships");
    assert_eq!(gateways.gateways().len(), 2);
    for gateway in gateways.gateways() {
        assert!(topology.zones().all(|zone| gateway.zones.has(&zone.name)));
        assert_eq!(
            gateway.breaker,
            BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
            "three failures, thirty seconds"
        );
    }
    let text = std::fs::read_to_string(region_config().join("gateways.yaml")).expect("it can be read");
    assert_eq!(Schema::of("gateways.schema.json").validate(&text), Ok(()));
}

#[test]
fn without_a_file_there_are_no_gateways() {
    let folder = tempfile::tempdir().expect("a folder");
    let topology = Topology::parse("regions.yaml", TOPOLOGY).expect("a topology");
    assert_eq!(Gateways::load(folder.path(), &topology), Ok(None));
}
