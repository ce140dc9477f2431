//! When cardholders are challenged, over a whole mesh (PSD2): exemptions, mandates and low risks, whatever is killed in between.

use std::{
    fs,
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    payments::v1::{
        ByCard, CancelMandateRequest, ConfirmPaymentRequest, CreatePaymentRequest, MandateKind, Payment, PaymentStatus, ReportFraudRequest,
        VoidPaymentRequest, payment_service_client::PaymentServiceClient,
    },
};
use serde_json::json;
use tonic::Code;

use crate::{
    acquirers::Acquirers,
    by_card::{SETTLED_WAIT_MAX, VISA, by_card, pay, reason, request_id, settled, started_with, token},
    callers,
    support::{TestMesh, four_regions_with_vaults, payment},
    tokens::Issuer,
};

/// Under PSD2: what is small is exempt for a while, and for as long as its cardholder answers a challenge now and then.
#[tokio::test(flavor = "multi_thread")]
async fn five_small_payments_of_a_european_are_exempt_and_the_sixth_is_challenged() {
    let regions = four_regions_with_vaults();
    assert!(regions.contains("PSD2"), "{regions}");
    let (mut mesh, acquirers) = started_with(&regions).await;
    let via = "asia_pacific";
    let european = token(&mesh, 11, VISA).await;
    let how = |payment: &Payment| {
        let card = payment.card.clone().unwrap();
        (payment.status(), card.authentication, card.authentication_article)
    };
    let exempt = |status| (status, "EXEMPT".to_owned(), "RTS Article 16".to_owned());
    let required = |status| (status, "REQUIRED".to_owned(), "PSD2 Article 97".to_owned());
    let mut paid = 0;
    for round in 0..3 {
        for number in 0..5 {
            let made = pay(&mesh, via, by_card(&european, 11, 13, 1_000 + number)).await;
            assert_eq!(how(&made), exempt(PaymentStatus::Completed), "round {round}, payment {number}: {made:?}");
            paid += 1_000 + number;
            if round == 1 && number == 2 {
                // What was counted is in the journal, and in what was not projected yet.
                mesh.kill("eu_west");
                mesh.start("eu_west");
            }
        }
        let waiting = pay(&mesh, via, by_card(&european, 11, 13, 100)).await;
        assert_eq!(how(&waiting), required(PaymentStatus::RequiresAction), "round {round}: {waiting:?}");
        if round == 0 {
            // Nobody answers this one: the next is challenged as well.
            let request = VoidPaymentRequest { request_id: request_id(), payment_id: waiting.payment_id.clone() };
            mesh.payments(via).void_payment(request).await.unwrap();
            let next = pay(&mesh, via, by_card(&european, 11, 13, 100)).await;
            assert_eq!(how(&next), required(PaymentStatus::RequiresAction), "{next:?}");
            acquirers.answer(&next.card.as_ref().unwrap().challenge_url, "000000");
            let confirm = ConfirmPaymentRequest { request_id: request_id(), payment_id: next.payment_id.clone() };
            let declined = mesh.payments(via).confirm_payment(confirm).await.unwrap().into_inner().payment.unwrap();
            assert_eq!((declined.status(), declined.reason.as_str()), (PaymentStatus::Declined, "AUTHENTICATION_FAILED"), "{declined:?}");
        }
        let waiting = pay(&mesh, via, by_card(&european, 11, 13, 3_100)).await;
        assert_eq!(how(&waiting), required(PaymentStatus::RequiresAction), "round {round}: {waiting:?}");
        if round == 1 {
            mesh.kill("eu_west");
            mesh.start("eu_west");
        }
        acquirers.answer(&waiting.card.as_ref().unwrap().challenge_url, "123456");
        let confirm = ConfirmPaymentRequest { request_id: request_id(), payment_id: waiting.payment_id.clone() };
        let confirmed = mesh.payments(via).confirm_payment(confirm).await.unwrap().into_inner().payment.unwrap();
        assert_eq!(how(&confirmed), required(PaymentStatus::Completed), "round {round}: {confirmed:?}");
        paid += 3_100;
    }
    // An exemption that the issuer turns down is a challenge too, and begins a new row.
    let strict = token(&mesh, 11, "4000002760003184").await;
    let waiting = pay(&mesh, via, by_card(&strict, 11, 13, 500)).await;
    assert_eq!(how(&waiting), exempt(PaymentStatus::RequiresAction), "{waiting:?}");
    assert_eq!(mesh.balance("eu_west", 13).await, paid);

    // Elsewhere nothing is owed, however often and however much.
    let american = token(&mesh, 10, VISA).await;
    for minor in [100, 100, 100, 100, 100, 100, 100, 50_000] {
        let made = pay(&mesh, via, by_card(&american, 10, 13, minor)).await;
        let (_, authentication, article) = how(&settled(&mesh, "us_west", &made.payment_id).await);
        assert_eq!((authentication.as_str(), article.as_str()), ("NOT_REQUIRED", ""));
        assert_ne!(made.status(), PaymentStatus::RequiresAction, "{made:?}");
    }
    mesh.assert_books();
}

