//! Leaders that lie, are silent or are cut off.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream::BoxStream};
use paymesh_contract::{
    common::v1 as common,
    replication::v1::{
        FollowRequest, FollowResponse, FollowStart, GetReplicationRequest, GetReplicationResponse, ReadCheckpointRequest,
        ReadCheckpointResponse, ReplicaState, VerifyReplicaRequest, VerifyReplicaResponse,
        follow_request::Message,
        replication_service_client::ReplicationServiceClient,
        replication_service_server::{ReplicationService, ReplicationServiceServer},
    },
};
use paymesh_journal::{Holding, Identity, memory::MemoryStore};
use paymesh_ledger::{Command, Request as LedgerRequest};
use paymesh_mesh::{Mesh, Security};
use paymesh_replication::{Ended, Followed, Following, Replicas, Replication};
use paymesh_shard::{Options, Replica, ReplicaOptions, Retention, Shard, Shards};
use paymesh_types::{Sequence, Timestamp};
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::support::{Leader, PATIENCE, copy_store, follow, identity, listener, region, serve, shard, topology, until, user};

#[tokio::test]
async fn a_leader_that_is_silent_is_left_and_asked_again() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let asked = Arc::new(AtomicUsize::new(0));
    let liar = Liar { asked: asked.clone(), ..Liar::default() };
    let at = Mesh::new(topology.clone(), region("eu_west"), Security::PlainText).expect("a mesh");
    let (stop, serving) = serve(&at, Routes::new(ReplicationServiceServer::new(liar)), listens);
    let (_, replica, keeping, _mesh) = follow(&topology, &copy_store()).await;
    until("it asks again", || asked.load(Ordering::Relaxed) >= 2).await;
    assert!(!keeping.is_finished() && replica.problem().is_none(), "silence is no fault of the copy");
    keeping.abort();
    drop(stop);
    serving.await.expect("it ends");
}

/// A leader that answers every follower with the same messages, and then with none.
#[derive(Default)]
struct Liar {
    messages: Mutex<Vec<FollowResponse>>,
    /// How often it was.
    asked: Arc<AtomicUsize>,
    /// Whether only the first is answered so, and then cut off.
    cuts_off: bool,
}

#[tonic::async_trait]
impl ReplicationService for Liar {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;
    type VerifyReplicaStream = BoxStream<'static, Result<VerifyReplicaResponse, Status>>;
    type ReadCheckpointStream = BoxStream<'static, Result<ReadCheckpointResponse, Status>>;

    async fn read_checkpoint(&self, _: Request<ReadCheckpointRequest>) -> Result<Response<Self::ReadCheckpointStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn verify_replica(&self, _: Request<VerifyReplicaRequest>) -> Result<Response<Self::VerifyReplicaStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn follow(&self, _: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let messages = futures::stream::iter(self.messages.lock().expect("the lock").clone().into_iter().map(Ok));
        Ok(Response::new(match (self.cuts_off, asked) {
            (false, _) => messages.chain(futures::stream::pending()).boxed(),
            (true, 0) => messages.boxed(),
            (true, _) => futures::stream::pending().boxed(),
        }))
    }

    async fn get_replication(&self, _: Request<GetReplicationRequest>) -> Result<Response<GetReplicationResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tokio::test]
