//! Storage that fails, and leaders that come and go: nothing is lost, nothing doubled, and everybody hears the truth.

#![forbid(unsafe_code)]

mod support;

use std::{sync::Arc, time::Duration};

use paymesh_journal::{
    Error as JournalError, Head, Journal, Origin, Segment,
    memory::{Dice, Fault, Faults, MemoryStore, Operation},
};
use paymesh_ledger::Request;
use paymesh_shard::{Error, Options, Shard};
use paymesh_types::{Epoch, Sequence};
use support::{Disk, Time, all, ask, balance, deposit, effects, enrol, eu, identity, journal, not_serving, proven, user};
use tokio::sync::Mutex;

#[tokio::test]
async fn a_leader_that_was_fenced_off_stops_and_says_so() {
    for disk in Disk::each() {
        let old = disk.open(&eu(0)).await;
        all(&old, [enrol(1), deposit(1, 100)]).await;
        let new = disk.open(&eu(0)).await;
        let why = not_serving(old.submit(ask(1, deposit(1, 10))).await);
        // Its projector may have found out before.
        assert!(why.contains("fenced: epoch 2 leads, 1 may not append") || why.contains("fenced: another leader"), "{why}");
        let problem = tokio::time::timeout(Duration::from_secs(10), old.stopped()).await.expect("it stops");
        assert!(problem.contains("fenced"), "{problem}");
        // From then on it serves nothing, reads neither: what it knows may be old.
        assert!(not_serving(old.submit(ask(2, deposit(1, 10))).await).contains("fenced"));
        assert!(not_serving(old.wallets(user(1)).await).contains("fenced"));

        let answer = new.submit(ask(1, deposit(1, 10))).await.expect("it is accepted");
        assert!(!answer.replayed && answer.position.epoch == Epoch(2));
        assert_eq!(balance(&new, 1).await, 110);
        proven(&new).await;
    }
}

/// A journal at whose end, when a leader first reads it, another leader appends: as late as it can.
#[derive(Debug)]
struct LateAppend {
    journal: Arc<dyn Journal>,
    other: Mutex<Option<Shard>>,
}

#[async_trait::async_trait]
impl Journal for LateAppend {
    async fn extend(&self, segments: &[Arc<Segment>]) -> Result<(), JournalError> {
        self.journal.extend(segments).await
    }

    async fn lead(&self) -> Result<Epoch, JournalError> {
        self.journal.lead().await
    }

    async fn append(&self, segment: &Segment) -> Result<(), JournalError> {
        self.journal.append(segment).await
    }

    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, JournalError> {
        let read = self.journal.read(from, bytes_max).await?;
        if read.is_empty()
            && let Some(other) = self.other.lock().await.take()
        {
            let why = not_serving(other.submit(ask(1, deposit(1, 10))).await);
            assert!(why.contains("fenced"), "{why}");
        }
        Ok(read)
    }

    async fn head(&self) -> Result<Head, JournalError> {
        self.journal.head().await
    }

    async fn origin(&self) -> Result<Origin, JournalError> {
        self.journal.origin().await
    }

    async fn prune(&self, epoch: Epoch, origin: &Origin) -> Result<(), JournalError> {
        self.journal.prune(epoch, origin).await
    }

    async fn jump(&self, origin: &Origin) -> Result<(), JournalError> {
        self.journal.jump(origin).await
    }
}

#[tokio::test]
async fn a_new_leader_deposes_the_old_one_before_it_reads() {
    let disk = Disk::memory(&eu(0));
    let old = disk.open(&eu(0)).await;
    all(&old, [enrol(1), deposit(1, 100)]).await;
    balance(&old, 1).await;
    let mut store = disk.store(&eu(0)).await.expect("the storage opens");
    store.journal = Arc::new(LateAppend { journal: store.journal, other: Mutex::new(Some(old)) });
    let new = Shard::open(&identity(&eu(0)), store, Options::default(), Time::new().clock()).await.expect("the shard opens");
    all(&new, [deposit(1, 5)]).await;
    assert_eq!(balance(&new, 1).await, 105);
    proven(&new).await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_leader_whose_storage_fails_does_not_depose_its_successor() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let disk = Disk::Memory(store.clone());
    let old = disk.open(&eu(0)).await;
    all(&old, [enrol(1)]).await;
    assert_eq!(balance(&old, 1).await, 0, "its tables are up to date, so that it has no more to do with them");
    let new = disk.open(&eu(0)).await;
    all(&new, [deposit(1, 5)]).await;
    store.fail_next(Operation::Read, Fault::Refused);
    // An id that is not of version 7 is looked up.
    let why = not_serving(old.submit(ask(3, deposit(1, 10))).await);
    assert!(why.contains("injected"), "{why}");
    let problem = tokio::time::timeout(Duration::from_secs(60), old.stopped()).await.expect("it stops");
    assert!(problem.contains("fenced"), "{problem}");
    new.submit(ask(1, deposit(1, 10))).await.expect("the leader of now serves");
    assert_eq!((balance(&new, 1).await, new.epoch()), (15, Epoch(2)));
}

