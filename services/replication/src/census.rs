//! What those who follow a shard know of its history, asked before it is led.
//!
//! A leader whose data directory is gone, or was put back from an old backup, would give numbers and request ids out a second time,
//! and what it had acknowledged would be left to copies that refuse to follow it. So a node asks every region that follows its
//! shards how far they know the history to have gone ([`Census`]), and leads a shard only where its own journal goes as far
//! ([`Heard::may_lead`]). A region that does not answer holds up a journal that is empty, for as long as it takes; one that is not
//! empty only for [`PATIENCE`]: a network that is cut must not stop a leader that has its data.
//!
//! Left to others: opening the shard, and telling callers and operators why it is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use paymesh_contract::replication::v1::{
    GetReplicationRequest, Replica, ReplicaState, replication_service_client::ReplicationServiceClient,
};
use paymesh_journal::{Head, Journal};
use paymesh_mesh::Mesh;
use paymesh_types::{RegionName, Sequence, ShardRef};
use tokio::{sync::watch, time::Instant};

use crate::{counts, following::MESSAGE_BYTES_MAX, plan::followers};

/// How long a shard whose journal is not empty waits for those who do not answer, from when the node began to ask: an ocean's round
/// trips for a connection and an answer, and once more. All shards of a node wait together.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for those who answer, so that no network is cut, and come up themselves. After that, a shard whose journal is empty is
/// said to wait for long.
pub const PATIENCE_LONG: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// A region is asked again after a tenth of the time that it has been asked for, made up to half shorter by chance, within these.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a shard is not to be led.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A copy has more of its history, or another one. It stays so until an operator acts.
    #[error("{0}")]
    HistoryMissing(String),
    /// Its own journal cannot be read.
    #[error(transparent)]
    Storage(#[from] paymesh_journal::Error),
}

/// How far a region knows a shard's history to have gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    sequence: Sequence,
    /// As it came: a hash that is none is that of no segment.
    hash: Vec<u8>,
}

/// What a region has said so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    /// Whether it answered when it was asked last.
    answers: bool,
    ends: BTreeMap<ShardRef, End>,
    /// Shards whose copies there take in nothing, for a reason that does not pass soon.
    closed: BTreeSet<ShardRef>,
}

type Followers = BTreeMap<RegionName, BTreeSet<ShardRef>>;

/// Asks the regions that follow what this node is to lead.
#[derive(Debug)]
pub struct Census {
    mesh: Mesh,
    followers: Arc<Followers>,
    said: watch::Sender<BTreeMap<RegionName, Said>>,
}

/// What they have said. Each shard that is to be led has a clone.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The node's own.
    region: RegionName,
    followers: Arc<Followers>,
    said: watch::Receiver<BTreeMap<RegionName, Said>>,
    began: Instant,
}

impl Census {
    /// Who is to be asked follows from the topology. Nobody is before [`Census::take`].
    pub fn new(mesh: Mesh) -> (Self, Heard) {
        let followers = Arc::new(followers(mesh.topology(), mesh.region()));
        let said = watch::Sender::new(BTreeMap::new());
        let heard = Heard { region: mesh.region().clone(), followers: followers.clone(), said: said.subscribe(), began: Instant::now() };
        (Self { mesh, followers, said }, heard)
    }

    /// Asks each region until it has said it of all shards that it follows; ends when nobody wants to know any more.
    pub async fn take(self) {
        let all = async {
            join_all(self.followers.iter().map(|(region, shards)| self.ask(region, shards))).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all => {}
            () = self.said.closed() => {}
        }
    }

    async fn ask(&self, region: &RegionName, shards: &BTreeSet<ShardRef>) {
        let began = Instant::now();
        loop {
            let replicas = self.ask_once(region).await;
            let mut complete = false;
            self.said.send_if_modified(|said| {
                let said = said.entry(region.clone()).or_default();
                let before = said.clone();
                said.answers = replicas.is_some();
                said.closed = replicas.iter().flatten().filter_map(closed).collect();
                // What was known stays known: while the shard is not led, no copy of it grows.
                said.ends.extend(replicas.iter().flatten().filter_map(|replica| end(replica, shards)));
                complete = said.ends.len() == shards.len();
                *said != before
            });
            if complete {
                return;
            }
            let pause = (began.elapsed() / 10).clamp(PAUSE_MIN, PAUSE_MAX);
            tokio::time::sleep(rand::random_range(pause / 2..=pause)).await;
        }
    }

