//! Journals that are not kept from their first entry, between real nodes: copies that come later, money that was on its way, and
//! what stops where a journal is damaged.
//!
//! Nothing younger than a day goes, so a month of history is written before the nodes start, by shards with a clock of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use paymesh_contract::{
    Fault,
    events::v1::{SubscribeRequest, event_service_client::EventServiceClient},
    replication::v1::{GetReplicationRequest, Replica, ReplicaState, replication_service_client::ReplicationServiceClient},
};
use paymesh_journal::{Holding, Identity, sqlite};
use paymesh_ledger::{Command, CreatePayment, Request};
use paymesh_shard::{Options, Shard};
use paymesh_types::{Currency, Money, Sequence, ShardRef, Timestamp, UserId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::Connection as _;
use tonic::Code;

use crate::{
    remains::journals,
    support::{FOUR_REGIONS, TestMesh, payment, seed},
};

const WAIT_MAX: Duration = Duration::from_secs(60);
const BOUNDS: &str = "outcomes: {retention_hours: 24}\njournal: {retention_hours: 24}\n";

fn shard(zone: &str, index: u16) -> ShardRef {
    ShardRef { zone: zone.parse().unwrap(), index }
}

fn user(number: u64) -> UserId {
    UserId::try_from(number).unwrap()
}

fn money(minor: i64) -> Money {
    Money::new(minor, Currency::from_code("EUR").unwrap()).unwrap()
}

fn enrol(number: u64, country: &str) -> Command {
    let currencies = std::iter::once(Currency::from_code("EUR").unwrap()).collect();
    Command::EnrollUser { user: user(number), country: country.parse().unwrap(), currencies }
}

fn pay(payer: u64, payee: u64, payee_shard: Option<ShardRef>, minor: i64) -> Command {
    let reference = "long ago".to_owned();
    Command::CreatePayment(CreatePayment {
        payer: user(payer),
        payee: user(payee),
        payee_shard,
        money: money(minor),
        hold_s: 0,
        reference,
        card: None,
    })
}

/// Writes entries into a region's storage as its node did so many days ago, one a minute; the node does not run.
async fn long_ago(mesh: &TestMesh, region: &str, name: ShardRef, shards: u16, days: u64, commands: Vec<Command>) -> Sequence {
    long_ago_many(mesh, region, name, shards, days, commands, 1).await
}

/// The same, so many a minute.
async fn long_ago_many(
    mesh: &TestMesh,
    region: &str,
    name: ShardRef,
    shards: u16,
    days: u64,
    commands: Vec<Command>,
    at_once: usize,
) -> Sequence {
    std::fs::create_dir_all(mesh.data(region)).unwrap();
    let identity = Identity { mesh: "test".to_owned(), shard: name, shards, holding: Holding::Whole };
    let store = sqlite::open(&mesh.data(region), &identity).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(days * 86_400);
    let clock = Arc::new(AtomicU64::new(u64::try_from(now.as_micros()).unwrap()));
    let time = clock.clone();
    let opened =
        Shard::open(&identity, store, Options::default(), Arc::new(move || Timestamp(time.load(Ordering::Relaxed)))).await.unwrap();
    for commands in commands.chunks(at_once) {
        let requests = commands.iter().map(|command| Request { id: None, command: command.clone() }).collect();
        assert!(opened.submit_all(requests).await.unwrap().iter().all(Result::is_ok));
        clock.fetch_add(60_000_000, Ordering::Relaxed);
    }
    let head = opened.status().head;
    // The tables too, as a node that ran on would have them.
    opened.wallets(user(1)).await.unwrap();
    opened.close().await;
    opened.store().tables.close().await;
    opened.store().checkpoints.close().await;
    head
}

async fn origin(mesh: &TestMesh, region: &str, name: &ShardRef) -> u64 {
    let mut file = journals(&mesh.data(region)).await;
    let origin = sqlx::query_scalar("SELECT origin_last FROM shards WHERE zone = ? AND shard = ? AND set_aside_at IS NULL");
    let origin: Option<i64> = origin.bind(name.zone.as_str()).bind(i64::from(name.index)).fetch_optional(&mut file).await.unwrap();
    file.close().await.unwrap();
    origin.unwrap_or(0).cast_unsigned()
}

async fn until_kept_after(mesh: &TestMesh, region: &str, name: &ShardRef, is: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let origin = origin(mesh, region, name).await;
        if is(origin) {
            return origin;
        }
        assert!(Instant::now() < deadline, "{region} keeps {name} after {origin}\n{}", mesh.logs(region));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn replica(mesh: &TestMesh, region: &str, name: &str) -> Option<Replica> {
    let mut client = ReplicationServiceClient::new(mesh.channel(region));
    let all = client.get_replication(GetReplicationRequest {}).await.ok()?.into_inner().replicas;
    all.into_iter().find(|replica| replica.shard.as_ref().is_some_and(|shard| format!("{}/{}", shard.zone, shard.shard) == name))
}

async fn wait_for(mesh: &TestMesh, region: &str, name: &str, wanted: impl Fn(&Replica) -> bool) -> Replica {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let found = replica(mesh, region, name).await;
        if let Some(replica) = found.as_ref().filter(|replica| wanted(replica)) {
            return replica.clone();
        }
        assert!(Instant::now() < deadline, "{region}: {found:?}\n{}", mesh.logs(region));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_current(head: u64) -> impl Fn(&Replica) -> bool {
    move |replica| {
        let projected = !replica.whole || replica.projected_sequence == Some(head);
        replica.state() == ReplicaState::Streaming && replica.stored_sequence == head && projected
    }
}

/// The last entry that a region has of a shard. Some regions do not run, so that nobody can be asked for all.
async fn head(mesh: &TestMesh, region: &str, name: &ShardRef) -> u64 {
    let mut file = journals(&mesh.data(region)).await;
    let head = "SELECT max(last) FROM segments JOIN shards USING (slot) WHERE zone = ? AND shard = ? AND set_aside_at IS NULL";
    let head: i64 = sqlx::query_scalar(head).bind(name.zone.as_str()).bind(i64::from(name.index)).fetch_one(&mut file).await.unwrap();
    file.close().await.unwrap();
    head.cast_unsigned()
}

/// Everything that a region has stored of a shard's journal, as bytes.
async fn stored(mesh: &TestMesh, region: &str, name: &ShardRef) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let mut file = journals(&mesh.data(region)).await;
    let rows = sqlx::query_as(
        "SELECT first, hash, payload FROM segments JOIN shards USING (slot)
         WHERE zone = ? AND shard = ? AND set_aside_at IS NULL AND first > origin_last ORDER BY first",
    );
    let rows = rows.bind(name.zone.as_str()).bind(i64::from(name.index)).fetch_all(&mut file).await.unwrap();
    file.close().await.unwrap();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_later_than_what_is_kept_begins_with_a_checkpoint_and_no_money_is_lost() {
    let mut mesh = TestMesh::new(&format!("{FOUR_REGIONS}{BOUNDS}"));
    let (home, theirs) = (shard("global", 0), shard("eu", 0));
    let claim = |number, zone: &str| Command::ClaimUser { user: user(number), zone: zone.parse().unwrap() };
    let claims = vec![claim(10, "global"), claim(12, "global"), claim(20, "eu")];
    long_ago(&mesh, "us_east", shard("directory", 0), 1, 40, claims).await;
    long_ago(&mesh, "eu_west", theirs.clone(), 2, 40, vec![enrol(20, "DE")]).await;
    let deposit = |number| Command::Deposit { user: user(number), money: money(10_000), reference: String::new() };
    let mut commands = vec![enrol(10, "US"), enrol(12, "US"), deposit(10), deposit(12)];
    commands.extend((0..100).map(|_| pay(10, 12, None, 10)));
    let first_head = long_ago(&mesh, "us_east", home.clone(), 2, 30, commands).await;

    // A region has a copy of that, and then is away for long. Others come much later: nobody waits for them.
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.start("us_west");
    wait_for(&mesh, "us_west", "global/0", is_current(first_head.0)).await;
    assert!(mesh.stop("us_west").success() && mesh.stop("us_east").success());
    let mut commands: Vec<Command> = (0..100).map(|_| pay(12, 10, None, 5)).collect();
    commands.push(pay(10, 20, Some(theirs.clone()), 100));
    commands.extend((0..50).map(|_| pay(12, 10, None, 1)));
    let last_head = long_ago(&mesh, "us_east", home.clone(), 2, 20, commands).await;
    let sent = last_head.0 - 50;

    // The leader lets go of it all, but for the payment that nobody has taken in, and what comes after it.
    mesh.start("us_east");
    mesh.payments("us_east").create_payment(payment(10, 12, 3)).await.unwrap();
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    let kept_after = until_kept_after(&mesh, "us_east", &home, |after| after > 0).await;
    assert_eq!(kept_after, sent - 1, "the money in transit is kept, and what comes after it\n{}", mesh.logs("us_east"));
    let metrics = mesh.http("us_east", "/metrics").unwrap().1;
    assert!(metrics.lines().any(|line| line.starts_with("paymesh_journal_held_back{") && line.ends_with(" 1")), "{metrics}");

    // One that was stopped, and one that has nothing, come by themselves to what the leader has.
    mesh.start("us_west");
    mesh.start("asia_pacific");
    let head = head(&mesh, "us_east", &home).await;
    for region in ["us_west", "asia_pacific"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
        assert_eq!(stored(&mesh, region, &home).await, stored(&mesh, "us_east", &home).await);
        assert_eq!(origin(&mesh, region, &home).await, kept_after);
        let metrics = mesh.http(region, "/metrics").unwrap().1;
        assert!(metrics.contains("paymesh_replica_bootstraps_total"), "{metrics}");
        mesh.wait_logged(region, "tables are made of a checkpoint");
    }

    // Across the border too, and the money that waited there for weeks arrives, once.
    mesh.start("eu_west");
    let deadline = Instant::now() + WAIT_MAX;
    while mesh.balance("eu_west", 20).await != 100 {
        assert!(Instant::now() < deadline, "the money does not arrive\n{}", mesh.logs("eu_west"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let head = mesh.heads()["global/0"];
    wait_for(&mesh, "eu_west", "global/0", is_current(head)).await;
    let report = mesh.assert_books();
    assert!(report["copies"].as_array().unwrap().iter().all(|copy| copy["good"] == true), "{report}");

    // Now that it has arrived, it need not be kept; the copies let go of it as well, and it still adds up.
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    let later = until_kept_after(&mesh, "us_east", &home, |after| after >= last_head.0).await;
    until_kept_after(&mesh, "eu_west", &home, |after| after == later).await;
    mesh.payments("eu_west").create_payment(payment(20, 12, 40)).await.unwrap();
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific", "eu_west"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }
    assert_eq!((mesh.balance("us_west", 20).await, mesh.balance("eu_west", 12).await), (60, 10_000 + 1_000 - 500 - 50 + 3 + 40));
    let report = mesh.assert_books();
    assert!(report["copies"].as_array().unwrap().iter().all(|copy| copy["good"] == true), "{report}");

    // A subscriber is told where it can begin.
    let mut subscriber = EventServiceClient::new(mesh.channel("us_east"));
    let request = |from_sequence| SubscribeRequest { zone: "global".to_owned(), shard: 0, from_sequence, read: None };
    let mut events = subscriber.subscribe(request(1)).await.unwrap().into_inner();
    let refused = events.message().await.unwrap_err();
    let fault = Fault::from_status(&refused);
    assert_eq!((refused.code(), &*fault.reason), (Code::OutOfRange, "POSITION_NOT_KEPT"), "{refused:?}");
    let mut events = subscriber.subscribe(request(later + 1)).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    assert_eq!(first.events[0].position.as_ref().unwrap().sequence, later + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_while_it_begins_a_copy_goes_on_and_comes_to_what_its_leader_has() {
    const PAYMENTS: u64 = 15_000;
    const KILLS: usize = 8;
    let mut random = StdRng::seed_from_u64(seed());
    let mut mesh = TestMesh::new(&format!("{FOUR_REGIONS}{BOUNDS}"));
    // Not all regions run.
    mesh.trust_own_journals(true);
    let home = shard("global", 0);
    let deposit = |number| Command::Deposit { user: user(number), money: money(1_000_000), reference: String::new() };
    let claims = [10, 12].map(|number| Command::ClaimUser { user: user(number), zone: "global".parse().unwrap() });
    long_ago(&mesh, "us_east", shard("directory", 0), 1, 40, claims.to_vec()).await;
    let mut commands = vec![enrol(10, "US"), enrol(12, "US"), deposit(10), deposit(12)];
    commands.extend((0..PAYMENTS).map(|number| pay(10 + number % 2 * 2, 12 - number % 2 * 2, None, 1)));
    let past = long_ago_many(&mesh, "us_east", home.clone(), 2, 30, commands, 1_000).await;
    mesh.start("us_east");
    mesh.payments("us_east").create_payment(payment(10, 12, 3)).await.unwrap();
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    until_kept_after(&mesh, "us_east", &home, |after| after >= past.0 - 1_000).await;

    let mut stored_before = 0;
    for round in 0..KILLS {
        mesh.spawn("us_west");
        let wanted = stored_before + random.random_range(1..=3);
        let begun = |replica: &Replica| replica.state() == ReplicaState::Bootstrapping && replica.chunks_stored > 0;
        let seen = wait_for(&mesh, "us_west", "global/0", |replica| {
            assert!(!begun(replica) || replica.chunks_stored >= stored_before, "what was stored is not asked for again: {replica:?}");
            replica.stored_sequence > 0 || (begun(replica) && replica.chunks_stored >= wanted)
        })
        .await;
        mesh.kill("us_west");
        if seen.stored_sequence > 0 {
            assert!(round > 0, "no kill came while it began");
            break;
        }
        stored_before = seen.chunks_stored;
    }
    mesh.start("us_west");
    mesh.start("eu_west");
    mesh.start("asia_pacific");
    let head = mesh.heads()["global/0"];
    wait_for(&mesh, "us_west", "global/0", is_current(head)).await;
    assert_eq!(stored(&mesh, "us_west", &home).await, stored(&mesh, "us_east", &home).await);
    let report = mesh.assert_books();
    assert!(report["copies"].as_array().unwrap().iter().all(|copy| copy["good"] == true), "{report}");
}

/// Across a border too, where money is taken from it: the new copy is given to nobody before it has come to where the old one was.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_that_money_was_taken_from_is_made_anew_when_it_is_the_same_history() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for (number, country) in [(10, "US"), (20, "DE")] {
        mesh.enrol("us_east", number, country, 1_000).await;
    }
    let arrived = async |mesh: &TestMesh, balance: i64| {
        let deadline = Instant::now() + WAIT_MAX;
        while mesh.balance("eu_west", 20).await != balance {
            assert!(Instant::now() < deadline, "the money does not arrive\n{}", mesh.logs("eu_west"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for _ in 0..5 {
        mesh.payments("us_east").create_payment(payment(10, 20, 10)).await.unwrap();
    }
    arrived(&mesh, 1_050).await;
    mesh.heads();
    let damage = async |mesh: &TestMesh| {
        let mut journal = journals(&mesh.data("eu_west")).await;
        let damage = "UPDATE segments SET root = zeroblob(32) WHERE first = 2 AND slot =
                      (SELECT slot FROM shards WHERE zone = 'global' AND shard = 0 AND set_aside_at IS NULL)";
        assert_eq!(sqlx::query(damage).execute(&mut journal).await.unwrap().rows_affected(), 1);
        journal.close().await.unwrap();
    };
    for round in 1..=2 {
        assert!(mesh.stop("eu_west").success());
        damage(&mesh).await;
        mesh.payments("us_west").create_payment(payment(10, 20, 7)).await.unwrap();
        mesh.start("eu_west");
        arrived(&mesh, 1_050 + 7 * round).await;
        let head = mesh.heads()["global/0"];
        let replica = wait_for(&mesh, "eu_west", "global/0", is_current(head)).await;
        assert_eq!(i64::from(replica.set_aside), round);
    }
    mesh.wait_logged("eu_west", "a copy has the history of the one that was set aside");
    mesh.assert_books();

    // A copy that is damaged, of a leader that was put back: what was taken is not in its history any more.
    assert!(mesh.stop("eu_west").success() && mesh.stop("us_east").success());
    damage(&mesh).await;
    let mut journal = journals(&mesh.data("us_east")).await;
    let cut = "DELETE FROM segments WHERE slot = (SELECT slot FROM shards WHERE zone = 'global' AND shard = 0) AND first >
               (SELECT max(first) - 3 FROM segments JOIN shards USING (slot) WHERE zone = 'global' AND shard = 0)";
    assert!(sqlx::query(cut).execute(&mut journal).await.unwrap().rows_affected() > 0);
    journal.close().await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(mesh.data("us_east").join(format!("global-0.tables.sqlite{suffix}")));
    }
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.spawn("eu_west");
    let stopped = wait_for(&mesh, "eu_west", "global/0", |replica| replica.state() == ReplicaState::Stopped).await;
    assert!(stopped.problem.contains("set aside"), "{stopped:?}");
    assert_eq!(mesh.balance("eu_west", 20).await, 1_064, "nothing is taken from the other history");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_segment_stops_its_own_shard_and_says_so() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for number in [10, 11, 12, 13] {
        mesh.enrol("us_east", number, "US", 1_000).await;
    }
    let pay_all = async |mesh: &TestMesh| {
        for (payer, payee) in [(10, 12), (11, 13)] {
            mesh.payments("us_east").create_payment(payment(payer, payee, 1)).await.unwrap();
        }
    };
    pay_all(&mesh).await;
    assert!(mesh.stop("us_west").success());
    std::fs::remove_dir_all(mesh.data("us_west")).unwrap();
    // So that the leader has nothing of it in memory; then a bit goes bad under it.
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    let mut journal = journals(&mesh.data("us_east")).await;
    let damage = "UPDATE segments SET payload = zeroblob(length(payload)) WHERE first = 2 AND slot =
                  (SELECT slot FROM shards WHERE zone = 'global' AND shard = 0)";
    assert_eq!(sqlx::query(damage).execute(&mut journal).await.unwrap().rows_affected(), 1);
    journal.close().await.unwrap();

    mesh.spawn("us_west");
    let stopped = wait_for(&mesh, "us_west", "global/0", |replica| replica.state() == ReplicaState::Stopped).await;
    assert!(stopped.problem.contains("refused") && stopped.problem.contains("global/0"), "{stopped:?}");
    assert_eq!(stopped.stored_sequence, 0, "nothing of it is stored");
    pay_all(&mesh).await;
    let head = mesh.heads()["global/1"];
    wait_for(&mesh, "us_west", "global/1", is_current(head)).await;
    let metrics = mesh.http("us_west", "/metrics").unwrap().1;
    let gauge =
        |name: &str| metrics.lines().find(|line| line.starts_with("paymesh_replica_stopped{") && line.contains(name)).map(str::to_owned);
    assert!(gauge("global/0").is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    assert!(gauge("global/1").is_some_and(|line| line.ends_with(" 0")), "{metrics}");
    let status = mesh.run(&["status"]);
    assert!(status.stdout.contains("us_west's copy of global/0 takes in nothing more: "), "{status:?}");
    mesh.wait_logged("us_west", "a replica takes in nothing more");
}
