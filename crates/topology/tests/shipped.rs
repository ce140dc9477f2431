//! The configuration that ships: it loads, it keeps the source document's block, and the schema beside it takes it.

#![forbid(unsafe_code)]

mod common;

use std::{fs, path::Path, time::Duration};

use common::{Schema, region_config};
use paymesh_topology::{AuditRetention, Compliance, DIRECTORY_ZONE, Database, FILE_BYTES_MAX, Limits, Service, Topology};
use paymesh_types::{Country, RegionName, ShardRef, UserId, ZoneName};

/// "Regional Deployment Strategy" of the source document.
const SOURCE_BLOCK: &str = "\
# Global regions configuration
regions:
  us_east:
    primary: true
    services: [payment_processor, fraud_detection, vault]
    database: primary_master

  us_west:
    primary: false
    services: [payment_processor, fraud_detection]
    database: read_replica

  eu_west:
    primary: false
    services: [payment_processor, fraud_detection, vault]
    database: regional_master
    compliance: [GDPR, PSD2]

  asia_pacific:
    primary: false
    services: [payment_processor]
    database: read_replica
";

fn shipped_text() -> String {
    fs::read_to_string(region_config().join("regions.yaml")).expect("the shipped file can be read")
}

fn shipped() -> Topology {
    match Topology::load(&region_config()) {
        Ok(topology) => topology,
        Err(errors) => panic!("{errors}"),
    }
}

fn region(name: &str) -> RegionName {
    name.parse().expect(name)
}

fn zone(name: &str) -> ZoneName {
    name.parse().expect(name)
}

fn country(code: &str) -> Country {
    code.parse().expect(code)
}

fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("a user id")
}

#[test]
fn the_source_documents_block_stands_in_it_unchanged() {
    // Blanks at the end of a line are compared away: an editor may drop them.
    let lines: Vec<String> = shipped_text().lines().map(|line| line.trim_end().to_owned()).collect();
    assert!(lines.join("\n").contains(SOURCE_BLOCK));
}

#[test]
fn the_schema_takes_it() {
    Schema::shipped().validate(&shipped_text()).expect("the schema takes the shipped file");
}

#[test]
fn it_loads_by_its_folder_and_by_its_name() {
    assert_eq!(Topology::load(&region_config().join("regions.yaml")).as_ref(), Ok(&shipped()));
}

#[test]
fn its_regions_are_those_of_the_source_document() {
    let topology = shipped();
    let names: Vec<&str> = topology.regions().map(|region| region.name.as_str()).collect();
    assert_eq!(names, ["us_east", "us_west", "eu_west", "asia_pacific"]);
    assert_eq!(topology.primary().name, region("us_east"));
    let eu_west = topology.region(&region("eu_west")).expect("eu_west");
    assert_eq!(eu_west.zone, zone("eu"));
    assert!(!eu_west.primary);
    assert_eq!(eu_west.services, [Service::PaymentProcessor, Service::FraudDetection, Service::Vault]);
    assert_eq!(eu_west.database, Database::RegionalMaster);
    assert_eq!(eu_west.compliance, [Compliance::Gdpr, Compliance::Psd2]);
    assert!(topology.is_under_psd2(&zone("eu")) && !topology.is_under_psd2(&zone("global")) && !topology.is_under_psd2(&zone("mars")));
    assert!(!topology.region(&region("asia_pacific")).expect("asia_pacific").runs(Service::Vault));
    assert!(topology.region(&region("mars")).is_none());
    assert!(topology.regions().all(|region| region.grpc.is_loopback() && region.http.is_loopback()));
    assert_eq!(topology.outcome_retention(), Duration::from_secs(7 * 24 * 3600));
    assert_eq!(topology.audit_retention(), AuditRetention { time: Duration::from_secs(400 * 24 * 3600), bytes: 16 << 30 });
}

#[test]
fn residents_are_placed_by_their_country_or_not_at_all() {
    let topology = shipped();
    for code in ["DE", "NO", "CZ", "RE"] {
        assert_eq!(topology.zone_of_country(country(code)), Some(&zone("eu")), "{code}");
    }
    for code in ["US", "JP", "BR"] {
        assert_eq!(topology.zone_of_country(country(code)), Some(&zone("global")), "{code}");
    }
    for code in ["CN", "CH", "AQ"] {
        assert_eq!(topology.zone_of_country(country(code)), None, "{code}");
    }
    let listed: usize = topology.zones().map(|zone| zone.countries.len()).sum();
    assert_eq!(listed, 25 + 37);
}

#[test]
fn a_users_home_is_the_remainder_by_the_zones_shards() {
    let topology = shipped();
    assert_eq!(topology.home(&zone("eu"), user(7)), Some(ShardRef { zone: zone("eu"), index: 3 }));
    assert_eq!(topology.home(&zone("global"), user(8)), Some(ShardRef { zone: zone("global"), index: 0 }));
    assert_eq!(topology.home(&zone("mars"), user(8)), None);
    assert_eq!(topology.home(&zone(DIRECTORY_ZONE), user(8)), None, "nobody lives in the directory");
    assert_eq!(topology.directory_shard(user(7)), ShardRef { zone: zone(DIRECTORY_ZONE), index: 0 });
}