#[tokio::test(start_paused = true)]
async fn while_the_storage_is_full_callers_are_told_and_afterwards_it_serves() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let disk = Disk::Memory(store.clone());
    let shard = disk.open(&eu(0)).await;
    all(&shard, [enrol(1), enrol(2), deposit(1, 1_000)]).await;
    for _ in 0..3 {
        store.fail_next(Operation::Append, Fault::Full);
    }
    for round in 0..3 {
        let requests = (1..=10).map(|number| ask(number, deposit(1, 1))).collect();
        let why = not_serving(shard.submit_all(requests).await);
        assert!(why.contains("is full"), "round {round}: {why}");
        assert!(shard.status().degraded.is_some_and(|why| why.contains("is full")), "round {round}");
        // It stands by: reads go on once it has found out where its storage is.
        assert_eq!(balance(&shard, 1).await, 1_000, "round {round}");
    }
    assert_eq!(shard.status().problem, None);
    let requests: Vec<Request> = (1..=10).map(|number| ask(number, deposit(1, 1))).collect();
    for (answer, replayed) in [(shard.submit_all(requests.clone()).await, false), (shard.submit_all(requests).await, true)] {
        assert!(answer.expect("it serves again").into_iter().all(|answer| answer.expect("it is accepted").replayed == replayed));
        assert_eq!(shard.status().degraded, None);
    }
    assert_eq!(balance(&shard, 1).await, 1_010);
    assert_eq!(effects(&journal(shard.store(), &eu(0)).await.1).len(), 10);
    proven(&shard).await;
}

/// A long failure keeps nobody waiting: not who is in the batch, nor who comes later.
#[tokio::test(start_paused = true)]
async fn while_the_storage_fails_everybody_who_asks_is_told_why() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
    all(&shard, [enrol(1), deposit(1, 1_000)]).await;
    balance(&shard, 1).await;
    store.set_faults(Faults { appends_per_mille: 1_000, reads_per_mille: 1_000, projections_per_mille: 1_000, ..Faults::none() });
    for number in 1..=20 {
        let asked = tokio::time::timeout(Duration::from_secs(3), shard.submit(ask(number, deposit(1, 1)))).await;
        let why = not_serving(asked.expect("it is answered soon"));
        assert!(why.contains("memory of eu-0"), "{why}");
    }
    store.set_faults(Faults::none());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = (1..=20).map(|number| ask(number, deposit(1, 1))).collect();
    shard.submit_all(requests).await.expect("it serves again");
    assert_eq!(balance(&shard, 1).await, 1_020);
    proven(&shard).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_that_failed_after_it_was_written_is_answered_as_committed() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let disk = Disk::Memory(store.clone());
    let shard = disk.open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    store.fail_next(Operation::Append, Fault::Ambiguous);
    let answer = shard.submit(ask(1, deposit(1, 10))).await.expect("it was written");
    assert_eq!((answer.position.sequence, answer.replayed), (Sequence(2), false));
    assert_eq!((balance(&shard, 1).await, shard.epoch()), (10, Epoch(1)), "nothing had to be recovered");
    assert!(shard.submit(ask(1, deposit(1, 10))).await.expect("it is the same again").replayed);

    // Where the journal does not say either, the caller cannot be told; asking again finds out.
    let store = store.crash();
    let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
    assert_eq!(balance(&shard, 1).await, 10);
    let request = ask(3, deposit(1, 5));
    all(&shard, [deposit(1, 1)]).await;
    assert_eq!(balance(&shard, 1).await, 11, "the tables are up to date, and read no more");
    store.fail_next(Operation::Append, Fault::Ambiguous);
    // The first read looks the request up, the second is of the journal's head.
    store.fail_after(1, Operation::Read, Fault::Refused);
    let why = not_serving(shard.submit(request.clone()).await);
    assert!(why.contains("injected: it failed after it was written"), "{why}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    // It was written: readers of the journal get it without anybody asking for more.
    let entry = shard.tail().entry(Sequence(4)).await.expect("it is there");
    assert_eq!((entry.1.request_id, shard.status().head), (request.id, Sequence(4)));
    assert!(shard.submit(request).await.expect("it was accepted before").replayed);
    assert_eq!(balance(&shard, 1).await, 16);
    assert_eq!(effects(&journal(shard.store(), &eu(0)).await.1).len(), 2);
    proven(&shard).await;
}

