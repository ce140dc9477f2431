//! fraud.yaml: one row for each mistake, what a sound file means, and the one that ships.

#![forbid(unsafe_code)]

mod common;

use std::time::Duration;

use common::{Schema, region_config};
use paymesh_topology::{Fraud, Rule, Shape, Signal, Topology, TransactionRisk, Unscored, Window, ZonePolicy};
use paymesh_types::{Currency, Money, Score, ZoneName};

const TOPOLOGY: &str = r#"
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
  us_west: {primary: false, services: [payment_processor], database: regional_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR, PSD2]}
zones:
  global: {shards: 2, regions: [us_west, us_east], countries: [US], leaders: {us_east: 0, us_west: 1}}
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
  us_west: {grpc: "127.0.0.1:3", http: "127.0.0.1:4"}
  eu_west: {grpc: "127.0.0.1:5", http: "127.0.0.1:6"}
"#;

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"version: a-1 # 1
reference_currency: EUR # 2
rates: {USD: 0.9, JPY: 0.006, KWD: 3} # 3
zones: # 4
  eu: # 5
    decline_above: 0.9 # 6
    review_above: 0.6 # 7
    deadline_ms: 100 # 8
    when_unavailable: [{up_to: 3000, then: open}, {up_to: 5000, then: closed}, {then: closed}] # 9
rules: # 10
  user_count: # 11
    - {per: hour, from: 10, full: 30, weight: 0.5} # 12
    - {per: five_minutes, from: 3, full: 9, weight: 0.7} # 13
  amount_unusual: {from: 150, full: 1000, weight: 0.4, after: 5} # 14
  first_card: {weight: 0.2, after: 3} # 15
  card_abroad: {weight: 1} # 16
block: # 17
  users: [7] # 18
  cards: ["00112233445566778899aabbccddeeff"] # 19
  bins: ["400000", "51000012"] # 20
  countries: [KP] # 21
allow: # 22
  devices: ["FFEEDDCCBBAA99887766554433221100"] # 23
"#;

fn topology() -> Topology {
    Topology::parse("regions.yaml", TOPOLOGY).expect("a topology")
}

fn parse(yaml: &str) -> Result<Fraud, Vec<String>> {
    Fraud::parse("fraud.yaml", yaml, &topology()).map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone")
}

fn score(text: &str) -> Score {
    text.parse().expect("a score")
}

fn money(minor: i64, code: &str) -> Money {
    Money::new(minor, Currency::from_code(code).expect("a currency")).expect("an amount")
}

#[test]
fn a_sound_file_means_what_it_says() {
    let fraud = parse(SOUND).expect("a sound file");
    assert!(fraud.version().starts_with("a-1-") && fraud.version().len() == 4 + 12, "{}", fraud.version());
    let eu = fraud.policy(&zone("eu"));
    assert_eq!((eu.decline_above, eu.review_above, eu.deadline), (score("0.9"), score("0.6"), Duration::from_millis(100)));
    assert_eq!(fraud.policy(&zone("global")), &ZonePolicy::default());
    let per_window = |per, from, full, weight| Rule { per: Some(per), from, full, weight: score(weight), after: 0 };
    assert_eq!(
        fraud.rules()[&Signal::UserCount],
        [per_window(Window::FiveMinutes, 3, 9, "0.7"), per_window(Window::Hour, 10, 30, "0.5")],
        "the shortest window first"
    );
    assert_eq!(fraud.rules()[&Signal::CardAbroad], [Rule { per: None, from: 0, full: 1, weight: Score::ONE, after: 0 }]);
    assert_eq!(fraud.rules()[&Signal::FirstCard][0].after, 3);
    assert_eq!(fraud.rules().get(&Signal::FirstDevice), None);
    assert_eq!(fraud.block().cards.first().map(|card| (card[0], card[15])), Some((0x00, 0xff)));
    assert_eq!(fraud.allow().devices.first().map(|device| (device[0], device[15])), Some((0xff, 0x00)));
    assert!(!format!("{fraud:?}").contains("51000012"), "who is listed is in no log");
}

#[test]
fn what_is_not_scored_is_open_or_closed_by_its_amount() {
    let policy = parse(SOUND).expect("a sound file").policy(&zone("eu")).clone();
    for (amount, wanted) in [
        (Some(0), Unscored::Open),
        (Some(3_000), Unscored::Open),
        (Some(3_001), Unscored::Closed),
        (Some(5_001), Unscored::Closed),
        (None, Unscored::Closed),
    ] {
        assert_eq!(policy.unscored(amount), wanted, "{amount:?}");
    }
    assert_eq!(ZonePolicy::default().unscored(Some(1)), Unscored::Closed);
}

