//! Payments by card over a whole mesh: entered anywhere, charged at the payer's home through the vault of their zone, and every charge that the acquirers have is one
//! that the books have.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    audit::v1::{ReadAuditRequest, audit_service_client::AuditServiceClient},
    payments::v1::{
        ByCard, CaptureMode, CapturePaymentRequest, ConfirmPaymentRequest, CreatePaymentRequest, CreatePaymentsRequest, GetPaymentRequest,
        ListPaymentsRequest, Payment, PaymentStatus, RefundPaymentRequest, RefundStatus, VoidPaymentRequest, payment_outcome::Outcome,
        payment_service_client::PaymentServiceClient,
    },
    vault::v1::{CardDetails, TokenizeRequest, vault_service_client::VaultServiceClient},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::{
    acquirers::{Acquirers, Listed},
    callers,
    support::{TestMesh, four_regions_with_vaults, payment, seed},
    tokens::Issuer,
};

pub(crate) const VISA: &str = "4242424242424242";
pub(crate) const SETTLED_WAIT_MAX: Duration = Duration::from_secs(90);

/// A mesh with acquirers, in which user 10 (US) and 11 (DE) pay by card, and 12 (US), 13 (DE) and 20 to 23 are paid. No zone is under PSD2: what acquirers are
/// asked for is then all that cardholders are asked for.
async fn started() -> (TestMesh, Acquirers) {
    started_with(&four_regions_with_vaults().replace("[GDPR, PSD2]", "[GDPR]")).await
}

pub(crate) async fn started_with(regions: &str) -> (TestMesh, Acquirers) {
    let mut mesh = TestMesh::new(regions);
    let acquirers = Acquirers::start(&mesh);
    mesh.start_all();
    for (user, country) in [(10, "US"), (11, "DE"), (12, "US"), (13, "DE")] {
        mesh.enrol("us_west", user, country, 0).await;
    }
    (mesh, acquirers)
}

pub(crate) async fn token(mesh: &TestMesh, user_id: u64, number: &str) -> String {
    let card = CardDetails { number: number.to_owned(), expiry_month: 7, expiry_year: 2031 };
    let request = TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id, card: Some(card), sealed_card: None };
    let taken = VaultServiceClient::new(mesh.channel("us_west")).tokenize(request).await.unwrap().into_inner();
    taken.description.unwrap().vault_token
}

pub(crate) fn by_card(token: &str, payer: u64, payee: u64, minor: i64) -> CreatePaymentRequest {
    CreatePaymentRequest { card: Some(ByCard { vault_token: token.to_owned(), ..ByCard::default() }), ..payment(payer, payee, minor) }
}

pub(crate) fn held(token: &str, payer: u64, payee: u64, minor: i64) -> CreatePaymentRequest {
    CreatePaymentRequest { capture_mode: CaptureMode::Manual.into(), ..by_card(token, payer, payee, minor) }
}

pub(crate) async fn pay(mesh: &TestMesh, via: &str, request: CreatePaymentRequest) -> Payment {
    mesh.payments(via).create_payment(request).await.unwrap().into_inner().payment.unwrap()
}

pub(crate) async fn look(mesh: &TestMesh, via: &str, payment: &str) -> Result<Payment, Status> {
    let request = GetPaymentRequest { payment_id: payment.to_owned(), read: None };
    Ok(mesh.payments(via).get_payment(request).await?.into_inner().payment.unwrap())
}

