//! The engine that forgets: what it may lose, what it may not, and that it does the same again from the same seed.

#![forbid(unsafe_code)]

use paymesh_journal::{
    Chain, Error, Segment,
    conformance::{
        identity, shard,
        stream::{Stream, pack},
    },
    memory::{Fault, Faults, MemoryStore, Operation},
};
use paymesh_types::{Epoch, Sequence};

/// A store with the first of the segments in it.
async fn begun(segments: &[Segment], faults: Faults) -> MemoryStore {
    let place = MemoryStore::with_faults(&identity(), faults);
    let store = place.open(&identity()).expect("it opens");
    store.journal.lead().await.expect("a term begins");
    store.journal.append(&segments[0]).await.expect("it is appended");
    place
}

fn segments() -> Vec<Segment> {
    let stream = Stream::with(80, 400);
    let mut chain = Chain::start(shard());
    let mut link = |entries: &[paymesh_journal::Committed]| {
        let of_first_term: Vec<_> = entries
            .iter()
            .map(|(position, entry)| (paymesh_types::Position { epoch: Epoch(1), ..position.clone() }, entry.clone()))
            .collect();
        let segment = pack(&chain, &of_first_term, [1; 32]);
        chain.link(&segment).expect("it follows");
        segment
    };
    stream.committed().chunks(10).map(&mut link).collect()
}

async fn last(place: &MemoryStore) -> Sequence {
    place.open(&identity()).expect("it opens").journal.head().await.expect("the head is read").sequence
}

#[tokio::test]
async fn each_fault_leaves_the_journal_as_it_says() {
    let segments = segments();
    for (fault, seen, after_crash) in [
        (Fault::Full, 10, [10, 10]),
        (Fault::Refused, 10, [10, 10]),
        (Fault::Ambiguous, 20, [20, 20]),
        (Fault::Unsynced, 10, [10, 20]),
        (Fault::PowerCutBefore, 0, [10, 10]),
        (Fault::PowerCutAfter, 0, [20, 20]),
    ] {
        let mut found = [u64::MAX, 0];
        for seed in 0..20 {
            let place = begun(&segments, Faults { seed, ..Faults::none() }).await;
            let store = place.open(&identity()).expect("it opens");
            place.fail_next(Operation::Append, fault);
            let failed = store.journal.append(&segments[1]).await.expect_err("a fault was asked for");
            assert!(failed.is_retryable(), "{fault:?}: {failed}");
            assert_eq!(matches!(failed, Error::Full { .. }), fault == Fault::Full);
            assert_eq!(place.is_down(), seen == 0, "{fault:?}");
            if seen > 0 {
                assert_eq!(last(&place).await, Sequence(seen), "{fault:?}");
            } else {
                store.journal.head().await.expect_err("it is down");
            }
            let after = last(&place.crash()).await.0;
            found = [found[0].min(after), found[1].max(after)];
        }
        assert_eq!(found, after_crash, "{fault:?}: the least and the most that is found after a crash");
    }
}

#[tokio::test]
async fn what_was_not_synced_gives_way_to_the_next_append() {
    let segments = segments();
    for seed in 0..10 {
        let place = begun(&segments, Faults { seed, ..Faults::none() }).await;
        let store = place.open(&identity()).expect("it opens");
        place.fail_next(Operation::Append, Fault::Unsynced);
        store.journal.append(&segments[1]).await.expect_err("a fault was asked for");
        let other = Segment { payload: vec![7], ..segments[1].clone() };
        store.journal.append(&other).await.expect("its place is free");
        let found = place.crash();
        let read = found.open(&identity()).expect("it opens").journal.read(Sequence(11), usize::MAX).await.expect("it is read");
        assert_eq!(read, [other], "seed {seed}");
    }
}

#[tokio::test]
async fn a_machine_that_stopped_does_nothing_more() {
    let segments = segments();
    let place = begun(&segments, Faults::none()).await;
    let store = place.open(&identity()).expect("it opens");
    let stream = Stream::with(81, 5);
    let found = place.crash();
    assert!(place.is_down() && !found.is_down());
    assert!(store.journal.append(&segments[1]).await.is_err());
    assert!(store.journal.lead().await.is_err());
    assert!(store.tables.project(&stream.projection(0, 5)).await.is_err());
    assert!(store.tables.cursor().await.is_err());
    assert!(place.open(&identity()).is_err());
    assert_eq!(last(&found).await, Sequence(10), "what the old one was asked for did not reach the new one");
    assert_eq!(found.open(&identity()).expect("it opens").tables.cursor().await.expect("it is read"), Sequence(0));
}

#[tokio::test]
async fn tables_lose_their_newest_changes_only() {
    let stream = Stream::with(82, 300);
    let mut lost = Vec::new();
    for seed in 0..30 {
        let place = MemoryStore::with_faults(&identity(), Faults { seed, ..Faults::none() });
        let tables = place.open(&identity()).expect("it opens").tables;
        for at in 0..300 {
            tables.project(&stream.projection(at, at + 1)).await.expect("it is projected");
        }
        let found = place.crash();
        let cursor = found.open(&identity()).expect("it opens").tables.cursor().await.expect("it is read").0;
        lost.push(300 - cursor);
        // What is found once is found again: it is on the disk.
        let again = found.crash();
        assert_eq!(again.open(&identity()).expect("it opens").tables.cursor().await.expect("it is read").0, cursor);
    }
    assert!(lost.iter().all(|lost| *lost <= 64), "{lost:?}");
    assert!(lost.iter().any(|lost| *lost > 5) && lost.iter().min() < lost.iter().max(), "{lost:?}");
}

#[tokio::test]
async fn the_same_seed_fails_the_same_way() {
    let segments = segments();
    let run = async |seed: u64| {
        let faults = Faults { seed, appends_per_mille: 400, projections_per_mille: 400, reads_per_mille: 100, power_cuts_per_mille: 100 };
        let mut place = MemoryStore::with_faults(&identity(), faults);
        let mut log = Vec::new();
        for _ in 0..60 {
            if place.is_down() {
                place = place.crash();
            }
            let store = place.open(&identity()).expect("it opens");
            log.push(format!("{:?}", store.journal.lead().await.is_ok()));
            let Ok(head) = store.journal.head().await else {
                log.push("None".to_owned());
                continue;
            };
            let Some(next) = segments.iter().find(|segment| segment.first > head.sequence) else { break };
            let append = store.journal.append(&Segment { epoch: Epoch(1_000), ..next.clone() }).await;
            log.push(format!("{append:?} after {}", head.sequence));
        }
        log
    };
    let (one, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
    for seen in ["injected", "Full", "is down", "Ok", "None"] {
        assert!(one.iter().any(|line| line.contains(seen)), "{seen}: {one:?}");
    }
}
