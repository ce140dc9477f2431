//! Leaders that go on from an old backup: who took money from what they lost does not follow them, and an operator's way back
//! (docs/incidents.md).

use std::{
    fs,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    events::v1::{SubscribeRequest, event_service_client::EventServiceClient},
    payments::v1::{GetRequestOutcomeRequest, PaymentStatus},
    replication::v1::{Replica, ReplicaState},
};
use uuid::Uuid;

use crate::{
    lost::{copy, until_balance},
    replicas::{WAIT_MAX, is_current, stored, wait_for},
    support::{FOUR_REGIONS, TestMesh, payment},
};

/// Of the second history: so many payments, of so much each, from 10 to 20.
const SECOND_PAYMENTS: i64 = 20;
const SECOND_MINOR: i64 = 7;

/// A mesh of which us_east went on from a backup that lacks a payment of 100 from 10 to 20, which eu_west had taken the money of. What
/// us_east had before is in `newest`.
async fn parted() -> TestMesh {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for (user, country) in [(10, "US"), (12, "US"), (20, "DE")] {
        mesh.enrol("us_east", user, country, 1_000).await;
    }
    assert!(mesh.stop("us_east").success());
    let (data, backup, newest) = (mesh.data("us_east"), mesh.data("backup"), mesh.data("newest"));
    copy(&data, &backup);
    mesh.start("us_east");
    let made = mesh.payments("us_east").create_payment(payment(10, 20, 100)).await.unwrap().into_inner().payment.unwrap();
    assert_ne!(made.status(), PaymentStatus::Declined);
    until_balance(&mesh, "us_east", 20, 1_100).await;
    let head = mesh.heads()["global/0"];
    for region in ["us_west", "asia_pacific", "eu_west"] {
        wait_for(&mesh, region, "global/0", is_current(head)).await;
    }

    // The payment of 100 never happened there now, and its number is another's.
    assert!(mesh.stop("us_east").success());
    copy(&data, &newest);
    copy(&backup, &data);
    // An operator has given it up, or no copy could be asked.
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.trust_own_journals(false);
    for _ in 0..SECOND_PAYMENTS {
        mesh.payments("us_east").create_payment(payment(10, 20, SECOND_MINOR)).await.unwrap();
    }
    mesh
}

/// Waits until eu_west's copy of global/0 takes in nothing more, for that reason.
async fn until_stopped(mesh: &TestMesh, why: &str) -> Replica {
    let stopped = wait_for(mesh, "eu_west", "global/0", |replica| replica.state() == ReplicaState::Stopped).await;
    assert!(stopped.problem.contains(why), "{stopped:?}");
    stopped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_put_back_is_not_followed_by_who_took_money_from_it() {
    let mut mesh = parted().await;
    let stopped = until_stopped(&mesh, "not a copy of this journal").await;
    // Who looks at both may see the one a moment before the other.
    let deadline = Instant::now() + WAIT_MAX;
    while !mesh.http("eu_west", "/health").is_some_and(|(status, health)| status == 503 && health.contains(&stopped.problem)) {
        assert!(Instant::now() < deadline, "{:?}", mesh.http("eu_west", "/health"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(mesh.balance("eu_west", 20).await, 1_100, "nothing is taken from the other history");
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
    let mut mesh = parted().await;
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

    // It has: the other copies have the second history, so it is to trust its own journals for once.
    assert!(mesh.stop("us_east").success());
    let (data, newest, second) = (mesh.data("us_east"), mesh.data("newest"), mesh.data("second"));
    fs::rename(&data, &second).unwrap();
    copy(&newest, &data);
    mesh.trust_own_journals(true);
    mesh.start("us_east");
    mesh.trust_own_journals(false);
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
    copy(&second, &apart.data("us_east"));
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
