//! The journal as readers see it: the newest entries from memory, the older from storage, each reader at its own pace.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use paymesh_journal::{Committed, Journal};
use paymesh_types::{Sequence, ShardRef};
use tokio::sync::watch;

use crate::Error;

/// Entries kept in memory for readers that keep up.
const RING_ENTRIES_MAX: usize = 65_536;
/// Payload bytes that a reader that lags takes from storage at once.
const READ_BYTES: usize = 1 << 20;

/// Entries committed together.
pub(crate) type Batch = Arc<Vec<Committed>>;

/// The committed entries of one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tail {
    shard: ShardRef,
    journal: Arc<dyn Journal>,
    ring: Arc<Mutex<Ring>>,
    head: Arc<watch::Sender<Sequence>>,
}

#[derive(Debug, Default)]
struct Ring {
    batches: VecDeque<Batch>,
    entries: usize,
}

impl Tail {
    pub(crate) fn new(shard: ShardRef, journal: Arc<dyn Journal>, head: Sequence) -> Self {
        Self { shard, journal, ring: Arc::default(), head: Arc::new(watch::Sender::new(head)) }
    }

    /// The shard.
    pub fn shard(&self) -> &ShardRef {
        &self.shard
    }

    /// The last committed entry.
    pub fn head(&self) -> Sequence {
        *self.head.borrow()
    }

    /// Makes committed entries known. They follow the head.
    pub(crate) fn publish(&self, batch: Batch) {
        let Some((last, _)) = batch.last() else { return };
        let head = last.sequence;
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.entries += batch.len();
            ring.batches.push_back(batch);
            while ring.entries > RING_ENTRIES_MAX && ring.batches.len() > 1 {
                let oldest = ring.batches.pop_front().map_or(0, |batch| batch.len());
                ring.entries -= oldest;
            }
        }
        self.head.send_replace(head);
    }

    /// Forgets what is in memory: after a failed commit, storage is the truth.
    pub(crate) fn reset(&self, head: Sequence) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        *ring = Ring::default();
        self.head.send_if_modified(|current| std::mem::replace(current, head) != head);
    }

    /// Entries from `from` on, in order and without gaps, at least one; waits until there are any.
    ///
    /// # Errors
    /// The storage failed, or holds something corrupt.
    pub async fn next(&self, from: Sequence) -> Result<Arc<Vec<Committed>>, Error> {
        let from = from.max(Sequence(1));
        let mut head = self.head.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = head.wait_for(|head| *head >= from).await;
        if let Some(batch) = self.recent(from) {
            return Ok(batch);
        }
        self.stored(from, READ_BYTES).await
    }

    /// Entries from storage: those of the segment that holds `from`, and of more until about `bytes_max` are read.
    async fn stored(&self, from: Sequence, bytes_max: usize) -> Result<Batch, Error> {
        let failed = |source| Error::Storage { shard: self.shard.clone(), source };
        let mut entries = Vec::new();
        for segment in self.journal.read(from, bytes_max).await.map_err(failed)? {
            let decoded = segment.entries(&self.shard).map_err(|corrupt| failed(corrupt.into()))?;
            entries.extend(
                decoded.into_iter().filter(|(position, _)| position.sequence >= from).map(|(position, entry)| (position, Arc::new(entry))),
            );
        }
        if entries.is_empty() {
            return Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: from });
        }
        Ok(Arc::new(entries))
    }

    /// The batch in memory that holds `from`, cut to begin there.
    fn recent(&self, from: Sequence) -> Option<Batch> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let index = ring.batches.partition_point(|batch| batch.last().is_some_and(|(last, _)| last.sequence < from));
        let batch = ring.batches.get(index)?;
        let first = batch.first()?.0.sequence;
        match from.0.checked_sub(first.0)? {
            0 => Some(batch.clone()),
            skip => Some(Arc::new(batch[usize::try_from(skip).ok()?..].to_vec())),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// There is none of that number, or the storage failed.
    pub async fn entry(&self, sequence: Sequence) -> Result<Committed, Error> {
        if sequence > self.head() || sequence == Sequence(0) {
            return Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: sequence });
        }
        let batch = match self.recent(sequence) {
            Some(batch) => batch,
            None => self.stored(sequence, 0).await?,
        };
        Ok(batch[0].clone())
    }

    /// Entries of some numbers, sorted and unique; each stored segment is read once.
    pub(crate) async fn entries(&self, sequences: &[Sequence]) -> Result<Vec<Committed>, Error> {
        let mut found = Vec::with_capacity(sequences.len());
        let mut batch: Batch = Arc::default();
        for sequence in sequences {
            let held = batch.first().zip(batch.last()).is_some_and(|(first, last)| (first.0.sequence..=last.0.sequence).contains(sequence));
            if !held {
                batch = match self.recent(*sequence) {
                    Some(batch) => batch,
                    None => self.stored(*sequence, 0).await?,
                };
            }
            let offset = sequence.0 - batch[0].0.sequence.0;
            found.push(batch[usize::try_from(offset).expect("a batch fits in memory")].clone());
        }
        Ok(found)
    }
}
