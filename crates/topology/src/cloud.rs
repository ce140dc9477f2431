//! Where the regions run once they are deployed: accounts of a cloud, addresses, machines.
//!
//! Nodes on one machine have no use for it. Terraform reads the same block, so nothing here is looked up or made: what is not
//! written is not there, but for the region whose database a replica copies, where only one can be meant.

use paymesh_types::RegionName;

use crate::{Network, region::words};

/// Bits of a region's network that count at least: a /16 has room for three zones of availability, several times over.
pub const SITE_PREFIX_BITS_MIN: u8 = 16;
/// Bits of a region's network that count at most: below a /20, the subnets of a region have no room for its pods.
pub const SITE_PREFIX_BITS_MAX: u8 = 20;
/// Topics at most.
pub const TOPICS_MAX: usize = 64;
/// Partitions of a topic at most.
pub const PARTITIONS_MAX: u64 = 1_000;

/// AWS regions within the European Economic Area, where the GDPR holds: London and Zurich, whose names begin with `eu` too, are outside of it.
/// From "Regions and zones" of the AWS documentation; the last is the European Sovereign Cloud's.
pub const EEA_AWS_REGIONS: &[&str] =
    &["eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3", "eusc-de-east-1"];

/// The deployment of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// The DNS name below which all names of the mesh are, in lower case.
    pub domain: String,
    /// The kinds of machines.
    pub machines: Machines,
    /// The clusters of Kafka, one of a region.
    pub kafka: Kafka,
    /// Whether what has data refuses to be deleted: true where the file does not say.
    pub protected: bool,
}

/// Kinds of machines, as the cloud calls them: `c5.large`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    /// Of a region's node.
    pub node: String,
    /// Of its edges.
    pub edge: String,
    /// Of its vault.
    pub vault: String,
    /// Of its database servers.
    pub database: String,
    /// Of its Redis servers.
    pub cache: String,
    /// Of its Kafka brokers.
    pub broker: String,
}

/// A cluster of Kafka (source document, "Apache Kafka for Event Streaming").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// Brokers: a multiple of the three zones of availability.
    pub brokers: u64,
    /// Copies of a partition where a topic does not say.
    pub replication_factor: u64,
    /// Partitions of a topic that does not say.
    pub partitions_per_topic: u64,
    /// The topics, in the order of the file.
    pub topics: Vec<Topic>,
}

/// A topic of Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions: 1 to [`PARTITIONS_MAX`].
    pub partitions: u64,
    /// Copies of each partition: no more than there are brokers.
    pub replication_factor: u64,
    /// Milliseconds that an event is kept.
    pub retention_ms: u64,
}

/// Where a region is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The AWS region, such as `eu-west-1`.
    pub aws_region: String,
    /// Its addresses: no other region has any of them.
    pub network: Network,
    /// The region whose database its own is a replica of: a master of the same zone. `None`: it is no replica.
    pub replica_of: Option<RegionName>,
}

words!(
    /// Which regions the names of a zone lead to.
    Entry {
        /// Those of the zone: its users' requests pass through no others, unless their callers call one by its own name.
        Own = "own",
        /// All, by latency.
        Any = "any",
    }
);
