//! The block `cloud`: what is taken of it, and one row for each mistake.

#![forbid(unsafe_code)]

mod common;

use common::{Schema, region_config};
use paymesh_topology::{EEA_AWS_REGIONS, Entry, Topology};

/// A sound file. The numbers at the end of its lines are theirs.
const SOUND: &str = r#"mesh: test # 1
regions: # 2
  us_east: {primary: true, services: [payment_processor], database: primary_master} # 3
  us_west: {primary: false, services: [payment_processor], database: read_replica} # 4
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]} # 5
zones: # 6
  global: {shards: 4, regions: [us_east, us_west], countries: [US, CA]} # 7
  eu: {shards: 2, regions: [eu_west], countries: [DE], aws_regions: [eu-west-1, eu-central-1], entry: own} # 8
endpoints: # 9
  us_east: {grpc: "127.0.0.1:7101", http: "127.0.0.1:7201"} # 10
  us_west: {grpc: "127.0.0.1:7102", http: "127.0.0.1:7202"} # 11
  eu_west: {grpc: "127.0.0.1:7103", http: "127.0.0.1:7203"} # 12
cloud: # 13
  domain: pay.example.com # 14
  machines: {node: c5.xlarge, edge: c5.large, vault: t3.large, database: r5.xlarge, cache: r5.large, broker: m5.large} # 15
  kafka: # 16
    brokers: 3 # 17
    replication_factor: 3 # 18
    partitions_per_topic: 12 # 19
    topics: {payment_events: {partitions: 24, replication_factor: 3, retention_ms: 604800000}} # 20
  regions: # 21
    us_east: {aws_region: us-east-1, network: 10.16.0.0/16} # 22
    us_west: {aws_region: us-west-2, network: 10.17.0.0/16} # 23
    eu_west: {aws_region: eu-west-1, network: 10.32.0.0/20} # 24
"#;

fn edit(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once");
    text.replace(from, to)
}

fn problems(yaml: &str) -> Vec<String> {
    match Topology::parse("regions.yaml", yaml) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(|line| line.trim_start_matches("regions.yaml:").to_owned()).collect(),
    }
}

#[test]
fn a_sound_block_is_taken() {
    Schema::shipped().validate(SOUND).expect("the schema takes it");
    let topology = Topology::parse("test", SOUND).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(topology.cloud().map(|cloud| (cloud.domain.as_str(), cloud.protected)), Some(("pay.example.com", true)));
    let site = |name: &str| topology.region(&name.parse().expect(name)).and_then(|region| region.site.clone()).expect(name);
    assert_eq!(site("us_west").replica_of.as_ref().map(|region| region.as_str()), Some("us_east"), "the only master of its zone");
    assert_eq!((site("us_east").replica_of, site("eu_west").replica_of), (None, None));
    assert_eq!(site("eu_west").network.to_string(), "10.32.0.0/20");
    let entries: Vec<Entry> = topology.zones().map(|zone| zone.entry).collect();
    assert_eq!(entries, [Entry::Any, Entry::Own]);
}

#[test]
fn without_the_block_no_region_has_a_place() {
    let without = &SOUND[..SOUND.find("cloud:").expect("it is there")];
    let topology = Topology::parse("test", without).expect("it is sound");
    assert!(topology.cloud().is_none() && topology.regions().all(|region| region.site.is_none()));
}

#[test]
fn the_shipped_regions_have_places_and_the_source_documents_topics() {
    let topology = Topology::load(&region_config()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(topology.regions().all(|region| region.site.is_some()));
    let kafka = &topology.cloud().expect("it is there").kafka;
    let topics: Vec<_> = kafka.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions, topic.retention_ms)).collect();
    assert_eq!((kafka.brokers, kafka.replication_factor, kafka.partitions_per_topic), (9, 3, 12));
    assert_eq!(topics, [("payment_events", 24, 604_800_000), ("fraud_alerts", 12, 2_592_000_000), ("webhook_events", 36, 259_200_000)]);
}

