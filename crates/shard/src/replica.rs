//! A shard that another region leads, as far as its journal has come here.
//!
//! What comes is checked before it is stored: that it continues the chain, that every entry has the hash that the leader gave
//! it, and that there is nothing in it which this region may not hold. What is stored is known to be the leader's.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use paymesh_journal::{Chain, Committed, Corrupt, Hash, Holding, Identity, Journal, Manifest, Origin, Segment, Store};
use paymesh_ledger::Monitored;
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    Error, Retention, Tail,
    aside::aside,
    base::Base,
    freshness::Freshness,
    projector::{self, Linger},
    read::Bounds,
    recovery::{self, Read, Rows},
    retention,
    tail::RING_ENTRIES_MAX,
    timers,
};

/// Between tries to use storage that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is so many entries before the leader's last is not decoded before it is stored: it will have gone from memory before
/// the tables come to it, which wait meanwhile. The journal is what a region needs first.
const FAR_ENTRIES: u64 = RING_ENTRIES_MAX;

/// Where a replica's journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The epoch of the last segment; 0 when it is empty.
    pub epoch: Epoch,
    /// The last entry; 0 when it is empty.
    pub sequence: Sequence,
    /// The hash of the last segment; the chain's beginning when it is empty.
    pub hash: Hash,
}

/// Why segments were not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// What was sent is not what the shard's leader wrote, or more than may be held here.
    #[error("what was sent is refused: {0}")]
    BadSegment(Corrupt),
    /// The storage failed for good.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// What becomes of a replica's past.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaOptions {
    /// How long request ids are kept in the tables, by the time of the entries.
    pub outcome_retention: Duration,
    /// How much of the journal is kept, where there are tables. A journal without tables is kept as far back as its leader's.
    pub retention: Retention,
}

/// A shard that this process follows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    holding: Holding,
    journal: Arc<dyn Journal>,
    tail: Tail,
    /// Where tables are kept.
    base: Option<Base>,
    /// Held while segments are added.
    chain: Mutex<Chain>,
    /// When the last entry was committed.
    last_at: AtomicU64,
    options: ReplicaOptions,
    /// What its tables were made of, until its journal has come so far.
    checkpoint: Option<Manifest>,
    freshness: Freshness,
    /// The end of the copy before it, until it is shown to have the same history.
    witness: std::sync::Mutex<Option<(Sequence, Hash)>>,
    /// Whether it is far behind its leader, and has more on the way.
    far: watch::Sender<bool>,
    problem: watch::Sender<Option<String>>,
    owner: Mutex<Option<JoinHandle<()>>>,
}

