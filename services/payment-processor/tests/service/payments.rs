//! One payment at a time.

use paymesh_contract::payments::v1::{
    CapturePaymentRequest, GetPaymentRequest, GetRequestOutcomeRequest, ListPaymentsRequest, PaymentStatus, RefundPaymentRequest,
    RefundStatus, VoidPaymentRequest,
};
use prost::Message as _;
use tonic::Code;

use crate::support::{Node, hold, id, pay, refusal, refused};

fn capture(payment_id: &str, amount: Option<i64>) -> CapturePaymentRequest {
    CapturePaymentRequest { request_id: id(), payment_id: payment_id.to_owned(), amount_minor_units: amount }
}

fn void(payment_id: &str) -> VoidPaymentRequest {
    VoidPaymentRequest { request_id: id(), payment_id: payment_id.to_owned() }
}

fn refund(payment_id: &str, amount: Option<i64>) -> RefundPaymentRequest {
    RefundPaymentRequest { request_id: id(), payment_id: payment_id.to_owned(), amount_minor_units: amount }
}

#[tokio::test]
async fn a_payment_within_a_shard_is_completed_at_once() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0)]).await;
    let answer = node.payments().create_payment(pay(3, 6, 400)).await.expect("a payment").into_inner();
    let payment = answer.payment.expect("a payment");
    assert_eq!((payment.status(), payment.captured_minor_units, payment.reference.as_str()), (PaymentStatus::Completed, 400, "from 3"));
    assert_eq!(payment.payee_shard.as_ref().map(|shard| (shard.zone.as_str(), shard.shard)), Some(("eu", 0)));
    let position = answer.position.expect("a position");
    assert_eq!(payment.payment_id, format!("pay_eu_0_{}_{}", position.epoch, position.sequence));
    assert_eq!((node.balance(3).await, node.balance(6).await), ((600, 0), (400, 0)));
    assert_eq!(node.payment(&payment.payment_id).await, payment);
    node.close().await;
}

#[tokio::test]
async fn a_payment_to_another_shard_arrives_and_its_refund_comes_back() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0)]).await;
    let created = node.payments().create_payment(pay(3, 4, 400)).await.expect("a payment").into_inner().payment.expect("a payment");
    assert_eq!(created.status(), PaymentStatus::InTransit);
    assert_eq!(created.payee_shard.as_ref().map(|shard| shard.shard), Some(1));
    node.until(&created.payment_id, PaymentStatus::Completed).await;
    assert_eq!((node.balance(3).await, node.balance(4).await), ((600, 0), (400, 0)));

    let refunded = node.payments().refund_payment(refund(&created.payment_id, Some(150))).await.expect("a refund").into_inner();
    assert_eq!((refunded.status(), refunded.amount_minor_units), (RefundStatus::Pending, 150));
    let payment = refunded.payment.expect("a payment");
    assert_eq!((payment.status(), payment.refunded_minor_units), (PaymentStatus::Completed, 150));
    node.until_balance(3, 750).await;
    assert_eq!(node.balance(4).await, (250, 0));
    node.close().await;
}

#[tokio::test]
async fn money_for_a_payee_without_the_account_comes_back() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0)]).await;
    let request = paymesh_contract::wallet::v1::CloseAccountRequest { request_id: id(), user_id: 4, currency_code: "EUR".to_owned() };
    node.wallets().close_account(request).await.expect("a closed account");
    let payment = node.payments().create_payment(pay(3, 4, 400)).await.expect("a payment").into_inner().payment.expect("a payment");
    let returned = node.until(&payment.payment_id, PaymentStatus::Returned).await;
    assert_eq!(returned.reason, "PAYEE_ACCOUNT_CLOSED");
    assert_eq!(node.balance(3).await, (1_000, 0));
    node.close().await;
}

#[tokio::test]
async fn a_decline_is_an_answer() {
    let node = Node::start().await;
    node.users(&[(3, 100), (6, 0)]).await;
    let payment = node.payments().create_payment(pay(3, 6, 101)).await.expect("an answer").into_inner().payment.expect("a payment");
    assert_eq!((payment.status(), payment.reason.as_str()), (PaymentStatus::Declined, "INSUFFICIENT_FUNDS"));
    assert_eq!(node.balance(3).await, (100, 0));
    node.close().await;
}

