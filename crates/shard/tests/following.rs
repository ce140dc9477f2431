//! A replica: what of another region's journal it takes in, and what it refuses.

#![forbid(unsafe_code)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use paymesh_journal::{
    Error as JournalError, Head, Holding, Identity, Journal, Origin, Segment, SegmentBuilder, Store,
    memory::{Fault, MemoryStore, Operation},
};
use paymesh_ledger::{Body, Entry};
use paymesh_shard::{AddError, Options, Replica, ReplicaOptions, Retention, Shard, Tail};
use paymesh_types::{Epoch, Sequence, ShardRef, ZoneName};
use support::{Disk, all, balance, deposit, enrol, eu, identity, journal, pay, pay_to};

const ALL: usize = usize::MAX;

fn us(index: u16) -> ShardRef {
    ShardRef { zone: zone("us"), index }
}

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone's name")
}

/// A leader with some of everything: payments within the shard, within the zone, and to another zone.
async fn leader() -> (Disk, Shard) {
    let disk = Disk::memory(&eu(0));
    let shard = disk.open(&eu(0)).await;
    all(&shard, (1..=5).map(enrol)).await;
    for round in 1..=4 {
        all(&shard, (1..=5).map(|number| deposit(number, 100 * round))).await;
        all(&shard, (1..=4).map(|number| pay(number, number + 1, 10 * round))).await;
        all(&shard, [pay_to(1, 6, Some(eu(1)), 1, 0), pay_to(1, 9, Some(us(1)), 2, 0), pay_to(2, 9, Some(us(2)), 3, 60)]).await;
    }
    (disk, shard)
}

async fn segments(tail: &Tail, after: Sequence) -> Vec<Segment> {
    if tail.head() == after {
        return Vec::new();
    }
    tail.segments(after.next(), ALL).await.expect("they are read").iter().map(|segment| segment.as_ref().clone()).collect()
}

async fn open(disk: &Disk, holding: Holding, with_tables: bool) -> Replica {
    let identity = Identity { holding, ..identity(&eu(0)) };
    let store: Store = match disk {
        Disk::Memory(store) => store.open(&identity).expect("it opens"),
        Disk::Sqlite(directory) => paymesh_journal::sqlite::open(directory.path(), &identity).await.expect("it opens"),
    };
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    Replica::open(&identity, store.journal.clone(), with_tables.then_some(store), options).await.expect("the replica opens")
}

/// Storage for a replica, of each engine.
fn disks(holding: &Holding) -> [Disk; 2] {
    let identity = Identity { holding: holding.clone(), ..identity(&eu(0)) };
    [Disk::Memory(MemoryStore::new(&identity)), Disk::sqlite()]
}

