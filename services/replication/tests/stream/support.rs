//! Two nodes: a leader of eu/0, and who follows it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_contract::replication::v1::{
    GetReplicationRequest, GetReplicationResponse, replication_service_client::ReplicationServiceClient,
};
use paymesh_journal::{Holding, Identity, memory::MemoryStore};
use paymesh_ledger::{Command, CreatePayment, Request as LedgerRequest};
use paymesh_mesh::{Limits, Mesh, Security};
use paymesh_replication::{Ended, Followed, Following, Replicas, Replication};
use paymesh_shard::{Options, Replica, ReplicaOptions, Retention, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{Currency, Money, RegionName, Sequence, ShardRef, Timestamp, UserId};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::service::Routes;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// us_east leads zone global, eu_west zone eu; us_west is of zone global too.
pub(crate) fn topology(ports: [u16; 2]) -> Arc<Topology> {
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

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().expect("a region's name")
}

pub(crate) fn shard(zone: &str, index: u16) -> ShardRef {
    ShardRef { zone: zone.parse().expect("a zone's name"), index }
}

pub(crate) fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("counted from one")
}

pub(crate) fn identity(shard: &ShardRef, holding: Holding) -> Identity {
    Identity { mesh: "test".to_owned(), shard: shard.clone(), shards: 1, holding }
}

pub(crate) async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// The leader of eu/0, and what it serves with.
pub(crate) struct Leader {
    pub(crate) shard: Shard,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) serving: JoinHandle<()>,
}

impl Leader {
    pub(crate) async fn start(topology: &Arc<Topology>, listener: TcpListener, store: &MemoryStore) -> Self {
        let name = shard("eu", 0);
        let identity = identity(&name, Holding::Whole);
        let opened = Shard::open(&identity, store.open(&identity).expect("it opens"), Options::default(), Arc::new(|| Timestamp(1)));
        let opened = opened.await.expect("the shard opens");
        let mesh = Mesh::new(topology.clone(), region("eu_west"), Security::PlainText).expect("a mesh");
        let shards = Shards::new(BTreeMap::from([(name, Ok(opened.clone()))]));
        let service = Replication::new(mesh.clone(), shards, Replicas::default());
        let (stop, serving) = serve(&mesh, Routes::new(service.server()), listener);
        Self { shard: opened, stop: Some(stop), serving }
    }

    pub(crate) async fn submit(&self, commands: impl IntoIterator<Item = Command>) {
        let requests = commands.into_iter().map(|command| LedgerRequest { id: None, command }).collect();
        for answer in self.shard.submit_all(requests).await.expect("it serves") {
            answer.expect("it is accepted");
        }
    }

    /// Users 1 and 2, and payments to global/1.
    pub(crate) async fn fill(&self, payments: usize) {
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
                card: None,
            })
        };
        for _ in 0..payments {
            self.submit([pay()]).await;
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.expect("it ends");
        self.shard.close().await;
    }
}

pub(crate) fn serve(mesh: &Mesh, routes: Routes, listener: TcpListener) -> (oneshot::Sender<()>, JoinHandle<()>) {
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
pub(crate) async fn follow(topology: &Arc<Topology>, store: &MemoryStore) -> (Replicas, Replica, JoinHandle<Ended>, Mesh) {
    let holding = Holding::For("global".parse().expect("a zone's name"));
    let identity = identity(&shard("eu", 0), holding.clone());
    let journal = store.open(&identity).expect("it opens").journal;
    let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
    let replica = Replica::open(&identity, journal, None, options).await.expect("the replica opens");
    let mesh = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
    let following = Following::new(Followed { shard: shard("eu", 0), leader: region("eu_west"), holding });
    let replicas = Replicas::new(vec![following.clone()]);
    let (kept, at) = (replica.clone(), mesh.clone());
    (replicas, replica, tokio::spawn(async move { following.run(kept, &at).await }), mesh)
}

pub(crate) fn copy_store() -> MemoryStore {
    MemoryStore::new(&identity(&shard("eu", 0), Holding::For("global".parse().expect("a zone's name"))))
}

pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

pub(crate) async fn replication(mesh: &Mesh, of: &str) -> GetReplicationResponse {
    let channel = mesh.to_region(&region(of)).expect("a region");
    ReplicationServiceClient::new(channel).get_replication(GetReplicationRequest {}).await.expect("an answer").into_inner()
}
