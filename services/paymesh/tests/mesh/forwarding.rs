//! Calls that enter at one region for a user at home in another.

use std::time::{Duration, Instant};

use paymesh_contract::{
    Fault,
    payments::v1::{GetPaymentRequest, PaymentStatus},
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
                assert_eq!(status.code(), Code::DeadlineExceeded, "{via}: {status:?}");
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