/// Neither the one who must not hear of it hears of it, nor does it come back beside what took its place.
#[tokio::test(start_paused = true)]
async fn what_was_written_and_not_synced_is_there_once_or_not_at_all() {
    let mut found_again = 0;
    for seed in 0..20 {
        let store = MemoryStore::with_faults(&identity(&eu(0)), Faults { seed, ..Faults::none() });
        let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
        all(&shard, [enrol(1)]).await;
        store.fail_next(Operation::Append, Fault::Unsynced);
        not_serving(shard.submit(ask(1, deposit(1, 10))).await);
        assert_eq!(balance(&shard, 1).await, 0);
        if seed % 2 == 0 {
            // It goes on: the next commit takes the place.
            tokio::time::sleep(Duration::from_secs(2)).await;
            all(&shard, [deposit(1, 1)]).await;
            assert!(!shard.submit(ask(1, deposit(1, 10))).await.expect("it is accepted").replayed);
            assert_eq!(balance(&shard, 1).await, 11);
        }
        let store = store.crash();
        shard.close().await;
        let shard = Disk::Memory(store).open(&eu(0)).await;
        let answer = shard.submit(ask(1, deposit(1, 10))).await.expect("it is accepted now or was before");
        found_again += u32::from(answer.replayed);
        assert_eq!(balance(&shard, 1).await, if seed % 2 == 0 { 11 } else { 10 }, "seed {seed}");
        proven(&shard).await;
    }
    assert!((11..20).contains(&found_again), "some of what was not synced is found after a crash: {found_again} of 20");
}

#[tokio::test(start_paused = true)]
async fn a_projection_that_failed_before_or_after_it_was_written_is_made_once() {
    for fault in [Fault::Full, Fault::Refused, Fault::Ambiguous] {
        let store = MemoryStore::new(&identity(&eu(0)));
        let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
        store.fail_next(Operation::Project, fault);
        all(&shard, [enrol(1), deposit(1, 10)]).await;
        assert_eq!(balance(&shard, 1).await, 10, "{fault:?}");
        all(&shard, [deposit(1, 10)]).await;
        assert_eq!(balance(&shard, 1).await, 20, "{fault:?}");
        assert_eq!(shard.status().problem, None, "{fault:?}");
        proven(&shard).await;
    }
}

