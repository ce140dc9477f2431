//! Journals and query tables: what makes a shard durable.
//!
//! A shard's journal is a chain of [`Segment`]s, each what one group commit wrote. Tables are projected from it and may lag
//! behind; they can be made again from the journal at any time. Both are ports ([`Journal`], [`Tables`]) with engines
//! behind them: [`sqlite`] is the embedded default, [`memory`] is for tests and simulation and forgets what was not synced.
//! The `conformance` suite holds every engine to the same promises.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
pub mod memory;
mod origin;
mod ports;
mod projection;
mod segment;
mod snapshot;
pub mod sqlite;

pub use checkpoint::{Checkpoints, Manifest};
pub use error::{Corrupt, Error};
pub use origin::{BadOrigin, Marks, Origin};
pub use ports::{Head, Holding, Identity, Journal, LINES_WALKED_MAX, Store, Tables};
pub use projection::{Line, LineKind, PaymentRow, Projection, WalletRow};
pub use segment::{
    Chain, ENTRY_PART_BYTES_MAX, Hash, SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_MAX, Segment, SegmentBuilder, StoredEntry, history_mark,
};
pub use snapshot::{Digest, Row, Snapshot};

const COMMIT_SECONDS: &str = "paymesh_journal_commit_seconds";

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_histogram!(
        COMMIT_SECONDS,
        metrics::Unit::Seconds,
        "Writing and syncing what shards had ready together; each shard of them counts it in paymesh_shard_commit_seconds too"
    );
}

/// An entry and its place.
pub type Committed = (paymesh_types::Position, std::sync::Arc<paymesh_ledger::Entry>);
