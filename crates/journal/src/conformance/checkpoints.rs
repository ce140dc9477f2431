//! The checks of checkpoints, and of tables that are made of them.

use std::sync::Arc;

use paymesh_types::Sequence;

use super::{Engine, empty, open, shard, stream};
use crate::{
    Checkpoints, Error, Manifest, Segment, Store, Tables,
    checkpoint::{self, Draft, Reader},
};

/// Tables that `count` entries were projected to, and the segment that ends with the last.
async fn filled<E: Engine>(engine: &E, seed: u64, count: usize) -> (E::Place, Store, stream::Stream, Segment) {
    let (place, store) = empty(engine).await;
    let mut stream = stream::Stream::with(seed, count);
    store.tables.project(&stream.projection(0, count)).await.expect("it is projected");
    let ending = stream.segments().pop().expect("there is one");
    (place, store, stream, ending)
}

async fn make(store: &Store, ending: &Segment) -> Manifest {
    let snapshot = store.tables.snapshot().await.expect("a snapshot");
    checkpoint::make(&shard(), snapshot, ending, &store.checkpoints).await.expect("it is made")
}

/// All rows, in an order of their own.
async fn rows(tables: &Arc<dyn Tables>) -> Vec<String> {
    let mut snapshot = tables.snapshot().await.expect("a snapshot");
    let mut all = Vec::new();
    loop {
        let page = snapshot.next().await.expect("rows are read");
        if page.is_empty() {
            break;
        }
        all.extend(page.into_iter().map(|row| format!("{row:?}")));
    }
    all.sort_unstable();
    let mut books = snapshot.books().clone();
    books.system.sort_unstable();
    books.inbox.sort_unstable();
    books.delivered.sort_unstable();
    all.push(format!("{books:?}"));
    all
}

async fn chunks(checkpoints: &Arc<dyn Checkpoints>, manifest: &Manifest) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for index in 0..manifest.chunks.len() {
        let index = u32::try_from(index).expect("few");
        all.push(checkpoints.chunk(&manifest.root(), index).await.expect("it is read").expect("it is there"));
    }
    assert_eq!(checkpoints.chunk(&manifest.root(), all.len() as u32).await.expect("it is read"), None, "there are no more");
    assert_eq!(checkpoints.chunk(&[3; 32], 0).await.expect("it is read"), None, "of another root");
    all
}

pub(super) async fn tables_made_of_a_checkpoint_are_those_that_it_was_made_of<E: Engine>(engine: &E) {
    const ENTRIES: usize = 4_000;
    let (place, store, mut stream, ending) = filled(engine, 31, ENTRIES).await;
    let manifest = make(&store, &ending).await;
    assert_eq!((manifest.sequence, manifest.hash), (ending.last(), ending.hash));
    assert!(manifest.chunks.len() > 1 && manifest.digest.rows > 3_000, "{} rows", manifest.digest.rows);
    let expected = rows(&store.tables).await;
    // The store is open still: nobody had the time to close it.
    let place = engine.crash(place).await;
    let store = open(engine, &place).await;
    assert_eq!(store.checkpoints.latest().await.expect("it is read"), Some(manifest.clone()), "it survives");

    // Twice, as after a crash halfway; and elsewhere.
    let (_place, other) = empty(engine).await;
    other.checkpoints.begin(None).await.expect("it is begun");
    for (index, chunk) in chunks(&store.checkpoints, &manifest).await.iter().enumerate() {
        other.checkpoints.add(u32::try_from(index).expect("few"), chunk).await.expect("it is added");
    }
    other.checkpoints.finish(&manifest).await.expect("it is finished");
    let (_place, nothing) = empty(engine).await;
    let nothing = rows(&nothing.tables).await;
    for store in [&store, &other] {
        store.tables.clear().await.expect("they are cleared");
        assert_eq!(store.tables.cursor().await.expect("it is read"), Sequence(0));
        assert_eq!(rows(&store.tables).await, nothing, "what was there would stay where the checkpoint has no row in its place");
        let mut reader = Reader::new(&store.checkpoints, &manifest);
        store.tables.restore(&reader.next().await.expect("rows are read")).await.expect("they are put");
        checkpoint::restore(&store.checkpoints, &manifest, &store.tables).await.expect("they are made");
        assert_eq!(store.tables.cursor().await.expect("it is read"), ending.last());
        assert_eq!(rows(&store.tables).await, expected);
    }
    // And they go on as the others do.
    stream.run(500);
    other.tables.project(&stream.projection(ENTRIES, ENTRIES + 500)).await.expect("it is projected");
    let (_place, whole) = empty(engine).await;
    whole.tables.project(&stream.projection(0, ENTRIES + 500)).await.expect("it is projected");
    let expired = |tables: Arc<dyn Tables>| async move { tables.expired(paymesh_types::Timestamp(u64::MAX), 1_000).await.expect("read") };
    assert_eq!(expired(other.tables.clone()).await, expired(whole.tables.clone()).await, "holds run out");
    assert_eq!(rows(&other.tables).await, rows(&whole.tables).await);
}

