//! Where a journal begins once its first entries are not kept any more.
//!
//! An origin says what whoever reads on from it has to know of what came before: the chain's hash there, and how far the shard
//! and each other shard had come with each other. The last is what shows that no money is lost by starting there.

use std::collections::BTreeMap;

use paymesh_contract::events::v1 as pb;
use paymesh_ledger::Body;
use paymesh_types::{Cursor, Epoch, HistoryMark, Sequence, ShardRef, Timestamp};

use crate::{Chain, Committed, Hash, Holding, Segment, codec};

/// Shards that an origin knows of at most: the decoder takes no more.
const PEERS_MAX: usize = 1 << 20;

/// The end of the last segment that is not kept any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The segment's epoch.
    pub epoch: Epoch,
    /// Its last entry: the journal begins with the next; 0 where it is kept from its first entry.
    pub sequence: Sequence,
    /// Its hash; the chain's beginning where there is none.
    pub hash: Hash,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// How far the shard and others had come with each other.
    pub peers: BTreeMap<ShardRef, Marks>,
}

/// How far two shards had come with each other, as the entries up to an origin say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// The last entry that is addressed to the other shard; 0 for none.
    pub sent: Sequence,
    /// How far the other shard's journal had taken effect; 0 for not at all.
    pub taken_in: Cursor,
}

/// Why bytes or a message are not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no journal's origin: {0}")]
pub struct BadOrigin(String);

impl Origin {
    /// Before the first segment of a shard.
    pub fn beginning(shard: &ShardRef) -> Self {
        let hash = Chain::start(shard.clone()).hash();
        Self { epoch: Epoch(0), sequence: Sequence(0), hash, committed_at: Timestamp(0), peers: BTreeMap::new() }
    }

    /// Moves on to the end of the segment that follows, whose entries these are.
    pub fn pass(&mut self, segment: &Segment, entries: &[Committed]) {
        for (position, entry) in entries {
            if let Some((to, _)) = entry.message(position) {
                self.peers.entry(to).or_default().sent = position.sequence;
            }
            let taken_in = match &entry.body {
                Body::Received { source, at, .. } => Some((source, *at)),
                Body::Delivered { to, read_to, .. } => Some((to, *read_to)),
                _ => None,
            };
            if let Some((peer, cursor)) = taken_in {
                self.peers.entry(peer.clone()).or_default().taken_in.advance(cursor);
            }
        }
        (self.epoch, self.sequence, self.hash, self.committed_at) = (segment.epoch, segment.last(), segment.hash, segment.committed_at);
    }

    /// How far the shard and another had come with each other.
    pub fn marks(&self, peer: &ShardRef) -> Marks {
        self.peers.get(peer).copied().unwrap_or_default()
    }

    /// Whether a journal that begins here may be of the history that had come to `earlier` before: in one history nothing goes
    /// back. That it does not go back proves nothing.
    ///
    /// # Errors
    /// What shows that it is of another history.
    pub fn may_follow(&self, earlier: &Self) -> Result<(), String> {
        if self.epoch < earlier.epoch {
            return Err(format!("it is of term {} there, and had come to term {}", self.epoch, earlier.epoch));
        }
        for (peer, before) in &earlier.peers {
            let now = self.marks(peer);
            if now.sent < before.sent {
                return Err(format!("up to there it has sent {peer} entry {} last, and had sent it entry {}", now.sent, before.sent));
            }
            let (now, before) = (now.taken_in.sequence, before.taken_in.sequence);
            if now < before {
                return Err(format!("up to there it has taken in entry {now} of {peer}, and had taken in entry {before}"));
            }
        }
        Ok(())
    }

    /// What of it may be held where that is held of the journal.
    #[must_use]
    pub fn within(&self, holding: &Holding) -> Self {
        let Holding::For(zone) = holding else { return self.clone() };
        let peers = self.peers.iter().filter(|(peer, _)| peer.zone == *zone);
        Self { peers: peers.map(|(peer, marks)| (peer.clone(), *marks)).collect(), ..self.clone() }
    }
}

impl From<&Origin> for pb::JournalOrigin {
    fn from(origin: &Origin) -> Self {
        let peers = origin.peers.iter().map(|(peer, marks)| pb::PeerMarks {
            zone: peer.zone.to_string(),
            shard: peer.index.into(),
            sent_sequence: marks.sent.0,
            taken_in_sequence: marks.taken_in.sequence.0,
            taken_in_mark: codec::mark(marks.taken_in.mark),
        });
        Self {
            epoch: origin.epoch.0,
            sequence: origin.sequence.0,
            hash: origin.hash.to_vec(),
            committed_at_us: origin.committed_at.0,
            peers: peers.collect(),
        }
    }
}

impl TryFrom<&pb::JournalOrigin> for Origin {
    type Error = BadOrigin;

    fn try_from(message: &pb::JournalOrigin) -> Result<Self, BadOrigin> {
        let bad = |what: &str| BadOrigin(what.to_owned());
        if message.peers.len() > PEERS_MAX {
            return Err(bad("it knows of more shards than there are"));
        }
        // Past it nothing could follow, and no engine keeps such a number.
        if message.sequence >= i64::MAX as u64 || message.epoch >= i64::MAX as u64 || message.committed_at_us >= i64::MAX as u64 {
            return Err(bad("a number is out of range"));
        }
        let mut peers = BTreeMap::new();
        for each in &message.peers {
            let index = u16::try_from(each.shard).map_err(|_| bad("a shard's number is out of range"))?;
            let zone = each.zone.parse().map_err(|error| BadOrigin(format!("{error}")))?;
            let taken_in = Cursor { sequence: Sequence(each.taken_in_sequence), mark: HistoryMark::new(each.taken_in_mark) };
            let marks = Marks { sent: Sequence(each.sent_sequence), taken_in };
            if marks.sent.0 > message.sequence {
                return Err(bad("it knows of an entry that comes after it"));
            }
            peers.insert(ShardRef { zone, index }, marks);
        }
        Ok(Self {
            epoch: Epoch(message.epoch),
            sequence: Sequence(message.sequence),
            hash: message.hash.as_slice().try_into().map_err(|_| bad("its hash is not 32 bytes"))?,
            committed_at: Timestamp(message.committed_at_us),
            peers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_of_another_history() {
        let peer = |index| ShardRef { zone: "eu".parse().expect("a zone's name"), index };
        let origin = |epoch, sequence, sent, taken_in| {
            let marks = Marks { sent: Sequence(sent), taken_in: Sequence(taken_in).into() };
            let peers = BTreeMap::from([(peer(1), marks), (peer(2), Marks::default())]);
            Origin { epoch: Epoch(epoch), sequence: Sequence(sequence), peers, ..Origin::beginning(&peer(0)) }
        };
        let earlier = origin(2, 100, 50, 7);
        for (later, may) in [
            (origin(2, 100, 50, 7), true),
            (origin(2, 200, 50, 7), true),
            (origin(3, 200, 150, 70), true),
            (origin(1, 200, 50, 7), false),
            (origin(3, 200, 49, 7), false),
            (origin(3, 200, 50, 6), false),
            (Origin { peers: BTreeMap::new(), ..origin(3, 200, 0, 0) }, false),
        ] {
            assert_eq!(later.may_follow(&earlier).is_ok(), may, "{later:?}");
            assert_eq!(later.may_follow(&Origin::beginning(&peer(0))), Ok(()), "after nothing comes anything");
        }
    }
}
