//! Topology, status, and the proof of the books.

use paymesh_contract::{
    common::v1::ShardRef,
    mesh::v1::{GetStatusRequest, GetTopologyRequest, InboxCursor, ShardState, VerifyShardRequest, verify_shard_response::Step},
    payments::v1::PaymentStatus,
};
use tonic::Code;

use crate::support::{Node, pay, refusal, refused};

fn shard(index: u32) -> Option<ShardRef> {
    Some(ShardRef { zone: "eu".to_owned(), shard: index })
}

#[tokio::test]
async fn the_topology_and_every_shards_state_are_told() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0)]).await;
    let payment = node.payments().create_payment(pay(3, 4, 400)).await.expect("a payment").into_inner().payment.expect("a payment");
    node.until(&payment.payment_id, PaymentStatus::Completed).await;
    // The state is told as projected; a balance is read when that has caught up.
    node.until_balance(4, 400).await;
    let topology = node.operations().get_topology(GetTopologyRequest {}).await.expect("a topology").into_inner();
    assert_eq!((topology.mesh.as_str(), topology.region.as_str(), topology.shards.len()), ("test", "eu_west", 4));
    assert!(topology.regions[0].primary && topology.shards.iter().all(|shard| shard.region == "eu_west"));

    let of = |shards: &[paymesh_contract::mesh::v1::ShardStatus], index| {
        shards.iter().find(|status| status.shard == shard(index)).cloned().expect("its state")
    };
    let status = node.operations().get_status(GetStatusRequest {}).await.expect("a state").into_inner();
    assert_eq!((status.region.as_str(), status.shards.len()), ("eu_west", 4));
    let (payer, payee) = (of(&status.shards, 0), of(&status.shards, 1));
    assert_eq!((payer.state(), payer.epoch, payer.clearing[0].sent_minor_units), (ShardState::Serving, 1, 400));
    assert_eq!((payee.clearing[0].peer.clone(), payee.clearing[0].received_minor_units), (shard(0), 400));
    assert!(payee.inbox.iter().any(|cursor| cursor.source == shard(0) && cursor.sequence >= 3));

    let name = paymesh_types::ShardRef { zone: "eu".parse().expect("a zone"), index: 2 };
    node.shards.get(&name).expect("it serves").close().await;
    let status = node.operations().get_status(GetStatusRequest {}).await.expect("a state").into_inner();
    assert_eq!((of(&status.shards, 2).state(), of(&status.shards, 2).problem.as_str()), (ShardState::Refusing, "it was closed"));
    node.close().await;
}

#[tokio::test]
async fn the_books_of_a_shard_are_proved() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0), (4, 0)]).await;
    let payment = node.payments().create_payment(pay(3, 4, 400)).await.expect("a payment").into_inner().payment.expect("a payment");
    node.until(&payment.payment_id, PaymentStatus::Completed).await;
    let sent_by = vec![InboxCursor { source: shard(1), sequence: 1_000, ..InboxCursor::default() }];
    let mut stream = node.operations().verify_shard(VerifyShardRequest { shard: shard(0), sent_by }).await.expect("a stream").into_inner();
    let mut last = None;
    while let Some(step) = stream.message().await.expect("a step") {
        last = step.step;
    }
    let Some(Step::Report(report)) = last else { panic!("the last step is the report, not {last:?}") };
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.users, report.payments, report.chain_hash.len()), (2, 1, 32));
    let sums = &report.sums[0];
    assert_eq!((sums.wallets_minor_units, sums.external_minor_units, sums.clearing_minor_units), (600, -1_000, 400));
    assert_eq!((sums.total_minor_units, report.sent_by[0].sent_minor_units), (0, 400));

    let elsewhere = node.operations().verify_shard(VerifyShardRequest { shard: shard(9), sent_by: vec![] }).await;
    assert_eq!(refused(elsewhere), refusal(Code::NotFound, "SHARD_NOT_FOUND", ""));
    let nameless = node.operations().verify_shard(VerifyShardRequest::default()).await;
    assert_eq!(refused(nameless), refusal(Code::InvalidArgument, "INVALID_FIELD", "shard"));
    node.close().await;
}