pub(super) async fn what_is_not_finished_is_no_checkpoint<E: Engine>(engine: &E) {
    let (mut place, store, _, ending) = filled(engine, 32, 800).await;
    let mut before = None;
    let manifest = make(&store, &ending).await;
    let all = chunks(&store.checkpoints, &manifest).await;
    drop(store);
    for cut in 0..=all.len() {
        let (fresh, store) = empty(engine).await;
        store.checkpoints.begin(None).await.expect("it is begun");
        for (index, chunk) in all.iter().take(cut).enumerate() {
            store.checkpoints.add(u32::try_from(index).expect("few"), chunk).await.expect("it is added");
        }
        if cut < all.len() {
            let refused = store.checkpoints.finish(&manifest).await.expect_err("chunks are missing");
            assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
        }
        place = engine.crash(fresh).await;
        let store = open(engine, &place).await;
        assert_eq!(store.checkpoints.latest().await.expect("it is read"), None, "cut after {cut}");
        before = Some(store);
    }
    // What was begun is dropped with the next.
    let store = before.expect("there was one");
    store.checkpoints.begin(None).await.expect("it is begun");
    assert_eq!(store.checkpoints.draft().await.expect("it is read"), Some(Draft { announced: None, chunks: 0 }));
    drop(place);
}

pub(super) async fn one_that_is_fetched_goes_on_where_it_was_cut_off<E: Engine>(engine: &E) {
    let (_place, source, _, ending) = filled(engine, 33, 3_000).await;
    let manifest = make(&source, &ending).await;
    let all = chunks(&source.checkpoints, &manifest).await;
    let (mut place, mut store) = empty(engine).await;
    store.checkpoints.begin(Some(&manifest)).await.expect("it is begun");
    for (index, chunk) in (0..).zip(&all) {
        let draft = Draft { announced: Some(manifest.clone()), chunks: index };
        assert_eq!(store.checkpoints.draft().await.expect("it is read"), Some(draft));
        let refused = store.checkpoints.add(index + 1, chunk).await.expect_err("one is missing");
        assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
        // Twice: whoever was not told that it was added adds it again.
        store.checkpoints.add(index, chunk).await.expect("it is added");
        store.checkpoints.add(index, chunk).await.expect("it is added again");
        place = engine.crash(place).await;
        store = open(engine, &place).await;
    }
    store.checkpoints.finish(&manifest).await.expect("it is finished");
    assert_eq!(store.checkpoints.draft().await.expect("it is read"), None);
    assert_eq!(chunks(&store.checkpoints, &manifest).await, all);
}

