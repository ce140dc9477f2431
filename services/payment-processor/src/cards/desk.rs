//! Who asks acquirers for what the books say that they are asked for, until it is known what they made of it.
//!
//! A caller's operation is begun as soon as it is committed, in a task of its own: it goes on when the caller is gone. Whatever has no task, because the node was
//! killed, the caller's place was taken or the acquirer did not answer for long, a sweep over the shards that are led here begins again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use paymesh_acquirers::{Attempt, Class};
use paymesh_ledger::{Operation, OperationKind, Payment, Rejection, Request};
use paymesh_shard::{Answer, Clock, Error, Shard};
use paymesh_types::{GatewayName, PaymentId, Position, Sequence, ShardRef};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    operation::{Job, Unsettled},
    outside::Outside,
};
use crate::homes::Homes;

/// Operations that a node has under way at once at one gateway, at most: those of callers, and those of the sweep. One that is dead keeps no places of others, nor
/// what is left of an outage those of callers. What finds no place is begun by the sweep.
const CALLERS_PLACES: usize = 512;
const SWEEP_PLACES: usize = 256;
/// How long a shard may take to be looked through.
const SWEEP_SHARD_MAX: Duration = Duration::from_secs(10);
/// How often shards are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What was asked for a moment ago is its caller's to begin.
const CALLERS_OWN: Duration = Duration::from_secs(2);
/// Payments read at once.
const PAGE: u32 = 256;
/// How long a task tries before it leaves the rest to the sweep.
const TASK_MAX: Duration = Duration::from_secs(20);
/// The first wait between two tries, and the longest of a task and of the sweep.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(30);
/// The same for a refund that waits at its acquirer, which can be for days.
const WAITING_FIRST: Duration = Duration::from_secs(60);
const WAITING_MAX: Duration = Duration::from_secs(3_600);

const OPERATIONS: &str = "paymesh_card_operations_total";
const IN_PROGRESS: &str = "paymesh_card_operations_in_progress";
const OLDEST: &str = "paymesh_card_operation_age_seconds";
const KINDS: [OperationKind; 5] =
    [OperationKind::Authorize, OperationKind::Capture, OperationKind::Void, OperationKind::Expire, OperationKind::Refund];
const OUTCOMES: [&str; 6] = ["done", "challenged", "declined", "authentication_wanted", "left", "unsettled"];

/// Says what the metrics of operations are, once for each process.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        OPERATIONS,
        "Tries at operations of payments by card, by kind and what came of them: unsettled ones are tried again"
    );
    metrics::describe_gauge!(IN_PROGRESS, "Operations of payments by card that acquirers are being asked for, by shard");
    metrics::describe_gauge!(
        OLDEST,
        metrics::Unit::Seconds,
        "How long ago the oldest of those was asked for, by shard; refunds that wait at their acquirers left out"
    );
    for kind in KINDS {
        for outcome in OUTCOMES {
            metrics::counter!(OPERATIONS, "kind" => word(kind), "outcome" => outcome).increment(0);
        }
    }
}

/// Names an operation of the region.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    shard: ShardRef,
    payment: Sequence,
    operation: u32,
}

/// What came of an operation, and of those that it led to, so far. It ends when nothing more comes.
pub(super) type Followed = watch::Receiver<Option<Answer>>;

/// The operations that are under way at a node.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    homes: Arc<Homes>,
    outside: Arc<Outside>,
    clock: ClockOf,
    places: Mutex<HashMap<GatewayName, Places>>,
    working: Mutex<HashMap<Key, Followed>>,
    resting: Mutex<HashMap<Key, Rest>>,
    tasks: TaskTracker,
}

/// Places for operations at one gateway.
#[derive(Debug)]
struct Places {
    callers: Arc<Semaphore>,
    sweep: Arc<Semaphore>,
}

struct ClockOf(Clock);

impl std::fmt::Debug for ClockOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// When an operation that did not come to its end is begun again.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    wait: Duration,
    /// The acquirer has it, and has not decided yet.
    at_acquirer: bool,
}

