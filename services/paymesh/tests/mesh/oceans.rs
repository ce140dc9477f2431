//! Money between users of different regions and zones: it arrives, or it comes back, once.

use std::{
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use paymesh_contract::{
    payments::v1::{GetPaymentRequest, Payment, PaymentStatus, RefundPaymentRequest},
    wallet::v1::{CloseAccountRequest, GetStatementRequest},
};
use uuid::Uuid;

use crate::support::{FOUR_REGIONS, TestMesh, payment, signal, wait_within};

/// How long money may take on a machine that is busy with other tests.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

async fn get(mesh: &TestMesh, via: &str, payment_id: &str) -> Payment {
    let request = GetPaymentRequest { payment_id: payment_id.to_owned(), read: None };
    mesh.payments(via).get_payment(request).await.unwrap().into_inner().payment.unwrap()
}

/// Waits until the payment has that status.
async fn becomes(mesh: &TestMesh, via: &str, payment_id: &str, status: PaymentStatus) -> Payment {
    let deadline = Instant::now() + ARRIVAL_MAX;
    loop {
        let payment = get(mesh, via, payment_id).await;
        if payment.status() == status {
            return payment;
        }
        assert!(Instant::now() < deadline, "{payment_id} is {:?}, not {status:?}, after {ARRIVAL_MAX:?}", payment.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pay(mesh: &TestMesh, via: &str, payer: u64, payee: u64, minor: i64) -> String {
    let answer = mesh.payments(via).create_payment(payment(payer, payee, minor)).await.unwrap().into_inner();
    let made = answer.payment.unwrap();
    assert_ne!(made.status(), PaymentStatus::Declined, "{made:?}");
    made.payment_id
}

/// Proves the books, with everything arrived.
fn nothing_in_transit(mesh: &TestMesh) {
    mesh.heads();
    let report = mesh.assert_books();
    let ways = report["in_transit"].as_array().unwrap();
    assert!(ways.len() >= 4, "{report}");
    assert!(ways.iter().all(|way| way["in_transit_minor_units"] == 0), "{report}");
}

async fn statement(mesh: &TestMesh, via: &str, user: u64) -> Vec<(i64, i64)> {
    let request = GetStatementRequest { user_id: user, currency_code: "EUR".to_owned(), ..GetStatementRequest::default() };
    let lines = mesh.wallet(via).get_statement(request).await.unwrap().into_inner().lines;
    lines.iter().map(|line| (line.amount_minor_units, line.balance_minor_units)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn money_crosses_zones_once_and_comes_back_when_it_cannot_stay() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    for (user, country, minor) in [(1, "DE", 1_000), (2, "FR", 1_000), (11, "US", 1_000), (12, "JP", 0)] {
        mesh.enrol("asia_pacific", user, country, minor).await;
    }
    // Either way, entering anywhere, read anywhere.
    let there = pay(&mesh, "us_west", 1, 11, 300).await;
    becomes(&mesh, "us_east", &there, PaymentStatus::Completed).await;
    let back = pay(&mesh, "eu_west", 11, 2, 50).await;
    let third = pay(&mesh, "asia_pacific", 2, 12, 7).await;
    for (made, via) in [(&back, "eu_west"), (&third, "us_west")] {
        becomes(&mesh, via, made, PaymentStatus::Completed).await;
    }
    assert_eq!(statement(&mesh, "eu_west", 11).await, [(-50, 1_250), (300, 1_300), (1_000, 1_000)]);
    assert_eq!(statement(&mesh, "us_east", 1).await, [(-300, 700), (1_000, 1_000)]);

    // A refund goes back the same way.
    let request = RefundPaymentRequest { request_id: Uuid::now_v7().to_string(), payment_id: there.clone(), amount_minor_units: Some(100) };
    mesh.payments("us_west").refund_payment(request).await.unwrap();
    let deadline = Instant::now() + ARRIVAL_MAX;
    while mesh.balance("us_west", 1).await != 800 {
        assert!(Instant::now() < deadline, "the refund does not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(mesh.balance("eu_west", 11).await, 1_150);

    // A payee who cannot be credited: the money comes back, and the payer's statement shows both.
    let request = CloseAccountRequest { request_id: Uuid::now_v7().to_string(), user_id: 12, currency_code: "EUR".to_owned() };
    pay(&mesh, "us_east", 12, 11, 7).await;
    mesh.wallet("us_west").close_account(request).await.unwrap();
    let returned = pay(&mesh, "us_west", 1, 12, 40).await;
    let seen = becomes(&mesh, "asia_pacific", &returned, PaymentStatus::Returned).await;
    assert_eq!(seen.reason, "PAYEE_ACCOUNT_CLOSED");
    assert_eq!(statement(&mesh, "us_east", 1).await, [(40, 800), (-40, 760), (100, 800), (-300, 700), (1_000, 1_000)]);

    nothing_in_transit(&mesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_waits_for_a_region_that_is_down_and_crosses_once_when_it_is_back() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    for (user, country) in [(1, "DE"), (2, "FR"), (11, "US"), (12, "JP")] {
        mesh.enrol("us_east", user, country, 10_000).await;
    }
    let mut made = Vec::new();
    for round in 0..4 {
        // The payee's home, and then the payer's, is killed with money on its way.
        let killed = if round % 2 == 0 { "us_east" } else { "eu_west" };
        for number in 0..20 {
            made.push(pay(&mesh, "eu_west", 1 + number % 2, 11 + number % 2, 10).await);
            made.push(pay(&mesh, "us_east", 11 + number % 2, 1 + number % 2, 3).await);
        }
        mesh.kill(killed);
        if killed == "us_east" {
            for number in 0..10 {
                made.push(pay(&mesh, "eu_west", 1 + number % 2, 11 + number % 2, 10).await);
            }
        }
        mesh.start(killed);
    }
    for payment in &made {
        becomes(&mesh, "us_west", payment, PaymentStatus::Completed).await;
    }
    let balances = [
        mesh.balance("us_west", 1).await,
        mesh.balance("us_west", 2).await,
        mesh.balance("us_west", 11).await,
        mesh.balance("us_west", 12).await,
    ];
    // 80 and 20 payments of 10 left the first two, 80 of 3 came back.
    assert_eq!(balances[0] + balances[1], 20_000 - 100 * 10 + 80 * 3);
    assert_eq!(balances[2] + balances[3], 20_000 + 100 * 10 - 80 * 3);
    nothing_in_transit(&mesh);
}

/// What a node says in its metrics of the oldest money that it has sent to another zone.
fn oldest_s(mesh: &TestMesh, region: &str) -> Option<f64> {
    let (_, metrics) = mesh.http(region, "/metrics")?;
    let lines = metrics.lines().filter(|line| line.starts_with("paymesh_in_transit_age_seconds{") && line.contains("to=\"global/"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).reduce(f64::max)
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_money_is_on_its_way_is_in_the_metrics_and_in_status_also_after_a_restart() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 1, "DE", 10_000).await;
    mesh.enrol("us_east", 11, "US", 0).await;
    let first = pay(&mesh, "eu_west", 1, 11, 1).await;
    becomes(&mesh, "eu_west", &first, PaymentStatus::Completed).await;
    mesh.kill("us_east");
    let made = pay(&mesh, "eu_west", 1, 11, 10).await;
    let until = |mesh: &TestMesh, what: &str, is: fn(f64) -> bool| {
        let deadline = Instant::now() + ARRIVAL_MAX;
        while !oldest_s(mesh, "eu_west").is_some_and(is) {
            assert!(Instant::now() < deadline, "{what}: {:?}", oldest_s(mesh, "eu_west"));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until(&mesh, "it is on its way", |age_s| age_s >= 2.0);
    mesh.kill("eu_west");
    mesh.start("eu_west");
    until(&mesh, "it is still on its way", |age_s| age_s >= 3.0);

    // Again and again, as scripts read it, until it is told to end.
    let mut watching = mesh.command(&["status", "--json", "--watch"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // Open until it has ended: it is not to die of a closed pipe.
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let reports: Vec<serde_json::Value> = lines.by_ref().take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(reports.len(), 2, "it goes on");
    signal(watching.id(), "INT");
    let seen = wait_within(watching, ARRIVAL_MAX);
    assert_eq!(seen.code, 3, "a region does not answer: {seen:?}");
    for report in &reports {
        let way = report["in_transit"].as_array().unwrap().iter().find(|way| way["to"].as_str().unwrap().starts_with("global/")).unwrap();
        assert_eq!((way["sent_minor_units"].as_i64(), way["in_transit_minor_units"].as_i64()), (Some(11), None), "{report}");
        assert!(way["unacknowledged_ms"].as_u64().unwrap() >= 2_000, "{report}");
    }

    mesh.start("us_east");
    becomes(&mesh, "eu_west", &made, PaymentStatus::Completed).await;
    until(&mesh, "it has arrived", |age_s| age_s == 0.0);
    mesh.heads();
    assert_eq!(mesh.assert_books()["in_transit"][0]["in_transit_minor_units"], 0);
}