#[tokio::test]
async fn a_hold_is_captured_in_part_once() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0)]).await;
    let held = node.payments().create_payment(hold(3, 6, 500)).await.expect("a hold").into_inner().payment.expect("a payment");
    assert_eq!(held.status(), PaymentStatus::Authorized);
    let (created, expires) = (held.created_at.expect("a time"), held.expires_at.expect("a time"));
    assert_eq!(expires.seconds - created.seconds, 7 * 24 * 3600);
    assert_eq!(node.balance(3).await, (1_000, 500));

    let too_much = node.payments().capture_payment(capture(&held.payment_id, Some(501))).await;
    assert_eq!(refused(too_much), refusal(Code::OutOfRange, "AMOUNT_EXCEEDS_AUTHORIZATION", "amount_minor_units"));
    let nothing = node.payments().capture_payment(capture(&held.payment_id, Some(0))).await;
    assert_eq!(refused(nothing), refusal(Code::InvalidArgument, "INVALID_FIELD", "amount_minor_units"));
    let not_yet = node.payments().refund_payment(refund(&held.payment_id, None)).await;
    assert_eq!(refused(not_yet), refusal(Code::FailedPrecondition, "PAYMENT_NOT_REFUNDABLE", ""));

    let captured = node.payments().capture_payment(capture(&held.payment_id, Some(200))).await.expect("a capture").into_inner();
    let payment = captured.payment.expect("a payment");
    assert_eq!((payment.status(), payment.captured_minor_units), (PaymentStatus::Completed, 200));
    assert_eq!((node.balance(3).await, node.balance(6).await), ((800, 0), (200, 0)));
    for again in [
        refused(node.payments().capture_payment(capture(&held.payment_id, None)).await),
        refused(node.payments().void_payment(void(&held.payment_id)).await),
    ] {
        assert_eq!(again, refusal(Code::FailedPrecondition, "PAYMENT_NOT_AUTHORIZED", ""));
    }
    node.close().await;
}

#[tokio::test]
async fn a_capture_for_another_shard_is_in_transit_until_it_arrives() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0)]).await;
    let held = node.payments().create_payment(hold(3, 4, 500)).await.expect("a hold").into_inner().payment.expect("a payment");
    let captured = node.payments().capture_payment(capture(&held.payment_id, None)).await.expect("a capture").into_inner();
    assert_eq!(captured.payment.expect("a payment").status(), PaymentStatus::InTransit);
    node.until(&held.payment_id, PaymentStatus::Completed).await;
    assert_eq!(node.balance(4).await, (500, 0));
    node.close().await;
}

#[tokio::test]
async fn a_hold_is_voided_or_runs_out() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0)]).await;
    let first = node.payments().create_payment(hold(3, 6, 300)).await.expect("a hold").into_inner().payment.expect("a payment");
    let voided = node.payments().void_payment(void(&first.payment_id)).await.expect("a void").into_inner();
    assert_eq!(voided.payment.expect("a payment").status(), PaymentStatus::Voided);
    let mut short = hold(3, 6, 300);
    short.hold_duration = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let second = node.payments().create_payment(short).await.expect("a hold").into_inner().payment.expect("a payment");
    node.time.pass(61);
    let late = node.payments().capture_payment(capture(&second.payment_id, None)).await;
    assert_eq!(refused(late), refusal(Code::FailedPrecondition, "PAYMENT_NOT_AUTHORIZED", ""));
    node.until(&second.payment_id, PaymentStatus::Expired).await;
    assert_eq!(node.balance(3).await, (1_000, 0));
    node.close().await;
}

