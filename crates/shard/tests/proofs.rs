//! What is proven about a shard's books, what happens to it by the clock, and what readers are told.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::{
    Committed, SegmentBuilder,
    memory::{Dice, MemoryStore},
};
use paymesh_ledger::{Body, Command, Entry, LineId, Payment, PaymentMethod, Phase, Rejection, Request};
use paymesh_shard::{Error, Options};
use paymesh_types::{Sequence, ShardRef, Timestamp, VaultToken};
use support::{
    Disk, Time, all, ask, balance, currency, deposit, enrol, enrol_with, eu, id, identity, journal, pay, pay_to, payment_of, problems,
    proven, raw, user, wallet,
};

/// A shard with a few users who paid each other.
async fn busy(disk: &Disk) -> paymesh_shard::Shard {
    let shard = disk.open(&eu(0)).await;
    all(&shard, (1..=5).map(enrol)).await;
    for round in 1..=4 {
        all(&shard, (1..=5).map(|number| deposit(number, 100 * round))).await;
        all(&shard, (1..=4).map(|number| pay(number, number + 1, 10 * round))).await;
    }
    all(&shard, [pay_to(1, 2, None, 5, 60), pay_to(1, 6, Some(eu(1)), 5, 0)]).await;
    shard.submit(ask(1, enrol_with(6, &[]))).await.expect("it is accepted");
    all(&shard, [keep(1, 7), keep(1, 8), keep(2, 9), Command::RemoveMethod { user: user(1), token: token(7) }]).await;
    balance(&shard, 1).await;
    shard
}

fn token(card: u8) -> VaultToken {
    VaultToken::new(eu(0).zone, [card; 16])
}

fn keep(owner: u64, card: u8) -> Command {
    Command::AddMethod { user: user(owner), token: token(card) }
}

#[tokio::test]
async fn books_that_are_right_are_proven() {
    for disk in Disk::each() {
        let shard = busy(&disk).await;
        proven(&shard).await;
        let mut heard = Vec::new();
        let report =
            paymesh_shard::verify(&shard, &[(eu(1), Sequence(u64::MAX))], |at, of| heard.push((at, of))).await.expect("it is read");
        assert_eq!(report.position.sequence, shard.status().head);
        assert_eq!(heard.last(), Some(&(shard.status().head, shard.status().head)));
        assert_eq!(report.sent_by.into_iter().collect::<Vec<_>>(), [((eu(1), currency("EUR")), 5)]);
        let sums = report.audit.sums()[&currency("EUR")];
        assert_eq!((sums.wallets, sums.external, sums.clearing, sums.held), (4_995, -5_000, 5, 5));
        assert_eq!((report.audit.users(), report.audit.payments()), (6, 18));
    }
    let empty = Disk::memory(&eu(0)).open(&eu(0)).await;
    proven(&empty).await;
}

#[tokio::test]
async fn a_flipped_bit_of_the_journal_is_found_and_placed() {
    let store = MemoryStore::new(&identity(&eu(0)));
    let shard = busy(&Disk::Memory(store.clone())).await;
    assert!(store.damage_segment(Sequence(6), |segment| segment.payload[20] ^= 1));
    let found = problems(&shard).await;
    assert_eq!(found, ["the journal of shard eu/0 is corrupt at sequence 6: the segment's payload does not match its checksum"]);
    store.damage_segment(Sequence(6), |segment| segment.payload[20] ^= 1);
    assert!(store.damage_segment(Sequence(6), |segment| segment.committed_at.0 += 1));
    let found = problems(&shard).await;
    assert_eq!(found, ["the journal of shard eu/0 is corrupt at sequence 6: the segment's header does not match its hash"]);

    let disk = Disk::sqlite();
    let shard = busy(&disk).await;
    let flip = "UPDATE segments SET payload = CAST(substr(payload, 1, 9) || x'5a' || substr(payload, 11) AS BLOB) WHERE first = 6";
    sqlx::query(flip).execute(&mut raw(&disk, "journal.sqlite").await).await.expect("it is damaged");
    let found = problems(&shard).await;
    assert!(found.len() == 1 && found[0].contains("shard eu/0 is corrupt at sequence 6"), "{found:?}");
}

