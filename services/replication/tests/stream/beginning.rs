//! Copies whose leader's journal begins after their end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_contract::{
    Fault,
    common::v1 as common,
    replication::v1::{
        GetReplicationRequest, ReadCheckpointRequest, ReplicaState, read_checkpoint_response,
        replication_service_client::ReplicationServiceClient, replication_service_server::ReplicationService as _,
    },
};
use paymesh_journal::{Holding, Identity, Origin, memory::MemoryStore};
use paymesh_ledger::{Command, Request as LedgerRequest};
use paymesh_mesh::{Mesh, Security};
use paymesh_replication::{Ended, Followed, Following, Remaking, Replicas, Replication};
use paymesh_shard::{Options, Replica, ReplicaOptions, Retention, Shard, Shards};
use paymesh_types::{Currency, Money, Sequence, Timestamp};
use tokio::net::TcpListener;
use tonic::{Code, Request, service::Routes};

use crate::support::{Leader, PATIENCE, copy_store, follow, identity, listener, region, replication, serve, shard, topology, until, user};

/// us_west's whole copy of global/0, which us_east leads: a checkpoint of many chunks, with a leader and a follower that are cut off
/// while it comes.
#[tokio::test]
async fn a_follower_that_is_outrun_takes_up_its_checkpoint_where_it_was_cut_off() {
    const ROWS: usize = 20_000;
    let (listens, port) = listener().await;
    let topology = topology([port, 1]);
    let name = shard("global", 0);
    let identity = Identity { shards: 2, ..identity(&name, Holding::Whole) };
    let store = MemoryStore::new(&identity);
    let time = Arc::new(std::sync::atomic::AtomicU64::new(1_700_000_000_000_000));
    let now = time.clone();
    let day = Duration::from_secs(86_400);
    let options = Options { outcome_retention: day, retention: Retention { time: Some(day), bytes: None }, ..Options::default() };
    let clock: paymesh_shard::Clock = Arc::new(move || Timestamp(now.load(std::sync::atomic::Ordering::Relaxed)));
    let opened = Shard::open(&identity, store.open(&identity).expect("it opens"), options, clock).await.expect("the shard opens");
    let euro = Currency::from_code("EUR").expect("EUR");
    let submit = async |commands: Vec<Command>| {
        let requests = commands.into_iter().map(|command| LedgerRequest { id: None, command }).collect();
        opened.submit_all(requests).await.expect("it serves").into_iter().for_each(|answer| drop(answer.expect("it is accepted")));
    };
    let enrol = |number: usize| Command::EnrollUser {
        user: user(number as u64),
        country: "US".parse().expect("a country"),
        currencies: std::iter::once(euro).collect(),
    };
    submit((1..=ROWS / 2).map(enrol).collect()).await;
    time.fetch_add(3 * 86_400_000_000, std::sync::atomic::Ordering::Relaxed);
    submit(vec![enrol(ROWS)]).await;
    until("the leader lets go of it", || opened.tail().kept_after() > Sequence(0)).await;
    let manifest = opened.store().checkpoints.latest().await.expect("it is read").expect("there is one");
    assert!(manifest.chunks.len() >= 5, "{}", manifest.chunks.len());

    let mesh = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let shards = || Shards::new(BTreeMap::from([(name.clone(), Ok(opened.clone()))]));
    let service = Replication::new(mesh.clone(), shards(), Replicas::default());
    let (stop, serving) = serve(&mesh, Routes::new(service.server()), listens);
    let mut copy = MemoryStore::new(&identity);
    let at = Mesh::new(topology.clone(), region("us_west"), Security::PlainText).expect("a mesh");
    let following = Following::new(Followed { shard: name.clone(), leader: region("us_east"), holding: Holding::Whole });
    let replica_options = ReplicaOptions { outcome_retention: day, retention: Retention::default() };
    let open_copy = async |copy: &MemoryStore| {
        let store = copy.open(&identity).expect("it opens");
        Replica::open(&identity, store.journal.clone(), Some(store), replica_options).await.expect("the replica opens")
    };
    let replica = open_copy(&copy).await;
    let ended = tokio::time::timeout(PATIENCE, following.run(replica.clone(), &at)).await.expect("it ends");
    assert!(matches!(&ended, Ended::Outrun(why) if why.contains("is kept from entry")), "{ended:?}");
    replica.close().await;
    following.withdraw(Remaking::Bootstrapping(0, 0), String::new());

    // The follower's machine stops after some chunks, twice; the leader's journal begins where it did.
    for (passes, chunks) in [(3, 2), (2, 4)] {
        copy.fail_after(passes, paymesh_journal::memory::Operation::Checkpoint, paymesh_journal::memory::Fault::PowerCutBefore);
        let store = copy.open(&identity).expect("it opens");
        let cut =
            tokio::time::timeout(Duration::from_millis(1_500), following.bootstrap(&store.journal, Some(&store.checkpoints), &at, false));
        assert!(cut.await.is_err(), "it tries on while its machine is down");
        copy = copy.crash();
        let store = copy.open(&identity).expect("it opens");
        let draft = store.checkpoints.draft().await.expect("it is read").expect("it was begun");
        assert!(draft.chunks >= chunks && (draft.chunks as usize) < manifest.chunks.len(), "{draft:?} after {passes}");
        assert_eq!(store.journal.head().await.expect("it is read").sequence, Sequence(0), "nothing begins before all is there");
    }
    let store = copy.open(&identity).expect("it opens");
    following.bootstrap(&store.journal, Some(&store.checkpoints), &at, false).await.expect("it begins");
    assert_eq!(store.checkpoints.latest().await.expect("it is read"), Some(manifest));
    let replica = open_copy(&copy).await;
    let (kept, keeper) = (replica.clone(), following.clone());
    let keeping = tokio::spawn(async move { keeper.run(kept, &at).await });
    until("it follows", || replica.tail().head() == opened.status().head && replica.projected() == Some(opened.status().head)).await;
    let leaders = store_rows(&opened.store().tables).await;
    assert_eq!(store_rows(&copy.open(&identity).expect("it opens").tables).await.len(), leaders.len());
    assert!(store_rows(&copy.open(&identity).expect("it opens").tables).await == leaders, "row by row");
    let of_leader = replication(&Mesh::new(topology.clone(), region("us_west"), Security::PlainText).expect("a mesh"), "us_east").await;
    assert_eq!(of_leader.followers.len(), 1);
    keeping.abort();
    drop(stop);
    serving.await.expect("it ends");
}