impl Replica {
    /// Opens a replica: checks its journal, and brings its tables, where there are any, up to date. `store` has them, and the same
    /// journal.
    ///
    /// # Errors
    /// The storage failed or is corrupt.
    pub async fn open(
        identity: &Identity,
        journal: Arc<dyn Journal>,
        store: Option<Store>,
        options: ReplicaOptions,
    ) -> Result<Self, Error> {
        let Identity { shard, holding, .. } = identity.clone();
        let name = shard.clone();
        let failed = |source| Error::Storage { shard: name.clone(), source };
        let witness = journal.witness().await.map_err(failed)?;
        let rows = store.as_ref().map(|store| Rows { tables: store.tables.clone(), checkpoints: store.checkpoints.clone() });
        let Read { chain, last_at, bytes, kept_after, projected, checkpoint } =
            recovery::catch_up(&shard, &holding, &journal, rows.as_ref()).await?;
        let base = store.map(|store| Base::new(shard.clone(), store, chain.last(), bytes, projected));
        let witness = match witness {
            // Added, and not noted: it stopped in between.
            Some((last, hash)) if last <= chain.last() => {
                if !has(&journal, last, hash).await.map_err(failed)? {
                    let what = "it is not the history of the copy that was set aside, from which money was taken";
                    return Err(failed(Corrupt::new(&shard, last, what).into()));
                }
                journal.vouch().await.map_err(failed)?;
                None
            }
            witness => witness,
        };
        let tail = match &base {
            Some(base) => base.tail.clone(),
            None => Tail::new(shard, holding.clone(), journal.clone(), chain.last(), bytes),
        };
        tail.dropped(0, kept_after);
        let epoch = chain.epoch();
        let inner = Inner {
            holding,
            journal,
            tail,
            base: base.clone(),
            chain: Mutex::new(chain),
            last_at: AtomicU64::new(last_at.0),
            freshness: Freshness::new(epoch),
            options,
            checkpoint,
            witness: std::sync::Mutex::new(witness),
            far: watch::Sender::new(false),
            problem: watch::Sender::new(None),
            owner: Mutex::new(None),
        };
        let this = Self { inner: Arc::new(inner) };
        if let Some(base) = base {
            let owned = this.clone();
            let work = async move {
                tokio::select! {
                    why = projector::run(&base, Linger::Short { far: owned.inner.far.subscribe() }) => owned.refuse(format!("the projector: {why}")),
                    why = timers::run_replica(&base, options.outcome_retention, || owned.last_at()) => {
                        owned.refuse(format!("the timers: {why}"));
                    }
                    why = owned.keep(&base) => owned.refuse(format!("the retention: {why}")),
                    _ = owned.stopped() => {}
                }
            };
            let watched = this.clone();
            let owner = tokio::spawn(async move {
                if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                    watched.refuse("a task that keeps its tables died: the log says where".to_owned());
                }
            });
            *this.inner.owner.lock().await = Some(owner);
        }
        Ok(this)
    }

    /// Whether the other is the same one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The shard.
    pub fn reference(&self) -> &ShardRef {
        self.inner.tail.shard()
    }

    /// What of its entries is held.
    pub fn holding(&self) -> &Holding {
        &self.inner.holding
    }

    /// Its entries.
    pub fn tail(&self) -> &Tail {
        &self.inner.tail
    }

    /// Where its journal ends.
    pub async fn end(&self) -> End {
        let chain = self.inner.chain.lock().await;
        End { epoch: chain.epoch(), sequence: chain.last(), hash: chain.hash() }
    }

    /// Adds segments that the leader committed, durably, and makes them known. Storage that fails for a time is tried until it
    /// does not.
    ///
    /// # Errors
    /// [`AddError::BadSegment`]: one does not continue the chain, is damaged, or holds what this region may not; nothing of them is
    /// then stored. Anything else is final for this replica.
    pub async fn add(&self, segments: Vec<Segment>) -> Result<End, AddError> {
        self.catch_up(segments, Sequence(0)).await
    }

    /// The same, where the leader's journal is known to end at `head`: what is far from there is not decoded yet. An entry that
    /// this version cannot read is found when the tables come to it.
    ///
    /// # Errors
    /// As of [`Self::add`].
    pub async fn catch_up(&self, segments: Vec<Segment>, head: Sequence) -> Result<End, AddError> {
        let shard = self.reference().clone();
        let last = segments.last().map_or(Sequence(0), Segment::last);
        self.note_far(head.0.saturating_sub(last.0) >= FAR_ENTRIES);
        let mut held = self.inner.chain.lock().await;
        let (chain, of) = (held.clone(), self.inner.clone());
        let count = segments.iter().map(|segment| u64::from(segment.count)).sum();
        let checked = aside(&shard, count, move || checked(chain, &of, segments, head)).await?;
        let (chain, added) = checked.map_err(AddError::BadSegment)?;
        let segments: Vec<Arc<Segment>> = added.iter().map(|(segment, _)| segment.clone()).collect();
        while let Err(error) = self.inner.journal.extend(&segments).await {
            // The engine may not know whether it did, and does not do it twice; the journal's head tells.
            if self.inner.journal.head().await.is_ok_and(|head| head.hash == Some(chain.hash())) {
                break;
            }
            if !error.is_retryable() {
                return Err(Error::Storage { shard, source: error }.into());
            }
            tracing::warn!(%shard, %error, "cannot store what the leader sent yet");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        *held = chain;
        self.vouch(held.last()).await;
        if let Some(last) = segments.last() {
            self.inner.last_at.store(last.committed_at.0, Ordering::Relaxed);
        }
        for (segment, entries) in added {
            self.inner.tail.publish(segment, entries);
        }
        self.inner.freshness.note_epoch(held.epoch());
        Ok(End { epoch: held.epoch(), sequence: held.last(), hash: held.hash() })
    }

    /// Nothing more comes for now, however far behind it is.
    pub fn paused(&self) {
        self.note_far(false);
    }

    fn note_far(&self, far: bool) {
        self.inner.far.send_if_modified(|current| std::mem::replace(current, far) != far);
    }

    /// Takes note of what its leader said: its term, its last entry and, where that answers a question, when the question was put.
    pub fn heard(&self, epoch: Epoch, head: Sequence, asked_at: Option<Instant>) {
        self.inner.freshness.note(epoch, head, asked_at, self.readable());
    }

    /// Waits until a reader wants the leader to be asked how far it is.
    pub async fn wants_to_know(&self) {
        self.inner.freshness.wanted().await;
    }

    /// When it is known to have held everything that its leader had; `None` when that was never so since it was opened.
    pub fn current_at(&self) -> Option<Instant> {
        self.inner.freshness.current_at(self.readable())
    }

    pub(crate) fn freshness(&self) -> &Freshness {
        &self.inner.freshness
    }

    /// The last entry that its readers see.
    fn readable(&self) -> Sequence {
        self.projected().unwrap_or_else(|| self.inner.tail.head())
    }

    /// Notes that the copy has come past the end of the one that was set aside, where it has and that could not be noted yet.
    pub async fn vouch_if_past(&self) {
        // Most copies have no witness, and whoever asks does so with every message: they are not to wait for what is being added.
        if self.witness().is_some() {
            let last = self.end().await.sequence;
            self.vouch(last).await;
        }
    }

    async fn vouch(&self, last: Sequence) {
        if self.witness().is_some_and(|(witness, _)| witness <= last) {
            if let Err(error) = self.inner.journal.vouch().await {
                // With the next message again.
                tracing::warn!(shard = %self.reference(), %error, "cannot note that a copy has the history of the one that was set aside yet");
                return;
            }
            *self.inner.witness.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!(shard = %self.reference(), "a copy has the history of the one that was set aside");
        }
    }

    /// The end of the copy that was set aside before this one, until this one has come so far and has the same history: before that
    /// nobody is to take money from it.
    pub fn witness(&self) -> Option<(Sequence, Hash)> {
        self.inner.witness()
    }

    /// Why it is of no use any more; `None` while it is.
    pub fn problem(&self) -> Option<String> {
        self.inner.problem.borrow().clone()
    }

    /// Says why it is of no use any more.
    pub fn refuse(&self, why: String) {
        self.inner.problem.send_if_modified(|problem| problem.is_none().then(|| *problem = Some(why)).is_some());
    }

    /// Waits until it is of no use any more, and says why.
    pub async fn stopped(&self) -> String {
        let mut problem = self.inner.problem.subscribe();
        match problem.wait_for(Option::is_some).await {
            Ok(problem) => problem.clone().unwrap_or_default(),
            Err(_) => "it is gone".to_owned(),
        }
    }

    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.inner.journal
    }

    /// What there is where tables are kept.
    pub(crate) fn base(&self) -> Option<&Base> {
        self.inner.base.as_ref()
    }

    pub(crate) fn outcome_retention(&self) -> Duration {
        self.inner.options.outcome_retention
    }

    /// Keeps the journal within its retention, as its leader does.
    async fn keep(&self, base: &Base) -> String {
        let ReplicaOptions { outcome_retention, retention } = self.inner.options;
        // Nobody leads here: the epoch of its last entry is as high as any.
        let epoch = || Epoch(u64::MAX >> 1);
        retention::keep(base, retention, outcome_retention, || self.last_at(), epoch, |_| {}).await
    }

    /// Lets go of what its leader does not keep, where there are no tables: all that concerned this zone has taken effect.
    ///
    /// # Errors
    /// The storage failed; or what the leader says is not so of this copy, and nothing is changed.
    pub async fn forget(&self, origin: &Origin) -> Result<(), Error> {
        // Not while segments are added: the end of one is looked for.
        let chain = self.inner.chain.lock().await;
        if self.inner.base.is_some() || origin.sequence > chain.last() || origin.sequence <= self.inner.tail.kept_after() {
            return Ok(());
        }
        let pruned = self.inner.journal.prune(chain.epoch(), origin).await;
        pruned.map_err(|source| Error::of_storage(self.reference(), source))?;
        self.inner.tail.dropped(0, origin.sequence);
        Ok(())
    }

    /// When the last entry was committed.
    pub(crate) fn last_at(&self) -> Timestamp {
        Timestamp(self.inner.last_at.load(Ordering::Relaxed))
    }

    /// The last entry that the tables hold; `None` where there are no tables.
    pub fn projected(&self) -> Option<Sequence> {
        self.inner.base.as_ref().map(|base| base.projected.get())
    }

    /// What the shard's payments by card come to by day, as of `staleness_max` ago or later, which is waited for; `None` where there are no tables.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn monitored(&self, staleness_max: Duration) -> Result<Option<Monitored>, Error> {
        let Some(base) = &self.inner.base else { return Ok(None) };
        self.reached(base, &Bounds { staleness_max: Some(staleness_max), ..Bounds::default() }, Instant::now()).await;
        let books = base.store.tables.books().await.map_err(|source| Error::of_storage(self.reference(), source))?;
        Ok(Some(books.monitored))
    }

    /// Ends its tasks and lets go of its tables.
    pub async fn close(&self) {
        self.refuse("it was closed".to_owned());
        let owner = self.inner.owner.lock().await.take();
        if let Some(owner) = owner {
            let _ = owner.await;
        }
        if let Some(base) = &self.inner.base {
            base.store.tables.close().await;
            base.store.checkpoints.close().await;
        }
    }
}

