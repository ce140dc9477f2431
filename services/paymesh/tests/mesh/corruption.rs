//! A flipped byte in a journal on the disk is found at start; its shard refuses, the others serve.

use std::time::{Duration, Instant};

use paymesh_contract::{Fault, wallet::v1::GetBalanceRequest};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{ONE_REGION, TestMesh, payment};

const REGION: &str = "eu_west";

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_makes_its_shard_refuse_naming_shard_and_sequence_and_others_serve() {
    let mut mesh = TestMesh::started(ONE_REGION);
    for user in [10, 11, 12, 13] {
        mesh.enrol(REGION, user, "DE", 1_000).await;
    }
    for _ in 0..10 {
        for (payer, payee) in [(10, 12), (11, 13)] {
            mesh.payments(REGION).create_payment(payment(payer, payee, 1)).await.unwrap();
        }
    }
    assert!(mesh.stop(REGION).success());

    // The journal of the shard of the odd users: eu/1.
    let path = mesh.data(REGION).join("journal.sqlite");
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    let row = sqlx::query(
        "SELECT slot, first, last, payload FROM segments JOIN shards USING (slot) WHERE zone = 'eu' AND shard = 1
         ORDER BY first LIMIT 1 OFFSET 3",
    )
    .fetch_one(&mut file)
    .await
    .unwrap();
    let (slot, first, last, mut payload): (i64, i64, i64, Vec<u8>) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let middle = payload.len() / 2;
    payload[middle] ^= 0x10;
    let flip = sqlx::query("UPDATE segments SET payload = ? WHERE slot = ? AND first = ?").bind(payload).bind(slot).bind(first);
    flip.execute(&mut file).await.unwrap();
    file.close().await.unwrap();

    // It is not ready, and never will be; it answers all the same.
    mesh.spawn(REGION);
    let deadline = Instant::now() + Duration::from_secs(60);
    let report = loop {
        let status = mesh.run(&["status", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        // Shards are opened one beside the other.
        if report["shards"].as_array().unwrap().iter().all(|shard| shard["state"] == "refusing" || shard["state"] == "serving") {
            assert_eq!(status.code, 1, "{status:?}");
            break report;
        }
        assert!(Instant::now() < deadline, "{status:?}\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let shard = |name: &str| report["shards"].as_array().unwrap().iter().find(|shard| shard["shard"] == name).cloned().unwrap();
    assert_eq!(shard("eu/1")["state"], "refusing", "{report}");
    let problem = shard("eu/1")["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("eu/1"), "{problem}");
    let named = (first..=last).any(|sequence| problem.split(|c: char| !c.is_ascii_digit()).any(|number| number == sequence.to_string()));
    assert!(named, "{problem} names a sequence number of {first} to {last}");
    mesh.wait_logged(REGION, "eu/1");
    assert_eq!(shard("eu/0")["state"], "serving", "{report}");

    let refused = mesh.wallet(REGION).get_balance(GetBalanceRequest { user_id: 11, read: None }).await.unwrap_err();
    assert_eq!((refused.code(), &*Fault::from_status(&refused).reason), (Code::Unavailable, "SHARD_NOT_SERVING"));
    mesh.payments(REGION).create_payment(payment(10, 12, 1)).await.unwrap();
    assert_eq!(mesh.balance(REGION, 10).await, 1_000 - 11);
    let verify = mesh.run(&["verify"]);
    assert_eq!(verify.code, 1, "a journal that is damaged is a finding, and not a shard that could not be asked: {verify:?}");
    assert!(verify.stdout.contains("WRONG"), "{verify:?}");
    assert!(verify.stdout.contains("eu/1"), "{verify:?}");
}

/// Waits until the node's health is so.
async fn wait_for_health(mesh: &TestMesh, wanted: impl Fn(u16, &serde_json::Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = mesh.http(REGION, "/health").map(|(status, health)| (status, serde_json::from_str(&health).unwrap()));
        if found.as_ref().is_some_and(|(status, health)| wanted(*status, health)) {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}\n{}", mesh.logs(REGION));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Of a load balancer's two questions, one whether everything works, the other whether to send calls here.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_every_shard_refuses_is_not_ready() {
    let mut mesh = TestMesh::started(ONE_REGION);
    assert!(mesh.stop(REGION).success());
    // As if another version had made the tables.
    let path = mesh.data(REGION).join("journal.sqlite");
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    assert!(sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&mut file).await.unwrap().rows_affected() > 0);
    file.close().await.unwrap();
    mesh.spawn(REGION);
    wait_for_health(&mesh, |status, health| {
        let refuse = |shard: &str| health["checks"][format!("shard {shard}")]["status"] == "unhealthy";
        status == 503 && ["eu/0", "eu/1", "directory/0"].into_iter().all(refuse) && health["checks"]["node"]["status"] == "healthy"
    })
    .await;
    let (status, health) = mesh.http(REGION, "/health").unwrap();
    assert!(status == 503 && health.contains("\"ready\":false"), "{health}");
    assert_eq!(mesh.http(REGION, "/ready").unwrap().0, 503);
    let deadline = Instant::now() + Duration::from_secs(10);
    while HealthClient::new(mesh.channel(REGION)).check(HealthCheckRequest::default()).await.unwrap().into_inner().status()
        != ServingStatus::NotServing
    {
        assert!(Instant::now() < deadline, "gRPC's health service says that it serves");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = Fault::from_status(&mesh.payments(REGION).create_payment(payment(1, 2, 1)).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_ref()), (Code::Unavailable, "SHARD_NOT_SERVING"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_deleted_under_a_running_node_shows_in_its_health() {
    let mesh = TestMesh::started(ONE_REGION);
    mesh.enrol(REGION, 10, "DE", 1_000).await;
    wait_for_health(&mesh, |status, _| status == 200).await;
    std::fs::remove_file(mesh.data(REGION).join("eu-0.tables.sqlite")).unwrap();
    wait_for_health(&mesh, |status, health| {
        let why = health["checks"]["files"]["error"].as_str().unwrap_or_default();
        status == 503 && why.contains("eu-0.tables.sqlite was deleted under the running node")
    })
    .await;
    assert_eq!(mesh.http(REGION, "/ready").unwrap().0, 200, "it goes on");
    assert_eq!(mesh.balance(REGION, 10).await, 1_000);
}
