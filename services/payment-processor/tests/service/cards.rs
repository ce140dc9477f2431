//! What the desk makes of what acquirers say and do not say: a real node, and a vault and acquirers that follow a script.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use paymesh_acquirers::{
    Acquirer, Authorization, Capture, Charge, ChargeState, Class, Decision, Decline, DeclineReason, Failure, Reference, Refund, Settlement,
    Sought, Void,
};
use paymesh_contract::{
    Fault,
    fraud::v1::{
        self as fraud, Assessment, ExplainRequest, ExplainResponse, ScoreRequest, ScoreResponse,
        fraud_service_server::{FraudService, FraudServiceServer},
    },
    mesh::v1::{GetStatusRequest, MonitoredPayments},
    payments::v1::{
        ByCard, CaptureMode, CreatePaymentRequest, CreatePaymentsRequest, Payment, PaymentOutcome, PaymentStatus, RefundPaymentRequest,
        RefundStatus, ReportFraudRequest, VoidPaymentRequest, payment_outcome::Outcome,
    },
    vault::v1::{
        AuthorizationOutcome, AuthorizeRequest, AuthorizeResponse, CardBrand, CardholderAuthentication, DeleteTokenRequest,
        DeleteTokenResponse, DescribeTokenRequest, DescribeTokenResponse, EraseUserRequest, EraseUserResponse, GetVaultKeyRequest,
        GetVaultKeyResponse, RotateKeysRequest, RotateKeysResponse, ScaExemption, TokenDescription, TokenizeRequest, TokenizeResponse,
        vault_service_server::{VaultService, VaultServiceServer},
    },
};
use paymesh_ledger as ledger;
use paymesh_payment_processor::{Acquiring, Services, services};
use paymesh_shard::{Copies, Options};
use paymesh_topology::{Fraud, Gateways, Topology};
use paymesh_types::{Currency, Money, PaymentId, ShardRef, UserId};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Request, Response, Status};

use crate::support::{Node, PATIENCE, cache, id, no_problems, pay, refused};

const TOPOLOGY: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, vault], database: primary_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
";
const GATEWAYS: &str = "
gateways:
  a: {connector: simulator, url: 'http://127.0.0.1:9', zones: any, breaker: {failures: 1000, open_seconds: 1, probes: 1}}
  b: {connector: simulator, url: 'http://127.0.0.1:10', zones: any}
retries: {percent: 100, per_second: 1000, attempts: 3}
batches: {in_flight: 3}
rules:
  - {name: all, use: {a: 1}, then: [b]}
";
const TOKEN: &str = "card_eu_abcdefghijklmnopabcdefghijklmnop";

/// What an acquirer does with one authorization.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Does {
    Approves,
    /// It asks the cardholder for something first.
    Challenges,
    /// It declines, because the issuer wants the cardholder authenticated.
    Wants,
    /// The same, and says nothing.
    SilentlyWants,
    /// Nothing, for certain.
    Nothing,
    /// It says nothing, and did it.
    SilentlyApproves,
    /// It says nothing, and did nothing.
    Silence,
}

/// What both acquirers do and did. What is not in the script is approved.
#[derive(Debug, Default)]
pub(crate) struct Script {
    authorizations: BTreeMap<String, VecDeque<Does>>,
    /// Whether voids are refused, because it has let go by itself.
    let_go: bool,
    asked: Vec<String>,
    /// What the vault was asked for.
    pub(crate) authorized: Vec<AuthorizeRequest>,
    /// Whether look-ups come to nothing.
    pub(crate) blind: bool,
    /// What fraud detection says of each payment, in ten-thousandths. `None`: nothing.
    score: Option<u32>,
    /// Whether the vault has the card no more.
    pub(crate) deleted: bool,
    held: BTreeMap<String, ChargeState>,
    /// How long the vault's call takes, by the amount; `None`: no time.
    takes: Option<fn(i64) -> Duration>,
    /// Calls of the vault that are under way, and how many there were at once.
    under_way: (usize, usize),
    /// The amounts of the vault's calls, in the order in which they ended.
    ended: Vec<i64>,
}

pub(crate) type Shared = Arc<Mutex<Script>>;