#[tokio::test]
async fn a_shard_whose_journal_is_damaged_refuses_to_serve_and_says_where() {
    let refusal = async |disk: &Disk| match disk.try_open(&eu(0), Options::default(), &Time::new()).await {
        Err(Error::Storage { shard, source: paymesh_journal::Error::Corrupt(corrupt) }) => {
            assert_eq!(shard, eu(0));
            corrupt
        }
        other => panic!("it came to {other:?}"),
    };
    let store = MemoryStore::new(&identity(&eu(0)));
    busy(&Disk::Memory(store.clone())).await.close().await;
    store.damage_segment(Sequence(15), |segment| segment.payload[0] ^= 128);
    let corrupt = refusal(&Disk::Memory(store)).await;
    assert_eq!((corrupt.shard, corrupt.sequence), (eu(0), Sequence(15)));

    for (damage, at) in [
        ("UPDATE segments SET payload = zeroblob(length(payload)) WHERE first = 11", 11),
        ("UPDATE segments SET payload = CAST(substr(payload, 1, length(payload) / 2) AS BLOB) WHERE first = 1", 1),
        ("DELETE FROM segments WHERE first = 15", 15),
        // The end is gone: the tables know that there was more.
        ("DELETE FROM segments WHERE first > 11", 15),
        ("DELETE FROM segments", 1),
    ] {
        let disk = Disk::sqlite();
        busy(&disk).await.close().await;
        sqlx::query(damage).execute(&mut raw(&disk, "journal.sqlite").await).await.expect("it is damaged");
        let corrupt = refusal(&disk).await;
        assert_eq!((corrupt.shard, corrupt.sequence), (eu(0), Sequence(at)), "{damage}: {}", corrupt.what);
    }
}

#[tokio::test]
async fn storage_of_another_shard_is_not_served() {
    for disk in Disk::each() {
        busy(&disk).await.close().await;
        let wrong = paymesh_journal::Identity { shards: 8, ..identity(&eu(0)) };
        let opened = match &disk {
            Disk::Memory(store) => store.open(&wrong),
            Disk::Sqlite(directory) => paymesh_journal::sqlite::open(directory.path(), &wrong).await,
        };
        let refused = opened.expect_err("the zone has another number of shards").to_string();
        assert!(refused.contains("mesh test shard eu/0 of 4, not to mesh test shard eu/0 of 8"), "{refused}");
    }
}

