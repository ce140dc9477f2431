//! Why a journal or a table did not do as asked.

use paymesh_types::{Epoch, Sequence, ShardRef};

/// What is stored is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal of shard {shard} {} at sequence {sequence}: {what}", if *as_written { "holds what this version cannot read" } else { "is corrupt" })]
pub struct Corrupt {
    /// The shard.
    pub shard: ShardRef,
    /// The first entry that cannot be trusted.
    pub sequence: Sequence,
    /// What was found.
    pub what: String,
    /// Whether the shard's leader wrote it so, as its hashes show: to have it sent again does not help, another version may.
    pub as_written: bool,
}

impl Corrupt {
    /// Something other than what was written.
    pub fn new(shard: &ShardRef, sequence: Sequence, what: impl Into<String>) -> Self {
        Self { shard: shard.clone(), sequence, what: what.into(), as_written: false }
    }
}

/// Why a journal or a table did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A later leader has taken over. Final for this leader.
    #[error("fenced: epoch {held} leads, {offered} may not append")]
    Fenced {
        /// The epoch that leads.
        held: Epoch,
        /// The epoch that tried.
        offered: Epoch,
    },
    /// The segment does not follow the head. Final: the writer's idea of the journal is wrong.
    #[error("the journal ends at {head}, a segment that begins at {offered} does not follow")]
    NotNext {
        /// The journal's last entry.
        head: Sequence,
        /// The segment's first.
        offered: Sequence,
    },
    /// The entry is before what the journal keeps. Final: it comes to no journal any more.
    #[error("entry {wanted} is not kept any more: the journal begins with {first}")]
    NotKept {
        /// The journal's first entry.
        first: Sequence,
        /// The entry asked for.
        wanted: Sequence,
    },
    /// What is stored cannot be trusted. Final: an operator must look.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The file is another shard's, or of another mesh. Final.
    #[error("{place} belongs to {found}, not to {wanted}")]
    Identity {
        /// Which file.
        place: String,
        /// What it says it is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// There is no room left on the storage. May pass.
    #[error("the storage of {place} is full")]
    Full {
        /// Which file.
        place: String,
    },
    /// The engine failed. May pass.
    #[error("{place}: {source}")]
    Engine {
        /// Which file.
        place: String,
        /// What the engine says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Engine { .. })
    }
}
