//! What a plan needs to know of region-config: who leads how many shards, how often an entry is copied, and the topics.

use paymesh_topology::{DIRECTORY_ZONE, Database, Topology};
use rust_decimal::Decimal;

use crate::{
    Error,
    figure::{over, plus, times},
};

/// The mesh as a plan sees it. The directory's shards are not among them: payments do not write there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Regions that lead shards of users, in the order of the file.
    pub leads: Vec<Lead>,
    /// Shards of each zone, and how many regions have a copy of them beside their leader.
    pub zones: Vec<(u64, u64)>,
    /// Kafka's topics.
    pub topics: Vec<TopicLayout>,
}

/// A region that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// Its name.
    pub region: String,
    /// How many shards it leads.
    pub shards: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicLayout {
    /// Its name.
    pub name: String,
    /// Its partitions in regions.yaml.
    pub partitions: u64,
}

impl Layout {
    /// Of a configuration. A copy is in each region of the zone that has a database and does not lead.
    pub fn of(topology: &Topology) -> Self {
        let leads = topology.regions().map(|region| Lead {
            region: region.name.as_str().to_owned(),
            shards: topology.led_by(&region.name).iter().filter(|shard| shard.zone.as_str() != DIRECTORY_ZONE).count() as u64,
        });
        let keeps = |name| topology.region(name).is_some_and(|region| region.database != Database::None);
        let zones = topology.zones().map(|zone| {
            let regions = zone.regions.iter().filter(|name| keeps(name)).count() as u64;
            (u64::from(zone.shards), regions.saturating_sub(1))
        });
        let topics = topology.cloud().map(|cloud| cloud.kafka.topics.as_slice()).unwrap_or_default();
        Self {
            leads: leads.filter(|lead| lead.shards > 0).collect(),
            zones: zones.collect(),
            topics: topics.iter().map(|topic| TopicLayout { name: topic.name.clone(), partitions: topic.partitions }).collect(),
        }
    }

    /// All shards.
    pub fn shards(&self) -> u64 {
        self.zones.iter().map(|(shards, _)| *shards).sum()
    }

    /// Copies of an entry, on average over the shards.
    pub(super) fn copies(&self) -> Result<Decimal, Error> {
        let mut all = Decimal::ZERO;
        for (shards, copies) in &self.zones {
            all = plus("copies", all, times("copies", Decimal::from(*shards), Decimal::from(*copies))?)?;
        }
        over("copies", all, Decimal::from(self.shards().max(1)))
    }
}
