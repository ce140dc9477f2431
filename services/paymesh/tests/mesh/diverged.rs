//! Leaders that go on from an old backup: who took money from what they lost does not follow them, and an operator's way back
//! (docs/incidents.md).

use std::{
    fs,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    events::v1::{SubscribeRequest, event_service_client::EventServiceClient},
    payments::v1::{GetPaymentRequest, GetRequestOutcomeRequest, PaymentStatus},
    replication::v1::{Replica, ReplicaState},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::{
    lost::{copy, until_balance},
    replicas::{WAIT_MAX, is_current, stored, wait_for},
    support::{FOUR_REGIONS, TestMesh, payment},
};

/// Of the second history: so many payments, of so much each, from 10 to 20.
const SECOND_PAYMENTS: i64 = 20;
const SECOND_MINOR: i64 = 7;

/// A mesh in which so many payments of so much from 10 to 20 were made and taken in since us_east's `backup` was made.
async fn paid(payments: i64, minor: i64) -> TestMesh {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for (user, country) in [(10, "US"), (12, "US"), (20, "DE")] {
        mesh.enrol("us_east", user, country, 1_000).await;
    }
    assert!(mesh.stop("us_east").success());
    copy(&mesh.data("us_east"), &mesh.data("backup"));
    mesh.start("us_east");
    for _ in 0..payments {
        let made = mesh.payments("us_east").create_payment(payment(10, 20, minor)).await.unwrap().into_inner().payment.unwrap();
        assert_ne!(made.status(), PaymentStatus::Declined);
    }
    until_balance(&mesh, "us_east", 20, 1_000 + payments * minor).await;
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific", "eu_west"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }
    mesh
}

/// us_east goes on from its `backup`: an operator has given up what came after it, or no copy could be asked. What it had is in `newest`.
fn put_back(mesh: &mut TestMesh) {
    assert!(mesh.stop("us_east").success());
    let data = mesh.data("us_east");
    copy(&data, &mesh.data("newest"));
    copy(&mesh.data("backup"), &data);
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.trust_own_journals(false);
}

/// us_east has the history again that it had before [`put_back`]. The other copies have the second one, so it is to trust its own journals
/// for once.
fn give_back(mesh: &mut TestMesh) {
    assert!(mesh.stop("us_east").success());
    let data = mesh.data("us_east");
    fs::rename(&data, mesh.data("second")).unwrap();
    copy(&mesh.data("newest"), &data);
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.trust_own_journals(false);
}

/// Payments of the second history; gives back the first one's id.
async fn pay_again(mesh: &TestMesh, times: i64) -> String {
    let mut first = None;
    for _ in 0..times {
        let made = mesh.payments("us_east").create_payment(payment(10, 20, SECOND_MINOR)).await.unwrap();
        first.get_or_insert(made.into_inner().payment.unwrap().payment_id);
    }
    first.unwrap()
}

/// A mesh of which us_east went on from a backup that lacks a payment of 100 from 10 to 20, which eu_west had taken the money of, and
/// the first payment of the second history: it has the number of that one.
async fn parted() -> (TestMesh, String) {
    let mut mesh = paid(1, 100).await;
    put_back(&mut mesh);
    let first = pay_again(&mesh, SECOND_PAYMENTS).await;
    (mesh, first)
}

/// Waits until eu_west's copy of global/0 takes in nothing more, for that reason.
async fn until_stopped(mesh: &TestMesh, why: &str) -> Replica {
    let stopped = wait_for(mesh, "eu_west", "global/0", |replica| replica.state() == ReplicaState::Stopped).await;
    assert!(stopped.problem.contains(why), "{stopped:?}");
    stopped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_put_back_is_not_followed_by_who_took_money_from_it() {
    let (mut mesh, first) = parted().await;
    let stopped = until_stopped(&mesh, "not a copy of this journal").await;
    // Who looks at both may see the one a moment before the other.
    let deadline = Instant::now() + WAIT_MAX;
    while !mesh.http("eu_west", "/health").is_some_and(|(status, health)| status == 503 && health.contains(&stopped.problem)) {
        assert!(Instant::now() < deadline, "{:?}", mesh.http("eu_west", "/health"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(mesh.balance("eu_west", 20).await, 1_100, "nothing is taken from the other history");
    // What eu_west acknowledged of the one does not complete the payments of the other, and the leader says why.
    let deadline = Instant::now() + WAIT_MAX;
    let doubted = |body: &str| body.contains("inbox global/0 from eu/0") && body.contains("of another history of global/0 than this one");
    while !mesh.http("us_east", "/health").is_some_and(|(status, health)| status == 503 && doubted(&health)) {
        assert!(Instant::now() < deadline, "{:?}", mesh.http("us_east", "/health"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = mesh.run(&["status"]);
    assert!(shown.code == 1 && shown.stdout.contains("global/0 from eu/0: eu/0 has taken in entry"), "{shown:?}");
    let metrics = mesh.http("us_east", "/metrics").unwrap().1;
    assert!(metrics.lines().any(|line| line.starts_with("paymesh_inbox_disbelieved_total") && !line.ends_with(" 0")), "{metrics}");
    let asked = GetPaymentRequest { payment_id: first, read: None };
    let found = mesh.payments("us_west").get_payment(asked).await.unwrap().into_inner().payment.unwrap();
    assert_eq!(found.status(), PaymentStatus::InTransit, "{found:?}");
    // It is said which history counts: the copy that an operator has to look at does not stop its leader for that.
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    mesh.payments("us_east").create_payment(payment(10, 20, 7)).await.unwrap();
    // A restart does not make it another.
    mesh.kill("eu_west");
    mesh.start("eu_west");
    until_stopped(&mesh, "global-0.diverged").await;
    assert_eq!(mesh.balance("eu_west", 20).await, 1_100, "nothing is taken from the other history");
    // The other shards go on, and so does who only reads.
    wait_for(&mesh, "eu_west", "global/1", |replica| replica.state() == ReplicaState::Streaming).await;
    let head = mesh.heads()["global/0"];
    wait_for(&mesh, "us_west", "global/0", is_current(head)).await;
    assert_eq!(stored(&mesh, "us_west", ("global", 0)).await, stored(&mesh, "us_east", ("global", 0)).await);
}

/// Has eu_west look at its copy again, as an operator does.
fn look_again(mesh: &mut TestMesh) {
    assert!(mesh.stop("eu_west").success());
    fs::remove_file(mesh.data("eu_west").join("global-0.diverged")).unwrap();
    mesh.start("eu_west");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_diverged_goes_on_once_its_leader_has_its_history_again() {
    let (mut mesh, _) = parted().await;
    until_stopped(&mesh, "not a copy of this journal").await;
    // What the second history does besides: one more payment, and it takes in money of a user of eu.
    let given_up = payment(10, 20, SECOND_MINOR);
    mesh.payments("us_west").create_payment(given_up.clone()).await.unwrap();
    mesh.payments("us_west").create_payment(payment(20, 10, 50)).await.unwrap();
    until_balance(&mesh, "us_east", 10, 1_000 - (SECOND_PAYMENTS + 1) * SECOND_MINOR + 50).await;

    // As long as the leader has not, removing the file does nothing.
    look_again(&mut mesh);
    until_stopped(&mesh, "not a copy of this journal").await;
    let deadline = Instant::now() + WAIT_MAX;
    while !mesh.data("eu_west").join("global-0.diverged").exists() {
        assert!(Instant::now() < deadline, "it is noted again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let verified = mesh.run(&["verify"]);
    let differ = verified.stdout.lines().any(|line| line.contains("global/0 -> eu/0") && line.contains("they differ by"));
    assert!(verified.code == 1 && differ, "what was taken is not what was sent: {verified:?}");

    give_back(&mut mesh);
    look_again(&mut mesh);
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific", "eu_west"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");

    // What eu sent is taken in again, once. What the second history acknowledged is gone, and is done when its callers ask again.
    until_balance(&mesh, "us_west", 10, 1_000 - 100 + 50).await;
    assert_eq!(mesh.balance("us_west", 20).await, 1_000 + 100 - 50);
    let asked = GetRequestOutcomeRequest { user_id: 10, request_id: given_up.request_id.clone() };
    let unknown = Fault::from_status(&mesh.payments("us_west").get_request_outcome(asked).await.unwrap_err());
    assert_eq!(&*unknown.reason, "REQUEST_NOT_FOUND", "{unknown}");
    for _ in 0..2 {
        mesh.payments("us_west").create_payment(given_up.clone()).await.unwrap();
    }
    until_balance(&mesh, "us_west", 20, 1_000 + 100 - 50 + SECOND_MINOR).await;
    assert_eq!(mesh.balance("us_west", 10).await, 1_000 - 100 + 50 - SECOND_MINOR);
    mesh.heads();
    mesh.assert_books();

    // Which requests those are is in the journal that was given up, read where nobody of the mesh hears of it.
    let mut apart = TestMesh::new(FOUR_REGIONS);
    copy(&mesh.data("second"), &apart.data("us_east"));
    apart.trust_own_journals(true);
    apart.start("us_east");
    let mut client = EventServiceClient::new(apart.channel("us_east"));
    let request = SubscribeRequest { zone: "global".to_owned(), shard: 0, from_sequence: 1, read: None };
    let mut events = client.subscribe(request).await.unwrap().into_inner();
    let id = Uuid::parse_str(&given_up.request_id).unwrap();
    let found = async {
        loop {
            let message = events.message().await.unwrap().unwrap();
            if message.events.iter().any(|event| event.open.as_ref().is_some_and(|open| open.request_id == id.as_bytes())) {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, found).await.expect("the request is listed");
}

/// What there is of eu_west's copy of global/0 is not what was written.
async fn damage(mesh: &TestMesh) {
    let options = SqliteConnectOptions::new().filename(mesh.data("eu_west").join("journal.sqlite"));
    let mut file = SqliteConnection::connect_with(&options).await.unwrap();
    let damage = "UPDATE segments SET payload = zeroblob(length(payload)) WHERE slot = (SELECT slot FROM shards WHERE zone = 'global' AND shard = 0)";
    assert!(sqlx::query(damage).execute(&mut file).await.unwrap().rows_affected() > 1);
    file.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_stopped_for_the_end_of_the_one_set_aside_goes_on_once_its_leader_has_that_history_again() {
    let mut mesh = paid(5, 20).await;
    assert!(mesh.stop("eu_west").success());
    damage(&mesh).await;
    put_back(&mut mesh);
    pay_again(&mesh, 1).await;
    // The damaged one is set aside, and what is made in its place is of the second history, which is shorter.
    mesh.start("eu_west");
    let stopped = until_stopped(&mesh, "of the copy that was set aside: it has lost its end").await;
    assert_eq!(stopped.set_aside, 1, "{stopped:?}");
    assert!(!stored(&mesh, "eu_west", ("global", 0)).await.is_empty(), "up to there it is stored");
    // Longer than the first one, and started again.
    pay_again(&mesh, SECOND_PAYMENTS).await;
    assert!(mesh.stop("eu_west").success());
    mesh.start("eu_west");
    until_stopped(&mesh, "another history than the copy that was set aside, from which money was taken").await;
    assert_eq!(mesh.balance("eu_west", 20).await, 1_100, "nothing is taken from the other history");
    assert_eq!(mesh.run(&["status"]).code, 1);

    give_back(&mut mesh);
    assert!(mesh.stop("eu_west").success());
    mesh.start("eu_west");
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific", "eu_west"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }
    assert!(mesh.stop("us_east").success());
    mesh.start("us_east");
    mesh.payments("us_west").create_payment(payment(10, 20, 1)).await.unwrap();
    until_balance(&mesh, "us_west", 20, 1_101).await;
    assert_eq!(mesh.balance("us_west", 10).await, 1_000 - 101);
    mesh.heads();
    mesh.assert_books();
    assert_eq!(mesh.run(&["status"]).code, 0);
}