#[tokio::test]
async fn tables_that_were_tampered_with_are_found() {
    let memory = |damage: fn(&MemoryStore) -> bool| async move {
        let store = MemoryStore::new(&identity(&eu(0)));
        let shard = busy(&Disk::Memory(store.clone())).await;
        assert!(damage(&store));
        problems(&shard).await.join("\n")
    };
    let found = memory(|store| store.damage_wallet(user(3), currency("EUR"), |wallet| wallet.balance += 1)).await;
    assert!(found.contains("the tables give user 3"), "{found}");
    let found = memory(|store| store.damage_wallet(user(1), currency("EUR"), |wallet| wallet.held = 0)).await;
    assert!(found.contains("the tables give user 1"), "{found}");
    let found = memory(|store| store.damage_wallet(user(3), currency("EUR"), |wallet| wallet.last_line = LineId(0))).await;
    assert!(found.contains("the tables say of user 3's account in EUR Wallet"), "{found}");
    // The line in the middle of a chain: all before it would be missing from the statement.
    let found = memory(|store| store.lose_line(LineId::new(Sequence(17), 0))).await;
    assert!(found.contains("differ in the statement lines of entries 1 to 65535: 52 rows against 53"), "{found}");

    for (damage, expected) in [
        ("UPDATE wallets SET balance = balance - 1 WHERE user_id = 2", "the tables give user 2"),
        ("DELETE FROM wallets WHERE user_id = 4", "the tables lack 1 of the journal's 5 accounts"),
        ("UPDATE wallets SET user_id = 9 WHERE user_id = 4", "the tables have an account of user 9 in EUR, the journal has none"),
        ("UPDATE wallets SET closed = 1 WHERE user_id = 4", "the tables say of user 4's account"),
        ("UPDATE wallets SET last_payment = 0 WHERE user_id = 4", "the tables say of user 4's account"),
        (
            "UPDATE wallets SET last_line = (SELECT max(id) FROM lines WHERE user_id = 2) WHERE user_id = 1",
            "the tables say of user 1's account",
        ),
        ("DELETE FROM lines WHERE user_id = 4 AND previous = 0", "in the statement lines"),
        ("UPDATE lines SET amount = amount + 1 WHERE user_id = 5 AND previous = 0", "in the statement lines"),
        ("UPDATE lines SET reference = 'another' WHERE user_id = 5 AND previous = 0", "in the statement lines"),
        ("UPDATE lines SET user_id = 5 WHERE user_id = 1", "in the statement lines"),
        ("UPDATE payments SET refunded = 1 WHERE sequence = (SELECT min(sequence) FROM payments)", "in the payments"),
        ("UPDATE payments SET phase = 5 WHERE phase = 1", "in the payments"),
        ("UPDATE payments SET reference = 'another' WHERE phase = 1", "in the payments"),
        ("UPDATE payments SET previous = 0", "in the payments"),
        ("DELETE FROM payments WHERE phase = 1", "in the payments made by entries 1 to 65535: 17 rows against 18"),
        ("DELETE FROM requests", "in the request ids of entries 1 to 65535: 0 rows against 1"),
        ("UPDATE requests SET sequence = 2", "in the request ids"),
        ("UPDATE users SET country = 'FR' WHERE user_id = 1", "in the users"),
        ("DELETE FROM users WHERE user_id = 1", "in the users: 5 rows against 6"),
        ("INSERT INTO claims (user_id, zone) VALUES (1, 'eu')", "in the users' zones: 1 rows against 0"),
        ("DELETE FROM methods WHERE user_id = 2", "in the payment methods added by entries 1 to 65535: 1 rows against 2"),
        ("UPDATE methods SET token = 'card_eu_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' WHERE user_id = 2", "in the payment methods"),
        ("UPDATE methods SET user_id = 3 WHERE user_id = 2", "in the payment methods"),
        ("UPDATE methods SET added_at = added_at + 1 WHERE user_id = 2", "in the payment methods"),
        ("INSERT INTO peers (kind, zone, shard, sequence) VALUES (0, 'eu', 1, 3)", "in how far other shards were read"),
        ("INSERT INTO peers (kind, zone, shard, sequence) VALUES (1, 'eu', 1, 3)", "in how far other shards took in"),
        ("UPDATE cursor SET newest_request_ms = newest_request_ms + 1", "in the newest request id"),
        ("INSERT INTO monitored_days VALUES (19000, 4, 1, 100, 0, 0)", "in what payments by card come to"),
        ("UPDATE cursor SET monitored_since = 19000", "in what payments by card come to"),
        ("UPDATE system_accounts SET balance = balance + 1 WHERE kind = 1", "the clearing accounts"),
        ("DELETE FROM system_accounts WHERE kind = 0", "the clearing accounts"),
        ("UPDATE wallets SET balance = balance + 7 WHERE user_id IN (1, 2)", "the tables give user 1"),
    ] {
        let disk = Disk::sqlite();
        let shard = busy(&disk).await;
        let mut tables = raw(&disk, "eu-0.tables.sqlite").await;
        let changed = sqlx::query(damage).execute(&mut tables).await.expect("it is damaged").rows_affected();
        assert!(changed > 0, "{damage} changes nothing");
        let found = problems(&shard).await.join("\n");
        assert!(found.contains(expected), "{damage}: {found}");
    }
}

