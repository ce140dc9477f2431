//! The checks of journals that are not kept from their first entry.

use paymesh_types::{Cursor, Epoch, HistoryMark, Sequence};

use super::{Engine, empty, open, shard, stream};
use crate::{Chain, Error, Head, Journal, Origin, Segment, Store};

const ALL: usize = usize::MAX;

async fn filled<E: Engine>(engine: &E, seed: u64) -> (E::Place, Store, Vec<Segment>) {
    let (place, store) = empty(engine).await;
    store.journal.lead().await.expect("a term begins");
    let mut segments = stream::Stream::with(seed, 300).segments();
    // The terms of a stream are none of this journal's; the chain is not looked at here.
    segments.iter_mut().for_each(|segment| segment.epoch = Epoch(1));
    for segment in &segments {
        store.journal.append(segment).await.expect("a segment that follows is appended");
    }
    (place, store, segments)
}

fn at(segment: &Segment) -> Origin {
    let mut origin = Origin::beginning(&shard());
    origin.pass(segment, &[]);
    let taken_in = Cursor { sequence: Sequence(7), mark: HistoryMark::new(u64::MAX) };
    let marks = crate::Marks { sent: Sequence(1), taken_in };
    origin.peers.insert(paymesh_types::ShardRef { index: 3, ..shard() }, marks);
    origin
}

fn head(segment: &Segment) -> Head {
    Head { epoch: segment.epoch, sequence: segment.last(), hash: Some(segment.hash) }
}

async fn not_kept(journal: &dyn Journal, from: Sequence, first: Sequence) {
    match journal.read(from, ALL).await {
        Err(Error::NotKept { first: found, wanted }) => assert_eq!((found, wanted), (first, from)),
        other => panic!("a read from {from} of a journal that begins with {first} came to {other:?}"),
    }
}

pub(super) async fn what_is_not_kept_is_refused_and_the_rest_is_as_it_was<E: Engine>(engine: &E) {
    let (place, store, segments) = filled(engine, 21).await;
    assert_eq!(store.journal.origin().await.expect("it is read"), Origin::beginning(&shard()));
    let middle = segments.len() / 2;
    store.journal.prune(Epoch(1), &at(&segments[1])).await.expect("it is cut");
    store.journal.prune(Epoch(1), &at(&segments[middle])).await.expect("it is cut further");
    // The store is open still: nobody had the time to close it.
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    let journal = store.journal.as_ref();
    assert_eq!(journal.origin().await.expect("it is read"), at(&segments[middle]), "also what it knows of other shards");
    let first = segments[middle].last().next();
    for from in [0, 1, segments[1].first.0, first.0 - 1] {
        not_kept(journal, Sequence(from), first).await;
    }
    assert_eq!(journal.read(first, ALL).await.expect("it is read"), segments[middle + 1..]);
    let last = &segments[segments.len() - 1];
    assert_eq!(journal.read(last.last(), 0).await.expect("it is read"), std::slice::from_ref(last));
    assert_eq!(journal.read(last.last().next(), ALL).await.expect("nothing is read"), []);
    assert_eq!(journal.head().await.expect("it is read"), head(last));
    let mut chain = Chain::after(shard(), &at(&segments[middle]));
    assert_eq!((chain.last().next(), chain.hash()), (first, segments[middle].hash));
    assert!(chain.link(&segments[middle]).is_err());
}

