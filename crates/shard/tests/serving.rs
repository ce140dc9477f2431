//! A shard at work: what it answers, when, and what of it is there later.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::memory::MemoryStore;
use paymesh_ledger::{Command, Rejection, Request};
use paymesh_shard::{Error, Options};
use paymesh_types::{Epoch, Sequence};
use support::{
    Disk, Time, all, ask, balance, deposit, effects, enrol, eu, euro, id, identity, journal, not_serving, pay, pay_to, payment_of, proven,
    user, wallet, withdraw,
};

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    for disk in Disk::each() {
        let shard = disk.open(&eu(0)).await;
        all(&shard, [enrol(1), enrol(2), deposit(1, 1_000), withdraw(1, 100)]).await;
        let paid = all(&shard, [pay(1, 2, 300), pay_to(1, 2, None, 200, 60)]).await;
        shard.submit(ask(7, deposit(2, 5))).await.expect("it is accepted");
        let (head, epoch) = (shard.status().head, shard.epoch());
        assert_eq!((head, epoch), (Sequence(7), Epoch(1)));
        shard.close().await;
        assert_eq!(not_serving(shard.submit(ask(8, deposit(2, 5))).await), "it was closed");
        assert_eq!(not_serving(shard.wallets(user(1)).await), "it was closed");
        drop(shard);

        let shard = disk.open(&eu(0)).await;
        assert_eq!((shard.status().head, shard.status().projected, shard.epoch()), (head, head, Epoch(2)));
        assert_eq!((balance(&shard, 1).await, balance(&shard, 2).await, wallet(&shard, 1).await.held), (600, 305, 200));
        let statement = shard.statement(user(1), support::euro(), None, 10).await.expect("it serves").expect("there is an account");
        assert_eq!(
            statement.items.iter().map(|line| (line.amount, line.balance)).collect::<Vec<_>>(),
            [(-300, 600), (-100, 900), (1_000, 1_000)]
        );
        for answer in &paid {
            let (view, _) = shard.payment(&payment_of(answer)).await.expect("it serves").expect("the payment is there");
            assert_eq!(view.row.payment.id(&eu(0)), payment_of(answer));
            assert!(!view.in_transit);
        }
        let outcome = shard.outcome(id(7)).await.expect("it serves").expect("it is known");
        assert_eq!((outcome.position.sequence, outcome.position.epoch), (Sequence(7), Epoch(1)));
        // The next entry follows, in the new term.
        let next = shard.submit(ask(9, deposit(2, 5))).await.expect("it is accepted");
        assert_eq!((next.position.sequence, next.position.epoch), (Sequence(8), Epoch(2)));
        proven(&shard).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_an_outcome_hears_of_what_is_still_queued() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    store.hold_appends();
    let submit = |number| {
        let shard = shard.clone();
        tokio::spawn(async move { shard.submit(ask(number, deposit(1, 10))).await })
    };
    let committing = submit(1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let queued = submit(2);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let asked = tokio::spawn({
        let shard = shard.clone();
        async move { (shard.outcome(id(2)).await, shard.outcome(id(3)).await) }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!asked.is_finished(), "what is queued may become anything");
    store.release_appends();
    let (second, third) = asked.await.expect("it ends");
    let recorded = queued.await.expect("it ends").expect("it is accepted");
    assert_eq!(second.expect("it serves").expect("it is known").position, recorded.position);
    assert!(third.expect("it serves").is_none());
    committing.await.expect("it ends").expect("it is accepted");
}

#[tokio::test(start_paused = true)]
async fn nobody_hears_of_a_commit_before_it_is_durable() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let shard = Disk::Memory(store.clone()).open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    store.hold_appends();
    let caller = tokio::spawn({
        let shard = shard.clone();
        async move { shard.submit(ask(1, deposit(1, 10))).await }
    });
    store.append_waits().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!caller.is_finished(), "it was answered before it was durable");
    assert_eq!(shard.status().head, Sequence(1), "and shown to readers");
    assert_eq!(balance(&shard, 1).await, 0);

    // The machine stops now: nobody was promised anything, and nothing is there.
    let found = store.crash();
    store.release_appends();
    assert!(caller.await.expect("it ends").is_err());
    shard.close().await;
    let shard = Disk::Memory(found.clone()).open(&eu(0)).await;
    assert_eq!(shard.status().head, Sequence(1));
    // And once it is answered, it is there, whatever happens next.
    let answer = shard.submit(ask(1, deposit(1, 10))).await.expect("it is accepted");
    assert!(!answer.replayed);
    let found = found.crash();
    let shard = Disk::Memory(found).open(&eu(0)).await;
    assert_eq!(balance(&shard, 1).await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_queues_up_during_a_commit_is_the_next_commit() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let disk = Disk::Memory(store.clone());
    let shard = disk.open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    store.hold_appends();
    let submit = |number: u128| {
        let shard = shard.clone();
        tokio::spawn(async move { shard.submit(ask(number, deposit(1, 1))).await.expect("it is accepted").position.sequence })
    };
    let first = submit(1);
    store.append_waits().await;
    let rest: Vec<_> = (2..=50).map(submit).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shard.status().queued, 50);
    store.release_appends();
    assert_eq!(first.await.expect("it ends"), Sequence(2));
    let mut places = Vec::new();
    for caller in rest {
        places.push(caller.await.expect("it ends").0);
    }
    assert_eq!(places, (3..=51).collect::<Vec<_>>(), "in the order that they came in");
    let (segments, _) = journal(&disk.store(&eu(0)).await.expect("it opens"), &eu(0)).await;
    assert_eq!(segments.iter().map(|segment| segment.count).collect::<Vec<_>>(), [1, 1, 49]);
    assert_eq!(shard.status().queued, 0);
}

