//! What no ledger of the tables reaches: numbers near their bounds, and journals that were put back.

use paymesh_types::Money;

use super::*;
use crate::{Credit, Effect, Message, Missing, Records};

fn shard(index: u16) -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone's name"), index }
}

fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("counted from one")
}

/// Another shard took in what this one does not have: it was put back to an earlier day.
#[test]
fn an_acknowledgement_from_the_future_is_refused() {
    let state = State::new(shard(0));
    let context = Context { now: Timestamp(1), epoch: Epoch(1), next: Sequence(9) };
    let noted = |up_to| {
        let command = Command::Delivered { to: shard(1), up_to: Sequence(up_to), read_to: Sequence(3).into() };
        decide(&state, context, &Request { id: None, command })
    };
    assert!(matches!(noted(8), Ok(Decision::New(_))));
    for up_to in [9, 10, u64::MAX] {
        assert!(matches!(noted(up_to), Err(Rejection::Implausible { .. })), "{up_to}");
    }
}

/// However much was sent, what another shard sends is taken in or sent back: an inbox that may not say no must never
/// have to.
#[test]
fn a_full_clearing_account_stops_who_sends_and_never_who_receives() {
    let euro = Currency::from_code("EUR").expect("EUR");
    let clearing = |sent: i64, received: i64| {
        let mut state = State::new(shard(0));
        let missing = Missing { wallets: vec![(user(1), euro), (user(2), euro)], ..Missing::default() };
        let wallet = Wallet { balance: AMOUNT_MINOR_MAX, ..Wallet::default() };
        let system = vec![((Account::Sent(shard(1)), euro), sent), ((Account::Received(shard(1)), euro), received)];
        state.load(&missing, Records { wallets: vec![((user(1), euro), wallet)], system, ..Records::default() });
        state
    };
    let context = Context { now: Timestamp(1), epoch: Epoch(1), next: Sequence(9) };
    let money = |minor| Money::new(minor, euro).expect("within the bounds");
    let pay = |minor| {
        let create = CreatePayment {
            payer: user(1),
            payee: user(7),
            payee_shard: Some(shard(1)),
            money: money(minor),
            hold_s: 0,
            reference: String::new(),
            card: None,
        };
        Request { id: None, command: Command::CreatePayment(create) }
    };
    let nearly = clearing(CLEARING_MINOR_MAX - 10, 0);
    assert!(matches!(decide(&nearly, context, &pay(10)), Ok(Decision::New(_))));
    assert_eq!(decide(&nearly, context, &pay(11)), Err(Rejection::ClearingFull { to: shard(1), currency: euro }));

    // User 2 has no account: the largest amount there is goes back, with all that could have gone back before it.
    let full = clearing(i64::MAX - AMOUNT_MINOR_MAX, -(CLEARING_MINOR_MAX - AMOUNT_MINOR_MAX));
    let credit = Credit {
        payment: Position { shard: shard(1), epoch: Epoch(1), sequence: Sequence(5) }.into(),
        payer: user(7),
        payee: user(2),
        money: money(AMOUNT_MINOR_MAX),
        reason: None,
    };
    let receive = Command::Receive { source: shard(1), at: Sequence(5).into(), message: Message::Pay(credit) };
    match decide(&full, context, &Request { id: None, command: receive }) {
        Ok(Decision::New(entry)) => assert!(matches!(entry.body, Body::Received { effect: Effect::Bounced(_), .. }), "{entry:?}"),
        other => panic!("it came to {other:?}"),
    }
}
