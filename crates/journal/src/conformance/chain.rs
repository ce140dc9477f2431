//! The checks of the journal.

use std::sync::Arc;

use paymesh_types::{Epoch, Sequence};

use super::{Engine, empty, identity, open, shard, stream};
use crate::{Chain, Error, Head, Identity, Journal, Segment, Store};

const ALL: usize = usize::MAX;

/// A journal with a few segments in it, and the segments.
async fn filled<E: Engine>(engine: &E, seed: u64) -> (E::Place, Store, Vec<Segment>) {
    let (place, store) = empty(engine).await;
    let segments = stream::Stream::with(seed, 300).segments();
    for segment in &segments {
        lead_to(store.journal.as_ref(), segment.epoch).await;
        store.journal.append(segment).await.expect("a segment that follows is appended");
    }
    (place, store, segments)
}

/// Takes terms of leadership until the epoch is that one.
async fn lead_to(journal: &dyn Journal, epoch: Epoch) {
    let head = journal.head().await.expect("the head is read");
    for _ in head.epoch.0..epoch.0 {
        journal.lead().await.expect("a term begins");
    }
}

async fn all(journal: &dyn Journal) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    loop {
        let from = segments.last().map_or(Sequence(1), |segment| segment.last().next());
        let more = journal.read(from, ALL).await.expect("segments are read");
        if more.is_empty() {
            return segments;
        }
        segments.extend(more);
    }
}

fn at(segment: &Segment) -> Head {
    Head { epoch: segment.epoch, sequence: segment.last(), hash: Some(segment.hash) }
}

pub(super) async fn an_empty_journal_has_nothing_in_it<E: Engine>(engine: &E) {
    let (_place, store) = empty(engine).await;
    let head = store.journal.head().await.expect("the head is read");
    assert_eq!(head, Head { epoch: Epoch(0), sequence: Sequence(0), hash: None });
    for from in [0, 1, 1_000, u64::MAX] {
        assert_eq!(store.journal.read(Sequence(from), ALL).await.expect("nothing is read"), Vec::new(), "from {from}");
    }
}

pub(super) async fn segments_of_another_leader_are_added_all_or_none<E: Engine>(engine: &E) {
    let (place, store) = empty(engine).await;
    let segments: Vec<Arc<Segment>> = stream::Stream::with(7, 300).segments().into_iter().map(Arc::new).collect();
    let journal = store.journal.as_ref();
    journal.extend(&[]).await.expect("nothing is added");
    journal.extend(&segments[..3]).await.expect("what follows is added");
    // One that is missing, one that is there already, one that comes twice: nothing of the rest is added either.
    for wrong in [&segments[4..], &segments[2..], &[segments[3].clone(), segments[3].clone()]] {
        let refused = journal.extend(wrong).await.expect_err("they do not follow");
        assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
        assert_eq!(journal.head().await.expect("the head is read"), at(&segments[2]));
    }
    journal.extend(&segments[3..]).await.expect("what follows is added");
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    assert_eq!(all(store.journal.as_ref()).await, segments.iter().map(|segment| segment.as_ref().clone()).collect::<Vec<_>>());
    // Who leads here is not overtaken by what an earlier leader wrote.
    let (_place, store) = empty(engine).await;
    lead_to(store.journal.as_ref(), Epoch(segments[0].epoch.0 + 1)).await;
    let refused = store.journal.extend(&segments[..1]).await.expect_err("another leads");
    assert!(matches!(refused, Error::Fenced { .. }), "{refused}");
}

pub(super) async fn segments_come_back_byte_for_byte<E: Engine>(engine: &E) {
    let (_place, store, segments) = filled(engine, 1).await;
    assert!(segments.len() > 5 && segments.iter().any(|segment| segment.count > 1));
    assert_eq!(all(store.journal.as_ref()).await, segments);
    assert_eq!(store.journal.head().await.expect("the head is read"), at(&segments[segments.len() - 1]));
}

