//! Leaders whose data is gone, or older than what they acknowledged: they lead nothing that a copy has more of.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    replication::v1::{GetReplicationRequest, replication_service_client::ReplicationServiceClient},
    wallet::v1::GetBalanceRequest,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::{FOUR_REGIONS, TestMesh, payment};

const WAIT_MAX: Duration = Duration::from_secs(60);
/// What a node may take longer to be ready because it asks others first. It would take two seconds if it did not hear from them, and ten
/// where it has nothing.
const ASKING_MAX: Duration = Duration::from_millis(1_500);

/// Users 10 and 12 of global/0 and 20 of eu/0, each with so much.
async fn enrol(mesh: &TestMesh) {
    for (user, country) in [(10, "US"), (12, "US"), (20, "DE")] {
        mesh.enrol("us_east", user, country, 1_000).await;
    }
}

pub(crate) async fn until_balance(mesh: &TestMesh, via: &str, user: u64, minor: i64) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let read = mesh.wallet(via).get_balance(GetBalanceRequest { user_id: user, read: None }).await;
        if read.as_ref().is_ok_and(|read| read.get_ref().balances.iter().any(|balance| balance.booked_minor_units == minor)) {
            return;
        }
        assert!(Instant::now() < deadline, "user {user} has not {minor}: {read:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the region's copy of the shard has everything, and says what that is.
async fn until_copied(mesh: &TestMesh, region: &str, shard: &str) -> u64 {
    let head = mesh.heads()[shard];
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let mut client = ReplicationServiceClient::new(mesh.channel(region));
        let replicas = client.get_replication(GetReplicationRequest {}).await.unwrap().into_inner().replicas;
        let named = |name: &paymesh_contract::common::v1::ShardRef| format!("{}/{}", name.zone, name.shard) == shard;
        let replica = replicas.iter().find(|replica| replica.shard.as_ref().is_some_and(named)).unwrap();
        if replica.stored_sequence == head {
            return head;
        }
        assert!(Instant::now() < deadline, "{replica:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A shard as `paymesh status` has it.
fn status(mesh: &TestMesh, shard: &str) -> Value {
    let run = mesh.run(&["status", "--json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    report["shards"].as_array().unwrap().iter().find(|each| each["shard"] == shard).cloned().unwrap()
}

fn assert_refused(status: &Status, words: &[&str]) {
    let fault = Fault::from_status(status);
    assert_eq!((fault.code, &*fault.reason), (Code::Unavailable, "SHARD_HISTORY_MISSING"), "{status:?}");
    assert!(fault.retry_after.is_some() && words.iter().all(|word| fault.message.contains(word)), "{status:?}");
}

fn gauge(mesh: &TestMesh, region: &str, name: &str, shard: &str) -> Option<String> {
    let metrics = mesh.http(region, "/metrics").unwrap().1;
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(shard))?;
    line.rsplit(' ').next().map(str::to_owned)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_data_is_gone_takes_no_payments_until_it_is_back() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    enrol(&mesh).await;
    mesh.payments("us_east").create_payment(payment(10, 20, 100)).await.unwrap();
    until_balance(&mesh, "eu_west", 20, 1_100).await;
    let head = until_copied(&mesh, "us_east", "eu/0").await;
    mesh.kill("eu_west");
    let (data, away) = (mesh.data("eu_west"), mesh.data("away"));
    fs::rename(&data, &away).unwrap();

    // Once, and again: an empty directory does not become the data by being there.
    for _ in 0..2 {
        mesh.start("eu_west");
        let has = format!("us_east has its history up to entry {head}");
        let words = ["eu/0", "is empty", &has, "data directory"];
        assert_refused(&mesh.payments("us_west").create_payment(payment(20, 10, 5)).await.unwrap_err(), &words);
        assert_refused(&mesh.wallet("eu_west").get_balance(GetBalanceRequest { user_id: 20, read: None }).await.unwrap_err(), &words);
        let shard = status(&mesh, "eu/0");
        assert!(shard["state"] == "refusing" && shard["problem"].as_str().unwrap().contains(&has), "{shard}");
        let shown = mesh.run(&["status"]);
        assert!(shown.code == 1 && shown.stdout.contains("eu/0 does not serve: its journal here is empty"), "{shown:?}");
        let verified = mesh.run(&["verify"]);
        assert!(verified.code == 1 && verified.stdout.contains("WRONG  eu/0"), "{verified:?}");
        let (code, health) = mesh.http("eu_west", "/health").unwrap();
        assert!(code == 503 && health.contains(&has), "{code} {health}");
        assert_eq!(gauge(&mesh, "eu_west", "paymesh_shard_history_missing", "eu/0").as_deref(), Some("1"));
        mesh.wait_logged("eu_west", "shard refuses to serve");
        // It has never had an entry, and others have nothing to do with it.
        assert_eq!(status(&mesh, "eu/1")["state"], "serving");
        assert_eq!(gauge(&mesh, "eu_west", "paymesh_shard_history_missing", "eu/1").as_deref(), Some("0"));
        mesh.payments("eu_west").create_payment(payment(10, 12, 1)).await.unwrap();
        assert!(mesh.stop("eu_west").success());
    }
    mesh.payments("us_west").create_payment(payment(10, 20, 7)).await.unwrap();

    fs::remove_dir_all(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    mesh.start("eu_west");
    until_balance(&mesh, "us_west", 20, 1_107).await;
    assert_eq!(gauge(&mesh, "eu_west", "paymesh_shard_history_missing", "eu/0").as_deref(), Some("0"));
    assert_eq!(mesh.balance("us_west", 10).await, 1_000 - 100 - 2 - 7);
    mesh.heads();
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_takes_no_payments_and_the_newest_data_does() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    enrol(&mesh).await;
    let before = until_copied(&mesh, "us_west", "global/0").await;
    assert!(mesh.stop("us_east").success());
    let (data, backup, newest) = (mesh.data("us_east"), mesh.data("backup"), mesh.data("newest"));
    copy(&data, &backup);
    mesh.start("us_east");
    mesh.payments("us_west").create_payment(payment(10, 12, 5)).await.unwrap();
    let head = until_copied(&mesh, "us_west", "global/0").await;
    assert!(head > before);
    assert!(mesh.stop("us_east").success());
    copy(&data, &newest);

    copy(&backup, &data);
    mesh.start("us_east");
    // Whichever of those who follow it answers first.
    let words = [format!("ends at entry {before}"), format!(" has its history up to entry {head}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_refused(&mesh.payments("us_west").create_payment(payment(10, 12, 5)).await.unwrap_err(), &words);
    // What a copy has is read there.
    let local =
        paymesh_contract::common::v1::ReadOptions { level: paymesh_contract::common::v1::ReadLevel::Local.into(), ..Default::default() };
    let read = GetBalanceRequest { user_id: 12, read: Some(local) };
    let balances = mesh.wallet("us_west").get_balance(read).await.unwrap().into_inner().balances;
    assert_eq!(balances[0].booked_minor_units, 1_005);
    // Nothing was added to the directory since.
    assert_eq!(status(&mesh, "directory/0")["state"], "serving");
    assert!(mesh.stop("us_east").success());

    copy(&newest, &data);
    mesh.start("us_east");
    mesh.payments("us_west").create_payment(payment(10, 12, 5)).await.unwrap();
    until_balance(&mesh, "us_west", 12, 1_010).await;
    mesh.heads();
    mesh.assert_books();
}

/// What an operator can do when the data does not come back: the region with the whole copies leads from now on.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_whole_copies_goes_on_where_a_leader_has_lost_its_data() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    enrol(&mesh).await;
    mesh.payments("us_east").create_payment(payment(10, 20, 100)).await.unwrap();
    mesh.payments("us_east").create_payment(payment(20, 12, 30)).await.unwrap();
    until_balance(&mesh, "us_east", 12, 1_030).await;
    until_balance(&mesh, "us_east", 20, 1_070).await;
    for shard in ["directory/0", "global/0", "global/1"] {
        until_copied(&mesh, "us_west", shard).await;
    }
    for region in mesh.regions() {
        assert!(mesh.stop(&region).success());
    }
    fs::remove_dir_all(mesh.data("us_east")).unwrap();
    let config = mesh.config().join("regions.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let (primary, other) = (
        "{primary: true, services: [payment_processor], database: primary_master}",
        "{primary: false, services: [payment_processor], database: read_replica}",
    );
    let moved = text
        .replace(&format!("us_east: {primary}"), &format!("us_east: {other}"))
        .replace(&format!("us_west: {other}"), &format!("us_west: {primary}"));
    assert_ne!(moved, text);
    fs::write(&config, moved).unwrap();
    mesh.start_all();
    assert_eq!((mesh.balance("us_east", 10).await, mesh.balance("asia_pacific", 12).await), (900, 1_030));
    mesh.payments("us_east").create_payment(payment(10, 20, 5)).await.unwrap();
    mesh.payments("eu_west").create_payment(payment(20, 10, 1)).await.unwrap();
    until_balance(&mesh, "us_east", 20, 1_074).await;
    until_balance(&mesh, "eu_west", 10, 896).await;
    for region in ["us_east", "asia_pacific", "eu_west"] {
        until_copied(&mesh, region, "global/0").await;
    }
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_journal_waits_for_all_who_follow_it_and_says_so_unless_it_is_told_not_to() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    mesh.start("us_east");
    let waits = |mesh: &TestMesh, shard: &str, names: &[&str]| {
        let shard = status(mesh, shard);
        assert_eq!(shard["state"], "starting", "{shard}");
        let problem = shard["problem"].as_str().unwrap();
        assert!(problem.contains("is empty") && names.iter().all(|name| problem.contains(&format!("{name} does not answer"))), "{problem}");
    };
    waits(&mesh, "global/0", &["us_west", "asia_pacific", "eu_west"]);
    assert!(mesh.run(&["status"]).stdout.contains("global/0 does not serve yet: its journal here is empty"));
    assert_eq!(gauge(&mesh, "us_east", "paymesh_shard_awaits_copies", "global/0").as_deref(), Some("1"));
    assert_eq!(mesh.http("us_east", "/health").unwrap().0, 503);
    let refused = mesh.wallet("us_east").get_balance(GetBalanceRequest { user_id: 10, read: None }).await.unwrap_err();
    let fault = Fault::from_status(&refused);
    assert_eq!((fault.code, &*fault.reason), (Code::Unavailable, "SHARD_NOT_SERVING"), "{fault}");
    for region in ["us_west", "asia_pacific"] {
        mesh.start(region);
    }
    waits(&mesh, "global/0", &["eu_west"]);
    // The last makes it whole; it waits for us_east, which has been there all the time.
    mesh.start("eu_west");
    let deadline = Instant::now() + WAIT_MAX;
    while status(&mesh, "global/0")["state"] != "serving" || mesh.http("us_east", "/health").unwrap().0 != 200 {
        assert!(Instant::now() < deadline, "{}", mesh.logs("us_east"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gauge(&mesh, "us_east", "paymesh_shard_awaits_copies", "global/0").as_deref(), Some("0"));
    enrol(&mesh).await;

    // One that has its data waits for nobody for long.
    for region in mesh.regions() {
        assert!(mesh.stop(&region).success());
    }
    mesh.start("us_east");
    assert_eq!(mesh.balance("us_east", 10).await, 1_000);
    mesh.wait_logged("us_east", "a shard is led before all who follow it have said what they have");
    let mut alone = TestMesh::new(FOUR_REGIONS);
    alone.trust_own_journals(true);
    alone.start("us_east");
    alone.enrol("us_east", 10, "US", 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_are_ready_about_as_soon_as_those_that_do_not_ask() {
    // With nothing, and with what they have then. The best of some, as other tests keep the machine busy.
    let mut best = [[Duration::MAX; 2]; 2];
    for _ in 0..3 {
        for (best, trusting) in best.iter_mut().zip([true, false]) {
            let mut mesh = TestMesh::new(FOUR_REGIONS);
            mesh.trust_own_journals(trusting);
            for best in best {
                let began = Instant::now();
                mesh.start_all();
                *best = (*best).min(began.elapsed());
                // All of them take calls, at once.
                if mesh.heads()["global/0"] == 0 {
                    enrol(&mesh).await;
                }
                assert_eq!(mesh.balance("us_west", 20).await, 1_000);
                for region in mesh.regions() {
                    assert!(mesh.stop(&region).success());
                }
            }
        }
    }
    let [trusting, asking] = best;
    report(trusting, asking);
    for (asking, trusting) in asking.iter().zip(trusting) {
        assert!(*asking < trusting + ASKING_MAX, "{best:?}");
    }
}

#[allow(clippy::print_stdout, reason = "shown with --no-capture")]
fn report([fresh, again]: [Duration; 2], [fresh_asking, again_asking]: [Duration; 2]) {
    println!("a fresh mesh of four regions is ready after {fresh_asking:?}, and without asking after {fresh:?};");
    println!("started again with its data, after {again_asking:?} and {again:?}");
}