/// Wherever on its way back it fails again, also with entries that the tables do not have yet.
#[tokio::test(start_paused = true)]
async fn a_recovery_that_fails_halfway_begins_again() {
    for (passes, operation) in (0..10).flat_map(|passes| [(passes, Operation::Read), (passes, Operation::Project)]) {
        for fault in [Fault::Refused, Fault::Ambiguous] {
            let store = MemoryStore::new(&identity(&eu(0)));
            let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
            all(&shard, [enrol(1), deposit(1, 100)]).await;
            balance(&shard, 1).await;
            // The tables are kept from having this one while the leader recovers.
            store.fail_next(Operation::Project, Fault::Full);
            all(&shard, [deposit(1, 10)]).await;
            store.fail_next(Operation::Append, Fault::Refused);
            store.fail_after(passes, operation, fault);
            not_serving(shard.submit(ask(1, deposit(1, 1))).await);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(shard.status().problem, None, "{operation:?} {passes} {fault:?}");
            store.set_faults(Faults::none());
            shard.submit(ask(1, deposit(1, 1))).await.expect("it serves again");
            assert_eq!(balance(&shard, 1).await, 111, "{operation:?} {passes} {fault:?}");
            proven(&shard).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn storage_that_fails_when_a_shard_opens_is_named() {
    let store = MemoryStore::new(&identity(&eu(0)));
    store.fail_next(Operation::Read, Fault::Refused);
    match Disk::Memory(store.clone()).try_open(&eu(0), Options::default(), &Time::new()).await {
        Err(Error::Storage { shard, source: JournalError::Engine { place, .. } }) => {
            assert_eq!((shard, place.as_str()), (eu(0), "memory of eu-0"));
        }
        other => panic!("it came to {other:?}"),
    }
    let _ = Disk::Memory(store).open(&eu(0)).await;
}

/// Everything at once, by seed: callers that ask again until they are answered, over storage that fails in every way.
#[tokio::test(start_paused = true)]
async fn whatever_fails_each_request_takes_effect_once() {
    let seeds = std::env::var("PAYMESH_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        storm(seed).await;
    }
}

async fn storm(seed: u64) {
    let faults = Faults { seed, appends_per_mille: 150, projections_per_mille: 150, reads_per_mille: 50, power_cuts_per_mille: 80 };
    let mut dice = Dice::new(seed ^ 0xdead);
    let mut store = MemoryStore::with_faults(&identity(&eu(0)), faults);
    let time = Time::new();
    // A small memory, so that records are read back from tables that were lost in part.
    let options = Options { records_max: 6, ..Options::default() };
    let mut shard = reopen(&mut store, &options, &time).await;
    let mut pending: Vec<Request> = (1..=10).map(|number| ask(u128::from(number), enrol(number))).collect();
    let mut answered = Vec::new();
    let mut made = 10;
    let mut rounds = 0;
    while made < 150 || !pending.is_empty() {
        rounds += 1;
        assert!(rounds < 20_000, "seed {seed}: the requests are never all answered");
        while (10..150).contains(&made) && answered.len() >= 10 && pending.len() < 8 {
            made += 1;
            pending.push(ask(made, deposit(1 + dice.below(10), 1 + dice.below(100) as i64)));
        }
        let count = pending.len().min(1 + dice.below(5) as usize);
        let asked: Vec<Request> = pending.drain(..count).collect();
        let calls = asked.iter().map(|request| tokio::time::timeout(Duration::from_secs(600), shard.submit(request.clone())));
        let answers = futures::future::join_all(calls).await;
        for (request, answer) in asked.into_iter().zip(answers) {
            match answer.unwrap_or_else(|_| panic!("seed {seed}: {request:?} is never answered")) {
                Ok(answer) => answered.push((request, answer)),
                Err(Error::NotServing { .. } | Error::Storage { .. }) => pending.push(request),
                Err(other) => panic!("seed {seed}: {request:?} came to {other}"),
            }
        }
        if store.is_down() || dice.happens(30) {
            let found = store.crash();
            shard.close().await;
            store = found;
            shard = reopen(&mut store, &options, &time).await;
        } else {
            assert_eq!(shard.status().problem, None, "seed {seed}: it stopped, and the storage works");
        }
    }
    store.set_faults(Faults::none());
    if store.is_down() {
        store = store.crash();
    }
    shard.close().await;
    let shard = reopen(&mut store, &options, &time).await;
    let (_, entries) = journal(shard.store(), &eu(0)).await;
    let effects = effects(&entries);
    assert_eq!(effects.len(), 150, "seed {seed}");
    let mut sum = 0;
    for (request, answer) in &answered {
        let (position, entry) = &entries[usize::try_from(answer.position.sequence.0).expect("small") - 1];
        assert_eq!((position, entry), (&answer.position, &answer.entry), "seed {seed}: what was answered is what is there");
        assert_eq!(entry.request_id, request.id, "seed {seed}");
        if let paymesh_ledger::Command::Deposit { money, .. } = &request.command {
            sum += money.minor();
        }
    }
    let mut balances = 0;
    for number in 1..=10 {
        balances += balance(&shard, number).await;
    }
    assert_eq!(balances, sum, "seed {seed}");
    proven(&shard).await;
}

async fn reopen(store: &mut MemoryStore, options: &Options, time: &Time) -> paymesh_shard::Shard {
    for _ in 0..1_000 {
        match Disk::Memory(store.clone()).try_open(&eu(0), options.clone(), time).await {
            Ok(shard) => return shard,
            Err(Error::Storage { source, .. }) if source.is_retryable() => {}
            Err(other) => panic!("opening came to {other}"),
        }
        if store.is_down() {
            *store = store.crash();
        }
    }
    panic!("it never opens");
}

/// A leader that recovers keeps its tables to itself; that must not be a turn to project that others wait for.
#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_under_one_shard_does_not_hold_up_the_tables_of_another() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let sick = Disk::Memory(store.clone()).open(&eu(0)).await;
    let disk = Disk::sqlite();
    let well = disk.open(&eu(1)).await;
    all(&sick, [enrol(4), deposit(4, 1)]).await;
    all(&well, [enrol(1), deposit(1, 1)]).await;
    assert_eq!((balance(&sick, 4).await, balance(&well, 1).await), (1, 1));
    // A turn that takes long: meanwhile the other shard's projector queues, and its leader begins to recover.
    let mut raw = support::raw(&disk, "eu-1.tables.sqlite").await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut raw).await.expect("it is held");
    all(&well, [deposit(1, 1)]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    all(&sick, [deposit(4, 1)]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.set_faults(Faults { appends_per_mille: 1_000, reads_per_mille: 1_000, projections_per_mille: 1_000, ..Faults::none() });
    assert!(sick.submit(ask(1, deposit(4, 1))).await.is_err());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    sqlx::query("ROLLBACK").execute(&mut raw).await.expect("it is let go");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    all(&well, [deposit(1, 1)]).await;
    let read = tokio::time::timeout(Duration::from_secs(10), balance(&well, 1)).await;
    assert_eq!(read.expect("it is not held up"), 3);
}
