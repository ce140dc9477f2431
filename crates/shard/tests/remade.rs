//! Copies that are set aside, and those that are made in their place.

#![forbid(unsafe_code)]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use paymesh_journal::{Segment, Store, checkpoint, sqlite::Engine};
use paymesh_shard::{AddError, Error, Replica, ReplicaOptions, Retention, Shard};
use paymesh_types::{Sequence, Timestamp};
use support::{Disk, all, deposit, enrol, eu, identity, pay, raw};

const OPTIONS: ReplicaOptions =
    ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention { time: None, bytes: None } };

/// A history of eu/0: what commits it. No two are the same, whatever is in them.
async fn history() -> (Shard, Vec<Segment>) {
    let shard = Disk::memory(&eu(0)).open(&eu(0)).await;
    all(&shard, (1..=5).map(enrol)).await;
    for round in 1..=4 {
        all(&shard, (1..=5).map(|number| deposit(number, 100 * round))).await;
        all(&shard, (1..=4).map(|number| pay(number, number + 1, 10 * round))).await;
    }
    let segments = shard.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let segments = segments.iter().map(|segment| segment.as_ref().clone()).collect();
    (shard, segments)
}

/// A whole copy in a directory.
async fn open(engine: &Engine) -> (Store, Result<Replica, Error>) {
    let store = engine.store(&identity(&eu(0))).await.expect("it opens");
    let opened = Replica::open(&identity(&eu(0)), store.journal.clone(), Some(store.clone()), OPTIONS).await;
    (store, opened)
}

async fn projected(replica: &Replica, sequence: Sequence) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while replica.projected() != Some(sequence) {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the tables follow");
}

/// As if the node had stopped in the middle of it: one of the files stays where it is.
#[tokio::test]
async fn a_copy_that_is_not_set_aside_as_a_whole_leaves_nothing_to_the_next() {
    let ((_one, ours), (_other, theirs)) = (history().await, history().await);
    let last = ours.last().expect("there are some");
    for stays in ["eu-0.tables.sqlite", "eu-0.checkpoints.sqlite"] {
        let directory = tempfile::tempdir().expect("a folder");
        let engine = Engine::new(directory.path());
        let (store, first) = open(&engine).await;
        let first = first.expect("it opens");
        first.add(ours.clone()).await.expect("they are added");
        projected(&first, last.last()).await;
        let snapshot = store.tables.snapshot().await.expect("a snapshot");
        checkpoint::make(&eu(0), snapshot, last, &store.checkpoints).await.expect("it is made");
        first.close().await;
        let in_the_way = |at: u64| directory.path().join(format!("{stays}.aside-{at}"));
        std::fs::create_dir(in_the_way(1)).expect("a folder");
        let failed = engine.set_aside(&eu(0), Timestamp(1), false).await.expect_err("it cannot be renamed to a folder");
        assert!(failed.is_retryable(), "{failed}");

        // Whichever it is then, the tables are of the journal beside them.
        let (_, second) = open(&engine).await;
        let second = second.expect("it opens");
        projected(&second, second.end().await.sequence).await;
        let continued = second.end().await.sequence == last.last() || second.add(theirs.clone()).await.is_ok();
        assert!(continued, "{stays}: an empty copy does not take in what another history has");
        second.close().await;

        engine.set_aside(&eu(0), Timestamp(2), false).await.expect("it is set aside");
        let (_, third) = open(&engine).await;
        let third = third.expect("it opens");
        assert_eq!((third.end().await.sequence, third.projected()), (Sequence(0), Some(Sequence(0))), "{stays}");
        third.add(theirs.clone()).await.expect("another history is begun");
        third.close().await;
        assert!(kept(directory.path(), stays), "{stays}");
    }
}

/// What is damaged is not what the next copy is measured by; what is not damaged is.
#[tokio::test]
async fn a_copy_whose_last_segment_was_damaged_is_made_anew_of_the_same_history_and_of_no_other() {
    let ((_one, ours), (_other, theirs)) = (history().await, history().await);
    let last = ours.last().expect("there are some");
    let disk = Disk::sqlite();
    let Disk::Sqlite(directory) = &disk else { panic!("it is one") };
    let engine = Engine::new(directory.path());
    let (_, first) = open(&engine).await;
    let first = first.expect("it opens");
    first.add(ours.clone()).await.expect("they are added");
    first.close().await;
    let damage = sqlx::query("UPDATE segments SET hash = zeroblob(32) WHERE first = ?").bind(last.first.0.cast_signed());
    assert_eq!(damage.execute(&mut raw(&disk, "journal.sqlite").await).await.expect("it is damaged").rows_affected(), 1);
    let (store, damaged) = open(&engine).await;
    assert!(matches!(damaged, Err(Error::Storage { source: paymesh_journal::Error::Corrupt(_), .. })), "{damaged:?}");
    store.tables.close().await;
    store.checkpoints.close().await;
    engine.set_aside(&eu(0), Timestamp(1), true).await.expect("it is set aside");

    let (_, second) = open(&engine).await;
    let second = second.expect("it opens");
    let refused = second.add(theirs).await;
    assert!(matches!(&refused, Err(AddError::BadSegment(corrupt)) if corrupt.what.contains("another history")), "{refused:?}");
    second.add(ours.clone()).await.expect("it is the same history");
    assert_eq!((second.end().await.sequence, second.witness()), (last.last(), None));
    second.close().await;
}

/// Whether a file was kept under another name.
fn kept(directory: &Path, name: &str) -> bool {
    let files = std::fs::read_dir(directory).expect("it is read").map(|file| file.expect("it is read"));
    let mut kept = files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
    kept.any(|file| file.file_name().to_string_lossy().starts_with(&format!("{name}.aside-")))
}

/// Segments are added and that is noted in two commits: a crash between them leaves a copy that has shown what it had to.
#[tokio::test]
async fn a_copy_that_has_come_past_the_one_set_aside_is_known_to_also_where_that_could_not_be_noted() {
    let (_leader, sent) = history().await;
    let arcs: Vec<_> = sent.iter().cloned().map(Arc::new).collect();
    let directory = tempfile::tempdir().expect("a folder");
    let engine = Engine::new(directory.path());
    let (_, first) = open(&engine).await;
    let first = first.expect("it opens");
    first.add(sent[..3].to_vec()).await.expect("they are added");
    first.close().await;
    engine.set_aside(&eu(0), Timestamp(1), true).await.expect("it is set aside");

    let (store, second) = open(&engine).await;
    let second = second.expect("it opens");
    assert_eq!(second.witness(), Some((sent[2].last(), sent[2].hash)));
    second.close().await;
    store.journal.extend(&arcs[..4]).await.expect("they are added");
    let (store, third) = open(&engine).await;
    assert_eq!(third.expect("it opens").witness(), None);
    assert_eq!(store.journal.witness().await.expect("it is read"), None);
}
