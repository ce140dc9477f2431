//! Many payments at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use paymesh_contract::{
    Fault,
    common::v1::ItemError,
    payments::v1::{
        CreatePaymentRequest, CreatePaymentsRequest, PaymentOutcome, PaymentReceipt, PaymentStatus, StreamPaymentsRequest,
        payment_outcome::Outcome, payment_service_client::PaymentServiceClient,
    },
};
use paymesh_mesh::Limits;
use paymesh_payment_processor::{MESSAGE_BYTES_MAX, services};
use paymesh_shard::Options;
use paymesh_types::AMOUNT_MINOR_MAX;
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::support::{Node, cache, hold, id, no_problems, one_region, pay, refusal, refused};

/// The largest user id.
const USER_ID_MAX: u64 = i64::MAX as u64;

fn receipt(outcome: &PaymentOutcome) -> &PaymentReceipt {
    match outcome.outcome.as_ref().expect("set") {
        Outcome::Receipt(receipt) => receipt,
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

fn failure(outcome: &PaymentOutcome) -> &ItemError {
    match outcome.outcome.as_ref().expect("set") {
        Outcome::Receipt(receipt) => panic!("{receipt:?}"),
        Outcome::Error(error) => error,
    }
}

async fn create(node: &Node, payments: Vec<CreatePaymentRequest>) -> Vec<PaymentOutcome> {
    node.payments().create_payments(CreatePaymentsRequest { payments }).await.expect("outcomes").into_inner().outcomes
}

#[tokio::test]
async fn good_bad_and_repeated_items_each_get_their_own_outcome_in_order() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0), (4, 500), (5, 0)]).await;
    let (same, other) = (pay(3, 6, 10), pay(4, 3, 20));
    let reused = CreatePaymentRequest { amount: crate::support::euro(11), ..same.clone() };
    let mut nameless = pay(3, 6, 1);
    nameless.request_id = "x".to_owned();
    let outcomes = create(
        &node,
        vec![
            same.clone(),      // 0: completed
            pay(3, 3, 1),      // 1: to oneself
            pay(3, 99, 1),     // 2: unknown payee
            same.clone(),      // 3: as 0
            pay(98, 3, 1),     // 4: unknown payer
            other.clone(),     // 5: to another shard
            reused,            // 6: another body
            pay(3, 6, 50_000), // 7: declined
            hold(3, 6, 5),     // 8: held
            nameless,          // 9: no UUID
            pay(5, 3, -1),     // 10: negative
        ],
    )
    .await;
    let receipts: Vec<_> = [0, 3, 5, 7, 8].map(|index| receipt(&outcomes[index]).status()).into();
    use PaymentStatus::{Authorized, Completed, Declined, InTransit};
    assert_eq!(receipts, [Completed, Completed, InTransit, Declined, Authorized]);
    assert_eq!(receipt(&outcomes[0]), receipt(&outcomes[3]));
    assert_eq!(receipt(&outcomes[7]).reason, "INSUFFICIENT_FUNDS");
    assert!(receipt(&outcomes[5]).payment_id.starts_with("pay_eu_1_"), "{:?}", outcomes[5]);
    let errors = [1, 2, 4, 6, 9, 10].map(|index| {
        let error = failure(&outcomes[index]);
        (Code::from_i32(error.code), error.reason.as_str(), error.field.as_str(), error.retry_after_ms)
    });
    assert_eq!(
        errors,
        [
            (Code::InvalidArgument, "INVALID_FIELD", "payee_id", None),
            (Code::NotFound, "USER_NOT_FOUND", "payee_id", None),
            (Code::NotFound, "USER_NOT_FOUND", "payer_id", None),
            (Code::AlreadyExists, "REQUEST_ID_REUSED", "amount", None),
            (Code::InvalidArgument, "INVALID_FIELD", "request_id", None),
            (Code::InvalidArgument, "INVALID_FIELD", "amount.minor_units", None),
        ]
    );
    node.until(&receipt(&outcomes[5]).payment_id, Completed).await;
    assert_eq!((node.balance(3).await, node.balance(6).await), ((1_010, 5), (10, 0)));
    assert_eq!(create(&node, vec![same, other]).await, [outcomes[0].clone(), outcomes[5].clone()], "again, the same");
    node.close().await;
}

