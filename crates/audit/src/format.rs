//! Bytes on disk: the hash chain, the records of a file, its header.
//!
//! ```text
//! start  = H( owner, chain, the record that the chain comes after and its hash )
//! file   = H( owner, chain, first record, time, the hash before it )        the header of a file
//! record = H( the hash before it, sequence number, bytes )
//! ```
//!
//! H is BLAKE3, the owner the mesh and the region. What comes before a file's first record is the file's own hash, whose header has the
//! hash of the last record of the file before it, or of the chain's start: so the chain goes through the headers too. A file is its header and
//! records, each with its length before it and its hash after it.

use paymesh_types::{RegionName, Sequence, Timestamp};

/// A BLAKE3 hash.
pub type Hash = [u8; HASH_BYTES];

pub(crate) const HASH_BYTES: usize = 32;
/// Bytes of a record at most, far above what one has.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a record's length.
pub(crate) const LENGTH_BYTES: usize = 4;
/// What a record takes in a file besides its own bytes.
pub(crate) const FRAME_BYTES: usize = LENGTH_BYTES + HASH_BYTES;
/// Bytes of a file's header, its hash included.
pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 4 + 8 + 8 + 2 * HASH_BYTES;

const MAGIC: &[u8; 16] = b"paymesh audit 1\n";

/// A record, by its number, and the chain's hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The record's number. 0 stands before the first.
    pub sequence: Sequence,
    /// The chain's hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first record of a node.
    pub(crate) const NOTHING: Self = Self { sequence: Sequence(0), hash: [0; HASH_BYTES] };

    /// The link that the next record is.
    pub(crate) fn then(&self, payload: &[u8]) -> Self {
        let sequence = self.sequence.next();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash);
        hasher.update(&sequence.0.to_le_bytes());
        hasher.update(payload);
        Self { sequence, hash: *hasher.finalize().as_bytes() }
    }
}

/// Whose log it is: another's does not fit.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) mesh: String,
    pub(crate) region: RegionName,
}

impl Owner {
    /// Hashes something of one of this owner's chains.
    pub(crate) fn hasher(&self, what: &str, chain: u32) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        for text in ["paymesh audit 1", what, &self.mesh, self.region.as_str()] {
            hasher.update(text.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&chain.to_le_bytes());
        hasher
    }

    /// What a chain begins with that comes after this record of the chain before it.
    pub(crate) fn start(&self, chain: u32, after: Link) -> Link {
        let mut hasher = self.hasher("start", chain);
        hasher.update(&after.sequence.0.to_le_bytes());
        hasher.update(&after.hash);
        Link { sequence: after.sequence, hash: *hasher.finalize().as_bytes() }
    }
}

/// What a file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) chain: u32,
    /// The last record before it.
    pub(crate) previous: Link,
    /// When the file was begun: after the end of every call in the files before it.
    pub(crate) begun_at: Timestamp,
}

impl Header {
    /// The number of the file's first record.
    pub(crate) fn first(&self) -> Sequence {
        self.previous.sequence.next()
    }

    /// Its bytes, and what its file's first record comes after.
    pub(crate) fn encode(&self, owner: &Owner) -> ([u8; HEADER_BYTES], Link) {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        put(&mut rest, MAGIC);
        put(&mut rest, &self.chain.to_le_bytes());
        put(&mut rest, &self.previous.sequence.0.to_le_bytes());
        put(&mut rest, &self.begun_at.0.to_le_bytes());
        put(&mut rest, &self.previous.hash);
        let said = HEADER_BYTES - HASH_BYTES;
        let hash = *owner.hasher("file", self.chain).update(&bytes[..said]).finalize().as_bytes();
        bytes[said..].copy_from_slice(&hash);
        (bytes, Link { sequence: self.previous.sequence, hash })
    }

    /// Reads it back; `None` where the bytes are not what [`Header::encode`] has made for this owner.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], owner: &Owner) -> Option<(Self, Link)> {
        let mut rest = &bytes[..];
        let _: [u8; MAGIC.len()] = take(&mut rest)?;
        let header = Self {
            chain: u32::from_le_bytes(take(&mut rest)?),
            previous: Link { sequence: Sequence(u64::from_le_bytes(take(&mut rest)?)), hash: [0; HASH_BYTES] },
            begun_at: Timestamp(u64::from_le_bytes(take(&mut rest)?)),
        };
        let header = Self { previous: Link { hash: take(&mut rest)?, ..header.previous }, ..header };
        let (whole, start) = header.encode(owner);
        (whole == *bytes && header.previous.sequence.0 < u64::MAX).then_some((header, start))
    }
}

/// Adds a record's length and bytes, as records wait to be written.
pub(crate) fn put_record(into: &mut Vec<u8>, payload: &[u8]) {
    let length = u32::try_from(payload.len()).ok().filter(|length| (1..=RECORD_BYTES_MAX as u32).contains(length));
    let length = length.expect("a record has bytes, and no more than one may have");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(payload);
}

/// Adds the records that wait in `queued` to a file's bytes, each with its hash; what they come after is moved on.
pub(crate) fn put_frames(into: &mut Vec<u8>, queued: &[u8], link: &mut Link) {
    let mut rest = queued;
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let (payload, next) = after.split_at(u32::from_le_bytes(*length) as usize);
        *link = link.then(payload);
        into.extend_from_slice(length);
        into.extend_from_slice(payload);
        into.extend_from_slice(&link.hash);
        rest = next;
    }
}

pub(crate) fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (here, after) = std::mem::take(rest).split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    *rest = after;
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(region: &str) -> Owner {
        Owner { mesh: "test".to_owned(), region: region.parse().expect("a region") }
    }

    #[test]
    fn a_header_is_its_owners_and_no_bit_of_it_can_change() {
        let header = Header { chain: 2, previous: Link { sequence: Sequence(41), hash: [7; 32] }, begun_at: Timestamp(12) };
        let (bytes, start) = header.encode(&owner("eu_west"));
        assert_eq!(Header::decode(&bytes, &owner("eu_west")), Some((header, start)));
        assert_eq!(Header::decode(&bytes, &owner("us_east")), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, &owner("eu_west")), None, "bit {bit}");
        }
    }

    #[test]
    fn a_hash_vouches_for_everything_before_it() {
        let start = owner("eu_west").start(1, Link::NOTHING);
        let chain = |payloads: &[&[u8]]| payloads.iter().fold(start, |link, payload| link.then(payload)).hash;
        let whole = chain(&[b"one", b"two", b"three"]);
        for other in [&[&b"one"[..], b"two"][..], &[b"two", b"one", b"three"], &[b"onetwo", b"", b"three"], &[b"one", b"two", b"threE"]] {
            assert_ne!(chain(other), whole);
        }
        assert_ne!(owner("eu_west").start(2, Link::NOTHING), start);
        assert_ne!(owner("us_east").start(1, Link::NOTHING), start);
    }
}
