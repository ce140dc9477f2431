//! Calls that enter at one region for a user at home in another.

use std::time::{Duration, Instant};

use paymesh_contract::{
    Fault,
    payments::v1::{GetPaymentRequest, GetRequestOutcomeRequest, PaymentStatus},
    wallet::v1::GetBalanceRequest,
};
use tonic::{Code, Request};

use crate::support::{FOUR_REGIONS, TestMesh, payment};

#[tokio::test(flavor = "multi_thread")]
async fn every_region_carries_every_call_home() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let regions = mesh.regions();
    for (index, region) in regions.iter().enumerate() {
        // A user of each zone enrols through each region. Even ids: one shard, payer and payee together.
        mesh.enrol(region, 100 + 2 * index as u64, "DE", 1_000).await;
        mesh.enrol(region, 200 + 2 * index as u64, "US", 1_000).await;
    }
    for (index, region) in regions.iter().enumerate() {
        for first in [100, 200] {
            let (payer, payee) = (first + 2 * index as u64, first + 2 * ((index + 1) % regions.len()) as u64);
            let request = payment(payer, payee, 7);
            let paid = mesh.payments(region).create_payment(request.clone()).await.unwrap().into_inner().payment.unwrap();
            assert_eq!(paid.status(), PaymentStatus::Completed, "{region} {payer}");
            for other in &regions {
                let again = mesh.payments(other).create_payment(request.clone()).await.unwrap().into_inner().payment.unwrap();
                assert_eq!(again.payment_id, paid.payment_id, "the same answer at {other}");
                let found =
                    mesh.payments(other).get_payment(GetPaymentRequest { payment_id: paid.payment_id.clone(), read: None }).await.unwrap();
                assert_eq!(found.into_inner().payment.unwrap().payer_id, payer);
            }
        }
    }
    for (first, user) in [(100, 0), (100, 2), (200, 0), (200, 2)] {
        assert_eq!(mesh.balance("asia_pacific", first + user).await, 1_000, "each paid and got 7");
    }
    let unknown = mesh.wallet("us_west").get_balance(GetBalanceRequest { user_id: 999, read: None }).await.unwrap_err();
    assert_eq!((unknown.code(), &*Fault::from_status(&unknown).reason), (Code::NotFound, "USER_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_down_is_unavailable_at_once_and_one_that_hangs_ends_at_the_deadline() {
    let mut mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 100, "DE", 1_000).await;
    mesh.enrol("us_east", 102, "DE", 0).await;
    let deadline = Duration::from_millis(1_500);
    let call = async |mesh: &TestMesh, via: &str| {
        let mut request = Request::new(payment(100, 102, 1));
        request.set_timeout(deadline);
        let started = Instant::now();
        (mesh.payments(via).create_payment(request).await, started.elapsed())
    };
    for via in ["us_east", "us_west", "asia_pacific"] {
        call(&mesh, via).await.0.unwrap();
    }

    mesh.signal("eu_west", "STOP");
    for via in ["us_east", "us_west"] {
        // tonic's client has a timer of its own, which on a busy machine may be first; then the node is asked again.
        for attempt in 1.. {
            let (answer, took) = call(&mesh, via).await;
            let status = answer.unwrap_err();
            assert!(took < deadline + Duration::from_secs(1), "{via} took {took:?}");
            if std::error::Error::source(&status).is_none() {
                // By then it may have been silent for long enough. A new connection takes the other side's hand to be made.
                let silent = via != "us_east" || attempt > 1;
                let reason = Fault::from_status(&status).reason;
                let refused = silent && (reason == "PEER_SILENT" || reason == "PEER_UNAVAILABLE");
                assert!(status.code() == Code::DeadlineExceeded || refused, "{via}: {status:?}");
                break;
            }
            assert!(attempt < 10, "{via} never said that the deadline has passed: {status:?}");
        }
    }
    mesh.signal("eu_west", "CONT");
    // What had been sent before the deadline may have happened; nothing is lost or doubled either way.
    mesh.assert_books();

    mesh.kill("eu_west");
    for via in ["us_east", "us_west", "asia_pacific"] {
        let (answer, took) = call(&mesh, via).await;
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{via}: {status:?}");
        assert!(Fault::from_status(&status).retry_after.is_some(), "{via}: RetryInfo says when to try again: {status:?}");
        assert!(took < deadline + Duration::from_secs(1), "{via} took {took:?}");
    }
    let status = mesh.run(&["status"]);
    assert_eq!(status.code, 3, "{status:?}");
    assert!(status.stdout.contains("eu_west is down"), "{status:?}");
    let verify = mesh.run(&["verify"]);
    assert_eq!(verify.code, 3, "{verify:?}");

    mesh.start("eu_west");
    let recovered = Instant::now() + Duration::from_secs(30);
    while let (Err(status), _) = call(&mesh, "us_west").await {
        assert!(Instant::now() < recovered, "the way home did not come back: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_frozen_home_fail_at_once_after_three_seconds_and_pass_as_soon_as_it_goes_on() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    mesh.enrol("us_east", 100, "DE", 1_000).await;
    mesh.enrol("us_east", 102, "DE", 0).await;
    let client = mesh.payments("us_west");
    let call = async |within: Duration| {
        let request = payment(100, 102, 1);
        let mut timed = Request::new(request.clone());
        timed.set_timeout(within);
        let started = Instant::now();
        (client.clone().create_payment(timed).await.map(|_| ()), request.request_id, started.elapsed())
    };
    call(Duration::from_secs(10)).await.0.unwrap();
    until_copies_stream(&mesh, "eu_west");
    mesh.signal("eu_west", "STOP");
    let frozen = Instant::now();
    // The first that is under way does not know what becomes of it; the next ones do.
    let (under_way, unknown_id, _) = call(Duration::from_millis(400)).await;
    assert_ne!(Fault::from_status(&under_way.unwrap_err()).reason, "PEER_SILENT");
    while call(Duration::from_millis(400)).await.0.map_err(|status| Fault::from_status(&status).reason) != Err("PEER_SILENT".into()) {
        assert!(frozen.elapsed() < Duration::from_secs(20), "nobody notices that eu_west is frozen\n{}", mesh.logs("us_west"));
    }
    println!("us_west noticed after {:?}", frozen.elapsed());
    assert!(frozen.elapsed() > Duration::from_millis(2_900), "{:?} is not long enough to be sure", frozen.elapsed());
    let mut refused = Vec::new();
    for _ in 0..20 {
        let (answer, id, took) = call(Duration::from_secs(10)).await;
        let fault = Fault::from_status(&answer.unwrap_err());
        assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "PEER_SILENT"), "{fault}");
        assert!(fault.retry_after.is_some(), "{fault}");
        refused.push((took, id));
    }
    refused.sort();
    println!("a refusal takes {:?}, the slowest of 20 {:?}", refused[10].0, refused[19].0);
    assert!(refused[10].0 < Duration::from_millis(100), "{refused:?}");
    let up = r#"paymesh_peer_up{region="us_west",peer="eu_west"}"#;
    assert!(mesh.http("us_west", "/metrics").unwrap().1.contains(&format!("{up} 0")));
    what_operators_see_of_a_frozen_region(&mesh);

    mesh.signal("eu_west", "CONT");
    let back = Instant::now();
    while let Err(status) = call(Duration::from_secs(5)).await.0 {
        assert!(back.elapsed() < Duration::from_secs(20), "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a call passed {:?} after it went on", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    while !mesh.http("us_west", "/metrics").unwrap().1.contains(&format!("{up} 1")) {
        assert!(back.elapsed() < Duration::from_secs(20), "the gauge still says that it is silent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What was refused at once was not done. Of the other nobody knew: it may have been.
    for (_, request_id) in refused {
        let asked = GetRequestOutcomeRequest { user_id: 100, request_id };
        let found = client.clone().get_request_outcome(asked).await.unwrap_err();
        assert_eq!(Fault::from_status(&found).reason, "REQUEST_NOT_FOUND");
    }
    match client.clone().get_request_outcome(GetRequestOutcomeRequest { user_id: 100, request_id: unknown_id }).await {
        Ok(_) => {}
        Err(status) => assert_eq!(Fault::from_status(&status).reason, "REQUEST_NOT_FOUND"),
    }
    mesh.assert_books();
}

/// Waits until the region's copies follow their leaders, who know it then.
fn until_copies_stream(mesh: &TestMesh, region: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status: serde_json::Value = serde_json::from_str(&mesh.run(&["status", "--json"]).stdout).unwrap();
        let copies = status["replicas"].as_array().unwrap().iter().filter(|copy| copy["region"] == region).collect::<Vec<_>>();
        if !copies.is_empty() && copies.iter().all(|copy| copy["state"] == "streaming") {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// eu_west is frozen: it leads eu/0 and eu/1, and keeps copies of three shards.
fn what_operators_see_of_a_frozen_region(mesh: &TestMesh) {
    let age = |region: &str, shard: &str| -> f64 {
        let series = format!("paymesh_replica_age_seconds{{region=\"{region}\",shard=\"{shard}\"}} ");
        let metrics = mesh.http(region, "/metrics").unwrap().1;
        metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
    };
    assert!(age("us_east", "eu/0") >= 1.0, "{}", age("us_east", "eu/0"));

    let started = Instant::now();
    let run = mesh.run(&["status", "--json"]);
    assert!(run.code == 3 && started.elapsed() < Duration::from_millis(4_500), "{:?}: {run:?}", started.elapsed());
    let status: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let copies = status["replicas"].as_array().unwrap();
    let of_eu_west = copies.iter().filter(|copy| copy["region"] == "eu_west").collect::<Vec<_>>();
    assert_eq!(of_eu_west.len(), 3, "{status}");
    for copy in of_eu_west {
        assert!(copy["state"] == "unknown" && copy["stored_sequence"].is_u64(), "what its leader knows: {copy}");
    }
    assert_eq!(copies.iter().filter(|copy| copy["region"] == "us_west" && copy["state"] == "streaming").count(), 3, "{status}");
    let run = mesh.run(&["status"]);
    for words in ["eu_west is down: nothing has come from it for 2 s", "unknown: the region does not answer"] {
        assert!(run.stdout.contains(words), "{words}: {run:?}");
    }

    let started = Instant::now();
    let run = mesh.run(&["verify"]);
    assert!(run.code == 3 && started.elapsed() < Duration::from_secs(20), "{:?}: {run:?}", started.elapsed());
    let said = format!("NOT VERIFIED  eu/0: at eu_west ({}): nothing has come from it for 2 s", mesh.grpc_address("eu_west"));
    assert!(run.stdout.contains(&said), "{said}: {run:?}");
}
