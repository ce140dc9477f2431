//! What a shard does not keep: the beginning of its journal, once a checkpoint stands for it and nobody needs it.
//!
//! A segment goes when it is past the retention, older than request ids are answered from, held by a durable checkpoint of the
//! tables, and holds nothing for another shard that is not known to have taken effect there: money in transit keeps its entry,
//! however long the other region is away. The walk that looks for these checks every segment on its way, so that what is
//! damaged is not what goes silently.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use paymesh_journal::{Chain, Error as JournalError, Hash, Manifest, Origin, checkpoint};
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};

use crate::{Error, Shard, base::Base, counts, timers};

/// When a journal is looked at first, and how often then.
const FIRST_AFTER: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(60);
/// Payload bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// How much of a journal is kept. What request ids are answered from and what holds money in transit stays in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Entries older than this go. `None`: none goes for its age.
    pub time: Option<Duration>,
    /// Where the payloads of the segments have more bytes than this, the oldest go. `None`: none goes for its size.
    pub bytes: Option<u64>,
}

impl Retention {
    fn keeps_all(&self) -> bool {
        self.time.is_none() && self.bytes.is_none()
    }
}

/// Keeps a led shard's journal within its retention until the shard is gone, and says why.
pub(crate) async fn run(shard: &Shard) -> String {
    let inner = &shard.inner;
    let forget = |up_to: Sequence| inner.forgotten.store(up_to.0, Ordering::Relaxed);
    let now = || (inner.clock)().min(Timestamp(inner.last_at.load(Ordering::Relaxed)));
    let epoch = || Epoch(inner.epoch.load(Ordering::Relaxed));
    keep(&inner.base, inner.options.retention, inner.options.outcome_retention, now, epoch, forget).await
}

/// The same for any journal with tables. `now` is its own time: a clock that leaps ahead while nothing happens forgets nothing.
pub(crate) async fn keep(
    base: &Base,
    retention: Retention,
    outcomes: Duration,
    now: impl Fn() -> Timestamp,
    epoch: impl Fn() -> Epoch,
    forget: impl Fn(Sequence),
) -> String {
    let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_AFTER, EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut relied_on = None;
    loop {
        turns.tick().await;
        let turn = Turn { base, retention, outcomes, now: now() };
        // Gauges are doubles by Prometheus's definition: exact figures are in the status.
        metrics::gauge!(counts::JOURNAL_BYTES, "shard" => base.shard.to_string()).set(base.tail.bytes() as f64);
        if base.suspect.swap(false, Ordering::Relaxed) {
            relied_on = None;
            if let Err(error) = turn.renew().await {
                base.suspect.store(true, Ordering::Relaxed);
                tracing::warn!(shard = %base.shard, %error, "cannot make another checkpoint yet");
            }
        }
        if retention.keeps_all() {
            continue;
        }
        // Storage that fails here fails the leader as well; the next turn tries again.
        if let Err(error) = turn.run(epoch(), &forget, &mut relied_on).await {
            tracing::warn!(shard = %base.shard, %error, "cannot let go of what is past the retention yet");
            metrics::counter!(counts::RETENTION_FAILED, "shard" => base.shard.to_string()).increment(1);
        }
    }
}

struct Turn<'a> {
    base: &'a Base,
    retention: Retention,
    outcomes: Duration,
    now: Timestamp,
}

/// Where a journal is to begin.
struct Target {
    origin: Origin,
    /// What goes.
    segments: u64,
    bytes: u64,
    /// Whether more would go, but for money in transit.
    held_back: bool,
}