#[tokio::test]
async fn a_request_that_comes_twice_in_a_batch_has_one_effect() {
    for disk in Disk::each() {
        let shard = disk.open(&eu(0)).await;
        all(&shard, [enrol(1), enrol(2)]).await;
        let requests = vec![
            ask(1, deposit(1, 100)),
            ask(1, deposit(1, 100)),
            ask(1, deposit(1, 101)),
            ask(2, pay(1, 2, 40)),
            ask(1, pay(1, 2, 40)),
            ask(2, pay(1, 2, 40)),
        ];
        let answers = shard.submit_all(requests).await.expect("it serves");
        let places: Vec<Result<(u64, bool), Rejection>> =
            answers.into_iter().map(|answer| answer.map(|answer| (answer.position.sequence.0, answer.replayed))).collect();
        let reused = |field| Err(Rejection::RequestIdReused { field });
        assert_eq!(places, [Ok((3, false)), Ok((3, true)), reused("amount"), Ok((4, false)), reused("request"), Ok((4, true))]);
        assert_eq!((balance(&shard, 1).await, balance(&shard, 2).await), (60, 40));
        assert_eq!(shard.status().head, Sequence(4));
    }
}

#[tokio::test]
async fn a_request_is_answered_the_same_again_also_after_a_restart_and_from_cold_storage() {
    for disk in Disk::each() {
        // Few records in memory, so that most of what is asked for was let go of.
        let options = Options { records_max: 4, ..Options::default() };
        let time = Time::new();
        let shard = disk.try_open(&eu(0), options.clone(), &time).await.expect("the shard opens");
        all(&shard, (1..=20).map(enrol)).await;
        let requests: Vec<Request> = (1..=20).map(|number| ask(number.into(), deposit(number, 100 + number as i64))).collect();
        let mut first = Vec::new();
        for request in &requests {
            first.push(shard.submit(request.clone()).await.expect("it is accepted"));
            shard.wallets(user(1)).await.expect("the tables catch up");
        }
        let mut shard = shard;
        for round in 0..3 {
            if round == 1 {
                shard.close().await;
                shard = disk.try_open(&eu(0), options.clone(), &time).await.expect("the shard opens");
            }
            let head = shard.status().head;
            let again = shard.submit_all(requests.clone()).await.expect("it serves");
            for (answer, before) in again.into_iter().zip(&first) {
                let answer = answer.expect("it is the same again");
                assert_eq!((&answer.position, answer.replayed), (&before.position, true), "round {round}");
                assert_eq!(answer.entry, before.entry, "round {round}");
            }
            let outcome = shard.outcome(id(3)).await.expect("it serves").expect("it is known");
            assert_eq!(outcome.position, first[2].position);
            assert!(shard.outcome(id(77)).await.expect("it serves").is_none());
            assert_eq!(shard.status().head, head, "round {round}: nothing was recorded twice");
        }
        assert_eq!(balance(&shard, 20).await, 120);
        proven(&shard).await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_the_queue_holds_is_shed_and_nothing_of_it_recorded() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let options = Options { queue_commands_max: 4, ..Options::default() };
    let shard = Disk::Memory(store.clone()).try_open(&eu(0), options, &Time::new()).await.expect("the shard opens");
    all(&shard, [enrol(1)]).await;
    store.hold_appends();
    let submit = |number: u128| {
        let shard = shard.clone();
        tokio::spawn(async move { shard.submit(ask(number, deposit(1, 1))).await })
    };
    let mut callers = vec![submit(1)];
    store.append_waits().await;
    callers.extend([submit(2), submit(3)]);
    tokio::task::yield_now().await;
    // Two commands for one place: all or nothing.
    let two = shard.submit_all(vec![ask(8, deposit(1, 1)), ask(9, deposit(1, 1))]).await;
    assert!(matches!(two, Err(Error::Overloaded { .. })), "{two:?}");
    callers.push(submit(4));
    tokio::task::yield_now().await;
    assert_eq!(shard.status().queued, 4);
    for number in 5..8 {
        let shed = shard.submit(ask(number, deposit(1, 1))).await;
        assert!(matches!(shed, Err(Error::Overloaded { .. })), "{shed:?}");
    }
    store.release_appends();
    for caller in callers {
        caller.await.expect("it ends").expect("what waited is served");
    }
    assert_eq!(balance(&shard, 1).await, 4);
    shard.submit(ask(5, deposit(1, 1))).await.expect("there is room again");
    assert_eq!((balance(&shard, 1).await, shard.status().queued), (5, 0));
}

#[tokio::test]
async fn however_much_one_caller_hands_in_the_journal_can_be_read_back() {
    let disk = Disk::memory(&eu(0));
    let shard = disk.open(&eu(0)).await;
    all(&shard, [enrol(1)]).await;
    let count = 40_000;
    let requests: Vec<Request> = (1..=count).map(|number| ask(number, deposit(1, 1))).collect();
    let (one, two) = tokio::join!(shard.submit_all(requests.clone()), async {
        tokio::task::yield_now().await;
        shard.submit_all((1..=20_000).map(|number| ask(count + number, deposit(1, 1))).collect()).await
    });
    let places: Vec<u64> = one.expect("it serves").into_iter().map(|answer| answer.expect("it is accepted").position.sequence.0).collect();
    assert!(places.is_sorted() && places.len() == 40_000, "in their order");
    assert_eq!(two.expect("it serves").len(), 20_000);
    shard.close().await;
    let shard = disk.open(&eu(0)).await;
    assert_eq!(balance(&shard, 1).await, 60_000);
    assert_eq!(effects(&journal(&disk.store(&eu(0)).await.expect("it opens"), &eu(0)).await.1).len(), 60_000);
    let too_many: Vec<Request> = (1..=65_537).map(|number| ask(number, deposit(1, 1))).collect();
    assert!(matches!(shard.submit_all(too_many).await, Err(Error::Overloaded { .. })));
}

#[tokio::test]
async fn tables_that_are_gone_are_made_again_from_the_journal() {
    let disk = Disk::sqlite();
    let shard = disk.open(&eu(0)).await;
    all(&shard, (1..=10).map(enrol)).await;
    for round in 0..20 {
        all(&shard, (1..=10).map(|number| deposit(number, 10 + round))).await;
        all(&shard, (1..10).map(|number| pay(number, number + 1, 5))).await;
    }
    let before = shard.statement(user(4), support::euro(), None, 1_000).await.expect("it serves").expect("there is an account").items;
    shard.close().await;
    drop(shard);
    let Disk::Sqlite(directory) = &disk else { unreachable!("it is SQLite") };
    for file in std::fs::read_dir(directory.path()).expect("the directory is there") {
        let path = file.expect("a file").path();
        if path.to_string_lossy().contains(".tables.") {
            std::fs::remove_file(path).expect("it is gone");
        }
    }
    let shard = disk.open(&eu(0)).await;
    let after = shard.statement(user(4), support::euro(), None, 1_000).await.expect("it serves").expect("there is an account").items;
    assert_eq!(after, before);
    proven(&shard).await;
}

/// What the leader lets go of and what it keeps must not change what it decides.
#[tokio::test(start_paused = true)]
async fn a_small_memory_decides_as_a_large_one() {
    use paymesh_journal::{conformance::stream::Stream, memory::Dice};
    for seed in 0..6 {
        let mut journals = Vec::new();
        for records_max in [1, 8, 100_000] {
            let disk = Disk::memory(&eu(1));
            let time = Time::new();
            let options = Options { records_max, projection_lag_entries_max: if seed % 2 == 0 { 0 } else { 50 }, ..Options::default() };
            let shard = disk.try_open(&eu(1), options, &time).await.expect("the shard opens");
            let mut dice = Dice::new(seed);
            // The commands that a stream's entries came from, near enough: what matters is that all memories get the same.
            let entries = Stream::with(seed, 500);
            let mut requests: Vec<Request> = entries.committed().iter().filter_map(|(_, entry)| request_of(entry)).collect();
            while !requests.is_empty() {
                let rest = requests.split_off(requests.len().min(1 + dice.below(20) as usize));
                let _ = shard.submit_all(requests).await.expect("it serves");
                requests = rest;
                time.pass_seconds(dice.below(10));
                if dice.happens(200) {
                    shard.books().await.expect("the tables catch up");
                }
            }
            proven(&shard).await;
            let (_, entries) = journal(shard.store(), &eu(1)).await;
            journals.push(
                entries.into_iter().map(|(position, entry)| (position, entry.body.clone(), entry.postings.clone())).collect::<Vec<_>>(),
            );
        }
        assert!(journals[0].len() > 200, "seed {seed}");
        // Time does not differ, so neither do payments.
        assert!(journals[0] == journals[2] && journals[1] == journals[2], "seed {seed}: a small memory decides otherwise");
    }
}

fn request_of(entry: &paymesh_ledger::Entry) -> Option<Request> {
    use paymesh_ledger::Body;
    let payment = |payment: &paymesh_ledger::Payment| {
        // All is decided in the first term here.
        let position = paymesh_types::Position { shard: eu(1), epoch: Epoch(1), sequence: payment.sequence };
        paymesh_types::PaymentId::from(position)
    };
    let reference = entry.reference.clone();
    let command = match &entry.body {
        Body::UserEnrolled { user, country, currencies } => {
            Command::EnrollUser { user: *user, country: *country, currencies: currencies.clone() }
        }
        Body::UserClaimed { user, zone } => Command::ClaimUser { user: *user, zone: zone.clone() },
        Body::AccountOpened { user, currency } => Command::OpenAccount { user: *user, currency: *currency },
        Body::AccountClosed { user, currency } => Command::CloseAccount { user: *user, currency: *currency },
        Body::MethodAdded { user, token } => Command::AddMethod { user: *user, token: token.clone() },
        Body::MethodRemoved { user, method } => Command::RemoveMethod { user: *user, token: method.token.clone() },
        Body::Deposited { user, money } => Command::Deposit { user: *user, money: *money, reference },
        Body::Withdrawn { user, money, .. } => Command::Withdraw { user: *user, money: *money, reference },
        Body::PaymentCreated(new) => Command::CreatePayment(paymesh_ledger::CreatePayment {
            payer: new.payer,
            payee: new.payee,
            payee_shard: new.payee_shard.clone(),
            money: new.money,
            hold_s: new.hold_s,
            reference,
            card: None,
        }),
        Body::PaymentCaptured { payment: it, asked } => Command::CapturePayment { payment: payment(it), amount: *asked },
        Body::PaymentVoided { payment: it } => Command::VoidPayment { payment: payment(it) },
        Body::RefundCompleted { payment: it, asked, .. } | Body::RefundRequested { payment: it, asked, .. } => {
            Command::RefundPayment { payment: payment(it), amount: *asked }
        }
        _ => return None,
    };
    Some(Request { id: entry.request_id, command })
}

#[tokio::test]
async fn entries_never_go_back_in_time_whatever_the_clock_does() {
    for disk in Disk::each() {
        let time = Time::new();
        let shard = disk.try_open(&eu(0), Options::default(), &time).await.expect("the shard opens");
        let first = all(&shard, [enrol(1), deposit(1, 100)]).await[1].entry.at;
        time.set_back_seconds(3_600);
        assert_eq!(all(&shard, [deposit(1, 1)]).await[0].entry.at, first);
        shard.close().await;
        // Nor under the next leader, who has not seen the clock before it was set back.
        let shard = disk.try_open(&eu(0), Options::default(), &time).await.expect("the shard opens");
        assert_eq!(all(&shard, [deposit(1, 1)]).await[0].entry.at, first);
        time.pass_seconds(7_200);
        assert!(all(&shard, [deposit(1, 1)]).await[0].entry.at > first);
        proven(&shard).await;
    }
}

/// A reference is personal data of whoever wrote it.
#[tokio::test]
async fn the_payers_words_are_on_the_payers_statement_and_not_on_the_payees() {
    for disk in Disk::each() {
        let shard = disk.open(&eu(0)).await;
        all(&shard, [enrol(1), enrol(2), deposit(1, 100)]).await;
        let Command::CreatePayment(create) = pay(1, 2, 30) else { unreachable!("it is a payment") };
        all(&shard, [Command::CreatePayment(paymesh_ledger::CreatePayment { reference: "for the doctor".to_owned(), ..create })]).await;
        let newest = async |number| {
            let page = shard.statement(user(number), euro(), None, 1).await.expect("it serves").expect("there is an account");
            (page.items[0].amount, page.items[0].reference.clone())
        };
        assert_eq!(newest(1).await, (-30, "for the doctor".to_owned()));
        assert_eq!(newest(2).await, (30, String::new()));
    }
}

#[tokio::test]
async fn a_reader_that_wants_few_entries_gets_few_from_memory_and_from_storage() {
    for disk in Disk::each() {
        let shard = disk.open(&eu(0)).await;
        all(&shard, [enrol(1)]).await;
        all(&shard, (0..3_000).map(|_| deposit(1, 1))).await;
        let from_memory = shard.tail().next_few(Sequence(2), 100).await.expect("entries");
        shard.close().await;
        let shard = disk.open(&eu(0)).await;
        let from_storage = shard.tail().next_few(Sequence(2), 100).await.expect("entries");
        assert_eq!(from_memory, from_storage);
        assert_eq!(from_memory.iter().map(|(position, _)| position.sequence.0).collect::<Vec<_>>(), (2..102).collect::<Vec<_>>());
        assert_eq!(shard.tail().next_few(Sequence(3_001), 100).await.expect("the last").len(), 1);
        shard.close().await;
    }
}
