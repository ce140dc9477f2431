//! The one writer of a shard: takes what has queued up, decides it, commits it, answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use paymesh_journal::{Committed, Hash, SegmentBuilder};
use paymesh_ledger::{Command, Context, Decision, Missing, Rejection, Request, State, decide, differing_field};
use paymesh_types::{Epoch, Position, Sequence, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::{
    Answer, Error, counts,
    recovery::{self, Recovered},
    shard::Inner,
};

/// A payment names its accounts only once it is loaded: twice around finds everything.
const LOAD_ROUNDS_MAX: usize = 3;
/// How long a commit waits for callers that are expected, because the last one carried as many: a commit costs about the
/// same whether it carries two of them or twenty.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Between tries to use storage that failed.
const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

pub(crate) type Answers = Result<Vec<Result<Answer, Rejection>>, Error>;

/// Commands of one caller, and where the answers go. Without any, it is answered once all before it are.
pub(crate) struct Work {
    pub(crate) requests: Vec<Request>,
    pub(crate) reply: oneshot::Sender<Answers>,
    /// Held until the answer is out, so that the queue's bound covers what is being decided. None: the shard's own work,
    /// which stops at the first refusal that is not a repetition: what another shard sent must not be passed over.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// What deciding a command came to, before the commit.
enum Decided {
    /// The entry of this place in the batch.
    New(usize),
    Recorded(Sequence),
    Rejected(Rejection),
}

pub(crate) struct Leader {
    inner: Arc<Inner>,
    state: State,
    epoch: Epoch,
    head: Sequence,
    hash: Hash,
    last_at: Timestamp,
    /// Request ids recorded by entries up to this one are forgotten.
    forgotten: Sequence,
    /// Callers that the next commit waits for. None does where they come one at a time.
    expected: usize,
}

impl Leader {
    pub(crate) fn new(inner: Arc<Inner>, recovered: Recovered) -> Self {
        let Recovered { state, head, hash, epoch, last_at, .. } = recovered;
        Self { inner, state, epoch, head, hash, last_at, forgotten: Sequence(0), expected: 0 }
    }

    /// Works until that is no longer possible, and says why.
    pub(crate) async fn run(mut self, mut callers: mpsc::Receiver<Work>, mut internal: mpsc::Receiver<Work>) -> String {
        loop {
            let Some(mut works) = self.gather(&mut callers, &mut internal).await else { return "its queue is closed".to_owned() };
            // A caller that no longer listens has not been promised anything.
            works.retain(|work| !work.reply.is_closed());
            if works.is_empty() {
                continue;
            }
            if let Err(error) = self.commit(works).await {
                let final_for_us = matches!(&error, Error::Storage { source, .. } if !source.is_retryable());
                tracing::error!(shard = %self.inner.base.shard, %error, "commit failed");
                if final_for_us {
                    return error.to_string();
                }
                self.inner.set_degraded(Some(no_writes(&error)));
                if let Err(error) = self.recover(&mut callers, &mut internal).await {
                    return error.to_string();
                }
                self.inner.set_degraded(None);
            }
            self.inner.base.projected.wait_within(self.head, self.inner.options.projection_lag_entries_max).await;
        }
    }

    /// The works of the next commit; `None` when there will be no more.
    async fn gather(&mut self, callers: &mut mpsc::Receiver<Work>, internal: &mut mpsc::Receiver<Work>) -> Option<Vec<Work>> {
        let batch_max = self.inner.options.batch_commands_max;
        // What other shards sent goes first: it holds money that is nobody's until it is taken in.
        let first = tokio::select! {
            biased;
            Some(work) = internal.recv() => work,
            Some(work) = callers.recv() => work,
            else => return None,
        };
        let waits_until = tokio::time::Instant::now() + GATHER_MAX;
        let (mut commands, mut of_callers, mut works) = (0, 0, Vec::new());
        let mut next = Some(first);
        while let Some(work) = next.take() {
            commands += work.requests.len();
            of_callers += usize::from(work.permit.is_some());
            works.push(work);
            if commands >= batch_max {
                break;
            }
            next = match internal.try_recv().or_else(|_| callers.try_recv()) {
                Ok(work) => Some(work),
                Err(_) if of_callers < self.expected => tokio::time::timeout_at(waits_until, callers.recv()).await.unwrap_or(None),
                Err(_) => None,
            };
        }
        // Not all come back at once, and those who do not come back at all are waited for once.
        self.expected = of_callers * 3 / 4;
        Some(works)
    }

    /// Storage failed: what is in memory may be ahead of it. Starts again from storage, as often as it takes; whoever waits
    /// meanwhile is told why.
    async fn recover(&mut self, callers: &mut mpsc::Receiver<Work>, internal: &mut mpsc::Receiver<Work>) -> Result<(), Error> {
        let inner = self.inner.clone();
        let mut gate = None;
        loop {
            tokio::time::sleep(RECOVERY_PAUSE).await;
            // The projector owns the tables: until it lets go of them, they are not ours to bring up to date.
            if gate.is_none() {
                gate = Some(inner.base.projected.gate().await);
            }
            let recovered = match inner.base.store.journal.head().await {
                // Another leader commits: taking the next epoch would depose it.
                Ok(head) if head.epoch > self.epoch => Err(paymesh_journal::Error::Fenced { held: head.epoch, offered: self.epoch }),
                Ok(_) => Ok(recovery::recover(&inner.base.shard, &inner.base.store).await),
                Err(error) => Err(error),
            };
            match recovered.unwrap_or_else(|source| Err(Error::Storage { shard: inner.base.shard.clone(), source })) {
                Ok(recovered) => {
                    inner.base.tail.reset(recovered.head, recovered.bytes);
                    inner.base.projected.set(recovered.head);
                    inner.epoch.store(recovered.epoch.0, Ordering::Relaxed);
                    *self = Self::new(inner.clone(), recovered);
                    tracing::info!(shard = %self.inner.base.shard, head = %self.head, "serving again");
                    return Ok(());
                }
                Err(Error::Storage { shard, source }) if source.is_retryable() => {
                    tracing::warn!(%shard, %source, "storage still fails");
                    inner.set_degraded(Some(no_writes(&source)));
                    while let Ok(work) = callers.try_recv().or_else(|_| internal.try_recv()) {
                        let _ = work.reply.send(Err(Error::NotServing { shard: shard.clone(), why: source.to_string() }));
                    }
                    // Some of the tables may be up to date already: the projector goes on from where they are, or not yet.
                    if let Ok(cursor) = inner.base.store.tables.cursor().await {
                        inner.base.projected.set(cursor);
                        gate = None;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn commit(&mut self, works: Vec<Work>) -> Result<(), Error> {
        let started = Instant::now();
        if let Err(error) = self.prefetch(&works).await {
            return fail(works, error);
        }
        let now = (self.inner.clock)().max(self.last_at);
        let mut salt = [0u8; 32];
        if let Err(error) = getrandom::fill(&mut salt) {
            let why = format!("the system gives no random bytes: {error}");
            return fail(works, Error::NotServing { shard: self.inner.base.shard.clone(), why });
        }
        let mut builder = SegmentBuilder::new(self.inner.base.shard.clone(), self.epoch, self.head.next(), self.hash, salt);
        let mut batch: Vec<Committed> = Vec::new();
        let decided: Vec<Vec<Decided>> = works.iter().map(|work| self.decide_work(now, work, &mut builder, &mut batch)).collect();
        let decided_in = started.elapsed();
        let mut committed = None;
        if !builder.is_empty() {
            let segment = Arc::new(builder.finish());
            if let Err(error) = self.append(&segment).await {
                return fail(works, error);
            }
            (self.head, self.hash, self.last_at) = (segment.last(), segment.hash, segment.committed_at);
            self.inner.last_at.store(self.last_at.0, Ordering::Relaxed);
            committed = Some(segment);
        }
        let batch = Arc::new(batch);
        if let Some(segment) = committed {
            self.inner.base.tail.publish(segment, Some(batch.clone()));
        }
        metrics::histogram!(counts::DECIDE_SECONDS).record(decided_in.as_secs_f64());
        metrics::histogram!(counts::COMMIT_SECONDS).record(started.elapsed().as_secs_f64());
        metrics::histogram!(counts::BATCH_ENTRIES).record(batch.len() as f64);
        for (work, decided) in works.into_iter().zip(decided) {
            self.answer(work, decided, &batch);
        }
        self.state.evict(self.inner.base.projected.get(), self.inner.options.records_max);
        Ok(())
    }

    async fn prefetch(&mut self, works: &[Work]) -> Result<(), Error> {
        // Before anything is looked up: what the tables have forgotten is not to be remembered here.
        let forgotten = Sequence(self.inner.forgotten.load(Ordering::Relaxed));
        if forgotten > self.forgotten {
            self.state.forget_requests(forgotten);
            self.forgotten = forgotten;
        }
        for _ in 0..LOAD_ROUNDS_MAX {
            let mut missing = Missing::default();
            works.iter().flat_map(|work| &work.requests).for_each(|request| self.state.missing(request, &mut missing));
            if missing.is_empty() {
                return Ok(());
            }
            let records = self.inner.base.store.tables.records(&missing).await;
            self.state.load(&missing, records.map_err(|source| Error::Storage { shard: self.inner.base.shard.clone(), source })?);
        }
        unreachable!("records name no further records after {LOAD_ROUNDS_MAX} rounds");
    }

    fn decide_work(&mut self, now: Timestamp, work: &Work, builder: &mut SegmentBuilder, batch: &mut Vec<Committed>) -> Vec<Decided> {
        let mut refused = false;
        let mut decided = Vec::with_capacity(work.requests.len());
        for request in &work.requests {
            if refused {
                decided.push(Decided::Rejected(Rejection::Implausible { what: "it follows one that was refused" }));
                continue;
            }
            let outcome = self.decide(now, request, builder, batch);
            refused =
                work.permit.is_none() && matches!(&outcome, Decided::Rejected(rejection) if !is_repetition(&request.command, rejection));
            decided.push(outcome);
        }
        decided
    }

    fn decide(&mut self, now: Timestamp, request: &Request, builder: &mut SegmentBuilder, batch: &mut Vec<Committed>) -> Decided {
        let context = Context { now, epoch: self.epoch, next: builder.next() };
        match decide(&self.state, context, request) {
            Ok(Decision::New(entry)) => {
                let position = Position { shard: self.inner.base.shard.clone(), epoch: self.epoch, sequence: context.next };
                self.state.apply(&position, &entry).expect("what was decided on the state follows from it");
                builder.push(&entry);
                batch.push((position, Arc::from(entry)));
                Decided::New(batch.len() - 1)
            }
            Ok(Decision::Recorded(sequence)) => Decided::Recorded(sequence),
            Err(rejection) => Decided::Rejected(rejection),
        }
    }

    /// Appends durably. Where the engine cannot say whether it did, the journal's head can.
    async fn append(&self, segment: &paymesh_journal::Segment) -> Result<(), Error> {
        let failed = |source| Error::Storage { shard: self.inner.base.shard.clone(), source };
        match self.inner.base.store.journal.append(segment).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_retryable() => match self.inner.base.store.journal.head().await {
                Ok(head) if head.hash == Some(segment.hash) => Ok(()),
                _ => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }

    fn answer(&self, work: Work, decided: Vec<Decided>, batch: &Arc<Vec<Committed>>) {
        let Work { requests, reply, permit } = work;
        let replays = decided.iter().any(|decided| matches!(decided, Decided::Recorded(_)));
        if !replays {
            let answers = decided
                .into_iter()
                .map(|decided| match decided {
                    Decided::New(index) => Ok(fresh(&batch[index])),
                    Decided::Rejected(rejection) => Err(rejection),
                    Decided::Recorded(_) => unreachable!("there are none"),
                })
                .collect();
            // A caller that went away meanwhile asks again with the same id.
            let _ = reply.send(Ok(answers));
            drop(permit);
            return;
        }
        // Replays are rare and may read storage: not in the writer's time.
        let (inner, batch) = (self.inner.clone(), batch.clone());
        tokio::spawn(async move {
            let answers = replay(&inner, &requests, decided, &batch).await;
            let _ = reply.send(answers);
            drop(permit);
        });
    }
}

fn fresh((position, entry): &Committed) -> Answer {
    Answer { position: position.clone(), entry: entry.clone(), replayed: false }
}

fn no_writes(error: &impl std::fmt::Display) -> String {
    format!("it takes no writes until its storage works again: {error}")
}

/// Whether a refusal of the shard's own work only says that it is done already.
fn is_repetition(command: &Command, rejection: &Rejection) -> bool {
    match command {
        Command::Receive { .. } | Command::Delivered { .. } => {
            matches!(rejection, Rejection::AlreadyReceived { .. } | Rejection::NothingNew)
        }
        // A hold that was captured or voided meanwhile.
        _ => true,
    }
}

/// Answers what was recorded before with what was recorded, where it is the same request again.
async fn replay(inner: &Inner, requests: &[Request], decided: Vec<Decided>, batch: &[Committed]) -> Answers {
    let mut sequences: Vec<Sequence> = decided
        .iter()
        .filter_map(|decided| match decided {
            Decided::Recorded(sequence) => Some(*sequence),
            _ => None,
        })
        .collect();
    sequences.sort_unstable();
    sequences.dedup();
    let recorded = inner.base.tail.entries(&sequences).await.map_err(|error| match error {
        // The entry went while this was under way: its id is forgotten with it, and whoever asks again is told so.
        Error::NotKept { shard, first, .. } => {
            Error::NotServing { shard, why: format!("it has just let go of what is before entry {first}; ask again") }
        }
        error => error,
    })?;
    let answers = requests.iter().zip(decided).map(|(request, decided)| match decided {
        Decided::New(index) => Ok(fresh(&batch[index])),
        Decided::Rejected(rejection) => Err(rejection),
        Decided::Recorded(sequence) => {
            let index = recorded.binary_search_by_key(&sequence, |(position, _)| position.sequence).expect("all were read");
            let (position, entry) = &recorded[index];
            match differing_field(entry, request) {
                Some(field) => Err(Rejection::RequestIdReused { field }),
                None => Ok(Answer { position: position.clone(), entry: entry.clone(), replayed: true }),
            }
        }
    });
    Ok(answers.collect())
}

/// Tells every caller of a batch that it was not committed, and passes the error on.
fn fail(works: Vec<Work>, error: Error) -> Result<(), Error> {
    for work in works {
        let (shard, why) = match &error {
            Error::Storage { shard, source } => (shard.clone(), source.to_string()),
            Error::NotServing { shard, why } => (shard.clone(), why.clone()),
            other => unreachable!("a batch does not fail by {other}"),
        };
        let _ = work.reply.send(Err(Error::NotServing { shard, why }));
    }
    Err(error)
}
