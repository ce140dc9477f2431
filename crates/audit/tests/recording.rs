//! What calls leave in the log, and when there is no place for them.

#![forbid(unsafe_code)]

mod support;

use std::{fs, sync::Arc, time::Duration};

use paymesh_audit::{Caller, Condition, Outcome, ReadError, Record, Settings, Standing, Unavailable};
use paymesh_contract::{
    Fault,
    audit::v1::{CallerKind, log_note::Event},
    policies,
};
use paymesh_types::{Sequence, Timestamp};
use tonic::Code;

use support::{Hand, METHOD, Running, block_on, call, good, read_all, settings, users, wait_for};

#[test]
fn a_call_leaves_what_was_asked_by_whom_about_whom_and_what_came_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::open(directory.path(), settings(&Hand::default()));
    let mut slot = running.log.reserve(call(4_100)).expect("a slot");
    let record = slot.record_mut();
    record.entry_region = Some("us_west".parse().expect("a region"));
    record.peer = Some("10.0.0.7:5123".parse().expect("an address"));
    record.request_id = Some("0190b8f5-0000-7000-8000-000000000001".parse().expect("an id"));
    record.subjects.add_payment(&"pay_eu_0_1_17".parse().expect("a payment"));
    slot.record(Outcome::new(Code::NotFound, "USER_NOT_FOUND", Duration::from_micros(321)));
    wait_for(&running.log, |state| state.head.sequence == Sequence(3));

    let records = read_all(&running.log);
    assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(records.iter().all(|record| record.region == "eu_west"));
    let events: Vec<_> = records.iter().filter_map(|record| record.note.clone()?.event).collect();
    assert!(
        matches!(&events[..], [Event::ChainBegun(begun), Event::Opened(opened)] if begun.chain == 1 && opened.version == "1.2.3"),
        "{events:?}"
    );
    let record = &records[2];
    let caller = record.caller.as_ref().expect("a caller");
    assert_eq!(
        (caller.kind(), &*caller.principal, &*caller.issuer, &*caller.token_id),
        (CallerKind::Token, "checkout", "https://issuer.example", "token-4100")
    );
    assert_eq!((&*record.method, &record.scopes[..]), (METHOD, &["wallets.read".to_owned()][..]));
    assert_eq!((&*record.entry_region, &*record.peer_address, record.at_us), ("us_west", "10.0.0.7:5123", 4_100));
    assert_eq!((record.code, &*record.reason, record.duration_us), (Code::NotFound as i32, "USER_NOT_FOUND", 321));
    let subjects = record.subjects.as_ref().expect("subjects");
    assert_eq!((&subjects.user_ids[..], &subjects.payment_ids[..], subjects.count), (&[4_100][..], &["pay_eu_0_1_17".to_owned()][..], 2));
    assert_eq!(record.request_id.len(), 16);
    running.close().expect("everything is written");
}

#[test]
fn a_slot_that_is_dropped_says_cancelled() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::open(directory.path(), settings(&Hand::default()));
    drop(running.log.reserve(call(7)).expect("a slot"));
    wait_for(&running.log, |state| state.head.sequence == Sequence(3));
    let records = read_all(&running.log);
    assert_eq!((records[2].code, users(&running.log)), (Code::Cancelled as i32, vec![7]));
    running.close().expect("everything is written");
}

