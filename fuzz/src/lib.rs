//! What the fuzz targets check. Each function takes any bytes, and panics if something that must hold does not.

#![forbid(unsafe_code)]

mod access;
mod journal;
mod request;

pub use access::{TOKENS_ISSUED_AT, access_config, jwt};
pub use journal::{border_segment, entry_codec, segment_decoder};
pub use request::request_path;

use paymesh_topology::Topology;

/// region-config: any text is a topology that holds together or a list of problems, each of which says something.
pub fn region_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Topology::parse("fuzz.yaml", text) {
        Ok(topology) => {
            assert_eq!(topology.regions().filter(|region| region.primary).count(), 1, "one region is the primary");
            for shard in topology.shards() {
                let leader = topology.leader(&shard).expect("every shard has a leader");
                let region = topology.region(leader).expect("every leader is a region");
                assert!(region.database.is_master(), "a leader has a master database");
            }
            for zone in topology.zones() {
                for country in &zone.countries {
                    assert_eq!(topology.zone_of_country(*country), Some(&zone.name), "a country is in one zone");
                }
            }
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty(), "a refusal has a reason");
            for problem in errors.problems() {
                assert!(!problem.message.is_empty(), "a problem says what it is");
            }
        }
    }
}
