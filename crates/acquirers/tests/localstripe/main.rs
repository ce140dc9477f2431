//! The connector to Stripe against localstripe, a simulator by others that keeps its state: `pip install localstripe`.
//!
//! Between the two is a [`proxy`] for what localstripe leaves out of Stripe's documentation, and for answers that do not arrive.

#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod process;
mod proxy;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use paymesh_acquirers::{
    Acquirer, Authentication, Authorization, Capture, Certainty, Challenge, ChargeState, Class, Decision, Exemption, Refund, Settlement,
    Sought,
    conformance::{self, Kind, Subject},
    connector,
};
use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_topology::{BreakerRule, ConnectorKind, Cost, Gateway, ZoneGrant};
use paymesh_types::{Currency, Money, Timestamp};
use process::LocalStripe;
use proxy::{Fault, Proxy};
use tokio::time::Instant;

const DAY_SECONDS: u64 = 86_400;

struct Stripe {
    acquirer: Arc<dyn Acquirer>,
    proxy: Proxy,
    /// How far the connector's clock is ahead, in seconds.
    ahead: Arc<AtomicU64>,
    prefix: String,
    _folder: tempfile::TempDir,
    _process: LocalStripe,
}

impl Stripe {
    /// None where localstripe cannot be had, which is said.
    async fn start(prefix: &str) -> Option<Self> {
        let process = match LocalStripe::start().await {
            Ok(process) => process,
            Err(why) => {
                eprintln!("SKIPPED: localstripe is not here: {why}");
                return None;
            }
        };
        let proxy = Proxy::start(process.port).await;
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("stripe.key"), "sk_test_paymesh\n").expect("written");
        let gateway = Gateway {
            name: "stripe".to_owned(),
            connector: ConnectorKind::Stripe,
            url: proxy.url.clone(),
            authorities: None,
            credentials: Some(PathBuf::from("stripe.key")),
            return_url: Some("https://shop.example/return".to_owned()),
            zones: ZoneGrant::Any,
            cost: Cost::default(),
            timeout: Duration::from_secs(10),
            calls_in_flight: 64,
            breaker: BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
        };
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&ahead);
        let acquirer = connector(&gateway, folder.path(), Arc::new(move || at(clock.load(Ordering::Relaxed)))).expect("a connector");
        Some(Self { acquirer, proxy, ahead, prefix: prefix.to_owned(), _folder: folder, _process: process })
    }

    fn authorization(&self, name: &str) -> Authorization {
        Authorization {
            reference: format!("{}.{name}", self.prefix).parse().expect("a reference"),
            begun_at: self.now(),
            amount: euros(1_000),
            authentication: Authentication::IssuerDecides,
            recurring: false,
            sets_up: false,
        }
    }
}

fn at(ahead: u64) -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_micros()).expect("it fits")).plus_seconds(ahead)
}

fn euros(minor: i64) -> Money {
    Money::new(minor, Currency::from_code("EUR").expect("EUR")).expect("an amount")
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn sought(asked: &Authorization) -> Sought {
    Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount: asked.amount, charge: None }
}

#[async_trait]
impl Subject for Stripe {
    fn acquirer(&self) -> &dyn Acquirer {
        &*self.acquirer
    }

    fn now(&self) -> Timestamp {
        at(self.ahead.load(Ordering::Relaxed))
    }

    fn card(&self, kind: Kind) -> Card {
        let number = match kind {
            Kind::Approved => "4242424242424242",
            Kind::Declined => "4000000000000341",
            Kind::Challenged => "4000002760003184",
        };
        Card { number: CardNumber::parse(number).expect("a number"), expiry: Expiry::new(12, 2034).expect("an expiry") }
    }