pub(super) async fn a_read_begins_with_the_segment_that_holds_the_entry<E: Engine>(engine: &E) {
    let (_place, store, segments) = filled(engine, 2).await;
    for (index, segment) in segments.iter().enumerate() {
        for from in [segment.first.0, segment.first.0 + u64::from(segment.count) / 2, segment.last().0] {
            let read = store.journal.read(Sequence(from), ALL).await.expect("segments are read");
            assert_eq!(read, segments[index..], "from {from}");
        }
    }
    assert_eq!(store.journal.read(Sequence(0), ALL).await.expect("segments are read"), segments, "0 stands before the first");
    let past = segments[segments.len() - 1].last().next();
    assert_eq!(store.journal.read(past, ALL).await.expect("nothing is read"), Vec::new());
}

pub(super) async fn a_read_keeps_to_its_bound_but_gives_at_least_one<E: Engine>(engine: &E) {
    let (_place, store, segments) = filled(engine, 3).await;
    for bytes_max in [0, 1, 1_000, 5_000, 20_000] {
        let read = store.journal.read(Sequence(1), bytes_max).await.expect("segments are read");
        let expected = segments.iter().scan(0, |bytes, segment| {
            let more = *bytes < bytes_max.max(1);
            *bytes += segment.payload.len();
            more.then_some(segment.clone())
        });
        assert_eq!(read, expected.collect::<Vec<_>>(), "at most about {bytes_max} bytes");
        assert!(!read.is_empty());
    }
}

pub(super) async fn what_does_not_follow_the_head_is_refused<E: Engine>(engine: &E) {
    let (_place, store, segments) = filled(engine, 4).await;
    let last = &segments[segments.len() - 1];
    let first_of = |first: u64| Segment { first: Sequence(first), ..last.clone() };
    for wrong in [segments[0].clone(), last.clone(), first_of(last.last().0), first_of(last.last().0 + 2)] {
        match store.journal.append(&Segment { epoch: last.epoch, ..wrong.clone() }).await {
            Err(Error::NotNext { head, offered }) => assert_eq!((head, offered), (last.last(), wrong.first)),
            other => panic!("a segment that begins at {} after {} came to {other:?}", wrong.first, last.last()),
        }
        assert_eq!(store.journal.head().await.expect("the head is read"), at(last), "nothing was written");
    }
    assert_eq!(all(store.journal.as_ref()).await, segments);

    let (_place, fresh) = empty(engine).await;
    fresh.journal.lead().await.expect("a term begins");
    match fresh.journal.append(&first_of(2)).await {
        Err(Error::NotNext { head: Sequence(0), offered: Sequence(2) }) => {}
        other => panic!("a journal that begins at 2 came to {other:?}"),
    }
}

pub(super) async fn a_leader_is_fenced_off_by_the_next<E: Engine>(engine: &E) {
    let (place, old) = empty(engine).await;
    let mut segments = stream::Stream::with(5, 60).segments();
    segments.iter_mut().for_each(|segment| segment.epoch = Epoch(1));
    assert_eq!(old.journal.lead().await.expect("a term begins"), Epoch(1));
    old.journal.append(&segments[0]).await.expect("the first leader appends");

    let new = open(engine, &place).await;
    assert_eq!(new.journal.lead().await.expect("a term begins"), Epoch(2));
    for journal in [&old.journal, &new.journal] {
        match journal.append(&segments[1]).await {
            Err(Error::Fenced { held: Epoch(2), offered: Epoch(1) }) => {}
            other => panic!("an append of a term that is over came to {other:?}"),
        }
        assert_eq!(journal.head().await.expect("the head is read"), at(&segments[0]), "nothing was written");
    }
    // Fenced, and not only not next: the old leader is to stop, whatever else is wrong.
    match old.journal.append(&segments[2]).await {
        Err(Error::Fenced { .. }) => {}
        other => panic!("an append of a term that is over came to {other:?}"),
    }
    new.journal.append(&Segment { epoch: Epoch(2), ..segments[1].clone() }).await.expect("the leader of now appends");
    assert_eq!(old.journal.head().await.expect("the head is read").epoch, Epoch(2));
}

