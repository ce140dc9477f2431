//! Copies of other regions' shards: kept up, made anew when they are damaged, and without anything that may not leave its zone.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use paymesh_contract::{
    events::v1::{SubscribeRequest, entry_open, event_service_client::EventServiceClient},
    payments::v1::CreatePaymentRequest,
    replication::v1::{GetReplicationRequest, Replica, ReplicaState, replication_service_client::ReplicationServiceClient},
    wallet::v1::DepositRequest,
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::{
    collector::Collector,
    remains::{files_below, has, journals, unpacked_segments},
    support::{FOUR_REGIONS, TestMesh, euro, payment},
};

pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

async fn replicas(mesh: &TestMesh, region: &str) -> Vec<Replica> {
    let mut client = ReplicationServiceClient::new(mesh.channel(region));
    client.get_replication(GetReplicationRequest {}).await.unwrap().into_inner().replicas
}

fn named(replica: &Replica) -> String {
    replica.shard.as_ref().map(|shard| format!("{}/{}", shard.zone, shard.shard)).unwrap()
}

/// Waits until the region's copy of the shard is as that says.
pub(crate) async fn wait_for(mesh: &TestMesh, region: &str, shard: &str, wanted: impl Fn(&Replica) -> bool) -> Replica {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let all = replicas(mesh, region).await;
        let replica = all.iter().find(|replica| named(replica) == shard).unwrap();
        if wanted(replica) {
            return replica.clone();
        }
        assert!(Instant::now() < deadline, "{region}: {replica:?}\n{}", mesh.logs(region));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn is_current(head: u64) -> impl Fn(&Replica) -> bool {
    move |replica| {
        let projected = !replica.whole || replica.projected_sequence == Some(head);
        replica.state() == ReplicaState::Streaming && replica.stored_sequence == head && projected
    }
}

/// Everything that a region has stored of a shard, as bytes.
pub(crate) async fn stored(mesh: &TestMesh, region: &str, shard: (&str, i64)) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let mut file = journals(&mesh.data(region)).await;
    let rows = sqlx::query_as(
        "SELECT first, hash, payload FROM segments JOIN shards USING (slot)
         WHERE zone = ? AND shard = ? AND set_aside_at IS NULL ORDER BY first",
    );
    let rows = rows.bind(shard.0).bind(shard.1).fetch_all(&mut file).await.unwrap();
    file.close().await.unwrap();
    rows
}