/// (what is written, what is written instead, the lines of the error without the file's name, whether the schema refuses it too)
type Row = (&'static str, &'static str, &'static [&'static str], bool);

const MISTAKES: &[Row] = &[
    ("  domain: pay.example.com # 14\n", "", &["13: cloud.domain: is missing"], true),
    (
        "pay.example.com",
        "Pay.example.com",
        &["14: cloud.domain: must be a DNS name in lower case such as pay.example.com, not `Pay.example.com`"],
        true,
    ),
    ("pay.example.com", "pay", &["14: cloud.domain: must be a DNS name in lower case such as pay.example.com, not `pay`"], true),
    ("  kafka: # 16", "  protected: yes\n  kafka: # 16", &["16: cloud.protected: must be true or false, not `yes`"], true),
    ("edge: c5.large, ", "", &["15: cloud.machines.edge: is missing"], true),
    ("node: c5.xlarge", "node: c5", &["15: cloud.machines.node: must be a kind of machine such as c5.large, not `c5`"], true),
    ("brokers: 3", "brokers: 4", &["17: cloud.kafka.brokers: must be a multiple of 3, one for each zone of availability, not 4"], true),
    ("partitions: 24", "partitions: 0", &["20: cloud.kafka.topics.payment_events.partitions: must be 1 to 1000, not 0"], true),
    (
        "partitions: 24, replication_factor: 3",
        "partitions: 24, replication_factor: 4",
        &["20: cloud.kafka.topics.payment_events.replication_factor: must be 1 to 3, not 4"],
        false,
    ),
    (
        "aws_region: us-east-1",
        "aws_region: us_east",
        &["22: cloud.regions.us_east.aws_region: must be an AWS region such as eu-west-1, not `us_east`"],
        true,
    ),
    (
        "10.17.0.0/16",
        "10.16.128.0/20",
        &["23: cloud.regions.us_west.network: 10.16.128.0/20 overlaps 10.16.0.0/16, the network of us_east (line 22)"],
        false,
    ),
    (
        "10.17.0.0/16",
        "172.16.0.0/16",
        &["23: cloud.regions.us_west.network: must be a network within 10.0.0.0/8 of /16 to /20, not 172.16.0.0/16"],
        true,
    ),
    (
        "10.17.0.0/16",
        "10.17.0.0/24",
        &["23: cloud.regions.us_west.network: must be a network within 10.0.0.0/8 of /16 to /20, not 10.17.0.0/24"],
        true,
    ),
    (
        "10.17.0.0/16",
        "10.17.0.0",
        &["23: cloud.regions.us_west.network: must be a network within 10.0.0.0/8 of /16 to /20, not 10.17.0.0/32"],
        true,
    ),
    (
        "10.17.0.0/16",
        "10.17.1.0/16",
        &["23: cloud.regions.us_west.network: a network's address is its first, whose other bits are zero, not `10.17.1.0/16`"],
        false,
    ),
    (
        "    us_west: {aws_region: us-west-2, network: 10.17.0.0/16} # 23\n",
        "",
        &["4: regions.us_west: has no place in the cloud: add `cloud.regions.us_west`"],
        false,
    ),
    (
        "    us_west: {aws",
        "    us_wst: {aws",
        &[
            "4: regions.us_west: has no place in the cloud: add `cloud.regions.us_west`",
            "23: cloud.regions.us_wst: no region is called `us_wst`; did you mean `us_west`?",
        ],
        false,
    ),
    (
        "10.17.0.0/16}",
        "10.17.0.0/16, replica_of: eu_west}",
        &[
            "23: cloud.regions.us_west.replica_of: `eu_west` is not of zone global: a replica in us_west would be a copy of another zone's data, which may not leave it",
        ],
        false,
    ),
    (
        "10.17.0.0/16}",
        "10.17.0.0/16, replica_of: us_west}",
        &["23: cloud.regions.us_west.replica_of: `us_west` is no master: a replica copies a master's database"],
        false,
    ),
    (
        "10.32.0.0/20}",
        "10.32.0.0/20, replica_of: us_east}",
        &["24: cloud.regions.eu_west.replica_of: eu_west has no replica: its database is regional_master"],
        false,
    ),
    (
        "aws_region: eu-west-1",
        "aws_region: us-west-1",
        &["24: cloud.regions.eu_west.aws_region: data of zone eu may not be in us-west-1: its aws_regions are eu-west-1, eu-central-1"],
        false,
    ),
    (
        ", aws_regions: [eu-west-1, eu-central-1]",
        "",
        &["8: zones.eu: is under the GDPR: say where its data may be stored, such as aws_regions: [eu-west-1, eu-central-1]"],
        false,
    ),
    (
        "[eu-west-1, eu-central-1]",
        "[eu-west-1, eu-west-2]",
        &[
            "8: zones.eu.aws_regions[1]: eu-west-2 is outside of the European Economic Area, and zone eu is under the GDPR: its data may be in eu-central-1, eu-north-1, eu-south-1, eu-south-2, eu-west-1, eu-west-3, eusc-de-east-1",
        ],
        false,
    ),
    ("entry: own", "entry: none", &["8: zones.eu.entry: `none` is not a known way in; known are: own, any"], true),
    (
        "cloud: # 13\n",
        "cloud: []\nclod: # 13\n",
        &["13: cloud: must be a mapping, not a list", "14: clod: unknown key; did you mean `cloud`?"],
        true,
    ),
];