#[tokio::test]
async fn a_batch_has_1_to_8192_payments() {
    let node = Node::start().await;
    node.users(&[(3, 10_000), (6, 0)]).await;
    let batch = |count| CreatePaymentsRequest { payments: vec![pay(3, 6, 1); count] };
    assert_eq!(refused(node.payments().create_payments(batch(0)).await), refusal(Code::InvalidArgument, "INVALID_FIELD", "payments"));
    assert_eq!(refused(node.payments().create_payments(batch(8_193)).await), refusal(Code::InvalidArgument, "TOO_MANY_ITEMS", "payments"));
    let outcomes = create(&node, (0..8_192).map(|_| pay(3, 6, 1)).collect()).await;
    assert!(outcomes.iter().all(|outcome| receipt(outcome).status() == PaymentStatus::Completed));
    assert_eq!(node.balance(6).await, (8_192, 0));
    node.close().await;
}

#[tokio::test]
async fn the_largest_batch_of_the_longest_payments_fits_in_a_message_and_more_bytes_are_refused_by_their_number() {
    let node = Node::start().await;
    let mut longest = hold(1, 1, AMOUNT_MINOR_MAX);
    longest.payer_id = USER_ID_MAX;
    longest.payee_id = USER_ID_MAX - 3;
    longest.reference = "x".repeat(140);
    longest.hold_duration = Some(prost_types::Duration { seconds: 2_678_400, nanos: 0 });
    node.users(&[(USER_ID_MAX, 0), (USER_ID_MAX - 3, 0)]).await;
    let payments = (0..8_192).map(|_| CreatePaymentRequest { request_id: id(), ..longest.clone() }).collect();
    let mut batch = CreatePaymentsRequest { payments };
    assert!(batch.encoded_len() < MESSAGE_BYTES_MAX / 2, "{}", batch.encoded_len());
    let outcomes = create(&node, batch.payments.clone()).await;
    assert!(outcomes.iter().all(|outcome| receipt(outcome).reason == "INSUFFICIENT_FUNDS"), "{:?}", outcomes[0]);

    let too_long = MESSAGE_BYTES_MAX - batch.encoded_len();
    batch.payments[0].reference.push_str(&"x".repeat(too_long));
    let size = batch.encoded_len();
    assert!(size > MESSAGE_BYTES_MAX);
    let fault = Fault::from_status(&node.payments().create_payments(batch).await.expect_err("it is too large"));
    assert_eq!((fault.code, fault.reason.as_ref()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"), "{fault}");
    assert!(fault.message.contains(&MESSAGE_BYTES_MAX.to_string()), "{fault}");
    node.close().await;
}

#[tokio::test]
async fn a_full_queue_is_said_to_each_item_and_when_to_try_again() {
    let options = Options { queue_commands_max: 4, ..Options::default() };
    let node = Node::of(one_region().into(), "eu_west", options).await;
    node.users(&[(3, 1_000), (6, 0), (4, 1_000), (7, 0)]).await;
    let mut payments: Vec<_> = (0..5).map(|_| pay(3, 6, 1)).collect();
    payments.push(pay(4, 7, 1));
    let outcomes = create(&node, payments).await;
    for outcome in &outcomes[..5] {
        let error = failure(outcome);
        assert_eq!((error.code, error.reason.as_str(), error.retry_after_ms), (Code::Unavailable as i32, "SHARD_OVERLOADED", Some(50)));
    }
    assert_eq!(receipt(&outcomes[5]).status(), PaymentStatus::Completed, "another shard's queue has room");
    assert_eq!(node.balance(3).await, (1_000, 0));
    node.close().await;
}

#[tokio::test]
async fn a_shard_that_was_closed_fails_its_items_only() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0), (4, 1_000), (7, 0)]).await;
    let shard = paymesh_types::ShardRef { zone: "eu".parse().expect("a zone"), index: 0 };
    node.shards.get(&shard).expect("it serves").close().await;
    let outcomes = create(&node, vec![pay(3, 6, 1), pay(4, 7, 1)]).await;
    let error = failure(&outcomes[0]);
    assert_eq!((error.code, error.reason.as_str(), error.retry_after_ms), (Code::Unavailable as i32, "SHARD_NOT_SERVING", Some(1_000)));
    assert_eq!(receipt(&outcomes[1]).status(), PaymentStatus::Completed);
    assert_eq!(refused(node.payments().create_payment(pay(3, 6, 1)).await), refusal(Code::Unavailable, "SHARD_NOT_SERVING", ""));
    node.close().await;
}

