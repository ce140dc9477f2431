//! Shards as nodes name them, turned into domain types at the door.

use anyhow::Context as _;
use paymesh_contract::common::v1 as common;
use paymesh_types::ShardRef;

/// The shard that a node's answer names.
pub(crate) fn shard(named: Option<&common::ShardRef>) -> anyhow::Result<ShardRef> {
    let named = named.context("a node's answer does not name the shard that it is about")?;
    ShardRef::try_from(named).map_err(|fault| anyhow::anyhow!("a node's answer names no valid shard: {}", fault.message))
}
