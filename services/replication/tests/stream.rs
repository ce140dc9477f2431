//! Streams between two nodes over loopback: what a follower gets, what it is refused, and leaders that lie.

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
    Fault,
    common::v1 as common,
    replication::v1::{
        FollowAcknowledgement, FollowRequest, FollowResponse, FollowStart, GetReplicationRequest, GetReplicationResponse,
        ReadCheckpointRequest, ReadCheckpointResponse, ReplicaState, VerifyReplicaRequest, VerifyReplicaResponse,
        follow_request::Message,
        read_checkpoint_response,
        replication_service_client::ReplicationServiceClient,
        replication_service_server::{ReplicationService, ReplicationServiceServer},
    },
};
use paymesh_journal::{Holding, Identity, Origin, memory::MemoryStore};
use paymesh_ledger::{Command, CreatePayment, Request as LedgerRequest};
use paymesh_mesh::{Limits, Mesh};
use paymesh_replication::{Ended, Followed, Following, Remaking, Replicas, Replication, plan};
use paymesh_shard::{Options, Replica, ReplicaOptions, Retention, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{Currency, Money, RegionName, Sequence, ShardRef, Timestamp, UserId};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes};

const PATIENCE: Duration = Duration::from_secs(20);

/// us_east leads zone global, eu_west zone eu; us_west is of zone global too.
fn topology(ports: [u16; 2]) -> Arc<Topology> {
    let [us, eu] = ports;
    let yaml = format!(
        "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  us_west: {{primary: false, services: [payment_processor], database: read_replica}}
  eu_west: {{primary: false, services: [payment_processor], database: regional_master}}
zones:
  global: {{shards: 2, regions: [us_east, us_west], countries: [US]}}
  eu: {{shards: 1, regions: [eu_west], countries: [DE]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{us}', http: '127.0.0.2:{us}'}}
  us_west: {{grpc: '127.0.0.4:{us}', http: '127.0.0.5:{us}'}}
  eu_west: {{grpc: '127.0.0.1:{eu}', http: '127.0.0.3:{eu}'}}
"
    );
    Arc::new(Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}")))
}

fn region(name: &str) -> RegionName {
    name.parse().expect("a region's name")
}

fn shard(zone: &str, index: u16) -> ShardRef {
    ShardRef { zone: zone.parse().expect("a zone's name"), index }
}

fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("counted from one")
}

fn identity(shard: &ShardRef, holding: Holding) -> Identity {
    Identity { mesh: "test".to_owned(), shard: shard.clone(), shards: 1, holding }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// The leader of eu/0, and what it serves with.
struct Leader {
    shard: Shard,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Leader {
    async fn start(topology: &Arc<Topology>, listener: TcpListener, store: &MemoryStore) -> Self {
        let name = shard("eu", 0);
        let identity = identity(&name, Holding::Whole);
        let opened = Shard::open(&identity, store.open(&identity).expect("it opens"), Options::default(), Arc::new(|| Timestamp(1)));
        let opened = opened.await.expect("the shard opens");
        let mesh = Mesh::new(topology.clone(), region("eu_west")).expect("a mesh");
        let shards = Shards::new(BTreeMap::from([(name, Ok(opened.clone()))]));
        let service = Replication::new(mesh.clone(), shards, Replicas::default());
        let (stop, serving) = serve(&mesh, Routes::new(service.server()), listener);
        Self { shard: opened, stop: Some(stop), serving }
    }

    async fn submit(&self, commands: impl IntoIterator<Item = Command>) {
        let requests = commands.into_iter().map(|command| LedgerRequest { id: None, command }).collect();
        for answer in self.shard.submit_all(requests).await.expect("it serves") {
            answer.expect("it is accepted");
        }
    }

    /// Users 1 and 2, and payments to global/1.
    async fn fill(&self, payments: usize) {
        let euro = Currency::from_code("EUR").expect("EUR");
        let money = |minor| Money::new(minor, euro).expect("within the bounds");
        let enrol = |number| Command::EnrollUser {
            user: user(number),
            country: "DE".parse().expect("a country"),
            currencies: std::iter::once(euro).collect(),
        };
        let deposit = Command::Deposit { user: user(1), money: money(1_000_000), reference: "words".to_owned() };
        if self.shard.status().head == Sequence(0) {
            self.submit([enrol(1), enrol(2), deposit]).await;
        }
        let pay = || {
            Command::CreatePayment(CreatePayment {
                payer: user(1),
                payee: user(7),
                payee_shard: Some(shard("global", 1)),
                money: money(1),
                hold_s: 0,
                reference: "words".to_owned(),
            })
        };
        for _ in 0..payments {
            self.submit([pay()]).await;
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.expect("it ends");
        self.shard.close().await;
    }
}

fn serve(mesh: &Mesh, routes: Routes, listener: TcpListener) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let mesh = mesh.clone();
    let serving = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        mesh.serve(routes, listener, Limits::default(), shutdown).await.expect("it serves");
    });
    (stop, serving)
}

/// us_east's copy of eu/0, and the task that keeps it.
async fn follow(topology: &Arc<Topology>, store: &MemoryStore) -> (Replicas, Replica, JoinHandle<Ended>, Mesh) {
    let holding = Holding::For("global".parse().expect("a zone's name"));
    let identity = identity(&shard("eu", 0), holding.clone());
    let journal = store.open(&identity).expect("it opens").journal;
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity, journal, None, options).await.expect("the replica opens");
    let mesh = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
    let following = Following::new(Followed { shard: shard("eu", 0), leader: region("eu_west"), holding });
    let replicas = Replicas::new(vec![following.clone()]);
    let (kept, at) = (replica.clone(), mesh.clone());
    (replicas, replica, tokio::spawn(async move { following.run(kept, &at).await }), mesh)
}

