//! Answers: entries and rows into response messages. Nothing here can fail.
//!
//! The answer to a write is made of its entry alone, so that asking again with the same id gives the same bytes.

use std::fmt::Write as _;

use paymesh_access::Caller;
use paymesh_contract::{
    common::v1 as common,
    payments::v1::{self as payments, PaymentReceipt, PaymentStatus},
    timestamp,
    wallet::v1 as wallet,
};
use paymesh_journal::{Line, LineKind};
use paymesh_ledger::{
    Account, Authentication, Body, CardStep, Charge, Entry, Left, LeftBecause, MandateKind, MandateStanding, NewPayment, Operation,
    OperationKind, Payment, Phase, Reason, Wallet,
};
use paymesh_shard::{Answer, PaymentView};
use paymesh_types::{Currency, PaymentId, Position, Score, Sequence, ShardRef, UserId};

/// Bytes of a usual payment id: longer ones grow.
const PAYMENT_ID_BYTES: usize = 40;

pub(crate) fn position(position: &Position) -> Option<common::Position> {
    Some(position.into())
}

fn text(reason: Option<Reason>) -> String {
    reason.map_or("", Reason::as_str).to_owned()
}

/// The payment that a write was about, as it stood after it; none where it was about none.
pub(crate) fn written(answer: &Answer) -> Option<payments::Payment> {
    let payment = answer.entry.payment(&answer.position)?;
    // Money has just left for another shard with these two. With any other, the ledger knew that it had arrived.
    let leaves = match &answer.entry.body {
        Body::PaymentCreated(new) => new.card.is_none(),
        Body::PaymentCaptured { .. } | Body::Card { step: CardStep::Captured, .. } => true,
        _ => false,
    };
    let in_transit = leaves && payment.payee_shard.is_some();
    let reference = if matches!(answer.entry.body, Body::PaymentCreated(_)) { answer.entry.reference.clone() } else { String::new() };
    Some(message(&payment, &answer.position.shard, in_transit, reference))
}

/// A payment as a reader sees it; `shard` is its own.
pub(crate) fn seen(view: PaymentView, shard: &ShardRef) -> payments::Payment {
    message(&view.row.payment, shard, view.in_transit, view.row.reference)
}

fn message(payment: &Payment, shard: &ShardRef, in_transit: bool, reference: String) -> payments::Payment {
    payments::Payment {
        payment_id: payment.id(shard).to_string(),
        payer_id: payment.payer.get(),
        payee_id: payment.payee.get(),
        payee_shard: Some(payment.payee_shard.as_ref().unwrap_or(shard).into()),
        amount: Some(money(payment.amount, payment.currency)),
        captured_minor_units: payment.captured,
        refunded_minor_units: payment.refunded,
        status: status(payment.phase, in_transit).into(),
        reason: text(payment.reason),
        created_at: Some(timestamp(payment.created_at)),
        expires_at: payment.expires_at.map(timestamp),
        reference,
        card: payment.card.as_deref().map(|card| charge(card, payment.mandate())),
    }
}

/// What of a payment its payer alone is told: with a challenge somebody could answer it, and the card is the payer's.
pub(crate) fn for_caller(mut payment: payments::Payment, caller: &Caller) -> payments::Payment {
    let is_the_payers = UserId::try_from(payment.payer_id).is_ok_and(|payer| caller.acts_for_id(payer).is_ok());
    if !is_the_payers && let Some(card) = &mut payment.card {
        let kept = payments::CardCharge {
            gateway: std::mem::take(&mut card.gateway),
            in_progress: std::mem::take(&mut card.in_progress),
            ..Default::default()
        };
        *card = kept;
    }
    payment
}

fn charge(charge: &Charge, mandate: Option<(MandateKind, MandateStanding)>) -> payments::CardCharge {
    let challenge = charge.challenge.as_ref();
    let operation = |operation: &Operation| payments::CardOperation {
        kind: match operation.kind {
            OperationKind::Authorize => "AUTHORIZE",
            OperationKind::Capture => "CAPTURE",
            OperationKind::Void => "VOID",
            OperationKind::Expire => "EXPIRE",
            OperationKind::Refund => "REFUND",
        }
        .to_owned(),
        amount_minor_units: operation.amount,
        asked_at: Some(timestamp(operation.asked_at)),
    };
    let left = |left: &Left| payments::GatewayAttempt {
        gateway: left.gateway.to_string(),
        why: match left.why {
            LeftBecause::Unreachable => "UNREACHABLE",
            LeftBecause::Overloaded => "OVERLOADED",
            LeftBecause::BreakerOpen => "BREAKER_OPEN",
            LeftBecause::Refused => "REFUSED",
        }
        .to_owned(),
    };
    payments::CardCharge {
        vault_token: charge.token.to_string(),
        gateway: charge.gateway.to_string(),
        charge_id: charge.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        challenge_url: challenge.and_then(|challenge| challenge.url.clone()).unwrap_or_default(),
        challenge_id: challenge.map(|challenge| challenge.id.clone()).unwrap_or_default(),
        in_progress: charge.operations.iter().map(operation).collect(),
        left: charge.left.iter().map(left).collect(),
        risk_score: charge.risk.as_ref().and_then(|risk| risk.score).map(Score::ten_thousandths),
        review: charge.risk.as_ref().is_some_and(|risk| risk.review),
        risk_rules_version: charge.risk.as_ref().map(|risk| risk.rules.clone()).unwrap_or_default(),
        authentication: charge.authentication.as_str().to_owned(),
        authentication_article: charge.article().unwrap_or_default().to_owned(),
        authentication_turned_down: charge.turned_down.map(Authentication::as_str).unwrap_or_default().to_owned(),
        authentication_turned_down_article: charge.turned_down.and_then(Authentication::article).unwrap_or_default().to_owned(),
        mandate: mandate.map_or(payments::MandateKind::Unspecified, |(kind, _)| mandate_kind(kind)).into(),
        mandate_state: mandate.map(|(_, standing)| standing.as_str()).unwrap_or_default().to_owned(),
        mandate_id: charge.under.as_ref().map(|under| under.mandate.to_string()).unwrap_or_default(),
        fraud_reported_at: charge.fraud_reported_at.map(timestamp),
    }
}

