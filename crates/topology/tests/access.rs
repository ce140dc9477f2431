//! access.yaml: one row for each mistake, and what a sound file grants.

#![forbid(unsafe_code)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::Schema;
use paymesh_topology::{Access, CallLimits, KeySource, Topology, UserGrant, ZoneGrant};

const TOPOLOGY: &str = r#"
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
  eu_west: {grpc: "127.0.0.1:3", http: "127.0.0.1:4"}
"#;

const SCOPES: [&str; 3] = ["payments.write", "payments.read", "mesh.read"];

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"issuers: # 1
  idp: # 2
    issuer: https://id.example # 3
    audience: test # 4
    keys: {url: "https://id.example/keys", authorities: ca.pem} # 5
    clock_skew_seconds: 5 # 6
  dev: {issuer: dev, audience: test, keys: {file: jwks.json}} # 7
principals: # 8
  checkout: # 9
    tokens: {issuer: dev, claims: {sub: checkout}} # 10
    certificate: true # 11
    scopes: [payments.write, payments.read] # 12
    zones: [eu, global] # 13
    users: any # 14
    limits: {calls_per_second: 10, calls_in_progress: 2} # 15
  app: # 16
    tokens: {issuer: idp, claims: {azp: app}} # 17
    scopes: [payments.read] # 18
    zones: [eu] # 19
    pays: any # 20
    users: own # 21
"#;