#[test]
fn every_mistake_is_refused_with_its_line_and_key() {
    let schema = Schema::shipped();
    let mut wrong = Vec::new();
    for (from, to, expected, by_schema) in MISTAKES {
        let yaml = edit(SOUND, from, to);
        let found = problems(&yaml);
        if found != *expected {
            wrong.push(format!("{to}\n  expected {expected:#?}\n  found {found:#?}"));
        }
        if *by_schema == schema.validate(&yaml).is_ok() {
            wrong.push(format!("{to}\n  by the schema: {:?}", schema.validate(&yaml)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_two_masters_a_replica_says_which_is_meant() {
    let two = edit(
        SOUND,
        "us_west: {primary: false, services: [payment_processor], database: read_replica}",
        "us_west: {primary: false, services: [payment_processor], database: regional_master}",
    );
    let two = edit(
        &two,
        "{shards: 4, regions: [us_east, us_west],",
        "{shards: 4, leaders: {us_east: 0-1, us_west: 2-3}, regions: [us_east, us_west, asia],",
    );
    let two = edit(&two, "zones:", "  asia: {primary: false, services: [payment_processor], database: read_replica}\nzones:");
    let two = edit(&two, "cloud:", "  asia: {grpc: \"127.0.0.1:7104\", http: \"127.0.0.1:7204\"}\ncloud:");
    let silent = format!("{two}    asia: {{aws_region: ap-southeast-1, network: 10.18.0.0/16}}\n");
    assert_eq!(
        problems(&silent),
        [
            "27: cloud.regions.asia: us_east and us_west are masters of zone global: say which one's database asia has, such as replica_of: us_east"
        ]
    );
    let said = edit(&silent, "10.18.0.0/16}", "10.18.0.0/16, replica_of: us_west}");
    let topology = Topology::parse("test", &said).unwrap_or_else(|errors| panic!("{errors}"));
    let asia = topology.region(&"asia".parse().expect("a name")).and_then(|region| region.site.as_ref()).expect("it is there");
    assert_eq!(asia.replica_of.as_ref().map(|region| region.as_str()), Some("us_west"));
}

#[test]
fn a_zone_under_the_gdpr_may_be_in_any_region_of_the_area() {
    let schema = Schema::shipped();
    for name in EEA_AWS_REGIONS {
        let yaml =
            edit(SOUND, "[eu-west-1, eu-central-1]", &format!("[eu-west-1, {}]", if *name == "eu-west-1" { "eu-north-1" } else { name }));
        assert_eq!(problems(&yaml), [""; 0], "{name}");
        schema.validate(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