impl Inner {
    fn witness(&self) -> Option<(Sequence, Hash)> {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The history of the copy that was set aside before it goes through the end of a segment, with that hash.
    fn passes(&self, segment: &Segment) -> Result<(), Corrupt> {
        let Some((last, hash)) = self.witness() else { return Ok(()) };
        let within = (segment.first..=segment.last()).contains(&last);
        if !within || (segment.last() == last && segment.hash == hash) {
            return Ok(());
        }
        let what = "the leader has another history than the copy that was set aside, from which money was taken".to_owned();
        Err(Corrupt::new(self.tail.shard(), last, what))
    }
}

/// Whether a journal goes through the end of a segment with that hash.
async fn has(journal: &Arc<dyn Journal>, last: Sequence, hash: Hash) -> Result<bool, paymesh_journal::Error> {
    let origin = journal.origin().await?;
    if last <= origin.sequence {
        return Ok((last, hash) == (origin.sequence, origin.hash));
    }
    Ok(journal.read(last, 0).await?.first().is_some_and(|segment| (segment.last(), segment.hash) == (last, hash)))
}

/// Segments, each with what is held of its entries where that is decoded.
type Checked = Vec<(Arc<Segment>, Option<Arc<Vec<Committed>>>)>;

/// Checks that segments continue the chain, are whole and hold no more than they may; gives back the chain after them. `head` is
/// where the leader's journal ends.
fn checked(mut chain: Chain, of: &Inner, segments: Vec<Segment>, head: Sequence) -> Result<(Chain, Checked), Corrupt> {
    let shard = of.tail.shard();
    let mut checked = Vec::with_capacity(segments.len());
    for segment in segments {
        chain.link(&segment)?;
        recovery::agrees(shard, of.checkpoint.as_ref(), &segment)?;
        of.passes(&segment)?;
        let far = head.0.saturating_sub(segment.last().0) >= FAR_ENTRIES;
        let entries = if far && of.holding == Holding::Whole {
            segment.check(shard)?;
            None
        } else {
            Some(Arc::new(of.holding.entries(&segment, shard)?))
        };
        checked.push((Arc::new(segment), entries));
    }
    Ok((chain, checked))
}