pub(super) async fn the_next_replaces_the_one_before<E: Engine>(engine: &E) {
    const ENTRIES: usize = 600;
    let (_place, store, mut stream, ending) = filled(engine, 34, ENTRIES).await;
    let first = make(&store, &ending).await;
    stream.run(200);
    store.tables.project(&stream.projection(ENTRIES, ENTRIES + 200)).await.expect("it is projected");
    let ending = stream.segments().pop().expect("there is one");
    // While it is made, and when that comes to nothing, the one before is there.
    store.checkpoints.begin(None).await.expect("it is begun");
    store.checkpoints.add(0, b"not a chunk").await.expect("it is added");
    assert_eq!(store.checkpoints.latest().await.expect("it is read"), Some(first.clone()));
    chunks(&store.checkpoints, &first).await;
    let second = make(&store, &ending).await;
    assert_ne!(first.root(), second.root());
    assert_eq!(store.checkpoints.latest().await.expect("it is read"), Some(second.clone()));
    assert_eq!(store.checkpoints.chunk(&first.root(), 0).await.expect("it is read"), None, "the one before is gone");
    chunks(&store.checkpoints, &second).await;
}

pub(super) async fn tables_that_hold_something_are_not_restored_over<E: Engine>(engine: &E) {
    let (_place, store, _, ending) = filled(engine, 35, 400).await;
    let manifest = make(&store, &ending).await;
    let before = rows(&store.tables).await;
    for refused in [store.tables.restore(&[]).await, store.tables.restored(Sequence(9), &manifest.books).await] {
        assert!(matches!(refused, Err(Error::NotNext { .. })), "{refused:?}");
    }
    assert_eq!(rows(&store.tables).await, before);
    // What is not as of the end of that segment is no checkpoint of it.
    let other = stream::Stream::with(35, 390).segments().pop().expect("there is one");
    let snapshot = store.tables.snapshot().await.expect("a snapshot");
    let refused = checkpoint::make(&shard(), snapshot, &other, &store.checkpoints).await.expect_err("of another entry");
    assert!(matches!(refused, Error::NotNext { .. }), "{refused}");
    assert_eq!(store.checkpoints.latest().await.expect("it is read"), Some(manifest));
}

pub(super) async fn a_chunk_that_is_not_what_was_written_is_refused<E: Engine>(engine: &E) {
    let (_place, store, _, ending) = filled(engine, 36, 400).await;
    let manifest = make(&store, &ending).await;
    let all = chunks(&store.checkpoints, &manifest).await;
    let (_place, damaged) = empty(engine).await;
    let mut chunk = all[0].clone();
    let middle = chunk.len() / 2;
    chunk[middle] ^= 1;
    assert!(manifest.check(0, &chunk).is_err() && manifest.check(0, &all[0]).is_ok() && manifest.check(99, &all[0]).is_err());
    damaged.checkpoints.begin(None).await.expect("it is begun");
    for (index, chunk) in (0..).zip(std::iter::once(&chunk).chain(&all[1..])) {
        damaged.checkpoints.add(index, chunk).await.expect("it is added");
    }
    damaged.checkpoints.finish(&manifest).await.expect("it is finished");
    let refused = checkpoint::restore(&damaged.checkpoints, &manifest, &damaged.tables).await.expect_err("it is damaged");
    assert!(matches!(refused, Error::Corrupt(_)), "{refused}");
    assert_eq!(damaged.tables.cursor().await.expect("it is read"), Sequence(0), "the tables are of no use, and say so");
    // Rows that are whole and not all, or books that do not sum to zero.
    let mut lacking = manifest.clone();
    lacking.digest.rows += 1;
    let mut unbalanced = manifest.clone();
    unbalanced.books.system[0].1 += 1;
    for wrong in [lacking, unbalanced] {
        damaged.checkpoints.begin(None).await.expect("it is begun");
        for (index, chunk) in (0..).zip(&all) {
            damaged.checkpoints.add(index, chunk).await.expect("it is added");
        }
        damaged.checkpoints.finish(&wrong).await.expect("it is finished");
        let refused = checkpoint::restore(&damaged.checkpoints, &wrong, &damaged.tables).await.expect_err("it does not add up");
        assert!(matches!(refused, Error::Corrupt(_)), "{refused}");
        assert_eq!(damaged.tables.cursor().await.expect("it is read"), Sequence(0));
    }
}
