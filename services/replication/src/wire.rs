//! Segments and origins as messages.

use paymesh_contract::{events::v1::JournalOrigin, replication::v1 as pb};
use paymesh_journal::{Hash, Holding, Origin, Segment};
use paymesh_types::{Epoch, Sequence, Timestamp};

pub(crate) fn message(segment: &Segment, holding: &Holding) -> pb::Segment {
    let payload = Some(segment.payload.clone());
    let (whole, reduced) = match holding {
        Holding::Whole => (payload, None),
        Holding::For(_) => (None, payload),
    };
    pb::Segment {
        epoch: segment.epoch.0,
        first_sequence: segment.first.0,
        count: segment.count,
        committed_at_us: segment.committed_at.0,
        previous_hash: segment.previous.to_vec(),
        root_hash: segment.root.to_vec(),
        hash: segment.hash.to_vec(),
        checksum: segment.checksum.to_vec(),
        whole,
        reduced,
    }
}

/// The segment; whether it is what the leader wrote is checked where it is added.
///
/// # Errors
/// It is not a segment, or of the other kind than is held here.
pub(crate) fn segment(message: pb::Segment, holding: &Holding) -> Result<Segment, String> {
    let payload = match (message.whole, message.reduced, holding) {
        (Some(payload), None, Holding::Whole) | (None, Some(payload), Holding::For(_)) => payload,
        (Some(_), _, Holding::For(_)) => return Err("it is whole, which is more than may be held here".to_owned()),
        (_, Some(_), Holding::Whole) => return Err("it is reduced, and the whole is held here".to_owned()),
        (None, None, _) => return Err("it has no payload".to_owned()),
    };
    Ok(Segment {
        epoch: Epoch(message.epoch),
        first: Sequence(message.first_sequence),
        count: message.count,
        committed_at: Timestamp(message.committed_at_us),
        previous: hash(&message.previous_hash, "previous_hash")?,
        root: hash(&message.root_hash, "root_hash")?,
        hash: hash(&message.hash, "hash")?,
        checksum: hash(&message.checksum, "checksum")?,
        payload,
    })
}

/// The origin as whoever holds that of the journal may have it.
pub(crate) fn origin_message(origin: &Origin, holding: &Holding) -> JournalOrigin {
    JournalOrigin::from(&origin.within(holding))
}

/// Where the leader's journal begins.
///
/// # Errors
/// It is no origin, or says more than may be held here.
pub(crate) fn origin(message: &JournalOrigin, holding: &Holding) -> Result<Origin, String> {
    let origin = Origin::try_from(message).map_err(|error| error.to_string())?;
    if origin != origin.within(holding) {
        return Err("it tells of shards of other zones, which is more than may be held here".to_owned());
    }
    Ok(origin)
}

fn hash(bytes: &[u8], what: &str) -> Result<Hash, String> {
    bytes.try_into().map_err(|_| format!("its {what} has {} bytes, not 32", bytes.len()))
}
