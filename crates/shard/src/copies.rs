//! The copies of other regions' shards that a node keeps for its readers, by name.

use std::{collections::BTreeMap, sync::Arc};

use paymesh_types::{Sequence, ShardRef};
use tokio::sync::watch;

use crate::Replica;

/// The whole copies of a node. Cheap to clone; all clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    places: Arc<BTreeMap<ShardRef, watch::Receiver<Option<Replica>>>>,
}

impl Copies {
    /// These: of each, the replica, while there is one. It may be another one after a while.
    pub fn new(places: BTreeMap<ShardRef, watch::Receiver<Option<Replica>>>) -> Self {
        Self { places: Arc::new(places) }
    }

    /// The shards that there are places for.
    pub fn shards(&self) -> impl Iterator<Item = &ShardRef> {
        self.places.keys()
    }

    /// The place of a shard's copy; `None` where there is none.
    pub fn place(&self, shard: &ShardRef) -> Option<watch::Receiver<Option<Replica>>> {
        self.places.get(shard).cloned()
    }

    /// The shard's copy, while it can be read: it is open, has tables, nothing is wrong with it, and it is not still empty.
    pub fn get(&self, shard: &ShardRef) -> Option<Replica> {
        let replica = self.places.get(shard)?.borrow().clone()?;
        let begun = replica.projected()? > Sequence(0) || replica.current_at().is_some();
        (begun && replica.problem().is_none()).then_some(replica)
    }
}
