//! Copies that are made in the place of one that money was taken from: nobody is given them before they are shown to go on from there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_journal::{Hash, Holding, Identity, Journal, history_mark, memory::MemoryStore, sqlite::Engine};
use paymesh_ledger::{Command, Credit, Message, Request};
use paymesh_mesh::{Mesh, Security};
use paymesh_replication::{Ended, Followed, Following, Remaking};
use paymesh_shard::{Options, Replica, ReplicaOptions, Retention, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{Currency, Cursor, Epoch, Money, PaymentId, Position, Sequence, Timestamp};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    beginning::let_go,
    support::{Leader, PATIENCE, identity, listener, region, shard, topology, until, user},
};

/// us_east's copy of eu/0, which eu_west leads; one that came to `end` is set aside, and money was taken from it.
struct Remade {
    topology: Arc<Topology>,
    port: u16,
    store: MemoryStore,
    /// Of before most of it.
    backup: MemoryStore,
    leader: Leader,
    directory: tempfile::TempDir,
    end: (Sequence, Hash),
}

fn whose() -> Identity {
    identity(&shard("eu", 0), Holding::For("global".parse().expect("a zone's name")))
}

impl Remade {
    async fn new() -> Self {
        let (listens, port) = listener().await;
        let topology = topology([1, port]);
        let store = MemoryStore::new(&identity(&shard("eu", 0), Holding::Whole));
        let leader = Leader::start(&topology, listens, &store).await;
        leader.fill(0).await;
        let backup = store.backup();
        leader.fill(3).await;
        let directory = tempfile::tempdir().expect("a folder");
        let this = Self { topology, port, store, backup, leader, directory, end: (Sequence(0), [0; 32]) };
        let (_, replica) = this.open().await;
        let (_, keeping, _) = this.keep(&replica);
        until("it catches up", || replica.tail().head() == this.leader.shard.status().head).await;
        keeping.abort();
        let _ = keeping.await;
        let end = replica.end().await;
        replica.close().await;
        let aside = Engine::new(this.directory.path());
        aside.journal(&whose()).await.expect("it opens");
        aside.set_aside(&shard("eu", 0), Timestamp(1), true).await.expect("it is set aside");
        Self { end: (end.sequence, end.hash), ..this }
    }

    async fn open(&self) -> (Arc<dyn Journal>, Replica) {
        let journal = Engine::new(self.directory.path()).journal(&whose()).await.expect("it opens");
        let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
        let replica = Replica::open(&whose(), journal.clone(), None, options).await.expect("the replica opens");
        (journal, replica)
    }

    fn keep(&self, replica: &Replica) -> (Following, JoinHandle<Ended>, Mesh) {
        let mesh = Mesh::new(self.topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
        let followed = Followed { shard: shard("eu", 0), leader: region("eu_west"), holding: whose().holding };
        let following = Following::new(followed);
        let (kept, at, keeper) = (replica.clone(), mesh.clone(), following.clone());
        (following, tokio::spawn(async move { keeper.run(kept, &at).await }), mesh)
    }

    /// The leader keeps nothing of what is in its journal. Gives back who follows it, and what its copy's journal is.
    async fn outrun(mut self) -> (Self, Following, Arc<dyn Journal>, Mesh) {
        let_go(&self.leader.shard).await;
        self.leader.stop().await;
        let listens = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free again");
        self.leader = Leader::start(&self.topology, listens, &self.store).await;
        let (journal, replica) = self.open().await;
        assert_eq!(replica.witness(), Some(self.end));
        let (following, keeping, mesh) = self.keep(&replica);
        let ended = tokio::time::timeout(PATIENCE, keeping).await.expect("it ends").expect("it does not die");
        assert!(matches!(ended, Ended::Outrun(_)), "{ended:?}");
        replica.close().await;
        following.withdraw(Remaking::Bootstrapping(0, 0), String::new());
        (self, following, journal, mesh)
    }

    /// Has the copy's file do something.
    async fn execute(&self, statement: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("journal.sqlite"));
        let mut file = SqliteConnection::connect_with(&options).await.expect("it opens");
        sqlx::query(statement).execute(&mut file).await.expect("it is done");
        file.close().await.expect("it closes");
    }
}

#[tokio::test]
async fn a_copy_that_begins_where_the_one_set_aside_ended_is_shown_by_that_wherever_it_stops() {
    let (remade, following, journal, mesh) = Remade::new().await.outrun().await;
    let (sequence, hash) = remade.end;
    // Up to where the journal begins there: by then it is not to have forgotten what it must begin with.
    remade.execute("CREATE TRIGGER stops BEFORE UPDATE OF origin_last ON shards BEGIN SELECT RAISE(ABORT, 'it stops here'); END").await;
    let cut = tokio::time::timeout(Duration::from_millis(1_500), following.bootstrap(&journal, None, &mesh, true));
    assert!(cut.await.is_err(), "it is tried again");
    let (again, replica) = remade.open().await;
    assert_eq!((replica.end().await.sequence, replica.witness()), (Sequence(0), Some((sequence, hash))));
    assert_eq!(again.witness().await.expect("it is read"), Some((sequence, hash)));
    replica.close().await;

    // And from there on: it is open to whoever asks.
    remade.execute("DROP TRIGGER stops").await;
    following.bootstrap(&journal, None, &mesh, true).await.expect("it begins");
    let (journal, replica) = remade.open().await;
    let end = replica.end().await;
    assert_eq!((end.sequence, end.hash, replica.witness()), (sequence, hash, None));
    assert_eq!(journal.witness().await.expect("it is read"), None);
    replica.close().await;
    remade.leader.stop().await;
}

