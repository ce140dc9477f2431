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
/// Payload bytes that a reader that lags takes from storage at once. Decoded, they take some thirty times as much.
const READ_BYTES: usize = 1 << 20;
/// The same for a reader that keeps a few entries only.
const READ_FEW_BYTES: usize = 1 << 16;

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
        let from = self.reached(from).await;
        match self.recent(from) {
            Some((batch, 0)) => Ok(batch),
            Some((batch, skip)) => Ok(Arc::new(batch[skip..].to_vec())),
            None => self.stored(from, READ_BYTES).await,
        }
    }

    /// The same, but at most so many entries, and no others kept in memory for as long as these are: for readers that may take
    /// long over them. A large segment is read again for each part of it.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub async fn next_few(&self, from: Sequence, entries_max: usize) -> Result<Vec<Committed>, Error> {
        let from = self.reached(from).await;
        let (batch, skip) = match self.recent(from) {
            Some(found) => found,
            None => (self.stored(from, READ_FEW_BYTES).await?, 0),
        };
        Ok(batch[skip..].iter().take(entries_max).cloned().collect())
    }

    /// Waits until there is an entry of that number, or of the first.
    async fn reached(&self, from: Sequence) -> Sequence {
        let from = from.max(Sequence(1));
        let mut head = self.head.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = head.wait_for(|head| *head >= from).await;
        from
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

    /// The batch in memory that holds `from`, and how many entries are before it.
    fn recent(&self, from: Sequence) -> Option<(Batch, usize)> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let index = ring.batches.partition_point(|batch| batch.last().is_some_and(|(last, _)| last.sequence < from));
        let batch = ring.batches.get(index)?;
        let first = batch.first()?.0.sequence;
        let skip = from.0.checked_sub(first.0)?;
        Some((batch.clone(), usize::try_from(skip).ok()?))
    }

    /// One entry.
    ///
    /// # Errors
    /// There is none of that number, or the storage failed.
    pub async fn entry(&self, sequence: Sequence) -> Result<Committed, Error> {
        if sequence > self.head() || sequence == Sequence(0) {
            return Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: sequence });
        }
        let (batch, skip) = match self.recent(sequence) {
            Some(found) => found,
            None => (self.stored(sequence, 0).await?, 0),
        };
        Ok(batch[skip].clone())
    }

    /// Entries of some numbers, sorted and unique; each stored segment is read once.
    pub(crate) async fn entries(&self, sequences: &[Sequence]) -> Result<Vec<Committed>, Error> {
        let mut found = Vec::with_capacity(sequences.len());
        let mut batch: Batch = Arc::default();
        for sequence in sequences {
            let held = batch.first().zip(batch.last()).is_some_and(|(first, last)| (first.0.sequence..=last.0.sequence).contains(sequence));
            if !held {
                batch = match self.recent(*sequence) {
                    Some((batch, _)) => batch,
                    None => self.stored(*sequence, 0).await?,
                };
            }
            let offset = sequence.0 - batch[0].0.sequence.0;
            found.push(batch[usize::try_from(offset).expect("a batch fits in memory")].clone());
        }
        Ok(found)
    }
}
