//! The journal as readers see it: the newest entries from memory, the older from storage, each reader at its own pace.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use paymesh_journal::{Committed, Holding, Journal, Origin, Segment};
use paymesh_types::{Sequence, ShardRef};
use tokio::sync::watch;

use crate::{Error, aside::aside, marks::Marks};

/// Entries kept in memory for readers that keep up.
pub(crate) const RING_ENTRIES_MAX: u64 = 65_536;
/// Payload bytes that a reader that lags takes from storage at once. Decoded, they take some thirty times as much.
const READ_BYTES: usize = 1 << 20;
/// The same for a reader that keeps a few entries only.
const READ_FEW_BYTES: usize = 1 << 16;

/// Entries in their order.
pub(crate) type Batch = Arc<Vec<Committed>>;

/// A stretch of a journal.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its last entry.
    pub last: Sequence,
    /// Those of its entries that are held here: all of them, or those that concern the zone.
    pub entries: Arc<Vec<Committed>>,
    /// Of which history they are.
    pub(crate) marks: Marks,
}

/// The committed entries of one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tail {
    shard: ShardRef,
    holding: Holding,
    journal: Arc<dyn Journal>,
    ring: Arc<Mutex<Ring>>,
    head: Arc<watch::Sender<Sequence>>,
    /// Payload bytes that the journal keeps.
    bytes: Arc<AtomicU64>,
    /// The entry that the journal begins after.
    kept_after: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Ring {
    pieces: VecDeque<Arc<Piece>>,
    entries: u64,
}

/// What was committed together.
#[derive(Debug)]
struct Piece {
    segment: Arc<Segment>,
    /// Decoded by whoever wants them first, where the writer has not.
    entries: OnceLock<Batch>,
}

impl Ring {
    /// The piece that holds `from`, if it is still in memory.
    fn index(&self, from: Sequence) -> Option<usize> {
        let index = self.pieces.partition_point(|piece| piece.segment.last() < from);
        self.pieces.get(index).filter(|piece| piece.segment.first <= from).map(|_| index)
    }
}

impl Tail {
    /// `head` is the journal's last entry, `bytes` what its segments' payloads have together.
    pub(crate) fn new(shard: ShardRef, holding: Holding, journal: Arc<dyn Journal>, head: Sequence, bytes: u64) -> Self {
        let head = Arc::new(watch::Sender::new(head));
        let bytes = Arc::new(AtomicU64::new(bytes));
        Self { shard, holding, journal, ring: Arc::default(), head, bytes, kept_after: Arc::default() }
    }

    /// Payload bytes that the journal keeps.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The entry that the journal begins after; 0 where it begins with its first.
    pub fn kept_after(&self) -> Sequence {
        Sequence(self.kept_after.load(Ordering::Relaxed))
    }