#[tokio::test]
async fn a_copy_does_not_begin_after_the_end_of_the_one_set_aside() {
    let remade = Remade::new().await;
    remade.leader.fill(2).await;
    let (remade, following, journal, mesh) = remade.outrun().await;
    let begun = tokio::time::timeout(PATIENCE, following.bootstrap(&journal, None, &mesh, true)).await.expect("it ends");
    let nothing_shows = format!("it begins after entry {}, to which a copy had come that was set aside: nothing shows", remade.end.0);
    assert!(matches!(&begun, Err(Ended::Stopped(why)) if why.contains(&nothing_shows)), "{begun:?}");
    assert_eq!(journal.head().await.expect("it is read").sequence, Sequence(0));
    assert_eq!(journal.witness().await.expect("it is read"), Some(remade.end));
    remade.leader.stop().await;
}

#[tokio::test]
async fn a_copy_that_could_not_note_that_it_goes_on_from_the_one_set_aside_is_given_out_once_it_can() {
    let remade = Remade::new().await;
    remade.execute("CREATE TRIGGER fails BEFORE UPDATE OF witness_last ON shards BEGIN SELECT RAISE(ABORT, 'it fails'); END").await;
    let (journal, replica) = remade.open().await;
    let (following, keeping, _mesh) = remade.keep(&replica);
    until("it catches up", || replica.tail().head() == remade.leader.shard.status().head).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(following.replica().is_none() && replica.witness().is_some(), "what is not noted is not known after a crash");
    // The leader has nothing more to send.
    remade.execute("DROP TRIGGER fails").await;
    until("it is given out", || following.replica().is_some()).await;
    assert_eq!((replica.witness(), journal.witness().await.expect("it is read")), (None, None));
    keeping.abort();
    remade.leader.stop().await;
}

/// The books know of the history too, and are not on that page of the disk.
#[tokio::test]
async fn nothing_is_taken_in_of_another_history_where_the_witness_is_lost_with_its_row() {
    let mut remade = Remade::new().await;
    let (payee, euro) = (shard("global", 1), Currency::from_code("EUR").expect("EUR"));
    let its = identity(&payee, Holding::Whole);
    let store = MemoryStore::new(&its).open(&its).expect("it opens");
    let opened = Shard::open(&its, store, Options::default(), Arc::new(|| Timestamp(1))).await.expect("the shard opens");
    // It has taken in the last entry of the copy that was set aside.
    let (sequence, hash) = remade.end;
    let credit = Credit {
        payment: PaymentId::from(Position { shard: shard("eu", 0), epoch: Epoch(1), sequence }),
        payer: user(1),
        payee: user(7),
        money: Money::new(1, euro).expect("within the bounds"),
        reason: None,
    };
    let at = Cursor { sequence, mark: history_mark(&hash) };
    let commands = [
        Command::EnrollUser { user: user(7), country: "US".parse().expect("a country"), currencies: std::iter::once(euro).collect() },
        Command::Receive { source: shard("eu", 0), at, message: Message::Pay(credit) },
    ];
    let requests = commands.into_iter().map(|command| Request { id: None, command }).collect();
    opened.submit_all(requests).await.expect("it serves").into_iter().for_each(|answer| drop(answer.expect("it is accepted")));

    remade.execute("UPDATE shards SET witness_last = NULL, witness_hash = NULL WHERE set_aside_at IS NULL").await;
    remade.leader.stop().await;
    let listens = TcpListener::bind(("127.0.0.1", remade.port)).await.expect("the port is free again");
    remade.leader = Leader::start(&remade.topology, listens, &remade.backup).await;
    remade.leader.fill(20).await;
    let (_, replica) = remade.open().await;
    let (following, keeping, _mesh) = remade.keep(&replica);
    until("it is given out", || following.replica().is_some()).await;
    let shards = Shards::new(BTreeMap::from([(payee.clone(), Ok(opened.clone()))]));
    let why = tokio::time::timeout(PATIENCE, shards.follow(replica, &payee)).await.expect("the inbox stops");
    assert!(why.contains("the journal of eu/0 has another entry") && why.contains("it is another history"), "{why}");
    assert_eq!(opened.wallets(user(7)).await.expect("it serves").expect("enrolled").0[0].1.balance, 1);
    keeping.abort();
    remade.leader.stop().await;
    opened.close().await;
}