/// What is behind these locks is whole after every change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn word(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Authorize => "authorize",
        OperationKind::Capture => "capture",
        OperationKind::Void => "void",
        OperationKind::Expire => "expire",
        OperationKind::Refund => "refund",
    }
}

/// An operation that a task sees to. When it is dropped, however that comes, the operation is the sweep's again.
#[derive(Debug)]
struct Registered {
    desk: Desk,
    key: Key,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.desk.inner.working).remove(&self.key);
    }
}

impl Desk {
    pub(crate) fn new(homes: Arc<Homes>, outside: Arc<Outside>, clock: Clock) -> Self {
        let inner = Inner {
            homes,
            outside,
            clock: ClockOf(clock),
            places: Mutex::new(HashMap::new()),
            working: Mutex::new(HashMap::new()),
            resting: Mutex::new(HashMap::new()),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn outside(&self) -> &Outside {
        &self.inner.outside
    }

    /// Has something decided, and begins what it asks an acquirer for: both or neither, whatever becomes of the caller.
    pub(super) async fn submit(
        &self,
        shard: &Shard,
        request: Request,
        fall_back: Vec<GatewayName>,
    ) -> Result<(Answer, Option<Followed>), Error> {
        let (desk, own) = (self.clone(), shard.clone());
        let submitted = self.inner.tasks.spawn(async move {
            let asked = own.submit(request).await?;
            let followed = match asked.entry.payment(&asked.position) {
                Some(payment) if asked.replayed => desk.under_way(own.reference(), payment.sequence),
                _ => desk.begin_asked(&own, &asked, fall_back),
            };
            Ok((asked, followed))
        });
        let died =
            |_| Error::NotServing { shard: shard.reference().clone(), why: "the request's task died; the node's log says how".to_owned() };
        submitted.await.map_err(died)?
    }

    /// Begins what an entry asks an acquirer for. `None`: it asks for nothing, or there is no place now.
    fn begin_asked(&self, shard: &Shard, answer: &Answer, fall_back: Vec<GatewayName>) -> Option<Followed> {
        let payment = answer.entry.payment(&answer.position)?;
        let before = answer.entry.payment_before().and_then(|before| before.card);
        let known = |number: u32| before.as_deref().is_some_and(|charge| charge.operation(number).is_some());
        let asked = payment.card.as_deref()?.operations.iter().find(|operation| !known(operation.number))?.clone();
        self.begin(shard, payment, asked, false, fall_back)
    }

    fn begin(&self, shard: &Shard, payment: Payment, operation: Operation, doubt: bool, fall_back: Vec<GatewayName>) -> Option<Followed> {
        let key = Key { shard: shard.reference().clone(), payment: payment.sequence, operation: operation.number };
        let permit = self.place(&payment.card.as_deref()?.gateway, doubt);
        let (said, followed) = watch::channel(None);
        let registered = match (self.register(key, &followed), permit) {
            (Err(others), _) => return Some(others),
            (Ok(_), None) => return None,
            (Ok(registered), Some(permit)) => (registered, permit),
        };
        let id = PaymentId::from(Position { shard: shard.reference().clone(), epoch: payment.epoch, sequence: payment.sequence });
        let attempt = if doubt { Attempt::Again } else { Attempt::First };
        let job = Job { id, payment, operation, doubt, fall_back, attempt };
        self.inner.tasks.spawn(work(registered, shard.clone(), job, said));
        Some(followed)
    }

    /// A place at a gateway. The map has as many entries as there are gateways in the configuration and in payments that are in progress.
    fn place(&self, gateway: &GatewayName, swept: bool) -> Option<OwnedSemaphorePermit> {
        let mut places = lock(&self.inner.places);
        let places = places
            .entry(gateway.clone())
            .or_insert_with(|| Places { callers: Arc::new(Semaphore::new(CALLERS_PLACES)), sweep: Arc::new(Semaphore::new(SWEEP_PLACES)) });
        let semaphore = if swept { &places.sweep } else { &places.callers };
        Arc::clone(semaphore).try_acquire_owned().ok()
    }

    /// # Errors
    /// Another task sees to it, and says here what comes of it.
    fn register(&self, key: Key, followed: &Followed) -> Result<Registered, Followed> {
        let mut working = lock(&self.inner.working);
        if let Some(others) = working.get(&key) {
            return Err(others.clone());
        }
        working.insert(key.clone(), followed.clone());
        drop(working);
        Ok(Registered { desk: self.clone(), key })
    }

    /// What comes of an operation that a task sees to now.
    fn under_way(&self, shard: &ShardRef, payment: Sequence) -> Option<Followed> {
        let working = lock(&self.inner.working);
        working.iter().find(|(key, _)| key.shard == *shard && key.payment == payment).map(|(_, followed)| followed.clone())
    }

    /// Leaves an operation to the sweep for a while that grows; says whether this is the first time.
    fn rest(&self, key: &Key, at_acquirer: bool) -> bool {
        let (first, most) = if at_acquirer { (WAITING_FIRST, WAITING_MAX) } else { (WAIT_MAX, REST_MAX) };
        let mut resting = lock(&self.inner.resting);
        let wait = resting.get(key).map_or(first, |rest| (rest.wait * 2).clamp(first, most));
        resting.insert(key.clone(), Rest { until: Instant::now() + wait, wait, at_acquirer }).is_none()
    }

    /// Looks through the shards that are led here, for as long as it is polled.
    pub(crate) async fn sweep(&self) -> std::convert::Infallible {
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let mut seen = HashSet::new();
            let mut looked_through = HashSet::new();
            for (reference, shard) in self.inner.homes.shards().iter() {
                let Ok(shard) = shard else { continue };
                match timeout(SWEEP_SHARD_MAX, self.sweep_shard(shard, &mut seen)).await {
                    Ok(Ok(())) => drop(looked_through.insert(reference.clone())),
                    Ok(Err(error)) => tracing::debug!(shard = %reference, %error, "cannot look through payments by card yet"),
                    Err(_) => {
                        tracing::warn!(shard = %reference, "payments by card cannot be looked through: the shard's tables are behind")
                    }
                }
            }
            // What has come to its end needs no rest any more.
            lock(&self.inner.resting).retain(|key, _| !looked_through.contains(&key.shard) || seen.contains(key));
        }
    }

    async fn sweep_shard(&self, shard: &Shard, seen: &mut HashSet<Key>) -> Result<(), Error> {
        let (mut after, mut count, mut oldest) = (Sequence(0), 0_usize, Duration::ZERO);
        loop {
            let page = shard.in_progress(after, PAGE).await?;
            let now = (self.inner.clock.0)();
            for payment in &page {
                after = payment.sequence;
                for operation in payment.card.iter().flat_map(|charge| &charge.operations) {
                    let age = Duration::from_micros(now.0.saturating_sub(operation.asked_at.0));
                    let key = Key { shard: shard.reference().clone(), payment: payment.sequence, operation: operation.number };
                    let rest = lock(&self.inner.resting).get(&key).copied();
                    let rests = rest.is_some_and(|rest| rest.until > Instant::now());
                    count += 1;
                    // Days are no trouble where it is the acquirer that waits.
                    if !rest.is_some_and(|rest| rest.at_acquirer) {
                        oldest = oldest.max(age);
                    }
                    if age >= CALLERS_OWN && !rests {
                        // Somebody may have asked the acquirer already: a node that was killed, or this one before.
                        self.begin(shard, payment.clone(), operation.clone(), true, Vec::new());
                    }
                    seen.insert(key);
                }
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        let name = shard.reference().to_string();
        metrics::gauge!(IN_PROGRESS, "shard" => name.clone()).set(count as f64);
        metrics::gauge!(OLDEST, "shard" => name).set(oldest.as_secs_f64());
        Ok(())
    }
}

/// Tries an operation, and those that it leads to, until they are settled or there is no use in waiting.
async fn work(under_way: (Registered, OwnedSemaphorePermit), shard: Shard, mut job: Job, said: watch::Sender<Option<Answer>>) {
    let (mut registered, _permit) = under_way;
    let desk = registered.desk.clone();
    loop {
        let Some(answer) = settle(&desk, &registered.key, &shard, &mut job).await else { return };
        said.send_replace(Some(answer.clone()));
        let Some((payment, next)) = led_to(&answer, &job.operation) else { return };
        let same = next.number == job.operation.number;
        if !same {
            let key = Key { operation: next.number, ..registered.key.clone() };
            // Where the sweep was quicker, it sees to it.
            let Ok(next) = desk.register(key, &said.subscribe()) else { return };
            registered = next;
        }
        // The next gateway is another attempt at the same; what follows is something new.
        let attempt = if same { Attempt::Again } else { Attempt::First };
        job = Job { payment, operation: next, doubt: false, attempt, ..job };
    }
}

/// What is asked for after an entry that settled `operation`: the same again at another gateway, or what follows from it.
fn led_to(answer: &Answer, operation: &Operation) -> Option<(Payment, Operation)> {
    let payment = answer.entry.payment(&answer.position)?;
    let before = answer.entry.payment_before().and_then(|before| before.card);
    let was_there = |number: u32| before.as_deref().is_some_and(|charge| charge.operation(number).is_some());
    let mut operations = payment.card.as_deref()?.operations.iter();
    let next = operations.find(|each| each.number == operation.number || !was_there(each.number))?.clone();
    Some((payment, next))
}

/// Tries an operation until it is settled. `None`: it is settled already, or is left to the sweep.
async fn settle(desk: &Desk, key: &Key, shard: &Shard, job: &mut Job) -> Option<Answer> {
    let kind = word(job.operation.kind);
    let give_up_at = Instant::now() + TASK_MAX;
    let mut wait = WAIT_FIRST;
    let outcome = loop {
        match job.attempt(&desk.inner.outside, (desk.inner.clock.0)()).await {
            Ok(outcome) => break outcome,
            Err(Unsettled { doubt, why }) => {
                metrics::counter!(OPERATIONS, "kind" => kind, "outcome" => "unsettled").increment(1);
                tracing::debug!(payment = %job.id, operation = kind, gateway = %gateway(job), %why, "an answer that settles nothing: it is asked for again");
                job.doubt = doubt;
                job.attempt = Attempt::Again;
                // Its place is for others while the gateway takes no calls, and its tries, which all share, while a refund waits for days.
                let not_called = matches!(why.class, Class::Open | Class::Full | Class::Spent);
                let at_acquirer = why.class == Class::Undecided && job.operation.kind == OperationKind::Refund;
                if not_called || at_acquirer || Instant::now() + wait >= give_up_at {
                    // Once for each operation: the gauge of the oldest says the rest.
                    if desk.rest(key, at_acquirer) {
                        let gateway = gateway(job);
                        tracing::warn!(payment = %job.id, operation = kind, %gateway, %why, "it is not known yet what the acquirer makes of it");
                    }
                    return None;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    };
    metrics::counter!(OPERATIONS, "kind" => kind, "outcome" => outcome_word(&outcome)).increment(1);
    match shard.settle(job.id.clone(), job.operation.number, outcome).await {
        Ok(answer) => Some(answer),
        Err(Error::Rejected(Rejection::NothingNew)) => None,
        Err(error) => {
            let gateway = gateway(job);
            tracing::error!(payment = %job.id, operation = kind, %gateway, %error, "what the acquirer made of it is not in the books yet");
            desk.rest(key, false);
            None
        }
    }
}

fn gateway(job: &Job) -> &GatewayName {
    &job.payment.card.as_deref().expect("only payments by card have operations").gateway
}

fn outcome_word(outcome: &paymesh_ledger::Outcome) -> &'static str {
    match outcome {
        paymesh_ledger::Outcome::Done { .. } => "done",
        paymesh_ledger::Outcome::Challenged { .. } => "challenged",
        paymesh_ledger::Outcome::Declined { .. } => "declined",
        paymesh_ledger::Outcome::AuthenticationWanted => "authentication_wanted",
        paymesh_ledger::Outcome::Left { .. } => "left",
    }
}
