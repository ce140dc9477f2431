//! Reads from copies in other regions, whole processes: one's own writes from across an ocean, and what a region can still say
//! while the home is away.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use paymesh_client::{Client, Options, Session};
use paymesh_contract::{
    Fault,
    common::v1::{Position, ReadLevel, ReadOptions},
    wallet::v1::{DepositRequest, GetBalanceRequest, GetBalanceResponse},
};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::support::{FOUR_REGIONS, TestMesh, euro, operator, payment};

/// How long what happens by itself may take on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn local() -> ReadOptions {
    ReadOptions { level: ReadLevel::Local.into(), ..ReadOptions::default() }
}

async fn read(mesh: &TestMesh, via: &str, user_id: u64, read: ReadOptions, within: Duration) -> Result<GetBalanceResponse, Status> {
    let mut request = Request::new(GetBalanceRequest { user_id, read: Some(read) });
    request.set_timeout(within);
    mesh.wallet(via).get_balance(request).await.map(tonic::Response::into_inner)
}

async fn deposit(mesh: &TestMesh, via: &str, user_id: u64, minor: i64) -> Position {
    let request = DepositRequest { request_id: Uuid::now_v7().to_string(), user_id, amount: Some(euro(minor)), reference: String::new() };
    mesh.wallet(via).deposit(request).await.unwrap().into_inner().position.unwrap()
}

fn told(answer: &GetBalanceResponse) -> (i64, &str) {
    (answer.balances.first().map_or(0, |balance| balance.booked_minor_units), &answer.source.as_ref().unwrap().region)
}