async fn store_rows(tables: &Arc<dyn paymesh_journal::Tables>) -> Vec<String> {
    let mut snapshot = tables.snapshot().await.expect("a snapshot");
    let mut rows = Vec::new();
    loop {
        let page = snapshot.next().await.expect("rows are read");
        if page.is_empty() {
            rows.sort_unstable();
            return rows;
        }
        rows.extend(page.iter().map(|row| format!("{row:?}")));
    }
}

/// Across the border goes only where the journal begins: no checkpoint, and of other shards only those of the follower's zone.
#[tokio::test]
async fn a_follower_across_the_border_gets_no_checkpoint() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
    let leader = Leader::start(&topology, listens, &store).await;
    leader.fill(3).await;
    let mesh = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let ask = async |name: &str| {
        let channel = mesh.to_region(&region("eu_west")).expect("a region");
        let shard = Some(common::ShardRef { zone: "eu".to_owned(), shard: 0 });
        let request = ReadCheckpointRequest { shard, region: name.to_owned(), root_hash: Vec::new(), chunks: 0 };
        ReplicationServiceClient::new(channel).read_checkpoint(request).await
    };
    let refused = ask("us_east").await.expect_err("it is kept whole");
    assert_eq!((refused.code(), &*Fault::from_status(&refused).reason), (Code::FailedPrecondition, "CHECKPOINT_NOT_FOUND"));
    let refused = ask("atlantis").await.expect_err("there is no such region");
    assert_eq!((refused.code(), &*Fault::from_status(&refused).reason), (Code::InvalidArgument, "INVALID_FIELD"));
    // As retention would, with a checkpoint beside it that is for the zone alone.
    let opened = &leader.shard;
    opened.books().await.expect("it serves");
    let segments = opened.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let mut origin = Origin::beginning(opened.reference());
    for segment in &segments {
        origin.pass(segment, &segment.entries(opened.reference()).expect("they decode"));
    }
    origin.peers.insert(shard("eu", 3), paymesh_journal::Marks { sent: Sequence(1), taken_in: Sequence(5).into() });
    let snapshot = opened.store().tables.snapshot().await.expect("a snapshot");
    let ending = segments.last().expect("there is one");
    paymesh_journal::checkpoint::make(opened.reference(), snapshot, ending, &opened.store().checkpoints).await.expect("it is made");
    opened.store().journal.prune(opened.epoch(), &origin).await.expect("it is cut");
    let mut answers = ask("us_east").await.expect("a stream").into_inner();
    let first = answers.message().await.expect("a message").expect("a message");
    let Some(read_checkpoint_response::Message::Start(start)) = first.message else { panic!("{first:?}") };
    assert!(start.checkpoint.is_none());
    let told = start.origin.expect("it says where");
    assert_eq!(told.sequence, origin.sequence.0);
    assert!(told.peers.iter().all(|peer| peer.zone == "global") && told.peers.len() == 1, "{told:?}");
    assert!(answers.message().await.expect("it ends").is_none(), "and nothing else");
    leader.stop().await;
}

