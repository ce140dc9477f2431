//! Personal data stays out of logs and metrics, and a card's number out of everything but the vault: a value that occurs nowhere else is looked for.

use std::collections::BTreeMap;

use paymesh_client::{Card, CardNumber, Expiry, seal};
use paymesh_contract::{
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    payments::v1::{ByCard, CreatePaymentRequest, PaymentStatus, RefundPaymentRequest},
    vault::v1::{GetVaultKeyRequest, TokenizeRequest, vault_service_client::VaultServiceClient},
    wallet::v1::{DepositRequest, GetStatementRequest, WithdrawRequest},
};
use uuid::Uuid;

use crate::{
    acquirers::Acquirers,
    by_card::settled,
    cards::proven,
    collector::Collector,
    remains::{files_below, has, is_in_memory, times_in_memory, unpacked_segments},
    support::{FOUR_REGIONS, TestMesh, euro, four_regions_with_vaults, payment},
};

const CANARY: &str = "canary-5f1c9e";
/// No country, so that it occurs nowhere by chance; refused, which must not make it appear either.
const CANARY_COUNTRY: &str = "QJXZCANARY";
/// Approved; declined; the answer lost; 500; a page of HTML that repeats the number; half an answer; another amount.
const CHARGED: [&str; 7] = [
    "4000056655665556",
    "4000000000000002",
    "4000009999000014",
    "4000009999000048",
    "4000009999000055",
    "4000009999000063",
    "4000009999000071",
];

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_is_in_no_log_and_no_metric() {
    let mut mesh = TestMesh::new(FOUR_REGIONS);
    for region in mesh.regions() {
        mesh.spawn_logging(&region, "debug");
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    mesh.enrol("us_east", 10, "DE", 10_000).await;
    mesh.enrol("us_east", 11, "DE", 0).await;
    // Through the home and through a region that forwards; accepted, repeated with another body, and refused.
    for via in &mesh.regions() {
        let id = Uuid::new_v4().to_string();
        for reference in [CANARY.to_owned(), format!("{CANARY} again"), CANARY.repeat(20)] {
            let request = DepositRequest { request_id: id.clone(), user_id: 10, amount: Some(euro(5)), reference: reference.clone() };
            let _ = mesh.wallet(via).deposit(request).await;
            let request = WithdrawRequest {
                request_id: Uuid::new_v4().to_string(),
                user_id: 10,
                amount: Some(euro(5)),
                reference: reference.clone(),
            };
            let _ = mesh.wallet(via).withdraw(request).await;
            let request = CreatePaymentRequest { reference, ..payment(10, 11, 5) };
            let _ = mesh.payments(via).create_payment(request).await;
        }
        let request = EnrollUserRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: 12,
            residence_country: CANARY_COUNTRY.to_owned(),
            currency_codes: vec!["EUR".to_owned()],
        };
        let refused = DirectoryServiceClient::new(mesh.channel(via)).enroll_user(request).await.unwrap_err();
        assert!(!format!("{refused:?}").contains(CANARY_COUNTRY), "an error does not repeat personal data: {refused:?}");
        let request = GetStatementRequest { user_id: 10, currency_code: "EUR".to_owned(), ..GetStatementRequest::default() };
        let statement = mesh.wallet(via).get_statement(request).await.unwrap().into_inner();
        assert!(statement.lines.iter().any(|line| line.reference == CANARY), "the owner sees it");
        assert!(!format!("{statement:?}").contains(CANARY), "a message with personal data does not print it");
    }
    for region in mesh.regions() {
        let (status, metrics) = mesh.http(&region, "/metrics").unwrap();
        assert_eq!(status, 200);
        assert!(!metrics.is_empty(), "{region} has metrics");
        // With its last lines.
        assert!(mesh.stop(&region).success());
        let logs = mesh.logs(&region);
        assert!(!logs.is_empty(), "{region} has a log");
        for canary in [CANARY, CANARY_COUNTRY] {
            for (what, text) in [("metrics", &metrics), ("log", &logs)] {
                let found = text.lines().find(|line| line.contains(canary));
                assert!(found.is_none(), "in the {what} of {region}: {found:?}");
            }
        }
    }
}