#[tokio::test]
async fn a_stream_answers_every_batch_in_order() {
    const BATCHES: u64 = 100;
    let node = Node::start().await;
    node.users(&[(3, 1_000_000), (4, 1_000_000), (5, 1_000_000), (6, 0)]).await;
    let batches: Vec<_> = (0..BATCHES)
        .map(|batch_id| {
            let payments = (0..=batch_id % 7).map(|number| pay(3 + number % 3, 6, 1)).collect();
            StreamPaymentsRequest { batch_id, payments }
        })
        .collect();
    let sizes: Vec<_> = batches.iter().map(|batch| (batch.batch_id, batch.payments.len())).collect();
    let mut answers = node.payments().stream_payments(tokio_stream::iter(batches)).await.expect("a stream").into_inner();
    let mut answered = Vec::new();
    while let Some(answer) = answers.message().await.expect("an answer") {
        answer.outcomes.iter().for_each(|outcome| assert_ne!(receipt(outcome).status(), PaymentStatus::Declined));
        answered.push((answer.batch_id, answer.outcomes.len()));
    }
    assert_eq!(answered, sizes);
    node.close().await;
}

#[tokio::test]
async fn a_stream_whose_first_batch_does_not_come_is_ended() {
    let node = Node::start().await;
    let limits = Limits { arrival_wait: Duration::from_millis(100), ..Limits::default() };
    let edge =
        node.mesh.edge(services(node.shards.clone(), node.copies.clone(), node.mesh.clone(), no_problems(), None, cache()).routes, limits);
    let answer = async {
        let mut answers = PaymentServiceClient::new(edge).stream_payments(tokio_stream::pending()).await?.into_inner();
        answers.message().await
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("it hangs");
    assert_eq!(refused(answer), refusal(Code::DeadlineExceeded, "REQUEST_STALLED", ""));
    node.close().await;
}

/// Batches of so many items of which one answer was read and no other; says how many batches were read for that.
async fn read_for_one_answer(items: usize) -> usize {
    let node = Node::start().await;
    node.users(&[(3, 1_000_000), (6, 0)]).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    // Made when they are asked for, and always there.
    let batches = tokio_stream::iter(0..100).map(move |batch_id| {
        count.fetch_add(1, Relaxed);
        StreamPaymentsRequest { batch_id, payments: (0..items).map(|_| pay(3, 6, 1)).collect() }
    });
    let mut answers = node.payments().stream_payments(batches).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("an answer").batch_id, 0);
    let made = made.load(Relaxed);
    drop(answers);
    node.close().await;
    made
}

#[tokio::test]
async fn a_stream_reads_no_further_while_16_batches_are_in_flight() {
    // The transport holds one or two more.
    let made = read_for_one_answer(1_500).await;
    assert!((16..=18).contains(&made), "{made} batches were read");
}

#[tokio::test]
async fn a_stream_of_full_batches_reads_no_more_than_half_of_a_shards_queue() {
    let made = read_for_one_answer(8_192).await;
    assert!((4..=6).contains(&made), "{made} batches were read");
}

#[tokio::test]
async fn a_batch_of_a_wrong_size_ends_the_stream_after_what_was_before_it() {
    let node = Node::start().await;
    node.users(&[(3, 1_000_000), (6, 0)]).await;
    let batch = |batch_id, count| StreamPaymentsRequest { batch_id, payments: (0..count).map(|_| pay(3, 6, 1)).collect() };
    let batches = vec![batch(1, 3), batch(2, 2), batch(3, 8_193), batch(4, 1)];
    let mut answers = node.payments().stream_payments(tokio_stream::iter(batches)).await.expect("a stream").into_inner();
    for batch_id in [1, 2] {
        assert_eq!(answers.message().await.expect("an answer").expect("an answer").batch_id, batch_id);
    }
    assert_eq!(refused(answers.message().await), refusal(Code::InvalidArgument, "TOO_MANY_ITEMS", "payments"));
    assert_eq!(node.balance(6).await, (5, 0));
    node.close().await;
}

#[tokio::test]
async fn one_stream_of_full_batches_for_one_shard_is_slowed_down_and_not_refused() {
    let node = Node::start().await;
    node.users(&[(3, 1_000_000), (6, 0)]).await;
    let batches: Vec<_> =
        (0..10).map(|batch_id| StreamPaymentsRequest { batch_id, payments: (0..8_192).map(|_| pay(3, 6, 1)).collect() }).collect();
    let mut client = node.payments();
    let mut answers = client.stream_payments(tokio_stream::iter(batches)).await.expect("a stream").into_inner();
    while let Some(answer) = answers.message().await.expect("an answer") {
        answer.outcomes.iter().for_each(|outcome| assert_eq!(receipt(outcome).status(), PaymentStatus::Completed));
    }
    assert_eq!(node.balance(6).await, (81_920, 0));
    node.close().await;
}