    /// The region's copies; `None` when it does not answer.
    async fn ask_once(&self, region: &RegionName) -> Option<Vec<Replica>> {
        let mut client = ReplicationServiceClient::new(self.mesh.to_region(region)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        match tokio::time::timeout(ANSWER_WAIT_MAX, client.get_replication(GetReplicationRequest {})).await {
            Ok(Ok(answer)) => Some(answer.into_inner().replicas),
            Ok(Err(status)) => {
                tracing::debug!(%region, %status, "a region that follows does not say what it has");
                None
            }
            Err(_) => None,
        }
    }
}

fn end(replica: &Replica, wanted: &BTreeSet<ShardRef>) -> Option<(ShardRef, End)> {
    let shard = ShardRef::try_from(replica.shard.as_ref()?).ok().filter(|shard| wanted.contains(shard))?;
    let end = replica.known_end.as_ref()?;
    Some((shard, End { sequence: Sequence(end.sequence), hash: end.hash.clone() }))
}

fn closed(replica: &Replica) -> Option<ShardRef> {
    let stopped = replica.state() == ReplicaState::Stopped;
    replica.shard.as_ref().filter(|_| stopped).and_then(|shard| ShardRef::try_from(shard).ok())
}

impl Heard {
    /// Waits until a shard may be led from its journal, which nobody leads meanwhile. `waits` is told whom it waits for, whenever that
    /// changes, and whether that takes longer than [`PATIENCE_LONG`].
    ///
    /// # Errors
    /// It must not be.
    pub async fn may_lead(&mut self, shard: &ShardRef, journal: &dyn Journal, mut waits: impl FnMut(&str, bool)) -> Result<(), Error> {
        let head = journal.head().await?;
        let name = shard.to_string();
        let (missing, awaits) =
            (metrics::gauge!(counts::HISTORY_MISSING, "shard" => name.clone()), metrics::gauge!(counts::AWAITS_COPIES, "shard" => name));
        missing.set(0.0);
        awaits.set(0.0);
        let mut told = (String::new(), false);
        loop {
            let copies = self.copies(shard, journal, &head).await?;
            let (time, next) = Time::since(self.began);
            let long = time == Time::Over;
            match verdict(head.sequence, &copies, time) {
                Verdict::Lead { unheard } => {
                    if !unheard.is_empty() {
                        tracing::warn!(%shard, head = %head.sequence, %unheard, "a shard is led before all who follow it have said what they have");
                    }
                    awaits.set(0.0);
                    return Ok(());
                }
                Verdict::Refuse(why) => {
                    awaits.set(0.0);
                    missing.set(1.0);
                    return Err(Error::HistoryMissing(why));
                }
                Verdict::Wait(whom) => {
                    if told != (whom.clone(), long) {
                        awaits.set(if long { 1.0 } else { 0.0 });
                        waits(&whom, long);
                        told = (whom, long);
                    }
                }
            }
            tokio::select! {
                changed = self.said.changed() => if changed.is_err() {
                    // Nobody is asked any more: the node ends.
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep_until(next), if !long => {}
            }
        }
    }

    /// What each region that follows the shard has of it, beside its journal here.
    async fn copies(&mut self, shard: &ShardRef, journal: &dyn Journal, head: &Head) -> Result<BTreeMap<RegionName, Finding>, Error> {
        let said: Vec<(RegionName, Result<End, Finding>)> = {
            let said = self.said.borrow_and_update();
            let regions = self.followers.iter().filter(|(_, shards)| shards.contains(shard)).map(|(region, _)| region);
            regions.map(|region| (region.clone(), said.get(region).map_or(Err(Finding::Silent), |said| said.of(shard)))).collect()
        };
        let mut copies = BTreeMap::new();
        for (region, end) in said {
            let copy = match end {
                Ok(end) => beside(journal, head, &end).await?,
                Err(unknown) => unknown,
            };
            copies.insert(region, copy);
        }
        // Where this node followed before, it may know of more itself.
        if let Some((sequence, hash)) = journal.witness().await? {
            copies.insert(self.region.clone(), beside(journal, head, &End { sequence, hash: hash.to_vec() }).await?);
        }
        Ok(copies)
    }
}

impl Said {
    /// How far it knows the shard's history to have gone, or why that is not known.
    fn of(&self, shard: &ShardRef) -> Result<End, Finding> {
        self.ends.get(shard).cloned().ok_or_else(|| match (self.answers, self.closed.contains(shard)) {
            (true, true) => Finding::Unsaid,
            (true, false) => Finding::Starting,
            (false, _) => Finding::Silent,
        })
    }
}

/// How long it has been asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    /// Less than [`PATIENCE`].
    Short,
    /// Less than [`PATIENCE_LONG`].
    Long,
    /// Longer.
    Over,
}

impl Time {
    /// What it is, and when it is another.
    fn since(began: Instant) -> (Self, Instant) {
        let (short, long) = (began + PATIENCE, began + PATIENCE_LONG);
        match Instant::now() {
            now if now < short => (Self::Short, short),
            now if now < long => (Self::Long, long),
            now => (Self::Over, now),
        }
    }
}

/// What a region has of a shard, beside the journal of who is to lead it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// Nothing that the journal does not have.
    Within,
    /// It ends there, after the journal does.
    Beyond(Sequence),
    /// It ends there, where the journal has another history.
    Apart(Sequence),
    /// The region answers, and has not looked at its copy yet.
    Starting,
    /// The region answers, and cannot say: its copy is closed.
    Unsaid,
    /// The region does not answer.
    Silent,
}

