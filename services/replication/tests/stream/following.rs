//! What a follower gets, and what it knows by it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use paymesh_contract::{
    Fault,
    common::v1 as common,
    replication::v1::{
        FollowAcknowledgement, FollowRequest, FollowStart, GetReplicationRequest, ReplicaState, follow_request::Message,
        replication_service_client::ReplicationServiceClient, replication_service_server::ReplicationService as _,
    },
};
use paymesh_journal::{Holding, memory::MemoryStore};
use paymesh_ledger::{Command, Request as LedgerRequest};
use paymesh_mesh::{Mesh, Security};
use paymesh_replication::{Ended, Followed, Following, Replication, plan};
use paymesh_shard::{Options, Replica, Shard, Shards};
use paymesh_types::{Currency, Timestamp};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::support::{Leader, PATIENCE, copy_store, follow, identity, listener, region, replication, shard, topology, until, user};

#[test]
fn a_region_follows_its_zone_and_who_pays_it() {
    let topology = topology([7101, 7102]);
    let planned = |name: &str| -> Vec<_> {
        plan(&topology, &region(name)).into_iter().map(|each| (each.shard.to_string(), each.leader.to_string(), each.holding)).collect()
    };
    let for_zone = |name: &str| Holding::For(name.parse().expect("a zone's name"));
    assert_eq!(planned("us_east"), [("eu/0".to_owned(), "eu_west".to_owned(), for_zone("global"))]);
    // It leads nothing that could be paid.
    let whole = |index: u16| (format!("global/{index}"), "us_east".to_owned(), Holding::Whole);
    // The directory is everybody's.
    let directory = || ("directory/0".to_owned(), "us_east".to_owned(), Holding::Whole);
    assert_eq!(planned("us_west"), [directory(), whole(0), whole(1)]);
    let concerning = |index: u16| (format!("global/{index}"), "us_east".to_owned(), for_zone("eu"));
    assert_eq!(planned("eu_west"), [directory(), concerning(0), concerning(1)]);
    assert_eq!(planned("nowhere"), []);
}

#[tokio::test]
async fn a_follower_gets_what_was_and_what_comes_and_goes_on_after_the_leaders_restart() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let (store, copy) = (MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole)), copy_store());
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(40).await;
    let (_, replica, keeping, mesh) = follow(&topology, &copy).await;
    until("it catches up", || replica.tail().head() == leader.shard.status().head).await;
    // As it is committed: not with what a leader that has nothing to say says each half second, which would take ten.
    let began = std::time::Instant::now();
    for _ in 0..20 {
        leader.fill(1).await;
        until("it is told", || replica.tail().head() == leader.shard.status().head).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let head = leader.shard.status().head;
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let followers = replication(&mesh, "eu_west").await.followers;
            assert_eq!((followers.len(), &*followers[0].region, followers[0].connected), (1, "us_east", true));
            if followers[0].stored_sequence == head.0 {
                break;
            }
        }
    });
    waited.await.expect("the leader hears how far its follower is");

    // A stream that is cut off, with a leader that goes on.
    keeping.abort();
    let _ = keeping.await;
    leader.fill(3).await;
    let following = Following::new(Followed { shard: shard("eu", 0), leader: region("eu_west"), holding: replica.holding().clone() });
    let (kept, at) = (replica.clone(), mesh.clone());
    let keeping = tokio::spawn(async move { following.run(kept, &at).await });
    until("it goes on where it was", || replica.tail().head().0 == head.0 + 3).await;
    let head = replica.tail().head();

    leader.stop().await;
    let listens = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(5).await;
    until("it goes on where it was", || replica.tail().head().0 == head.0 + 5).await;
    let followers = replication(&mesh, "eu_west").await.followers;
    assert_eq!(followers.len(), 1, "{followers:?}");
    assert!(!keeping.is_finished());
    // The chain is the leader's.
    let theirs = leader.shard.store().journal.head().await.expect("it is read");
    let ours = replica.end().await;
    assert_eq!((Some(ours.hash), ours.sequence), (theirs.hash, theirs.sequence));
    keeping.abort();
    leader.stop().await;
}

#[tokio::test]
async fn who_may_not_follow_or_has_another_journal_is_told_so() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(3).await;
    let mesh = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let hash = leader.shard.store().journal.head().await.expect("it is read").hash.expect("there is one").to_vec();
    let head = leader.shard.status().head.0;
    let start = |zone: &str, name: &str, after_sequence: u64, after_hash: &[u8]| FollowStart {
        shard: Some(common::ShardRef { zone: zone.to_owned(), shard: 0 }),
        region: name.to_owned(),
        after_sequence,
        after_hash: after_hash.to_vec(),
    };
    let said = Message::Acknowledgement(FollowAcknowledgement { stored_sequence: 1, question: 0 });
    let cases = [
        (Message::Start(start("global", "us_east", 0, &[])), Code::NotFound, "SHARD_NOT_FOUND"),
        (Message::Start(start("eu", "eu_west", 0, &[])), Code::InvalidArgument, "INVALID_FIELD"),
        (Message::Start(start("eu", "atlantis", 0, &[])), Code::InvalidArgument, "INVALID_FIELD"),
        (Message::Start(start("eu", "", 0, &[])), Code::InvalidArgument, "INVALID_FIELD"),
        (Message::Start(FollowStart { shard: None, ..start("eu", "us_east", 0, &[]) }), Code::InvalidArgument, "INVALID_FIELD"),
        (said.clone(), Code::InvalidArgument, "INVALID_FIELD"),
        (Message::Start(start("eu", "us_east", head + 1, &hash)), Code::FailedPrecondition, "REPLICA_DIVERGED"),
        (Message::Start(start("eu", "us_east", head, &[7; 32])), Code::FailedPrecondition, "REPLICA_DIVERGED"),
        (Message::Start(start("eu", "us_east", head, &[])), Code::FailedPrecondition, "REPLICA_DIVERGED"),
        // In the middle of the first segment.
        (Message::Start(start("eu", "us_east", 2, &hash)), Code::FailedPrecondition, "REPLICA_DIVERGED"),
    ];
    for (message, code, reason) in cases {
        let channel = mesh.to_region(&region("eu_west")).expect("a region");
        let first = FollowRequest { message: Some(message.clone()) };
        let refused = ReplicationServiceClient::new(channel).follow(futures::stream::iter([first]).chain(futures::stream::pending())).await;
        let refused = refused.expect_err(reason);
        assert_eq!((refused.code(), &*Fault::from_status(&refused).reason), (code, reason), "{message:?}: {refused:?}");
    }
    leader.stop().await;
}

