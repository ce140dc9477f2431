//! A shard that was put back from a backup gives its numbers out a second time. What others say of the first history is not said of the
//! second.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::memory::MemoryStore;
use paymesh_ledger::{Command, Credit, Message, Phase};
use paymesh_shard::{Shard, Source, inbox};
use paymesh_types::{PaymentId, Sequence};
use support::{Disk, all, balance, deposit, enrol, eu, euro, identity, money, pay_to, payment_of, problems, proven, raw, user, withdraw};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than what is heard waits to be noted.
const NOTED: Duration = Duration::from_millis(400);

/// `to` reads the journal of `source`.
fn follow(source: &Shard, to: &Shard) -> JoinHandle<String> {
    tokio::spawn(inbox::follow(Source::Led(source.tail().clone()), to.clone()))
}

/// As a copy of it is read, which may end before what was read of the one before it.
fn follow_copy(source: &Shard, to: &Shard) -> JoinHandle<String> {
    tokio::spawn(inbox::follow(Source::Followed(source.tail().clone()), to.clone()))
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

async fn stopped(task: JoinHandle<String>) -> String {
    tokio::time::timeout(PATIENCE, task).await.expect("it stops").expect("it does not die")
}

async fn in_transit(shard: &Shard, payment: &PaymentId) -> bool {
    shard.payment(payment).await.expect("it serves").expect("it is there").0.in_transit
}

/// The disks of eu/0, where user 4 has 1000, and of eu/1, where user 5 is if `enrolled`; eu/0 had a term already.
async fn disks(enrolled: bool) -> (MemoryStore, MemoryStore) {
    let (ours, theirs) = (MemoryStore::new(&identity(&eu(0))), MemoryStore::new(&identity(&eu(1))));
    let (payers, payees) = (open(&ours, 0).await, open(&theirs, 1).await);
    all(&payers, [enrol(4), deposit(4, 1_000)]).await;
    all(&payees, [enrol(if enrolled { 5 } else { 6 })]).await;
    payers.close().await;
    payees.close().await;
    (ours, theirs)
}

async fn open(disk: &MemoryStore, index: u16) -> Shard {
    Disk::Memory(disk.clone()).open(&eu(index)).await
}

/// Pays 5 so often, so much, each by a commit of its own.
async fn pay(payers: &Shard, times: usize, minor: i64) -> Vec<PaymentId> {
    let mut made = Vec::new();
    for _ in 0..times {
        made.push(payment_of(&all(payers, [pay_to(4, 5, Some(eu(1)), minor, 0)]).await[0]));
    }
    made
}

#[tokio::test]
async fn what_was_taken_in_of_another_history_completes_no_payment() {
    for grown in [true, false] {
        let (ours, theirs) = disks(true).await;
        let (backup, payees) = (ours.backup(), open(&theirs, 1).await);
        let first = open(&ours, 0).await;
        let made = pay(&first, 3, 100).await;
        let both = [follow(&first, &payees), follow(&payees, &first)];
        until("the first history is acknowledged", async || !in_transit(&first, &made[2]).await).await;
        both.iter().for_each(JoinHandle::abort);
        assert_eq!(first.inbox_problems().borrow().len(), 0);
        first.close().await;

        let second = open(&backup, 0).await;
        let before = if grown { pay(&second, 9, 10).await } else { Vec::new() };
        let hearing = follow(&payees, &second);
        until("it is said", async || second.inbox_problems().borrow().contains_key(&eu(1))).await;
        let why = second.inbox_problems().borrow()[&eu(1)].clone();
        assert!(why.contains("another history of eu/0") && why.contains("not believed"), "{why}");
        let made = if grown { before } else { pay(&second, 9, 10).await };
        // What the other shard does of its own is taken in all the same, and what is heard until then is noted with it.
        all(&payees, [pay_to(5, 4, Some(eu(0)), 7, 0)]).await;
        until("it arrives", async || balance(&second, 4).await == 1_000 - 90 + 7).await;
        tokio::time::sleep(NOTED).await;
        for payment in &made {
            assert!(in_transit(&second, payment).await, "{grown}: {payment} was never credited");
        }
        assert!(!hearing.is_finished());
        assert_eq!(balance(&payees, 5).await, 300 - 7);
        proven(&second).await;
        hearing.abort();
    }
}

/// The payment's id is the same in both histories, its payer and its amount too.
#[tokio::test]
async fn money_that_another_history_sent_does_not_come_back_to_this_one() {
    let (ours, theirs) = disks(false).await;
    let (backup, payees) = (ours.backup(), open(&theirs, 1).await);
    let first = open(&ours, 0).await;
    let made = pay(&first, 1, 100).await;
    let both = [follow(&first, &payees), follow(&payees, &first)];
    until("it comes back", async || balance(&first, 4).await == 1_000).await;
    both.iter().for_each(JoinHandle::abort);
    first.close().await;

    let second = open(&backup, 0).await;
    assert_eq!(pay(&second, 1, 100).await, made);
    let why = stopped(follow(&payees, &second)).await;
    assert!(why.contains("answers entry 3 of another history of eu/0"), "{why}");
    assert_eq!(second.inbox_problems().borrow()[&eu(1)], why);
    assert_eq!(balance(&second, 4).await, 900);
    assert!(in_transit(&second, &made[0]).await);
    // Nor after a restart: the inbox has not passed it.
    second.close().await;
    let second = open(&backup, 0).await;
    assert_eq!(stopped(follow(&payees, &second)).await, why);
    assert_eq!(balance(&second, 4).await, 900);
    proven(&second).await;
}

/// What the first history sent back is with its payer again: the second one, which knows nothing of that, does not take it in.
#[tokio::test]
async fn what_another_history_sent_back_is_not_credited_by_this_one() {
    for later in [false, true] {
        let (ours, theirs) = disks(true).await;
        let (backup, payers) = (ours.backup(), open(&theirs, 1).await);
        all(&payers, [deposit(5, 100)]).await;
        let first = open(&ours, 0).await;
        // After the backup the payee takes all out, and closes the account.
        all(&first, [withdraw(4, 1_000), Command::CloseAccount { user: user(4), currency: euro() }]).await;
        let made = payment_of(&all(&payers, [pay_to(5, 4, Some(eu(0)), 100, 0)]).await[0]);
        let before = first.tail().head();
        let taking = follow(&payers, &first);
        let returned =
            async || payers.payment(&made).await.expect("it serves").expect("it is there").0.row.payment.phase == Phase::Returned;
        let come_back = async || {
            let hearing = follow(&first, &payers);
            until("it comes back", returned).await;
            hearing.abort();
        };
        if later {
            until("it is sent back", async || first.tail().head() > before).await;
        } else {
            come_back().await;
        }
        taking.abort();
        let second = open(&backup, 0).await;
        let taking = follow(&payers, &second);
        if later {
            // The first history was asked before, and answers last. That this is found is all that can be done.
            until("it is taken in", async || balance(&second, 4).await == 1_100).await;
            come_back().await;
        }
        let why = stopped(taking).await;
        assert!(why.contains("another history of eu/0"), "{why}");
        assert_eq!(second.inbox_problems().borrow()[&eu(1)], why);
        assert_eq!((balance(&payers, 5).await, balance(&second, 4).await), (100, if later { 1_100 } else { 1_000 }));
    }
}

/// Whatever keeps the copy, and whatever that knows of the copy before it: who took money from the one history takes none from another.
#[tokio::test]
async fn nothing_is_taken_in_of_another_history_than_before_however_long_that_is() {
    for copied in [false, true] {
        let (ours, theirs) = disks(true).await;
        let (backup, payees) = (ours.backup(), open(&theirs, 1).await);
        let first = open(&ours, 0).await;
        pay(&first, 3, 100).await;
        let taking = follow(&first, &payees);
        until("it is taken in", async || balance(&payees, 5).await == 300).await;
        taking.abort();
        first.close().await;
        payees.close().await;

        let (second, payees) = (open(&backup, 0).await, open(&theirs, 1).await);
        let taking = if copied {
            pay(&second, 1, 10).await;
            let taking = follow_copy(&second, &payees);
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(!taking.is_finished(), "it may come to where the first one was");
            pay(&second, 8, 10).await;
            taking
        } else {
            pay(&second, 9, 10).await;
            follow(&second, &payees)
        };
        let why = stopped(taking).await;
        assert!(why.contains("the journal of eu/0 has another entry") && why.contains("another history"), "{why}");
        assert_eq!(balance(&payees, 5).await, 300);
        // The first one goes on where it was.
        let first = open(&ours, 0).await;
        let taking = follow(&first, &payees);
        pay(&first, 1, 1).await;
        until("it goes on", async || balance(&payees, 5).await == 301).await;
        assert_eq!(payees.inbox_problems().borrow().len(), 0);
        taking.abort();
    }
}

/// Entries that a version wrote which noted no history.
#[tokio::test]
async fn an_acknowledgement_that_says_of_no_history_is_believed() {
    let (ours, theirs) = disks(true).await;
    let (payers, payees) = (open(&ours, 0).await, open(&theirs, 1).await);
    let made = pay(&payers, 2, 100).await;
    let sequences: Vec<Sequence> = made.iter().map(PaymentId::sequence).collect();
    for (payment, sequence) in made.iter().zip(&sequences) {
        let credit = Credit { payment: payment.clone(), payer: user(4), payee: user(5), money: money(100), reason: None };
        all(&payees, [Command::Receive { source: eu(0), at: (*sequence).into(), message: Message::Pay(credit) }]).await;
    }
    let both = [follow(&payees, &payers), follow(&payers, &payees)];
    until("they are acknowledged", async || !in_transit(&payers, &made[1]).await).await;
    // And the cursor without a mark is gone on from.
    pay(&payers, 1, 1).await;
    until("it goes on", async || balance(&payees, 5).await == 201).await;
    assert!(both.iter().all(|inbox| !inbox.is_finished()));
    for shard in [&payers, &payees] {
        assert_eq!(shard.inbox_problems().borrow().len(), 0);
        proven(shard).await;
    }
    both.iter().for_each(JoinHandle::abort);
}

/// The cursor of money that is taken in passes the acknowledgements before it: they are noted with it, or never.
#[tokio::test]
async fn what_was_heard_before_money_that_was_taken_in_outlives_the_shard_as_that_does() {
    let (ours, theirs) = disks(true).await;
    let (payers, payees) = (open(&ours, 0).await, open(&theirs, 1).await);
    let made = pay(&payers, 1, 100).await;
    let taking = follow(&payers, &payees);
    until("it is taken in", async || balance(&payees, 5).await == 100).await;
    taking.abort();
    all(&payees, [pay_to(5, 4, Some(eu(0)), 7, 0)]).await;
    let hearing = follow(&payees, &payers);
    until("it arrives", async || balance(&payers, 4).await == 907).await;
    // Sooner than anything would be noted by itself.
    hearing.abort();
    payers.close().await;
    let payers = open(&ours, 0).await;
    let hearing = follow(&payees, &payers);
    tokio::time::sleep(NOTED).await;
    assert!(!in_transit(&payers, &made[0]).await, "it was credited, and nobody will say so again");
    hearing.abort();
}

/// What is gone from the other journal is acknowledged by where that begins, and there the histories part too.
#[tokio::test(start_paused = true)]
async fn where_a_journal_begins_acknowledges_no_payment_of_another_history() {
    let (ours, theirs) = disks(true).await;
    let (backup, payees) = (ours.backup(), open(&theirs, 1).await);
    let first = open(&ours, 0).await;
    let made = pay(&first, 3, 100).await;
    let taking = follow(&first, &payees);
    until("it is taken in", async || balance(&payees, 5).await == 300).await;
    taking.abort();
    // As retention would.
    let (segments, _) = support::journal(payees.store(), &eu(1)).await;
    let mut origin = paymesh_journal::Origin::beginning(&eu(1));
    for segment in &segments {
        origin.pass(segment, &segment.entries(&eu(1)).expect("they decode"));
    }
    until("the tables follow", async || payees.status().projected == origin.sequence).await;
    let snapshot = payees.store().tables.snapshot().await.expect("a snapshot");
    let ending = segments.last().expect("there are some");
    paymesh_journal::checkpoint::make(&eu(1), snapshot, ending, &payees.store().checkpoints).await.expect("it is made");
    payees.store().journal.prune(payees.epoch(), &origin).await.expect("it is cut");
    payees.close().await;
    let payees = open(&theirs, 1).await;

    let hearing = follow(&payees, &first);
    until("the first history is acknowledged", async || !in_transit(&first, &made[2]).await).await;
    hearing.abort();
    let second = open(&backup, 0).await;
    let made = pay(&second, 9, 10).await;
    let hearing = follow(&payees, &second);
    until("it is said", async || second.inbox_problems().borrow().contains_key(&eu(1))).await;
    tokio::time::sleep(NOTED).await;
    assert!(in_transit(&second, &made[0]).await);
    assert!(!hearing.is_finished());
    hearing.abort();
}

#[tokio::test]
async fn a_mark_in_the_tables_that_is_not_the_journals_is_found_and_one_that_nobody_noted_is_not_missed() {
    let (ours, other) = (Disk::memory(&eu(0)), Disk::sqlite());
    let (payers, payees) = (ours.open(&eu(0)).await, other.open(&eu(1)).await);
    all(&payers, [enrol(4), deposit(4, 1_000)]).await;
    all(&payees, [enrol(5)]).await;
    pay(&payers, 1, 100).await;
    let taking = follow(&payers, &payees);
    until("it is taken in", async || balance(&payees, 5).await == 100).await;
    taking.abort();
    proven(&payees).await;
    let mut tables = raw(&other, "eu-1.tables.sqlite").await;
    for (change, found) in [("UPDATE peers SET mark = mark + 1 WHERE kind = 0", true), ("UPDATE peers SET mark = NULL", false)] {
        assert_eq!(sqlx::query(change).execute(&mut tables).await.expect("it is changed").rows_affected(), 1);
        let problems = problems(&payees).await;
        assert_eq!(problems.iter().any(|problem| problem.contains("in how far other shards were read")), found, "{problems:?}");
    }
}