#[tokio::test]
async fn a_replica_in_the_zone_is_the_leaders_journal_byte_for_byte_also_after_a_restart() {
    let (disk, shard) = leader().await;
    for own in disks(&Holding::Whole) {
        let replica = open(&own, Holding::Whole, true).await;
        let sent = segments(shard.tail(), Sequence(0)).await;
        let (first, rest) = sent.split_at(3);
        let end = replica.add(first.to_vec()).await.expect("they are added");
        assert_eq!((end.sequence, end.hash), (first[2].last(), first[2].hash));
        replica.close().await;
        drop(replica);

        let replica = open(&own, Holding::Whole, true).await;
        assert_eq!(replica.end().await, end);
        replica.add(rest.to_vec()).await.expect("they are added");
        all(&shard, [deposit(3, 7)]).await;
        replica.add(segments(shard.tail(), replica.end().await.sequence).await).await.expect("what came since is added");
        let leaders = disk.store(&eu(0)).await.expect("it opens");
        let store = own.store(&eu(0)).await.expect("it opens");
        assert_eq!(journal(&store, &eu(0)).await, journal(&leaders, &eu(0)).await);
        // The same entries, and the same tables.
        let head = shard.status().head;
        let run = replica.tail().next(head).await.expect("it is read");
        assert_eq!((run.last, run.entries.len()), (head, 1));
        tokio::time::timeout(Duration::from_secs(20), async {
            while replica.projected() != Some(head) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the tables follow");
        assert_eq!(store.tables.wallets(support::user(3)).await.expect("they are read")[0].1.balance, balance(&shard, 3).await);
        replica.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replicas_tables_follow_soon_without_anybody_asking() {
    let (_disk, shard) = leader().await;
    let own = Disk::memory(&eu(0));
    let replica = open(&own, Holding::Whole, true).await;
    for _ in 0..5 {
        all(&shard, [deposit(1, 5)]).await;
        replica.add(segments(shard.tail(), replica.end().await.sequence).await).await.expect("they are added");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(replica.projected(), Some(replica.tail().head()));
    }
    replica.close().await;
}

/// So far ahead is the leader of a copy that is far behind.
const AWAY: u64 = 70_000;

#[tokio::test(start_paused = true)]
async fn far_behind_the_journal_comes_first_and_whoever_reads_it_reads_all() {
    let (disk, shard) = leader().await;
    let own = Disk::memory(&eu(0));
    let replica = open(&own, Holding::Whole, true).await;
    let sent = segments(shard.tail(), Sequence(0)).await;
    let head = shard.tail().head();
    let decided = shard.tail().entry(head).await.expect("it is read").1;
    let last = sent.last().expect("there are some");
    // Other entries under the same hash, with a checksum that fits: of another salt, too few, too many.
    let others = |count: u32, salt: u8| {
        let mut builder = SegmentBuilder::new(eu(0), last.epoch, last.first, last.previous, [salt; 32]);
        (0..count).for_each(|_| builder.push(&decided));
        let other = builder.finish();
        Segment { payload: other.payload, checksum: other.checksum, ..last.clone() }
    };
    for other in [others(last.count, 1), others(last.count + 1, 2), others(last.count.max(2) - 1, 3)] {
        let mut damaged = sent.clone();
        *damaged.last_mut().expect("there are some") = other;
        let refused = replica.catch_up(damaged, Sequence(head.0 + AWAY)).await;
        assert!(matches!(refused, Err(AddError::BadSegment(_))), "{refused:?}");
        assert_eq!(replica.end().await.sequence, Sequence(0));
    }

    let end = replica.catch_up(sent, Sequence(head.0 + AWAY)).await.expect("they are added");
    assert_eq!(end.sequence, head);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(replica.projected(), Some(Sequence(0)), "the tables wait");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (tail, entries) in [(replica.tail(), &mut ours), (shard.tail(), &mut theirs)] {
        let mut from = Sequence(1);
        while from <= head {
            let run = tail.next(from).await.expect("it is read");
            entries.extend(run.entries.iter().cloned());
            from = run.last.next();
        }
        assert_eq!(tail.entry(head).await.expect("it is read").0.sequence, head);
        assert_eq!(tail.next_few(Sequence(2), 3).await.expect("they are read").len(), 3);
    }
    assert_eq!(ours, theirs);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(replica.projected(), Some(head), "they do not wait for ever");

    // Near again, and where nothing more comes, they follow at once.
    for near in [true, false] {
        all(&shard, [deposit(1, 5)]).await;
        let more = segments(shard.tail(), replica.end().await.sequence).await;
        let head = shard.tail().head();
        replica.catch_up(more, Sequence(head.0 + if near { 0 } else { AWAY })).await.expect("they are added");
        if !near {
            replica.paused();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(replica.projected(), Some(head));
    }
    let store = own.store(&eu(0)).await.expect("it opens");
    let leaders = disk.store(&eu(0)).await.expect("it opens");
    assert_eq!(journal(&store, &eu(0)).await, journal(&leaders, &eu(0)).await);
    replica.close().await;
}

/// As a later version of the leader would write, or one that has gone wrong: every hash is right.
#[tokio::test(start_paused = true)]
async fn what_the_leader_wrote_and_nobody_can_read_stops_the_copy_and_is_not_taken_for_damage() {
    let (_disk, shard) = leader().await;
    let sent = segments(shard.tail(), Sequence(0)).await;
    let head = shard.tail().head();
    let entry = shard.tail().entry(head).await.expect("it is read").1;
    let postings = std::iter::repeat_n(entry.postings[0].clone(), 64).collect();
    let last = sent.last().expect("there are some");
    let mut builder = SegmentBuilder::new(eu(0), last.epoch, head.next(), last.hash, [9; 32]);
    builder.push(&Entry { postings, ..entry.as_ref().clone() });
    let strange = builder.finish();

    let own = Disk::memory(&eu(0));
    let replica = open(&own, Holding::Whole, true).await;
    replica.add(sent).await.expect("they are added");
    match replica.add(vec![strange.clone()]).await {
        Err(AddError::BadSegment(corrupt)) => assert!(corrupt.as_written && corrupt.sequence == head.next(), "{corrupt}"),
        other => panic!("it came to {other:?}"),
    }
    replica.catch_up(vec![strange], Sequence(head.0 + AWAY)).await.expect("far behind it is only stored");
    let why = tokio::time::timeout(Duration::from_secs(20), replica.stopped()).await.expect("it stops");
    assert!(why.contains("cannot read") && why.contains(&format!("sequence {}", head.next())), "{why}");
    replica.close().await;

    let identity = identity(&eu(0));
    let store = own.store(&eu(0)).await.expect("it opens");
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    match Replica::open(&identity, store.journal.clone(), Some(store), options).await {
        Err(paymesh_shard::Error::Storage { source: paymesh_journal::Error::Corrupt(corrupt), .. }) => assert!(corrupt.as_written),
        other => panic!("it came to {other:?}"),
    }
}

#[tokio::test]
async fn much_at_once_is_checked_like_little() {
    let (_disk, shard) = leader().await;
    all(&shard, (0..300).map(|number| deposit(1 + number % 5, 1))).await;
    for own in disks(&Holding::Whole) {
        let replica = open(&own, Holding::Whole, true).await;
        let sent = segments(shard.tail(), Sequence(0)).await;
        let mut damaged = sent.clone();
        let last = damaged.last_mut().expect("there are some");
        last.root[0] ^= 1;
        let refused = replica.add(damaged).await;
        assert!(matches!(refused, Err(AddError::BadSegment(_))), "{refused:?}");
        assert_eq!(replica.end().await.sequence, Sequence(0));
        let end = replica.add(sent).await.expect("what the leader wrote is added");
        assert_eq!(end.sequence, shard.tail().head());
        replica.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_forgets_request_ids_when_its_leader_does() {
    const HOUR: u64 = 3_600;
    let time = support::Time::new();
    let disk = Disk::memory(&eu(0));
    let shard = disk.try_open(&eu(0), Options::default(), &time).await.expect("the shard opens");
    shard.submit(support::ask(1, enrol(1))).await.expect("it is accepted");
    let own = Disk::memory(&eu(0));
    let replica = open(&own, Holding::Whole, true).await;
    let known = async |number| {
        tokio::time::sleep(Duration::from_secs(200)).await;
        own.store(&eu(0)).await.expect("it opens").tables.request(support::id(number)).await.expect("it is read").is_some()
    };
    replica.add(segments(shard.tail(), Sequence(0)).await).await.expect("it is added");
    time.pass_seconds(25 * HOUR);
    assert!(known(1).await, "by the time of its entries, not by a clock");
    shard.submit(support::ask(2, deposit(1, 5))).await.expect("it is accepted");
    replica.add(segments(shard.tail(), Sequence(1)).await).await.expect("it is added");
    assert!(!known(1).await);
    assert!(known(2).await);
    replica.close().await;
}

#[tokio::test]
async fn across_the_border_go_the_open_parts_of_what_concerns_the_zone_and_nothing_else() {
    let (_disk, shard) = leader().await;
    let holding = Holding::For(zone("us"));
    let whole = segments(shard.tail(), Sequence(0)).await;
    let reduced: Vec<Segment> = whole.iter().map(|segment| segment.reduced_for(&zone("us"), &eu(0)).expect("it reduces")).collect();
    for own in disks(&holding) {
        let replica = open(&own, holding.clone(), false).await;
        // The whole is more than it may hold.
        match replica.add(whole.clone()).await {
            Err(AddError::BadSegment(corrupt)) => assert_eq!(corrupt.sequence, Sequence(1)),
            other => panic!("it came to {other:?}"),
        }
        replica.add(reduced.clone()).await.expect("they are added");
        drop(replica);
        let replica = open(&own, holding.clone(), false).await;
        assert_eq!((replica.end().await.sequence, replica.end().await.hash), (shard.status().head, whole[whole.len() - 1].hash));
        let mut held = Vec::new();
        let mut last = Sequence(0);
        while last < replica.tail().head() {
            let run = replica.tail().next(last.next()).await.expect("it is read");
            held.extend(run.entries.iter().cloned());
            last = run.last;
        }
        // Of each round the payment to us/1; what is only held for us/2 has not left yet.
        assert_eq!(held.len(), 4);
        for (position, entry) in &held {
            assert!(matches!(&entry.body, Body::PaymentCreated(new) if new.payee_shard == Some(us(1))), "{entry:?}");
            assert!(entry.postings.is_empty() && entry.reference.is_empty());
            assert_eq!(entry.body, shard.tail().entry(position.sequence).await.expect("it is there").1.body);
        }
    }
    // For a zone that nothing concerns, nothing but headers.
    let elsewhere = whole.iter().map(|segment| segment.reduced_for(&zone("asia"), &eu(0)).expect("it reduces"));
    assert!(elsewhere.into_iter().all(|segment| segment.payload.is_empty()));
}

#[tokio::test]
async fn what_is_not_the_leaders_or_more_than_may_be_held_is_refused_and_not_stored() {
    let (_disk, shard) = leader().await;
    let whole = segments(shard.tail(), Sequence(0)).await;
    let to_us = |segment: &Segment| segment.reduced_for(&zone("us"), &eu(0)).expect("it reduces");
    let to_asia = |segment: &Segment| segment.reduced_for(&zone("asia"), &eu(0)).expect("it reduces");
    let reduced: Vec<Segment> = whole.iter().map(to_us).collect();
    let full = reduced.iter().position(|segment| !segment.payload.is_empty()).expect("one concerns the zone");
    let forged = |change: &dyn Fn(&mut Segment)| {
        let mut forged = reduced.clone();
        change(&mut forged[full]);
        forged[full].checksum = *blake3::hash(&forged[full].payload).as_bytes();
        forged
    };
    let unpacked = zstd::bulk::decompress(&reduced[full].payload, 1 << 20).expect("it unpacks");
    let packed = |raw: &[u8]| zstd::bulk::compress(raw, 1).expect("it packs");
    let concerning = |of: &[Segment], named: &ZoneName| {
        let kept: Vec<_> = of.iter().map(|segment| segment.entries_for(named, &eu(0)).map(|entries| entries.len())).collect();
        kept.into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert!(concerning(&reduced, &zone("us")).is_ok());
    let cases: [(&str, Vec<Segment>); 8] = [
        ("a segment is missing", reduced[1..].to_vec()),
        ("a segment is of another shard", vec![other_shard()]),
        (
            "an entry's amount is another",
            forged(&|segment| {
                let mut raw = unpacked.clone();
                let middle = raw.len() / 2;
                raw[middle] ^= 1;
                segment.payload = packed(&raw);
            }),
        ),
        ("something follows the entries", forged(&|segment| segment.payload = packed(&[unpacked.as_slice(), b"ann"].concat()))),
        ("the payload is not packed", forged(&|segment| segment.payload = unpacked.clone())),
        ("the header is another", forged(&|segment| segment.committed_at.0 += 1)),
        ("the root is another", forged(&|segment| segment.root[0] ^= 1)),
        ("it is the whole", whole.clone()),
    ];
    for (what, segments) in cases {
        let holding = Holding::For(zone("us"));
        let [disk, _] = disks(&holding);
        let replica = open(&disk, holding, false).await;
        assert!(matches!(replica.add(segments).await, Err(AddError::BadSegment(_))), "{what}");
        assert_eq!(replica.end().await.sequence, Sequence(0), "{what}: something was stored");
    }
    // What concerns one zone is not for another.
    let holding = Holding::For(zone("asia"));
    let [disk, _] = disks(&holding);
    let replica = open(&disk, holding, false).await;
    assert!(matches!(replica.add(reduced.clone()).await, Err(AddError::BadSegment(_))));
    replica.add(whole.iter().map(to_asia).collect()).await.expect("the hashes alone are added");
}

/// Whatever storage says, what the leader sent is stored once, and known once it is.
#[tokio::test(start_paused = true)]
async fn what_storage_fails_to_take_is_offered_again_and_not_twice() {
    let (_disk, shard) = leader().await;
    let whole = segments(shard.tail(), Sequence(0)).await;
    let (first, second) = whole.split_at(whole.len() / 2);
    for fault in [Fault::Refused, Fault::Full, Fault::Ambiguous] {
        for blind in [0, 1] {
            let identity = identity(&eu(0));
            let store = MemoryStore::new(&identity);
            let replica = open(&Disk::Memory(store.clone()), Holding::Whole, false).await;
            replica.add(first.to_vec()).await.expect("it is added");
            store.fail_next(Operation::Append, fault);
            for _ in 0..blind {
                // Nor does it say what it has.
                store.fail_next(Operation::Read, Fault::Refused);
            }
            let end = replica.add(second.to_vec()).await.unwrap_or_else(|error| panic!("{fault:?}, {blind}: {error}"));
            assert_eq!((end.sequence, replica.tail().head()), (shard.tail().head(), shard.tail().head()), "{fault:?}, {blind}");
            replica.close().await;
            let replica = open(&Disk::Memory(store.crash()), Holding::Whole, false).await;
            assert_eq!(segments(replica.tail(), Sequence(0)).await, whole, "{fault:?}, {blind}");
        }
    }
}

/// It is asked for with every message of the leader's.
#[tokio::test]
async fn whether_a_copy_is_past_the_one_set_aside_does_not_wait_for_what_is_being_added() {
    let (_disk, shard) = leader().await;
    let store = MemoryStore::new(&identity(&eu(0)));
    let replica = open(&Disk::Memory(store.clone()), Holding::Whole, false).await;
    store.hold_appends();
    let (adding, sent) = (replica.clone(), segments(shard.tail(), Sequence(0)).await);
    let adding = tokio::spawn(async move { adding.add(sent).await });
    store.append_waits().await;
    assert!(replica.vouch_if_past().now_or_never().is_some());
    store.release_appends();
    adding.await.expect("it does not die").expect("they are added");
}

/// A bit on the leader's disk must not make an entry one that concerns nobody.
#[tokio::test]
async fn a_damaged_segment_is_not_reduced() {
    let (_disk, shard) = leader().await;
    let whole = segments(shard.tail(), Sequence(0)).await;
    let concerns = |segment: &&Segment| !segment.reduced_for(&zone("us"), &eu(0)).expect("it reduces").payload.is_empty();
    let segment = whole.iter().find(concerns).expect("one concerns us");
    let raw = zstd::bulk::decompress(&segment.payload, 1 << 20).expect("it unpacks");
    for at in 32..raw.len() {
        let mut raw = raw.clone();
        raw[at] ^= 1;
        let payload = zstd::bulk::compress(&raw, 1).expect("it packs");
        let damaged = Segment { payload: payload.clone(), ..segment.clone() };
        assert!(damaged.reduced_for(&zone("us"), &eu(0)).is_err(), "byte {at}, by its checksum");
        let damaged = Segment { checksum: *blake3::hash(&payload).as_bytes(), payload, ..segment.clone() };
        assert!(damaged.reduced_for(&zone("us"), &eu(0)).is_err(), "byte {at}, by the entries' hashes");
    }
}

fn other_shard() -> Segment {
    let mut builder = SegmentBuilder::new(eu(1), Epoch(1), Sequence(1), [0; 32], [1; 32]);
    let body = Body::AccountOpened { user: support::user(1), currency: support::euro() };
    builder.push(&Entry {
        at: paymesh_types::Timestamp(1),
        request_id: None,
        body,
        postings: Default::default(),
        reference: String::new(),
    });
    builder.finish()
}

/// A journal that has its reader panic, once it is told to.
#[derive(Debug)]
struct Deadly {
    journal: Arc<dyn Journal>,
    armed: AtomicBool,
}

#[async_trait]
impl Journal for Deadly {
    async fn lead(&self) -> Result<Epoch, JournalError> {
        self.journal.lead().await
    }

    async fn append(&self, segment: &Segment) -> Result<(), JournalError> {
        self.journal.append(segment).await
    }

    async fn extend(&self, segments: &[Arc<Segment>]) -> Result<(), JournalError> {
        self.journal.extend(segments).await
    }

    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, JournalError> {
        self.journal.read(from, bytes_max).await
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.journal.head().await
    }

    async fn origin(&self) -> Result<Origin, JournalError> {
        assert!(!self.armed.swap(false, Ordering::Relaxed), "a panic that is asked for");
        self.journal.origin().await
    }

    async fn prune(&self, epoch: Epoch, origin: &Origin) -> Result<(), JournalError> {
        self.journal.prune(epoch, origin).await
    }

    async fn jump(&self, origin: &Origin) -> Result<(), JournalError> {
        self.journal.jump(origin).await
    }
}

/// Whoever goes on without it would have a copy that looks well and stands still.
#[tokio::test(start_paused = true)]
async fn a_copy_of_which_a_task_dies_stops_and_says_so() {
    let (_disk, shard) = leader().await;
    let identity = identity(&eu(0));
    let store = MemoryStore::new(&identity).open(&identity).expect("it opens");
    let deadly = Arc::new(Deadly { journal: store.journal.clone(), armed: AtomicBool::new(false) });
    let store = Store { journal: deadly.clone(), ..store };
    // Its retention looks where the journal begins.
    let retention = Retention { time: Some(Duration::from_secs(3_600)), bytes: None };
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention };
    let replica = Replica::open(&identity, store.journal.clone(), Some(store), options).await.expect("it opens");
    replica.add(segments(shard.tail(), Sequence(0)).await).await.expect("they are added");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!((replica.problem(), replica.projected()), (None, Some(shard.tail().head())));
    deadly.armed.store(true, Ordering::Relaxed);
    let why = tokio::time::timeout(Duration::from_secs(200), replica.stopped()).await.expect("it stops");
    assert!(why.contains("died"), "{why}");
    assert_eq!(replica.problem(), Some(why));
    replica.close().await;
}
