//! The shards that a region leads, by name.

use std::{collections::BTreeMap, sync::Arc};

use paymesh_types::ShardRef;
use tokio::task::JoinSet;

use crate::{Error, Shard, inbox};

/// Why a shard that this region leads does not serve, from the start.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub why: String,
}

/// The shards that a region leads. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shards {
    shards: Arc<BTreeMap<ShardRef, Result<Shard, Refusal>>>,
}

impl Shards {
    /// The set, with those that could not be opened and why.
    pub fn new(shards: BTreeMap<ShardRef, Result<Shard, Refusal>>) -> Self {
        Self { shards: Arc::new(shards) }
    }

    /// The shard, where it serves.
    ///
    /// # Errors
    /// [`Error::NotServing`]: it does not, or is not led here.
    pub fn get(&self, shard: &ShardRef) -> Result<&Shard, Error> {
        match self.shards.get(shard) {
            Some(Ok(open)) => Ok(open),
            Some(Err(refusal)) => Err(Error::NotServing { shard: shard.clone(), why: refusal.why.clone() }),
            None => Err(Error::NotServing { shard: shard.clone(), why: "this region does not lead it".to_owned() }),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ShardRef, Result<&Shard, &Refusal>)> {
        self.shards.iter().map(|(name, shard)| (name, shard.as_ref()))
    }

    /// Starts the inboxes between all pairs of the set. They end with the set of tasks; a task that ends by itself says why.
    pub fn follow_each_other(&self) -> JoinSet<(ShardRef, ShardRef, String)> {
        let mut tasks = JoinSet::new();
        let open: Vec<&Shard> = self.shards.values().filter_map(|shard| shard.as_ref().ok()).collect();
        for shard in &open {
            for source in open.iter().filter(|source| source.reference() != shard.reference()) {
                let (shard, tail) = ((*shard).clone(), source.tail().clone());
                tasks.spawn(async move { (tail.shard().clone(), shard.reference().clone(), inbox::follow(tail, shard).await) });
            }
        }
        tasks
    }
}