/// The payment once its acquirer is asked for nothing any more and its money has arrived.
pub(crate) async fn settled(mesh: &TestMesh, via: &str, payment: &str) -> Payment {
    let until = Instant::now() + SETTLED_WAIT_MAX;
    loop {
        let seen = look(mesh, via, payment).await;
        if let Ok(payment) = &seen
            && payment.card.as_ref().is_none_or(|card| card.in_progress.is_empty())
            && !matches!(payment.status(), PaymentStatus::Pending | PaymentStatus::InTransit)
        {
            return payment.clone();
        }
        assert!(Instant::now() < until, "it does not come to rest: {seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn reason(status: &Status) -> String {
    Fault::from_status(status).reason.into_owned()
}

pub(crate) fn request_id() -> String {
    Uuid::now_v7().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_acquirer_makes_of_a_card_is_what_the_payment_comes_to() {
    let (mesh, mut acquirers) = started().await;
    let mut paid = BTreeMap::new();
    for (number, status, why, gateway, state) in [
        (VISA, PaymentStatus::Completed, "", "a", "captured"),
        ("4000000000000002", PaymentStatus::Declined, "CARD_DECLINED", "a", "declined"),
        ("4000000000009995", PaymentStatus::Declined, "CARD_INSUFFICIENT_FUNDS", "a", "declined"),
        ("4000000000000069", PaymentStatus::Declined, "CARD_EXPIRED", "a", "declined"),
        // What the acquirer does and cannot say is looked up, and is not done again elsewhere.
        ("4000009999000014", PaymentStatus::Completed, "", "a", "captured"),
        ("4000009999000048", PaymentStatus::Completed, "", "a", "captured"),
        ("4000009999000055", PaymentStatus::Completed, "", "a", "captured"),
        ("4000009999000063", PaymentStatus::Completed, "", "a", "captured"),
        ("4000009999000071", PaymentStatus::Completed, "", "a", "captured"),
        ("4000009999000089", PaymentStatus::Completed, "", "a", "captured"),
        // Certain that nothing was done: the other is asked, and does no better.
        ("4000009999000097", PaymentStatus::Declined, "GATEWAY_UNAVAILABLE", "b", ""),
    ] {
        for (payer, payee) in [(10, 12), (11, 13), (11, 12)] {
            let token = token(&mesh, payer, number).await;
            let minor = 1_000;
            let made = pay(&mesh, "asia_pacific", by_card(&token, payer, payee, minor)).await;
            let seen = settled(&mesh, "us_west", &made.payment_id).await;
            assert_eq!((seen.status(), seen.reason.as_str()), (status, why), "{number}: {seen:?}");
            let card = seen.card.as_ref().unwrap();
            let left: Vec<_> = card.left.iter().map(|left| (left.gateway.as_str(), left.why.as_str())).collect();
            assert_eq!((card.vault_token.as_str(), card.gateway.as_str()), (token.as_str(), gateway), "{number}: {left:?} {seen:?}");
            if status == PaymentStatus::Completed {
                *paid.entry(payee).or_insert(0) += minor;
            }
            if state.is_empty() {
                assert_eq!((card.left[0].gateway.as_str(), card.left[0].why.as_str()), ("a", "OVERLOADED"));
                assert!(!acquirers.charges().contains_key(&made.payment_id), "nothing was done");
            } else {
                let captured = if state == "captured" { minor } else { 0 };
                let wanted = Listed { gateway: "a", state: state.to_owned(), captured, refunded: 0 };
                assert_eq!(acquirers.charge(&made.payment_id), wanted, "{number}");
            }
        }
    }
    for payee in [12, 13] {
        assert_eq!(mesh.balance("eu_west", payee).await, paid[&payee]);
    }

    // One that is not there is not asked twice, and the payment goes on elsewhere.
    acquirers.kill("a");
    let token = token(&mesh, 11, VISA).await;
    let made = pay(&mesh, "us_west", by_card(&token, 11, 13, 500)).await;
    let seen = settled(&mesh, "eu_west", &made.payment_id).await;
    let card = seen.card.unwrap();
    assert_eq!((made.status(), card.gateway.as_str(), card.left[0].why.as_str()), (PaymentStatus::Completed, "b", "UNREACHABLE"));
    acquirers.restart("a", &[]);
    assert_eq!(acquirers.charge(&made.payment_id).gateway, "b");

    // A card of another user, of another zone, or of nobody; and one that is no token.
    let of_ten = self::token(&mesh, 10, VISA).await;
    for (request, code, why, field) in [
        (by_card(&of_ten, 12, 10, 5), Code::NotFound, "TOKEN_NOT_FOUND", "card.vault_token"),
        (by_card(&of_ten, 11, 13, 5), Code::InvalidArgument, "INVALID_FIELD", "card.vault_token"),
        (by_card(&format!("card_eu_{}", "a".repeat(32)), 11, 13, 5), Code::NotFound, "TOKEN_NOT_FOUND", "card.vault_token"),
        (by_card("4242424242424242", 11, 13, 5), Code::InvalidArgument, "INVALID_FIELD", "card.vault_token"),
    ] {
        let status = mesh.payments("us_west").create_payment(request).await.unwrap_err();
        let fault = Fault::from_status(&status);
        assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (code, why, Some(field)), "{fault}");
        assert!(!format!("{status:?}").contains("42424242424242"), "{status:?}");
    }
    // What the vault did with a card is in the audit log of its node, also where it was asked from inside.
    for region in ["us_east", "eu_west"] {
        let mut records = AuditServiceClient::new(mesh.channel(region)).read_audit(ReadAuditRequest::default()).await.unwrap().into_inner();
        let mut authorized = 0;
        while let Some(read) = records.message().await.unwrap() {
            authorized += read.records.iter().filter(|record| record.method.ends_with("/Authorize")).count();
        }
        assert!(authorized >= 11, "{region} has {authorized} records of uses of cards");
    }
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_captured_voided_and_refunded_and_a_cardholder_is_waited_for() {
    let (mesh, acquirers) = started().await;
    let token = token(&mesh, 11, VISA).await;
    let via = "asia_pacific";
    let made = pay(&mesh, via, held(&token, 11, 13, 10_000)).await;
    assert_eq!(made.status(), PaymentStatus::Authorized, "{made:?}");
    assert_eq!(acquirers.charge(&made.payment_id).state, "authorized");
    let id = || made.payment_id.clone();
    let capture = |minor| CapturePaymentRequest { request_id: request_id(), payment_id: id(), amount_minor_units: Some(minor) };
    let status = mesh.payments(via).capture_payment(capture(10_001)).await.unwrap_err();
    assert_eq!(reason(&status), "AMOUNT_EXCEEDS_AUTHORIZATION");
    let asked = capture(6_000);
    let captured = mesh.payments(via).capture_payment(asked.clone()).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((captured.status(), captured.captured_minor_units), (PaymentStatus::Completed, 6_000), "{captured:?}");
    let again = mesh.payments("us_east").capture_payment(asked).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((again.status(), again.captured_minor_units), (PaymentStatus::Completed, 6_000), "the same request again");
    let refund = |minor| RefundPaymentRequest { request_id: request_id(), payment_id: id(), amount_minor_units: Some(minor) };
    let refunded = mesh.payments(via).refund_payment(refund(2_500)).await.unwrap().into_inner();
    assert_eq!((refunded.status(), refunded.amount_minor_units), (RefundStatus::Completed, 2_500));
    let status = mesh.payments(via).refund_payment(refund(3_501)).await.unwrap_err();
    assert_eq!(reason(&status), "AMOUNT_EXCEEDS_CAPTURE");
    let listed = acquirers.charge(&made.payment_id);
    assert_eq!((listed.state.as_str(), listed.captured, listed.refunded), ("captured", 6_000, 2_500));
    assert_eq!((mesh.balance(via, 13).await, mesh.balance(via, 11).await), (3_500, 0));

    let voided = pay(&mesh, via, held(&token, 11, 13, 700)).await;
    let request = VoidPaymentRequest { request_id: request_id(), payment_id: voided.payment_id.clone() };
    let voided = mesh.payments(via).void_payment(request).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((voided.status(), acquirers.charge(&voided.payment_id).state.as_str()), (PaymentStatus::Voided, "voided"));

    // A hold of a second runs out by itself.
    let short = prost_types::Duration { seconds: 1, nanos: 0 };
    let brief = pay(&mesh, via, CreatePaymentRequest { hold_duration: Some(short), ..held(&token, 11, 13, 700) }).await;
    let until = Instant::now() + SETTLED_WAIT_MAX;
    while look(&mesh, via, &brief.payment_id).await.unwrap().status() != PaymentStatus::Expired {
        assert!(Instant::now() < until, "the hold stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(acquirers.charge(&brief.payment_id).state, "voided");

    // A cardholder is asked, answers, and the payment goes on; one that answers wrong is declined.
    let challenging = self::token(&mesh, 11, "4000002760003184").await;
    for (answer, status, why) in [("123456", PaymentStatus::Completed, ""), ("000000", PaymentStatus::Declined, "AUTHENTICATION_FAILED")] {
        let waiting = pay(&mesh, via, by_card(&challenging, 11, 13, 900)).await;
        assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{waiting:?}");
        let confirm = || ConfirmPaymentRequest { request_id: request_id(), payment_id: waiting.payment_id.clone() };
        // Not answered yet: it is asked for again.
        let still = mesh.payments(via).confirm_payment(confirm()).await.unwrap().into_inner().payment.unwrap();
        assert_eq!(still.status(), PaymentStatus::RequiresAction, "{still:?}");
        acquirers.answer(&still.card.unwrap().challenge_url, answer);
        let confirmed = mesh.payments(via).confirm_payment(confirm()).await.unwrap().into_inner().payment.unwrap();
        assert_eq!((confirmed.status(), confirmed.reason.as_str()), (status, why), "{confirmed:?}");
        assert_eq!(reason(&mesh.payments(via).confirm_payment(confirm()).await.unwrap_err()), "NO_ACTION_REQUIRED");
    }

    // Many at once, each on its own.
    let slow = self::token(&mesh, 11, "4000009999000022").await;
    let mut payments: Vec<_> = (0..20).map(|_| by_card(&token, 11, 13, 100)).collect();
    payments.push(by_card(&slow, 11, 13, 100));
    payments.push(by_card("nonsense", 11, 13, 100));
    payments.push(payment(11, 13, 100));
    let outcomes = mesh.payments(via).create_payments(CreatePaymentsRequest { payments }).await.unwrap().into_inner().outcomes;
    let statuses: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome.outcome.as_ref().unwrap() {
            Outcome::Receipt(receipt) => receipt.status().as_str_name().to_owned(),
            Outcome::Error(error) => error.reason.clone(),
        })
        .collect();
    assert!(statuses[..20].iter().all(|status| status == "PAYMENT_STATUS_COMPLETED"), "{statuses:?}");
    assert_eq!(&statuses[21..], ["INVALID_FIELD", "PAYMENT_STATUS_DECLINED"], "{statuses:?}");
    let Some(Outcome::Receipt(slow)) = outcomes[20].outcome.clone() else { panic!("{outcomes:?}") };
    assert_eq!(settled(&mesh, via, &slow.payment_id).await.status(), PaymentStatus::Completed);
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_capture_void_and_refund_at_once_the_sums_hold() {
    let (mesh, acquirers) = started().await;
    let token = token(&mesh, 10, VISA).await;
    let regions = mesh.regions();
    for round in 0..3 {
        let made = pay(&mesh, "us_west", held(&token, 10, 12, 100)).await;
        let mut racing = JoinSet::new();
        for racer in 0..64 {
            let (mut client, payment_id) = (mesh.payments(&regions[racer % regions.len()]), made.payment_id.clone());
            racing.spawn(async move {
                let request_id = request_id();
                if racer % 4 == 3 {
                    client.void_payment(VoidPaymentRequest { request_id, payment_id }).await.map(|_| 0)
                } else {
                    let request = CapturePaymentRequest { request_id, payment_id, amount_minor_units: Some(60) };
                    client.capture_payment(request).await.map(|answer| answer.into_inner().payment.unwrap().captured_minor_units)
                }
            });
        }
        let won: Vec<i64> = racing.join_all().await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "round {round}: one of them is carried out");
        let seen = settled(&mesh, "us_east", &made.payment_id).await;
        let listed = acquirers.charge(&made.payment_id);
        assert_eq!((seen.captured_minor_units, listed.captured), (won[0], won[0]), "round {round}: {seen:?}");
        let state = if won[0] == 60 { ("captured", PaymentStatus::Completed) } else { ("voided", PaymentStatus::Voided) };
        assert_eq!((listed.state.as_str(), seen.status()), state, "round {round}");
    }
    let made = pay(&mesh, "us_west", by_card(&token, 10, 12, 100)).await;
    let mut racing = JoinSet::new();
    for racer in 0..64 {
        let (mut client, payment_id) = (mesh.payments(&regions[racer % regions.len()]), made.payment_id.clone());
        racing.spawn(async move {
            let amount = if racer == 0 { 60 } else { 7 };
            let request = RefundPaymentRequest { request_id: request_id(), payment_id, amount_minor_units: Some(amount) };
            client.refund_payment(request).await.map(|answer| answer.into_inner().amount_minor_units)
        });
    }
    let refunded: i64 = racing.join_all().await.into_iter().flatten().sum();
    let seen = settled(&mesh, "us_east", &made.payment_id).await;
    assert!(refunded <= 100 && refunded > 100 - 60, "{refunded}");
    assert_eq!((seen.refunded_minor_units, acquirers.charge(&made.payment_id).refunded), (refunded, refunded));
    mesh.assert_books();
}

/// Whatever is killed while cards are charged, in the end the acquirers' lists and the books agree one to one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_killed_has_a_card_charged_twice_or_forgets_a_charge() {
    let soak = std::env::var_os("PAYMESH_SOAK").is_some_and(|value| value == "1");
    let asked = std::env::var("PAYMESH_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = asked.unwrap_or(if soak { 220 } else { 8 });
    let (mut mesh, mut acquirers) = started().await;
    let mut dice = StdRng::seed_from_u64(seed());
    let mut tokens = BTreeMap::new();
    // Approved; approved with lost, broken and late answers; declined.
    for payer in [10, 11] {
        for number in [VISA, VISA, VISA, "4000009999000014", "4000009999000048", "4000009999000089", "4000000000009995"] {
            tokens.entry(payer).or_insert_with(Vec::new).push(token(&mesh, payer, number).await);
        }
    }
    for _ in 0..rounds {
        let mut paying = JoinSet::new();
        for _ in 0..12 {
            let (payer, payee) = [(10, 12), (11, 13), (11, 12), (10, 13)][dice.random_range(0..4)];
            let token = &tokens[&payer][dice.random_range(0..tokens[&payer].len())];
            let by_hand = dice.random_bool(0.5);
            let request = if by_hand { held(token, payer, payee, 100) } else { by_card(token, payer, payee, 100) };
            let (mut client, after) = (mesh.payments("asia_pacific"), dice.random_range(0..6));
            let wait = Duration::from_millis(dice.random_range(0..150));
            paying.spawn(async move {
                tokio::time::sleep(wait).await;
                let mut request = Request::new(request);
                request.set_timeout(Duration::from_secs(4));
                let Ok(made) = client.create_payment(request).await else { return };
                let payment_id = made.into_inner().payment.unwrap().payment_id;
                // Some of what is held is captured, some is voided, some of what is captured is refunded, and some of it is left.
                let id = request_id;
                let amount_minor_units = Some(40);
                let _ = match after {
                    0 | 1 => client
                        .capture_payment(CapturePaymentRequest { request_id: id(), payment_id: payment_id.clone(), amount_minor_units })
                        .await
                        .map(drop),
                    2 => client.void_payment(VoidPaymentRequest { request_id: id(), payment_id: payment_id.clone() }).await.map(drop),
                    _ => Ok(()),
                };
                if after % 2 == 0 {
                    let _ =
                        client.refund_payment(RefundPaymentRequest { request_id: id(), payment_id, amount_minor_units: Some(15) }).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..400))).await;
        // The home and vault of one zone or of the other, or an acquirer.
        match dice.random_range(0..4) {
            0 => {
                mesh.kill("eu_west");
                mesh.start("eu_west");
            }
            1 => {
                mesh.kill("us_east");
                mesh.start("us_east");
            }
            which => {
                let gateway = if which == 2 { "a" } else { "b" };
                acquirers.kill(gateway);
                tokio::time::sleep(Duration::from_millis(dice.random_range(0..300))).await;
                acquirers.restart(gateway, &[]);
            }
        }
        while paying.join_next().await.is_some() {}
    }

    // All that was ever asked for, by the books, once it has come to rest.
    let mut all = BTreeMap::new();
    for payer in [10, 11] {
        let mut page_token = String::new();
        loop {
            let request = ListPaymentsRequest { payer_id: payer, page_size: 200, page_token, ..ListPaymentsRequest::default() };
            let page = mesh.payments("us_west").list_payments(request).await.unwrap().into_inner();
            for payment in page.payments {
                all.insert(payment.payment_id.clone(), settled(&mesh, "us_west", &payment.payment_id).await);
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
    let mut charges = acquirers.charges();
    for (id, payment) in &all {
        let listed = charges.remove(id).unwrap_or_default();
        let live: Vec<&Listed> = listed.iter().filter(|charge| !["voided", "declined"].contains(&charge.state.as_str())).collect();
        let said = format!("{payment:?}\nand at the acquirers {listed:?}");
        match payment.status() {
            PaymentStatus::Completed | PaymentStatus::Returned => {
                assert_eq!(live.len(), 1, "charged once: {said}");
                let card = payment.card.as_ref().unwrap();
                assert_eq!((live[0].gateway, live[0].captured), (card.gateway.as_str(), payment.captured_minor_units), "{said}");
                if payment.status() == PaymentStatus::Completed {
                    assert_eq!(live[0].refunded, payment.refunded_minor_units, "{said}");
                }
            }
            PaymentStatus::Authorized => {
                assert!(live.len() == 1 && live[0].state == "authorized" && live[0].captured == 0, "held once: {said}");
            }
            _ => assert!(live.is_empty(), "nothing is held or taken: {said}"),
        }
    }
    assert!(charges.is_empty(), "charges that the books do not know: {charges:?}");
    let of = |status: PaymentStatus| all.values().filter(|payment| payment.status() == status).count();
    println!(
        "{rounds} rounds: {} payments, {} completed, {} held, {} declined, {} voided",
        all.len(),
        of(PaymentStatus::Completed),
        of(PaymentStatus::Authorized),
        of(PaymentStatus::Declined),
        of(PaymentStatus::Voided)
    );
    assert!(of(PaymentStatus::Completed) > rounds && of(PaymentStatus::Authorized) > 0, "there was something to lose");
    mesh.assert_books();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_whose_vault_is_in_another_region_charges_cards() {
    let (mesh, _acquirers) = started_with(&crate::support::FOUR_REGIONS.replace(
        "us_west: {primary: false, services: [payment_processor]",
        "us_west: {primary: false, services: [payment_processor, vault]",
    ))
    .await;
    let card = token(&mesh, 10, VISA).await;
    let made = pay(&mesh, "us_east", by_card(&card, 10, 12, 900)).await;
    assert_eq!(made.status(), PaymentStatus::Completed, "{made:?}");
}

/// Whoever has a challenge could answer it, and a card is its payer's.
#[tokio::test(flavor = "multi_thread")]
async fn a_payee_is_told_neither_the_card_nor_the_challenge() {
    let (mesh, _acquirers) = started().await;
    let card = token(&mesh, 10, "4000002760003184").await;
    let waiting = pay(&mesh, "us_west", by_card(&card, 10, 12, 900)).await;
    assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{waiting:?}");
    let issuer = Issuer::of(&mesh);
    let mut payments = PaymentServiceClient::new(callers::unknown(&mesh, "asia_pacific"));
    for (user, is_told) in [("10", true), ("12", false)] {
        let caller = issuer.token(json!({"client_id": "app", "sub": user}));
        let request = GetPaymentRequest { payment_id: waiting.payment_id.clone(), ..GetPaymentRequest::default() };
        let seen = payments.get_payment(callers::by(&caller, request)).await.unwrap().into_inner().payment.unwrap().card.unwrap();
        assert_eq!((seen.vault_token == card, seen.challenge_url.is_empty()), (is_told, !is_told), "user {user}: {seen:?}");
        assert_eq!((seen.vault_token.is_empty(), seen.gateway.is_empty()), (!is_told, false), "user {user}: {seen:?}");
    }
}