#[test]
fn a_restart_goes_on_with_the_chain_and_the_log_says_when_the_node_left_and_came() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Hand::default();
    let running = Running::open(directory.path(), settings(&clock));
    running.record([1, 2]);
    let held = running.log.reserve(call(3)).expect("a slot");
    let log = running.log.clone();
    running.close().expect("everything is written");
    // It ends after the log, and is nobody's any more.
    held.record(good());
    assert_eq!(log.reserve(call(4)).map(drop), Err(Unavailable::Closed));

    let running = Running::open(directory.path(), settings(&clock));
    running.record([5]);
    let events: Vec<_> = read_all(&running.log).iter().map(|record| record.note.clone().and_then(|note| note.event)).collect();
    let [Some(Event::ChainBegun(_)), Some(Event::Opened(_)), None, None, Some(Event::Closed(closed)), Some(Event::Opened(opened)), None] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((closed.calls_cut_off, opened.cut_bytes), (1, 0));
    assert_eq!(users(&running.log), [1, 2, 5]);
    let report = running.log.verify(Sequence(4), |_, _| {}).expect("it can be read");
    assert_eq!((report.first, report.last, report.damages.len()), (Sequence(1), Sequence(7), 0));
    assert!(report.hash_at.is_some() && running.log.condition() == Condition::Good);
    running.close().expect("everything is written");
}

#[test]
fn a_full_log_refuses_at_once_and_says_how_many_it_has_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let few = Settings { records_max: 4, ..settings(&Hand::default()) };
    let running = Running::open(directory.path(), few);
    let held: Vec<_> = (1..=4).map(|user| running.log.reserve(call(user)).expect("a slot")).collect();
    for _ in 0..3 {
        assert_eq!(running.log.reserve(call(9)).map(drop), Err(Unavailable::Full));
        running.log.refused(Unavailable::Full);
    }
    let fault = Fault::from(Unavailable::Full);
    assert_eq!((fault.code, &*fault.reason), (Code::Unavailable, "AUDIT_UNAVAILABLE"));
    assert!(fault.retry_after.is_some());
    assert!(matches!(running.log.condition(), Condition::Warns(_)));
    held.into_iter().for_each(|slot| slot.record(good()));
    wait_for(&running.log, |state| state.head.sequence == Sequence(7));
    let refused: Vec<_> = read_all(&running.log)
        .into_iter()
        .filter_map(|record| match record.note?.event? {
            Event::CallsRefused(refused) => Some(refused.calls),
            _ => None,
        })
        .collect();
    assert_eq!(refused.iter().sum::<u64>(), 3, "{refused:?}");
    running.record([5]);
    running.close().expect("everything is written");
}

/// Whoever is refused without end does not push out what known callers did: neither one whom nobody knows, nor one who has taken an edge over.
#[test]
fn callers_whom_nobody_knows_leave_so_many_records_and_the_others_are_counted() {
    leave_so_many_records(&Caller::Anonymous);
    leave_so_many_records(&Caller::Edge("us_west".parse().expect("a region")));
}

fn leave_so_many_records(caller: &Caller) {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::open(directory.path(), settings(&Hand::default()));
    const CALLS: usize = 12_000;
    for _ in 0..CALLS {
        let slot = running.log.reserve(Record::new(Timestamp(1), caller.clone(), policies().method(METHOD))).expect("a slot");
        slot.record(Outcome::new(Code::Unauthenticated, "NO_CREDENTIAL", Duration::ZERO));
    }
    running.record(1..=20);
    running.close().expect("everything is written");
    let running = Running::open(directory.path(), settings(&Hand::default()));
    assert_eq!(users(&running.log), (1..=20).collect::<Vec<_>>(), "known callers leave one each");
    let records = read_all(&running.log);
    let single = records.iter().filter(|record| record.reason == "NO_CREDENTIAL").count();
    let counted: u64 = records
        .iter()
        .filter_map(|record| match record.note.as_ref()?.event.as_ref()? {
            Event::AnonymousCalls(unrecorded) => Some(unrecorded.calls),
            _ => None,
        })
        .sum();
    assert_eq!(single as u64 + counted, CALLS as u64, "{single} and {counted}");
    assert!((10_000..11_000).contains(&single), "{single}");
    running.close().expect("everything is written");
}

