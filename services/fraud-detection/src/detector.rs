//! The detector: what answers for a payment, and its three places of work.
//!
//! Callers wait at a bounded queue; a full one sheds. One thread takes from it: it has all that is known in memory, makes the score, and remembers the
//! payment, so that no two payments are scored by the same past. What it has scored goes to [`Tending`], which records many in one commit, up to
//! [`RECORD_EVERY`] later: a crash loses so much, and where the disk stands still payments are scored all the same, and counted as not recorded once
//! [`RECORDS_WAITING_MAX`] wait. The same request again is found in the cache, in the store, or by the thread among the last that it has
//! scored, which are more than those that are not recorded yet.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use paymesh_cache::Cache;
use paymesh_contract::fraud::v1::{Assessment, Decision};
use paymesh_topology::Fraud;
use paymesh_types::{RequestId, Timestamp, ZoneName};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Error, answer,
    lately::Lately,
    memory::{Memory, Payment},
    score,
    store::{Record, Store},
};

/// Payments that wait to be scored at most: some ten milliseconds of work.
const WAITING_MAX: usize = 1_024;
/// Scores that wait to be recorded at most.
const RECORDS_WAITING_MAX: usize = 32_768;
/// The last requests that the thread still knows: more than those that wait and those of a commit together.
const RECENT_MAX: usize = 40_000;
/// How long what was scored waits for others to share a commit with.
const RECORD_EVERY: Duration = Duration::from_millis(20);
/// Records of a commit at most.
const RECORDED_AT_ONCE_MAX: usize = 2_048;
/// How long to wait before a commit that failed is tried again.
const RECORD_AGAIN: Duration = Duration::from_millis(500);
/// How long a score is cached (source document, "Redis Sentinel for High Availability").
const CACHED: Duration = Duration::from_secs(24 * 3_600);
/// How long a record is kept at least, so that the same request gets the same answer, and at most.
const KEPT_MIN_SECONDS: u64 = 25 * 3_600;
const KEPT_MAX_SECONDS: u64 = 30 * 24 * 3_600;
/// Records past which only those of the last day are kept: some 6 GB.
const RECORDS_MAX: u64 = 20_000_000;
/// Records that a start learns from at most: the last ones.
const LEARNT_MAX: u64 = 2_000_000;
/// Records that are read at once then.
const LEARNT_AT_ONCE: u32 = 8_192;
/// How often it is looked for what need not be kept.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// And how long until more is let go of, where there is more: others are recorded between.
const FORGET_SOON: Duration = Duration::from_millis(100);
/// How long to wait for a queue to empty.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(5);

const SCORES: &str = "paymesh_fraud_scores_total";
const SHED: &str = "paymesh_fraud_shed_total";
const UNRECORDED: &str = "paymesh_fraud_unrecorded_total";
const SECONDS: &str = "paymesh_fraud_score_seconds";

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(SCORES, "Payments that were scored, by what is to become of them");
    metrics::describe_counter!(SHED, "Payments that were not scored because too many waited");
    metrics::describe_counter!(UNRECORDED, "Scores that were answered and not recorded because the disk did not keep up");
    metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "From a payment's place in the queue to its score");
    for decision in [Decision::Accept, Decision::Review, Decision::Decline] {
        metrics::counter!(SCORES, "decision" => word(decision)).increment(0);
    }
    metrics::counter!(SHED).increment(0);
    metrics::counter!(UNRECORDED).increment(0);
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Review => "review",
        Decision::Decline => "decline",
        Decision::Unspecified => "none",
    }
}

/// The time: microseconds since 1970 UTC.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a detector is made of.
pub struct Parts {
    /// The zone whose users' payments are scored.
    pub zone: ZoneName,
    /// Where what was scored is recorded.
    pub store: Store,
    /// Where scores are found fastest.
    pub cache: Arc<dyn Cache>,
    /// What counts, as it changes. None: there is nothing to score by.
    pub rules: watch::Receiver<Option<Arc<Fraud>>>,
    /// What time it is.
    pub clock: Clock,
}

/// Scores payments. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Detector {
    inner: Arc<Inner>,
}

struct Inner {
    zone: ZoneName,
    store: Store,
    cache: Arc<dyn Cache>,
    clock: Clock,
    jobs: mpsc::Sender<Job>,
}

/// What the thread is asked.
enum Job {
    Score { request: RequestId, body: [u8; 32], payment: Box<Payment>, tell: Tell, since: Instant },
    Explain { payment: Box<Payment>, tell: Tell },
    Flush(oneshot::Sender<()>),
}

type Tell = oneshot::Sender<Result<Assessment, Error>>;

/// What is to be recorded, in the order in which it was scored.
enum ToRecord {
    Score(Box<Record>),
    Flushed(oneshot::Sender<()>),
}

/// The part of a detector that has to be polled for as long as it is used.
pub struct Tending {
    store: Store,
    clock: Clock,
    /// Ends when the thread does.
    records: mpsc::Receiver<ToRecord>,
}

