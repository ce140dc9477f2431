//! What the storage of a shard must do, whatever engine does it.

use std::sync::Arc;

use async_trait::async_trait;
use paymesh_ledger::{Missing, Payment, PaymentMethod, Records, Wallet};
use paymesh_types::{Country, Currency, Epoch, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};

use crate::{Checkpoints, Committed, Corrupt, Error, Hash, Line, Origin, PaymentRow, Projection, Row, Segment, Snapshot};

/// Statement lines that one read walks at most.
pub const LINES_WALKED_MAX: u32 = 1_000;

/// Whose storage it is. Kept in every file, and compared when it is opened: a file under a wrong name, or a zone whose
/// shard count was changed, must not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The mesh's name.
    pub mesh: String,
    /// The shard.
    pub shard: ShardRef,
    /// How many shards its zone has.
    pub shards: u16,
    /// What of its entries is held.
    pub holding: Holding,
}

/// What of a journal's entries a storage holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// All of them, whole.
    Whole,
    /// Those that concern this zone, which is not the shard's, without their sealed parts.
    For(ZoneName),
}

impl Holding {
    /// The entries of a segment that are held. Every hash is checked.
    ///
    /// # Errors
    /// The segment is not what the shard's leader wrote, or holds more than it may.
    pub fn entries(&self, segment: &Segment, shard: &ShardRef) -> Result<Vec<Committed>, Corrupt> {
        match self {
            Self::Whole => segment.entries(shard),
            Self::For(zone) => segment.entries_for(zone, shard),
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mesh {} shard {} of {}", self.mesh, self.shard, self.shards)?;
        match &self.holding {
            Holding::Whole => Ok(()),
            Holding::For(zone) => write!(f, " as zone {zone} may have it"),
        }
    }
}

/// Where a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The epoch of its last segment; the origin's when it is empty.
    pub epoch: Epoch,
    /// Its last entry; the origin's when it is empty.
    pub sequence: Sequence,
    /// The hash of its last segment; the origin's when it is empty, `None` where that is its first entry.
    pub hash: Option<Hash>,
}