fn mandate_kind(kind: MandateKind) -> payments::MandateKind {
    match kind {
        MandateKind::Recurring => payments::MandateKind::Recurring,
        MandateKind::TrustedPayee => payments::MandateKind::TrustedPayee,
    }
}

fn status(phase: Phase, in_transit: bool) -> PaymentStatus {
    match phase {
        Phase::Authorized => PaymentStatus::Authorized,
        Phase::Captured if in_transit => PaymentStatus::InTransit,
        Phase::Captured => PaymentStatus::Completed,
        Phase::Returned => PaymentStatus::Returned,
        Phase::Declined => PaymentStatus::Declined,
        Phase::Voided => PaymentStatus::Voided,
        Phase::Expired => PaymentStatus::Expired,
        Phase::Pending => PaymentStatus::Pending,
        Phase::ActionRequired => PaymentStatus::RequiresAction,
    }
}

/// The short form, for batches: nothing of the entry is copied but what the receipt holds.
pub(crate) fn receipt(answer: &Answer) -> PaymentReceipt {
    let (status, reason) = match &answer.entry.body {
        Body::PaymentCreated(NewPayment { declined: declined @ Some(_), .. }) => (PaymentStatus::Declined, *declined),
        Body::PaymentCreated(NewPayment { card: Some(_), .. }) => (PaymentStatus::Pending, None),
        Body::PaymentCreated(NewPayment { hold_s: 1.., .. }) => (PaymentStatus::Authorized, None),
        Body::PaymentCreated(NewPayment { payee_shard: Some(_), .. }) => (PaymentStatus::InTransit, None),
        Body::PaymentCreated(_) => (PaymentStatus::Completed, None),
        other => unreachable!("a payment's command leads to a payment's entry, not to {other:?}"),
    };
    let Position { shard, epoch, sequence } = &answer.position;
    let mut payment_id = String::with_capacity(PAYMENT_ID_BYTES);
    write!(payment_id, "pay_{}_{}_{}_{}", shard.zone, shard.index, epoch.0, sequence.0).expect("a string has room");
    debug_assert_eq!(payment_id, PaymentId::from(answer.position.clone()).to_string());
    PaymentReceipt { payment_id, status: status.into(), reason: text(reason) }
}

/// A user's balance in an amount's currency after an entry that posted to it.
pub(crate) fn balance_after(entry: &Entry, owner: UserId, currency: Currency) -> Option<common::Money> {
    let posting = entry.postings.iter().find(|posting| posting.account == Account::Wallet(owner) && posting.currency == currency)?;
    Some(money(posting.balance_after, currency))
}

fn money(minor_units: i64, currency: Currency) -> common::Money {
    common::Money { minor_units, currency_code: currency.code().to_owned() }
}

pub(crate) fn balance(currency: Currency, account: &Wallet) -> wallet::Balance {
    wallet::Balance {
        currency_code: currency.code().to_owned(),
        booked_minor_units: account.balance,
        held_minor_units: account.held,
        available_minor_units: account.available(),
        closed: account.closed,
    }
}

pub(crate) fn line(line: Line) -> wallet::StatementLine {
    let kind = match line.kind {
        LineKind::Deposit => wallet::LineKind::Deposit,
        LineKind::Withdrawal => wallet::LineKind::Withdrawal,
        LineKind::PaymentSent => wallet::LineKind::PaymentSent,
        LineKind::PaymentReceived => wallet::LineKind::PaymentReceived,
        LineKind::PaymentReturned => wallet::LineKind::PaymentReturned,
        LineKind::RefundSent => wallet::LineKind::RefundSent,
        LineKind::RefundReceived => wallet::LineKind::RefundReceived,
    };
    let Sequence(sequence) = line.id.sequence();
    wallet::StatementLine {
        booked_at: Some(timestamp(line.at)),
        kind: kind.into(),
        amount_minor_units: line.amount,
        balance_minor_units: line.balance,
        payment_id: line.payment.map(|id| id.to_string()).unwrap_or_default(),
        counterparty_user_id: line.counterparty.map(UserId::get).unwrap_or_default(),
        reference: line.reference,
        sequence,
    }
}
