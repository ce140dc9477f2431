//! A journal that is not kept for ever: what goes, what stays, and that nobody loses a cent by it.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::{
    Origin, Store, checkpoint,
    memory::{Fault, Faults, MemoryStore, Operation},
};
use paymesh_shard::{Error, Options, Replica, ReplicaOptions, Retention, Shard, Source, inbox, verify_replica};
use paymesh_types::Sequence;
use support::{Disk, Time, all, ask, balance, deposit, enrol, eu, id, identity, pay, pay_to, payment_of, problems, proven, user};

const DAY_S: u64 = 24 * 3600;
/// Longer than the tests last by the shard's clock.
const HOLD_S: u32 = 30 * 24 * 3600;

/// Outcomes for a day, entries for two.
fn options() -> Options {
    Options {
        outcome_retention: Duration::from_secs(DAY_S),
        retention: Retention { time: Some(Duration::from_secs(2 * DAY_S)), bytes: None },
        ..Options::default()
    }
}

async fn open(disk: &MemoryStore, index: u16, time: &Time) -> Shard {
    Disk::Memory(disk.clone()).try_open(&eu(index), options(), time).await.expect("the shard opens")
}

/// Three users with a past, and the request ids 1 to 60 in it.
async fn fill(shard: &Shard, time: &Time) {
    let mut number = 0;
    let mut submit = async |command| {
        number += 1;
        shard.submit(ask(number, command)).await.expect("it is accepted");
        time.pass_seconds(60);
    };
    for user in 1..=3 {
        submit(enrol(user)).await;
        submit(deposit(user, 10_000)).await;
    }
    for round in 0..27 {
        submit(pay(1 + round % 3, 1 + (round + 1) % 3, 10)).await;
        submit(pay_to(1, 2, None, 1, HOLD_S)).await;
    }
}

/// A shard with user 4, who has money, and one with user 5, who has none.
struct Two {
    time: Time,
    ours: MemoryStore,
    theirs: MemoryStore,
    payers: Shard,
    payees: Shard,
}

async fn two() -> Two {
    let time = Time::new();
    let (ours, theirs) = (MemoryStore::new(&identity(&eu(0))), MemoryStore::new(&identity(&eu(1))));
    let (payers, payees) = (open(&ours, 0, &time).await, open(&theirs, 1, &time).await);
    all(&payers, [enrol(4), deposit(4, 1_000)]).await;
    all(&payees, [enrol(5)]).await;
    Two { time, ours, theirs, payers, payees }
}

