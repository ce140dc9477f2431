//! Journals, tailed.

use std::{sync::Arc, time::Duration};

use paymesh_contract::events::v1::{Event, SubscribeRequest, SubscribeResponse, entry_open::Body};
use paymesh_types::{Sequence, ShardRef};
use tonic::{Code, Streaming};

use crate::support::{Node, deposit, pay, refusal, refused};

fn subscribe(zone: &str, shard: u32, from_sequence: u64) -> SubscribeRequest {
    SubscribeRequest { zone: zone.to_owned(), shard, from_sequence, read: None }
}

async fn take(stream: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(stream.message().await.expect("events").expect("more events").events);
    }
    events
}

fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.position.as_ref().expect("a position").sequence).collect()
}

#[tokio::test]
async fn a_subscriber_gets_every_entry_once_and_in_order_and_then_what_comes() {
    let node = Node::start().await;
    node.users(&[(3, 100_000), (6, 0)]).await;
    let payments: Vec<_> = (0..1_200).map(|_| pay(3, 6, 1)).collect();
    node.payments().create_payments(paymesh_contract::payments::v1::CreatePaymentsRequest { payments }).await.expect("payments");
    // Two enrolments, a deposit and the payments.
    let mut stream = node.events().subscribe(subscribe("eu", 0, 0)).await.expect("a stream").into_inner();
    let events = take(&mut stream, 1_203).await;
    assert_eq!(sequences(&events), (1..=1_203).collect::<Vec<_>>());
    assert!(matches!(events[1].open.as_ref().expect("open").body, Some(Body::Deposited(_)) | Some(Body::UserEnrolled(_))));
    assert!(events.iter().all(|event| event.sealed.is_some()), "the subscriber is in the zone");
    node.wallets().deposit(deposit(3, 5)).await.expect("a deposit");
    assert_eq!(sequences(&take(&mut stream, 1).await), [1_204]);
    let mut later = node.events().subscribe(subscribe("eu", 0, 1_203)).await.expect("a stream").into_inner();
    assert_eq!(sequences(&take(&mut later, 2).await), [1_203, 1_204]);
    node.close().await;
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_holds_a_part_of_a_batch_and_not_all_of_it() {
    let node = Node::start().await;
    node.users(&[(3, 100_000), (6, 0)]).await;
    let payments: Vec<_> = (0..4_000).map(|_| pay(3, 6, 1)).collect();
    node.payments().create_payments(paymesh_contract::payments::v1::CreatePaymentsRequest { payments }).await.expect("payments");
    let shard = ShardRef { zone: "eu".parse().expect("a zone"), index: 0 };
    let tail = node.shards.get(&shard).expect("it serves").tail();
    let mut stream = node.events().subscribe(subscribe("eu", 0, 4)).await.expect("a stream").into_inner();
    let first = stream.message().await.expect("events").expect("events").events.len();
    assert!(first < 4_000, "{first}");
    let batch = tail.next(Sequence(4)).await.expect("the payments").entries;
    assert_eq!(batch.len(), 4_000, "one commit");
    // Held by the tail, by this test, and by readers that go on: they let go of it.
    let held = || (Arc::strong_count(&batch), batch.iter().filter(|(_, entry)| Arc::strong_count(entry) > 1).count());
    for _ in 0..500 {
        if matches!(held(), (2, ..=2_048)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (holders, entries) = held();
    assert!(holders == 2 && entries <= 2_048, "the batch has {holders} holders, {entries} of its entries have others");
    drop(stream);
    node.close().await;
}

#[tokio::test]
async fn what_cannot_be_tailed_says_why_and_a_shard_that_stops_ends_its_streams() {
    let node = Node::start().await;
    node.users(&[(3, 1)]).await;
    let mut events = node.events();
    let missing = refusal(Code::NotFound, "SHARD_NOT_FOUND", "");
    assert_eq!(refused(events.subscribe(subscribe("eu", 3, 0)).await), missing);
    assert_eq!(refused(events.subscribe(subscribe("mars", 0, 0)).await), missing);
    assert_eq!(refused(events.subscribe(subscribe("", 0, 0)).await), refusal(Code::InvalidArgument, "INVALID_FIELD", "zone"));
    assert_eq!(refused(events.subscribe(subscribe("eu", 0, 4)).await), refusal(Code::OutOfRange, "POSITION_IN_THE_FUTURE", ""));
    let mut stream = events.subscribe(subscribe("eu", 0, 3)).await.expect("the next entry may be waited for").into_inner();
    let shard = ShardRef { zone: "eu".parse().expect("a zone"), index: 0 };
    node.shards.get(&shard).expect("it serves").close().await;
    assert_eq!(refused(stream.message().await), refusal(Code::Unavailable, "SHARD_NOT_SERVING", ""));
    node.close().await;
}