    async fn answer(&self, challenge: &Challenge, approve: bool) -> Option<String> {
        let (intent, _) = challenge.id.split_once("_secret_").expect("a client secret");
        let body = format!("client_secret={}&success={approve}", challenge.id);
        let (status, _) = self.proxy.ask("POST", &format!("/v1/payment_intents/{intent}/_authenticate"), &body).await;
        // Stripe's code in the browser is told of a decline; so is localstripe's caller.
        assert!(status == 200 || status == 402, "{status}");
        None
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripe_keeps_the_ports_promises() {
    let Some(stripe) = Stripe::start("conformance").await else { return };
    conformance::run(&stripe).await;
    assert_eq!(stripe.proxy.numbers_outside_of_payment_methods(), 0, "the number goes into one call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_before_the_confirmation_is_certain_and_what_fails_there_is_not() {
    let Some(stripe) = Stripe::start("certain").await else { return };
    // (which call, what becomes of it, whether it is certain, what a look-up finds)
    let table = [
        ("/v1/payment_intents", Fault::Lost, Certainty::NotDone, ChargeState::Undecided),
        ("/v1/payment_intents", Fault::ServerError, Certainty::NotDone, ChargeState::Undecided),
        ("/v1/payment_methods", Fault::Html, Certainty::NotDone, ChargeState::Undecided),
        ("/confirm", Fault::Lost, Certainty::Unknown, ChargeState::Authorized),
        ("/confirm", Fault::Html, Certainty::Unknown, ChargeState::Authorized),
        ("/confirm", Fault::Truncated, Certainty::Unknown, ChargeState::Authorized),
        ("/confirm", Fault::ServerError, Certainty::Unknown, ChargeState::Undecided),
        ("/confirm", Fault::TooMany, Certainty::NotDone, ChargeState::Undecided),
    ];
    for (index, (path, fault, certainty, state)) in table.into_iter().enumerate() {
        let asked = stripe.authorization(&index.to_string());
        stripe.proxy.fail_next(path, fault);
        let failure = stripe.acquirer.authorize(&stripe.card(Kind::Approved), &asked, deadline()).await.expect_err(path);
        assert_eq!(failure.certainty, certainty, "{path} {fault:?}: {failure}");
        let found = stripe.acquirer.look_up(&sought(&asked), deadline()).await.expect("a look-up").expect("it is there");
        assert_eq!(found.state, state, "{path} {fault:?}");
        // Voided, it is decided, whatever is still under way.
        let void =
            paymesh_acquirers::Void { charge: sought(&asked), reference: format!("certain.{index}.void").parse().expect("a reference") };
        match stripe.acquirer.void(&void, deadline()).await {
            Ok(Settlement::Done(charge)) => assert_eq!(charge.state, ChargeState::Voided, "{path} {fault:?}"),
            other => panic!("{path} {fault:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_is_found_after_stripe_has_forgotten_its_keys() {
    let Some(stripe) = Stripe::start("late").await else { return };
    let asked = stripe.authorization("kept");
    stripe.proxy.fail_next("/confirm", Fault::Lost);
    stripe.acquirer.authorize(&stripe.card(Kind::Approved), &asked, deadline()).await.expect_err("no answer");
    let never = stripe.authorization("never");

    stripe.ahead.store(2 * DAY_SECONDS, Ordering::Relaxed);
    stripe.proxy.forget_keys();
    let failure = stripe.acquirer.authorize(&stripe.card(Kind::Approved), &asked, deadline()).await.expect_err("too old");
    assert_eq!((failure.class, failure.certainty), (Class::Refused, Certainty::NotDone), "it would be a second charge");
    let found = stripe.acquirer.look_up(&sought(&asked), deadline()).await.expect("a look-up").expect("it is there");
    assert_eq!(found.state, ChargeState::Authorized);
    assert_eq!(stripe.acquirer.look_up(&sought(&never), deadline()).await, Ok(None));

    // Captures and refunds are done once, with keys and without.
    let capture = Capture { charge: sought(&asked), reference: "late.capture".parse().expect("a reference"), amount: euros(900) };
    let refund = Refund { charge: sought(&asked), reference: "late.refund".parse().expect("a reference"), amount: euros(300) };
    for _ in 0..2 {
        match stripe.acquirer.capture(&capture, deadline()).await {
            Ok(Settlement::Done(charge)) => assert_eq!(charge.captured_minor, 900),
            other => panic!("{other:?}"),
        }
        match stripe.acquirer.refund(&refund, deadline()).await {
            Ok(Settlement::Done(charge)) => assert_eq!((charge.captured_minor, charge.refunded_minor), (900, 300)),
            other => panic!("{other:?}"),
        }
        stripe.proxy.forget_keys();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_about_something_else_are_mismatches() {
    let Some(stripe) = Stripe::start("mismatch").await else { return };
    for (index, fault) in [Fault::OtherAmount, Fault::OtherReference].into_iter().enumerate() {
        let asked = stripe.authorization(&index.to_string());
        stripe.proxy.fail_next("/confirm", fault);
        let failure = stripe.acquirer.authorize(&stripe.card(Kind::Approved), &asked, deadline()).await.expect_err("another");
        assert_eq!((failure.class, failure.certainty), (Class::Mismatch, Certainty::Unknown), "{fault:?}: {failure}");
    }
    let recurring = Authorization { recurring: true, ..stripe.authorization("recurring") };
    let decision = stripe.acquirer.authorize(&stripe.card(Kind::Approved), &recurring, deadline()).await;
    assert!(matches!(decision, Ok(Decision::Approved(_))), "{decision:?}");
}

/// A refund that waits may fail later: it is done when Stripe says so, and opens no breaker until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_waits_is_not_done_yet() {
    let Some(stripe) = Stripe::start("waiting").await else { return };
    let asked = stripe.authorization("waits");
    stripe.acquirer.authorize(&stripe.card(Kind::Approved), &asked, deadline()).await.expect("an answer");
    let capture = Capture { charge: sought(&asked), reference: "waiting.capture".parse().expect("a reference"), amount: euros(1_000) };
    stripe.acquirer.capture(&capture, deadline()).await.expect("an answer");
    let refund = Refund { charge: sought(&asked), reference: "waiting.refund".parse().expect("a reference"), amount: euros(300) };
    stripe.proxy.fail_next("/v1/refunds", Fault::Pending);
    let waits = stripe.acquirer.refund(&refund, deadline()).await.expect_err("not yet");
    assert_eq!((waits.class, waits.certainty), (Class::Undecided, Certainty::Unknown), "{waits}");
    assert!(!waits.class.is_against_the_gateway());
    // localstripe has it as done.
    match stripe.acquirer.refund(&refund, deadline()).await {
        Ok(Settlement::Done(charge)) => assert_eq!((charge.captured_minor, charge.refunded_minor), (1_000, 300)),
        other => panic!("{other:?}"),
    }
}

/// As Stripe documents them; localstripe knows neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_a_series_says_that_there_will_be_others_and_those_that_nobody_is_there() {
    let Some(stripe) = Stripe::start("series").await else { return };
    let challenge = Authentication::Challenge;
    let first = Authorization { sets_up: true, authentication: challenge, ..stripe.authorization("first") };
    let later =
        Authorization { recurring: true, authentication: Authentication::Exempt(Exemption::Recurring), ..stripe.authorization("later") };
    let other = stripe.authorization("other");
    let wanted = [(&first, true, false), (&later, false, true), (&other, false, false)];
    for (asked, sets_up, off_session) in wanted {
        let decision = stripe.acquirer.authorize(&stripe.card(Kind::Approved), asked, deadline()).await;
        assert!(matches!(decision, Ok(Decision::Approved(_))), "{decision:?}");
        let said = stripe.proxy.last_confirmed();
        assert_eq!(said.contains("setup_future_usage=off_session"), sets_up, "{said}");
        assert_eq!(said.contains("&off_session=true"), off_session, "{said}");
        assert_eq!(said.contains("return_url="), !off_session, "{said}");
    }
}
