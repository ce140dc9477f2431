//! region-config, validated: the regions, compliance zones, shards and leaders of the mesh, and where its nodes listen.
//!
//! [`Topology::load`] reads `region-config/regions.yaml` and promises that what it returns holds together: every region in
//! one zone, every shard with one leader that may lead, every country in at most one zone, no address used twice. What is
//! wrong comes back as [`Errors`]: all of it at once, each with file, line and key. Nothing is guessed and nothing is placed
//! silently: a country that no zone lists is served by none.
//!
//! A topology does not change while it is in use and knows nothing of who is reachable; that is the mesh's part.
//! Tests of other crates write their own with [`Topology::parse`]:
//!
//! ```
//! let yaml = "
//! mesh: test
//! regions:
//!   eu_west: {primary: true, services: [payment_processor], database: primary_master}
//! zones:
//!   eu: {shards: 2, regions: [eu_west], countries: [DE]}
//! endpoints:
//!   eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
//! ";
//! let topology = paymesh_topology::Topology::parse("test", yaml)?;
//! assert_eq!(topology.primary().name.as_str(), "eu_west");
//! # Ok::<(), paymesh_topology::Errors>(())
//! ```

#![forbid(unsafe_code)]

mod access;
mod check;
mod cloud;
mod cron;
mod edit;
mod endpoint;
mod fraud;
mod gateways;
mod limits;
mod network;
mod prices;
mod problem;
mod read;
mod region;
mod scaling;
mod topology;
mod tree;

pub use access::{ACCESS_FILE_NAME, Access, CallLimits, Issuer, KeySource, Principal, TokenMatch, UserGrant, ZoneGrant};
pub use cloud::{
    Cloud, EEA_AWS_REGIONS, Entry, Kafka, Machines, PARTITIONS_MAX, SITE_PREFIX_BITS_MAX, SITE_PREFIX_BITS_MIN, Site, TOPICS_MAX, Topic,
};
pub use cron::{Moment, Schedule};
pub use edit::{EditError, NewRegion, NewSite, add_region, retire_region};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use fraud::{FRAUD_FILE_NAME, Fraud, Listed, Rule, Shape, Signal, TransactionRisk, Unscored, Window, ZonePolicy};
pub use gateways::{
    BreakerRule, ConnectorKind, Cost, GATEWAYS_FILE_NAME, GATEWAYS_MAX, Gateway, Gateways, Preference, RULES_MAX, Retries, RoutingRule,
    When,
};
pub use limits::Limits;
pub use network::{InvalidNetwork, Network};
pub use prices::{
    INSTANCE_TYPES_MAX, InstanceType, Interruption, PRICE_DIGITS_MAX, PRICE_MAX, PRICES_FILE_NAME, PaymentOption, Prices, RESERVED_MAX,
    Reserved, Spot, Term,
};
pub use problem::{Errors, Problem};
pub use region::{Compliance, Database, KeyToken, Region, Service};
pub use scaling::{Autoscaler, Metric, Reactive, SCALING_FILE_NAME, Scaling, Scheduled};
pub use topology::{AuditRetention, DIRECTORY_SHARDS, DIRECTORY_ZONE, JournalRetention, Topology, Zone};

/// The file that [`Topology::load`] looks for when it is given a folder.
pub const FILE_NAME: &str = "regions.yaml";
/// Bytes of that file at most.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of a PKCS#11 token's label at most: what the standard has room for.
pub const TOKEN_LABEL_BYTES_MAX: usize = 32;
/// Shards of a zone at most; the least is 1.
pub const ZONE_SHARDS_MAX: u16 = 4096;
/// Hours that a request's outcome is kept at least.
pub const OUTCOME_RETENTION_HOURS_MIN: u64 = 24;
/// Hours that a request's outcome is kept when the file does not say.
pub const OUTCOME_RETENTION_HOURS_DEFAULT: u64 = 7 * 24;
/// Hours that a request's outcome is kept at most: a year, past which the outcomes would outgrow the books.
pub const OUTCOME_RETENTION_HOURS_MAX: u64 = 366 * 24;
/// Hours that a journal is kept at most, where the file bounds it by time: ten years, past which it is not bounded.
pub const JOURNAL_RETENTION_HOURS_MAX: u64 = 10 * 366 * 24;
/// Bytes of a shard's journal at least, where the file bounds it by size: 1 MiB.
pub const JOURNAL_RETENTION_BYTES_MIN: u64 = 1 << 20;
/// Bytes of a shard's journal at most, where the file bounds it by size: 1 PiB.
pub const JOURNAL_RETENTION_BYTES_MAX: u64 = 1 << 50;
/// Hours that an audit log is kept at least: a day.
pub const AUDIT_RETENTION_HOURS_MIN: u64 = 24;
/// Hours that an audit log is kept when the file does not say: the twelve months that auditors ask for (PCI DSS 4.0, 10.5.1), and some days.
pub const AUDIT_RETENTION_HOURS_DEFAULT: u64 = 400 * 24;
/// Hours that an audit log is kept at most: ten years.
pub const AUDIT_RETENTION_HOURS_MAX: u64 = 10 * 366 * 24;
/// Bytes of a node's audit log at least: four of its files.
pub const AUDIT_RETENTION_BYTES_MIN: u64 = 256 << 20;
/// Bytes of a node's audit log when the file does not say: 16 GiB, some sixty million calls.
pub const AUDIT_RETENTION_BYTES_DEFAULT: u64 = 16 << 30;
/// Bytes of a node's audit log at most: 1 PiB.
pub const AUDIT_RETENTION_BYTES_MAX: u64 = 1 << 50;
