//! The follower's side: a replica that is kept at its leader's journal.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use paymesh_contract::{
    Fault,
    common::v1 as common,
    replication::v1::{
        self as pb, FollowAcknowledgement, FollowRequest, FollowResponse, FollowStart, ReplicaState, follow_request::Message,
        replication_service_client::ReplicationServiceClient,
    },
};
use paymesh_journal::{Error as JournalError, Hash, Head, Holding, Journal, SEGMENT_BYTES_MAX};
use paymesh_mesh::Mesh;
use paymesh_shard::{AddError, Replica};
use paymesh_types::{Epoch, RegionName, Sequence, ShardRef};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Followed, clock::now_us, counts, plan::is_directory, serving::IDLE_EVERY, wire};

/// A leader that says nothing for so long is gone.
pub(crate) const SILENCE_MAX: Duration = IDLE_EVERY.saturating_mul(10);
/// Between tries, at first and at most; each is made up to half shorter by chance, so that followers do not come all at once.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a leader may not have been reached at all before that is said.
const UNREACHED_WARN: Duration = Duration::from_secs(10);
/// Acknowledgements that wait to be sent; what does not fit is left out, the next says more.
const ACKNOWLEDGEMENTS_MAX: usize = 4;
/// Payload bytes and segments after which what has come is stored before more is taken. Decoded they take some thirty times as
/// much: more costs fresh memory for each time and saves no sync worth it.
const GATHERED_BYTES: usize = 1 << 19;
const GATHERED_SEGMENTS_MAX: usize = 2_048;
/// The leader is asked how far it is at least this often: so old at most, and a way there and back, is a copy that is up to date.
const ASK_EVERY: Duration = IDLE_EVERY;
/// And at most so often, however many readers want to know.
const ASK_PAUSE: Duration = Duration::from_millis(1);
/// Between two times that a copy's age is told to `/metrics`.
const AGE_EVERY: Duration = Duration::from_secs(1);
/// Questions that are out at most; more are not put.
const QUESTIONS_MAX: usize = 256;
/// Bytes of a message at most: one segment of the largest, and what is around it.
pub(crate) const MESSAGE_BYTES_MAX: usize = SEGMENT_BYTES_MAX + (1 << 20);

/// A followed shard: its replica, once that is open, and the stream that feeds it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Following {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    followed: Followed,
    replica: watch::Sender<Option<Replica>>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// Why the replica is not open; empty once it is.
    refusal: String,
    connected: bool,
    /// The leader's last entry, as far as is known.
    head: Sequence,
    /// Whether the leader was ever reached.
    reached: bool,
    /// Since when it is not.
    lost_since: Option<Instant>,
    /// Why it was not reached the last time that it was tried.
    lost: String,
    /// Whether that was said.
    told_lost: bool,
    /// What is being done while there is no replica.
    remaking: Option<Remaking>,
    /// Earlier copies that are set aside.
    set_aside: u32,
    /// How far the shard's history is known to have gone.
    known: Option<KnownEnd>,
}

/// Where a history is known to have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KnownEnd {
    sequence: Sequence,
    /// The hash of the segment that ends there; `None` where there is none.
    hash: Option<Hash>,
}

impl KnownEnd {
    /// What a copy's journal shows: its end, or that of the one before it that was set aside. One that is empty after another was
    /// set aside shows nothing.
    fn of(head: &Head, witness: Option<(Sequence, Hash)>, set_aside: u32) -> Option<Self> {
        match witness {
            Some((sequence, hash)) if sequence > head.sequence => Some(Self { sequence, hash: Some(hash) }),
            _ if head.sequence == Sequence(0) && set_aside > 0 => None,
            _ => Some(Self { sequence: head.sequence, hash: head.hash }),
        }
    }

    fn message(self) -> pb::ReplicaEnd {
        pb::ReplicaEnd { sequence: self.sequence.0, hash: self.hash.map(|hash| hash.to_vec()).unwrap_or_default() }
    }
}

