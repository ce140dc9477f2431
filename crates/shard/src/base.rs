//! What a shard has wherever it is held, led or followed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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
    /// How many compare the tables with the journal: meanwhile nothing is forgotten in the tables.
    pub(crate) checks: Arc<AtomicUsize>,
}

/// A check of the tables.
pub(crate) struct Check(Arc<AtomicUsize>);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Base {
    pub(crate) fn new(shard: ShardRef, holding: Holding, store: Store, head: paymesh_types::Sequence) -> Self {
        let tail = Tail::new(shard.clone(), holding, store.journal.clone(), head);
        Self { shard, store, tail, projected: Projected::new(head), checks: Arc::default() }
    }

    /// Begins a check of the tables.
    pub(crate) fn check(&self) -> Check {
        self.checks.fetch_add(1, Ordering::Relaxed);
        Check(self.checks.clone())
    }
}
