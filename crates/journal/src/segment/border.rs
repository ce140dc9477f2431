//! Segments as they cross the border of a zone: of entries that the other zone has to know, the open part; of all others
//! their hash. The chain can be checked all the same.
//!
//! A reduced payload holds for each entry either `0` and its hash, or `1`, its open part with its length, and the hash of its
//! sealed part. Where no entry is kept it is empty: the header has the root.

use std::sync::Arc;

use paymesh_ledger::Entry;
use paymesh_types::{Position, Sequence, ShardRef, ZoneName};

use super::{HASH_BYTES, Segment, both_hash, pack, part, sealed_hash, split, unpack};
use crate::{Committed, Corrupt, Hash, codec};

const HIDDEN: u8 = 0;
const KEPT: u8 = 1;

/// An entry of a reduced segment.
enum Item<'a> {
    Hidden(Hash),
    Kept { open: &'a [u8], sealed: Hash },
}

impl Segment {
    /// The segment as `zone`, which is not the shard's, may have it. What is to be left out is checked first: a damaged entry must
    /// not become one that concerns nobody.
    ///
    /// # Errors
    /// The payload is not what was written.
    pub fn reduced_for(&self, zone: &ZoneName, shard: &ShardRef) -> Result<Self, Corrupt> {
        let corrupt = |offset: u64, what: String| self.corrupt(shard, offset, what);
        if blake3::hash(&self.payload).as_bytes() != &self.checksum {
            return Err(corrupt(0, "the segment's payload does not match its checksum".to_owned()));
        }
        let raw = unpack(&self.payload).map_err(|what| corrupt(0, what))?;
        let (salt, stored) = split(&raw).map_err(|what| corrupt(0, what))?;
        let mut root = blake3::Hasher::new();
        let mut reduced = Vec::with_capacity(stored.len() * (1 + HASH_BYTES));
        let mut kept = 0;
        for (offset, parts) in (0u64..).zip(&stored) {
            let position = self.position(shard, offset);
            let sealed = sealed_hash(&salt, position.sequence, parts.sealed);
            let hash = both_hash(parts.open, &sealed);
            root.update(&hash);
            let entry = codec::decode_open(parts.open, position.sequence, shard).map_err(|error| corrupt(offset, error.to_string()))?;
            if entry.is_some_and(|entry| entry.concerns(&position, zone)) {
                kept += 1;
                reduced.push(KEPT);
                prost::encoding::encode_varint(parts.open.len() as u64, &mut reduced);
                reduced.extend_from_slice(parts.open);
                reduced.extend_from_slice(&sealed);
            } else {
                reduced.push(HIDDEN);
                reduced.extend_from_slice(&hash);
            }
        }
        if stored.len() != self.count as usize || root.finalize().as_bytes() != &self.root {
            return Err(corrupt(0, "the entries do not match the segment's root hash".to_owned()));
        }
        let payload = if kept > 0 { pack(&reduced) } else { Vec::new() };
        Ok(Self { checksum: *blake3::hash(&payload).as_bytes(), payload, ..self.clone_header() })
    }

    /// Checks that a whole segment may go to any zone: nothing in it is sealed. Of the contract's fields, those of class PERSONAL and
    /// above are in the sealed parts.
    ///
    /// # Errors
    /// An entry has a sealed part, or the payload is not what was written.
    pub fn check_all_open(&self, shard: &ShardRef) -> Result<(), Corrupt> {
        let corrupt = |offset: u64, what: String| self.corrupt(shard, offset, what);
        let raw = unpack(&self.payload).map_err(|what| corrupt(0, what))?;
        let (_, stored) = split(&raw).map_err(|what| corrupt(0, what))?;
        match (0u64..).zip(&stored).find(|(_, parts)| !parts.sealed.is_empty()) {
            Some((offset, _)) => Err(corrupt(offset, "the entry has a sealed part, which does not leave its zone".to_owned())),
            None => Ok(()),
        }
    }