impl Turn<'_> {
    /// `relied_on` is the checkpoint that this process made or has read back.
    async fn run(&self, epoch: Epoch, forget: &impl Fn(Sequence), relied_on: &mut Option<Hash>) -> Result<(), Error> {
        let Target { origin, segments, bytes, held_back } = self.target().await?;
        let shard = self.base.shard.to_string();
        metrics::gauge!(counts::HELD_BACK, "shard" => shard.clone()).set(if held_back { 1.0 } else { 0.0 });
        if segments == 0 {
            return Ok(());
        }
        let checkpoints = &self.base.store.checkpoints;
        let latest = checkpoints.latest().await.map_err(|source| self.failed(source))?;
        let made = match latest.filter(|latest| latest.sequence >= origin.sequence) {
            Some(latest) if *relied_on == Some(latest.root()) || self.reads_back(&latest).await? => {
                *relied_on = Some(latest.root());
                None
            }
            _ => Some(self.draft().await?),
        };
        // Whoever compares the tables with the journal has read where it begins.
        let _alone = self.base.checks.write().await;
        if let Some(manifest) = &made {
            checkpoints.finish(manifest).await.map_err(|source| self.failed(source))?;
            *relied_on = Some(manifest.root());
            tracing::info!(%shard, sequence = %manifest.sequence, rows = manifest.digest.rows, chunks = manifest.chunks.len(), "a checkpoint is made");
        }
        // A request id is forgotten before the entry that it is answered from is.
        timers::forget_requests(self.base, self.now, self.outcomes).await?;
        forget(origin.sequence);
        self.base.store.journal.prune(epoch, &origin).await.map_err(|source| self.failed(source))?;
        self.base.tail.dropped(bytes, origin.sequence);
        metrics::counter!(counts::PRUNED_SEGMENTS, "shard" => shard.clone()).increment(segments);
        metrics::gauge!(counts::FIRST_SEQUENCE, "shard" => shard.clone()).set(origin.sequence.next().0 as f64);
        tracing::info!(%shard, first = %origin.sequence.next(), segments, "a journal begins later");
        Ok(())
    }

    /// Makes another checkpoint in the place of one that is damaged, if it is.
    async fn renew(&self) -> Result<(), Error> {
        let checkpoints = &self.base.store.checkpoints;
        let latest = checkpoints.latest().await.map_err(|source| self.failed(source))?;
        let Some(latest) = latest else { return Ok(()) };
        if !self.reads_back(&latest).await? {
            let made = self.draft().await?;
            checkpoints.finish(&made).await.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: JournalError) -> Error {
        Error::of_storage(&self.base.shard, source)
    }

    /// Walks from the journal's beginning as far as it may go.
    async fn target(&self) -> Result<Target, Error> {
        let Base { shard, store, tail, projected, .. } = self.base;
        let delivered = store.tables.books().await.map_err(|source| self.failed(source))?.delivered;
        let delivered: BTreeMap<ShardRef, Sequence> = delivered.into_iter().collect();
        let origin = store.journal.origin().await.map_err(|source| self.failed(source))?;
        // Where the engine could not say whether it pruned, it says so here.
        tail.dropped(0, origin.sequence);
        let (kept, projected) = (tail.bytes(), projected.get());
        let mut chain = Chain::after(shard.clone(), &origin);
        let mut target = Target { origin, segments: 0, bytes: 0, held_back: false };
        loop {
            let segments = store.journal.read(chain.last().next(), READ_BYTES).await.map_err(|source| self.failed(source))?;
            if segments.is_empty() {
                return Ok(target);
            }
            for segment in &segments {
                if !self.is_past(segment.committed_at, kept.saturating_sub(target.bytes)) || segment.last() > projected {
                    return Ok(target);
                }
                let checked = chain.link(segment).and_then(|()| segment.entries(shard));
                let entries = checked.map_err(|corrupt| self.failed(corrupt.into()))?;
                let in_transit = entries.iter().any(|(position, entry)| {
                    let taken_in = |to: &ShardRef| delivered.get(to).copied().unwrap_or_default();
                    entry.message(position).is_some_and(|(to, _)| position.sequence > taken_in(&to))
                });
                if in_transit {
                    target.held_back = true;
                    return Ok(target);
                }
                target.origin.pass(segment, &entries);
                target.segments += 1;
                target.bytes += segment.payload.len() as u64;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether a segment of that time is past the retention, `kept` being the bytes from it on.
    fn is_past(&self, committed_at: Timestamp, kept: u64) -> bool {
        let age = Duration::from_micros(self.now.0.saturating_sub(committed_at.0));
        let past_time = self.retention.time.is_some_and(|time| age > time);
        let past_bytes = self.retention.bytes.is_some_and(|bytes| kept > bytes);
        (past_time || past_bytes) && age > self.outcomes
    }

    /// Whether a checkpoint that is there since before is still what was written.
    async fn reads_back(&self, manifest: &Manifest) -> Result<bool, Error> {
        let mut reader = checkpoint::Reader::new(&self.base.store.checkpoints, manifest);
        loop {
            match reader.next().await {
                Ok(rows) if rows.is_empty() => return Ok(true),
                Ok(_) => {}
                Err(JournalError::Corrupt(corrupt)) => {
                    tracing::error!(shard = %self.base.shard, %corrupt, "a checkpoint is damaged: another is made before the journal begins later");
                    return Ok(false);
                }
                Err(source) => return Err(self.failed(source)),
            }
        }
    }

    /// Makes a checkpoint of the tables as they are now, but for its end.
    async fn draft(&self) -> Result<Manifest, Error> {
        let started = Instant::now();
        let snapshot = self.base.store.tables.snapshot().await.map_err(|source| self.failed(source))?;
        let at = snapshot.cursor();
        let ending = self.base.store.journal.read(at, 0).await.map_err(|source| self.failed(source))?;
        let ending = ending.first().ok_or_else(|| self.failed(JournalError::NotNext { head: at, offered: at.next() }))?;
        let made = checkpoint::draft(&self.base.shard, snapshot, ending, &self.base.store.checkpoints).await;
        metrics::histogram!(counts::CHECKPOINT_SECONDS).record(started.elapsed().as_secs_f64());
        made.map_err(|source| self.failed(source))
    }
}