#[test]
fn a_log_that_cannot_be_opened_refuses_until_it_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let in_the_way = directory.path().join("audit");
    fs::write(&in_the_way, "no directory").expect("it can be written");
    let running = Running::start(directory.path(), settings(&Hand::default()));
    wait_for(&running.log, |state| matches!(state.standing, Standing::Failing(_)));
    block_on(running.log.settled());
    assert_eq!(running.log.reserve(call(1)).map(drop), Err(Unavailable::Failing));
    assert!(matches!(running.log.condition(), Condition::Fails(_)));
    assert!(matches!(running.log.read(Sequence(0)).map(drop), Err(ReadError::Unavailable(_))));
    fs::remove_file(&in_the_way).expect("it can be removed");
    wait_for(&running.log, |state| state.standing == Standing::Open);
    running.record([1]);
    running.close().expect("everything is written");

    // One that is closed before it was ever open just ends.
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("audit"), "no directory").expect("it can be written");
    Running::start(directory.path(), settings(&Hand::default())).close().expect("there was nothing to write");
}

#[test]
fn records_of_many_threads_are_all_there_once_and_in_one_chain_over_many_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = Settings { file_bytes_max: 20_000, ..settings(&Hand::default()) };
    let running = Arc::new(Running::open(directory.path(), small));
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let running = running.clone();
            std::thread::spawn(move || {
                for number in 1..=500 {
                    running.log.reserve(call(thread * 1_000 + number)).expect("a slot").record(good());
                    if number % 50 == 0 {
                        running.record([thread * 1_000 + 500 + number]);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it did not die"));
    let running = Arc::into_inner(running).expect("the only one");
    wait_for(&running.log, |state| state.head.sequence >= Sequence(2 + 4 * 510));
    let mut users = users(&running.log);
    users.sort_unstable();
    let wanted: Vec<u64> =
        (0..4).flat_map(|thread| (1..=500).chain((550..=1_000).step_by(50)).map(move |number| thread * 1_000 + number)).collect();
    assert_eq!(users, wanted);
    assert!(support::files(directory.path(), 1).len() > 5);
    let report = running.log.verify(Sequence(0), |_, _| {}).expect("it can be read");
    assert_eq!((report.damages, report.last), (vec![], Sequence(2 + 4 * 510)));
    running.close().expect("everything is written");
}

#[test]
fn a_reader_follows_the_log_from_any_record_over_files_and_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = Settings { file_bytes_max: 2_000, ..settings(&Hand::default()) };
    let running = Running::open(directory.path(), small.clone());
    let log = running.log.clone();
    let following = std::thread::spawn(move || {
        let mut reader = log.read(Sequence(3)).expect("the next record");
        let mut seen = Vec::new();
        while block_on(reader.more()) {
            let batch = reader.batch().expect("it can be read");
            assert_eq!(batch.last_hash.is_some(), !batch.records.is_empty());
            seen.extend(batch.records.iter().map(|record| record.sequence));
        }
        seen
    });
    for user in 1..=60 {
        running.record([user]);
    }
    running.close().expect("everything is written");
    // The last is the log's own: that it was closed.
    assert_eq!(following.join().expect("it did not die"), (3..=63).collect::<Vec<_>>());

    let running = Running::open(directory.path(), small);
    for from in [1, 2, 30, 63, 64] {
        let mut reader = running.log.read(Sequence(from)).expect("it is kept");
        assert_eq!(reader.batch().expect("it can be read").records.first().expect("a record").sequence, from);
    }
    assert!(matches!(running.log.read(Sequence(66)), Err(ReadError::InTheFuture { head: Sequence(64) })));
    running.close().expect("everything is written");
}

#[test]
fn what_is_not_in_the_contract_is_recorded_without_the_callers_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::open(directory.path(), settings(&Hand::default()));
    let made_up = policies().method("/made.up/ByACaller");
    let record = Record::new(Timestamp(1), Caller::Anonymous, made_up);
    block_on(running.log.reserve(record).expect("a slot").record_durably(Outcome::new(Code::Unimplemented, "", Duration::ZERO)))
        .expect("it is durable");
    let records = read_all(&running.log);
    assert_eq!((&*records[2].method, records[2].scopes.len()), ("", 0));
    running.close().expect("everything is written");
}