pub(super) async fn a_journal_is_cut_where_a_segment_ends_and_by_its_leader_only<E: Engine>(engine: &E) {
    let (_place, store, segments) = filled(engine, 22).await;
    let journal = store.journal.as_ref();
    let end = at(&segments[4]);
    let none_ends_there = Origin { sequence: Sequence(end.sequence.0 + 1), ..end.clone() };
    let another = Origin { hash: [7; 32], ..end.clone() };
    let past = Origin { sequence: Sequence(10_000), ..end.clone() };
    for wrong in [none_ends_there, another, past] {
        let refused = journal.prune(Epoch(1), &wrong).await.expect_err("it is not cut there");
        assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
    }
    journal.lead().await.expect("another term begins");
    let refused = journal.prune(Epoch(1), &end).await.expect_err("its term is over");
    assert!(matches!(refused, Error::Fenced { held: Epoch(2), offered: Epoch(1) }), "{refused}");
    assert_eq!(journal.read(Sequence(1), ALL).await.expect("it is read"), segments, "nothing is changed");
    journal.prune(Epoch(2), &end).await.expect("it is cut");
    let refused = journal.prune(Epoch(2), &at(&segments[2])).await.expect_err("what is gone does not come back");
    assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
    assert_eq!(journal.origin().await.expect("it is read"), end);
}

pub(super) async fn a_journal_of_which_nothing_is_kept_goes_on<E: Engine>(engine: &E) {
    let (place, store, segments) = filled(engine, 23).await;
    let (next, before) = segments.split_last().expect("there are some");
    let (_place, fresh) = (place, store);
    drop(fresh);
    let (place, store) = empty(engine).await;
    store.journal.lead().await.expect("a term begins");
    for segment in before {
        store.journal.append(segment).await.expect("it follows");
    }
    let last = &before[before.len() - 1];
    let mut origin = at(last);
    origin.epoch = Epoch(40);
    store.journal.prune(Epoch(1), &origin).await.expect("it is cut");
    // The store is open still: nobody had the time to close it.
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    assert_eq!(store.journal.read(last.last().next(), ALL).await.expect("nothing is read"), []);
    let Head { sequence, hash, .. } = store.journal.head().await.expect("it is read");
    assert_eq!((sequence, hash), (last.last(), Some(last.hash)));
    match store.journal.append(&Segment { epoch: Epoch(99), ..before[0].clone() }).await {
        Err(Error::NotNext { head, .. }) => assert_eq!(head, last.last()),
        other => panic!("the first segment again came to {other:?}"),
    }
    store.journal.append(next).await.expect("what follows is appended");
    assert_eq!(store.journal.read(next.first, ALL).await.expect("it is read"), std::slice::from_ref(next));
    // A term is later than that of any entry that ever was, also of those that are gone.
    store.journal.prune(Epoch(1), &Origin { epoch: Epoch(50), ..at(next) }).await.expect("it is cut");
    assert!(store.journal.lead().await.expect("a term begins") > Epoch(1));
}

pub(super) async fn an_older_copy_jumps_and_a_newer_one_does_not<E: Engine>(engine: &E) {
    let (place, store) = empty(engine).await;
    let segments: Vec<_> = stream::Stream::with(24, 300).segments().into_iter().map(std::sync::Arc::new).collect();
    let journal = store.journal.as_ref();
    journal.extend(&segments[..3]).await.expect("they are added");
    let refused = journal.jump(&at(&segments[1])).await.expect_err("it is further");
    assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
    assert_eq!(journal.read(Sequence(1), ALL).await.expect("it is read").len(), 3, "nothing is changed");
    journal.jump(&at(&segments[9])).await.expect("it jumps");
    assert_eq!(journal.head().await.expect("it is read"), head(&segments[9]));
    assert!(journal.extend(&segments[3..5]).await.is_err(), "what came next before does not follow any more");
    // The store is open still: nobody had the time to close it.
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    let journal = store.journal.as_ref();
    not_kept(journal, Sequence(1), segments[10].first).await;
    journal.extend(&segments[10..]).await.expect("what follows the origin is added");
    let read = journal.read(segments[10].first, ALL).await.expect("it is read");
    assert!(read.iter().eq(segments[10..].iter().map(std::sync::Arc::as_ref)));
    journal.prune(segments[12].epoch, &at(&segments[12])).await.expect("a copy is cut as well");
    not_kept(journal, segments[12].first, segments[13].first).await;
}