async fn a_leader_that_lies_is_not_believed_and_what_it_says_not_stored() {
    // What an honest one says to a follower of either zone.
    let (listens, port) = listener().await;
    let honest = topology([1, port]);
    let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
    let leader = Leader::start(&honest, listens, &store).await;
    leader.fill(4).await;
    let mesh = Mesh::new(honest.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let channel = mesh.to_region(&region("eu_west")).expect("a region");
    let start = FollowStart {
        shard: Some(common::ShardRef { zone: "eu".to_owned(), shard: 0 }),
        region: "us_east".to_owned(),
        ..FollowStart::default()
    };
    let first = FollowRequest { message: Some(Message::Start(start)) };
    let told = ReplicationServiceClient::new(channel).follow(futures::stream::iter([first]).chain(futures::stream::pending())).await;
    let reduced = told.expect("a stream").into_inner().message().await.expect("a message").expect("segments");
    assert_eq!(reduced.segments.len(), 5);
    assert!(reduced.segments.iter().all(|segment| segment.whole.is_none() && segment.reduced.is_some()));
    let stored = leader.shard.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    leader.stop().await;

    let lie = |change: &dyn Fn(&mut FollowResponse)| {
        let mut lie = reduced.clone();
        change(&mut lie);
        lie
    };
    let lies: [(&str, FollowResponse); 6] = [
        ("a segment is left out", lie(&|said| drop(said.segments.remove(1)))),
        ("a whole segment", lie(&|said| (said.segments[2].whole, said.segments[2].reduced) = (Some(stored[2].payload.clone()), None))),
        ("a whole segment, said to be reduced", {
            lie(&|said| {
                said.segments[2].reduced = Some(stored[2].payload.clone());
                said.segments[2].checksum = stored[2].checksum.to_vec();
            })
        }),
        ("both", lie(&|said| said.segments[2].whole = Some(stored[2].payload.clone()))),
        ("a hash that is none", lie(&|said| said.segments[0].hash.truncate(31))),
        (
            "a payload of another segment",
            lie(&|said| {
                (said.segments[3].reduced, said.segments[3].checksum) =
                    (said.segments[2].reduced.clone(), said.segments[2].checksum.clone());
            }),
        ),
    ];
    for (what, lie) in lies {
        let (listens, port) = listener().await;
        let topology = topology([1, port]);
        let liar = Liar { messages: Mutex::new(vec![lie]), ..Liar::default() };
        let at = Mesh::new(topology.clone(), region("eu_west"), Security::PlainText).expect("a mesh");
        let (stop, serving) = serve(&at, Routes::new(ReplicationServiceServer::new(liar)), listens);
        let (replicas, replica, keeping, _mesh) = follow(&topology, &copy_store()).await;
        let ended = tokio::time::timeout(PATIENCE, keeping).await.expect("it ends").expect("it does not die");
        assert!(matches!(&ended, Ended::Stopped(why) if why.contains("refused") || why.contains("segment")), "{what}: {ended:?}");
        assert_eq!(replica.end().await.sequence, Sequence(0), "{what}: something was stored");
        assert!(replica.problem().is_some(), "{what}");
        let service = Replication::new(at.clone(), Shards::default(), replicas);
        let said = service.get_replication(Request::new(GetReplicationRequest {})).await.expect("an answer").into_inner();
        assert_eq!(said.replicas[0].state(), ReplicaState::Stopped, "{what}");
        assert!(!said.replicas[0].problem.is_empty(), "{what}");
        drop(stop);
        serving.await.expect("it ends");
    }
}

/// A segment as it is sent within its zone.
fn whole(segment: &paymesh_journal::Segment) -> paymesh_contract::replication::v1::Segment {
    paymesh_contract::replication::v1::Segment {
        epoch: segment.epoch.0,
        first_sequence: segment.first.0,
        count: segment.count,
        committed_at_us: segment.committed_at.0,
        previous_hash: segment.previous.to_vec(),
        root_hash: segment.root.to_vec(),
        hash: segment.hash.to_vec(),
        checksum: segment.checksum.to_vec(),
        whole: Some(segment.payload.clone()),
        reduced: None,
    }
}

/// They would wait for five seconds, for a journal that does not come.
#[tokio::test]
async fn the_tables_of_a_copy_that_is_far_behind_do_not_wait_for_a_leader_that_is_lost() {
    let name = shard("global", 0);
    let identity = identity(&name, Holding::Whole);
    let store = MemoryStore::new(&identity).open(&identity).expect("it opens");
    let opened = Shard::open(&identity, store, Options::default(), Arc::new(|| Timestamp(1))).await.expect("the shard opens");
    let enrol = Command::EnrollUser { user: user(9), country: "US".parse().expect("a country"), currencies: [].into_iter().collect() };
    opened.submit_all(vec![LedgerRequest { id: None, command: enrol }]).await.expect("it serves");
    let segments = opened.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");
    let segments = segments.iter().map(|segment| whole(segment)).collect();
    let said = FollowResponse { segments, head_sequence: 1_000_000, leader_epoch: 1, ..FollowResponse::default() };

    let (listens, port) = listener().await;
    let topology = topology([port, 1]);
    let at = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let liar = Liar { messages: Mutex::new(vec![said]), cuts_off: true, ..Liar::default() };
    let (stop, serving) = serve(&at, Routes::new(ReplicationServiceServer::new(liar)), listens);
    let copy = MemoryStore::new(&identity).open(&identity).expect("it opens");
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity, copy.journal.clone(), Some(copy), options).await.expect("it opens");
    let following = Following::new(Followed { shard: name, leader: region("us_east"), holding: Holding::Whole });
    let (kept, mesh) = (replica.clone(), Mesh::new(topology, region("us_west"), Security::PlainText).expect("a mesh"));
    let keeping = tokio::spawn(async move { following.run(kept, &mesh).await });
    until("it is stored", || replica.tail().head() == opened.tail().head()).await;
    let stored = std::time::Instant::now();
    until("its tables follow", || replica.projected() == Some(opened.tail().head())).await;
    assert!(stored.elapsed() < Duration::from_secs(4), "{:?}", stored.elapsed());
    keeping.abort();
    replica.close().await;
    opened.close().await;
    drop(stop);
    serving.await.expect("it ends");
}

