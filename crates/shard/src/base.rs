//! What a shard has wherever it is held, led or followed.

use std::sync::{Arc, atomic::AtomicBool};

use paymesh_journal::{Holding, Store};
use paymesh_types::{Sequence, ShardRef};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::{Tail, projector::Projected};

/// A shard's storage, its entries, and how far its tables are.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) shard: ShardRef,
    pub(crate) store: Store,
    pub(crate) tail: Tail,
    pub(crate) projected: Projected,
    /// Read-locked by those who compare the tables with the journal: meanwhile nothing is forgotten in either.
    pub(crate) checks: Arc<RwLock<()>>,
    /// A piece of the checkpoint was found to be other than it was written.
    pub(crate) suspect: Arc<AtomicBool>,
}

/// A check of the tables: held for as long as it takes.
pub(crate) type Check = OwnedRwLockReadGuard<()>;

impl Base {
    /// `head` and `bytes` are the journal's, `projected` is how far the tables are.
    pub(crate) fn new(shard: ShardRef, store: Store, head: Sequence, bytes: u64, projected: Sequence) -> Self {
        let tail = Tail::new(shard.clone(), Holding::Whole, store.journal.clone(), head, bytes);
        Self { shard, store, tail, projected: Projected::new(projected), checks: Arc::default(), suspect: Arc::default() }
    }

    /// Begins a check of the tables.
    pub(crate) async fn check(&self) -> Check {
        self.checks.clone().read_owned().await
    }
}