impl Detector {
    /// A detector that has learnt from what the store has recorded, and what has to be polled beside it.
    ///
    /// # Errors
    /// The store cannot be had or is damaged; no thread can be started.
    pub async fn open(parts: Parts) -> Result<(Self, Tending), Error> {
        let Parts { zone, store, cache, rules, clock } = parts;
        let memory = learn(&store).await?;
        let (jobs, queue) = mpsc::channel(WAITING_MAX);
        let (recording, records) = mpsc::channel(RECORDS_WAITING_MAX);
        let scorer = Scorer { zone: zone.clone(), rules, memory, recent: Lately::new(RECENT_MAX), recording, clock: clock.clone() };
        std::thread::Builder::new().name("fraud-scores".to_owned()).spawn(move || scorer.work(queue)).map_err(|_| Error::Died)?;
        let inner = Inner { zone, store: store.clone(), cache, clock: clock.clone(), jobs };
        Ok((Self { inner: Arc::new(inner) }, Tending { store, clock, records }))
    }

    /// The zone whose users' payments it scores.
    pub fn zone(&self) -> &ZoneName {
        &self.inner.zone
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Scores a payment and remembers it; the same request again is the same answer, and `body` is a hash of what was asked.
    ///
    /// # Errors
    /// Those of [`Error`] that say so; nothing was remembered then.
    pub async fn score(&self, request: RequestId, body: [u8; 32], payment: Payment) -> Result<Assessment, Error> {
        if let Some((before, answer)) = self.known(request).await? {
            return replayed(&before, body, answer);
        }
        let (tell, told) = oneshot::channel();
        self.ask(Job::Score { request, body, payment: Box::new(payment), tell, since: Instant::now() })?;
        let assessment = told.await.map_err(|_| Error::Died)??;
        self.cache(request, body, &assessment.encode_to_vec()).await;
        Ok(assessment)
    }

    /// How a payment would be scored now. Nothing is remembered.
    ///
    /// # Errors
    /// Those of [`Error`] that say so.
    pub async fn explain(&self, payment: Payment) -> Result<Assessment, Error> {
        let (tell, told) = oneshot::channel();
        self.ask(Job::Explain { payment: Box::new(payment), tell })?;
        told.await.map_err(|_| Error::Died)?
    }

    /// Waits until what was scored before is recorded, five seconds at most. Whether it is.
    pub async fn flush(&self) -> bool {
        let (tell, told) = oneshot::channel();
        let flushed = async { self.inner.jobs.send(Job::Flush(tell)).await.is_ok() && told.await.is_ok() };
        tokio::time::timeout(FLUSH_WAIT_MAX, flushed).await.unwrap_or(false)
    }

    fn ask(&self, job: Job) -> Result<(), Error> {
        self.inner.jobs.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                metrics::counter!(SHED).increment(1);
                Error::Overloaded
            }
            mpsc::error::TrySendError::Closed(_) => Error::Died,
        })
    }

    /// What was asked and answered before.
    async fn known(&self, request: RequestId) -> Result<Option<([u8; 32], Assessment)>, Error> {
        let cached = self.inner.cache.get(request.as_bytes()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "scores are looked up in the store");
            None
        });
        if let Some((body, answer)) = cached.as_deref().and_then(|bytes| bytes.split_first_chunk())
            && let Ok(assessment) = Assessment::decode(answer)
        {
            return Ok(Some((*body, assessment)));
        }
        let Some((body, answer)) = self.inner.store.answer(request).await? else { return Ok(None) };
        let assessment = Assessment::decode(&*answer).map_err(|error| self.inner.store.no_assessment(&error))?;
        self.cache(request, body, &answer).await;
        Ok(Some((body, assessment)))
    }

    async fn cache(&self, request: RequestId, body: [u8; 32], answer: &[u8]) {
        let value = Bytes::from([&body[..], answer].concat());
        if let Err(error) = self.inner.cache.insert(request.as_bytes(), value, CACHED).await {
            tracing::warn!(%error, "a score is not cached");
        }
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detector({})", self.inner.zone)
    }
}

fn replayed(before: &[u8; 32], body: [u8; 32], answer: Assessment) -> Result<Assessment, Error> {
    if *before == body { Ok(answer) } else { Err(Error::RequestIdReused) }
}

/// Learns from the last records. Away from the threads that calls are served by.
async fn learn(store: &Store) -> Result<Memory, Error> {
    let mut memory = Memory::default();
    let mut number = store.before_last(LEARNT_MAX).await?;
    loop {
        let records = store.seen_after(number, LEARNT_AT_ONCE).await?;
        let Some((last, _)) = records.last() else { return Ok(memory) };
        number = *last;
        let learning = tokio::task::spawn_blocking(move || {
            records.iter().for_each(|(_, seen)| memory.learn(seen));
            memory
        });
        memory = learning.await.map_err(|_| Error::Died)?;
    }
}