#[tokio::test]
async fn a_copy_knows_how_old_it_is_where_nothing_is_committed_and_that_its_leader_stopped() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(1).await;
    let (replicas, replica, keeping, mesh) = follow(&topology, &copy_store()).await;
    until("it catches up", || replica.tail().head() == leader.shard.status().head).await;
    let service = Replication::new(mesh, Shards::default(), replicas);
    let said = async || {
        let said = service.get_replication(Request::new(GetReplicationRequest {})).await.expect("an answer").into_inner();
        said.replicas[0].clone()
    };
    // Longer than a leader is silent: it says that there was nothing.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let idle = said().await;
    assert_eq!(idle.state(), ReplicaState::Streaming);
    assert!(idle.age_ms.is_some_and(|age_ms| age_ms < 2_000), "{idle:?}");

    // The shard stops and its node goes on: what it commits no longer must not look current for as long as a silence lasts.
    leader.shard.close().await;
    let stopped = std::time::Instant::now();
    while said().await.state() == ReplicaState::Streaming {
        assert!(stopped.elapsed() < Duration::from_secs(3), "a copy of a shard that has stopped looks current");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keeping.abort();
    drop(leader.stop);
    leader.serving.await.expect("it ends");
}

/// An inbox knows how far it has read, by number alone: that the numbers are those of one history is the copy's to see to.
#[tokio::test]
async fn nothing_is_taken_in_of_another_history_that_has_grown_past_what_was() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let (store, copy) = (MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole)), copy_store());
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(2).await;
    let backup = store.backup();
    leader.fill(3).await;

    let payee = shard("global", 1);
    let its = identity(&payee, Holding::Whole);
    let opened = MemoryStore::new(&its).open(&its).expect("it opens");
    let opened = Shard::open(&its, opened, Options::default(), Arc::new(|| Timestamp(1))).await.expect("the shard opens");
    let euro = std::iter::once(Currency::from_code("EUR").expect("EUR")).collect();
    let enrol = Command::EnrollUser { user: user(7), country: "US".parse().expect("a country"), currencies: euro };
    opened.submit_all(vec![LedgerRequest { id: None, command: enrol }]).await.expect("it serves");
    let has = async || opened.wallets(user(7)).await.expect("it serves").expect("enrolled").0[0].1.balance;
    let shards = Shards::new(BTreeMap::from([(payee.clone(), Ok(opened.clone()))]));
    let inbox = |replica: &Replica| {
        let (shards, replica, payee) = (shards.clone(), replica.clone(), payee.clone());
        tokio::spawn(async move { shards.follow(replica, &payee).await })
    };
    let (_, replica, keeping, _) = follow(&topology, &copy).await;
    let reading = inbox(&replica);
    let waited = tokio::time::timeout(PATIENCE, async {
        while has().await < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the money arrives");
    let end = replica.end().await.sequence;
    for task in [reading.abort_handle(), keeping.abort_handle()] {
        task.abort();
    }
    let _ = (reading.await, keeping.await);
    replica.close().await;
    leader.stop().await;

    let listens = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
    let leader = Leader::start(&topology, listens, &backup).await;
    leader.fill(20).await;
    assert!(leader.shard.status().head > end);
    let (_, replica, keeping, _) = follow(&topology, &copy).await;
    let reading = inbox(&replica);
    let ended = tokio::time::timeout(PATIENCE, keeping).await.expect("it ends").expect("it does not die");
    assert!(matches!(&ended, Ended::Diverged(_)), "{ended:?}");
    // Longer than an inbox waits for more.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((has().await, replica.end().await.sequence), (5, end), "nothing is stored, and nothing taken in");
    assert!(!reading.is_finished());
    reading.abort();
    leader.stop().await;
    opened.close().await;
}

#[tokio::test]
async fn a_copy_knows_of_when_it_is_by_its_own_questions() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(3).await;
    let begun = tokio::time::Instant::now();
    let (_, replica, keeping, _mesh) = follow(&topology, &copy_store()).await;
    until("it is current", || replica.current_at().is_some()).await;
    let mut last = replica.current_at().expect("it was");
    assert!(last >= begun, "the question was put after it began");
    // A leader that does nothing is asked all the same.
    for _ in 0..3 {
        until("it is asked again", || replica.current_at() > Some(last)).await;
        last = replica.current_at().expect("it was");
        assert!(last <= tokio::time::Instant::now());
    }
    leader.fill(20).await;
    let filled = tokio::time::Instant::now();
    until("it is current again", || replica.current_at() > Some(filled)).await;
    assert_eq!(replica.tail().head(), leader.shard.status().head);
    // Without a leader it grows old.
    leader.stop().await;
    let stopped = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(replica.current_at().is_some_and(|at| at <= stopped));
    keeping.abort();
}