#[test]
fn low_risks_are_exempt_where_the_file_says_so_and_rehearsals_are_warned_of() {
    let analysis = |text: &str| {
        let yaml = SOUND.replacen("deadline_ms: 100 # 8", &format!("transaction_risk_analysis: {text}"), 1);
        parse(&yaml).expect("a sound file").policy(&zone("eu")).transaction_risk.clone()
    };
    let standard = TransactionRisk { exempt_up_to_eur: 0, history_days: 90, score_max: score("0.2") };
    assert_eq!(parse(SOUND).expect("a sound file").policy(&zone("eu")).transaction_risk, standard);
    assert_eq!(analysis("{}"), standard);
    for threshold in [100, 250, 500] {
        let found = analysis(&format!("{{exempt_up_to_eur: {threshold}}}"));
        assert_eq!(found, TransactionRisk { exempt_up_to_eur: threshold, ..standard.clone() });
        assert_eq!(found.warning(), None);
    }
    assert!(analysis("{exempt_up_to_eur: 100, history_days: 89, score_max: 0.05}").warning().is_some_and(|said| said.contains("89 days")));
    assert_eq!(analysis("{history_days: 0}").warning(), None, "none is exempt");
}

#[test]
fn amounts_are_compared_in_the_reference_currency() {
    let fraud = parse(SOUND).expect("a sound file");
    for (amount, wanted) in [
        (money(1, "EUR"), Some(1)),
        (money(1_000, "USD"), Some(900)),
        (money(1, "USD"), Some(1)),
        // No minor units, and three digits of them.
        (money(1_000, "JPY"), Some(600)),
        (money(1_000, "KWD"), Some(300)),
        // Halves to the even: 0.5 cents, 1.5 cents.
        (money(5, "KWD"), Some(2)),
        (money(1_000_000_000_000_000, "KWD"), Some(300_000_000_000_000)),
        (money(1_000, "GBP"), None),
    ] {
        assert_eq!(fraud.to_reference(amount), wanted, "{amount:?}");
    }
}

#[test]
fn the_version_is_that_of_the_meaning() {
    let version = |yaml: &str| parse(yaml).unwrap_or_else(|errors| panic!("{errors:?}")).version().to_owned();
    let sound = version(SOUND);
    assert_eq!(version(&SOUND.replace(" # ", "  #  ")), sound, "spaces and comments mean nothing");
    assert_eq!(version(&SOUND.replace("{USD: 0.9, JPY: 0.006", "{JPY: 0.006, USD: 0.90")), sound, "nor does the order of a mapping");
    for (written, instead) in [
        ("a-1", "a-2"),
        ("USD: 0.9", "USD: 0.91"),
        ("0.9 #", "0.8999 #"),
        ("then: open", "then: closed"),
        ("from: 3,", "from: 2,"),
        ("weight: 0.4", "weight: 0.4001"),
        ("[7]", "[8]"),
        ("ddeeff\"", "ddeefe\""),
        ("[KP]", "[IR]"),
        ("after: 5", "after: 6"),
    ] {
        assert!(SOUND.contains(written), "{written}");
        assert_ne!(version(&SOUND.replacen(written, instead, 1)), sound, "{written} -> {instead}");
    }
}

/// (what is written, what is written instead, the lines of the error, whether the schema refuses it too)
type Row = (&'static str, &'static str, &'static [&'static str], bool);