#[test]
fn every_shard_has_one_leader() {
    let topology = shipped();
    let shards = topology.shards();
    assert_eq!(shards.len(), 1 + 4 + 4);
    let led: usize = topology.regions().map(|region| topology.led_by(&region.name).len()).sum();
    assert_eq!(led, shards.len());
    assert!(shards.iter().all(|shard| topology.leader(shard).is_some()));
    let shard = |name: &str, index| ShardRef { zone: zone(name), index };
    assert_eq!(topology.leader(&shard("eu", 3)), Some(&region("eu_west")));
    assert_eq!(topology.leader(&shard(DIRECTORY_ZONE, 0)), Some(&region("us_east")));
    for wrong in [shard("eu", 4), shard("mars", 0), shard(DIRECTORY_ZONE, 1)] {
        assert_eq!(topology.leader(&wrong), None, "{wrong}");
    }
    assert!(topology.led_by(&region("us_west")).is_empty());
}

#[test]
fn all_regions_as_masters_is_one_edit() {
    let yaml = shipped_text().replace("database: read_replica", "database: regional_master").replace(
        "    shards: 4\n    regions: [us_east,",
        "    shards: 4\n    leaders: {us_east: \"0,3\", us_west: 1, asia_pacific: \"2-2\"}\n    regions: [us_east,",
    );
    Schema::shipped().validate(&yaml).expect("the schema takes it");
    let topology = Topology::parse("test", &yaml).expect("it is sound");
    let leaders: Vec<&str> =
        (0..4).map(|index| topology.leader(&ShardRef { zone: zone("global"), index }).expect("a leader").as_str()).collect();
    assert_eq!(leaders, ["us_east", "us_west", "asia_pacific", "us_east"]);
    assert_eq!(topology.led_by(&region("us_east")).len(), 1 + 2, "the directory and two");
}

/// What stands in the file for a number, and what is taken for it. Mistakes are in `mistakes.rs`.
#[test]
fn bytes_may_be_written_with_underscores_between_their_digits() {
    for (written, bytes) in [("107374182400", 107_374_182_400), ("107_374_182_400", 107_374_182_400), ("1_048_576", 1_048_576)] {
        let text = format!("{}\njournal: {{retention_bytes: {written}}}\n", shipped_text());
        let topology = Topology::parse("test", &text).unwrap_or_else(|errors| panic!("{written}: {errors}"));
        assert_eq!(topology.journal_retention().bytes, Some(bytes), "{written}");
        Schema::shipped().validate(&text).unwrap_or_else(|errors| panic!("{written}: {errors}"));
    }
}

/// The commented block of a key, as it would be written.
fn uncommented(text: &str, key: &str) -> String {
    let lines = text.lines().skip_while(|line| *line != format!("#   {key}:")).take_while(|line| line.starts_with('#'));
    lines.map(|line| line.strip_prefix("#   ").expect("an indented comment")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_limits_that_it_tells_of_are_the_defaults() {
    let block = uncommented(&shipped_text(), "limits");
    let yaml = format!("{}\n{block}\n", shipped_text());
    let topology = Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}\n{block}"));
    Schema::shipped().validate(&yaml).expect("the schema takes it");
    assert_eq!(topology.limits(), &Limits::default());
    assert_eq!(shipped().limits(), &Limits::default());
    // Every one is told of: what is left out of the block would be a default in any case.
    let properties = Schema::properties("limits");
    assert!(properties.keys().all(|key| block.contains(&format!("  {key}:"))), "{block}");
}

#[test]
fn the_schema_bounds_limits_as_the_loader_does() {
    let schema = Schema::shipped();
    let properties = Schema::properties("limits");
    let numbers = properties.iter().filter(|(_, property)| property["type"] == "integer");
    let mut keys = 0;
    for (key, property) in numbers {
        let (min, max) = (property["minimum"].as_u64().expect("a bound"), property["maximum"].as_u64().expect("a bound"));
        for (value, taken) in [(min, true), (max, true), (min - 1, false), (max + 1, false)] {
            let yaml = format!("{}\nlimits: {{{key}: {value}}}\n", shipped_text());
            assert_eq!(Topology::parse("test", &yaml).is_ok(), taken, "{key}: {value}");
            assert_eq!(schema.validate(&yaml).is_ok(), taken, "{key}: {value}");
        }
        keys += 1;
    }
    assert_eq!(keys, properties.len() - 1, "all but the networks are numbers");
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |path: &Path| Topology::load(path).expect_err("refused").to_string();
    let file = folder.path().join("regions.yaml");
    let name = file.display();
    assert_eq!(
        load(folder.path()),
        format!(
            "{name}: cannot be read: No such file or directory (os error 2); where the configuration is, `--config` and PAYMESH_CONFIG say"
        )
    );
    fs::write(&file, b"mesh: a\nregions: \xff\n").expect("written");
    assert_eq!(load(folder.path()), format!("{name}:2: is not UTF-8"));
    fs::write(&file, vec![b'#'; usize::try_from(FILE_BYTES_MAX).expect("it fits") + 1]).expect("written");
    assert_eq!(load(&file), format!("{name}: is larger than 262144 bytes"));
    fs::write(&file, "").expect("written");
    assert_eq!(load(&file), ["mesh", "regions", "zones", "endpoints"].map(|key| format!("{name}: {key}: is missing")).join("\n"));
}

#[test]
fn no_damage_to_it_goes_unnoticed_or_panics() {
    let text = shipped_text();
    let schema = Schema::shipped();
    let lines: Vec<&str> = text.lines().collect();
    for cut in 0..lines.len() {
        let without: Vec<&str> = lines.iter().enumerate().filter(|(index, _)| *index != cut).map(|(_, line)| *line).collect();
        let without = without.join("\n");
        let (loaded, valid) = (Topology::parse("test", &without), schema.validate(&without));
        assert!(loaded.is_err() || valid.is_ok(), "without line {}: {valid:?}", cut + 1);
    }
    for (end, _) in text.char_indices().step_by(17) {
        if let Err(errors) = Topology::parse("test", &text[..end]) {
            assert!(!errors.problems().is_empty());
        }
    }
}