pub(super) async fn each_leader_gets_an_epoch_of_its_own<E: Engine>(engine: &E) {
    let (place, one) = empty(engine).await;
    let two = open(engine, &place).await;
    let lead = |store: &Store| {
        let journal = store.journal.clone();
        async move { journal.lead().await.expect("a term begins").0 }
    };
    let (a, b, c, d) = futures::join!(lead(&one), lead(&two), lead(&one), lead(&two));
    let mut epochs = vec![a, b, c, d];
    drop((one, two));
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    epochs.push(lead(&store).await);
    assert_eq!(epochs[4], 5, "a term that was begun is over after a crash");
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5]);
}

pub(super) async fn one_of_two_that_append_at_once_wins<E: Engine>(engine: &E) {
    let (place, one) = empty(engine).await;
    let two = open(engine, &place).await;
    one.journal.lead().await.expect("a term begins");
    let mut stream = stream::Stream::with(6, 10);
    let chain = Chain::start(shard());
    let entries: Vec<_> = stream.run(0).into_iter().chain(stream.committed().iter().take(3).cloned()).collect();
    let (ours, theirs) = (stream::pack(&chain, &entries, [1; 32]), stream::pack(&chain, &entries, [2; 32]));
    let (a, b) = futures::join!(one.journal.append(&ours), two.journal.append(&theirs));
    let winner = match (a, b) {
        (Ok(()), Err(Error::NotNext { .. })) => &ours,
        (Err(Error::NotNext { .. }), Ok(())) => &theirs,
        other => panic!("two that append in the same place came to {other:?}"),
    };
    assert_eq!(&all(one.journal.as_ref()).await, std::slice::from_ref(winner));
}

pub(super) async fn a_journal_is_the_same_when_it_is_opened_again<E: Engine>(engine: &E) {
    let (place, store, segments) = filled(engine, 7).await;
    drop(store);
    let store = open(engine, &place).await;
    assert_eq!(all(store.journal.as_ref()).await, segments);
    assert_eq!(store.journal.head().await.expect("the head is read"), at(&segments[segments.len() - 1]));
}

pub(super) async fn what_was_appended_survives_a_crash<E: Engine>(engine: &E) {
    let (mut place, store) = empty(engine).await;
    drop(store);
    let segments = stream::Stream::with(8, 120).segments();
    for (index, segment) in segments.iter().enumerate() {
        let store = open(engine, &place).await;
        lead_to(store.journal.as_ref(), segment.epoch).await;
        store.journal.append(segment).await.expect("a segment that follows is appended");
        // The store is open still: nobody had the time to close it.
        place = engine.crash(place).await;
        let found = open(engine, &place).await;
        assert_eq!(all(found.journal.as_ref()).await, segments[..=index]);
    }
}

pub(super) async fn storage_of_another_shard_is_refused<E: Engine>(engine: &E) {
    let (place, store, segments) = filled(engine, 9).await;
    drop(store);
    let ours = identity();
    // Another shard of the zone has files of its own where an engine keeps files: what cannot differ in name is checked.
    for wrong in [Identity { mesh: "another".to_owned(), ..ours.clone() }, Identity { shards: 8, ..ours.clone() }] {
        match engine.open(&place, &wrong).await {
            Err(Error::Identity { found, wanted, .. }) => assert_eq!((found, wanted), (ours.to_string(), wrong.to_string())),
            other => panic!("opening what belongs to {ours} for {wrong} came to {other:?}"),
        }
    }
    let store = open(engine, &place).await;
    assert_eq!(all(store.journal.as_ref()).await, segments, "it is whose it was");
}

pub(super) async fn a_stored_journal_follows_its_chain<E: Engine>(engine: &E) {
    let (place, store) = empty(engine).await;
    let mut stream = stream::Stream::with(10, 500);
    for segment in stream.segments() {
        lead_to(store.journal.as_ref(), segment.epoch).await;
        store.journal.append(&segment).await.expect("a segment that follows is appended");
    }
    drop(store);
    let store = open(engine, &place).await;
    let mut chain = Chain::start(shard());
    let mut entries = Vec::new();
    for segment in all(store.journal.as_ref()).await {
        chain.link(&segment).expect("what is stored follows");
        entries.extend(segment.entries(&shard()).expect("what is stored decodes"));
    }
    assert_eq!(entries, stream.committed());
}
