//! The handle to a shard: what the services of a region hold.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use paymesh_journal::{Identity, SEGMENT_ENTRIES_MAX, Store};
use paymesh_ledger::{Entry, Monitored, Rejection, Request};
use paymesh_types::{Epoch, Position, Sequence, ShardRef, Timestamp};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Error, Retention, Tail,
    base::Base,
    leader::{Answers, Leader, Work},
    projector, recovery, retention, timers,
    transit::{self, Unacknowledged},
};

/// Says what time it is. The node's is the system's clock; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long works of other shards wait for a place in the queue is bounded by their number, not by time.
const INTERNAL_WORKS_MAX: usize = 16;

/// How long the end of a shard's tasks may take.
const STOPPING_MAX: Duration = Duration::from_secs(1);

/// The bounds of a shard.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that wait at most; more are refused as overload.
    pub queue_commands_max: usize,
    /// Commands after which a group commit takes no more callers' works; what one caller hands in at once is cut into works
    /// of as many. At most half of what a segment holds.
    pub batch_commands_max: usize,
    /// Records of each kind in memory at most, apart from those that the tables do not have yet.
    pub records_max: usize,
    /// Entries that the tables may be behind at most; the leader waits for them past it.
    pub projection_lag_entries_max: u64,
    /// How long request ids are kept. At least 24 hours by the contract.
    pub outcome_retention: Duration,
    /// How much of the journal is kept.
    pub retention: Retention,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_commands_max: 65_536,
            batch_commands_max: 8_192,
            records_max: 500_000,
            projection_lag_entries_max: 262_144,
            outcome_retention: Duration::from_secs(7 * 24 * 3600),
            retention: Retention::default(),
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where it became durable.
    pub position: Position,
    /// The fact.
    pub entry: Arc<Entry>,
    /// Whether it was recorded before, by the same request.
    pub replayed: bool,
}

/// The state of a shard at a glance.
#[derive(Debug, Clone)]
pub struct Status {
    /// `None` while it serves; otherwise why it does not.
    pub problem: Option<String>,
    /// Why it takes no writes for now, if it does not: its storage fails, and is tried until it works again.
    pub degraded: Option<String>,
    /// The term of leadership.
    pub epoch: Epoch,
    /// The last committed entry.
    pub head: Sequence,
    /// The last entry that the tables hold.
    pub projected: Sequence,
    /// Commands that wait.
    pub queued: u64,
}

/// A shard that this process leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shard {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) base: Base,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    /// One permit for each command that may wait.
    permits: Arc<Semaphore>,
    callers: mpsc::Sender<Work>,
    internal: mpsc::Sender<Work>,
    pub(crate) epoch: AtomicU64,
    /// When the last entry was committed.
    pub(crate) last_at: AtomicU64,
    /// Request ids recorded by entries up to this one are forgotten.
    pub(crate) forgotten: AtomicU64,
    problem: watch::Sender<Option<String>>,
    degraded: watch::Sender<Option<String>>,
    pub(crate) unacknowledged: std::sync::Mutex<Unacknowledged>,
    /// What is wrong with what other shards say, by shard.
    inbox_problems: watch::Sender<BTreeMap<ShardRef, String>>,
    /// The watchdog of the shard's tasks.
    owner: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("shard", &self.base.shard).finish_non_exhaustive()
    }
}

impl Inner {
    /// Says why writes are refused, or, with `None`, that they are taken again.
    pub(crate) fn set_degraded(&self, why: Option<String>) {
        self.degraded.send_if_modified(|now| std::mem::replace(now, why.clone()) != why);
    }
}

impl Shard {
    /// Opens a shard: checks its journal's chain, brings its tables up to date, takes the next epoch, and leads.
    ///
    /// # Errors
    /// The storage failed or is corrupt.
    pub async fn open(identity: &Identity, store: Store, mut options: Options, clock: Clock) -> Result<Self, Error> {
        // One work less than full, and one more work, are a segment still.
        options.batch_commands_max = options.batch_commands_max.clamp(1, SEGMENT_ENTRIES_MAX / 2);
        let shard = identity.shard.clone();
        let recovered = recovery::recover(&shard, &store).await?;
        // Every work holds a permit for each of its commands, so there is always room for what has one.
        let (callers, caller_works) = mpsc::channel(options.queue_commands_max);
        let (internal, internal_works) = mpsc::channel(INTERNAL_WORKS_MAX);
        let inner = Arc::new(Inner {
            base: Base::new(shard, store, recovered.head, recovered.bytes, recovered.head),
            forgotten: AtomicU64::new(0),
            clock,
            permits: Arc::new(Semaphore::new(options.queue_commands_max)),
            callers,
            internal,
            epoch: AtomicU64::new(recovered.epoch.0),
            last_at: AtomicU64::new(recovered.last_at.0),
            problem: watch::Sender::new(None),
            degraded: watch::Sender::new(None),
            unacknowledged: std::sync::Mutex::default(),
            inbox_problems: watch::Sender::default(),
            owner: Mutex::new(None),
            options,
        });
        let this = Self { inner };
        this.inner.base.tail.dropped(0, recovered.kept_after);
        let leader = Leader::new(this.inner.clone(), recovered);
        let owner = tokio::spawn(this.clone().supervise(leader, caller_works, internal_works));
        *this.inner.owner.lock().await = Some(owner);
        Ok(this)
    }

