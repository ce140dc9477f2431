//! Whether a shard may be led from a journal, as those who follow it say over loopback.

#![forbid(unsafe_code)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use paymesh_journal::{Holding, Identity, Journal, Store, memory::MemoryStore, sqlite::Engine};
use paymesh_ledger::{Command, Request};
use paymesh_mesh::{Limits, Mesh, Security};
use paymesh_replication::{
    Census, Followed, Following, Heard, Remaking, Replicas, Replication,
    census::{Error, PATIENCE, PATIENCE_LONG},
};
use paymesh_shard::{Options, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{Currency, RegionName, Sequence, ShardRef, Timestamp, UserId};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tonic::service::Routes;

const WAIT_MAX: Duration = Duration::from_secs(20);

fn region(name: &str) -> RegionName {
    name.parse().expect("a region's name")
}

fn eu() -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone's name"), index: 0 }
}

/// eu_west leads eu/0, which us_east follows at that port.
fn topology(us: u16) -> Arc<Topology> {
    let yaml = format!(
        "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  eu_west: {{primary: false, services: [payment_processor], database: regional_master}}
zones:
  global: {{shards: 1, regions: [us_east], countries: [US]}}
  eu: {{shards: 1, regions: [eu_west], countries: [DE]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{us}', http: '127.0.0.2:{us}'}}
  eu_west: {{grpc: '127.0.0.3:{us}', http: '127.0.0.4:{us}'}}
"
    );
    Arc::new(Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}")))
}

/// us_east, which follows eu/0, and what eu_west hears of it.
struct Two {
    following: Following,
    heard: Heard,
    _tasks: JoinSet<()>,
}

impl Two {
    /// us_east does not answer where it does not `serve`.
    async fn start(serve: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let topology = topology(listener.local_addr().expect("an address").port());
        let holding = Holding::For("global".parse().expect("a zone's name"));
        let following = Following::new(Followed { shard: eu(), leader: region("eu_west"), holding });
        let mut tasks = JoinSet::new();
        if serve {
            let mesh = Mesh::new(topology.clone(), region("us_east"), Security::PlainText).expect("a mesh");
            let service = Replication::new(mesh.clone(), Shards::default(), Replicas::new(vec![following.clone()]));
            tasks.spawn(async move {
                let routes = Routes::new(service.server());
                mesh.serve(routes, listener, Limits::default(), std::future::pending()).await.expect("it serves");
            });
        }
        let (census, heard) = Census::new(Mesh::new(topology, region("eu_west"), Security::PlainText).expect("a mesh"));
        tasks.spawn(census.take());
        Self { following, heard, _tasks: tasks }
    }

    /// us_east's copy is as that journal.
    async fn copied(self, journal: &Arc<dyn Journal>) -> Self {
        self.following.look_at(&**journal).await.expect("it is read");
        self
    }

    async fn may_lead(&mut self, journal: &Arc<dyn Journal>) -> Result<(), Error> {
        tokio::time::timeout(WAIT_MAX, self.heard.may_lead(&eu(), &**journal, |_, _| {})).await.expect("it is decided")
    }
}

fn store() -> MemoryStore {
    MemoryStore::new(&identity())
}

fn identity() -> Identity {
    Identity { mesh: "test".to_owned(), shard: eu(), shards: 1, holding: Holding::Whole }
}

fn empty() -> Arc<dyn Journal> {
    store().open(&identity()).expect("it opens").journal
}

/// A history of so many segments: each call makes another one.
async fn history(segments: u64) -> Arc<dyn Journal> {
    let store = store().open(&identity()).expect("it opens");
    write(&store, segments).await;
    store.journal
}

async fn write(store: &Store, segments: u64) {
    let shard = Shard::open(&identity(), store.clone(), Options::default(), Arc::new(|| Timestamp(1))).await.expect("it opens");
    for number in 1..=segments {
        let command = Command::EnrollUser {
            user: UserId::try_from(number).expect("counted from one"),
            country: "DE".parse().expect("a country"),
            currencies: std::iter::once(Currency::from_code("EUR").expect("EUR")).collect(),
        };
        shard.submit(Request { id: None, command }).await.expect("it is accepted");
    }
    shard.close().await;
}

/// Its first segments.
async fn beginning(whole: &Arc<dyn Journal>, segments: usize) -> Arc<dyn Journal> {
    let journal = empty();
    let read = whole.read(Sequence(1), usize::MAX).await.expect("it is read");
    let first: Vec<_> = read.into_iter().take(segments).map(Arc::new).collect();
    journal.extend(&first).await.expect("it is stored");
    journal
}

#[tokio::test]
async fn a_journal_that_has_what_the_copy_has_is_led_and_any_other_is_not() {
    let whole = history(5).await;
    let (some, other) = (beginning(&whole, 3).await, history(5).await);
    let none = empty();
    let (lead, beyond, apart) = (None, Some("us_east has its history up to entry"), Some("us_east has another history of it up to entry"));
    for (own, copy, wanted) in [
        (&whole, &whole, lead),
        (&whole, &some, lead),
        (&whole, &none, lead),
        (&none, &none, lead),
        (&some, &whole, beyond),
        (&none, &some, beyond),
        (&other, &whole, apart),
        (&other, &some, apart),
    ] {
        let began = Instant::now();
        let found = Two::start(true).await.copied(copy).await.may_lead(own).await;
        let ends = (own.head().await.expect("it is read").sequence, copy.head().await.expect("it is read").sequence);
        match (found, wanted) {
            (Ok(()), None) => {}
            (Err(Error::HistoryMissing(why)), Some(words)) if why.contains(&format!("{words} {}", ends.1)) => {}
            (found, _) => panic!("{ends:?}: {found:?}, and not {wanted:?}"),
        }
        assert!(began.elapsed() < PATIENCE, "who answers is not waited for");
    }
}

#[tokio::test]
async fn an_empty_journal_waits_until_the_copy_was_looked_at_and_one_that_is_not_does_not_for_long() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let told = said.clone();
    let Two { following, mut heard, _tasks } = Two::start(true).await;
    let waiting: JoinHandle<_> = tokio::spawn(async move {
        heard.may_lead(&eu(), &*empty(), |whom, long| told.lock().expect("the lock").push((whom.to_owned(), long))).await
    });
    tokio::time::sleep(PATIENCE_LONG + Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    let last = said.lock().expect("the lock").last().cloned();
    assert!(last.as_ref().is_some_and(|(whom, long)| whom.contains("us_east has not looked at its copy yet") && *long), "{last:?}");
    following.look_at(&*empty()).await.expect("it is read");
    let led = tokio::time::timeout(WAIT_MAX, waiting).await.expect("it hears of it").expect("it ends");
    led.expect("there is nothing that it lacks");

    let own = history(2).await;
    // One that comes up is waited for longer than one that does not answer, or says that it has none to look at.
    for (serve, closed, patience) in [(true, false, PATIENCE_LONG), (true, true, PATIENCE), (false, false, PATIENCE)] {
        let began = Instant::now();
        let mut two = Two::start(serve).await;
        if closed {
            two.following.refuse("it has diverged".to_owned());
        }
        two.may_lead(&own).await.expect("a network that is cut does not stop it");
        let took = began.elapsed();
        assert!(took >= patience.mul_f32(0.9) && took < patience + PATIENCE, "{took:?} instead of {patience:?}");
    }
}

#[tokio::test]
async fn a_copy_that_was_set_aside_is_not_taken_for_one_that_never_had_anything() {
    let two = Two::start(true).await.copied(&history(2).await).await;
    two.following.withdraw(Remaking::SetAside, "it was damaged".to_owned());
    two.following.note_set_aside(1);
    let mut two = two.copied(&empty()).await;
    let waits = tokio::time::timeout(PATIENCE + Duration::from_millis(500), two.heard.may_lead(&eu(), &*empty(), |_, _| {})).await;
    assert!(waits.is_err(), "{waits:?}");
    // The new copy has come so far again.
    let mut two = two.copied(&history(2).await).await;
    assert!(matches!(two.may_lead(&empty()).await, Err(Error::HistoryMissing(_))));
}

/// Of a region that is to lead what it followed.
#[tokio::test]
async fn a_region_does_not_lead_from_a_copy_that_has_not_come_to_where_the_one_before_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let engine = Engine::new(directory.path());
    let damaged = engine.store(&identity()).await.expect("it opens");
    write(&damaged, 3).await;
    damaged.tables.close().await;
    damaged.checkpoints.close().await;
    engine.set_aside(&eu(), Timestamp(1), true).await.expect("it is set aside");
    let own = engine.store(&identity()).await.expect("it opens").journal;
    let found = Two::start(true).await.copied(&empty()).await.may_lead(&own).await;
    let Err(Error::HistoryMissing(why)) = found else { panic!("{found:?}") };
    assert!(why.contains("eu_west has its history up to entry 3"), "{why}");
}