/// Turns pass, until the journal begins at least there.
async fn kept_from(shard: &Shard, first: u64) {
    for _ in 0..20 {
        if shard.tail().kept_after().0 + 1 >= first {
            return;
        }
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    panic!("the journal of {} begins after {}, not with {first}", shard.reference(), shard.tail().kept_after());
}

async fn history(shard: &Shard) -> Vec<String> {
    let mut all = Vec::new();
    for number in 1..=3 {
        let lines = shard.statement(user(number), support::euro(), None, 1_000).await.expect("it serves").expect("an account");
        all.extend(lines.items.iter().map(|line| format!("{line:?}")));
        let payments = shard.payments(user(number), None, 1_000).await.expect("it serves").expect("a list");
        all.extend(payments.items.iter().map(|payment| format!("{payment:?}")));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn what_is_past_the_retention_goes_and_nothing_else_changes() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    let past = shard.status().head;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(shard.tail().kept_after(), Sequence(0), "nothing is old enough");
    time.pass_seconds(3 * DAY_S);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(shard.tail().kept_after(), Sequence(0), "by the time of its entries, not by a clock");
    shard.submit(ask(100, deposit(1, 5))).await.expect("it is accepted");
    kept_from(&shard, past.0 + 1).await;
    let before = history(&shard).await;
    proven(&shard).await;
    assert!(shard.tail().bytes() > 0);

    // An id from then is new again, one from now is answered.
    assert!(shard.outcome(id(5)).await.expect("it serves").is_none());
    assert!(shard.outcome(id(100)).await.expect("it serves").is_some());
    let again = shard.submit(ask(5, deposit(2, 1))).await.expect("it is accepted");
    assert!(!again.replayed);
    assert!(shard.submit(ask(5, deposit(2, 1))).await.expect("it is accepted").replayed);
    shard.submit(ask(101, support::withdraw(2, 1))).await.expect("it is accepted");
    shard.close().await;

    // After a crash, and with tables that are made of the checkpoint, it is the same.
    for lost in [false, true] {
        let disk = disk.crash();
        if lost {
            disk.lose_tables();
        }
        let shard = open(&disk, 0, &time).await;
        match shard.tail().next(Sequence(1)).await {
            Err(Error::NotKept { first, wanted, .. }) => assert_eq!((first, wanted), (past.next(), Sequence(1))),
            other => panic!("what is not kept came to {other:?}"),
        }
        let now = history(&shard).await;
        assert_eq!(now.len(), before.len() + 2);
        assert!(before.iter().all(|line| now.contains(line)), "statements lose nothing");
        proven(&shard).await;
        all(&shard, [pay(1, 2, 7)]).await;
        proven(&shard).await;
        shard.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_is_kept_within_its_bytes_but_for_what_outcomes_are_read_from() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let options = Options { retention: Retention { time: None, bytes: Some(3_000) }, ..options() };
    let shard = Disk::Memory(disk).try_open(&eu(0), options, &time).await.expect("it opens");
    fill(&shard, &time).await;
    let past = shard.status().head;
    assert!(shard.tail().bytes() > 6_000, "{}", shard.tail().bytes());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(shard.tail().kept_after(), Sequence(0), "outcomes are read from all of it");
    time.pass_seconds(DAY_S + 3_600);
    all(&shard, [deposit(1, 1)]).await;
    kept_from(&shard, 2).await;
    assert!(shard.tail().bytes() <= 3_000, "{}", shard.tail().bytes());
    assert!(shard.tail().kept_after() < past, "as many stay as fit");
    proven(&shard).await;
}

/// As a leader of `eu/1` would, from where its own books say.
fn inbox(source: &Shard, to: &Shard) -> tokio::task::JoinHandle<String> {
    tokio::spawn(inbox::follow(Source::Led(source.tail().clone()), to.clone()))
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}");
}

#[tokio::test(start_paused = true)]
async fn money_in_transit_keeps_its_entry_however_long_the_other_shard_is_away() {
    let Two { time, payers, payees, .. } = two().await;
    let sent = all(&payers, [pay_to(4, 5, Some(eu(1)), 100, 0)]).await[0].position.sequence;
    for _ in 0..5 {
        time.pass_seconds(30 * DAY_S);
        all(&payers, [deposit(4, 1)]).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
    }
    assert_eq!(payers.tail().kept_after(), Sequence(sent.0 - 1), "up to it, and no further");
    proven(&payers).await;

    // It is taken in, and the payer's shard hears of it: then it goes.
    let both = [inbox(&payers, &payees), inbox(&payees, &payers)];
    until("the money arrives", async || balance(&payees, 5).await == 100).await;
    let payment = async || payers.payment(&payment_of_sequence(&payers, sent)).await.expect("it serves").expect("it is there").0;
    until("the acknowledgement arrives", async || !payment().await.in_transit).await;
    kept_from(&payers, sent.0 + 1).await;
    assert_eq!((balance(&payers, 4).await, balance(&payees, 5).await), (905, 100));
    proven(&payers).await;
    both.iter().for_each(tokio::task::JoinHandle::abort);
}

fn payment_of_sequence(shard: &Shard, sequence: Sequence) -> paymesh_types::PaymentId {
    let epoch = shard.epoch();
    paymesh_types::PaymentId::from(paymesh_types::Position { shard: shard.reference().clone(), epoch, sequence })
}

/// Both have come further than what the other keeps of its journal: nothing is lost, nothing is booked twice, and what was
/// acknowledged by entries that are gone is acknowledged all the same.
#[tokio::test(start_paused = true)]
async fn an_inbox_that_comes_later_goes_on_where_the_journal_begins() {
    let Two { time, theirs, payers, payees, .. } = two().await;
    let answers = all(&payers, [pay_to(4, 5, Some(eu(1)), 100, 0)]).await;
    let taking = inbox(&payers, &payees);
    until("the money arrives", async || balance(&payees, 5).await == 100).await;
    taking.abort();
    let _ = taking.await;
    // The payee's shard lets go of the entry that acknowledges it, which nobody has read.
    time.pass_seconds(5 * DAY_S);
    all(&payees, [deposit(5, 1)]).await;
    kept_from(&payees, 3).await;
    let view = async || payers.payment(&payment_of(&answers[0])).await.expect("it serves").expect("it is there").0;
    assert!(view().await.in_transit);
    // Nor is it in memory any more.
    payees.close().await;
    let payees = open(&theirs, 1, &time).await;
    let hearing = inbox(&payees, &payers);
    until("it is acknowledged by where the journal begins", async || !view().await.in_transit).await;
    // Now the payer's shard lets go of its own, and the payee's inbox comes again from where it was.
    time.pass_seconds(5 * DAY_S);
    all(&payers, [deposit(4, 1)]).await;
    kept_from(&payers, answers[0].position.sequence.0 + 1).await;
    let taking = inbox(&payers, &payees);
    all(&payers, [pay_to(4, 5, Some(eu(1)), 10, 0)]).await;
    until("what comes later arrives", async || balance(&payees, 5).await == 111).await;
    for shard in [&payers, &payees] {
        proven(shard).await;
    }
    for task in [hearing, taking] {
        assert!(!task.is_finished());
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_lacks_money_which_is_gone_stops_and_says_so() {
    let Two { time, ours, theirs, payers, payees } = two().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let backup = theirs.backup();
    all(&payers, [pay_to(4, 5, Some(eu(1)), 100, 0)]).await;
    let both = [inbox(&payers, &payees), inbox(&payees, &payers)];
    until("the money arrives", async || balance(&payees, 5).await == 100).await;
    time.pass_seconds(5 * DAY_S);
    all(&payers, [deposit(4, 1)]).await;
    kept_from(&payers, 4).await;
    both.iter().for_each(tokio::task::JoinHandle::abort);
    payees.close().await;
    payers.close().await;
    let payers = open(&ours, 0, &time).await;
    // An operator puts the payee's shard back to before it had the money.
    let payees = open(&backup, 1, &time).await;
    let why = tokio::time::timeout(Duration::from_secs(3_600), inbox(&payers, &payees)).await.expect("it stops").expect("it does not die");
    assert!(why.contains("eu/0") && why.contains("money that was on its way is not there any more"), "{why}");
    assert_eq!(balance(&payees, 5).await, 0, "nothing was made up");
}

/// Whatever fails, and wherever the machine stops: the shard serves again, its books are proven, and it gets there in the end.
#[tokio::test(start_paused = true)]
async fn wherever_it_stops_while_it_lets_go_nothing_is_lost() {
    const KINDS: [Fault; 5] = [Fault::Refused, Fault::Ambiguous, Fault::Full, Fault::PowerCutBefore, Fault::PowerCutAfter];
    for operation in [Operation::Checkpoint, Operation::Prune] {
        for fault in KINDS {
            for passes in 0..4 {
                let what = format!("{operation:?} {fault:?} after {passes}");
                let (time, mut disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
                let shard = open(&disk, 0, &time).await;
                fill(&shard, &time).await;
                let past = shard.status().head;
                time.pass_seconds(3 * DAY_S);
                disk.fail_after(passes, operation, fault);
                all(&shard, [deposit(1, 5)]).await;
                let before = history(&shard).await;
                tokio::time::sleep(Duration::from_secs(90)).await;
                shard.close().await;
                disk = disk.crash();
                disk.lose_tables();
                let shard = open(&disk, 0, &time).await;
                assert!(history(&shard).await == before, "{what}");
                assert_eq!(problems(&shard).await, Vec::<String>::new(), "{what}");
                kept_from(&shard, past.0 + 1).await;
                assert_eq!(problems(&shard).await, Vec::<String>::new(), "{what}");
                assert!(history(&shard).await == before, "{what}");
                shard.close().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_is_found_and_not_believed() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    time.pass_seconds(3 * DAY_S);
    all(&shard, [deposit(1, 5)]).await;
    kept_from(&shard, 60).await;
    proven(&shard).await;
    assert!(disk.damage_chunk(0, |chunk| {
        let middle = chunk.len() / 2;
        chunk[middle] ^= 1;
    }));
    let found = problems(&shard).await;
    assert!(found.iter().any(|problem| problem.contains("the checkpoint's chunk 0")), "{found:?}");
    shard.close().await;
    // With its tables it serves on; without, it says why it does not.
    open(&disk, 0, &time).await.close().await;
    disk.lose_tables();
    let refused = Disk::Memory(disk).try_open(&eu(0), options(), &time).await.expect_err("there is nothing to make tables of");
    assert!(refused.to_string().contains("the checkpoint's chunk 0"), "{refused}");
}

/// A copy that begins with the leader's checkpoint, where the leader's journal begins.
#[tokio::test(start_paused = true)]
async fn a_copy_begins_with_a_checkpoint_and_comes_to_what_its_leader_has() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    time.pass_seconds(3 * DAY_S);
    all(&shard, [deposit(1, 5), pay(1, 2, 3)]).await;
    kept_from(&shard, 60).await;
    all(&shard, [pay(2, 3, 4), deposit(3, 9)]).await;
    let leader = shard.store();
    let manifest = leader.checkpoints.latest().await.expect("it is read").expect("there is one");
    let origin: Origin = shard.tail().origin().await.expect("it is read");
    for fault in [None, Some(Fault::PowerCutBefore), Some(Fault::PowerCutAfter)] {
        let mut own = MemoryStore::new(&identity(&eu(0)));
        let store: Store = own.open(&identity(&eu(0))).expect("it opens");
        store.checkpoints.begin(Some(&manifest)).await.expect("it is begun");
        for (index, _) in (0..).zip(&manifest.chunks) {
            let chunk = leader.checkpoints.chunk(&manifest.root(), index).await.expect("it is read").expect("it is there");
            store.checkpoints.add(index, &chunk).await.expect("it is added");
        }
        store.checkpoints.finish(&manifest).await.expect("it is finished");
        store.journal.jump(&origin).await.expect("it begins there");
        let copy_options = ReplicaOptions { outcome_retention: Duration::from_secs(DAY_S), retention: Retention::default() };
        if let Some(fault) = fault {
            // Halfway through making the tables.
            own.fail_after(1, Operation::Project, fault);
            let died = Replica::open(&identity(&eu(0)), store.journal.clone(), Some(store.clone()), copy_options).await;
            assert!(died.is_err());
            own = own.crash();
        }
        let store: Store = own.open(&identity(&eu(0))).expect("it opens");
        let copy = Replica::open(&identity(&eu(0)), store.journal.clone(), Some(store.clone()), copy_options).await.expect("it opens");
        assert_eq!((copy.end().await.sequence, copy.projected()), (origin.sequence, Some(manifest.sequence)));
        let segments = shard.tail().segments(origin.sequence.next(), usize::MAX).await.expect("they are read");
        copy.add(segments.iter().map(|segment| segment.as_ref().clone()).collect()).await.expect("they are added");
        assert_eq!(copy.end().await.sequence, shard.status().head);
        let head = shard.status().head;
        until("the tables follow", async || copy.projected() == Some(head)).await;
        let report = verify_replica(&copy, head, |_, _| {}).await.expect("it is read");
        assert_eq!((report.problems, report.sequence), (Vec::<String>::new(), head));
        assert_eq!(report.hash_at, leader.journal.head().await.expect("it is read").hash);
        assert_eq!(store.tables.wallets(user(3)).await.expect("read")[0].1, support::wallet(&shard, 3).await);
        copy.close().await;
    }
    // A checkpoint of another history is found out as soon as the journal has come so far.
    let own = MemoryStore::new(&identity(&eu(0)));
    let store: Store = own.open(&identity(&eu(0))).expect("it opens");
    let snapshot = leader.tables.snapshot().await.expect("a snapshot");
    let ending = leader.journal.read(snapshot.cursor(), 0).await.expect("it is read").remove(0);
    let other = paymesh_journal::Segment { hash: [7; 32], ..ending };
    checkpoint::make(&eu(0), snapshot, &other, &store.checkpoints).await.expect("it is made");
    store.journal.jump(&origin).await.expect("it begins there");
    let copy_options = ReplicaOptions { outcome_retention: Duration::from_secs(DAY_S), retention: Retention::default() };
    let copy = Replica::open(&identity(&eu(0)), store.journal.clone(), Some(store), copy_options).await.expect("it opens");
    let segments = shard.tail().segments(origin.sequence.next(), usize::MAX).await.expect("they are read");
    let refused = copy.add(segments.iter().map(|segment| segment.as_ref().clone()).collect()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("of another journal")));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_transit_is_known_after_a_restart_also_where_the_journal_begins_after_the_last_acknowledgement() {
    let Two { time, ours, payers, payees, .. } = two().await;
    let answers = all(&payers, [pay_to(4, 5, Some(eu(1)), 100, 0)]).await;
    let both = [inbox(&payers, &payees), inbox(&payees, &payers)];
    let view = async || payers.payment(&payment_of(&answers[0])).await.expect("it serves").expect("it is there").0;
    until("it is acknowledged", async || !view().await.in_transit).await;
    both.iter().for_each(tokio::task::JoinHandle::abort);
    all(&payers, (0..20).map(|_| deposit(4, 1)).collect::<Vec<_>>()).await;
    time.pass_seconds(5 * DAY_S);
    all(&payers, [deposit(4, 1)]).await;
    kept_from(&payers, answers[0].position.sequence.0 + 5).await;
    payers.close().await;
    let payers = open(&ours, 0, &time).await;
    all(&payers, [pay_to(4, 5, Some(eu(1)), 10, 0)]).await;
    until("it is known to be in transit", async || payers.unacknowledged().values().any(Option::is_some)).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_whose_entry_is_gone_is_gone_with_it_also_where_tables_are_made_of_a_checkpoint() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    let past = shard.status().head;
    time.pass_seconds(3 * DAY_S);
    shard.submit(ask(100, deposit(1, 5))).await.expect("it is accepted");
    kept_from(&shard, past.0 + 1).await;
    shard.close().await;
    let disk = disk.crash();
    disk.lose_tables();
    let shard = open(&disk, 0, &time).await;
    let again = shard.submit(ask(6, deposit(3, 10_000))).await;
    assert!(again.is_ok(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn an_id_is_forgotten_before_the_entry_that_it_is_answered_from() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let keeps_all = Options { retention: Retention::default(), outcome_retention: Duration::from_secs(30 * DAY_S), ..options() };
    let shard = Disk::Memory(disk.clone()).try_open(&eu(0), keeps_all, &time).await.expect("it opens");
    fill(&shard, &time).await;
    let past = shard.status().head;
    time.pass_seconds(3 * DAY_S);
    shard.submit(ask(100, deposit(1, 5))).await.expect("it is accepted");
    shard.close().await;
    // Opened by who keeps less, it lets go at once, long before ids are purged by the clock.
    let shard = open(&disk, 0, &time).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shard.tail().kept_after(), past);
    let again = shard.submit(ask(5, deposit(2, 1))).await.expect("it is new");
    assert!(!again.replayed);
    proven(&shard).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_tables_do_not_hold_yet_stays() {
    for seed in 1..=20 {
        let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
        let shard = open(&disk, 0, &time).await;
        fill(&shard, &time).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let filled = balance(&shard, 1).await;
        disk.set_faults(Faults { seed, projections_per_mille: 1_000, ..Faults::none() });
        all(&shard, (0..20).map(|_| deposit(1, 1)).collect::<Vec<_>>()).await;
        time.pass_seconds(3 * DAY_S);
        all(&shard, [deposit(1, 1)]).await;
        // The first turn after it; what fails was done all the same now and then.
        tokio::time::sleep(Duration::from_secs(61)).await;
        let projected = shard.store().tables.cursor().await.expect("it is read");
        assert!(shard.tail().kept_after() <= projected, "seed {seed}: {} after {projected}", shard.tail().kept_after());
        shard.close().await;
        let disk = disk.crash();
        disk.set_faults(Faults::none());
        disk.lose_tables();
        let shard = open(&disk, 0, &time).await;
        assert_eq!(balance(&shard, 1).await, filled + 21, "seed {seed}");
        proven(&shard).await;
        shard.close().await;
    }
}

/// Tables that nothing fails for, and that are behind all the same: what they do not hold is nowhere but in its entries.
#[tokio::test(start_paused = true)]
async fn what_waits_for_the_tables_stays() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    let filled = (balance(&shard, 1).await, shard.status().head);
    until("the tables follow", async || shard.status().projected == filled.1).await;
    disk.hold_projections();
    all(&shard, (0..20).map(|_| deposit(1, 1)).collect::<Vec<_>>()).await;
    time.pass_seconds(3 * DAY_S);
    all(&shard, [deposit(1, 1)]).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(disk.projection_waits());
    assert_eq!(shard.tail().kept_after(), filled.1, "all that the tables hold goes, and no more");
    let disk = disk.crash();
    disk.lose_tables();
    shard.close().await;
    let shard = open(&disk, 0, &time).await;
    assert_eq!(balance(&shard, 1).await, filled.0 + 21);
    proven(&shard).await;
}

/// The journal begins later, and the shard does not hear of it for a minute.
#[tokio::test(start_paused = true)]
async fn an_id_is_forgotten_before_the_entry_that_it_is_answered_from_also_where_nobody_hears_that_this_is_gone() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let keeps_all = Options { retention: Retention::default(), outcome_retention: Duration::from_secs(30 * DAY_S), ..options() };
    let shard = Disk::Memory(disk.clone()).try_open(&eu(0), keeps_all, &time).await.expect("it opens");
    fill(&shard, &time).await;
    let past = shard.status().head;
    time.pass_seconds(3 * DAY_S);
    shard.submit(ask(100, deposit(1, 5))).await.expect("it is accepted");
    shard.close().await;
    disk.fail_next(Operation::Prune, Fault::Ambiguous);
    let shard = open(&disk, 0, &time).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shard.store().journal.origin().await.expect("it is read").sequence, past);
    assert_eq!(shard.tail().kept_after(), Sequence(0), "it has not heard of it");
    let again = shard.submit(ask(5, deposit(2, 1))).await.expect("it is new");
    assert!(!again.replayed);
    assert!(shard.submit(ask(100, deposit(1, 5))).await.expect("it is answered").replayed);
    proven(&shard).await;
}

/// A checkpoint reaches further than what goes at first; when more goes, it is from before this start.
#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_is_replaced_before_anything_goes_that_it_stands_for() {
    let (time, disk) = (Time::new(), MemoryStore::new(&identity(&eu(0))));
    let shard = open(&disk, 0, &time).await;
    fill(&shard, &time).await;
    time.pass_seconds(DAY_S + 3_600);
    all(&shard, [deposit(1, 5), deposit(2, 5)]).await;
    let later = shard.status().head;
    // Past the retention is what was filled in, but the checkpoint holds the deposits too.
    time.pass_seconds(DAY_S);
    all(&shard, [deposit(1, 5)]).await;
    kept_from(&shard, 60).await;
    let first = shard.tail().kept_after();
    assert!(first < later);
    let root = async |store: &Store| store.checkpoints.latest().await.expect("it is read").expect("there is one").root();
    let before = root(shard.store()).await;
    assert!(shard.store().checkpoints.latest().await.expect("it is read").expect("there is one").sequence >= later);
    shard.close().await;
    assert!(disk.damage_chunk(0, |chunk| {
        let middle = chunk.len() / 2;
        chunk[middle] ^= 1;
    }));
    let shard = open(&disk, 0, &time).await;
    time.pass_seconds(2 * DAY_S);
    all(&shard, [deposit(1, 5)]).await;
    kept_from(&shard, later.0 + 1).await;
    assert_ne!(root(shard.store()).await, before);
    proven(&shard).await;
    let balance_before = balance(&shard, 1).await;
    shard.close().await;
    disk.lose_tables();
    let shard = open(&disk, 0, &time).await;
    assert_eq!(balance(&shard, 1).await, balance_before);
    proven(&shard).await;
}