/// A shard's ordered entries. What `append` has returned from survives a crash of the process and of the machine.
#[async_trait]
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Takes the next epoch: from its return on, no leader of an earlier one can append.
    ///
    /// # Errors
    /// The engine failed.
    async fn lead(&self) -> Result<Epoch, Error>;

    /// Adds a segment at the end, durably.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a later epoch leads; [`Error::NotNext`] when it does not follow the head; nothing is then
    /// written. After [`Error::Engine`] or [`Error::Full`] it may or may not be: ask [`Journal::head`].
    async fn append(&self, segment: &Segment) -> Result<(), Error>;

    /// Adds segments that the shard's leader wrote elsewhere, durably, all of them or none. Nobody leads here.
    ///
    /// # Errors
    /// As of [`Journal::append`].
    async fn extend(&self, segments: &[Arc<Segment>]) -> Result<(), Error>;

    /// Segments in order, beginning with the one that holds `from`, until about `bytes_max` of payload are read; at least
    /// one, where there is one. They are as stored: [`crate::Chain::link`] and [`Segment::entries`] check them.
    ///
    /// # Errors
    /// [`Error::NotKept`] when the journal begins after `from`, which may be 0 for its first entry; the engine failed.
    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, Error>;

    /// Where the journal ends.
    ///
    /// # Errors
    /// The engine failed.
    async fn head(&self) -> Result<Head, Error>;

    /// Where the journal begins.
    ///
    /// # Errors
    /// The engine failed, or what is stored is no origin.
    async fn origin(&self) -> Result<Origin, Error>;

    /// Has the journal begin at an origin that is the end of one of its segments, durably, and gives the storage of what comes
    /// before it free by and by.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a later epoch than `epoch` leads; [`Error::NotNext`] when no segment ends there with that hash, which also
    /// is so once it was done; nothing is then changed.
    async fn prune(&self, epoch: Epoch, origin: &Origin) -> Result<(), Error>;

    /// Has a copy's journal, which ends at or before an origin of its leader's, begin there, durably, with nothing in it. Nobody leads here.
    ///
    /// # Errors
    /// [`Error::NotNext`] when it ends after it; nothing is then changed.
    async fn jump(&self, origin: &Origin) -> Result<(), Error>;

    /// The end of the copy that was set aside before this one, and the hash of the segment there, where it is not shown yet that this
    /// one has the same history.
    ///
    /// # Errors
    /// The engine failed.
    async fn witness(&self) -> Result<Option<(Sequence, Hash)>, Error> {
        Ok(None)
    }

    /// It is shown: there is no witness from now on.
    ///
    /// # Errors
    /// The engine failed.
    async fn vouch(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Query tables, projected from a journal.
#[async_trait]
pub trait Tables: Send + Sync + std::fmt::Debug {
    /// The last entry that the tables hold; 0 when they are empty.
    ///
    /// # Errors
    /// The engine failed.
    async fn cursor(&self) -> Result<Sequence, Error>;

    /// Takes in what entries changed, and moves the cursor from `projection.after` to `projection.up_to`, both or neither.
    ///
    /// # Errors
    /// [`Error::NotNext`] when the cursor is elsewhere; the engine failed.
    async fn project(&self, projection: &Projection) -> Result<(), Error>;

    /// The outside world's and the clearing accounts and the cursors on other shards: few, and wanted all at once.
    ///
    /// # Errors
    /// The engine failed.
    async fn books(&self) -> Result<Records, Error>;

    /// Looks records up, in one query for each kind. For the leader alone: what callers read does not keep it waiting.
    ///
    /// # Errors
    /// The engine failed.
    async fn records(&self, missing: &Missing) -> Result<Records, Error>;

    /// A user's accounts, by currency number.
    ///
    /// # Errors
    /// The engine failed.
    async fn wallets(&self, user: UserId) -> Result<Vec<(Currency, Wallet)>, Error>;

    /// A user's payment methods, oldest first.
    ///
    /// # Errors
    /// The engine failed.
    async fn methods(&self, user: UserId) -> Result<Vec<PaymentMethod>, Error>;

    /// A user's country; `None` when the user is not here.
    ///
    /// # Errors
    /// The engine failed.
    async fn user(&self, user: UserId) -> Result<Option<Country>, Error>;

    /// The zones that users were given to; users without one are left out.
    ///
    /// # Errors
    /// The engine failed.
    async fn claims(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error>;

    /// The entry that a request id was recorded with, if it was and was not purged.
    ///
    /// # Errors
    /// The engine failed.
    async fn request(&self, id: RequestId) -> Result<Option<Sequence>, Error>;

    /// Lines of one account from `newest` backwards, at most `limit` (at most [`LINES_WALKED_MAX`]).
    ///
    /// # Errors
    /// The engine failed.
    async fn lines(&self, newest: paymesh_ledger::LineId, limit: u32) -> Result<Vec<Line>, Error>;

    /// One payment.
    ///
    /// # Errors
    /// The engine failed.
    async fn payment(&self, sequence: Sequence) -> Result<Option<PaymentRow>, Error>;

    /// Payments of one account from `newest` backwards, at most `limit` (at most [`LINES_WALKED_MAX`]).
    ///
    /// # Errors
    /// The engine failed.
    async fn payments(&self, newest: Sequence, limit: u32) -> Result<Vec<PaymentRow>, Error>;

    /// Payments by card of which an acquirer is being asked for something, by their number, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// The engine failed.
    async fn in_progress(&self, after: Sequence, limit: u32) -> Result<Vec<Payment>, Error>;

    /// Payments whose holds, or whose cardholders' time, ran out by `now`, and which nothing is being done about, at most `limit`.
    ///
    /// # Errors
    /// The engine failed.
    async fn expired(&self, now: Timestamp, limit: u32) -> Result<Vec<Sequence>, Error>;

    /// Forgets request ids of entries older than `before`, at most `limit`; says how many.
    ///
    /// # Errors
    /// The engine failed.
    async fn purge_requests(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;

    /// Takes all rows away and sets the cursor to 0, for [`Tables::restore`].
    ///
    /// # Errors
    /// The engine failed.
    async fn clear(&self) -> Result<(), Error>;

    /// Puts rows of a checkpoint into tables that were cleared. The same rows can be put again.
    ///
    /// # Errors
    /// [`Error::NotNext`] when the cursor is not 0; the engine failed.
    async fn restore(&self, rows: &[Row]) -> Result<(), Error>;

    /// Ends it: puts the books of the checkpoint into the tables and moves the cursor from 0 to its entry, both or neither. Until
    /// then the tables are of no use to anybody.
    ///
    /// # Errors
    /// As of [`Tables::restore`].
    async fn restored(&self, sequence: Sequence, books: &Records) -> Result<(), Error>;

    /// Lets go of whatever is open, once what is being asked is answered. Nothing can be asked afterwards.
    async fn close(&self);

    /// All rows as of now.
    ///
    /// # Errors
    /// The engine failed.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;
}

/// The storage of one shard.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its entries.
    pub journal: Arc<dyn Journal>,
    /// Its query tables.
    pub tables: Arc<dyn Tables>,
    /// What stands for entries that its journal does not keep.
    pub checkpoints: Arc<dyn Checkpoints>,
}