    /// Owns the shard's tasks: none of them ends but with the shard, so the end of one is a problem of the shard.
    async fn supervise(self, leader: Leader, callers: mpsc::Receiver<Work>, internal: mpsc::Receiver<Work>) {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { format!("the leader: {}", leader.run(callers, internal).await) });
        let inner = self.inner.clone();
        tasks.spawn(async move { format!("the projector: {}", projector::run(&inner.base, projector::Linger::Long).await) });
        let shard = self.clone();
        tasks.spawn(async move { format!("the timers: {}", timers::run(&shard).await) });
        let shard = self.clone();
        tasks.spawn(async move { format!("the reader of what is in transit: {}", transit::run(&shard).await) });
        let shard = self.clone();
        tasks.spawn(async move { format!("the retention: {}", retention::run(&shard).await) });
        drop(self.inner.owner.lock().await);
        tokio::select! {
            ended = tasks.join_next() => {
                let why = match ended {
                    Some(Ok(why)) => why,
                    Some(Err(error)) => format!("a task died: {error}"),
                    None => "it has no tasks".to_owned(),
                };
                tracing::error!(shard = %self.inner.base.shard, %why, "shard stopped serving");
                self.refuse(why);
            }
            why = self.stopped() => tracing::info!(shard = %self.inner.base.shard, %why, "shard closes"),
        }
        // What waits in the queue is answered by the closed channels.
        tasks.shutdown().await;
    }

    /// A piece of its checkpoint is not what was written: another is made if so, within a minute.
    pub fn suspect_checkpoint(&self) {
        self.inner.base.suspect.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, why: String) {
        self.inner.problem.send_if_modified(|problem| problem.is_none().then(|| *problem = Some(why)).is_some());
    }

    /// Ends the shard's tasks. What was answered is durable already; what waits is not answered.
    pub async fn close(&self) {
        self.refuse("it was closed".to_owned());
        let owner = self.inner.owner.lock().await.take();
        if let Some(owner) = owner {
            let _ = owner.await;
        }
    }

    /// For each shard that this one has sent anything to, how long the oldest of it waits to be acknowledged; `None` when nothing
    /// does. To about a second.
    pub fn unacknowledged(&self) -> BTreeMap<ShardRef, Option<Duration>> {
        let since = self.inner.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner).since();
        let now = (self.inner.clock)();
        let age = |since: Timestamp| Duration::from_micros(now.0.saturating_sub(since.0));
        since.into_iter().map(|(to, since)| (to, since.map(age))).collect()
    }

    /// By shard, why nothing more is taken in from it, or what of what it says is not believed. As it changes.
    pub fn inbox_problems(&self) -> watch::Receiver<BTreeMap<ShardRef, String>> {
        self.inner.inbox_problems.subscribe()
    }

    /// Says what is wrong with what another shard says, or, with `None`, that nothing is known to be.
    pub(crate) fn note_inbox(&self, source: &ShardRef, problem: Option<String>) {
        self.inner.inbox_problems.send_if_modified(|problems| match problem {
            Some(problem) => problems.insert(source.clone(), problem.clone()).is_none_or(|before| before != problem),
            None => problems.remove(source).is_some(),
        });
    }

    /// The shard.
    pub fn reference(&self) -> &ShardRef {
        &self.inner.base.shard
    }

    /// Its committed entries.
    pub fn tail(&self) -> &Tail {
        &self.inner.base.tail
    }

    /// The time by its clock.
    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Its storage.
    pub fn store(&self) -> &Store {
        &self.inner.base.store
    }

    /// What its payments by card come to by day, as far as its tables are.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn monitored(&self) -> Result<Monitored, Error> {
        let books = self.store().tables.books().await.map_err(|source| Error::of_storage(self.reference(), source))?;
        Ok(books.monitored)
    }

    /// Its state at a glance.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        Status {
            problem: inner.problem.borrow().clone(),
            degraded: inner.degraded.borrow().clone(),
            epoch: Epoch(inner.epoch.load(Ordering::Relaxed)),
            head: inner.base.tail.head(),
            projected: inner.base.projected.get(),
            queued: (inner.options.queue_commands_max - inner.permits.available_permits().min(inner.options.queue_commands_max)) as u64,
        }
    }

    /// Waits until the shard stops serving, and says why.
    pub async fn stopped(&self) -> String {
        let mut problem = self.inner.problem.subscribe();
        match problem.wait_for(Option::is_some).await {
            Ok(problem) => problem.clone().unwrap_or_default(),
            Err(_) => "it is gone".to_owned(),
        }
    }

    /// Why it takes no writes for now, as it changes: [`Status::degraded`].
    pub fn degraded(&self) -> watch::Receiver<Option<String>> {
        self.inner.degraded.subscribe()
    }

    /// Has one command decided and committed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn submit(&self, request: Request) -> Result<Answer, Error> {
        let mut answers = self.submit_all(vec![request]).await?;
        Ok(answers.pop().expect("one answer for each request")?)
    }

    /// Has commands decided in their order and committed, each on its own: the answers are in the commands' order.
    ///
    /// # Errors
    /// None of the commands was looked at, or it is not known what became of them: trying again is safe with the same ids.
    pub async fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<Result<Answer, Rejection>>, Error> {
        let inner = &self.inner;
        if let Some(why) = inner.problem.borrow().clone() {
            return Err(Error::NotServing { shard: inner.base.shard.clone(), why });
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let overloaded = || Error::Overloaded { shard: inner.base.shard.clone() };
        let count = u32::try_from(requests.len()).map_err(|_| overloaded())?;
        let mut permits = inner.permits.clone().try_acquire_many_owned(count).map_err(|_| overloaded())?;
        if requests.len() <= inner.options.batch_commands_max {
            let (reply, answer) = oneshot::channel();
            return match inner.callers.try_send(Work { requests, reply, permit: Some(permits) }) {
                Ok(()) => self.answered(answer).await,
                Err(_) => Err(self.gone().await),
            };
        }
        let mut waiting = Vec::new();
        for some in requests.chunks(inner.options.batch_commands_max) {
            let (reply, answer) = oneshot::channel();
            let permit = permits.split(some.len());
            if inner.callers.try_send(Work { requests: some.to_vec(), reply, permit }).is_err() {
                return Err(self.gone().await);
            }
            waiting.push(answer);
        }
        let mut answers = Vec::with_capacity(requests.len());
        for answer in waiting {
            answers.extend(self.answered(answer).await?);
        }
        Ok(answers)
    }

    /// Waits until whatever callers handed in before is decided and committed, or refused.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn queue_passed(&self) -> Result<(), Error> {
        let inner = &self.inner;
        if let Some(why) = inner.problem.borrow().clone() {
            return Err(Error::NotServing { shard: inner.base.shard.clone(), why });
        }
        // It takes the place of a command, so that the queue's bound covers those who ask too.
        let permit = inner.permits.clone().try_acquire_owned().map_err(|_| Error::Overloaded { shard: inner.base.shard.clone() })?;
        let (reply, answer) = oneshot::channel();
        match inner.callers.try_send(Work { requests: Vec::new(), reply, permit: Some(permit) }) {
            Ok(()) => self.answered(answer).await.map(drop),
            Err(_) => Err(self.gone().await),
        }
    }

    /// As [`Self::submit_all`], for the shard's own doings: waits for a place instead of being refused. At most half of what
    /// a segment holds at once.
    pub(crate) async fn submit_internal(&self, requests: Vec<Request>) -> Result<Vec<Result<Answer, Rejection>>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        match self.inner.internal.send(Work { requests, reply, permit: None }).await {
            Ok(()) => self.answered(answer).await,
            Err(_) => Err(self.gone().await),
        }
    }

    /// Waits until whatever of the shard's own doings was handed in before is decided and committed, or refused.
    pub(crate) async fn settled(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        match self.inner.internal.send(Work { requests: Vec::new(), reply, permit: None }).await {
            Ok(()) => self.answered(answer).await.map(drop),
            Err(_) => Err(self.gone().await),
        }
    }

    async fn answered(&self, answer: oneshot::Receiver<Answers>) -> Answers {
        match answer.await {
            Ok(answers) => answers,
            Err(_) => Err(self.gone().await),
        }
    }

    /// Why nobody answers any more. The tasks end a moment before it is known why.
    async fn gone(&self) -> Error {
        let why = tokio::time::timeout(STOPPING_MAX, self.stopped()).await.unwrap_or_else(|_| "it is stopping".to_owned());
        Error::NotServing { shard: self.inner.base.shard.clone(), why }
    }
}