#[tokio::test]
async fn the_same_request_gets_the_same_bytes_and_another_body_names_its_field() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0), (6, 0)]).await;
    let request = pay(3, 4, 100);
    let first = node.payments().create_payment(request.clone()).await.expect("a payment").into_inner();
    let id = first.payment.as_ref().expect("a payment").payment_id.clone();
    node.until(&id, PaymentStatus::Completed).await;
    let ask = refund(&id, Some(40));
    let refunded = node.payments().refund_payment(ask.clone()).await.expect("a refund").into_inner();
    node.until_balance(3, 940).await;

    let again = node.payments().create_payment(request.clone()).await.expect("the same").into_inner();
    assert_eq!(again.encode_to_vec(), first.encode_to_vec(), "the payment has moved on, the answer has not");
    let again = node.payments().refund_payment(ask.clone()).await.expect("the same").into_inner();
    assert_eq!(again.encode_to_vec(), refunded.encode_to_vec());
    assert_eq!(node.balance(3).await, (940, 0), "nothing moved twice");

    let reused = |field: &str| refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", field);
    let mut other = request.clone();
    other.payee_id = 6;
    assert_eq!(refused(node.payments().create_payment(other).await), reused("payee_id"));
    let mut other = request.clone();
    other.amount = crate::support::euro(101);
    assert_eq!(refused(node.payments().create_payment(other).await), reused("amount"));
    let mut other = request.clone();
    other.reference.push('!');
    assert_eq!(refused(node.payments().create_payment(other).await), reused("reference"));
    let mut other = request.clone();
    other.capture_mode = 2;
    assert_eq!(refused(node.payments().create_payment(other).await), reused("capture_mode"));
    let other = RefundPaymentRequest { amount_minor_units: Some(41), ..ask.clone() };
    assert_eq!(refused(node.payments().refund_payment(other).await), reused("amount_minor_units"));
    let other = VoidPaymentRequest { request_id: ask.request_id, payment_id: id };
    assert_eq!(refused(node.payments().void_payment(other).await), reused("request"));
    node.close().await;
}

#[tokio::test]
async fn refunds_never_exceed_the_capture_however_many_race() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 10_000)]).await;
    let payment = node.payments().create_payment(pay(3, 6, 1_000)).await.expect("a payment").into_inner().payment.expect("a payment");
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (mut client, request) = (node.payments(), refund(&payment.payment_id, Some(30)));
        racers.spawn(async move { client.refund_payment(request).await });
    }
    let answers = racers.join_all().await;
    let (made, over): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 33, "1,000 is 33 times 30 and a rest");
    for answer in over {
        assert_eq!(refused(answer), refusal(Code::OutOfRange, "AMOUNT_EXCEEDS_CAPTURE", "amount_minor_units"));
    }
    let rest = node.payments().refund_payment(refund(&payment.payment_id, None)).await.expect("the rest").into_inner();
    assert_eq!((rest.amount_minor_units, rest.status()), (10, RefundStatus::Completed));
    assert_eq!(node.payment(&payment.payment_id).await.refunded_minor_units, 1_000);
    assert_eq!((node.balance(3).await, node.balance(6).await), ((1_000, 0), (10_000, 0)));
    node.close().await;
}

#[tokio::test]
async fn a_payee_that_spent_the_money_cannot_refund_it() {
    let node = Node::start().await;
    node.users(&[(3, 100), (6, 0), (9, 0)]).await;
    let payment = node.payments().create_payment(pay(3, 6, 100)).await.expect("a payment").into_inner().payment.expect("a payment");
    node.payments().create_payment(pay(6, 9, 60)).await.expect("a payment");
    let broke = node.payments().refund_payment(refund(&payment.payment_id, None)).await;
    assert_eq!(refused(broke), refusal(Code::FailedPrecondition, "PAYEE_INSUFFICIENT_FUNDS", ""));
    node.close().await;
}

