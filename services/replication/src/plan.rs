//! What a region follows.

use std::collections::{BTreeMap, BTreeSet};

use paymesh_journal::Holding;
use paymesh_topology::{DIRECTORY_ZONE, Topology};
use paymesh_types::{RegionName, ShardRef, ZoneName};

/// A shard that a region follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The shard.
    pub shard: ShardRef,
    /// The region that leads it.
    pub leader: RegionName,
    /// What of it the region holds.
    pub holding: Holding,
}

/// The shards that a region follows: whole, those of its zone; as far as they concern its zone, those of other zones, when
/// the region leads shards that other zones' users may pay. The directory says whose a user is and nothing else about them: every
/// region follows it, whole, and both ends of the stream see to it that nothing in it is sealed. A vault alone follows nothing.
pub fn plan(topology: &Topology, region: &RegionName) -> Vec<Followed> {
    let found = topology.region(region).filter(|region| !region.is_vault_alone());
    let Some(zone) = found.map(|region| &region.zone) else { return Vec::new() };
    let is_paid = topology.led_by(region).iter().any(|shard| shard.zone.as_str() != DIRECTORY_ZONE);
    let followed = topology.shards().into_iter().filter_map(|shard| {
        let leader = topology.leader(&shard)?.clone();
        let holding = holding(&shard, zone);
        let wanted = leader != *region && (holding == Holding::Whole || is_paid);
        wanted.then_some(Followed { shard, leader, holding })
    });
    followed.collect()
}

/// The regions that follow shards which a region leads, each with those.
pub(crate) fn followers(topology: &Topology, leader: &RegionName) -> BTreeMap<RegionName, BTreeSet<ShardRef>> {
    let regions = topology.regions().map(|region| {
        let followed = plan(topology, &region.name).into_iter().filter(|followed| followed.leader == *leader);
        (region.name.clone(), followed.map(|followed| followed.shard).collect::<BTreeSet<_>>())
    });
    regions.filter(|(_, followed)| !followed.is_empty()).collect()
}

/// What a region of that zone may hold of a shard.
pub(crate) fn holding(shard: &ShardRef, zone: &ZoneName) -> Holding {
    if shard.zone == *zone || is_directory(shard) { Holding::Whole } else { Holding::For(zone.clone()) }
}

/// Whether it is a shard of the directory.
pub(crate) fn is_directory(shard: &ShardRef) -> bool {
    shard.zone.as_str() == DIRECTORY_ZONE
}
