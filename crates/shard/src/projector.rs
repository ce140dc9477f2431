//! Brings the tables up to date with the journal.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use paymesh_journal::{Error as JournalError, Projection};
use paymesh_types::Sequence;
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};

use crate::{Error, aside::aside, base::Base, counts, tail::RING_ENTRIES_MAX};

/// Entries of one projection at most. The more there are, the more writes to the same account become one.
const PROJECTION_ENTRIES_MAX: usize = 65_536;
/// Turns to project. Tables are the most work that a node has, and the least urgent: half of the cores at most do it at once, so
/// that commits, and copies of what others commit, find one that is free.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))));
/// Small projections wait this long for more entries, unless a reader waits for them.
const LINGER: Duration = Duration::from_millis(100);
/// At a follower, so many times as long as the last one took, and so long at most: an idle one is current soon, a busy one saves
/// its strength.
const LINGER_TIMES: u32 = 4;
const LINGER_SHORT_MAX: Duration = Duration::from_millis(25);
/// Projections from this many entries on do not wait.
const LINGER_ENTRIES: u64 = 4_096;
/// At a follower that is far behind, for so long at most the tables wait for the journal; then they take in some of it.
const FAR_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tables that are so far behind do not wait for a turn: much further, and their entries are not in memory any more.
const URGENT_ENTRIES: u64 = RING_ENTRIES_MAX / 2;
/// Between tries when storage fails.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How far the tables are. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Projected {
    sequence: Arc<watch::Sender<Sequence>>,
    /// The last entry that a reader has waited for.
    wanted: Arc<watch::Sender<Sequence>>,
    /// Held while the tables change.
    gate: Arc<Mutex<()>>,
}

impl Projected {
    pub(crate) fn new(sequence: Sequence) -> Self {
        Self { sequence: Arc::new(watch::Sender::new(sequence)), wanted: Arc::new(watch::Sender::new(Sequence(0))), gate: Arc::default() }
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
        self.wanted.send_if_modified(|wanted| (*wanted < sequence).then(|| *wanted = sequence).is_some());
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.sequence.subscribe().wait_for(|projected| *projected >= sequence).await;
    }

    /// The same, without hurry: the tables are in no way sooner there.
    pub(crate) async fn passed(&self, sequence: Sequence) {
        let _ = self.sequence.subscribe().wait_for(|projected| *projected >= sequence).await;
    }

    /// Waits until a reader waits for more than the tables hold.
    async fn asked(&self) {
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted > self.get()).await;
    }

    /// Waits until the tables are at most `lag` entries behind `head`.
    pub(crate) async fn wait_within(&self, head: Sequence, lag: u64) {
        if head.0.saturating_sub(self.get().0) > lag {
            self.wait_for(Sequence(head.0 - lag)).await;
        }
    }
}

/// How long small projections wait for more entries.
#[derive(Debug)]
pub(crate) enum Linger {
    /// Where the shard is led: the leader decides from memory, and a read says that it waits.
    Long,
    /// Where it is followed.
    Short {
        /// The copy is far behind, and its journal comes first.
        far: watch::Receiver<bool>,
    },
}

/// Projects until that is no longer possible, and says why.
pub(crate) async fn run(base: &Base, mut linger: Linger) -> String {
    let mut took = Duration::ZERO;
    loop {
        match step(base, &mut linger, took).await {
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

/// Waits until a copy is near its leader's end, a reader waits for the tables, or they have waited long enough.
async fn near(base: &Base, far: &mut watch::Receiver<bool>) {
    tokio::select! {
        // The sender lives as long as the replica, which owns this task.
        _ = far.wait_for(|far| !far) => {}
        () = base.projected.asked() => {}
        () = tokio::time::sleep(FAR_WAIT_MAX) => {}
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

/// Projects once, and says how long that took; so long as `took` it took before.
async fn step(base: &Base, linger: &mut Linger, took: Duration) -> Result<Duration, Error> {
    let from = base.projected.get().next();
    let mut batch = base.tail.next(from).await?.entries;
    let linger = match linger {
        Linger::Long => LINGER,
        Linger::Short { far } => {
            near(base, far).await;
            (took * LINGER_TIMES).min(LINGER_SHORT_MAX)
        }
    };
    if base.tail.head().0 - from.0 < LINGER_ENTRIES {
        tokio::select! {
            () = tokio::time::sleep(linger) => {}
            () = base.projected.asked() => {}
        }
    }
    let _gate = base.projected.gate().await;
    if base.projected.get().next() != from {
        return Ok(Duration::ZERO); // the leader recovered meanwhile and brought the tables up to date itself
    }
    // Last: who has a turn waits for nothing but its own storage.
    let behind = base.tail.head().0.saturating_sub(from.0);
    let _turn = if behind < URGENT_ENTRIES { Some(TURNS.acquire().await) } else { None };
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
    let started = std::time::Instant::now();
    let of_all = move || Projection::of(batches.iter().flat_map(|batch| batch.iter()));
    let projection = aside(&base.shard, entries as u64, of_all).await?;
    let up_to = projection.up_to;
    let failed = |source| Error::Storage { shard: base.shard.clone(), source };
    base.store.tables.project(&projection).await.map_err(failed)?;
    base.projected.set(up_to);
    let took = started.elapsed();
    metrics::histogram!(counts::PROJECT_SECONDS).record(took.as_secs_f64());
    Ok(took)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_a_reader_waits_for_is_wanted_until_the_tables_hold_it() {
        let projected = Projected::new(Sequence(10));
        assert!(projected.asked().now_or_never().is_none());
        assert!(projected.wait_for(Sequence(100)).now_or_never().is_none());
        assert!(projected.wait_for(Sequence(50)).now_or_never().is_none());
        for sequence in [10, 60, 99] {
            projected.set(Sequence(sequence));
            assert!(projected.asked().now_or_never().is_some(), "{sequence}");
        }
        projected.set(Sequence(100));
        assert!(projected.asked().now_or_never().is_none());
        assert!(projected.wait_for(Sequence(100)).now_or_never().is_some());
    }
}
