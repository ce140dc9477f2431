//! Segments: what one group commit wrote, and the hash chain through them.
//!
//! An entry's hash covers the hash of its open part and the salted hash of its sealed part separately, so whoever may not
//! hold the sealed part, or the entry, can verify the chain all the same:
//!
//! ```text
//! entry   = H( H(open) , H_salt(sequence, sealed) )
//! root    = H( entry 1, entry 2, … )
//! segment = H( shard, previous segment, epoch, first, count, committed_at, root )
//! ```
//!
//! H is BLAKE3; the salt is 32 random bytes of the segment, kept with the sealed parts: without it, a guess at a sealed part
//! cannot be checked against its hash.

mod border;

use std::sync::Arc;

use paymesh_ledger::Entry;
use paymesh_types::{Epoch, HistoryMark, Sequence, ShardRef, Timestamp};

use crate::{Committed, Corrupt, codec};

/// Entries of a segment at most.
pub const SEGMENT_ENTRIES_MAX: usize = 16_384;
/// Bytes of a segment's entries at most, before compression. A decoder allocates no more, whatever a payload claims.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of either part of an entry at most: far above what any command leads to. Decoded, a part may take some forty times
/// its bytes for a moment.
pub const ENTRY_PART_BYTES_MAX: usize = 64 << 10;
/// zstd's level: the fastest of its ordinary ones. Entries of a batch are alike; higher levels gain little.
const COMPRESSION_LEVEL: i32 = 1;
const SALT_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// A BLAKE3 hash.
pub type Hash = [u8; HASH_BYTES];

/// What one group commit wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The term of leadership that wrote it.
    pub epoch: Epoch,
    /// Its first entry.
    pub first: Sequence,
    /// How many entries; at least one.
    pub count: u32,
    /// When it was committed: the time of its last entry.
    pub committed_at: Timestamp,
    /// The hash of the segment before it.
    pub previous: Hash,
    /// The hash over its entries' hashes.
    pub root: Hash,
    /// Its own hash, which covers all of the above and the shard.
    pub hash: Hash,
    /// The plain hash of `payload`: finds a flipped bit without unpacking.
    pub checksum: Hash,
    /// The entries, compressed.
    pub payload: Vec<u8>,
}

/// The two parts of an entry as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEntry<'a> {
    /// An encoded `EntryOpen`.
    pub open: &'a [u8],
    /// An encoded `EntrySealed`.
    pub sealed: &'a [u8],
}

impl Segment {
    /// Its last entry.
    pub fn last(&self) -> Sequence {
        // A segment that was not written by a leader may claim anything.
        Sequence(self.first.0.saturating_add(u64::from(self.count)).saturating_sub(1))
    }

    /// Unpacks the entries and checks every hash.
    ///
    /// # Errors
    /// The payload is not what was written.
    pub fn entries(&self, shard: &ShardRef) -> Result<Vec<Committed>, Corrupt> {
        let raw = self.unpacked(shard)?;
        let stored = self.checked(shard, &raw)?;
        let mut entries = Vec::with_capacity(stored.len());
        for (offset, parts) in (0u64..).zip(&stored) {
            let position = self.position(shard, offset);
            let entry = codec::decode(*parts, position.sequence, shard);
            let entry = entry.map_err(|error| Corrupt { as_written: true, ..self.corrupt(shard, offset, error.to_string()) })?;
            entries.push((position, Arc::new(entry)));
        }
        Ok(entries)
    }

    /// Checks every hash without decoding the entries: they are what the shard's leader wrote, whatever that is.
    ///
    /// # Errors
    /// The payload is not what was written.
    pub fn check(&self, shard: &ShardRef) -> Result<(), Corrupt> {
        let raw = self.unpacked(shard)?;
        self.checked(shard, &raw).map(drop)
    }

    fn unpacked(&self, shard: &ShardRef) -> Result<Vec<u8>, Corrupt> {
        self.check_bounds(shard)?;
        unpack(&self.payload).map_err(|what| self.corrupt(shard, 0, what))
    }