fn copy_store() -> MemoryStore {
    MemoryStore::new(&identity(&shard("eu", 0), Holding::For("global".parse().expect("a zone's name"))))
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

async fn replication(mesh: &Mesh, of: &str) -> GetReplicationResponse {
    let channel = mesh.to_region(&region(of)).expect("a region");
    ReplicationServiceClient::new(channel).get_replication(GetReplicationRequest {}).await.expect("an answer").into_inner()
}

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
    // As it is committed: far sooner than the half second after which a leader that has nothing to say says so.
    for _ in 0..20 {
        leader.fill(1).await;
        let committed = std::time::Instant::now();
        until("it is told", || replica.tail().head() == leader.shard.status().head).await;
        assert!(committed.elapsed() < Duration::from_millis(400), "{:?}", committed.elapsed());
    }
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
    let mesh = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
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

#[tokio::test]
async fn a_leader_that_is_silent_is_left_and_asked_again() {
    let (listens, port) = listener().await;
    let topology = topology([1, port]);
    let asked = Arc::new(AtomicUsize::new(0));
    let liar = Liar { asked: asked.clone(), ..Liar::default() };
    let at = Mesh::new(topology.clone(), region("eu_west")).expect("a mesh");
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
    let mesh = Mesh::new(honest.clone(), region("us_east")).expect("a mesh");
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
        let at = Mesh::new(topology.clone(), region("eu_west")).expect("a mesh");
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

    let mesh = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
    let shards = || Shards::new(BTreeMap::from([(name.clone(), Ok(opened.clone()))]));
    let service = Replication::new(mesh.clone(), shards(), Replicas::default());
    let (stop, serving) = serve(&mesh, Routes::new(service.server()), listens);
    let mut copy = MemoryStore::new(&identity);
    let at = Mesh::new(topology.clone(), region("us_west")).expect("a mesh");
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
    let of_leader = replication(&Mesh::new(topology.clone(), region("us_west")).expect("a mesh"), "us_east").await;
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
    let mesh = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
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
    origin.peers.insert(shard("eu", 3), paymesh_journal::Marks { sent: Sequence(1), taken_in: Sequence(5) });
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

/// Has a leader's journal begin after all that is in it, as retention would once it has taken effect, with a checkpoint beside it.
async fn let_go(opened: &Shard) -> Origin {
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
    let at = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
    let liar = Liar { messages: Mutex::new(vec![said]), cuts_off: true, ..Liar::default() };
    let (stop, serving) = serve(&at, Routes::new(ReplicationServiceServer::new(liar)), listens);
    let copy = MemoryStore::new(&identity).open(&identity).expect("it opens");
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity, copy.journal.clone(), Some(copy), options).await.expect("it opens");
    let following = Following::new(Followed { shard: name, leader: region("us_east"), holding: Holding::Whole });
    let (kept, mesh) = (replica.clone(), Mesh::new(topology, region("us_west")).expect("a mesh"));
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
            let at = Mesh::new(topology.clone(), region("us_east")).expect("a mesh");
            let shards = Shards::new(BTreeMap::from([(name.clone(), Ok(directory.clone()))]));
            let service = Replication::new(at.clone(), shards, Replicas::default());
            let routes = if honest { Routes::new(service.server()) } else { liar.clone() };
            let (stop, serving) = serve(&at, routes, listens);
            let copy = MemoryStore::new(&identity).open(&identity).expect("it opens");
            let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
            let replica = Replica::open(&identity, copy.journal.clone(), Some(copy), options).await.expect("it opens");
            let following = Following::new(Followed { shard: name.clone(), leader: region("us_east"), holding: Holding::Whole });
            let (kept, mesh) = (replica.clone(), Mesh::new(topology, region("eu_west")).expect("a mesh"));
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