/// Waits until the region answers reads of the user by itself.
async fn wait_for_copy(mesh: &TestMesh, via: &str, user: u64) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match read(mesh, via, user, local(), WAIT_MAX).await {
            Ok(answer) if told(&answer).1 == via => return,
            other => assert!(Instant::now() < deadline, "{via} does not answer by itself: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_reads_what_was_written_in_another_and_goes_home_for_what_it_does_not_hold() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    for (user, country) in [(10, "US"), (11, "US"), (20, "DE")] {
        mesh.enrol("us_east", user, country, 100).await;
        if country == "US" {
            wait_for_copy(&mesh, "us_west", user).await;
        }
    }
    for round in 1..=50 {
        let position = deposit(&mesh, "us_east", 10, 1).await;
        let mine = ReadOptions { at_least: vec![position.clone()], ..local() };
        let answer = read(&mesh, "us_west", 10, mine, WAIT_MAX).await.unwrap();
        assert_eq!(told(&answer), (100 + round, "us_west"));
        assert!(answer.position.unwrap().sequence >= position.sequence);
    }
    // Another region's word for it, without a position: everything from before the call.
    for round in 51..=60 {
        deposit(&mesh, "asia_pacific", 10, 1).await;
        let fresh = ReadOptions { max_staleness_ms: Some(0), ..local() };
        assert_eq!(told(&read(&mesh, "us_west", 10, fresh, WAIT_MAX).await.unwrap()), (100 + round, "us_west"));
    }
    let at_home = read(&mesh, "us_east", 10, local(), WAIT_MAX).await.unwrap();
    assert_eq!((told(&at_home), at_home.source.as_ref().unwrap().age_ms), ((160, "us_east"), Some(0)));
    assert_eq!(told(&read(&mesh, "us_west", 10, ReadOptions::default(), WAIT_MAX).await.unwrap()), (160, "us_east"));
    // Nothing of another zone is kept here: an eu user's home is asked.
    assert_eq!(told(&read(&mesh, "us_west", 20, local(), WAIT_MAX).await.unwrap()), (100, "eu_west"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_home_frozen_a_copy_says_what_it_has_and_how_old_and_never_less_than_was_asked() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 10, "US", 100).await;
    mesh.enrol("us_east", 20, "DE", 100).await;
    wait_for_copy(&mesh, "us_west", 10).await;
    let position = deposit(&mesh, "us_east", 10, 5).await;
    read(&mesh, "us_west", 10, ReadOptions { at_least: vec![position.clone()], ..local() }, WAIT_MAX).await.unwrap();
    // Nobody ever asked asia_pacific or eu_west for these users; the copy of the directory knows them.
    for region in ["asia_pacific", "eu_west"] {
        wait_for_directory(&mesh, region).await;
    }
    mesh.signal("us_east", "STOP");
    let frozen = Instant::now();
    tokio::time::sleep(Duration::from_millis(700)).await;
    for region in ["us_west", "asia_pacific"] {
        let started = Instant::now();
        let answer = read(&mesh, region, 10, local(), Duration::from_secs(3)).await.unwrap();
        assert_eq!(told(&answer), (105, region));
        let age = Duration::from_millis(answer.source.unwrap().age_ms.expect("it was current once"));
        assert!(age >= Duration::from_millis(600) && age <= frozen.elapsed() + Duration::from_secs(5), "{age:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    assert_eq!(mesh.balance("eu_west", 20).await, 100, "a user of eu is found although the directory's home is frozen");

    // A bound that it cannot keep is not kept silently.
    for bound in [
        ReadOptions { max_staleness_ms: Some(100), ..local() },
        ReadOptions { at_least: vec![Position { sequence: position.sequence + 1, ..position.clone() }], ..local() },
    ] {
        let started = Instant::now();
        let refused = Fault::from_status(&read(&mesh, "us_west", 10, bound, Duration::from_secs(1)).await.unwrap_err());
        assert!(started.elapsed() > Duration::from_millis(700), "{:?}", started.elapsed());
        assert_eq!((refused.code, refused.reason.as_ref()), (Code::Unavailable, "REPLICA_BEHIND"), "{refused:?}");
        assert!(refused.retry_after.is_some());
        assert!(refused.metadata.contains(&("sequence".to_owned(), position.sequence.to_string())), "{refused:?}");
    }
    // A looser one is.
    let day = ReadOptions { max_staleness_ms: Some(86_400_000), ..local() };
    assert_eq!(told(&read(&mesh, "us_west", 10, day, Duration::from_secs(3)).await.unwrap()), (105, "us_west"));
    mesh.signal("us_east", "CONT");
    let fresh = ReadOptions { max_staleness_ms: Some(0), ..local() };
    let deadline = Instant::now() + WAIT_MAX;
    while let Err(status) = read(&mesh, "us_west", 10, fresh.clone(), Duration::from_secs(2)).await {
        assert!(Instant::now() < deadline && status.code() == Code::Unavailable, "{status:?}");
    }
}

/// Waits until the region's copy of the directory has come to its leader's end.
async fn wait_for_directory(mesh: &TestMesh, region: &str) {
    let head = mesh.heads()["directory/0"];
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let run = mesh.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let copies = status["replicas"].as_array().unwrap();
        let copy = copies.iter().find(|copy| copy["shard"] == "directory/0" && copy["region"] == region).unwrap();
        if copy["projected_sequence"] == head {
            return;
        }
        assert!(Instant::now() < deadline, "{copy}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_directory_is_not_missed_for_users_that_were_never_looked_up() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for user in 1..=20 {
        mesh.enrol("eu_west", user, "DE", 50).await;
    }
    wait_for_directory(&mesh, "us_west").await;
    assert!(mesh.stop("us_east").success());
    for user in 1..=20 {
        assert_eq!(mesh.balance("us_west", user).await, 50);
    }
    mesh.payments("us_west").create_payment(payment(2, 4, 7)).await.unwrap();
    assert_eq!(mesh.balance("asia_pacific", 4).await, 57);
    // Who is in no copy may exist; only the home can say that there is no such user.
    let unknown = read(&mesh, "us_west", 999, local(), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable, "{unknown:?}");
}

/// Writers at one end, readers of their writes at the other, through the client library.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_nobody_reads_less_than_they_wrote() {
    const WRITES: i64 = 60;
    static HERE: AtomicU64 = AtomicU64::new(0);
    let mesh = TestMesh::started(FOUR_REGIONS);
    for user in 1..=6 {
        mesh.enrol("us_east", user, "US", 0).await;
        wait_for_copy(&mesh, "us_west", user).await;
    }
    let trust = operator(&mesh.credentials().unwrap());
    let client = |region: &str| {
        let options = Options { trust: Some(trust.clone()), ..Options::default() };
        Client::connect([format!("https://127.0.0.1:{}", mesh.grpc_port(region))], options).unwrap()
    };
    let tasks: Vec<_> = (1..=6)
        .map(|user| {
            let (east, west) = (client("us_east"), client("us_west"));
            tokio::spawn(async move {
                let session = Session::new();
                for sum in 1..=WRITES {
                    let request = DepositRequest { user_id: user, amount: Some(euro(1)), ..DepositRequest::default() };
                    east.call(&session, request).await.unwrap();
                    // As if another process went on in the other region.
                    let handed_over: Session = session.token().parse().unwrap();
                    let request = GetBalanceRequest { user_id: user, ..GetBalanceRequest::default() };
                    let answer = west.call(&handed_over, request).await.unwrap();
                    assert!(told(&answer).0 >= sum, "user {user} wrote {sum} and reads {}", told(&answer).0);
                    HERE.fetch_add(u64::from(told(&answer).1 == "us_west"), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // Nearly all; one that the copy could not keep up with within its share of the time went home.
    assert!(HERE.load(Ordering::Relaxed) > 300, "{HERE:?} of 360 were answered by us_west");
}