/// What becomes of a copy that is not open, and will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaking {
    /// It begins with a checkpoint: so many chunks of so many are here.
    Bootstrapping(u32, u32),
    /// It is set aside, and another is being made.
    SetAside,
}

/// Why a replica is fed no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is not, or no longer, a copy of its leader's journal.
    Diverged(String),
    /// Its leader's journal begins after its end: [`Following::bootstrap`].
    Outrun(String),
    /// Something that does not pass by itself.
    Stopped(String),
}

/// Why a stream ended.
enum End {
    /// It may be made again; whether anything came of it.
    Lost { why: String, useful: bool },
    /// It is no use to make it again.
    ForGood(Ended),
}

impl End {
    fn by_leader(useful: bool) -> Self {
        Self::Lost { why: "the leader ended it".to_owned(), useful }
    }

    /// What the leader's refusal, at the beginning of a stream or in it, means for the copy.
    fn of(status: &Status, useful: bool) -> Self {
        let fault = Fault::from_status(status);
        match &*fault.reason {
            "REPLICA_DIVERGED" => Self::ForGood(Ended::Diverged(fault.message)),
            "POSITION_NOT_KEPT" => Self::ForGood(Ended::Outrun(fault.message)),
            _ => Self::Lost { why: fault.message, useful },
        }
    }
}

/// The replicas that a region keeps. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Replicas {
    all: Arc<Vec<Following>>,
}

impl Replicas {
    /// These.
    pub fn new(all: Vec<Following>) -> Self {
        Self { all: Arc::new(all) }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Following> {
        self.all.iter()
    }

    pub(crate) fn messages(&self) -> Vec<pb::Replica> {
        self.iter().map(Following::message).collect()
    }
}

impl Following {
    /// A shard to be followed. Its replica is not open yet.
    pub fn new(followed: Followed) -> Self {
        Self { inner: Arc::new(Inner { followed, replica: watch::Sender::new(None), progress: Mutex::default() }) }
    }

    /// What is followed.
    pub fn followed(&self) -> &Followed {
        &self.inner.followed
    }

    fn shard(&self) -> &ShardRef {
        &self.inner.followed.shard
    }

    fn leader(&self) -> &RegionName {
        &self.inner.followed.leader
    }

    /// The replica, once it is open.
    pub async fn opened(&self) -> Replica {
        let mut replica = self.inner.replica.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let open = replica.wait_for(Option::is_some).await.ok().and_then(|open| open.clone());
        open.expect("it was waited for")
    }

    /// The replica, if it is open.
    pub fn replica(&self) -> Option<Replica> {
        self.inner.replica.borrow().clone()
    }

    /// The replica, as it is opened and withdrawn.
    pub fn watch(&self) -> watch::Receiver<Option<Replica>> {
        self.inner.replica.subscribe()
    }

    /// Waits until this one is not the open replica any more.
    pub async fn replaced(&self, replica: &Replica) {
        let mut current = self.inner.replica.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = current.wait_for(|current| !current.as_ref().is_some_and(|current| current.is(replica))).await;
    }

    /// How many earlier copies are set aside.
    pub fn note_set_aside(&self, count: u32) {
        self.progress().set_aside = count;
    }

    /// Takes note of how far the copy's journal, which need not be open yet, shows the history to have gone: whoever is to lead the shard
    /// asks for that. To be told how many copies are set aside first.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn look_at(&self, journal: &dyn Journal) -> Result<(), JournalError> {
        let (head, witness) = (journal.head().await?, journal.witness().await?);
        let mut progress = self.progress();
        progress.known = KnownEnd::of(&head, witness, progress.set_aside);
        Ok(())
    }

    /// An operator is to say which history it is; until then this copy says nothing against a leader of the other.
    pub(crate) fn note_diverged(&self) {
        self.progress().known = None;
    }

    pub(crate) fn note_chunks(&self, stored: u32, total: u32) {
        self.progress().remaking = Some(Remaking::Bootstrapping(stored, total));
    }

    /// Says why the replica is not open.
    pub fn refuse(&self, why: String) {
        self.note_stopped(!why.is_empty());
        self.progress().refusal = why;
    }

