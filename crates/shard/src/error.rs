//! Why a shard did not do as asked.

use std::time::Duration;

use paymesh_ledger::Rejection;
use paymesh_types::{Position, Sequence, ShardRef};

/// Why a shard did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command cannot be carried out. Final for this command.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// As many commands wait as may wait. Nothing was recorded; try again.
    #[error("shard {shard} has its queue full")]
    Overloaded {
        /// The shard.
        shard: ShardRef,
    },
    /// The shard does not serve. It may again; the same request id makes trying again safe.
    #[error("shard {shard} does not serve: {why}")]
    NotServing {
        /// The shard.
        shard: ShardRef,
        /// Why.
        why: String,
    },
    /// The shard does not serve yet: it is being opened.
    #[error("shard {shard} does not serve: {why}")]
    Opening {
        /// The shard.
        shard: ShardRef,
        /// What it waits for.
        why: String,
    },
    /// The shard does not serve: a copy in another region has entries that its journal lacks. It does not before an operator acts.
    #[error("shard {shard} does not serve: {why}")]
    HistoryMissing {
        /// The shard.
        shard: ShardRef,
        /// Which copy, and what to do.
        why: String,
    },
    /// What is to be read has not come here yet.
    #[error("shard {} has come to entry {} here, which is less than was asked for", position.shard, position.sequence)]
    Behind {
        /// What there is.
        position: Position,
        /// How old that is: see [`View::age`](crate::View::age).
        age: Option<Duration>,
    },
    /// The journal's end is before the position asked for.
    #[error("shard {shard} ends at {head}, before {wanted}")]
    InTheFuture {
        /// The shard.
        shard: ShardRef,
        /// Its last entry.
        head: Sequence,
        /// The entry asked for.
        wanted: Sequence,
    },
    /// The entry asked for is before what the journal keeps.
    #[error("shard {shard} keeps its journal from entry {first} on, not from {wanted}")]
    NotKept {
        /// The shard.
        shard: ShardRef,
        /// The first entry that it keeps.
        first: Sequence,
        /// The entry asked for.
        wanted: Sequence,
    },
    /// The storage failed.
    #[error("the storage of shard {shard}: {source}")]
    Storage {
        /// The shard.
        shard: ShardRef,
        /// What it says.
        source: paymesh_journal::Error,
    },
}

impl Error {
    /// What an error of a shard's storage is.
    pub(crate) fn of_storage(shard: &ShardRef, source: paymesh_journal::Error) -> Self {
        let shard = shard.clone();
        match source {
            paymesh_journal::Error::NotKept { first, wanted } => Self::NotKept { shard, first, wanted },
            source => Self::Storage { shard, source },
        }
    }
}