/// Has a leader's journal begin after all that is in it, as retention would once it has taken effect, with a checkpoint beside it.
pub(crate) async fn let_go(opened: &Shard) -> Origin {
    opened.books().await.expect("it serves");
    let segments = opened.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let mut origin = Origin::beginning(opened.reference());
    for segment in &segments {
        origin.pass(segment, &segment.entries(opened.reference()).expect("they decode"));
    }
    let snapshot = opened.store().tables.snapshot().await.expect("a snapshot");
    let ending = segments.last().expect("there is one");
    paymesh_journal::checkpoint::make(opened.reference(), snapshot, ending, &opened.store().checkpoints).await.expect("it is made");
    opened.store().journal.prune(opened.epoch(), &origin).await.expect("it is cut");
    opened.tail().origin().await.expect("it is read")
}

/// A leader that was put back from a backup, and let go of all that would show that, has not sent what was taken.
#[tokio::test]
async fn a_copy_that_money_was_taken_from_and_that_is_outrun_does_not_go_on_with_a_history_that_has_not_sent_it() {
    for (put_back, taken) in [(false, true), (true, true), (true, false)] {
        let (listens, port) = listener().await;
        let topology = topology([1, port]);
        let (mut store, copy) = (MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole)), copy_store());
        let leader = Leader::start(&topology, listens, &store).await;
        leader.fill(2).await;
        let backup = store.backup();
        leader.fill(3).await;
        let (_, replica, keeping, _) = follow(&topology, &copy).await;
        until("it catches up", || replica.tail().head() == leader.shard.status().head).await;
        let end = replica.end().await;
        keeping.abort();
        let _ = keeping.await;
        replica.close().await;
        leader.stop().await;

        if put_back {
            store = backup;
        }
        let listens = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
        let leader = Leader::start(&topology, listens, &store).await;
        let euro = Currency::from_code("EUR").expect("EUR");
        let deposit =
            || Command::Deposit { user: user(2), money: Money::new(5, euro).expect("within the bounds"), reference: String::new() };
        for _ in 0..9 {
            leader.submit([deposit()]).await;
        }
        let origin = let_go(&leader.shard).await;
        assert!(origin.sequence > end.sequence);
        leader.stop().await;
        let listens = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free again");
        let leader = Leader::start(&topology, listens, &store).await;

        let (replicas, replica, keeping, mesh) = follow(&topology, &copy).await;
        let ended = tokio::time::timeout(PATIENCE, keeping).await.expect("it ends").expect("it does not die");
        assert!(matches!(ended, Ended::Outrun(_)), "{ended:?}");
        replica.close().await;
        let following = replicas.iter().next().expect("there is one");
        following.withdraw(Remaking::Bootstrapping(0, 0), String::new());
        let journal = copy.open(&identity(&shard("eu", 0), replica.holding().clone())).expect("it opens").journal;
        let begun = tokio::time::timeout(PATIENCE, following.bootstrap(&journal, None, &mesh, taken)).await.expect("it ends");
        let head = journal.head().await.expect("it is read");
        if put_back && taken {
            assert!(matches!(&begun, Err(Ended::Diverged(why)) if why.contains("global/1")), "{begun:?}");
            assert_eq!((head.sequence, head.hash), (end.sequence, Some(end.hash)), "the copy stays as it is");
            let service = Replication::new(mesh.clone(), Shards::default(), replicas);
            let said = service.get_replication(Request::new(GetReplicationRequest {})).await.expect("an answer").into_inner();
            assert_eq!((said.replicas[0].state(), &said.replicas[0].known_end), (ReplicaState::Stopped, &None));
        } else {
            assert_eq!(begun, Ok(()), "{put_back} {taken}");
            assert_eq!((head.sequence, head.hash), (origin.sequence, Some(origin.hash)));
        }
        leader.stop().await;
    }
}
