//! Brings the tables up to date with the journal.

use std::{sync::Arc, time::Duration};

use paymesh_journal::{Committed, Error as JournalError, Projection};
use paymesh_types::Sequence;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};

use crate::{Error, base::Base, counts};

/// Entries of one projection at most. The more there are, the more writes to the same account become one.
const PROJECTION_ENTRIES_MAX: usize = 65_536;
/// Small projections wait this long for more entries, unless a reader waits for them.
const LINGER: Duration = Duration::from_millis(100);
/// At a follower, so many times as long as the last one took, and so long at most: an idle one is current soon, a busy one saves
/// its strength.
const LINGER_TIMES: u32 = 4;
const LINGER_SHORT_MAX: Duration = Duration::from_millis(25);
/// Projections from this many entries on do not wait.
const LINGER_ENTRIES: u64 = 4_096;
/// Between tries when storage fails.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How far the tables are. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Projected {
    sequence: Arc<watch::Sender<Sequence>>,
    /// A reader waits: do not linger.
    wanted: Arc<Notify>,
    /// Held while the tables change.
    gate: Arc<Mutex<()>>,
}

impl Projected {
    pub(crate) fn new(sequence: Sequence) -> Self {
        Self { sequence: Arc::new(watch::Sender::new(sequence)), wanted: Arc::default(), gate: Arc::default() }
    }

    /// The last entry that the tables hold.
    pub(crate) fn get(&self) -> Sequence {
        *self.sequence.borrow()
    }

    pub(crate) fn set(&self, sequence: Sequence) {
        self.sequence.send_replace(sequence);
    }

    /// Keeps the tables as they are until the guard is dropped.
    pub(crate) async fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().await
    }

    /// Waits until the tables hold the entry.
    pub(crate) async fn wait_for(&self, sequence: Sequence) {
        if self.get() >= sequence {
            return;
        }
        self.wanted.notify_one();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.sequence.subscribe().wait_for(|projected| *projected >= sequence).await;
    }

    /// Waits until the tables are at most `lag` entries behind `head`.
    pub(crate) async fn wait_within(&self, head: Sequence, lag: u64) {
        if head.0.saturating_sub(self.get().0) > lag {
            self.wait_for(Sequence(head.0 - lag)).await;
        }
    }
}

/// How long small projections wait for more entries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Linger {
    /// Where the shard is led: the leader decides from memory, and a read says that it waits.
    Long,
    /// Where it is followed.
    Short,
}

/// Projects until that is no longer possible, and says why.
pub(crate) async fn run(base: &Base, linger: Linger) -> String {
    let mut took = Duration::ZERO;
    loop {
        let wait = match linger {
            Linger::Long => LINGER,
            Linger::Short => (took * LINGER_TIMES).min(LINGER_SHORT_MAX),
        };
        match step(base, wait).await {
            Ok(lasted) => took = lasted,
            Err(Error::Storage { source, .. }) if source.is_retryable() => {
                tracing::warn!(shard = %base.shard, %source, "cannot project yet");
                tokio::time::sleep(RETRY_PAUSE).await;
                while let Err(source) = catch_up(base).await
                    && source.is_retryable()
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
            Err(Error::Storage { source: JournalError::NotNext { head, offered }, .. }) => {
                return format!("fenced: another leader has brought the tables up to entry {head}, this one was to go on at {offered}");
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Where the engine could not say whether it projected, the cursor can.
async fn catch_up(base: &Base) -> Result<(), JournalError> {
    let _gate = base.projected.gate().await;
    let cursor = base.store.tables.cursor().await?;
    if cursor > base.projected.get() {
        base.projected.set(cursor);
    }
    Ok(())
}

/// Projects once, after at most `linger`; says how long the projecting took.
async fn step(base: &Base, linger: Duration) -> Result<Duration, Error> {
    let from = base.projected.get().next();
    let mut batch = base.tail.next(from).await?.entries;
    if base.tail.head().0 - from.0 < LINGER_ENTRIES {
        tokio::select! {
            () = tokio::time::sleep(linger) => {}
            () = base.projected.wanted.notified() => {}
        }
    }
    let _gate = base.projected.gate().await;
    if base.projected.get().next() != from {
        return Ok(Duration::ZERO); // the leader recovered meanwhile and brought the tables up to date itself
    }
    let mut batches = Vec::new();
    let mut entries = 0;
    loop {
        entries += batch.len();
        let last = batch.last().map_or(from, |(position, _)| position.sequence);
        batches.push(batch);
        if entries >= PROJECTION_ENTRIES_MAX || last >= base.tail.head() {
            break;
        }
        batch = base.tail.next(last.next()).await?.entries;
    }
    let committed: Vec<&Committed> = batches.iter().flat_map(|batch| batch.iter()).collect();
    let started = std::time::Instant::now();
    let projection = Projection::of(committed);
    let up_to = projection.up_to;
    let failed = |source| Error::Storage { shard: base.shard.clone(), source };
    base.store.tables.project(&projection).await.map_err(failed)?;
    base.projected.set(up_to);
    let took = started.elapsed();
    metrics::histogram!(counts::PROJECT_SECONDS).record(took.as_secs_f64());
    Ok(took)
}