    /// The entries of the unpacked payload, as many as there are to be, with the hashes that they are to have.
    fn checked<'r>(&self, shard: &ShardRef, raw: &'r [u8]) -> Result<Vec<StoredEntry<'r>>, Corrupt> {
        let (salt, stored) = split(raw).map_err(|what| self.corrupt(shard, 0, what))?;
        if stored.len() != self.count as usize {
            return Err(self.corrupt(shard, 0, format!("the segment holds {} entries and claims {}", stored.len(), self.count)));
        }
        let mut root = blake3::Hasher::new();
        for (offset, parts) in (0u64..).zip(&stored) {
            root.update(&entry_hash(&salt, Sequence(self.first.0 + offset), *parts));
        }
        if root.finalize().as_bytes() != &self.root {
            return Err(self.corrupt(shard, 0, "the entries do not match the segment's root hash".to_owned()));
        }
        Ok(stored)
    }

    fn corrupt(&self, shard: &ShardRef, offset: u64, what: String) -> Corrupt {
        Corrupt::new(shard, Sequence(self.first.0.saturating_add(offset)), what)
    }

    fn check_bounds(&self, shard: &ShardRef) -> Result<(), Corrupt> {
        if self.first == Sequence(0) || self.first.0.checked_add(u64::from(self.count)).is_none() {
            return Err(self.corrupt(shard, 0, format!("no segment begins at {} and holds {} entries", self.first, self.count)));
        }
        Ok(())
    }

    /// Tells the history up to its end from others.
    pub fn mark(&self) -> Option<HistoryMark> {
        history_mark(&self.hash)
    }

    /// Checks that its header, which says all but the payload, is what the shard's leader wrote: of a segment that was read back.
    ///
    /// # Errors
    /// It is not.
    pub fn check_header(&self, shard: &ShardRef) -> Result<(), Corrupt> {
        let damaged = || self.corrupt(shard, 0, "the segment's header does not match its hash".to_owned());
        self.is_header_whole(shard).then_some(()).ok_or_else(damaged)
    }

    /// Whether its header, which says all but the payload, is what the shard's leader wrote.
    pub(crate) fn is_header_whole(&self, shard: &ShardRef) -> bool {
        self.computed_hash(shard) == self.hash
    }

    fn computed_hash(&self, shard: &ShardRef) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"paymesh segment 1\0");
        hash_shard(&mut hasher, shard);
        hasher.update(&self.previous);
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&self.first.0.to_le_bytes());
        hasher.update(&self.count.to_le_bytes());
        hasher.update(&self.committed_at.0.to_le_bytes());
        hasher.update(&self.root);
        *hasher.finalize().as_bytes()
    }
}

/// Tells the history up to where the chain has this hash from others.
pub fn history_mark(hash: &Hash) -> Option<HistoryMark> {
    let (first, _) = hash.split_first_chunk().expect("a hash is longer than a mark");
    HistoryMark::new(u64::from_le_bytes(*first))
}

fn hash_shard(hasher: &mut blake3::Hasher, shard: &ShardRef) {
    hasher.update(shard.zone.as_str().as_bytes());
    hasher.update(b"/");
    hasher.update(&shard.index.to_le_bytes());
}

fn entry_hash(salt: &[u8; SALT_BYTES], sequence: Sequence, parts: StoredEntry<'_>) -> Hash {
    both_hash(parts.open, &sealed_hash(salt, sequence, parts.sealed))
}

fn sealed_hash(salt: &[u8; SALT_BYTES], sequence: Sequence, sealed: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(salt);
    hasher.update(&sequence.0.to_le_bytes());
    hasher.update(sealed);
    *hasher.finalize().as_bytes()
}

fn both_hash(open: &[u8], sealed: &Hash) -> Hash {
    let mut both = [0u8; 2 * HASH_BYTES];
    both[..HASH_BYTES].copy_from_slice(blake3::hash(open).as_bytes());
    both[HASH_BYTES..].copy_from_slice(sealed);
    *blake3::hash(&both).as_bytes()
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    // The frame says how much it unpacks to; nothing is allocated on its word beyond the bound.
    let claimed = zstd::zstd_safe::get_frame_content_size(payload)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| *bytes <= SEGMENT_BYTES_MAX)
        .ok_or("the payload is not a frame of a size that a segment has")?;
    // With this thread's context, as for packing.
    thread_local! {
        static DECOMPRESSOR: std::cell::RefCell<zstd::bulk::Decompressor<'static>> =
            std::cell::RefCell::new(zstd::bulk::Decompressor::new().expect("a context has room in memory"));
    }
    let unpacked = DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress(payload, claimed));
    unpacked.map_err(|error| format!("the payload does not unpack: {error}"))
}

fn split(raw: &[u8]) -> Result<([u8; SALT_BYTES], Vec<StoredEntry<'_>>), String> {
    let (salt, mut rest) = raw.split_first_chunk::<SALT_BYTES>().ok_or("the payload is shorter than its salt")?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if entries.len() == SEGMENT_ENTRIES_MAX {
            return Err(format!("the segment holds more than {SEGMENT_ENTRIES_MAX} entries"));
        }
        let open = part(&mut rest)?;
        let sealed = part(&mut rest)?;
        entries.push(StoredEntry { open, sealed });
    }
    Ok((*salt, entries))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = prost::encoding::decode_varint(rest).map_err(|_| "an entry's length is cut off".to_owned())?;
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or("an entry is cut off")?;
    if length > ENTRY_PART_BYTES_MAX {
        return Err(format!("an entry's part has {length} bytes, more than the {ENTRY_PART_BYTES_MAX} that one may have"));
    }
    let (part, after) = rest.split_at(length);
    *rest = after;
    Ok(part)
}

/// Packs entries into a segment as they are decided.
#[derive(Debug)]
pub struct SegmentBuilder {
    shard: ShardRef,
    epoch: Epoch,
    first: Sequence,
    previous: Hash,
    salt: [u8; SALT_BYTES],
    raw: Vec<u8>,
    root: blake3::Hasher,
    count: u32,
    committed_at: Timestamp,
    scratch: codec::Scratch,
}

