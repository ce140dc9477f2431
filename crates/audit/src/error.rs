//! What can be wrong with a log, and what its callers are told.

use std::{fmt, io, time::Duration};

use paymesh_contract::Fault;
use paymesh_types::Sequence;
use tonic::Code;

/// When a caller may try again: a log that is full or cannot be written is tried every second.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The first place of a chain that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, below the log's directory.
    pub file: String,
    /// The record that is wrong, or the first that is missing.
    pub sequence: Sequence,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, record {}: {}", self.file, self.sequence, self.what)
    }
}

/// Why there is no slot for a call: it must not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The log is being opened.
    #[error("the audit log is being opened")]
    Opening,
    /// As many records as there may be have not been written yet, or belong to calls that have not ended.
    #[error("the audit log is full: records come faster than they can be written")]
    Full,
    /// It cannot be written; the node's health says why.
    #[error("the audit log cannot be written; the node's health says why")]
    Failing,
    /// It has been closed: the node leaves.
    #[error("the audit log is closed")]
    Closed,
}

impl Unavailable {
    pub(crate) const ALL: [Self; 4] = [Self::Opening, Self::Full, Self::Failing, Self::Closed];

    /// For the label of a metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Full => "full",
            Self::Failing => "failing",
            Self::Closed => "closed",
        }
    }
}

impl From<Unavailable> for Fault {
    fn from(why: Unavailable) -> Self {
        Self::unavailable("AUDIT_UNAVAILABLE", format!("{why}; nothing was done"), RETRY_AFTER)
    }
}

/// The log ended with records that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{records} audit records could not be written before the node left: {source}")]
pub struct Unwritten {
    /// How many.
    pub records: usize,
    /// Why not.
    pub source: io::Error,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log is kept from a later record on.
    #[error("the audit log is kept from record {first} on")]
    NotKept {
        /// The first that is kept.
        first: Sequence,
    },
    /// The log has not come so far.
    #[error("the audit log ends with record {head}")]
    InTheFuture {
        /// The last that is durable.
        head: Sequence,
    },
    /// A record is not what was written.
    #[error("the audit log is damaged: {0}")]
    Damaged(Damage),
    /// The log is not open.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// Its files cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Storage(#[from] io::Error),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::NotKept { first } => Self::new(Code::OutOfRange, "POSITION_NOT_KEPT", message)
                .with_field("from_sequence")
                .with_metadata("first_sequence", first.to_string()),
            ReadError::InTheFuture { .. } => Self::new(Code::OutOfRange, "POSITION_IN_THE_FUTURE", message).with_field("from_sequence"),
            ReadError::Damaged(Damage { file, sequence, .. }) => Self::new(Code::DataLoss, "AUDIT_DAMAGED", message)
                .with_metadata("file", file)
                .with_metadata("sequence", sequence.to_string()),
            ReadError::Unavailable(_) | ReadError::Storage(_) => Self::unavailable("AUDIT_UNAVAILABLE", message, RETRY_AFTER),
        }
    }
}