async fn pay_some(mesh: &TestMesh, count: usize) {
    for _ in 0..count {
        mesh.payments("us_west").create_payment(payment(10, 12, 1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_keeps_whole_copies_of_its_zone_and_makes_a_damaged_one_anew() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for user in [10, 12] {
        mesh.enrol("us_east", user, "US", 1_000).await;
    }
    pay_some(&mesh, 20).await;
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
        assert_eq!(stored(&mesh, region, ("global", 0)).await, stored(&mesh, "us_east", ("global", 0)).await);
        // Nothing of the other zone: nobody here takes money from it.
        let of_its_own = |replica: &Replica| named(replica).starts_with("global/") || named(replica) == "directory/0";
        assert!(replicas(&mesh, region).await.iter().all(|replica| replica.whole && of_its_own(replica)));
    }
    let of_the_other_zone = replicas(&mesh, "eu_west").await;
    assert_eq!(
        of_the_other_zone.iter().map(|replica| (named(replica), replica.whole)).collect::<Vec<_>>(),
        [("directory/0".to_owned(), true), ("global/0".to_owned(), false), ("global/1".to_owned(), false)]
    );

    // A byte of the copy, the tables of it, and then what was committed meanwhile.
    assert!(mesh.stop("us_west").success());
    let mut file = journals(&mesh.data("us_west")).await;
    let damage = "UPDATE segments SET payload = zeroblob(length(payload)) WHERE first = 3 AND slot =
                  (SELECT slot FROM shards WHERE zone = 'global' AND shard = 0)";
    assert_eq!(sqlx::query(damage).execute(&mut file).await.unwrap().rows_affected(), 1);
    file.close().await.unwrap();
    for _ in 0..5 {
        mesh.payments("eu_west").create_payment(payment(10, 12, 1)).await.unwrap();
    }
    mesh.start("us_west");
    let head = mesh.heads()["global/0"];
    wait_for(&mesh, "us_west", "global/0", is_current(head)).await;
    assert_eq!(stored(&mesh, "us_west", ("global", 0)).await, stored(&mesh, "us_east", ("global", 0)).await);
    mesh.wait_logged("us_west", "a replica was set aside");
    wait_for(&mesh, "us_west", "global/0", |replica| replica.set_aside == 1).await;
    // It is kept.
    let mut file = journals(&mesh.data("us_west")).await;
    let aside = "SELECT count(*) FROM segments JOIN shards USING (slot) WHERE set_aside_at IS NOT NULL";
    let aside: i64 = sqlx::query_scalar(aside).fetch_one(&mut file).await.unwrap();
    file.close().await.unwrap();
    assert!(aside > 5, "{aside}");
    let kept = fs::read_dir(mesh.data("us_west"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("global-0.tables.sqlite.aside-"));
    assert!(kept.count() > 0);

    // And the proof: every copy is what its leader has, until somebody changes a row of one.
    let report = mesh.assert_books();
    let copies = report["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 11, "{report}");
    assert!(copies.iter().all(|copy| copy["good"] == true), "{report}");
    assert_eq!(copies.iter().filter(|copy| copy["shard"] == "global/0" && copy["sequence"] == head).count(), 3, "{report}");
    let tables = mesh.data("us_west").join("global-0.tables.sqlite");
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(tables)).await.unwrap();
    sqlx::query("UPDATE wallets SET balance = balance + 1 WHERE user_id = 10").execute(&mut file).await.unwrap();
    let found = mesh.run(&["verify"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("WRONG  copy of global/0 in us_west: the tables give user 10"), "{found:?}");
}

/// A value that occurs nowhere else.
const CANARY: &str = "canary-91d7";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_personal_of_a_thousand_users_reaches_a_region_of_another_zone() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    let (traces, collector) = Collector::start().await;
    for region in mesh.regions() {
        mesh.spawn_traced(&region, "debug", &collector);
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    mesh.enrol("us_east", 5_000, "US", 0).await;
    mesh.enrol("us_east", 5_001, "US", 0).await;
    // Each user's words are on a deposit, on a payment within the zone, and on one that leaves it.
    futures::stream::iter(1..=1_000_u64)
        .for_each_concurrent(32, async |user| {
            mesh.enrol("eu_west", user, "FR", 0).await;
            let reference = format!("{CANARY}-{user}");
            let request = DepositRequest {
                request_id: Uuid::now_v7().to_string(),
                user_id: user,
                amount: Some(euro(100)),
                reference: reference.clone(),
            };
            mesh.wallet("eu_west").deposit(request).await.unwrap();
            for payee in [if user == 1 { 2 } else { 1 }, 5_000 + user % 2] {
                let request = CreatePaymentRequest { reference: reference.clone(), ..payment(user, payee, 1) };
                // The payee may not be enrolled yet.
                while let Err(status) = mesh.payments("eu_west").create_payment(request.clone()).await {
                    assert_eq!(status.code(), tonic::Code::NotFound, "{status}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .await;
    let heads = mesh.heads();
    for shard in ["eu/0", "eu/1"] {
        wait_for(&mesh, "us_east", shard, is_current(heads[shard])).await;
    }
    assert_eq!(mesh.balance("us_west", 5_000).await + mesh.balance("us_west", 5_001).await, 1_000, "all that left has arrived");

    // Nor to somebody who subscribes there: the payments that left, and nothing of the others.
    let mut subscriber = EventServiceClient::new(mesh.channel("us_west")).max_decoding_message_size(64 << 20);
    let request = SubscribeRequest { zone: "eu".to_owned(), shard: 0, from_sequence: 1, read: None };
    let mut events = subscriber.subscribe(request).await.unwrap().into_inner();
    let mut told = 0;
    while told < 500 {
        let message = tokio::time::timeout(WAIT_MAX, events.message()).await.expect("more is told").unwrap().unwrap();
        for event in message.events {
            assert!(event.sealed.is_none());
            match event.open.unwrap().body.unwrap() {
                entry_open::Body::PaymentCreated(payment) => assert_eq!(payment.payee_zone, "global"),
                other => panic!("{other:?} concerns nobody there"),
            }
            told += 1;
        }
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), events.message()).await.is_err(), "there is nothing more to tell");

    let words = |bytes: &[u8]| has(bytes, CANARY.as_bytes());
    let mut seen_at_home = false;
    for region in mesh.regions() {
        let metrics = mesh.http(&region, "/metrics").unwrap().1;
        assert!(mesh.stop(&region).success());
        let home = region == "eu_west";
        assert!(!words(metrics.as_bytes()), "in the metrics of {region}");
        assert!(!words(mesh.logs(&region).as_bytes()), "in the log of {region}");
        for (path, content) in files_below(&mesh.data(&region)) {
            let found = words(&content);
            // What is audited is ids, also at home.
            let may = home && !path.starts_with(mesh.data(&region).join("audit"));
            assert!(may || !found, "in {}", path.display());
            seen_at_home |= found;
        }
        // What is compressed too.
        let mut of_eu = 0;
        for (zone, segment) in unpacked_segments(&mesh.data(&region)).await {
            of_eu += usize::from(zone == "eu");
            let found = words(&segment);
            assert!(home || !found, "in a segment of {zone} at {region}");
            seen_at_home |= found;
        }
        assert_eq!(
            of_eu > 0,
            matches!(region.as_str(), "eu_west" | "us_east"),
            "{region} holds {of_eu} segments of eu with something in them"
        );
    }
    assert!(seen_at_home, "the search finds what is there");
    // Of all regions; they have sent the last when they ended.
    assert!(traces.was_sent("CreatePayment") && traces.was_sent("us_east"), "there are traces");
    assert!(!traces.was_sent(CANARY), "in the traces");
}
