//! Payments that agree to later ones, and those that an issuer wants authenticated: what acquirers are told, and what callers are.

use std::time::Duration;

use paymesh_contract::{
    payments::v1::{ByCard, CancelMandateRequest, ConfirmPaymentRequest, CreatePaymentRequest, MandateKind, Payment, PaymentStatus},
    vault::v1::{AuthorizeRequest, CardholderAuthentication as Known, ScaExemption},
};
use tonic::Code;

use crate::{
    cards::{Does, Shared, asked, by_card, create, started_under_psd2},
    support::{Node, id, refusal, refused},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn with(cents: i64, change: impl FnOnce(&mut ByCard)) -> CreatePaymentRequest {
    let mut request = by_card(cents);
    change(request.card.get_or_insert_default());
    request
}

fn setting_up(cents: i64, kind: MandateKind) -> CreatePaymentRequest {
    with(cents, |card| card.mandate = kind.into())
}

fn under(cents: i64, mandate: &str) -> CreatePaymentRequest {
    with(cents, |card| card.mandate_id = mandate.to_owned())
}

async fn confirm(node: &Node, payment: &Payment) -> Payment {
    let request = ConfirmPaymentRequest { request_id: id(), payment_id: payment.payment_id.clone() };
    node.payments().confirm_payment(request).await.expect("a payment").into_inner().payment.expect("a payment")
}

fn cancel(payment: &Payment) -> CancelMandateRequest {
    CancelMandateRequest { request_id: id(), payment_id: payment.payment_id.clone() }
}

/// What the vault was told last of the cardholder.
fn told(script: &Shared) -> (Known, ScaExemption, bool, bool) {
    let script = script.lock().expect("no test panics with it");
    let last: &AuthorizeRequest = script.authorized.last().expect("it was asked");
    (last.authentication(), last.exemption(), last.recurring, last.sets_up)
}

/// How the payment stands, and its mandate.
fn stands(payment: &Payment) -> (PaymentStatus, &str) {
    (payment.status(), payment.card.as_ref().map_or("", |card| card.mandate_state.as_str()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_is_challenged_first_and_exempt_from_then_on() {
    let (node, script) = started_under_psd2(&[("a", &[Does::Challenges, Does::Approves])]).await;
    let first = create(&node, setting_up(900, MandateKind::Recurring), PATIENCE).await;
    assert_eq!(stands(&first), (PaymentStatus::RequiresAction, "PENDING"), "{first:?}");
    assert_eq!(told(&script), (Known::Challenge, ScaExemption::Unspecified, false, true));
    let early = node.payments().create_payment(under(900, &first.payment_id)).await;
    assert_eq!(refused(early), refusal(Code::FailedPrecondition, "MANDATE_NOT_AUTHENTICATED", ""));
    let first = confirm(&node, &first).await;
    assert_eq!(stands(&first), (PaymentStatus::Completed, "ACTIVE"), "{first:?}");

    let request = under(900, &first.payment_id);
    let later = create(&node, request.clone(), PATIENCE).await;
    assert_eq!(told(&script), (Known::Exempt, ScaExemption::Recurring, true, false));
    let card = later.card.clone().expect("by card");
    assert_eq!((later.status(), card.authentication_article.as_str()), (PaymentStatus::Completed, "RTS Article 14"), "{later:?}");
    assert_eq!((card.mandate_id.as_str(), card.mandate(), card.mandate_state.as_str()), (&*first.payment_id, MandateKind::Unspecified, ""));
    let again = create(&node, request.clone(), PATIENCE).await;
    assert_eq!(again.payment_id, later.payment_id);
    // Also when the card is gone since.
    script.lock().expect("no test panics with it").deleted = true;
    let again = create(&node, request.clone(), PATIENCE).await;
    assert_eq!(again.payment_id, later.payment_id);
    script.lock().expect("no test panics with it").deleted = false;
    let other = CreatePaymentRequest { card: by_card(900).card, ..request };
    assert_eq!(refused(node.payments().create_payment(other).await), refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", "card.mandate_id"));

    // What does not fit is not made in another way.
    let before = asked(&script, &later).len();
    let cases = [
        (under(901, &first.payment_id), Code::InvalidArgument, "MANDATE_DIFFERS", "amount.minor_units"),
        (under(900, &later.payment_id), Code::NotFound, "MANDATE_NOT_FOUND", ""),
        (under(900, "pay_eu_0_1_999999"), Code::NotFound, "MANDATE_NOT_FOUND", ""),
        (under(900, "pay_us_0_1_1"), Code::NotFound, "MANDATE_NOT_FOUND", ""),
        (under(900, "nonsense"), Code::InvalidArgument, "INVALID_FIELD", "card.mandate_id"),
        (with(900, |card| card.mandate = 9), Code::InvalidArgument, "INVALID_FIELD", "card.mandate"),
        (
            with(900, |card| (card.mandate, card.mandate_id) = (1, first.payment_id.clone())),
            Code::InvalidArgument,
            "INVALID_FIELD",
            "card.mandate_id",
        ),
    ];
    for (request, code, reason, field) in cases {
        assert_eq!(refused(node.payments().create_payment(request).await), refusal(code, reason, field));
    }
    assert_eq!(asked(&script, &later).len(), before);

    let wanted = cancel(&first);
    let cancelled = node.payments().cancel_mandate(wanted.clone()).await.expect("it is cancelled").into_inner();
    assert_eq!(stands(cancelled.payment.as_ref().expect("a payment")), (PaymentStatus::Completed, "CANCELLED"));
    let again = node.payments().cancel_mandate(wanted).await.expect("it is the same").into_inner();
    assert_eq!((again.position, stands(again.payment.as_ref().expect("a payment")).1), (cancelled.position, "CANCELLED"));
    let again = node.payments().cancel_mandate(cancel(&first)).await;
    assert_eq!(refused(again), refusal(Code::FailedPrecondition, "MANDATE_CANCELLED", ""));
    assert_eq!(refused(node.payments().cancel_mandate(cancel(&later)).await), refusal(Code::NotFound, "MANDATE_NOT_FOUND", ""));
    let late = node.payments().create_payment(under(900, &first.payment_id)).await;
    assert_eq!(refused(late), refusal(Code::FailedPrecondition, "MANDATE_CANCELLED", ""));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payee_who_is_trusted_is_paid_any_amount_by_a_payer_who_is_there() {
    let script = [Does::Challenges, Does::Approves, Does::Approves, Does::Wants, Does::Challenges];
    let (node, script) = started_under_psd2(&[("a", &script)]).await;
    let first = create(&node, setting_up(900, MandateKind::TrustedPayee), PATIENCE).await;
    assert_eq!(told(&script), (Known::Challenge, ScaExemption::Unspecified, false, false));
    let first = confirm(&node, &first).await;
    assert_eq!(stands(&first), (PaymentStatus::Completed, "ACTIVE"), "{first:?}");
    let later = create(&node, under(90_000, &first.payment_id), PATIENCE).await;
    assert_eq!(told(&script), (Known::Exempt, ScaExemption::TrustedBeneficiary, false, false));
    assert_eq!(later.card.as_ref().map(|card| card.authentication_article.as_str()), Some("RTS Article 13"), "{later:?}");
    // The issuer turns it down, and the payer is asked.
    let waiting = create(&node, under(90_000, &first.payment_id), PATIENCE).await;
    assert_eq!(told(&script), (Known::Challenge, ScaExemption::Unspecified, false, false));
    let card = waiting.card.clone().expect("by card");
    assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{waiting:?}");
    assert_eq!((card.authentication.as_str(), card.authentication_article.as_str()), ("REQUIRED", "PSD2 Article 97"));
    assert_eq!((&*card.authentication_turned_down, &*card.authentication_turned_down_article), ("EXEMPT", "RTS Article 13"));
    node.close().await;

    // The payer of a series is not.
    let (node, script) = started_under_psd2(&[("a", &[Does::Challenges, Does::Approves, Does::Wants])]).await;
    let first = create(&node, setting_up(900, MandateKind::Recurring), PATIENCE).await;
    let first = confirm(&node, &first).await;
    let declined = create(&node, under(900, &first.payment_id), PATIENCE).await;
    assert_eq!((declined.status(), declined.reason.as_str()), (PaymentStatus::Declined, "AUTHENTICATION_FAILED"), "{declined:?}");
    assert_eq!(told(&script), (Known::Exempt, ScaExemption::Recurring, true, false));
    node.close().await;
}

/// Under another reference: acquirers do not decide twice under one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exemption_that_is_turned_down_is_asked_for_again_once_with_a_challenge() {
    let again = ["a authorize.0", "a authorize.1"];
    for does in [
        &[Does::Wants, Does::Challenges][..],
        // What nobody heard of is looked up: the first, and what is asked for after it.
        &[Does::SilentlyWants, Does::Challenges],
        &[Does::Wants, Does::Silence, Does::Challenges],
    ] {
        let (node, script) = started_under_psd2(&[("a", does)]).await;
        let waiting = create(&node, by_card(100), PATIENCE).await;
        assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{does:?}: {waiting:?}");
        let mut asked_for = asked(&script, &waiting);
        asked_for.dedup();
        assert_eq!(asked_for, again, "{does:?}");
        assert_eq!(told(&script).0, Known::Challenge);
        let paid = confirm(&node, &waiting).await;
        assert_eq!(paid.status(), PaymentStatus::Completed, "{does:?}: {paid:?}");
        assert_eq!(told(&script).0, Known::Answered);
        assert_eq!(asked(&script, &paid).last().map(String::as_str), Some("a capture.4"), "{does:?}");
        assert_eq!(node.balance(2).await, (100, 0));
        node.close().await;
    }

    let (node, script) = started_under_psd2(&[("a", &[Does::Wants; 9])]).await;
    let declined = create(&node, by_card(100), PATIENCE).await;
    assert_eq!((declined.status(), declined.reason.as_str()), (PaymentStatus::Declined, "AUTHENTICATION_FAILED"), "{declined:?}");
    assert_eq!(asked(&script, &declined), again);
    node.close().await;

    // The gateway did nothing the second time: the next is asked, with a challenge.
    let (node, script) = started_under_psd2(&[("a", &[Does::Wants, Does::Nothing]), ("b", &[Does::Challenges])]).await;
    let waiting = create(&node, by_card(100), PATIENCE).await;
    assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{waiting:?}");
    assert_eq!(asked(&script, &waiting), ["a authorize.0", "a authorize.1", "b authorize.2"]);
    assert_eq!(told(&script).0, Known::Challenge);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exemption_whose_refusal_is_heard_of_too_late_is_declined() {
    let (node, script) = started_under_psd2(&[("a", &[Does::SilentlyWants])]).await;
    script.lock().expect("no test panics with it").blind = true;
    let waiting = create(&node, by_card(100), Duration::from_secs(1)).await;
    assert_eq!(waiting.status(), PaymentStatus::Pending, "{waiting:?}");
    node.time.pass(61);
    script.lock().expect("no test panics with it").blind = false;
    let declined = node.until(&waiting.payment_id, PaymentStatus::Declined).await;
    assert_eq!(declined.reason, "AUTHENTICATION_FAILED", "{declined:?}");
    assert_eq!(asked(&script, &declined), ["a authorize.0"]);
    node.close().await;
}