/// The number of a card that is charged, in all the ways in which an acquirer can answer, and one that repeats it: it is in the vault and at the acquirer, and in nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_charged_card_is_in_no_journal_table_log_span_metric_or_memory() {
    // Nobody is challenged: all that goes wrong is asked for.
    let mut mesh = TestMesh::new(&four_regions_with_vaults().replace("[GDPR, PSD2]", "[GDPR]"));
    let acquirers = Acquirers::start(&mesh);
    let (traces, collector) = Collector::start().await;
    for region in mesh.regions() {
        mesh.spawn_traced(&region, "debug", &collector);
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    for (user, country) in [(11, "DE"), (12, "US"), (13, "DE")] {
        mesh.enrol("us_east", user, country, 0).await;
    }
    // Some are in the program's own help.
    let in_memory = |mesh: &TestMesh, region: &str| times_in_memory(mesh.process(region), &CHARGED.map(str::as_bytes));
    let before: BTreeMap<String, _> = mesh.regions().into_iter().map(|region| (region.clone(), in_memory(&mesh, &region))).collect();
    let may_look = is_in_memory(mesh.process("us_east"), b"region-config") == Some(true);
    let mut vault = VaultServiceClient::new(mesh.channel("us_west"));
    let answer = vault.get_vault_key(GetVaultKeyRequest { user_id: 11 }).await.unwrap().into_inner();
    let key = proven(&mesh, "eu_west", 11, &answer).unwrap();
    let mut tokens = Vec::new();
    for number in CHARGED {
        let card = Card { number: CardNumber::parse(number).unwrap(), expiry: Expiry::new(7, 2031).unwrap() };
        let request = TokenizeRequest {
            request_id: Uuid::now_v7().to_string(),
            user_id: 11,
            card: None,
            sealed_card: Some(seal(&card, &key).unwrap()),
        };
        let token = vault.tokenize(request).await.unwrap().into_inner().description.unwrap().vault_token;
        for payee in [12, 13] {
            let by = ByCard { vault_token: token.clone(), device: "a telephone".to_owned(), ..ByCard::default() };
            let request = CreatePaymentRequest { card: Some(by), ..payment(11, payee, 1_000) };
            let made = mesh.payments("us_west").create_payment(request).await.unwrap().into_inner().payment.unwrap();
            assert!(!format!("{made:?}").contains(number), "{made:?}");
            let seen = settled(&mesh, "us_west", &made.payment_id).await;
            let declined = number == "4000000000000002";
            let wanted = if declined { PaymentStatus::Declined } else { PaymentStatus::Completed };
            assert_eq!(seen.status(), wanted, "{seen:?}");
            assert_eq!(acquirers.charge(&made.payment_id).captured, if declined { 0 } else { 1_000 }, "it was charged there");
            let payment_id = made.payment_id;
            let request = RefundPaymentRequest { request_id: Uuid::now_v7().to_string(), payment_id, amount_minor_units: Some(1) };
            let refunded = mesh.payments("asia_pacific").refund_payment(request).await;
            assert!(refunded.is_ok() != declined && !format!("{refunded:?}").contains(number), "{refunded:?}");
        }
        tokens.push(token);
    }
    for region in mesh.regions() {
        let metrics = mesh.http(&region, "/metrics").unwrap().1;
        for number in CHARGED {
            assert!(!metrics.is_empty() && !metrics.contains(number), "the metrics of {region}");
        }
        // The vault's own process has had them in its hands.
        if may_look && region != "eu_west" {
            let (before, after) = (before[&region].as_ref().unwrap(), in_memory(&mesh, &region).unwrap());
            let more = after.iter().zip(before).any(|(after, before)| after > before);
            assert!(!more, "{region} has numbers in memory: {after:?}, before {before:?}");
        }
        // With its last lines, pages and spans.
        assert!(mesh.stop(&region).success());
        let logs = mesh.logs(&region);
        assert!(!logs.is_empty(), "{region} has a log");
        let contents = files_below(&mesh.data(&region)).into_iter().map(|(path, content)| (path.display().to_string(), content));
        let segments =
            unpacked_segments(&mesh.data(&region)).await.into_iter().map(|(zone, segment)| (format!("a segment of {zone}"), segment));
        let mut names_the_card = false;
        for (what, content) in contents.chain(segments).chain([("the log".to_owned(), logs.into_bytes())]) {
            let found = CHARGED.iter().find(|number| has(&content, number.as_bytes()));
            assert!(found.is_none(), "{found:?} in {what} of {region}");
            names_the_card |= what.starts_with("a segment") && has(&content, tokens[0].as_bytes());
        }
        assert_eq!(names_the_card, region == "eu_west", "the search finds a token in the journal of its zone");
    }
    assert!(traces.was_sent("CreatePayment") && traces.was_sent("eu_west"), "there are traces");
    for number in CHARGED {
        assert!(!traces.was_sent(number), "in the traces");
    }
    if !may_look {
        println!("left out: this system does not let a test look at the memory of a node");
    }
}
