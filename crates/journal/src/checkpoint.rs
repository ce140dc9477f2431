//! Checkpoints: every row of a shard's tables as of one entry, in chunks that are each known by their hash.
//!
//! A checkpoint stands for the entries that led to its rows, so the journal need not keep them, and whoever comes later than
//! what the journal keeps begins with it. The chunks never change once they are made; the [`Manifest`] has their hashes, and
//! its own hash, the root, names the whole. What is read back is checked against them before anything is believed.

mod codec;
mod work;

use async_trait::async_trait;
use paymesh_contract::events::v1 as pb;
use paymesh_ledger::{Account, Records};
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};
use prost::Message as _;

use crate::{Corrupt, Digest, Error, Hash, Row};
pub use codec::BadCheckpoint;
pub use work::{Reader, draft, make, restore};

/// Rows of a chunk at most.
pub const CHUNK_ROWS_MAX: usize = 4_096;
/// Bytes of a chunk's rows at most, before compression. A decoder allocates no more, whatever a chunk claims.
pub const CHUNK_BYTES_MAX: usize = 32 << 20;
/// Chunks of a checkpoint at most: four billion rows.
pub const CHUNKS_MAX: usize = 1 << 20;
/// zstd's level, as of segments.
const COMPRESSION_LEVEL: i32 = 1;

/// What a checkpoint is of, and what its chunks are checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The shard.
    pub shard: ShardRef,
    /// The epoch of the segment that ends with `sequence`.
    pub epoch: Epoch,
    /// The last entry that the rows hold.
    pub sequence: Sequence,
    /// The hash of the segment that ends with it.
    pub hash: Hash,
    /// When that was committed.
    pub committed_at: Timestamp,
    /// The outside world's and the clearing accounts, the cursors on other shards, and the newest request id's time.
    pub books: Records,
    /// What the rows come to.
    pub digest: Digest,
    /// The hash of each chunk.
    pub chunks: Vec<Hash>,
}

impl Manifest {
    /// The hash that names the checkpoint: over all that it is.
    pub fn root(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"paymesh checkpoint 1\0");
        hasher.update(&pb::Checkpoint::from(self).encode_to_vec());
        *hasher.finalize().as_bytes()
    }

    /// The rows of one of its chunks.
    ///
    /// # Errors
    /// It is not that chunk.
    pub fn rows(&self, index: usize, chunk: &[u8]) -> Result<Vec<Row>, Corrupt> {
        self.check(index, chunk)?;
        codec::unpack(chunk).map_err(|what| self.corrupt(index, what))
    }

    /// Checks that bytes are one of its chunks.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, index: usize, chunk: &[u8]) -> Result<(), Corrupt> {
        match self.chunks.get(index) {
            Some(hash) if blake3::hash(chunk).as_bytes() == hash => Ok(()),
            Some(_) => Err(self.corrupt(index, "it does not match its hash".to_owned())),
            None => Err(self.corrupt(index, format!("there are {} chunks", self.chunks.len()))),
        }
    }

    /// Checks that one of its chunks may go to any zone: there is nothing in it but what the directory has.
    ///
    /// # Errors
    /// It is not that chunk, or holds more.
    pub fn check_all_open(&self, index: usize, chunk: &[u8]) -> Result<(), Corrupt> {
        self.check(index, chunk)?;
        let rows = codec::unpack_known(chunk).map_err(|what| self.corrupt(index, what))?;
        // A test holds this to the contract's classes.
        match rows.iter().all(|row| matches!(row, Row::Claim(..) | Row::Request(..))) {
            true => Ok(()),
            false => Err(self.corrupt(index, "it has rows that do not leave their zone".to_owned())),
        }
    }

    /// Checks that it may go to any zone itself: the directory has no accounts, and no other shard's journal takes effect in it.
    ///
    /// # Errors
    /// It says more.
    pub fn check_books_all_open(&self) -> Result<(), Corrupt> {
        if self.books == (Records { newest_request_ms: self.books.newest_request_ms, ..Records::default() }) {
            return Ok(());
        }
        let what = "the checkpoint has accounts or cursors, which the directory has not".to_owned();
        Err(Corrupt::new(&self.shard, self.sequence, what))
    }

    fn corrupt(&self, index: usize, what: String) -> Corrupt {
        Corrupt::new(&self.shard, self.sequence, format!("the checkpoint's chunk {index}: {what}"))
    }

    /// Checks that all accounts sum to zero in each currency, `wallets` being the sums of users' accounts.
    ///
    /// # Errors
    /// They do not.
    pub fn check_sums(&self, wallets: &std::collections::BTreeMap<paymesh_types::Currency, i128>) -> Result<(), Corrupt> {
        let mut sums = wallets.clone();
        for ((_, currency), balance) in &self.books.system {
            *sums.entry(*currency).or_default() += i128::from(*balance);
        }
        match sums.into_iter().find(|(_, sum)| *sum != 0) {
            None => Ok(()),
            Some((currency, sum)) => {
                let what = format!("the checkpoint's accounts in {currency} sum to {sum} minor units, not to zero");
                Err(Corrupt::new(&self.shard, self.sequence, what))
            }
        }
    }
}

/// The hash of a chunk.
pub(crate) fn chunk_hash(chunk: &[u8]) -> Hash {
    *blake3::hash(chunk).as_bytes()
}