async fn confirm(mesh: &TestMesh, via: &str, waiting: &Payment) -> Payment {
    let confirm = ConfirmPaymentRequest { request_id: request_id(), payment_id: waiting.payment_id.clone() };
    mesh.payments(via).confirm_payment(confirm).await.unwrap().into_inner().payment.unwrap()
}

/// An issuer that declines what is exempt because it wants the cardholder has them challenged, whenever the home is killed: while the acquirer is asked the first time,
/// the second time, and in between.
#[tokio::test(flavor = "multi_thread")]
async fn an_exemption_that_is_declined_is_challenged_once_whatever_is_killed_in_between() {
    let (mut mesh, mut acquirers) = started_with(&four_regions_with_vaults()).await;
    acquirers.restart("a", &["--latency-ms", "400"]);
    let via = "asia_pacific";
    let soft = token(&mesh, 11, "4000009999000105").await;
    let mut paid = 0;
    for wait_ms in [150, 450, 600, 850] {
        let request = by_card(&soft, 11, 13, 500);
        let (mut client, asked) = (mesh.payments(via), request.clone());
        let asking = tokio::spawn(async move { client.create_payment(asked).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        mesh.kill("eu_west");
        mesh.start("eu_west");
        // Whatever that one heard, the same request again is told how it stands.
        let _ = asking.await.unwrap();
        let made = pay(&mesh, via, request).await;
        let waiting = settled(&mesh, via, &made.payment_id).await;
        let card = waiting.card.clone().unwrap();
        assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "killed after {wait_ms} ms: {waiting:?}");
        let how = (card.authentication_article.as_str(), card.authentication_turned_down_article.as_str());
        assert_eq!(how, ("PSD2 Article 97", "RTS Article 16"), "{waiting:?}");
        acquirers.answer(&card.challenge_url, "123456");
        confirm(&mesh, via, &waiting).await;
        let seen = settled(&mesh, via, &made.payment_id).await;
        paid += 500;
        assert_eq!((seen.status(), seen.captured_minor_units), (PaymentStatus::Completed, 500), "killed after {wait_ms} ms: {seen:?}");
        let mut states: Vec<_> = acquirers.charges().remove(&made.payment_id).unwrap().into_iter().map(|charge| charge.state).collect();
        states.sort_unstable();
        assert_eq!(states, ["captured", "declined"], "killed after {wait_ms} ms");
    }
    assert_eq!(mesh.balance("eu_west", 13).await, paid);
    // Its payer was authenticated each time: the row is as new.
    let visa = token(&mesh, 11, VISA).await;
    for _ in 0..5 {
        assert_eq!(pay(&mesh, via, by_card(&visa, 11, 13, 100)).await.card.unwrap().authentication, "EXEMPT");
    }
    mesh.assert_books();
}

/// A series and a payee who is trusted are authenticated once, by their payer, who alone ends them.
#[tokio::test(flavor = "multi_thread")]
async fn a_mandate_outlives_its_home_and_is_its_payers_to_end() {
    let (mut mesh, acquirers) = started_with(&four_regions_with_vaults()).await;
    let via = "asia_pacific";
    let visa = token(&mesh, 11, VISA).await;
    let with = |minor, mandate: MandateKind, mandate_id: &str| {
        let card = ByCard { vault_token: visa.clone(), mandate: mandate.into(), mandate_id: mandate_id.to_owned(), ..ByCard::default() };
        // A payee of another zone, and of the payer's own.
        let payee = if minor == 5_000 { 12 } else { 13 };
        CreatePaymentRequest { card: Some(card), ..payment(11, payee, minor) }
    };
    let issuer = Issuer::of(&mesh);
    let mut as_app = PaymentServiceClient::new(callers::unknown(&mesh, via));
    for (kind, minor, article) in [(MandateKind::Recurring, 5_000, "RTS Article 14"), (MandateKind::TrustedPayee, 7_000, "RTS Article 13")]
    {
        let waiting = pay(&mesh, via, with(minor, kind, "")).await;
        assert_eq!(waiting.status(), PaymentStatus::RequiresAction, "{waiting:?}");
        let id = waiting.payment_id.clone();
        let under = |minor| with(minor, MandateKind::Unspecified, &id);
        let early = mesh.payments(via).create_payment(under(minor)).await.unwrap_err();
        assert_eq!(reason(&early), "MANDATE_NOT_AUTHENTICATED");
        acquirers.answer(&waiting.card.as_ref().unwrap().challenge_url, "123456");
        confirm(&mesh, via, &waiting).await;
        let mandate = settled(&mesh, via, &id).await;
        assert_eq!((mandate.status(), mandate.card.unwrap().mandate_state.as_str()), (PaymentStatus::Completed, "ACTIVE"));

        for round in 0..2 {
            let made = pay(&mesh, "us_west", under(minor)).await;
            let seen = settled(&mesh, via, &made.payment_id).await;
            let card = seen.card.clone().unwrap();
            assert_eq!((seen.status(), card.authentication_article.as_str()), (PaymentStatus::Completed, article), "{seen:?}");
            assert_eq!(card.mandate_id, id);
            if round == 0 {
                mesh.kill("eu_west");
                mesh.start("eu_west");
            }
        }
        let odd = mesh.payments(via).create_payment(CreatePaymentRequest { payee_id: 10, ..under(minor) }).await.unwrap_err();
        let fault = Fault::from_status(&odd);
        assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), ("MANDATE_DIFFERS", Some("payee_id")));

        let cancel = || CancelMandateRequest { request_id: request_id(), payment_id: id.clone() };
        for (user, may) in [("12", false), ("13", false), ("10", false), ("11", true)] {
            let caller = issuer.token(json!({"client_id": "app", "sub": user}));
            let cancelled = as_app.cancel_mandate(callers::by(&caller, cancel())).await;
            match cancelled {
                Ok(cancelled) => {
                    let state = cancelled.into_inner().payment.unwrap().card.unwrap().mandate_state;
                    assert_eq!((may, state.as_str()), (true, "CANCELLED"), "user {user}");
                }
                Err(status) => assert_eq!((may, reason(&status).as_str()), (false, "NOT_YOUR_USER"), "user {user}: {status:?}"),
            }
        }
        let late = mesh.payments(via).create_payment(under(minor)).await.unwrap_err();
        assert_eq!(reason(&late), "MANDATE_CANCELLED");
    }
    mesh.assert_books();
}