    /// So many bytes are not kept any more, and the journal begins after this entry.
    pub(crate) fn dropped(&self, bytes: u64, up_to: Sequence) {
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| Some(kept.saturating_sub(bytes)));
        self.kept_after.fetch_max(up_to.0, Ordering::Relaxed);
    }

    /// Where the journal begins. Entries before it may be in memory for a while.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn origin(&self) -> Result<Origin, Error> {
        self.journal.origin().await.map_err(|source| self.failed(source))
    }

    /// The shard.
    pub fn shard(&self) -> &ShardRef {
        &self.shard
    }

    /// The last committed entry.
    pub fn head(&self) -> Sequence {
        *self.head.borrow()
    }

    /// Makes a committed segment known, and what is held of its entries if that is decoded. It follows the head.
    pub(crate) fn publish(&self, segment: Arc<Segment>, entries: Option<Batch>) {
        let head = segment.last();
        self.bytes.fetch_add(segment.payload.len() as u64, Ordering::Relaxed);
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.entries += u64::from(segment.count);
            let entries = entries.map_or_else(OnceLock::new, OnceLock::from);
            ring.pieces.push_back(Arc::new(Piece { segment, entries }));
            while ring.entries > RING_ENTRIES_MAX && ring.pieces.len() > 1 {
                let oldest = ring.pieces.pop_front().map_or(0, |piece| u64::from(piece.segment.count));
                ring.entries -= oldest;
            }
        }
        self.head.send_replace(head);
    }

    /// Forgets what is in memory: after a failed commit, storage is the truth.
    pub(crate) fn reset(&self, head: Sequence, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        *ring = Ring::default();
        self.head.send_if_modified(|current| std::mem::replace(current, head) != head);
    }

    /// Entries from `from` on, in order; waits until there are any.
    ///
    /// # Errors
    /// [`Error::NotKept`]: the journal begins after `from`. The storage failed, or holds something corrupt.
    pub async fn next(&self, from: Sequence) -> Result<Run, Error> {
        let from = from.max(Sequence(1));
        self.reached(from).await;
        match self.recent(from).await? {
            Some(run) => Ok(run),
            None => self.stored(from, READ_BYTES).await,
        }
    }

    /// The same, but at most so many entries, and no others kept in memory for as long as these are: for readers that may take
    /// long over them. A large segment is read again for each part of it.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub async fn next_few(&self, from: Sequence, entries_max: usize) -> Result<Vec<Committed>, Error> {
        let from = from.max(Sequence(1));
        self.reached(from).await;
        let (entries, before) = match self.in_memory(from).await? {
            Some((_, entries, before)) => (entries, before),
            None => (self.stored(from, READ_FEW_BYTES).await?.entries, 0),
        };
        Ok(entries[before..].iter().take(entries_max).cloned().collect())
    }

    /// Segments from the one that holds `from` on, as they are stored, until about `bytes_max` of payload; waits until there
    /// is one, and gives at least one.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub async fn segments(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Arc<Segment>>, Error> {
        self.reached(from).await;
        {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = ring.index(from) {
                let mut segments = Vec::new();
                let mut bytes = 0;
                for piece in ring.pieces.range(index..) {
                    segments.push(piece.segment.clone());
                    bytes += piece.segment.payload.len();
                    if bytes >= bytes_max {
                        break;
                    }
                }
                return Ok(segments);
            }
        }
        let segments = self.journal.read(from, bytes_max).await.map_err(|source| self.failed(source))?;
        Ok(segments.into_iter().map(Arc::new).collect())
    }

    /// Of which history the journal is from the segment that holds `from` on, for a while; waits until there is one.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub(crate) async fn marks(&self, from: Sequence) -> Result<Marks, Error> {
        let segments = self.segments(from, READ_FEW_BYTES).await?;
        for segment in &segments {
            segment.check_header(&self.shard).map_err(|corrupt| self.failed(corrupt.into()))?;
        }
        Ok(Marks::of(segments.iter().map(Arc::as_ref)))
    }

    async fn reached(&self, sequence: Sequence) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.head.subscribe().wait_for(|head| *head >= sequence).await;
    }

    fn failed(&self, source: paymesh_journal::Error) -> Error {
        Error::of_storage(&self.shard, source)
    }

    /// Entries from storage: those of the segment that holds `from`, and of more until about `bytes_max` are read.
    async fn stored(&self, from: Sequence, bytes_max: usize) -> Result<Run, Error> {
        let segments = self.journal.read(from, bytes_max).await.map_err(|source| self.failed(source))?;
        let last = segments.last().map_or(Sequence(0), Segment::last);
        if last < from {
            return Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: from });
        }
        let marks = Marks::of(&segments);
        let (count, tail) = (segments.iter().map(|segment| u64::from(segment.count)).sum(), self.clone());
        let decoded = aside(&self.shard, count, move || {
            let mut entries = Vec::new();
            for segment in &segments {
                // What is taken in of it is noted with its mark.
                segment.check_header(&tail.shard).map_err(|corrupt| tail.failed(corrupt.into()))?;
                let wanted = tail.decoded(segment)?.into_iter().filter(|(position, _)| position.sequence >= from);
                entries.extend(wanted);
            }
            Ok::<_, Error>(entries)
        });
        Ok(Run { last, entries: Arc::new(decoded.await??), marks })
    }

    /// What is in memory of what was committed with `from`, cut to begin there.
    async fn recent(&self, from: Sequence) -> Result<Option<Run>, Error> {
        let Some((piece, entries, before)) = self.in_memory(from).await? else { return Ok(None) };
        let entries = if before == 0 { entries } else { Arc::new(entries[before..].to_vec()) };
        Ok(Some(Run { last: piece.segment.last(), entries, marks: Marks::of([&*piece.segment]) }))
    }

    /// What was committed with `from`, what is held of its entries, and how many of these are before `from`.
    async fn in_memory(&self, from: Sequence) -> Result<Option<(Arc<Piece>, Batch, usize)>, Error> {
        let piece = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.index(from).map(|index| ring.pieces[index].clone())
        };
        let Some(piece) = piece else { return Ok(None) };
        let entries = match piece.entries.get() {
            Some(entries) => entries.clone(),
            None => {
                let (segment, tail) = (piece.segment.clone(), self.clone());
                let entries = aside(&self.shard, u64::from(segment.count), move || tail.decoded(&segment)).await??;
                piece.entries.get_or_init(|| Arc::new(entries)).clone()
            }
        };
        let before = entries.partition_point(|(position, _)| position.sequence < from);
        Ok(Some((piece, entries, before)))
    }

    /// What is held of a segment's entries.
    fn decoded(&self, segment: &Segment) -> Result<Vec<Committed>, Error> {
        self.holding.entries(segment, &self.shard).map_err(|corrupt| self.failed(corrupt.into()))
    }

    /// One entry.
    ///
    /// # Errors
    /// There is none of that number, it is not kept any more, or the storage failed.
    pub async fn entry(&self, sequence: Sequence) -> Result<Committed, Error> {
        if sequence > self.head() || sequence == Sequence(0) {
            return Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: sequence });
        }
        let run = match self.recent(sequence).await? {
            Some(run) => run,
            None => self.stored(sequence, 0).await?,
        };
        match run.entries.first() {
            Some(first) if first.0.sequence == sequence => Ok(first.clone()),
            _ => Err(Error::InTheFuture { shard: self.shard.clone(), head: self.head(), wanted: sequence }),
        }
    }

    /// Entries of some numbers, sorted and unique; each stored segment is read once.
    pub(crate) async fn entries(&self, sequences: &[Sequence]) -> Result<Vec<Committed>, Error> {
        let mut found = Vec::with_capacity(sequences.len());
        let mut batch: Batch = Arc::default();
        for sequence in sequences {
            let held = batch.first().zip(batch.last()).is_some_and(|(first, last)| (first.0.sequence..=last.0.sequence).contains(sequence));
            if !held {
                batch = match self.recent(*sequence).await? {
                    Some(run) => run.entries,
                    None => self.stored(*sequence, 0).await?.entries,
                };
            }
            let offset = sequence.0 - batch[0].0.sequence.0;
            found.push(batch[usize::try_from(offset).expect("a batch fits in memory")].clone());
        }
        Ok(found)
    }
}
