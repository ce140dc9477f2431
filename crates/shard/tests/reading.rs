//! Reads from a copy: never older than asked, however the copy lags, and nothing said that is not known.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::{Holding, Identity, Segment};
use paymesh_shard::{Bounds, Copies, Error, Reader, Replica, ReplicaOptions, Retention, Shard, View};
use paymesh_types::{Epoch, Position, Sequence};
use support::{Disk, all, deposit, enrol, eu, identity, user};
use tokio::{sync::watch, time::Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A read that a task may hold.
async fn read(reader: &Reader, bounds: Bounds, came: Instant, until: Instant) -> Result<View, Error> {
    reader.view(&bounds, came, until).await
}

/// A leader with one user, and a copy that has nothing yet.
async fn leader_and_copy() -> (Shard, Replica) {
    let shard = Disk::memory(&eu(0)).open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    let Disk::Memory(store) = Disk::memory(&eu(0)) else { unreachable!("it is one of memory") };
    let store = store.open(&identity(&eu(0))).expect("it opens");
    let identity = Identity { holding: Holding::Whole, ..identity(&eu(0)) };
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity, store.journal.clone(), Some(store), options).await.expect("the replica opens");
    (shard, replica)
}

/// Brings the copy what the leader has and it has not.
async fn feed(shard: &Shard, replica: &Replica) {
    let after = replica.end().await.sequence;
    if shard.tail().head() > after {
        let segments = shard.tail().segments(after.next(), usize::MAX).await.expect("they are read");
        let segments: Vec<Segment> = segments.iter().map(|segment| segment.as_ref().clone()).collect();
        replica.add(segments).await.expect("they are added");
    }
}

async fn pay_in(shard: &Shard, minor: u64) -> Position {
    let request = paymesh_ledger::Request { id: None, command: deposit(1, i64::try_from(minor).expect("small")) };
    shard.submit(request).await.expect("it is accepted").position
}

fn at_least(position: &Position) -> Bounds {
    Bounds { at_least: Some((position.epoch, position.sequence)), ..Bounds::default() }
}

fn staleness_max(ms: u64) -> Bounds {
    Bounds { staleness_max: Some(Duration::from_millis(ms)), ..Bounds::default() }
}