/// A checkpoint that is being made or fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is to be, where that was known when it was begun.
    pub announced: Option<Manifest>,
    /// How many chunks are there, from the first.
    pub chunks: u32,
}

/// The checkpoints of one shard: the latest that was finished, and one that is being made. What was finished survives a crash of
/// the process and of the machine; what was not is never taken for a checkpoint.
#[async_trait]
pub trait Checkpoints: Send + Sync + std::fmt::Debug {
    /// The latest that was finished.
    ///
    /// # Errors
    /// The engine failed, or what is stored is no manifest.
    async fn latest(&self) -> Result<Option<Manifest>, Error>;

    /// A chunk, as it was added, of the checkpoint of that root; `None` where that is not the latest, or has no such chunk.
    ///
    /// # Errors
    /// The engine failed.
    async fn chunk(&self, root: &Hash, index: u32) -> Result<Option<Vec<u8>>, Error>;

    /// What is being made.
    ///
    /// # Errors
    /// The engine failed.
    async fn draft(&self) -> Result<Option<Draft>, Error>;

    /// Begins to make one; what was being made is gone.
    ///
    /// # Errors
    /// The engine failed.
    async fn begin(&self, announced: Option<&Manifest>) -> Result<(), Error>;

    /// Adds the next chunk, of this number, durably. The last one can be added again.
    ///
    /// # Errors
    /// [`Error::NotNext`] when another is the next; the engine failed.
    async fn add(&self, index: u32, chunk: &[u8]) -> Result<(), Error>;

    /// Makes what is being made the latest, durably. The one before it goes.
    ///
    /// # Errors
    /// [`Error::NotNext`] when it has not as many chunks as the manifest; the engine failed.
    async fn finish(&self, manifest: &Manifest) -> Result<(), Error>;

    /// Lets go of whatever is open. Nothing can be asked afterwards.
    async fn close(&self);
}

/// The records in an order that does not depend on who read them.
pub(crate) fn ordered(mut books: Records) -> Records {
    books.system.sort_unstable();
    books.inbox.sort_unstable();
    books.delivered.sort_unstable();
    books
}

pub(crate) fn kind(account: &Account) -> Option<(u32, Option<&ShardRef>)> {
    match account {
        Account::Wallet(_) => None,
        Account::External => Some((0, None)),
        Account::Sent(peer) => Some((1, Some(peer))),
        Account::Received(peer) => Some((2, Some(peer))),
        Account::Acquirer(_) => Some((3, None)),
        Account::RefundsPayable => Some((4, None)),
    }
}

#[cfg(test)]
mod tests {
    use paymesh_contract::{DataClass, policies};
    use paymesh_types::{Country, RequestId, UserId, ZoneName};

    use super::*;

    #[test]
    fn a_chunk_that_goes_to_any_zone_has_no_row_of_class_personal() {
        let user = UserId::try_from(7).expect("a user");
        let (zone, country) = ("eu".parse::<ZoneName>().expect("a zone's name"), "DE".parse::<Country>().expect("a country"));
        let open =
            vec![Row::Claim(user, zone.clone()), Row::Request(Sequence(1), RequestId::from_slice(&[3; 16]).expect("an id"), Timestamp(1))];
        let mixed = [open.clone(), vec![Row::User(user, country)]].concat();
        for (rows, allowed) in [(open, true), (mixed, false)] {
            let chunk = codec::pack(&rows);
            let manifest = Manifest {
                shard: ShardRef { zone: zone.clone(), index: 0 },
                epoch: Epoch(1),
                sequence: Sequence(1),
                hash: [0; 32],
                committed_at: Timestamp(1),
                books: Records::default(),
                digest: Digest::default(),
                chunks: vec![chunk_hash(&chunk)],
            };
            assert_eq!(manifest.check_all_open(0, &chunk).is_ok(), allowed);
            assert!(manifest.check_all_open(0, b"another").is_err() && manifest.check_all_open(1, &chunk).is_err());

            // What this version does not know may be anything.
            let mut raw = zstd::bulk::decompress(&chunk, 1 << 10).expect("it unpacks");
            raw.extend([0xfa, 0x07, 3, b'A', b'n', b'n']);
            let more = zstd::bulk::compress(&raw, 1).expect("it packs");
            let manifest = Manifest { chunks: vec![chunk_hash(&more)], ..manifest };
            assert!(manifest.rows(0, &more).is_ok(), "a later version's fields are let be in the zone");
            assert!(manifest.check_all_open(0, &more).is_err());

            assert!(manifest.check_books_all_open().is_ok());
            let (peer, euro) = (ShardRef { zone: zone.clone(), index: 1 }, paymesh_types::Currency::from_code("EUR").expect("a currency"));
            for books in [
                Records { system: vec![((Account::External, euro), 0)], ..Records::default() },
                Records { inbox: vec![(peer.clone(), Sequence(1).into())], ..Records::default() },
                Records { delivered: vec![(peer, Sequence(1))], ..Records::default() },
            ] {
                assert!(Manifest { books, ..manifest.clone() }.check_books_all_open().is_err());
            }
        }
        for (field, personal) in [
            ("users", true),
            ("accounts", true),
            ("lines", true),
            ("payments", true),
            ("methods", true),
            ("claims", false),
            ("requests", false),
        ] {
            let class = policies().class_of("paymesh.events.v1.CheckpointChunk", field).expect("every field has a class");
            assert_eq!(class >= DataClass::Personal, personal, "{field}");
        }
    }
}