/// Entries that no leader decides, in a journal whose chain is right.
#[tokio::test]
async fn entries_that_do_not_follow_from_earlier_ones_are_found() {
    let falsified = async |change: fn(&[Committed]) -> Entry| {
        let disk = Disk::memory(&eu(0));
        busy(&disk).await.close().await;
        let store = disk.store(&eu(0)).await.expect("it opens");
        let (segments, entries) = journal(&store, &eu(0)).await;
        let (last, epoch) = (segments.last().expect("there are segments"), store.journal.lead().await.expect("it leads"));
        let mut builder = SegmentBuilder::new(eu(0), epoch, last.last().next(), last.hash, [7; 32]);
        builder.push(&change(&entries));
        store.journal.append(&builder.finish()).await.expect("it is appended");
        problems(&disk.open(&eu(0)).await).await.join("\n")
    };
    // To another shard, of 5: so much was never refunded before.
    let found = falsified(|entries| {
        let (position, sent) = entries.iter().rfind(|(_, entry)| matches!(entry.body, Body::PaymentCreated(_))).expect("a payment");
        let payment = Payment { refunded: 4, ..sent.payment(position).expect("a payment") };
        let body = Body::RefundRequested { payment, amount: 1, asked: None };
        Entry { body, postings: Default::default(), request_id: None, reference: String::new(), at: sent.at }
    });
    let found = found.await;
    assert!(found.contains("differ in the payments made by entries 1 to 65535: 18 rows against 18"), "{found}");

    // Of a card that was kept at another time.
    let found = falsified(|entries| {
        let (position, kept) = entries.iter().find(|(_, entry)| matches!(entry.body, Body::MethodAdded { .. })).expect("a card");
        let Body::MethodAdded { user: owner, token } = &kept.body else { unreachable!("it was found") };
        let method = PaymentMethod { added: position.sequence, added_at: Timestamp(kept.at.0 + 1), token: token.clone() };
        let body = Body::MethodRemoved { user: *owner, method };
        Entry { body, postings: Default::default(), request_id: None, reference: String::new(), at: entries.last().expect("it").1.at }
    });
    let found = found.await;
    assert!(found.contains("differ in the payment methods added by entries 1 to 65535"), "{found}");

    // The same request once more.
    let found = falsified(|entries| {
        let (_, recorded) = entries.iter().find(|(_, entry)| entry.request_id.is_some()).expect("a request");
        Entry { body: Body::AccountOpened { user: user(6), currency: currency("JPY") }, ..recorded.as_ref().clone() }
    });
    let found = found.await;
    assert!(found.contains("differ in the request ids of entries 1 to 65535: 1 rows against 2"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn books_are_proven_while_payments_go_on() {
    let disk = Disk::memory(&eu(0));
    let shard = busy(&disk).await;
    let payer = tokio::spawn({
        let shard = shard.clone();
        async move {
            for number in 0..300 {
                all(&shard, [deposit(1 + number % 5, 10), pay(1 + number % 4, 5, 3)]).await;
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    });
    let mut proofs = 0;
    while !payer.is_finished() {
        proven(&shard).await;
        proofs += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    payer.await.expect("it ends");
    assert!(proofs > 10);
}

#[tokio::test(start_paused = true)]
async fn a_hold_runs_out_by_the_shards_clock() {
    let (disk, time) = (Disk::memory(&eu(0)), Time::new());
    let shard = disk.try_open(&eu(0), Options::default(), &time).await.expect("the shard opens");
    all(&shard, [enrol(1), enrol(2), deposit(1, 100)]).await;
    let held = all(&shard, [pay_to(1, 2, None, 30, 60), pay_to(1, 2, None, 20, 60), pay_to(1, 2, None, 10, 120)]).await;
    let capture = |at: usize| Command::CapturePayment { payment: payment_of(&held[at]), amount: None };
    all(&shard, [capture(1)]).await;
    let phases = async || {
        let mut phases = Vec::new();
        for answer in &held {
            phases.push(shard.payment(&payment_of(answer)).await.expect("it serves").expect("it is there").0.row.payment.phase);
        }
        phases
    };
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(phases().await, [Phase::Authorized, Phase::Captured, Phase::Authorized], "the clock that counts has not moved");
    time.pass_seconds(59);
    // Between two turns of the timer.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(wallet(&shard, 1).await.held, 40);
    time.pass_seconds(1);
    let late = shard.submit(Request { id: None, command: capture(0) }).await;
    assert!(matches!(late, Err(Error::Rejected(Rejection::HoldExpired))), "also before the timer has come by: {late:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(phases().await, [Phase::Expired, Phase::Captured, Phase::Authorized]);
    let left = wallet(&shard, 1).await;
    assert_eq!((left.balance, left.held, balance(&shard, 2).await), (80, 10, 20));

    // Also one that ran out while the shard was away.
    shard.close().await;
    time.pass_seconds(3_600);
    let shard = disk.try_open(&eu(0), Options::default(), &time).await.expect("the shard opens");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(wallet(&shard, 1).await.held, 0);
    proven(&shard).await;
}

#[tokio::test(start_paused = true)]
async fn request_ids_are_kept_for_as_long_as_was_promised_and_no_longer() {
    let (disk, time) = (Disk::memory(&eu(0)), Time::new());
    let hours = |hours: u64| 3_600 * hours;
    let options = Options { outcome_retention: Duration::from_secs(hours(24)), records_max: 1, ..Options::default() };
    let shard = disk.try_open(&eu(0), options.clone(), &time).await.expect("the shard opens");
    shard.submit(ask(1, enrol(1))).await.expect("it is accepted");
    shard.submit(ask(2, deposit(1, 10))).await.expect("it is accepted");
    time.pass_seconds(hours(12));
    shard.submit(ask(3, deposit(1, 10))).await.expect("it is accepted");
    let known = async || {
        let mut known = Vec::new();
        for number in 1..=3 {
            known.push(shard.outcome(id(number)).await.expect("it serves").is_some());
        }
        known
    };
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(known().await, [true, true, true]);
    time.pass_seconds(hours(12) - 1);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(known().await, [true, true, true], "not before their time");
    assert!(shard.submit(ask(2, deposit(1, 10))).await.expect("it is the same again").replayed);
    time.pass_seconds(2);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(known().await, [true, true, true], "a clock that goes on while nothing is committed makes nobody forget");
    shard.submit(ask(4, enrol(2))).await.expect("it is accepted");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(known().await, [false, false, true]);
    proven(&shard).await;
    assert_eq!(balance(&shard, 1).await, 20, "what they did stays");
    shard.close().await;
    // The id is free again; the journal has both uses.
    let shard = disk.try_open(&eu(0), options.clone(), &time).await.expect("the shard opens");
    let again = shard.submit(ask(2, deposit(1, 7))).await.expect("it is accepted");
    assert!(!again.replayed);
    assert_eq!(balance(&shard, 1).await, 27);
    assert_eq!(shard.outcome(id(2)).await.expect("it serves").expect("it is known").position, again.position);
    shard.close().await;
    let shard = disk.try_open(&eu(0), options, &time).await.expect("the shard opens");
    assert_eq!(shard.outcome(id(2)).await.expect("it serves").expect("it is known").position, again.position);
    proven(&shard).await;
}

#[tokio::test(start_paused = true)]
async fn every_payment_is_on_one_page_of_the_list_whatever_the_page_size() {
    let mut dice = Dice::new(5);
    for round in 0..12 {
        let disk = Disk::memory(&eu(0));
        let shard = disk.open(&eu(0)).await;
        let codes = ["EUR", "USD", "CZK"];
        all(&shard, [enrol_with(1, &codes), enrol_with(2, &codes)]).await;
        // Once with chains that are longer than one walk.
        let (count, limits) = if round == 0 { (4_000, vec![300, 999, 1_000]) } else { (60, vec![1, 2, 3, 7, 20, 59, 60, 1_000]) };
        // Runs of one currency and then of another, so that pages begin deep in one chain and early in the next.
        let mut commands = Vec::new();
        while commands.len() < count {
            let code = dice.pick(&codes).copied().expect("there are some");
            for _ in 0..1 + dice.below(12) {
                let Command::CreatePayment(create) = pay(1, 2, 1) else { unreachable!("it is a payment") };
                let money = paymesh_types::Money::new(1, currency(code)).expect("within the bounds");
                commands.push(Command::CreatePayment(paymesh_ledger::CreatePayment { money, ..create }));
            }
        }
        let made: Vec<Sequence> = all(&shard, commands).await.into_iter().map(|answer| answer.position.sequence).rev().collect();
        for limit in limits {
            let mut listed = Vec::new();
            let mut before = None;
            let mut pages = 0;
            loop {
                let page = shard.payments(user(1), before, limit).await.expect("it serves").expect("the token is good");
                assert!(page.items.len() <= limit as usize);
                listed.extend(page.items.iter().map(|view| view.row.payment.sequence));
                pages += 1;
                assert!(pages <= made.len() + 1, "the pages never end");
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(listed, made, "round {round}, pages of {limit}");
            assert_eq!(pages, made.len().div_ceil(limit as usize), "round {round}: no empty page, of {limit}");
        }
        // A place that somebody made up, and another user's.
        for forged in [Sequence(1), Sequence(u64::MAX / 2)] {
            assert!(shard.payments(user(1), Some(forged), 10).await.expect("it serves").is_none());
        }
        assert!(shard.payments(user(2), Some(made[0]), 10).await.expect("it serves").is_none());
    }
}

#[tokio::test]
async fn a_statement_pages_through_and_shows_nobody_elses_lines() {
    for disk in Disk::each() {
        let shard = busy(&disk).await;
        let euro = currency("EUR");
        let all_lines = shard.statement(user(2), euro, None, 1_000).await.expect("it serves").expect("there is an account");
        assert_eq!(all_lines.next, None);
        let mut listed = Vec::new();
        let mut from = None;
        loop {
            let page = shard.statement(user(2), euro, from, 3).await.expect("it serves").expect("there is an account");
            listed.extend(page.items);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(listed, all_lines.items);
        assert_eq!(listed.len(), 12);
        // A token that was made up.
        let others = shard.statement(user(1), euro, None, 10).await.expect("it serves").expect("there is an account").items;
        for forged in [others[0].id, LineId(0), LineId(1), LineId(u64::MAX)] {
            let page = shard.statement(user(2), euro, Some(forged), 10).await.expect("it serves").expect("there is an account");
            assert!(page.items.is_empty() && page.next.is_none(), "{forged:?}");
        }
        assert!(shard.statement(user(2), currency("USD"), None, 10).await.expect("it serves").is_none());
        assert!(shard.statement(user(77), euro, None, 10).await.expect("it serves").is_none());
        assert!(shard.wallets(user(77)).await.expect("it serves").is_none());
        let elsewhere = ShardRef { zone: "us".parse().expect("a zone's name"), index: 9 };
        assert_ne!(&elsewhere, shard.reference());
    }
}

#[tokio::test]
async fn a_leadership_counter_that_was_set_back_costs_no_answered_entry() {
    let disk = Disk::sqlite();
    busy(&disk).await.close().await;
    disk.open(&eu(0)).await.close().await;
    sqlx::query("UPDATE shards SET epoch = 0").execute(&mut raw(&disk, "journal.sqlite").await).await.expect("it is damaged");
    let shard = disk.open(&eu(0)).await;
    all(&shard, [deposit(1, 7)]).await;
    let head = shard.status().head;
    shard.close().await;
    sqlx::query("UPDATE shards SET epoch = 0").execute(&mut raw(&disk, "journal.sqlite").await).await.expect("it is damaged");
    let shard = disk.open(&eu(0)).await;
    assert_eq!(shard.status().head, head);
    proven(&shard).await;
}
