//! What a shard has wherever it is held, led or followed.

use paymesh_journal::{Holding, Store};
use paymesh_types::ShardRef;

use crate::{Tail, projector::Projected};

/// A shard's storage, its entries, and how far its tables are.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) shard: ShardRef,
    pub(crate) store: Store,
    pub(crate) tail: Tail,
    pub(crate) projected: Projected,
}

impl Base {
    pub(crate) fn new(shard: ShardRef, holding: Holding, store: Store, head: paymesh_types::Sequence) -> Self {
        let tail = Tail::new(shard.clone(), holding, store.journal.clone(), head);
        Self { shard, store, tail, projected: Projected::new(head) }
    }
}
