//! What a disk may hand back where a journal was written.

use paymesh_journal::{Chain, SEGMENT_ENTRIES_MAX, Segment, StoredEntry, codec};
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};

/// The bytes of a segment's salt, with which its payload begins once it is unpacked.
const SALT_BYTES: usize = 32;

/// A segment with that payload, whose hashes nobody has worked out.
fn forged(count: u32, payload: Vec<u8>) -> Segment {
    Segment {
        epoch: Epoch(1),
        first: Sequence(1),
        count,
        committed_at: Timestamp(0),
        previous: Chain::start(shard()).hash(),
        root: [0; 32],
        hash: [0; 32],
        checksum: [0; 32],
        payload,
    }
}

fn shard() -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone's name"), index: 1 }
}

/// A segment from any bytes: no payload makes the decoder panic, or ask for memory without bound, and none that was not
/// written by a leader passes.
///
/// The first two bytes are the count; the rest is the payload, once as it is and once as what it unpacks to.
pub fn segment_decoder(bytes: &[u8]) {
    let Some((count, payload)) = bytes.split_first_chunk::<2>() else { return };
    let count = u32::from(u16::from_le_bytes(*count));
    let packed = zstd::bulk::compress(payload, 1).expect("compressing into memory does not fail");
    for payload in [payload.to_vec(), packed] {
        let segment = forged(count, payload);
        if count == 0 {
            assert!(Chain::start(shard()).link(&segment).is_err(), "a segment without entries does not follow");
            continue;
        }
        // Its root hash is zero, which no entries have: that is found out last, before entries are decoded.
        let corrupt = segment.entries(&shard()).expect_err("nobody wrote this segment");
        assert!(corrupt.sequence >= segment.first && corrupt.sequence <= segment.last(), "the damage is placed within the segment");
        assert!(Chain::start(shard()).link(&segment).is_err(), "its hash is not its own");
    }
    // The entries' own way on, past the count and the lengths.
    let Some(mut rest) = payload.get(SALT_BYTES..) else { return };
    for sequence in 1..=SEGMENT_ENTRIES_MAX as u64 {
        let (Some(open), Some(sealed)) = (part(&mut rest), part(&mut rest)) else { return };
        one_entry(StoredEntry { open, sealed }, Sequence(sequence));
    }
}

/// A segment of another zone's shard from any bytes: likewise, and never an entry that this zone may not have.
///
/// The first two bytes are the count; the rest is the payload, once as it is and once as what it unpacks to.
pub fn border_segment(bytes: &[u8]) {
    let Some((count, payload)) = bytes.split_first_chunk::<2>() else { return };
    let count = u32::from(u16::from_le_bytes(*count)).max(1);
    let packed = zstd::bulk::compress(payload, 1).expect("compressing into memory does not fail");
    let zone = "global".parse().expect("a zone's name");
    for payload in [payload.to_vec(), packed] {
        let hidden = payload.is_empty();
        let segment = forged(count, payload);
        match segment.entries_for(&zone, &shard()) {
            Ok(entries) => assert!(hidden && entries.is_empty(), "nobody wrote this segment, and it holds {entries:?}"),
            Err(corrupt) => {
                assert!(corrupt.sequence >= segment.first && corrupt.sequence <= segment.last(), "the damage is placed within the segment");
            }
        }
    }
}

/// An entry from any bytes: what decodes encodes to what decodes to the same.
///
/// The first two bytes are the length of the open part; the rest is the sealed one.
pub fn entry_codec(bytes: &[u8]) {
    let Some((length, parts)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(parts.len());
    let (open, sealed) = parts.split_at(length);
    one_entry(StoredEntry { open, sealed }, Sequence(7));
}

fn one_entry(parts: StoredEntry<'_>, sequence: Sequence) {
    let Ok(entry) = codec::decode(parts, sequence, &shard()) else { return };
    let mut scratch = codec::Scratch::default();
    let again = codec::encode(&entry, sequence, &mut scratch);
    let again = codec::decode(again, sequence, &shard()).expect("what was encoded decodes");
    assert_eq!(again, entry, "an entry survives the journal");
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(prost::encoding::decode_varint(rest).ok()?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}