impl Script {
    fn authorize(&mut self, gateway: &str, reference: &str) -> Does {
        self.asked.push(format!("{gateway} {reference}"));
        let does = self.authorizations.get_mut(gateway).and_then(VecDeque::pop_front).unwrap_or(Does::Approves);
        let state = match does {
            Does::Approves | Does::SilentlyApproves => Some(ChargeState::Authorized),
            Does::Challenges => Some(ChargeState::ActionRequired),
            Does::Wants | Does::SilentlyWants => Some(ChargeState::Declined),
            Does::Nothing | Does::Silence => None,
        };
        if let Some(state) = state {
            self.held.insert(reference.to_owned(), state);
        }
        does
    }
}

/// The vault of the zone: one card, of user 1.
struct Vault(Shared);

#[tonic::async_trait]
impl VaultService for Vault {
    async fn describe_token(&self, request: Request<DescribeTokenRequest>) -> Result<Response<DescribeTokenResponse>, Status> {
        let vault_token = request.into_inner().vault_token;
        if self.0.lock().expect("no test panics with it").deleted {
            return Err(Fault::not_found("TOKEN_NOT_FOUND", "there is no such card").into());
        }
        let description = TokenDescription { vault_token, user_id: 1, brand: CardBrand::Visa.into(), ..TokenDescription::default() };
        Ok(Response::new(DescribeTokenResponse { description: Some(description) }))
    }

    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        let request = request.into_inner();
        let minor = request.amount.as_ref().expect("an amount").minor_units;
        let takes = {
            let mut script = self.0.lock().expect("no test panics with it");
            let (now, most) = script.under_way;
            script.under_way = (now + 1, most.max(now + 1));
            script.takes.map_or(Duration::ZERO, |takes| takes(minor))
        };
        tokio::time::sleep(takes).await;
        {
            let mut script = self.0.lock().expect("no test panics with it");
            script.under_way.0 -= 1;
            script.ended.push(minor);
        }
        let does = {
            let mut script = self.0.lock().expect("no test panics with it");
            script.authorized.push(request.clone());
            script.authorize(&request.gateway, &request.reference)
        };
        let (outcome, failure_class) = match does {
            Does::Approves => (AuthorizationOutcome::Approved, ""),
            Does::Nothing => (AuthorizationOutcome::NotDone, "unreachable"),
            Does::Challenges => (AuthorizationOutcome::ActionRequired, ""),
            Does::Wants => (AuthorizationOutcome::Declined, ""),
            Does::SilentlyApproves | Does::SilentlyWants | Does::Silence => (AuthorizationOutcome::Unknown, "timeout"),
        };
        let charge_id = if matches!(does, Does::Approves | Does::Challenges) { "ch_1".to_owned() } else { String::new() };
        let challenge_id = if does == Does::Challenges { "challenge_1".to_owned() } else { String::new() };
        let decline_reason = if does == Does::Wants { "AUTHENTICATION_REQUIRED".to_owned() } else { String::new() };
        let response = AuthorizeResponse {
            outcome: outcome.into(),
            charge_id,
            challenge_id,
            decline_reason,
            failure_class: failure_class.to_owned(),
            ..AuthorizeResponse::default()
        };
        Ok(Response::new(response))
    }

    async fn get_vault_key(&self, _: Request<GetVaultKeyRequest>) -> Result<Response<GetVaultKeyResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn tokenize(&self, _: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_token(&self, _: Request<DeleteTokenRequest>) -> Result<Response<DeleteTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn erase_user(&self, _: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_keys(&self, _: Request<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Scripted {
    gateway: &'static str,
    script: Shared,
}

impl Scripted {
    fn charge(&self, reference: &Reference, sought: &Sought, state: ChargeState) -> Charge {
        Charge {
            id: "ch_1".parse().expect("a charge's name"),
            reference: reference.clone(),
            state,
            amount: sought.amount,
            captured_minor: 0,
            refunded_minor: 0,
            decline: (state == ChargeState::Declined)
                .then(|| Decline::new(DeclineReason::AuthenticationRequired, "authentication_required")),
        }
    }
}

#[tonic::async_trait]
impl Acquirer for Scripted {
    async fn authorize(&self, _: &paymesh_cards::Card, _: &Authorization, _: Instant) -> Result<Decision, Failure> {
        unreachable!("the vault does")
    }

    async fn capture(&self, capture: &Capture, _: Instant) -> Result<Settlement, Failure> {
        let mut script = self.script.lock().expect("no test panics with it");
        script.asked.push(format!("{} {}", self.gateway, capture.reference));
        script.held.insert(capture.charge.reference.to_string(), ChargeState::Captured);
        Ok(Settlement::Done(self.charge(&capture.charge.reference, &capture.charge, ChargeState::Captured)))
    }

    async fn void(&self, void: &Void, _: Instant) -> Result<Settlement, Failure> {
        let mut script = self.script.lock().expect("no test panics with it");
        script.asked.push(format!("{} {}", self.gateway, void.reference));
        script.held.insert(void.charge.reference.to_string(), ChargeState::Voided);
        if script.let_go {
            return Ok(Settlement::Declined(Decline::new(DeclineReason::WrongState, "already")));
        }
        Ok(Settlement::Done(self.charge(&void.charge.reference, &void.charge, ChargeState::Voided)))
    }

    async fn refund(&self, refund: &Refund, _: Instant) -> Result<Settlement, Failure> {
        self.script.lock().expect("no test panics with it").asked.push(format!("{} {}", self.gateway, refund.reference));
        Err(Failure::unknown(Class::Undecided, "it waits"))
    }

    async fn look_up(&self, sought: &Sought, _: Instant) -> Result<Option<Charge>, Failure> {
        let mut script = self.script.lock().expect("no test panics with it");
        script.asked.push(format!("{} look-up", self.gateway));
        if script.blind {
            return Err(Failure::unknown(Class::Timeout, "nobody can be asked"));
        }
        let found = script.held.get(sought.reference.as_str()).copied();
        Ok(found.map(|state| self.charge(&sought.reference, sought, state)))
    }
}

/// Fraud detection of the zone.
struct Detection(Shared);

#[tonic::async_trait]
impl FraudService for Detection {
    async fn score(&self, _: Request<ScoreRequest>) -> Result<Response<ScoreResponse>, Status> {
        let score = self.0.lock().expect("no test panics with it").score;
        let score = score.ok_or_else(|| Status::unavailable("it has nothing to say"))?;
        let assessment = Assessment {
            score,
            decision: if score > 5_000 { fraud::Decision::Review } else { fraud::Decision::Accept }.into(),
            rules_version: "1".to_owned(),
            ..Assessment::default()
        };
        Ok(Response::new(ScoreResponse { assessment: Some(assessment) }))
    }

    async fn explain(&self, _: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A node with two gateways, user 1 with a card, and user 2.
async fn started(authorizations: &[(&str, &[Does])]) -> (Node, Shared) {
    started_with(TOPOLOGY, None, authorizations).await
}

/// The same, in a zone under PSD2.
pub(crate) async fn started_under_psd2(authorizations: &[(&str, &[Does])]) -> (Node, Shared) {
    started_with(&TOPOLOGY.replace("database: primary_master", "database: primary_master, compliance: [PSD2]"), None, authorizations).await
}

async fn started_with(topology: &str, rules: Option<&str>, authorizations: &[(&str, &[Does])]) -> (Node, Shared) {
    let topology = Arc::new(Topology::parse("test", topology).unwrap_or_else(|errors| panic!("{errors}")));
    let rules = rules.map(|rules| Arc::new(Fraud::parse("fraud.yaml", rules, &topology).unwrap_or_else(|errors| panic!("{errors}"))));
    let gateways = Gateways::parse("gateways.yaml", GATEWAYS, &topology).unwrap_or_else(|errors| panic!("{errors}"));
    let node = Node::of(topology, "eu_west", Options::default()).await;
    let script = Script {
        authorizations: authorizations.iter().map(|(gateway, does)| ((*gateway).to_owned(), does.iter().copied().collect())).collect(),
        ..Script::default()
    };
    let script = Arc::new(Mutex::new(script));
    let connector = |gateway: &'static str| {
        let acquirer: Arc<dyn Acquirer> = Arc::new(Scripted { gateway, script: script.clone() });
        (gateway.parse().expect("a gateway's name"), acquirer)
    };
    let connectors = ["a", "b"].map(connector).into_iter().collect();
    let (_, rules) = watch::channel(rules);
    let acquiring = Acquiring { gateways, connectors, rules, clock: node.time.clock() };
    let Services { routes, sweep } =
        services(node.shards.clone(), Copies::default(), node.mesh.clone(), no_problems(), Some(acquiring), cache());
    let routes = routes.add_service(VaultServiceServer::new(Vault(script.clone())));
    node.mesh.attach(routes.add_service(FraudServiceServer::new(Detection(script.clone()))));
    tokio::spawn(sweep);
    node.users(&[(1, 0), (2, 0)]).await;
    (node, script)
}

pub(crate) fn by_card(cents: i64) -> CreatePaymentRequest {
    CreatePaymentRequest { card: Some(ByCard { vault_token: TOKEN.to_owned(), ..ByCard::default() }), ..pay(1, 2, cents) }
}

pub(crate) async fn create(node: &Node, request: CreatePaymentRequest, patience: Duration) -> Payment {
    let mut request = Request::new(request);
    request.set_timeout(patience);
    node.payments().create_payment(request).await.expect("a payment").into_inner().payment.expect("a payment")
}

/// What was asked of acquirers, look-ups apart, with the payment's id left out.
pub(crate) fn asked(script: &Shared, payment: &Payment) -> Vec<String> {
    let script = script.lock().expect("no test panics with it");
    let asked = script.asked.iter().filter(|asked| !asked.ends_with("look-up"));
    let made = payment.created_at.as_ref().expect("it was made");
    let made_us = made.seconds * 1_000_000 + i64::from(made.nanos) / 1_000;
    asked.map(|asked| asked.replace(&format!("{}.{made_us}.", payment.payment_id), "")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_gateway_is_asked_where_nothing_was_done_and_each_once() {
    let (node, script) = started(&[("a", &[Does::Nothing])]).await;
    let paid = create(&node, by_card(100), Duration::from_secs(20)).await;
    assert_eq!(paid.status(), PaymentStatus::Completed, "{paid:?}");
    assert_eq!(asked(&script, &paid), ["a authorize.0", "b authorize.1", "b capture.2"]);
    assert_eq!(node.balance(2).await, (100, 0));
    node.close().await;

    let (node, script) = started(&[("a", &[Does::Nothing; 9]), ("b", &[Does::Nothing; 9])]).await;
    let declined = create(&node, by_card(100), Duration::from_secs(20)).await;
    assert_eq!((declined.status(), declined.reason.as_str()), (PaymentStatus::Declined, "GATEWAY_UNAVAILABLE"));
    assert_eq!(asked(&script, &declined), ["a authorize.0", "b authorize.1"]);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_heard_of_is_looked_up_and_asked_for_again_under_the_same_reference() {
    let (node, script) = started(&[("a", &[Does::SilentlyApproves])]).await;
    let paid = create(&node, by_card(100), Duration::from_secs(20)).await;
    assert_eq!(paid.status(), PaymentStatus::Completed, "{paid:?}");
    assert_eq!(asked(&script, &paid), ["a authorize.0", "a capture.2"]);
    node.close().await;

    let (node, script) = started(&[("a", &[Does::Silence])]).await;
    let paid = create(&node, by_card(100), Duration::from_secs(20)).await;
    assert_eq!(paid.status(), PaymentStatus::Completed, "{paid:?}");
    assert_eq!(asked(&script, &paid), ["a authorize.0", "a authorize.0", "a capture.2"]);
    node.close().await;
}

/// Once it may have been done, that a later try did nothing for certain says nothing about the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_done_goes_nowhere_else_and_is_voided_when_its_time_is_up() {
    let does = [&[Does::Silence][..], &[Does::Nothing; 1_000]].concat();
    let (node, script) = started(&[("a", &does)]).await;
    let waiting = create(&node, by_card(100), Duration::from_secs(1)).await;
    assert_eq!(waiting.status(), PaymentStatus::Pending, "{waiting:?}");
    let card = waiting.card.clone().expect("by card");
    assert_eq!((card.in_progress.len(), card.in_progress[0].kind.as_str()), (1, "AUTHORIZE"));
    // What the first call was told is out of date.
    node.time.pass(61);
    let declined = node.until(&waiting.payment_id, PaymentStatus::Declined).await;
    assert_eq!(declined.reason, "GATEWAY_UNAVAILABLE");
    let asked = asked(&script, &declined);
    assert_eq!((asked.first().map(String::as_str), asked.last().map(String::as_str)), (Some("a authorize.0"), Some("a give-up.0")));
    assert!(asked.iter().all(|asked| asked.starts_with("a ")), "{asked:?}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_again_is_told_how_the_payment_stands_and_asks_nobody() {
    let (node, script) = started(&[("a", &[Does::Silence])]).await;
    let request = CreatePaymentRequest { reference: "shoes".to_owned(), ..by_card(100) };
    let first = create(&node, request.clone(), Duration::from_secs(20)).await;
    let before = asked(&script, &first);
    let again = create(&node, request.clone(), Duration::from_secs(20)).await;
    assert_eq!((again.status(), again.reference.as_str()), (PaymentStatus::Completed, "shoes"));
    assert_eq!(asked(&script, &first), before);
    // Also when the card is gone; a payment that is new is not made then.
    script.lock().expect("no test panics with it").deleted = true;
    let again = create(&node, request.clone(), Duration::from_secs(20)).await;
    assert_eq!((again.payment_id.as_str(), again.status()), (first.payment_id.as_str(), PaymentStatus::Completed));
    let new = node.payments().create_payment(by_card(100)).await.expect_err("there is no card");
    assert_eq!(Fault::from_status(&new).reason, "TOKEN_NOT_FOUND");
    let mut other = Request::new(CreatePaymentRequest { card: None, ..request });
    other.set_timeout(Duration::from_secs(20));
    let fault = Fault::from_status(&node.payments().create_payment(other).await.expect_err("another body"));
    assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), ("REQUEST_ID_REUSED", Some("card")));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_the_acquirer_has_let_go_of_by_itself_is_voided_all_the_same() {
    let (node, script) = started(&[]).await;
    let held =
        create(&node, CreatePaymentRequest { capture_mode: CaptureMode::Manual.into(), ..by_card(100) }, Duration::from_secs(20)).await;
    assert_eq!(held.status(), PaymentStatus::Authorized);
    script.lock().expect("no test panics with it").let_go = true;
    let request = VoidPaymentRequest { request_id: id(), payment_id: held.payment_id.clone() };
    let voided = node.payments().void_payment(request).await.expect("a void").into_inner().payment.expect("a payment");
    assert_eq!(voided.status(), PaymentStatus::Voided, "{voided:?}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_as_many_in_flight_as_configured_and_one_that_is_slow_keeps_no_other() {
    const SLOW: i64 = 100;
    let (node, script) = started(&[]).await;
    script.lock().expect("no test panics with it").takes = Some(|minor| Duration::from_millis(if minor == SLOW { 3_000 } else { 50 }));
    // Item 5 is by another user's card.
    let mut items: Vec<_> = (0..13).map(|index| by_card(SLOW + index)).collect();
    items[5].payer_id = 2;
    items[5].payee_id = 1;
    let mut request = Request::new(CreatePaymentsRequest { payments: items });
    request.set_timeout(Duration::from_secs(30));
    let outcomes = node.payments().create_payments(request).await.expect("outcomes").into_inner().outcomes;
    let completed = |outcome: &PaymentOutcome| match outcome.outcome.as_ref().expect("an outcome") {
        Outcome::Receipt(receipt) => receipt.status() == PaymentStatus::Completed,
        Outcome::Error(error) => {
            assert_eq!(error.reason, "TOKEN_NOT_FOUND");
            false
        }
    };
    assert_eq!(outcomes.iter().map(completed).collect::<Vec<_>>(), (0..13).map(|index| index != 5).collect::<Vec<_>>());
    {
        let script = script.lock().expect("no test panics with it");
        assert_eq!(script.under_way, (0, 3), "as gateways.yaml says");
        assert_eq!((script.ended.len(), script.ended.last()), (12, Some(&SLOW)), "{:?}", script.ended);
    }
    node.close().await;
}

const RULES: &str = "
version: '1'
reference_currency: EUR
zones:
  eu:
    deadline_ms: 5000
    when_unavailable: [{then: open}]
    transaction_risk_analysis: {exempt_up_to_eur: 250, history_days: 0, score_max: 0.2}
rules:
  first_payment: {weight: 0.1}
";

/// Under PSD2, with 250 EUR of low risk from the first payment on: the acquirer is told, until a part of it is fraud.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_risk_is_exempt_and_the_acquirer_told_until_too_much_of_it_is_fraud() {
    const LOW_RISK: (CardholderAuthentication, ScaExemption) = (CardholderAuthentication::Exempt, ScaExemption::TransactionRisk);
    const CHALLENGE: (CardholderAuthentication, ScaExemption) = (CardholderAuthentication::Challenge, ScaExemption::Unspecified);
    let topology =
        TOPOLOGY.replace("vault], database: primary_master", "vault, fraud_detection], database: primary_master, compliance: [PSD2]");
    let (node, script) = started_with(&topology, Some(RULES), &[]).await;
    let pay = async |cents: i64, score: Option<u32>| {
        script.lock().expect("no test panics with it").score = score;
        let payment = create(&node, by_card(cents), PATIENCE).await;
        assert_eq!(payment.status(), PaymentStatus::Completed, "{payment:?}");
        let told = {
            let script = script.lock().expect("no test panics with it");
            let asked = script.authorized.last().expect("it was asked");
            (asked.authentication(), asked.exemption())
        };
        let card = payment.card.clone().expect("by card");
        let said = match told {
            LOW_RISK => ("EXEMPT", "RTS Article 18"),
            CHALLENGE => ("REQUIRED", "PSD2 Article 97"),
            other => panic!("{other:?}"),
        };
        assert_eq!((card.authentication.as_str(), card.authentication_article.as_str()), said);
        (told, payment)
    };
    let (told, first) = pay(20_000, Some(0)).await;
    assert_eq!(told, CHALLENGE, "nothing is known of any rate");
    // The zone's rate is looked at by and by.
    let waited = tokio::time::timeout(PATIENCE, async { while pay(20_000, Some(2_000)).await.0 != LOW_RISK {} });
    waited.await.expect("it is exempt at some time");
    assert_eq!(pay(25_000, Some(0)).await.0, LOW_RISK);
    for (cents, score) in [(25_001, Some(0)), (20_000, Some(2_001)), (20_000, Some(5_001)), (20_000, None)] {
        assert_eq!(pay(cents, score).await.0, CHALLENGE, "{cents} {score:?}");
    }

    let report = |request_id: &str, payment: &str| ReportFraudRequest { request_id: request_id.to_owned(), payment_id: payment.to_owned() };
    let request = id();
    let reported = node.payments().report_fraud(report(&request, &first.payment_id)).await.expect("a report").into_inner();
    let reported_at = reported.payment.as_ref().and_then(|payment| payment.card.clone()).and_then(|card| card.fraud_reported_at);
    assert!(reported_at.is_some() && first.card.expect("by card").fraud_reported_at.is_none(), "{reported:?}");
    assert_eq!(pay(20_000, Some(0)).await.0, CHALLENGE, "from that entry on");
    let again = node.payments().report_fraud(report(&request, &first.payment_id)).await.expect("the same").into_inner();
    assert_eq!((again.payment, again.position), (reported.payment, reported.position));
    let twice = node.payments().report_fraud(report(&id(), &first.payment_id)).await;
    assert_eq!(refused(twice), (Code::AlreadyExists, "FRAUD_REPORTED".to_owned(), String::new()));
    let held = CreatePaymentRequest { capture_mode: CaptureMode::Manual.into(), ..by_card(20_000) };
    let held = create(&node, held, PATIENCE).await;
    let early = node.payments().report_fraud(report(&id(), &held.payment_id)).await;
    assert_eq!(refused(early), (Code::FailedPrecondition, "PAYMENT_NOT_CAPTURED".to_owned(), String::new()));
    assert_eq!(node.payment(&first.payment_id).await.card.expect("by card").fraud_reported_at, reported_at);

    let status = node.operations().get_status(GetStatusRequest {}).await.expect("a status").into_inner();
    let monitored: Vec<MonitoredPayments> = status.shards.into_iter().flat_map(|shard| shard.monitored).collect();
    let of = |means: &str| monitored.iter().find(|each| each.means == means).cloned().unwrap_or_default();
    let low_risk = of("transaction_risk");
    assert_eq!((low_risk.payments, low_risk.captured_minor_units, low_risk.frauds), (2, 45_000, 0), "{monitored:?}");
    // The scripted acquirer challenges nobody.
    assert_eq!((of("other").frauds, of("other").fraud_minor_units), (1, 20_000), "{monitored:?}");
    node.close().await;
}

/// The rate that the law means is of all shards: one that has no fraud exempts nobody either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_whose_fraud_is_too_much_as_a_whole_has_no_low_risks_in_any_of_its_shards() {
    let topology = TOPOLOGY
        .replace("vault], database: primary_master", "vault, fraud_detection], database: primary_master, compliance: [PSD2]")
        .replace("shards: 1", "shards: 2");
    let (node, script) = started_with(&topology, Some(RULES), &[]).await;
    script.lock().expect("no test panics with it").score = Some(0);
    node.users(&[(3, 0), (4, 0)]).await;
    let pay = async || {
        let payment = create(&node, CreatePaymentRequest { payee_id: 3, ..by_card(10_000) }, PATIENCE).await;
        assert_eq!(payment.status(), PaymentStatus::Completed, "{payment:?}");
        payment.card.expect("by card").authentication_article
    };
    let until = async |article: &str| {
        let waited = tokio::time::timeout(PATIENCE, async { while pay().await != article {} });
        waited.await.unwrap_or_else(|_| panic!("it never is {article}"));
    };
    assert_eq!(pay().await, "PSD2 Article 97", "nothing is known of any rate");
    until("RTS Article 18").await;

    // In the other shard all is fraud.
    let other = node.shards.get(&ShardRef { zone: "eu".parse().expect("a zone"), index: 0 }).expect("it is led").clone();
    let submit = async |command| other.submit(ledger::Request { id: None, command }).await.expect("it is accepted");
    let user = |number: u64| UserId::try_from(number).expect("a user");
    let euro = Currency::from_code("EUR").expect("a currency");
    let card = ledger::ByCard {
        token: TOKEN.parse().expect("a token"),
        gateway: "a".parse().expect("a gateway's name"),
        declined: None,
        agreement: None,
        risk: None,
        psd2: true,
        analysis: None,
    };
    let money = Money::new(1_000_000, euro).expect("an amount");
    let (payer, payee, reference) = (user(2), user(4), String::new());
    let create = ledger::CreatePayment { payer, payee, payee_shard: None, money, hold_s: 0, reference, card: Some(card) };
    let payment = PaymentId::from(submit(ledger::Command::CreatePayment(create)).await.position);
    for operation in [1, 2] {
        let outcome = ledger::Outcome::Done { id: "ch_2".parse().expect("a charge's name") };
        submit(ledger::Command::Settle { payment: payment.clone(), operation, outcome }).await;
    }
    submit(ledger::Command::ReportFraud { payment }).await;
    until("PSD2 Article 97").await;
    assert_eq!(pay().await, "PSD2 Article 97");
    node.close().await;
}

/// Days, at some acquirers: nobody waits, and the tries that all gateways share are for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_waits_at_its_acquirer_is_asked_about_seldom() {
    let (node, script) = started(&[]).await;
    let paid = create(&node, by_card(100), PATIENCE).await;
    assert_eq!(paid.status(), PaymentStatus::Completed, "{paid:?}");
    let mut request =
        Request::new(RefundPaymentRequest { request_id: id(), payment_id: paid.payment_id.clone(), amount_minor_units: Some(40) });
    request.set_timeout(PATIENCE);
    let asked_at = Instant::now();
    let refunded = node.payments().refund_payment(request).await.expect("it is asked for").into_inner();
    assert!(asked_at.elapsed() < Duration::from_secs(3), "its caller waited for {:?}", asked_at.elapsed());
    assert_eq!((refunded.status(), refunded.amount_minor_units), (RefundStatus::Pending, 40));
    // Longer than the sweep leaves to callers.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(asked(&script, &paid), ["a authorize.0", "a capture.2", "a refund.3"]);
    let seen = node.payment(&paid.payment_id).await.card.expect("by card");
    assert_eq!(seen.in_progress.iter().map(|operation| operation.kind.as_str()).collect::<Vec<_>>(), ["REFUND"]);
    assert_eq!(node.balance(2).await, (60, 0));
    node.close().await;
}
