//! A region's copy of global/0, whose storage or leader does not do as it should.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_contract::{
    Fault,
    events::v1::JournalOrigin,
    replication::v1::{
        CheckpointStart, FollowRequest, FollowResponse, GetReplicationRequest, GetReplicationResponse, ReadCheckpointRequest,
        ReadCheckpointResponse, VerifyReplicaRequest, VerifyReplicaResponse, read_checkpoint_response,
        replication_service_server::{ReplicationService, ReplicationServiceServer},
    },
};
use paymesh_journal::{Chain, Segment, SegmentBuilder};
use paymesh_ledger::{Body, Entry};
use paymesh_mesh::{Limits, Security};
use paymesh_types::{Currency, Epoch, Sequence, ShardRef, Timestamp, UserId};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// When replicas are set aside.
const NOW: u64 = 7;

fn shard(index: u16) -> ShardRef {
    ShardRef { zone: "global".parse().unwrap(), index }
}

/// us_east leads what us_west follows.
fn topology(port: u16) -> Arc<Topology> {
    let yaml = format!(
        "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  us_west: {{primary: false, services: [payment_processor], database: read_replica}}
zones:
  global: {{shards: 2, regions: [us_east, us_west], countries: [US]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{port}', http: '127.0.0.2:{port}'}}
  us_west: {{grpc: '127.0.0.3:{port}', http: '127.0.0.4:{port}'}}
"
    );
    Arc::new(Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}")))
}

fn keeper(topology: &Arc<Topology>, directory: &Path) -> Keeper {
    Keeper {
        topology: topology.clone(),
        storage: Engine::new(directory),
        directory: directory.to_owned(),
        mesh: Mesh::new(topology.clone(), "us_west".parse().unwrap(), Security::PlainText).unwrap(),
        takes_money: false,
        clock: Arc::new(|| Timestamp(NOW)),
    }
}

fn following() -> Following {
    Following::new(Followed { shard: shard(0), leader: "us_east".parse().unwrap(), holding: Holding::Whole })
}

/// Segments of one entry each, as a leader commits them.
fn history(bodies: impl IntoIterator<Item = Body>) -> Vec<Arc<Segment>> {
    let mut chain = Chain::start(shard(0));
    let segments = bodies.into_iter().map(|body| {
        let mut builder = SegmentBuilder::new(shard(0), Epoch(1), chain.last().next(), chain.hash(), [1; 32]);
        builder.push(&Entry { at: Timestamp(1), request_id: None, body, postings: Default::default(), reference: String::new() });
        let segment = builder.finish();
        chain.link(&segment).unwrap();
        Arc::new(segment)
    });
    segments.collect()
}

fn opened_account() -> Body {
    account_of(1)
}

fn account_of(user: u64) -> Body {
    Body::AccountOpened { user: UserId::try_from(user).unwrap(), currency: Currency::from_code("EUR").unwrap() }
}

/// Has the region a copy with these segments.
async fn fill(keeper: &Keeper, segments: &[Arc<Segment>]) {
    let store = keeper.storage.store(&keeper.identity(following().followed())).await.unwrap();
    store.journal.extend(segments).await.unwrap();
    store.tables.close().await;
    store.checkpoints.close().await;
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

/// A leader who refuses the copy once, for that reason, and has nothing to say to it afterwards.
struct Refuses {
    reason: &'static str,
    told: AtomicBool,
}

/// Has us_east lead as one who refuses.
async fn leader(reason: &'static str) -> (Arc<Topology>, JoinHandle<()>) {
    let listens = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let topology = topology(listens.local_addr().unwrap().port());
    let mesh = Mesh::new(topology.clone(), "us_east".parse().unwrap(), Security::PlainText).unwrap();
    let routes = Routes::new(ReplicationServiceServer::new(Refuses { reason, told: AtomicBool::new(false) }));
    let serving = async move { mesh.serve(routes, listens, Limits::default(), std::future::pending()).await.unwrap() };
    (topology, tokio::spawn(serving))
}

#[tonic::async_trait]
impl ReplicationService for Refuses {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;
    type VerifyReplicaStream = BoxStream<'static, Result<VerifyReplicaResponse, Status>>;
    type ReadCheckpointStream = BoxStream<'static, Result<ReadCheckpointResponse, Status>>;

    async fn follow(&self, _: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        if self.told.swap(true, Ordering::Relaxed) {
            return Ok(Response::new(stream::pending().boxed()));
        }
        Err(Fault::new(Code::FailedPrecondition, self.reason, "there is no such end in this journal").into())
    }

    /// It begins after what the copy has, in a term before that of the copy's end.
    async fn read_checkpoint(&self, _: Request<ReadCheckpointRequest>) -> Result<Response<Self::ReadCheckpointStream>, Status> {
        let origin = JournalOrigin { epoch: 0, sequence: 100, hash: vec![3; 32], committed_at_us: 1, peers: Vec::new() };
        let start = CheckpointStart { origin: Some(origin), checkpoint: None, first_chunk: 0 };
        let first = ReadCheckpointResponse { message: Some(read_checkpoint_response::Message::Start(start)) };
        Ok(Response::new(stream::iter([Ok(first)]).boxed()))
    }

    async fn verify_replica(&self, _: Request<VerifyReplicaRequest>) -> Result<Response<Self::VerifyReplicaStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn get_replication(&self, _: Request<GetReplicationRequest>) -> Result<Response<GetReplicationResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tokio::test]
async fn a_replica_that_has_diverged_is_set_aside_however_often_that_takes() {
    let (topology, serving) = leader("REPLICA_DIVERGED").await;
    let directory = tempfile::tempdir().unwrap();
    let (keeper, following) = (keeper(&topology, directory.path()), following());
    fill(&keeper, &history([opened_account()])).await;
    let in_the_way = directory.path().join(format!("global-0.tables.sqlite.aside-{NOW}"));
    fs::create_dir(&in_the_way).unwrap();
    let health = Health::new("us_west");
    let component = health.component("replica");
    let why = || health.report().checks["replica"].error.clone().unwrap_or_default();
    let watched = async {
        until("it says that it cannot be set aside", || why().contains("cannot be set aside")).await;
        fs::remove_dir(&in_the_way).unwrap();
        until("another is made", || following.replica().is_some_and(|replica| replica.tail().head() == Sequence(0))).await;
    };
    tokio::select! {
        () = keeper.keep_one(&following, &component) => panic!("it is given up: {}", why()),
        () = watched => {}
    }
    assert_eq!(keeper.storage.set_aside_count(&shard(0)).await.unwrap(), 1);
    assert!(health.report().is_healthy(), "{}", why());
    serving.abort();
}

/// It would come again as it is.
#[tokio::test]
async fn a_replica_with_what_its_leader_wrote_and_nobody_here_can_read_is_not_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let (keeper, following) = (keeper(&topology(1), directory.path()), following());
    let strange = Body::Delivered { to: shard(1), up_to: Sequence(u64::MAX), read_to: Sequence(1).into() };
    fill(&keeper, &history([opened_account(), strange])).await;
    let health = Health::new("us_west");
    let component = health.component("replica");
    let opened = tokio::time::timeout(PATIENCE, keeper.opened(&following, &component)).await.expect("it is not tried for ever");
    let why = health.report().checks["replica"].error.clone().unwrap_or_default();
    assert!(opened.is_none() && why.contains("cannot read"), "{opened:?} {why}");
    assert_eq!(keeper.storage.set_aside_count(&shard(0)).await.unwrap(), 0);
}

/// Nothing was taken from the second one, which nobody was given.
#[tokio::test]
async fn a_replica_that_is_damaged_again_must_still_come_through_the_end_of_the_one_that_money_was_taken_from() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper { takes_money: true, ..keeper(&topology(1), directory.path()) };
    let (ours, theirs) = (history((1..=4).map(account_of)), history((11..=14).map(account_of)));
    let health = Health::new("us_west");
    let component = health.component("replica");
    let damaged = async |segments: &[Arc<Segment>]| {
        fill(&keeper, segments).await;
        let options = SqliteConnectOptions::new().filename(directory.path().join("journal.sqlite"));
        let mut file = SqliteConnection::connect_with(&options).await.unwrap();
        let damage = "UPDATE segments SET payload = zeroblob(length(payload)) WHERE first = 1
                      AND slot = (SELECT slot FROM shards WHERE set_aside_at IS NULL)";
        assert_eq!(sqlx::query(damage).execute(&mut file).await.unwrap().rows_affected(), 1);
        keeper.opened(&following(), &component).await.unwrap()
    };
    let witness = Some((Sequence(3), ours[2].hash));
    for (round, segments) in [(1, &ours[..3]), (2, &ours[..2]), (3, &theirs[..1])] {
        let replica = damaged(segments).await;
        assert_eq!((replica.end().await.sequence, replica.witness()), (Sequence(0), witness), "round {round}");
        assert_eq!(keeper.storage.set_aside_count(&shard(0)).await.unwrap(), round);
        replica.close().await;
    }
    let replica = keeper.opened(&following(), &component).await.unwrap();
    let whole = |segments: &[Arc<Segment>]| segments.iter().map(|segment| segment.as_ref().clone()).collect::<Vec<_>>();
    let refused = replica.add(whole(&theirs)).await.unwrap_err();
    assert!(refused.to_string().contains("another history than the copy that was set aside"), "{refused}");
    replica.add(whole(&ours)).await.unwrap();
    assert_eq!(replica.witness(), None);
    replica.close().await;
}

/// Time does not make two histories one, and an operator may restart a node.
#[tokio::test]
async fn a_replica_that_money_was_taken_from_and_that_is_outrun_by_another_history_stays_closed() {
    for takes_money in [true, false] {
        let (topology, serving) = leader("POSITION_NOT_KEPT").await;
        let directory = tempfile::tempdir().unwrap();
        let keeper = Keeper { takes_money, ..keeper(&topology, directory.path()) };
        fill(&keeper, &history([opened_account()])).await;
        let health = Health::new("us_west");
        let component = health.component("replica");
        let kept = async || {
            let following = following();
            tokio::time::timeout(PATIENCE, keeper.keep_one(&following, &component)).await.expect("it is given up");
            health.report().checks["replica"].error.clone().unwrap_or_default()
        };
        let verdict = directory.path().join("global-0.diverged");
        let why = kept().await;
        assert_eq!((why.contains("of term 0 there"), verdict.exists()), (takes_money, takes_money), "{why}");
        // The leader says nothing against it any more.
        if takes_money {
            let why = kept().await;
            assert!(why.contains("remove") && why.contains("of term 0 there"), "{why}");
        }
        serving.abort();
    }
}