fn parse(yaml: &str) -> Result<Access, Vec<String>> {
    let topology = Topology::parse("regions.yaml", TOPOLOGY).expect("a topology");
    let scopes: BTreeSet<&str> = SCOPES.into();
    Access::parse("access.yaml", yaml, &topology, &scopes).map_err(|errors| errors.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn a_sound_file_grants_what_it_says_and_no_more() {
    let access = parse(SOUND).expect("a sound file");
    let [idp, dev] = access.issuers() else { panic!("two issuers") };
    assert_eq!((idp.clock_skew, idp.lifetime_max), (Duration::from_secs(5), Duration::from_secs(86_400)));
    assert_eq!(idp.keys, KeySource::Url { url: "https://id.example/keys".to_owned(), authorities: Some("ca.pem".into()) });
    assert_eq!((dev.clock_skew, &dev.keys), (Duration::from_secs(30), &KeySource::File("jwks.json".into())));
    let [checkout, app] = access.principals() else { panic!("two principals") };
    assert!(checkout.certificate && checkout.users == UserGrant::Any);
    assert_eq!(checkout.zones, checkout.pays, "they pay where they are, unless the file says more");
    assert_eq!(checkout.limits, CallLimits { calls_per_second: Some(10), calls_in_progress: 2 });
    assert!(!app.certificate && app.users == UserGrant::Own && app.pays == ZoneGrant::Any);
    assert!(app.zones.has(&"eu".parse().expect("a zone")) && !app.zones.has(&"global".parse().expect("a zone")));
    assert_eq!(app.scopes, ["payments.read".to_owned()].into());
}

/// (what is written, what is written instead, the lines of the error, whether the schema refuses it too)
type Row = (&'static str, &'static str, &'static [&'static str], bool);

const ROWS: &[Row] = &[
    (
        "issuers:",
        "issuer:",
        &[
            "access.yaml:1: issuer: unknown key; did you mean `issuers`?",
            "access.yaml:10: principals.checkout.tokens.issuer: no issuer is called `dev`: there are none",
            "access.yaml:17: principals.app.tokens.issuer: no issuer is called `idp`: there are none",
        ],
        true,
    ),
    ("    audience: test # 4\n", "", &["access.yaml:2: issuers.idp.audience: is missing"], true),
    (
        ", authorities: ca.pem",
        "",
        &["access.yaml:5: issuers.idp.keys.url: needs `authorities` beside it: a file with those that are believed there, as PEM"],
        false,
    ),
    (
        "https://id.example/keys",
        "http://id.example/keys",
        &["access.yaml:5: issuers.idp.keys.url: must begin with https://, or with http:// on this machine, not `http://id.example/keys`"],
        true,
    ),
    (
        "https://id.example/keys",
        "http://127.0.0.1.evil.example/keys",
        &[
            "access.yaml:5: issuers.idp.keys.url: must begin with https://, or with http:// on this machine, not `http://127.0.0.1.evil.example/keys`",
        ],
        true,
    ),
    ("{file: jwks.json}", "{}", &["access.yaml:7: issuers.dev.keys: must have `file` or `url`, one of them"], true),
    (
        "clock_skew_seconds: 5",
        "clock_skew_seconds: 301",
        &["access.yaml:6: issuers.idp.clock_skew_seconds: must be 0 to 300, not 301"],
        true,
    ),
    (
        "issuer: dev, audience",
        "issuer: https://id.example, audience",
        &["access.yaml:7: issuers.dev.issuer: is the `iss` of idp too (line 3): a token would be of both"],
        false,
    ),
    (
        "payments.write,",
        "payment.write,",
        &[
            "access.yaml:12: principals.checkout.scopes[0]: no method of the contract asks callers for the scope `payment.write`; did you mean `payments.write`?",
        ],
        true,
    ),
    ("    zones: [eu, global] # 13\n", "", &["access.yaml:9: principals.checkout.zones: is missing"], true),
    ("zones: [eu, global]", "zones: []", &["access.yaml:13: principals.checkout.zones: must list at least one zone"], true),
    (
        "zones: [eu, global]",
        "zones: [eu, asia]",
        &["access.yaml:13: principals.checkout.zones[1]: no zone is called `asia`; the zones are: global, eu"],
        false,
    ),
    (
        "zones: [eu, global]",
        "zones: all",
        &["access.yaml:13: principals.checkout.zones: must be a list of zones, or `any`, not `all`"],
        true,
    ),
    ("    users: any # 14\n", "", &["access.yaml:9: principals.checkout.users: is missing"], true),
    (
        "users: any",
        "users: own",
        &[
            "access.yaml:9: principals.checkout: a certificate has no claims: one who acts for `own` users, or for those of a claim, shows tokens only",
        ],
        false,
    ),
    (
        "users: own",
        "users: mine",
        &["access.yaml:21: principals.app.users: must be `any`, `own` (the token's sub), or `{claim: NAME}`, not `mine`"],
        true,
    ),
    (
        "issuer: idp, claims",
        "issuer: ipd, claims",
        &["access.yaml:17: principals.app.tokens.issuer: no issuer is called `ipd`; did you mean `idp`?"],
        false,
    ),
    (
        "claims: {azp: app}",
        "claims: {}",
        &[
            "access.yaml:17: principals.app.tokens.claims: must name a claim, such as sub: every token of the issuer would be this principal's",
        ],
        true,
    ),
    (
        "tokens: {issuer: idp, claims: {azp: app}}",
        "tokens: {issuer: dev, claims: {azp: app}}",
        &[
            "access.yaml:16: principals.app: one token could be of checkout too (line 9): have both ask for the same claim, with different values",
        ],
        false,
    ),
    (
        "    tokens: {issuer: idp, claims: {azp: app}} # 17\n",
        "",
        &["access.yaml:16: principals.app: nobody can be this principal: give it `tokens`, or `certificate: true`"],
        true,
    ),
    (
        "calls_per_second: 10",
        "calls_per_second: 0",
        &["access.yaml:15: principals.checkout.limits.calls_per_second: must be 1 to 10000000, not 0"],
        true,
    ),
    (
        "  app: # 16",
        "  App: # 16",
        &["access.yaml:16: principals.App: a name is 1 to 63 of a-z, 0-9, - and _, beginning with a letter, not `App`"],
        true,
    ),
];

#[test]
fn every_mistake_names_its_file_line_and_key() {
    let schema = Schema::of("access.schema.json");
    for (from, to, wanted, schema_refuses) in ROWS {
        assert_eq!(SOUND.matches(from).count(), 1, "`{from}` must stand once");
        let text = SOUND.replace(from, to);
        let problems = parse(&text).expect_err(to);
        assert_eq!(problems, *wanted, "{from} -> {to}");
        // The scopes of this test are fewer than the contract's.
        assert_eq!(schema.validate(&text).is_err(), *schema_refuses, "the schema: {from} -> {to}");
    }
    assert_eq!(schema.validate(SOUND), Ok(()));
}

#[test]
fn an_empty_file_grants_nothing_and_is_refused() {
    assert_eq!(parse("").expect_err("empty"), ["access.yaml: principals: is missing"]);
    assert_eq!(parse("principals: {}").expect_err("empty"), ["access.yaml:1: principals: must not be empty"]);
    assert!(parse("principals: [").is_err());
}