    fn note_stopped(&self, stopped: bool) {
        metrics::gauge!(counts::STOPPED, "shard" => self.shard().to_string()).set(if stopped { 1.0 } else { 0.0 });
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.inner.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self) -> pb::Replica {
        let replica = self.inner.replica.borrow().clone();
        let stored = replica.as_ref().map_or(Sequence(0), |replica| replica.tail().head());
        let progress = self.progress();
        let problem = replica.as_ref().and_then(Replica::problem).unwrap_or_else(|| progress.refusal.clone());
        let (chunks_stored, chunks_total) = match progress.remaking {
            Some(Remaking::Bootstrapping(stored, total)) => (stored, total),
            _ => (0, 0),
        };
        let state = match (problem.is_empty(), progress.connected, progress.head > stored) {
            (_, _, _) if progress.remaking == Some(Remaking::SetAside) => ReplicaState::SetAside,
            (true, _, _) if progress.remaking.is_some() => ReplicaState::Bootstrapping,
            (false, _, _) => ReplicaState::Stopped,
            (true, false, _) => ReplicaState::Connecting,
            (true, true, true) => ReplicaState::CatchingUp,
            (true, true, false) => ReplicaState::Streaming,
        };
        // One that has just been lost is most often back at once.
        let lasts = progress.lost_since.is_some_and(|since| since.elapsed() >= UNREACHED_WARN);
        let problem = if state == ReplicaState::Connecting && lasts { progress.lost.clone() } else { problem };
        pb::Replica {
            shard: Some(common::ShardRef::from(self.shard())),
            leader: self.leader().to_string(),
            whole: self.inner.followed.holding == Holding::Whole,
            state: state.into(),
            problem,
            stored_sequence: stored.0,
            projected_sequence: replica.as_ref().and_then(Replica::projected).map(|sequence| sequence.0),
            head_sequence: progress.head.max(stored).0,
            age_ms: replica.and_then(|replica| replica.current_at()).map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            chunks_stored,
            chunks_total,
            set_aside: progress.set_aside,
            known_end: progress.known.map(KnownEnd::message),
        }
    }

    /// Tells `/metrics` how old the copy is, for as long as it is polled: also while it is not open, so that it shows.
    pub async fn tell_age(&self) -> Infallible {
        let age = metrics::gauge!(counts::AGE_SECONDS, "shard" => self.shard().to_string());
        let mut current_at = Instant::now();
        let mut turns = tokio::time::interval(AGE_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            // Another that is made in its place has not been current yet.
            current_at = self.replica().and_then(|replica| replica.current_at()).map_or(current_at, |at| at.max(current_at));
            age.set(current_at.elapsed().as_secs_f64());
        }
    }