/// A journal that does not keep its beginning has, of a copy that ends before that, no word.
async fn beside(journal: &dyn Journal, head: &Head, end: &End) -> Result<Finding, paymesh_journal::Error> {
    let same = |same: bool| if same { Finding::Within } else { Finding::Apart(end.sequence) };
    if end.sequence > head.sequence {
        return Ok(Finding::Beyond(end.sequence));
    }
    if end.sequence == Sequence(0) {
        return Ok(Finding::Within);
    }
    match journal.read(end.sequence, 0).await {
        Ok(segments) => {
            Ok(same(segments.first().is_some_and(|segment| segment.last() == end.sequence && segment.hash.as_slice() == end.hash)))
        }
        Err(paymesh_journal::Error::NotKept { .. }) => {
            let origin = journal.origin().await?;
            Ok(same(origin.sequence != end.sequence || origin.hash.as_slice() == end.hash))
        }
        // What is damaged here is found, and said where, when all of it is read to be led.
        Err(paymesh_journal::Error::Corrupt(_)) => Ok(Finding::Within),
        Err(error) => Err(error),
    }
}

/// What is to become of a shard.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is led. These regions have not said what they have, if any.
    Lead { unheard: String },
    /// It is known too little, of whom and why.
    Wait(String),
    /// It is not led, and why.
    Refuse(String),
}

/// `own` is the last entry of the journal here, 0 where it is empty.
fn verdict(own: Sequence, copies: &BTreeMap<RegionName, Finding>, time: Time) -> Verdict {
    let more: Vec<String> = copies.iter().filter_map(|(region, copy)| copy.more(region)).collect();
    if !more.is_empty() {
        let ours = if own == Sequence(0) { "is empty".to_owned() } else { format!("ends at entry {own}") };
        return Verdict::Refuse(format!("its journal here {ours}, and {}", more.join(", and ")));
    }
    let unknown: Vec<String> = copies.iter().filter_map(|(region, copy)| copy.unknown(region)).collect();
    let starting = copies.values().any(|copy| *copy == Finding::Starting);
    let patience_ends = if starting { Time::Over } else { Time::Long };
    if unknown.is_empty() || (own > Sequence(0) && time >= patience_ends) {
        return Verdict::Lead { unheard: unknown.join(", ") };
    }
    let ours = if own == Sequence(0) { "empty" } else { "not empty" };
    Verdict::Wait(format!("its journal here is {ours}, and who follows it may know of more: {}", unknown.join(", ")))
}

impl Finding {
    fn more(self, region: &RegionName) -> Option<String> {
        match self {
            Self::Beyond(sequence) => Some(format!("{region} has its history up to entry {sequence}")),
            Self::Apart(sequence) => Some(format!("{region} has another history of it up to entry {sequence}")),
            Self::Within | Self::Starting | Self::Unsaid | Self::Silent => None,
        }
    }