const ROWS: &[Row] = &[
    ("version: a-1 # 1\n", "", &["fraud.yaml: version: is missing"], true),
    ("a-1", "'a 1'", &["fraud.yaml:1: version: must be 1 to 63 letters, digits, dots, - and _, not `a 1`"], true),
    ("rules:", "rule:", &["fraud.yaml: rules: is missing", "fraud.yaml:10: rule: unknown key; did you mean `rules`?"], true),
    ("EUR", "euro", &["fraud.yaml:2: reference_currency: a currency is an ISO 4217 code such as EUR, not `euro`"], true),
    ("KWD: 3", "EUR: 1", &["fraud.yaml:3: rates.EUR: is the reference currency itself, whose rate is 1: leave it out"], false),
    (
        "KWD: 3",
        "KWD: 0",
        &["fraud.yaml:3: rates.KWD: must be a number above 0 and up to 1000000, with at most 9 digits after the point, not 0"],
        true,
    ),
    (
        "KWD: 3",
        "KWD: '3'",
        &["fraud.yaml:3: rates.KWD: must be a number above 0 and up to 1000000, with at most 9 digits after the point, not `3`"],
        true,
    ),
    ("  eu: # 5", "  mars: # 5", &["fraud.yaml:5: zones.mars: no zone is called `mars`; the zones are: global, eu"], false),
    (
        "decline_above: 0.9",
        "decline_above: 1",
        &["fraud.yaml:6: zones.eu.decline_above: must be more than 0 and less than 1: nothing scores above 1, not even what is blocked"],
        true,
    ),
    (
        "decline_above: 0.9",
        "decline_above: 0.12345",
        &["fraud.yaml:6: zones.eu.decline_above: must be a number from 0 to 1 with at most four digits after the point, not 0.12345"],
        false,
    ),
    (
        "review_above: 0.6",
        "review_above: 0.9",
        &["fraud.yaml:7: zones.eu.review_above: must be less than decline_above, which is 0.9000"],
        false,
    ),
    ("deadline_ms: 100", "deadline_ms: 9", &["fraud.yaml:8: zones.eu.deadline_ms: must be 10 to 5000, not 9"], true),
    (
        "deadline_ms: 100 # 8",
        "transaction_risk_analysis: {exempt_up_to_eur: 300}",
        &[
            "fraud.yaml:8: zones.eu.transaction_risk_analysis.exempt_up_to_eur: must be 0, 100, 250 or 500, the thresholds of the regulation, not \
             300",
        ],
        true,
    ),
    (
        "deadline_ms: 100 # 8",
        "transaction_risk_analysis: {history_days: 367}",
        &["fraud.yaml:8: zones.eu.transaction_risk_analysis.history_days: must be 0 to 366, not 367"],
        true,
    ),
    (
        "deadline_ms: 100 # 8",
        "transaction_risk_analysis: {score_max: 1.1}",
        &[
            "fraud.yaml:8: zones.eu.transaction_risk_analysis.score_max: must be a number from 0 to 1 with at most four digits after the point, not \
             1.1",
        ],
        true,
    ),
    (
        "zones: # 4",
        "zones:\n  global: {transaction_risk_analysis: {exempt_up_to_eur: 100}}",
        &[
            "fraud.yaml:5: zones.global.transaction_risk_analysis.exempt_up_to_eur: no region of zone `global` is under PSD2, so that its payments owe \
             nothing to be exempt from",
        ],
        false,
    ),
    ("up_to: 5000", "up_to: 3000", &["fraud.yaml:9: zones.eu.when_unavailable[1].up_to: must be more than the one before"], false),
    (
        "{then: closed}]",
        "{up_to: 9000, then: closed}]",
        &["fraud.yaml:9: zones.eu.when_unavailable[2].up_to: the last says what is done with all other payments, and has no up_to"],
        false,
    ),
    (
        "{up_to: 3000, then: open}",
        "{then: open}",
        &["fraud.yaml:9: zones.eu.when_unavailable[0]: only the last is without up_to: what comes after it would never be reached"],
        false,
    ),
    (
        "then: open",
        "then: opened",
        &["fraud.yaml:9: zones.eu.when_unavailable[0].then: `opened` is not a known policy; known are: open, closed"],
        true,
    ),
    ("user_count", "user_counts", &["fraud.yaml:11: rules.user_counts: unknown key; did you mean `user_count`?"], true),
    ("per: hour", "per: hours", &["fraud.yaml:12: rules.user_count[0].per: `hours` is not a known window; did you mean `hour`?"], true),
    ("per: hour", "per: five_minutes", &["fraud.yaml:13: rules.user_count[1]: the window has a rule already"], false),
    ("full: 30", "full: 10", &["fraud.yaml:12: rules.user_count[0].full: must be more than from, which is 10"], false),
    (", weight: 0.5", "", &["fraud.yaml:12: rules.user_count[0].weight: is missing"], true),
    (
        "weight: 0.5",
        "weight: 1.5",
        &["fraud.yaml:12: rules.user_count[0].weight: must be a number from 0 to 1 with at most four digits after the point, not 1.5"],
        true,
    ),
    (", after: 5", "", &["fraud.yaml:14: rules.amount_unusual.after: is missing"], true),
    ("{weight: 1}", "{weight: 1, after: 3}", &["fraud.yaml:16: rules.card_abroad.after: unknown key; known here: weight"], true),
    ("[7]", "[7, 7]", &["fraud.yaml:18: block.users[1]: is listed twice"], true),
    ("ddeeff\"", "ddeef\"", &["fraud.yaml:19: block.cards[0]: must be 32 hexadecimal digits"], true),
    ("ddeeff\"", "ddeefg\"", &["fraud.yaml:19: block.cards[0]: must be 32 hexadecimal digits"], true),
    (
        "\"400000\"",
        "4242424242424242",
        &["fraud.yaml:20: block.bins[0]: must be the first six or eight digits of a card's number, as text in quotes"],
        true,
    ),
    ("[KP]", "[Korea]", &["fraud.yaml:21: block.countries[0]: must be an ISO 3166-1 alpha-2 code such as DE, not `Korea`"], true),
    ("allow: # 22", "allow: # 22\n  users: [7]", &["fraud.yaml:23: allow.users[0]: is blocked too: it can be on one of the lists"], false),
];