const LOW_RISKS: &str = "
version: low-risks
reference_currency: EUR
zones:
  eu:
    deadline_ms: 5000
    transaction_risk_analysis: {exempt_up_to_eur: 250, history_days: 0, score_max: 0.5}
rules:
  first_payment: {weight: 0.1}
";

/// What counts towards the fraud rate is in the books: it is there after a kill, and a report ends the exemption for good.
#[tokio::test(flavor = "multi_thread")]
async fn low_risks_are_exempt_by_counters_that_survive_kill_9_until_fraud_is_reported() {
    let regions = four_regions_with_vaults();
    let scored = regions.replace("vault], database: regional_master", "vault, fraud_detection], database: regional_master");
    assert!(scored != regions && regions.contains("PSD2"), "{scored}");
    let mut mesh = TestMesh::new(&scored);
    fs::write(mesh.config().join("fraud.yaml"), LOW_RISKS).unwrap();
    let acquirers = Acquirers::start(&mesh);
    mesh.start_all();
    for user in [11, 13] {
        mesh.enrol("us_west", user, "DE", 0).await;
    }
    let (via, token) = ("asia_pacific", token(&mesh, 11, VISA).await);
    let article = |payment: &Payment| payment.card.clone().unwrap().authentication_article;
    let first = pay(&mesh, via, by_card(&token, 11, 13, 20_000)).await;
    assert_eq!((first.status(), article(&first).as_str()), (PaymentStatus::RequiresAction, "PSD2 Article 97"), "nothing was counted");
    acquirers.answer(&first.card.as_ref().unwrap().challenge_url, "123456");
    let confirm = ConfirmPaymentRequest { request_id: request_id(), payment_id: first.payment_id.clone() };
    mesh.payments(via).confirm_payment(confirm).await.unwrap();
    assert_eq!(settled(&mesh, via, &first.payment_id).await.status(), PaymentStatus::Completed);

    // The rate of the zone is looked at again and again; until it is known there, nothing is exempt.
    let until_exempt = async |mesh: &TestMesh| {
        let until = Instant::now() + SETTLED_WAIT_MAX;
        loop {
            let made = pay(mesh, via, by_card(&token, 11, 13, 25_000)).await;
            if article(&made) == "RTS Article 18" {
                assert_eq!(settled(mesh, via, &made.payment_id).await.status(), PaymentStatus::Completed, "nobody is challenged");
                return;
            }
            assert!(Instant::now() < until, "it is never exempt: {made:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    until_exempt(&mesh).await;
    let large = pay(&mesh, via, by_card(&token, 11, 13, 25_001)).await;
    assert_eq!(article(&large), "PSD2 Article 97");
    mesh.kill("eu_west");
    mesh.start("eu_west");
    let counted = fraud_rate(&mesh);
    assert_eq!((&counted["captured_minor_units"], &counted["fraud_minor_units"]), (&json!(45_000), &json!(0)), "{counted}");
    assert_eq!((&counted["by_means"]["authenticated"]["captured_minor_units"], &counted["threshold_eur"]), (&json!(20_000), &json!(500)));
    until_exempt(&mesh).await;

    let report = ReportFraudRequest { request_id: request_id(), payment_id: first.payment_id.clone() };
    let reported = mesh.payments(via).report_fraud(report.clone()).await.unwrap().into_inner().payment.unwrap();
    assert!(reported.card.as_ref().unwrap().fraud_reported_at.is_some(), "{reported:?}");
    let next = pay(&mesh, via, by_card(&token, 11, 13, 3_100)).await;
    assert_eq!(article(&next), "PSD2 Article 97", "from that entry on");
    mesh.kill("eu_west");
    mesh.start("eu_west");
    let again = mesh.payments(via).report_fraud(report).await.unwrap().into_inner().payment.unwrap();
    assert_eq!(again, reported);
    let another = ReportFraudRequest { request_id: request_id(), payment_id: first.payment_id.clone() };
    let refused = mesh.payments(via).report_fraud(another).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "FRAUD_REPORTED"));
    // Longer than the zone's rate takes to be known.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let next = pay(&mesh, via, by_card(&token, 11, 13, 3_100)).await;
    assert_eq!(article(&next), "PSD2 Article 97");
    let counted = fraud_rate(&mesh);
    assert_eq!((&counted["captured_minor_units"], &counted["fraud_minor_units"]), (&json!(70_000), &json!(20_000)), "{counted}");
    assert_eq!((&counted["fraud_rate_percent"], &counted["threshold_eur"]), (&json!("28.5715"), &json!(0)), "{counted}");
    mesh.assert_books();
}

/// What `paymesh status` says of the European zone's payments by card.
fn fraud_rate(mesh: &TestMesh) -> serde_json::Value {
    let status = mesh.run(&["status", "--json"]);
    let mut report: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(report["fraud_rates"][0]["zone"], "eu", "{report}");
    report["fraud_rates"][0].take()
}