    /// Keeps the replica, now that it is open, at its leader's journal until that is no longer possible, and says why. Whoever
    /// waits for it has it from now on.
    pub async fn run(&self, replica: Replica, mesh: &Mesh) -> Ended {
        self.refuse(String::new());
        self.progress().remaking = None;
        self.announce(&replica);
        let mut pause = RETRY_FIRST;
        loop {
            let ended = tokio::select! {
                ended = self.session(&replica, mesh) => ended,
                why = replica.stopped() => {
                    self.note_stopped(true);
                    return Ended::Stopped(why);
                }
            };
            self.progress().connected = false;
            replica.paused();
            match ended {
                End::ForGood(Ended::Outrun(why)) => {
                    replica.refuse(why.clone());
                    return Ended::Outrun(why);
                }
                End::ForGood(ended) => {
                    let (Ended::Diverged(why) | Ended::Stopped(why) | Ended::Outrun(why)) = &ended;
                    tracing::error!(shard = %self.shard(), leader = %self.leader(), %why, "a replica takes in nothing more");
                    // Also of one that nobody has been given.
                    self.refuse(why.clone());
                    if matches!(ended, Ended::Diverged(_)) {
                        self.note_diverged();
                    }
                    replica.refuse(why.clone());
                    return ended;
                }
                End::Lost { why, useful } => {
                    if useful {
                        pause = RETRY_FIRST;
                    }
                    self.tell_lost(&why);
                    metrics::counter!(counts::RECONNECTS, "shard" => self.shard().to_string()).increment(1);
                }
            }
            tokio::time::sleep(rand::random_range(pause / 2..=pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Says that the leader is not reached, once for each outage: what is tried again every few seconds says nothing new. Nodes that start
    /// together wait for each other, which is no outage unless it lasts.
    fn tell_lost(&self, why: &str) {
        let (reached, due) = {
            let mut progress = self.progress();
            why.clone_into(&mut progress.lost);
            let since = *progress.lost_since.get_or_insert_with(Instant::now);
            let due = progress.reached || since.elapsed() >= UNREACHED_WARN;
            (progress.reached, due && !std::mem::replace(&mut progress.told_lost, true))
        };
        match (due, reached) {
            (false, _) => {}
            (true, true) => {
                tracing::warn!(shard = %self.shard(), leader = %self.leader(), %why, "a replica has lost its leader, and tries to reach it again");
            }
            (true, false) => {
                tracing::warn!(shard = %self.shard(), leader = %self.leader(), %why, "a replica does not reach its leader, and goes on trying");
            }
        }
    }

    /// Whoever waits for the replica has it from now on, unless it is still to be shown that it is what the one before it was.
    fn announce(&self, replica: &Replica) {
        if replica.witness().is_none() {
            self.inner.replica.send_if_modified(|current| current.is_none().then(|| *current = Some(replica.clone())).is_some());
        }
    }

    /// The replica is of no use any more, and another will be opened: nobody gets this one from now on.
    pub fn withdraw(&self, remaking: Remaking, why: String) {
        self.inner.replica.send_replace(None);
        let mut progress = self.progress();
        (progress.refusal, progress.remaking) = (why, Some(remaking));
        if remaking == Remaking::SetAside {
            progress.known = None;
        }
        drop(progress);
        self.note_stopped(false);
    }

    /// One stream, to its end.
    async fn session(&self, replica: &Replica, mesh: &Mesh) -> End {
        let lost = |why: String| End::Lost { why, useful: false };
        let Some(channel) = mesh.to_region(self.leader()) else {
            return End::ForGood(Ended::Stopped(format!("there is no region {}", self.leader())));
        };
        let end = replica.end().await;
        let (say, said) = mpsc::channel(ACKNOWLEDGEMENTS_MAX);
        let start = FollowStart {
            shard: Some(common::ShardRef::from(self.shard())),
            region: mesh.region().to_string(),
            after_sequence: end.sequence.0,
            after_hash: if end.sequence == Sequence(0) { Vec::new() } else { end.hash.to_vec() },
        };
        if say.try_send(FollowRequest { message: Some(Message::Start(start)) }).is_err() {
            return lost("the stream was not begun".to_owned());
        }
        let mut client = ReplicationServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut answers = match tokio::time::timeout(SILENCE_MAX, client.follow(ReceiverStream::new(said))).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return End::of(&status, false),
            Err(_) => return lost(format!("the leader did not answer within {SILENCE_MAX:?}")),
        };
        let was_lost = {
            let mut progress = self.progress();
            progress.connected = true;
            (progress.reached, progress.lost_since) = (true, None);
            std::mem::replace(&mut progress.told_lost, false)
        };
        if was_lost {
            tracing::info!(shard = %self.shard(), leader = %self.leader(), "a replica follows its leader again");
        }
        let mut useful = false;
        let mut questions = Questions::default();
        let mut ask_at = Instant::now();
        let mut silent_at = Instant::now() + SILENCE_MAX;
        loop {
            let message = tokio::select! {
                biased;
                answer = tokio::time::timeout_at(silent_at, answers.message()) => answer,
                () = asked(replica, ask_at) => {
                    questions.put(&say, replica.tail().head());
                    ask_at = Instant::now();
                    continue;
                }
            };
            let message = match message {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return End::by_leader(useful),
                Ok(Err(status)) => return End::of(&status, useful),
                Err(_) => return End::Lost { why: format!("the leader was silent for {SILENCE_MAX:?}"), useful },
            };
            silent_at = Instant::now() + SILENCE_MAX;
            let (message, ended) = gathered(message, &mut answers);
            let (epoch, head, asked_at) =
                (Epoch(message.leader_epoch), Sequence(message.head_sequence), questions.answered(message.answered_question));
            let came_with_segments = !message.segments.is_empty();
            match self.take(replica, message).await {
                Ok(stored) => {
                    useful = true;
                    replica.heard(epoch, head, asked_at);
                    if came_with_segments {
                        acknowledge(&say, stored, 0);
                    }
                }
                Err(why) => return End::ForGood(Ended::Stopped(why)),
            }
            match ended {
                None => {}
                Some(Ok(())) => return End::by_leader(useful),
                Some(Err(status)) => return End::of(&status, useful),
            }
        }
    }

    /// Stores what came, and says how far the copy is then.
    async fn take(&self, replica: &Replica, message: FollowResponse) -> Result<Sequence, String> {
        let FollowResponse { segments, head_sequence, origin, .. } = message;
        let holding = replica.holding();
        let mut stored = replica.tail().head();
        if !segments.is_empty() {
            let (count, bytes) = (segments.len(), segments.iter().map(payload_bytes).sum::<usize>());
            let committed_at = segments.last().map_or(0, |last| last.committed_at_us);
            let decoded: Result<Vec<_>, String> = segments.into_iter().map(|segment| wire::segment(segment, holding)).collect();
            let decoded = decoded.map_err(|what| format!("a segment after entry {stored} is refused: {what}"))?;
            if is_directory(self.shard()) {
                // It comes whole across the border, and may have nothing that does not cross it.
                let checked = decoded.iter().try_for_each(|segment| segment.check_all_open(self.shard()));
                checked.map_err(|corrupt| format!("what was sent is refused: {corrupt}"))?;
            }
            match replica.catch_up(decoded, Sequence(head_sequence)).await {
                Ok(end) => {
                    stored = end.sequence;
                    if replica.witness().is_none() {
                        self.progress().known = Some(KnownEnd { sequence: end.sequence, hash: Some(end.hash) });
                    }
                }
                Err(AddError::BadSegment(corrupt)) => return Err(format!("what was sent is refused: {corrupt}")),
                Err(AddError::Storage(error)) => return Err(error.to_string()),
            }
            let shard = self.shard().to_string();
            metrics::counter!(counts::SEGMENTS, "shard" => shard.clone()).increment(count as u64);
            metrics::counter!(counts::BYTES, "shard" => shard).increment(bytes as u64);
            if stored.0 >= head_sequence {
                let lag = Duration::from_micros(now_us().saturating_sub(committed_at));
                metrics::histogram!(counts::LAG_SECONDS).record(lag.as_secs_f64());
            }
        }
        if let Some(origin) = origin {
            let origin = wire::origin(&origin, holding).map_err(|what| format!("where the leader's journal begins is refused: {what}"))?;
            if let Err(error) = replica.forget(&origin).await {
                tracing::warn!(shard = %self.shard(), %error, "a copy cannot let go of what its leader does not keep");
            }
        }
        replica.vouch_if_past().await;
        self.announce(replica);
        if let Some((witness, _)) = replica.witness()
            && stored.0 >= head_sequence
            && witness > stored
        {
            return Err(format!(
                "the leader's journal ends at {stored}, before entry {witness} of the copy that was set aside: it has lost its end"
            ));
        }
        metrics::gauge!(counts::LAG_ENTRIES, "shard" => self.shard().to_string()).set(head_sequence.saturating_sub(stored.0) as f64);
        if let Some(projected) = replica.projected() {
            let behind = stored.0.saturating_sub(projected.0) as f64;
            metrics::gauge!(counts::TABLES_LAG_ENTRIES, "shard" => self.shard().to_string()).set(behind);
        }
        let mut progress = self.progress();
        progress.head = Sequence(head_sequence);
        Ok(stored)
    }
}

/// Questions to a leader that are not answered yet: the number of the last, and when each was put.
#[derive(Default)]
struct Questions {
    last: u64,
    out: VecDeque<(u64, Instant)>,
}

impl Questions {
    fn put(&mut self, say: &mpsc::Sender<FollowRequest>, stored: Sequence) {
        // When it was put is before it can be heard. One for which there is no room is not put; another comes soon.
        let now = Instant::now();
        if self.out.len() < QUESTIONS_MAX && acknowledge(say, stored, self.last + 1) {
            self.last += 1;
            self.out.push_back((self.last, now));
        }
    }

    /// When the question was put that is answered up to; `None` when no new one is.
    fn answered(&mut self, number: u64) -> Option<Instant> {
        let mut at = None;
        while self.out.front().is_some_and(|(first, _)| *first <= number) {
            at = self.out.pop_front().map(|(_, put)| put);
        }
        at
    }
}

/// Whether it will be said.
fn acknowledge(say: &mpsc::Sender<FollowRequest>, stored: Sequence, question: u64) -> bool {
    let acknowledgement = FollowAcknowledgement { stored_sequence: stored.0, question };
    say.try_send(FollowRequest { message: Some(Message::Acknowledgement(acknowledgement)) }).is_ok()
}

/// Waits until the leader is to be asked again how far it is: a reader wants to know, or it has been a while.
async fn asked(replica: &Replica, last: Instant) {
    tokio::time::sleep_until(last + ASK_PAUSE).await;
    let _ = tokio::time::timeout_at(last + ASK_EVERY, replica.wants_to_know()).await;
}

/// The message with those behind it that have come already: what is stored together is synced once. And why there will be no
/// more, if that has come too.
fn gathered(first: FollowResponse, answers: &mut Streaming<FollowResponse>) -> (FollowResponse, Option<Result<(), Status>>) {
    let mut all = first;
    let mut bytes: usize = all.segments.iter().map(payload_bytes).sum();
    while bytes < GATHERED_BYTES && all.segments.len() < GATHERED_SEGMENTS_MAX {
        match answers.message().now_or_never() {
            None => break,
            Some(Ok(Some(mut more))) => {
                bytes += more.segments.iter().map(payload_bytes).sum::<usize>();
                all.segments.extend(std::mem::take(&mut more.segments));
                // What is said of the leader, as it was said last.
                all = FollowResponse { segments: all.segments, origin: more.origin.take().or(all.origin), ..more };
            }
            Some(Ok(None)) => return (all, Some(Ok(()))),
            Some(Err(status)) => return (all, Some(Err(status))),
        }
    }
    (all, None)
}

fn payload_bytes(segment: &pb::Segment) -> usize {
    [&segment.whole, &segment.reduced].into_iter().flatten().map(Vec::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_knows_its_end_or_that_of_the_one_before_and_nothing_when_it_is_empty_after_another() {
        let head = |last: u64| Head { epoch: Epoch(1), sequence: Sequence(last), hash: (last > 0).then_some([1; 32]) };
        let witness = |last| Some((Sequence(last), [2; 32]));
        let known = |last: u64, hash: Option<Hash>| Some(KnownEnd { sequence: Sequence(last), hash });
        for (head, witness, set_aside, wanted) in [
            (head(0), None, 0, known(0, None)),
            (head(7), None, 0, known(7, Some([1; 32]))),
            (head(7), None, 2, known(7, Some([1; 32]))),
            (head(0), None, 1, None),
            (head(0), witness(9), 1, known(9, Some([2; 32]))),
            (head(7), witness(9), 1, known(9, Some([2; 32]))),
            // It has come past it, and could not note that yet.
            (head(9), witness(9), 1, known(9, Some([1; 32]))),
        ] {
            assert_eq!(KnownEnd::of(&head, witness, set_aside), wanted, "{head:?} {witness:?} {set_aside}");
        }
    }
}
