//! Two regions: what is at home in the other goes there.

use std::{sync::Arc, time::Duration};

use paymesh_contract::{
    events::v1::SubscribeRequest,
    payments::v1::{CreatePaymentsRequest, PaymentStatus, payment_outcome::Outcome},
};
use paymesh_mesh::Limits;
use paymesh_payment_processor::services;
use paymesh_shard::Options;
use paymesh_topology::Topology;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::Code;

use crate::support::{Node, cache, deposit, enrolment, no_problems, pay, refusal, refused};

struct Served {
    node: Node,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), paymesh_mesh::Error>>,
}

impl Served {
    async fn stop(self) -> Node {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("no panic").expect("no error");
        self.node
    }
}

/// us_east is the primary and has zone global; eu_west has zone eu.
async fn two_regions() -> [Served; 2] {
    let listeners = [TcpListener::bind("127.0.0.1:0").await.expect("a port"), TcpListener::bind("127.0.0.1:0").await.expect("a port")];
    let [us, eu] = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().expect("an address").port());
    let yaml = format!(
        "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  eu_west: {{primary: false, services: [payment_processor], database: regional_master}}
zones:
  global: {{shards: 2, regions: [us_east], countries: [US]}}
  eu: {{shards: 2, regions: [eu_west], countries: [DE]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{us}', http: '127.0.0.2:{us}'}}
  eu_west: {{grpc: '127.0.0.1:{eu}', http: '127.0.0.3:{eu}'}}
"
    );
    let topology = Arc::new(Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}")));
    let [us, eu] = listeners;
    [serve(&topology, "us_east", us).await, serve(&topology, "eu_west", eu).await]
}

async fn serve(topology: &Arc<Topology>, region: &str, listener: TcpListener) -> Served {
    let node = Node::of(Arc::clone(topology), region, Options::default()).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let (mesh, routes) =
        (node.mesh.clone(), services(node.shards.clone(), node.copies.clone(), node.mesh.clone(), no_problems(), None, cache()).routes);
    let limits = Limits { drain_wait: Duration::from_millis(500), ..Limits::default() };
    let task = tokio::spawn(async move { mesh.serve(routes, listener, limits, async { stopped.await.unwrap_or_default() }).await });
    Served { node, stop, task }
}

#[tokio::test]
async fn a_batch_is_parted_by_homes_and_a_region_that_is_down_fails_its_items_only() {
    let [us, eu] = two_regions().await;
    // Users 2 and 4 are of zone global, 101 and 103 of eu, both enrolled through the other region's node.
    for (node, user, country) in [(&eu, 2, "US"), (&eu, 4, "US"), (&us, 101, "DE"), (&us, 103, "DE")] {
        node.node.directory().enroll_user(enrolment(user, country)).await.expect("an enrolment");
        node.node.wallets().deposit(deposit(user, 1_000)).await.expect("a deposit");
    }
    let twice = eu.node.directory().enroll_user(enrolment(2, "DE")).await;
    assert_eq!(refused(twice), refusal(Code::AlreadyExists, "USER_IN_ANOTHER_ZONE", ""));

    let payments = vec![pay(2, 4, 10), pay(101, 103, 20), pay(101, 2, 30), pay(2, 99, 1), pay(101, 99, 1), pay(4, 101, 5)];
    let answer = us.node.payments().create_payments(CreatePaymentsRequest { payments }).await.expect("outcomes").into_inner();
    let told: Vec<_> = answer
        .outcomes
        .iter()
        .map(|outcome| match outcome.outcome.as_ref().expect("set") {
            Outcome::Receipt(receipt) => (receipt.status().as_str_name(), &receipt.payment_id[..7]),
            Outcome::Error(error) => (error.reason.as_str(), error.field.as_str()),
        })
        .collect();
    assert_eq!(
        told,
        [
            ("PAYMENT_STATUS_COMPLETED", "pay_glo"),
            ("PAYMENT_STATUS_COMPLETED", "pay_eu_"),
            ("PAYMENT_STATUS_IN_TRANSIT", "pay_eu_"),
            ("USER_NOT_FOUND", "payee_id"),
            ("USER_NOT_FOUND", "payee_id"),
            ("PAYMENT_STATUS_IN_TRANSIT", "pay_glo"),
        ]
    );
    let Some(Outcome::Receipt(receipt)) = &answer.outcomes[2].outcome else { unreachable!("as above") };
    let read = us.node.payment(&receipt.payment_id).await;
    assert_eq!((read.status(), read.payer_id, read.payee_id), (PaymentStatus::InTransit, 101, 2));

    let eu = eu.stop().await;
    let payments = vec![pay(2, 4, 10), pay(101, 103, 20)];
    let answer = us.node.payments().create_payments(CreatePaymentsRequest { payments }).await.expect("outcomes").into_inner();
    assert!(matches!(&answer.outcomes[0].outcome, Some(Outcome::Receipt(_))), "{:?}", answer.outcomes[0]);
    let Some(Outcome::Error(error)) = &answer.outcomes[1].outcome else { panic!("{:?}", answer.outcomes[1]) };
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable as i32, "PEER_UNAVAILABLE"));
    assert!(error.retry_after_ms.is_some());
    eu.close().await;
    us.stop().await.close().await;
}

#[tokio::test]
async fn a_subscriber_in_another_zone_gets_the_open_parts_of_what_concerns_it() {
    let [us, eu] = two_regions().await;
    eu.node.directory().enroll_user(enrolment(101, "DE")).await.expect("an enrolment");
    eu.node.wallets().deposit(deposit(101, 7)).await.expect("a deposit");
    us.node.directory().enroll_user(enrolment(201, "US")).await.expect("an enrolment");
    eu.node.payments().create_payment(pay(101, 201, 3)).await.expect("a payment to the other zone");
    let request = SubscribeRequest { zone: "eu".to_owned(), shard: 1, from_sequence: 0, read: None };
    // The enrolment and the deposit concern nobody there.
    for (node, in_zone, first, told) in [(&us, false, 3, 1), (&eu, true, 1, 3)] {
        let mut stream = node.node.events().subscribe(request.clone()).await.expect("a stream").into_inner();
        let mut events = Vec::new();
        while events.len() < told {
            let message = tokio::time::timeout(std::time::Duration::from_secs(20), stream.message()).await.expect("it is told in time");
            events.extend(message.expect("events").expect("more").events);
        }
        assert_eq!(events[0].position.as_ref().map(|position| position.sequence), Some(first), "{events:?}");
        assert!(events.iter().all(|event| event.sealed.is_some() == in_zone && event.open.is_some()), "{events:?}");
    }
    us.stop().await.close().await;
    eu.stop().await.close().await;
}