#[tokio::test]
async fn the_directory_goes_everywhere_whole_and_nothing_sealed_with_it() {
    let name = shard("directory", 0);
    let identity = Identity { shard: name.clone(), ..identity(&name, Holding::Whole) };
    for sealed in [false, true] {
        let store = MemoryStore::new(&identity).open(&identity).expect("it opens");
        let directory = Shard::open(&identity, store, Options::default(), Arc::new(|| Timestamp(1))).await.expect("the shard opens");
        let claim = |number| Command::ClaimUser { user: user(number), zone: "eu".parse().expect("a zone's name") };
        let enrol = Command::EnrollUser { user: user(9), country: "DE".parse().expect("a country"), currencies: [].into_iter().collect() };
        let commands = if sealed { vec![claim(1), enrol] } else { vec![claim(1), claim(2)] };
        let requests = commands.into_iter().map(|command| LedgerRequest { id: None, command }).collect();
        directory.submit_all(requests).await.expect("it serves");
        let segments = directory.tail().segments(Sequence(1), usize::MAX).await.expect("they are read");

        // A leader that does not look at what it sends, and an honest one.
        let said = FollowResponse { segments: segments.iter().map(|segment| whole(segment)).collect(), ..FollowResponse::default() };
        let liar = Routes::new(ReplicationServiceServer::new(Liar { messages: Mutex::new(vec![said]), ..Liar::default() }));
        for honest in [false, true] {
            let (listens, port) = listener().await;
            let topology = topology([port, 1]);
            let at = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
            let shards = Shards::new(BTreeMap::from([(name.clone(), Ok(directory.clone()))]));
            let service = Replication::new(at.clone(), shards, Replicas::default());
            let routes = if honest { Routes::new(service.server()) } else { liar.clone() };
            let (stop, serving) = serve(&at, routes, listens);
            let copy = MemoryStore::new(&identity).open(&identity).expect("it opens");
            let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
            let replica = Replica::open(&identity, copy.journal.clone(), Some(copy), options).await.expect("it opens");
            let following = Following::new(Followed { shard: name.clone(), leader: region("us_east"), holding: Holding::Whole });
            let (kept, mesh) = (replica.clone(), Mesh::new(topology, region("eu_west"), Security::PlainText).expect("a mesh"));
            let keeping = tokio::spawn(async move { following.run(kept, &mesh).await });
            match (sealed, honest) {
                (false, _) => until("it is copied", || replica.tail().head() == directory.tail().head()).await,
                (true, false) => {
                    let ended = tokio::time::timeout(PATIENCE, keeping).await.expect("it ends").expect("it does not die");
                    assert!(matches!(&ended, Ended::Stopped(why) if why.contains("sealed part")), "{ended:?}");
                    assert_eq!(replica.end().await.sequence, Sequence(0), "something was stored");
                }
                (true, true) => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    assert_eq!(replica.end().await.sequence, Sequence(0), "something was sent");
                    keeping.abort();
                }
            }
            drop(stop);
            serving.await.expect("it ends");
        }
        directory.close().await;
    }
}