/// The thread's own.
struct Scorer {
    zone: ZoneName,
    rules: watch::Receiver<Option<Arc<Fraud>>>,
    memory: Memory,
    /// What was asked and answered last.
    recent: Lately<RequestId, ([u8; 32], Assessment)>,
    recording: mpsc::Sender<ToRecord>,
    clock: Clock,
}

impl Scorer {
    fn work(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            match job {
                // Whoever asked has gone: nothing was answered, and nothing counts.
                Job::Score { tell, .. } | Job::Explain { tell, .. } if tell.is_closed() => {}
                Job::Score { request, body, payment, tell, since } => {
                    let scored = self.score(request, body, &payment);
                    metrics::histogram!(SECONDS).record(since.elapsed());
                    let _ = tell.send(scored);
                }
                Job::Explain { payment, tell } => {
                    let _ = tell.send(self.assess(&payment).map(|(assessment, _)| assessment));
                }
                Job::Flush(tell) => {
                    // Where too much waits to be recorded, whoever asked is told so by losing the other end.
                    let _ = self.recording.try_send(ToRecord::Flushed(tell));
                }
            }
        }
    }

    fn score(&mut self, request: RequestId, body: [u8; 32], payment: &Payment) -> Result<Assessment, Error> {
        if let Some((before, answer)) = self.recent.get(&request) {
            return replayed(before, body, answer.clone());
        }
        let (assessment, reference) = self.assess(payment)?;
        let seen = payment.seen(reference, assessment.decision() != Decision::Decline);
        self.memory.learn(&seen);
        metrics::counter!(SCORES, "decision" => word(assessment.decision())).increment(1);
        let record = Record { request, body, answer: assessment.encode_to_vec(), seen };
        if self.recording.try_send(ToRecord::Score(Box::new(record))).is_err() {
            metrics::counter!(UNRECORDED).increment(1);
        }
        self.recent.entry(request, || (body, assessment.clone()));
        Ok(assessment)
    }

    /// The score by what is known and by the rules of now, and the amount in their reference currency.
    fn assess(&self, payment: &Payment) -> Result<(Assessment, Option<u64>), Error> {
        let rules = self.rules.borrow().clone().ok_or(Error::NoRules)?;
        let policy = rules.policy(&self.zone);
        let scored = score::score(&rules, policy, &self.memory.facts(&rules, payment));
        let assessment = answer::assessment(&scored, policy, rules.version(), (self.clock)());
        Ok((assessment, rules.to_reference(payment.amount)))
    }
}

impl Tending {
    /// Records what is scored, and lets go of what need not be kept, for as long as it is polled. `tell` hears what goes wrong, and that nothing does any more.
    /// Ends when the thread does: its detector is of no use then.
    pub async fn tend(mut self, mut tell: impl FnMut(Option<String>)) {
        let mut forgetting = tokio::time::interval(FORGET_EVERY);
        forgetting.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                many = self.records.recv_many(&mut waiting, RECORDED_AT_ONCE_MAX) => {
                    if many == 0 {
                        return;
                    }
                    self.record(&mut waiting, &mut tell).await;
                    // More wait already, where so many came.
                    if many < RECORDED_AT_ONCE_MAX {
                        tokio::time::sleep(RECORD_EVERY).await;
                    }
                }
                _ = forgetting.tick() => {
                    if self.forget(&mut tell).await {
                        forgetting.reset_after(FORGET_SOON);
                    }
                }
            }
        }
    }

    /// Records these, however often it has to be tried; what comes meanwhile waits, and past a bound is not recorded.
    async fn record(&self, waiting: &mut Vec<ToRecord>, tell: &mut impl FnMut(Option<String>)) {
        let (mut records, mut flushed) = (Vec::new(), Vec::new());
        for one in waiting.drain(..) {
            match one {
                ToRecord::Score(record) => records.push(*record),
                ToRecord::Flushed(told) => flushed.push(told),
            }
        }
        let mut failed = false;
        while !records.is_empty() {
            match self.store.record(&records).await {
                Ok(()) => break,
                Err(error) => {
                    if !failed {
                        tracing::error!(%error, "what was scored cannot be recorded; it is tried again");
                    }
                    failed = true;
                    tell(Some(format!("what was scored cannot be recorded: {error}")));
                    tokio::time::sleep(RECORD_AGAIN).await;
                }
            }
        }
        if failed {
            tell(None);
        }
        for told in flushed {
            let _ = told.send(());
        }
    }

    /// Whether there may be more.
    async fn forget(&self, tell: &mut impl FnMut(Option<String>)) -> bool {
        let before = |seconds: u64| Timestamp((self.clock)().0.saturating_sub(seconds * 1_000_000));
        match self.store.forget(before(KEPT_MAX_SECONDS), before(KEPT_MIN_SECONDS), RECORDS_MAX).await {
            Ok(more) => {
                tell(None);
                more
            }
            Err(error) => {
                tell(Some(format!("old scores cannot be let go of: {error}")));
                false
            }
        }
    }
}
