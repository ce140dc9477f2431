//! Who follows the shards that this node leads, and how far they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use paymesh_types::{RegionName, Sequence, ShardRef};

/// How far a follower is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Streams that it has open: two for a moment when it has lost one and the other end has not noticed.
    pub(crate) streams: usize,
    /// The last entry sent.
    pub(crate) sent: Sequence,
    /// The last entry that it has stored.
    pub(crate) stored: Sequence,
}

type Known = BTreeMap<(ShardRef, RegionName), Progress>;

/// The followers of this node's shards since it started. As many at most as there are shards and regions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followers {
    known: Arc<Mutex<Known>>,
}

impl Followers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(crate) fn snapshot(&self) -> Known {
        self.lock().clone()
    }

    /// A stream begins; it ends when the connection is dropped.
    pub(crate) fn connect(&self, shard: ShardRef, region: RegionName, stored: Sequence) -> Connection {
        let key = (shard, region);
        let mut known = self.lock();
        let progress = known.entry(key.clone()).or_default();
        progress.streams += 1;
        (progress.sent, progress.stored) = (stored, stored);
        drop(known);
        Connection { followers: self.clone(), key }
    }
}

/// A follower's stream.
#[derive(Debug)]
pub(crate) struct Connection {
    followers: Followers,
    key: (ShardRef, RegionName),
}

impl Connection {
    pub(crate) fn note(&self, note: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.followers.lock().get_mut(&self.key) {
            note(progress);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.note(|progress| progress.streams -= 1);
    }
}
