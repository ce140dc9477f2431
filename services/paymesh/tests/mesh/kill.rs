//! kill -9 under load: what was acknowledged is there, once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use paymesh_contract::payments::v1::{
    CreatePaymentRequest, GetPaymentRequest, GetRequestOutcomeRequest, ListPaymentsRequest, PaymentStatus,
    payment_service_client::PaymentServiceClient,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Notify, task::JoinSet};
use tonic::transport::Channel;

use crate::support::{ONE_REGION, TestMesh, payment, seed};

const ROUNDS: u64 = 20;
const USERS: u64 = 16;
const CALLERS: u64 = 32;
const OPENING: i64 = 1_000_000;
const REGION: &str = "eu_west";

/// What a caller was told.
struct Acknowledged {
    request: CreatePaymentRequest,
    payment_id: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_payment_survives_kill_9_and_none_happens_twice() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut mesh = TestMesh::started(ONE_REGION);
    for user in 1..=USERS {
        mesh.enrol(REGION, user, "DE", OPENING).await;
    }

    let mut done: Vec<Acknowledged> = Vec::new();
    for round in 0..ROUNDS {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut client, stop, answered, seed) = (mesh.payments(REGION), stop.clone(), answered.clone(), random.random());
            callers.spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let payer = random.random_range(1..=USERS);
                    let payee = (payer + random.random_range(0..USERS - 1)) % USERS + 1;
                    let request = payment(payer, payee, random.random_range(1..100));
                    match client.create_payment(request.clone()).await {
                        Ok(answer) => {
                            answered.notify_one();
                            let payment_id = answer.into_inner().payment.unwrap().payment_id;
                            acknowledged.push(Acknowledged { request, payment_id });
                        }
                        // Nobody knows whether it happened: the caller asks again after the restart.
                        Err(_) => return (acknowledged, Some(request)),
                    }
                }
                (acknowledged, None)
            });
        }
        // From the first answer on: on a busy machine that takes its time.
        let first = tokio::time::timeout(Duration::from_secs(30), answered.notified()).await;
        assert!(first.is_ok(), "round {round}: nothing was acknowledged");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        mesh.kill(REGION);
        stop.store(true, Ordering::Relaxed);
        let (mut new, mut unknown) = (Vec::new(), Vec::new());
        for (acknowledged, open) in callers.join_all().await {
            new.extend(acknowledged);
            unknown.extend(open);
        }
        mesh.start(REGION);

        assert_all_there(&mesh, &new, round).await;
        for request in unknown {
            let answer = mesh.payments(REGION).create_payment(request.clone()).await.unwrap().into_inner();
            new.push(Acknowledged { payment_id: answer.payment.unwrap().payment_id, request });
        }
        done.extend(new);
    }

    assert_all_there(&mesh, &done, ROUNDS).await;
    assert_each_once(&mesh, &done).await;
    let report = mesh.assert_books();
    let payments: u64 = report["shards"].as_array().unwrap().iter().map(|shard| shard["payments"].as_u64().unwrap()).sum();
    assert_eq!(payments, done.len() as u64);
}

async fn assert_all_there(mesh: &TestMesh, payments: &[Acknowledged], round: u64) {
    let client = mesh.payments(REGION);
    let looks = payments.iter().map(|payment| assert_there(client.clone(), payment, round));
    futures::stream::iter(looks).buffer_unordered(64).collect::<()>().await;
}

async fn assert_there(mut client: PaymentServiceClient<Channel>, payment: &Acknowledged, round: u64) {
    let Acknowledged { request, payment_id } = payment;
    let asked = GetRequestOutcomeRequest { user_id: request.payer_id, request_id: request.request_id.clone() };
    let outcome = client.get_request_outcome(asked).await;
    let outcome = outcome.unwrap_or_else(|status| panic!("round {round}: {payment_id} is lost: {status}")).into_inner();
    assert_eq!(outcome.payment.unwrap().payment_id, *payment_id, "round {round}");
    let found = client.get_payment(GetPaymentRequest { payment_id: payment_id.clone(), read: None }).await;
    let found = found.unwrap_or_else(|status| panic!("round {round}: {payment_id} is lost: {status}")).into_inner().payment.unwrap();
    assert_eq!((found.payer_id, found.payee_id, found.amount), (request.payer_id, request.payee_id, request.amount.clone()));
}

/// Each payer's list has each payment once and no other, and everyone has what that leaves them.
async fn assert_each_once(mesh: &TestMesh, done: &[Acknowledged]) {
    let mut by_payer: HashMap<u64, Vec<&str>> = HashMap::new();
    for payment in done {
        by_payer.entry(payment.request.payer_id).or_default().push(&payment.payment_id);
    }
    let mut expected: BTreeMap<u64, i64> = (1..=USERS).map(|user| (user, OPENING)).collect();
    for user in 1..=USERS {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListPaymentsRequest { payer_id: user, page_size: 1_000, page_token, read: None };
            let page = mesh.payments(REGION).list_payments(request).await.unwrap().into_inner();
            listed.extend(page.payments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        for payment in listed.iter().filter(|payment| payment.status() != PaymentStatus::Declined) {
            *expected.get_mut(&user).unwrap() -= payment.captured_minor_units;
            *expected.get_mut(&payment.payee_id).unwrap() += payment.captured_minor_units;
        }
        let mut listed: Vec<_> = listed.iter().map(|payment| payment.payment_id.as_str()).collect();
        let mut own = by_payer.remove(&user).unwrap_or_default();
        listed.sort_unstable();
        own.sort_unstable();
        assert_eq!(listed, own, "user {user}");
    }
    // Money between the two shards may still be on its way.
    let deadline = Instant::now() + Duration::from_secs(30);
    for (user, minor) in expected {
        while mesh.balance(REGION, user).await != minor {
            assert!(Instant::now() < deadline, "user {user} has {} instead of {minor}", mesh.balance(REGION, user).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