    fn unknown(self, region: &RegionName) -> Option<String> {
        match self {
            Self::Starting => Some(format!("{region} has not looked at its copy yet")),
            Self::Unsaid => Some(format!("{region} cannot say, as its copy is closed")),
            Self::Silent => Some(format!("{region} does not answer")),
            Self::Within | Self::Beyond(_) | Self::Apart(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(listed: &[(&str, Finding)]) -> BTreeMap<RegionName, Finding> {
        listed.iter().map(|(region, copy)| (region.parse().expect("a region's name"), *copy)).collect()
    }

    /// The journal's last entry, what copies have, and what becomes of it at each time.
    type Row<'a> = (Sequence, &'a [(&'a str, Finding)], [&'a str; 3]);

    #[test]
    fn a_shard_is_led_where_no_copy_has_more_and_an_empty_one_only_when_all_have_said_so() {
        use Finding::{Apart, Beyond, Silent, Starting, Unsaid, Within};
        const LEAD: &str = "lead";
        const WAIT: &str = "wait";
        const REFUSE: &str = "refuse";
        let (five, nine) = (Sequence(5), Sequence(9));
        let table: [Row<'_>; 16] = [
            (Sequence(0), &[], [LEAD; 3]),
            (five, &[], [LEAD; 3]),
            (Sequence(0), &[("a", Within), ("b", Within)], [LEAD; 3]),
            (five, &[("a", Within), ("b", Within)], [LEAD; 3]),
            (Sequence(0), &[("a", Within), ("b", Silent)], [WAIT; 3]),
            (Sequence(0), &[("a", Unsaid), ("b", Within)], [WAIT; 3]),
            (Sequence(0), &[("a", Starting), ("b", Within)], [WAIT; 3]),
            (five, &[("a", Within), ("b", Silent)], [WAIT, LEAD, LEAD]),
            (five, &[("a", Unsaid), ("b", Silent)], [WAIT, LEAD, LEAD]),
            (five, &[("a", Starting), ("b", Silent)], [WAIT, WAIT, LEAD]),
            (Sequence(0), &[("a", Beyond(nine)), ("b", Within)], [REFUSE; 3]),
            (five, &[("a", Within), ("b", Beyond(nine))], [REFUSE; 3]),
            // One that has more settles it, whoever does not answer.
            (Sequence(0), &[("a", Silent), ("b", Beyond(nine))], [REFUSE; 3]),
            (five, &[("a", Beyond(nine)), ("b", Silent)], [REFUSE; 3]),
            (nine, &[("a", Apart(five)), ("b", Within)], [REFUSE; 3]),
            (nine, &[("a", Apart(nine)), ("b", Starting)], [REFUSE; 3]),
        ];
        for (own, listed, wanted) in table {
            let found = [Time::Short, Time::Long, Time::Over].map(|time| match verdict(own, &copies(listed), time) {
                Verdict::Lead { .. } => LEAD,
                Verdict::Wait(_) => WAIT,
                Verdict::Refuse(_) => REFUSE,
            });
            assert_eq!(found, wanted, "{own} beside {listed:?}");
        }
    }

    #[test]
    fn who_has_more_and_who_is_waited_for_is_named() {
        let all = copies(&[("a", Finding::Beyond(Sequence(9))), ("b", Finding::Silent), ("c", Finding::Apart(Sequence(3)))]);
        let Verdict::Refuse(why) = verdict(Sequence(5), &all, Time::Short) else { panic!("a copy has more") };
        for words in ["ends at entry 5", "a has its history up to entry 9", "c has another history of it up to entry 3"] {
            assert!(why.contains(words), "{why}");
        }
        assert!(!why.contains("b "), "{why}");
        let some = copies(&[("a", Finding::Within), ("b", Finding::Silent), ("c", Finding::Unsaid)]);
        let Verdict::Wait(whom) = verdict(Sequence(0), &some, Time::Over) else { panic!("it is not known") };
        assert!(
            whom.contains("empty") && whom.contains("b does not answer, c cannot say, as its copy is closed") && !whom.contains("a "),
            "{whom}"
        );
        assert_eq!(
            verdict(Sequence(5), &some, Time::Over),
            Verdict::Lead { unheard: "b does not answer, c cannot say, as its copy is closed".to_owned() }
        );
    }
}