#[tokio::test]
async fn who_or_what_does_not_exist_is_named() {
    let node = Node::start().await;
    node.users(&[(3, 100)]).await;
    let mut payments = node.payments();
    let unknown = |reason: &str, field: &str| refusal(Code::NotFound, reason, field);
    assert_eq!(refused(payments.create_payment(pay(3, 99, 1)).await), unknown("USER_NOT_FOUND", "payee_id"));
    assert_eq!(refused(payments.create_payment(pay(99, 3, 1)).await), unknown("USER_NOT_FOUND", "payer_id"));
    let mut yen = pay(3, 99, 1);
    yen.amount.as_mut().expect("set").currency_code = "JPY".to_owned();
    node.users(&[(99, 0)]).await;
    assert_eq!(refused(payments.create_payment(yen).await), unknown("ACCOUNT_NOT_FOUND", ""));
    for id in ["pay_eu_0_1_999999", "pay_eu_99_1_1", "pay_mars_0_1_1", "pay_directory_0_1_1", "pay_eu_0_77_2"] {
        let get = payments.get_payment(GetPaymentRequest { payment_id: id.to_owned(), read: None }).await;
        assert_eq!(refused(get), unknown("PAYMENT_NOT_FOUND", ""), "{id}");
        assert_eq!(refused(payments.void_payment(void(id)).await).1, "PAYMENT_NOT_FOUND", "{id}");
    }
    // A deposit's position names no payment.
    assert_eq!(
        refused(payments.get_payment(GetPaymentRequest { payment_id: "pay_eu_0_1_2".to_owned(), read: None }).await).1,
        "PAYMENT_NOT_FOUND"
    );
    let wrong = payments.get_payment(GetPaymentRequest { payment_id: "pay_eu_00_1_2".to_owned(), read: None }).await;
    assert_eq!(refused(wrong), refusal(Code::InvalidArgument, "INVALID_FIELD", "payment_id"));
    node.close().await;
}

#[tokio::test]
async fn a_payers_payments_are_listed_once_newest_first_over_all_currencies() {
    let node = Node::start().await;
    node.users(&[(3, 100_000), (6, 0)]).await;
    for user in [3, 6] {
        let open = paymesh_contract::wallet::v1::OpenAccountRequest { request_id: id(), user_id: user, currency_code: "USD".to_owned() };
        node.wallets().open_account(open).await.expect("an account");
    }
    let mut dollars = crate::support::deposit(3, 100_000);
    dollars.amount.as_mut().expect("set").currency_code = "USD".to_owned();
    node.wallets().deposit(dollars).await.expect("a deposit");
    let mut made = Vec::new();
    for number in 0..53 {
        let mut request = pay(3, 6, 1 + number);
        // Three of EUR, then a run of USD, then mixed: chains of different lengths and densities.
        if number >= 3 && (number < 30 || number % 2 == 0) {
            request.amount.as_mut().expect("set").currency_code = "USD".to_owned();
        }
        made.push(node.payments().create_payment(request).await.expect("a payment").into_inner().payment.expect("a payment"));
    }
    made.reverse();
    for page_size in [1, 7, 53, 1_000] {
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListPaymentsRequest { payer_id: 3, page_size, page_token, read: None };
            let page = node.payments().list_payments(request).await.expect("a page").into_inner();
            assert!(page.payments.len() <= page_size as usize);
            listed.extend(page.payments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            assert!(listed.len() <= made.len(), "no end with pages of {page_size}");
        }
        assert_eq!(listed, made, "pages of {page_size}");
    }
    let wrong =
        node.payments().list_payments(ListPaymentsRequest { payer_id: 3, page_size: 0, page_token: "x".to_owned(), read: None }).await;
    assert_eq!(refused(wrong), refusal(Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token"));
    let wrong =
        node.payments().list_payments(ListPaymentsRequest { payer_id: 3, page_size: 1_001, page_token: String::new(), read: None }).await;
    assert_eq!(refused(wrong), refusal(Code::InvalidArgument, "INVALID_FIELD", "page_size"));
    node.close().await;
}

#[tokio::test]
async fn what_became_of_a_request_can_be_asked_by_its_user() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (6, 0)]).await;
    let request = pay(3, 6, 400);
    let outcome = |user_id, request_id: &str| GetRequestOutcomeRequest { user_id, request_id: request_id.to_owned() };
    let nothing = node.payments().get_request_outcome(outcome(3, &request.request_id)).await;
    assert_eq!(refused(nothing), refusal(Code::NotFound, "REQUEST_NOT_FOUND", ""));
    let made = node.payments().create_payment(request.clone()).await.expect("a payment").into_inner();
    let found = node.payments().get_request_outcome(outcome(3, &request.request_id)).await.expect("an outcome").into_inner();
    assert_eq!((found.kind.as_str(), &found.payment, &found.position), ("payment_created", &made.payment, &made.position));
    assert_eq!(found.recorded_at, made.payment.expect("a payment").created_at);
    let others = node.payments().get_request_outcome(outcome(6, &request.request_id)).await;
    assert_eq!(refused(others), refusal(Code::NotFound, "REQUEST_NOT_FOUND", ""));
    node.close().await;
}