#[test]
fn every_mistake_is_named_with_its_line_and_key() {
    let schema = Schema::of("fraud.schema.json");
    schema.validate(SOUND).expect("the schema takes the sound file");
    for (written, instead, wanted, refused_by_schema) in ROWS {
        assert!(SOUND.contains(written), "the sound file has no `{written}`");
        let yaml = SOUND.replacen(written, instead, 1);
        let errors = parse(&yaml).expect_err(instead);
        assert_eq!(errors, *wanted, "{written} -> {instead}");
        assert_eq!(schema.validate(&yaml).is_err(), *refused_by_schema, "{written} -> {instead}");
    }
}

#[test]
fn what_ships_is_sound_and_has_a_rule_for_every_signal() {
    let text = std::fs::read_to_string(region_config().join("fraud.yaml")).expect("it can be read");
    let topology = Topology::load(&region_config()).expect("the shipped topology");
    let fraud = Fraud::load(&region_config(), &topology).unwrap_or_else(|errors| panic!("{errors}")).expect("there is one");
    Schema::of("fraud.schema.json").validate(&text).expect("the schema takes it");
    for signal in Signal::all() {
        assert!(fraud.rules().contains_key(&signal), "{signal}");
    }
    for zone in topology.zones() {
        let policy = fraud.policy(&zone.name);
        assert_eq!(policy.decline_above, score("0.8"), "{}", zone.name);
        assert_eq!((policy.unscored(Some(100)), policy.unscored(Some(100_000))), (Unscored::Open, Unscored::Closed));
    }
    assert_eq!(Signal::all().filter(|signal| signal.shape() == Shape::Windowed).count(), 11);
}

#[test]
fn no_damage_to_what_ships_panics_or_passes_what_the_schema_refuses() {
    let text = std::fs::read_to_string(region_config().join("fraud.yaml")).expect("it can be read");
    let topology = Topology::load(&region_config()).expect("the shipped topology");
    let schema = Schema::of("fraud.schema.json");
    let lines: Vec<&str> = text.lines().collect();
    for cut in 0..lines.len() {
        let without: Vec<&str> = lines.iter().enumerate().filter(|(index, _)| *index != cut).map(|(_, line)| *line).collect();
        let without = without.join("\n");
        let (loaded, valid) = (Fraud::parse("test", &without, &topology), schema.validate(&without));
        assert!(loaded.is_err() || valid.is_ok(), "without line {}: {valid:?}", cut + 1);
    }
    for (end, _) in text.char_indices().step_by(23) {
        drop(Fraud::parse("test", &text[..end], &topology));
    }
}

#[test]
fn a_payment_is_scored_where_its_shard_is_led_or_first_in_its_zone() {
    let topology = topology();
    let user = |id: u64| id.try_into().expect("a user");
    let fraud = |zone_name: &str, id| topology.fraud(&zone(zone_name), user(id)).map(|region| region.as_str().to_owned());
    assert_eq!(fraud("global", 2), Some("us_east".to_owned()));
    assert_eq!(fraud("global", 3), Some("us_east".to_owned()), "us_west leads the shard and has none");
    assert_eq!(fraud("eu", 2), None, "a neighbour outside of the zone is not asked");
    assert_eq!(fraud("mars", 2), None);
    assert!(topology.scores_fraud(&zone("global")) && !topology.scores_fraud(&zone("eu")));
    let both = TOPOLOGY
        .replace("[payment_processor], database: regional_master}", "[payment_processor, fraud_detection], database: regional_master}");
    let topology = Topology::parse("test", &both).expect("a topology");
    let fraud = |id| topology.fraud(&zone("global"), user(id)).map(|region| region.as_str().to_owned());
    assert_eq!((fraud(2), fraud(3)), (Some("us_east".to_owned()), Some("us_west".to_owned())), "each where its shard is led");
}
