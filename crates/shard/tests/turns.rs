//! Tables take turns: how many are brought up to date at once. Alone in its program, whose turns are all its own.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use paymesh_journal::{Segment, memory::MemoryStore};
use paymesh_shard::{Replica, ReplicaOptions, Retention};
use paymesh_types::Sequence;
use support::{Disk, all, deposit, enrol, eu, identity};

/// Tables that are so far behind do not wait.
const FAR: u64 = 32_768;

async fn copy() -> (MemoryStore, Replica) {
    let store = MemoryStore::new(&identity(&eu(0)));
    let opened = store.open(&identity(&eu(0))).expect("it opens");
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity(&eu(0)), opened.journal.clone(), Some(opened), options).await.expect("it opens");
    store.hold_projections();
    (store, replica)
}

async fn until_projected(replica: &Replica) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while replica.projected() != Some(replica.tail().head()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("its tables follow");
}

#[tokio::test(start_paused = true)]
async fn half_the_cores_project_at_once_and_who_is_far_behind_does_not_wait_for_a_turn() {
    let shard = Disk::memory(&eu(0)).open(&eu(0)).await;
    all(&shard, (1..=5).map(enrol)).await;
    let few = shard.tail().head();
    while shard.tail().head().0 <= FAR {
        all(&shard, (0..4_000).map(|number| deposit(1 + number % 5, 1))).await;
    }
    shard.close().await;
    let segments = shard.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let segments: Vec<Segment> = segments.iter().map(|segment| segment.as_ref().clone()).collect();
    let first: Vec<Segment> = segments.iter().filter(|segment| segment.last() <= few).cloned().collect();

    let turns = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let mut copies = Vec::new();
    for _ in 0..=turns {
        let (store, replica) = copy().await;
        replica.add(first.clone()).await.expect("they are added");
        copies.push((store, replica));
    }
    let projecting = |copies: &[(MemoryStore, Replica)]| copies.iter().filter(|(store, _)| store.projection_waits()).count();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(projecting(&copies), turns, "all but one have a turn");

    let (store, far) = copy().await;
    far.add(segments).await.expect("they are added");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(store.projection_waits(), "it has begun without one");
    assert_eq!(projecting(&copies), turns, "the others wait as before");
    store.release_projections();
    until_projected(&far).await;
    far.close().await;

    // A turn ends with its projection, and is then another's.
    let (store, replica) = copies.iter().find(|(store, _)| store.projection_waits()).expect("some have a turn");
    store.release_projections();
    until_projected(replica).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(projecting(&copies), turns, "the last has the one that is free");
    for (store, replica) in &copies {
        store.release_projections();
        until_projected(replica).await;
        replica.close().await;
    }
}