impl SegmentBuilder {
    /// A segment that follows `previous` and begins at `first`. `salt` is 32 random bytes, used for no other segment.
    pub fn new(shard: ShardRef, epoch: Epoch, first: Sequence, previous: Hash, salt: [u8; SALT_BYTES]) -> Self {
        let mut raw = Vec::with_capacity(64 << 10);
        raw.extend_from_slice(&salt);
        Self {
            shard,
            epoch,
            first,
            previous,
            salt,
            raw,
            root: blake3::Hasher::new(),
            count: 0,
            committed_at: Timestamp(0),
            scratch: codec::Scratch::default(),
        }
    }

    /// The number that the next entry will have.
    pub fn next(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// When the segment is full, or the entry larger than one may be: it could not be read back.
    pub fn push(&mut self, entry: &Entry) {
        let sequence = self.next();
        assert!((self.count as usize) < SEGMENT_ENTRIES_MAX, "a segment holds {SEGMENT_ENTRIES_MAX} entries at most");
        let parts = codec::encode(entry, sequence, &mut self.scratch);
        assert!(
            parts.open.len().max(parts.sealed.len()) <= ENTRY_PART_BYTES_MAX,
            "a part of an entry has {ENTRY_PART_BYTES_MAX} bytes at most"
        );
        self.root.update(&entry_hash(&self.salt, sequence, parts));
        for part in [parts.open, parts.sealed] {
            prost::encoding::encode_varint(part.len() as u64, &mut self.raw);
            self.raw.extend_from_slice(part);
        }
        assert!(self.raw.len() <= SEGMENT_BYTES_MAX, "a segment has {SEGMENT_BYTES_MAX} bytes at most");
        self.count += 1;
        self.committed_at = entry.at;
    }

    /// The segment.
    ///
    /// # Panics
    /// When there is nothing in it.
    pub fn finish(self) -> Segment {
        assert!(self.count > 0, "a segment holds at least one entry");
        let payload = pack(&self.raw);
        let mut segment = Segment {
            epoch: self.epoch,
            first: self.first,
            count: self.count,
            committed_at: self.committed_at,
            previous: self.previous,
            root: *self.root.finalize().as_bytes(),
            hash: [0; 32],
            checksum: *blake3::hash(&payload).as_bytes(),
            payload,
        };
        segment.hash = segment.computed_hash(&self.shard);
        segment
    }
}

/// Compresses with this thread's context: making one costs more than compressing a small segment.
fn pack(raw: &[u8]) -> Vec<u8> {
    thread_local! {
        static COMPRESSOR: std::cell::RefCell<zstd::bulk::Compressor<'static>> =
            std::cell::RefCell::new(zstd::bulk::Compressor::new(COMPRESSION_LEVEL).expect("the level is one of zstd's"));
    }
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(raw)).expect("compressing into memory does not fail")
}

/// Follows a journal's chain from where it begins.
#[derive(Debug, Clone)]
pub struct Chain {
    shard: ShardRef,
    last: Sequence,
    epoch: Epoch,
    hash: Hash,
}

impl Chain {
    /// Before the first segment of a shard.
    pub fn start(shard: ShardRef) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"paymesh journal 1\0");
        hash_shard(&mut hasher, &shard);
        Self { hash: *hasher.finalize().as_bytes(), shard, last: Sequence(0), epoch: Epoch(0) }
    }

    /// Where a journal that does not begin with its first entry begins.
    pub fn after(shard: ShardRef, origin: &crate::Origin) -> Self {
        Self { shard, last: origin.sequence, epoch: origin.epoch, hash: origin.hash }
    }

    /// Checks that `segment` is whole and follows, and moves on to it.
    ///
    /// # Errors
    /// It is not, or does not; the chain stays where it was.
    pub fn link(&mut self, segment: &Segment) -> Result<(), Corrupt> {
        let corrupt = |what: &str| Corrupt::new(&self.shard, self.last.next(), what);
        if segment.first != self.last.next() || segment.count == 0 {
            return Err(corrupt(&format!("a segment that begins at {} follows {}", segment.first, self.last)));
        }
        if segment.epoch < self.epoch {
            return Err(corrupt(&format!("a segment of epoch {} follows one of epoch {}", segment.epoch, self.epoch)));
        }
        if segment.previous != self.hash {
            return Err(corrupt("the segment does not continue the hash chain"));
        }
        if !segment.is_header_whole(&self.shard) {
            return Err(corrupt("the segment's header does not match its hash"));
        }
        if blake3::hash(&segment.payload).as_bytes() != &segment.checksum {
            return Err(corrupt("the segment's payload does not match its checksum"));
        }
        (self.last, self.epoch, self.hash) = (segment.last(), segment.epoch, segment.hash);
        Ok(())
    }

    /// The last entry so far.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// The epoch of the last segment so far.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The hash of the last segment so far.
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