    /// The entries of a reduced segment that were kept for `zone`, without their sealed parts; every hash is checked.
    ///
    /// # Errors
    /// It is not what the shard's leader wrote, or holds more than the zone may have.
    pub fn entries_for(&self, zone: &ZoneName, shard: &ShardRef) -> Result<Vec<Committed>, Corrupt> {
        let corrupt = |offset: u64, what: String| self.corrupt(shard, offset, what);
        self.check_bounds(shard)?;
        if self.payload.is_empty() {
            return Ok(Vec::new());
        }
        let raw = unpack(&self.payload).map_err(|what| corrupt(0, what))?;
        let mut rest = raw.as_slice();
        let mut root = blake3::Hasher::new();
        let mut entries = Vec::new();
        for offset in 0..u64::from(self.count) {
            match item(&mut rest).map_err(|what| corrupt(offset, what))? {
                Item::Hidden(hash) => root.update(&hash),
                Item::Kept { open, sealed } => {
                    let position = self.position(shard, offset);
                    let entry = kept(open, &position, zone, shard).map_err(|what| corrupt(offset, what))?;
                    entries.push((position, Arc::new(entry)));
                    root.update(&both_hash(open, &sealed))
                }
            };
        }
        if !rest.is_empty() {
            return Err(corrupt(0, "the segment holds more than its entries".to_owned()));
        }
        if root.finalize().as_bytes() != &self.root {
            return Err(corrupt(0, "the entries do not match the segment's root hash".to_owned()));
        }
        Ok(entries)
    }
}

/// An entry that the zone may have, and nothing besides.
fn kept(open: &[u8], position: &Position, zone: &ZoneName, shard: &ShardRef) -> Result<Entry, String> {
    let entry = codec::decode_open(open, position.sequence, shard).map_err(|error| error.to_string())?;
    let entry = entry.filter(|entry| entry.concerns(position, zone));
    let entry = entry.ok_or_else(|| format!("the entry does not concern zone {zone}, and is not hidden"))?;
    // What the contract of this build does not know cannot be said to be open.
    let mut scratch = codec::Scratch::default();
    if codec::encode(&entry, position.sequence, &mut scratch).open != open {
        return Err("the entry's open part holds more than the contract says".to_owned());
    }
    Ok(entry)
}

fn item<'a>(rest: &mut &'a [u8]) -> Result<Item<'a>, String> {
    let (kind, after) = rest.split_first().ok_or("an entry is missing")?;
    *rest = after;
    match *kind {
        HIDDEN => Ok(Item::Hidden(hash(rest)?)),
        KEPT => Ok(Item::Kept { open: part(rest)?, sealed: hash(rest)? }),
        other => Err(format!("an entry is of kind {other}, and there is none")),
    }
}

fn hash(rest: &mut &[u8]) -> Result<Hash, String> {
    let (hash, after) = rest.split_first_chunk::<HASH_BYTES>().ok_or("a hash is cut off")?;
    *rest = after;
    Ok(*hash)
}

impl Segment {
    pub(super) fn position(&self, shard: &ShardRef, offset: u64) -> Position {
        Position { shard: shard.clone(), epoch: self.epoch, sequence: Sequence(self.first.0.saturating_add(offset)) }
    }

    fn clone_header(&self) -> Self {
        Self { payload: Vec::new(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, stream::Stream};

    /// The leader of a shard can write what it likes, also what this build's contract does not know.
    #[test]
    fn an_open_part_with_an_unknown_field_is_refused_however_well_it_is_hashed() {
        let (shard, zone) = (conformance::shard(), "us".parse::<ZoneName>().expect("a zone's name"));
        let mut stream = Stream::with(1, 400);
        let header = stream.segments()[0].clone_header();
        let concerning = stream.committed().iter().find(|(position, entry)| entry.concerns(position, &zone));
        let (position, entry) = concerning.expect("one concerns the zone");
        let mut scratch = codec::Scratch::default();
        let open = codec::encode(entry, position.sequence, &mut scratch).open.to_vec();
        // Field 9,999, with two bytes.
        let unknown = [0xfa, 0xf0, 0x04, 2, b'h', b'i'];
        for (open, accepted) in [(open.clone(), true), ([open.as_slice(), &unknown].concat(), false)] {
            let sealed = [7; HASH_BYTES];
            let mut raw = vec![KEPT];
            prost::encoding::encode_varint(open.len() as u64, &mut raw);
            raw.extend_from_slice(&open);
            raw.extend_from_slice(&sealed);
            let payload = pack(&raw);
            let segment = Segment {
                epoch: position.epoch,
                first: position.sequence,
                count: 1,
                root: *blake3::hash(&both_hash(&open, &sealed)).as_bytes(),
                checksum: *blake3::hash(&payload).as_bytes(),
                payload,
                ..header.clone_header()
            };
            let read = segment.entries_for(&zone, &shard);
            assert_eq!(read.is_ok(), accepted, "{read:?}");
            assert!(accepted || read.is_err_and(|error| error.to_string().contains("more than the contract says")));
        }
    }
}