fn behind(read: Result<View, Error>) -> (u64, Option<u128>) {
    match read {
        Err(Error::Behind { position, age }) => (position.sequence.0, age.map(|age| age.as_millis())),
        other => panic!("it came to {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn without_bounds_a_copy_answers_at_once_with_what_it_has_and_how_old_that_is() {
    let (shard, replica) = leader_and_copy().await;
    let reader = Reader::Copied(replica.clone());
    let came = Instant::now();
    let view = reader.view(&Bounds::default(), came, came).await.expect("it waits for nothing");
    assert_eq!((view.position().sequence, view.age()), (Sequence(0), None));
    assert!(view.wallets(user(1)).await.expect("it is read").is_none());
    feed(&shard, &replica).await;
    replica.heard(shard.epoch(), shard.tail().head(), Some(came));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let now = Instant::now();
    let view = reader.view(&Bounds::default(), now, now).await.expect("it waits for nothing");
    assert_eq!((view.position().sequence, view.age()), (shard.tail().head(), Some(Duration::from_millis(700))));
    assert!(view.wallets(user(1)).await.expect("it is read").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_position_is_waited_for_and_what_is_there_is_told_when_the_time_is_over() {
    let (shard, replica) = leader_and_copy().await;
    feed(&shard, &replica).await;
    let reader = Reader::Copied(replica.clone());
    let position = pay_in(&shard, 5).await;
    let came = Instant::now();
    let until = came + Duration::from_millis(300);
    assert_eq!(behind(reader.view(&at_least(&position), came, until).await), (1, None));
    assert_eq!(came.elapsed(), Duration::from_millis(300));
    // It comes while it is waited for.
    let (view, ()) = tokio::join!(read(&reader, at_least(&position), came, Instant::now() + PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        feed(&shard, &replica).await;
    });
    let view = view.expect("it came");
    assert_eq!(view.position(), &position);
    assert_eq!(view.wallets(user(1)).await.expect("it is read").expect("enrolled")[0].1.balance, 5);
    // Of a term that the copy has not heard of, the same number may stand for something else.
    let later = Position { epoch: Epoch(position.epoch.0 + 1), ..position.clone() };
    let now = Instant::now();
    assert_eq!(behind(reader.view(&at_least(&later), now, now + Duration::from_millis(10)).await), (2, None));
    replica.heard(later.epoch, later.sequence, None);
    let view = reader.view(&at_least(&later), now, Instant::now()).await.expect("the leader's word is enough");
    assert_eq!(view.position(), &later);
}

#[tokio::test(start_paused = true)]
async fn a_position_that_the_leader_does_not_have_is_in_the_future_once_the_leader_has_said_so() {
    let (shard, replica) = leader_and_copy().await;
    feed(&shard, &replica).await;
    let reader = Reader::Copied(replica.clone());
    let position = pay_in(&shard, 5).await;
    let ahead = Position { sequence: position.sequence.next(), ..position.clone() };
    let late = Position { epoch: Epoch(position.epoch.0 + 1), ..ahead.clone() };
    let came = Instant::now();
    let before = came - Duration::from_millis(1);
    let until = came + Duration::from_millis(500);
    let told = async {
        // What it said of a moment before the reader came proves nothing of what was committed between.
        replica.heard(shard.epoch(), position.sequence, Some(before));
        tokio::time::sleep(Duration::from_millis(100)).await;
        replica.heard(shard.epoch(), position.sequence, Some(came));
    };
    let (ahead, late, there, ()) = tokio::join!(
        async { (read(&reader, at_least(&ahead), came, until).await, came.elapsed()) },
        read(&reader, at_least(&late), came, until),
        read(&reader, at_least(&position), came, until),
        told
    );
    assert!(matches!(ahead.0, Err(Error::InTheFuture { wanted, head, .. }) if wanted == head.next()), "{:?}", ahead.0);
    assert_eq!(ahead.1, Duration::from_millis(100));
    assert!(matches!(late, Err(Error::Behind { .. })), "a later leader may have it: {late:?}");
    assert!(matches!(there, Err(Error::Behind { .. })), "it is there, and has not come yet: {there:?}");
}

#[tokio::test(start_paused = true)]
async fn how_stale_it_may_be_is_asked_of_the_leader_and_its_answer_waited_for() {
    let (shard, replica) = leader_and_copy().await;
    feed(&shard, &replica).await;
    let reader = Reader::Copied(replica.clone());
    replica.heard(shard.epoch(), Sequence(1), Some(Instant::now()));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (asked, _) = tokio::join!(tokio::time::timeout(Duration::from_millis(1), replica.wants_to_know()), async {
        let now = Instant::now();
        reader.view(&staleness_max(400), now, now).await.expect("it is not older than that")
    });
    assert!(asked.is_err(), "what is known is enough");

    // One millisecond less, and the leader has gone on meanwhile.
    let came = Instant::now();
    pay_in(&shard, 9).await;
    let (view, ()) = tokio::join!(read(&reader, staleness_max(399), came, came + PATIENCE), async {
        tokio::time::timeout(PATIENCE, replica.wants_to_know()).await.expect("it is asked for");
        let asked_at = Instant::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        replica.heard(shard.epoch(), shard.tail().head(), Some(asked_at));
        tokio::time::sleep(Duration::from_millis(30)).await;
        feed(&shard, &replica).await;
    });
    let view = view.expect("it comes");
    assert_eq!((view.position().sequence, view.age()), (Sequence(2), Some(Duration::ZERO)), "everything from before the reader came");
    // A leader that does not answer.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let came = Instant::now();
    let (sequence, age) = behind(reader.view(&staleness_max(100), came, came + Duration::from_millis(80)).await);
    assert!(sequence == 2 && age.is_some_and(|age| (500..=600).contains(&age)), "{sequence} {age:?}");
    replica.close().await;
    let closed = reader.view(&Bounds::default(), came, came + PATIENCE).await;
    assert!(matches!(closed, Err(Error::NotServing { .. })), "{closed:?}");
}

#[tokio::test]
async fn the_home_is_never_behind_and_says_so_when_nobody_committed_what_is_asked_for() {
    let (shard, _) = leader_and_copy().await;
    let position = pay_in(&shard, 5).await;
    let reader = Reader::Led(shard.clone());
    let now = Instant::now();
    let bounds = Bounds { staleness_max: Some(Duration::ZERO), ..at_least(&position) };
    let view = reader.view(&bounds, now, now).await.expect("it is there");
    assert_eq!((view.position(), view.age()), (&position, Some(Duration::ZERO)));
    let ahead = Position { sequence: position.sequence.next(), ..position.clone() };
    assert!(matches!(reader.view(&at_least(&ahead), now, now).await, Err(Error::InTheFuture { .. })));
    let later = Position { epoch: Epoch(position.epoch.0 + 1), ..position };
    assert_eq!(behind(reader.view(&at_least(&later), now, now).await), (2, None), "a later leader may have it");
}

#[tokio::test]
async fn a_copy_is_given_to_readers_while_it_is_open_sound_and_begun() {
    let (shard, replica) = leader_and_copy().await;
    let place = watch::Sender::new(None);
    let copies = Copies::new([(eu(0), place.subscribe())].into_iter().collect());
    assert!(copies.get(&eu(0)).is_none(), "not open");
    place.send_replace(Some(replica.clone()));
    assert!(copies.get(&eu(0)).is_none(), "nothing has come yet");
    feed(&shard, &replica).await;
    let (reader, now) = (Reader::Copied(replica.clone()), Instant::now());
    let first = at_least(&Position { shard: eu(0), epoch: Epoch(1), sequence: Sequence(1) });
    reader.view(&first, now, now + PATIENCE).await.expect("it comes");
    assert!(copies.get(&eu(0)).is_some() && copies.get(&eu(1)).is_none());
    replica.refuse("it has diverged".to_owned());
    assert!(copies.get(&eu(0)).is_none(), "unsound");
}

/// A writer, a stream that stutters, and readers who ask for what was written last, or for what was committed a while ago.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_read_is_older_than_asked() {
    const WRITES: u64 = 1_500;
    let (shard, replica) = leader_and_copy().await;
    feed(&shard, &replica).await;
    let (written, last) = watch::channel((0_u64, Position { shard: eu(0), epoch: Epoch(0), sequence: Sequence(1) }));
    let (feeder_shard, feeder_replica) = (shard.clone(), replica.clone());
    let feeding = tokio::spawn(async move {
        let mut turn = 0_u64;
        loop {
            let asked_at = Instant::now();
            let head = feeder_shard.tail().head();
            // Anything from nothing to some milliseconds, in a pattern that does not repeat soon.
            turn += 1;
            tokio::time::sleep(Duration::from_micros(turn * 7_919 % 6_000)).await;
            feeder_replica.heard(feeder_shard.epoch(), head, Some(asked_at));
            feed(&feeder_shard, &feeder_replica).await;
        }
    });
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (reader, mut last) = (Reader::Copied(replica.clone()), last.clone());
            tokio::spawn(async move {
                let mut reads = 0_u64;
                while last.borrow_and_update().0 < WRITES {
                    // Without the first, what is read must have what was written before the reader came.
                    let (sum, position) = last.borrow().clone();
                    let bounds = if number % 2 == 0 { at_least(&position) } else { staleness_max(0) };
                    let came = Instant::now();
                    let view = reader.view(&bounds, came, came + PATIENCE).await.expect("it comes in time");
                    let wallets = view.wallets(user(1)).await.expect("it is read").expect("enrolled");
                    assert!(wallets[0].1.balance >= i64::try_from(sum).expect("small"), "{} is older than {sum}", wallets[0].1.balance);
                    assert!(view.position().sequence >= position.sequence);
                    reads += 1;
                    // What is there at once is read without ever waiting: the writer has to get its turn.
                    tokio::task::yield_now().await;
                }
                reads
            })
        })
        .collect();
    for sum in 1..=WRITES {
        let position = pay_in(&shard, 1).await;
        written.send_replace((sum, position));
        if sum % 3 == 0 {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }
    for reader in readers {
        let reads = tokio::time::timeout(PATIENCE, reader).await.expect("it ends").expect("it finds nothing old");
        assert!(reads > 10, "{reads} reads");
    }
    feeding.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_waits_gets_the_tables_a_turn_also_far_behind() {
    let (shard, replica) = leader_and_copy().await;
    let position = pay_in(&shard, 5).await;
    let segments = shard.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let segments: Vec<Segment> = segments.iter().map(|segment| segment.as_ref().clone()).collect();
    replica.catch_up(segments, Sequence(1_000_000)).await.expect("they are added");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(replica.projected(), Some(Sequence(0)), "the journal comes first");
    let reader = Reader::Copied(replica.clone());
    let came = Instant::now();
    let view = reader.view(&at_least(&position), came, came + PATIENCE).await.expect("it is there");
    assert!(came.elapsed() < Duration::from_millis(100), "{:?}", came.elapsed());
    assert_eq!(view.wallets(user(1)).await.expect("it is read").expect("enrolled")[0].1.balance, 5);
}
