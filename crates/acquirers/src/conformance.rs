//! The suite that holds every connector to the port's promises. Each case uses references of its own, so that one acquirer serves all.

use std::time::Duration;

use async_trait::async_trait;
use paymesh_cards::Card;
use paymesh_types::{Currency, Money, Timestamp};
use tokio::time::Instant;

use crate::{
    Acquirer, Authentication, Authorization, Capture, Challenge, Charge, ChargeState, Decision, DeclineReason, Reference, Refund,
    Settlement, Sought, Void,
};

/// How long one call may take.
const WAIT: Duration = Duration::from_secs(20);

/// Which card a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One that is approved.
    Approved,
    /// One that is declined.
    Declined,
    /// One whose holder is challenged, and that is approved then.
    Challenged,
}

/// An acquirer under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Its connector.
    fn acquirer(&self) -> &dyn Acquirer;
    /// The time, as the connector has it.
    fn now(&self) -> Timestamp;
    /// A card of its test numbers.
    fn card(&self, kind: Kind) -> Card;
    /// The cardholder approves or does not. Returns what it gives back to us.
    async fn answer(&self, challenge: &Challenge, approve: bool) -> Option<String>;
    /// What makes this run's references its own.
    fn prefix(&self) -> &str;
}

/// Runs every case, one after the other, and panics with the name of the first that fails.
pub async fn run(subject: &dyn Subject) {
    #[allow(clippy::print_stdout, reason = "a test says what it is at")]
    let case = |name: &'static str| {
        println!("conformance: {name}");
        Case { subject, name }
    };
    Box::pin(money_is_held_taken_and_given_back(&case("money"))).await;
    Box::pin(the_same_reference_is_the_same_authorization(&case("same"))).await;
    Box::pin(a_reference_with_another_amount_is_no_second_authorization(&case("other"))).await;
    Box::pin(what_is_declined_stays_declined(&case("declined"))).await;
    Box::pin(what_is_voided_is_not_captured(&case("voided"))).await;
    Box::pin(what_was_voided_before_it_came_is_not_authorized(&case("closed"))).await;
    Box::pin(no_more_is_captured_than_was_authorized_and_once(&case("captured"))).await;
    Box::pin(no_more_is_refunded_than_was_captured(&case("refunded"))).await;
    Box::pin(a_challenge_is_waited_for(&case("challenge"))).await;
    Box::pin(a_challenge_that_is_not_met_is_a_decline(&case("unmet"))).await;
    Box::pin(a_charge_is_found_by_its_reference_alone(&case("found"))).await;
    Box::pin(amounts_of_all_exponents_come_back_as_they_went(&case("exponents"))).await;
    Box::pin(no_call_outlasts_its_deadline(&case("deadline"))).await;
}

struct Case<'a> {
    subject: &'a dyn Subject,
    name: &'static str,
}

fn deadline() -> Instant {
    Instant::now() + WAIT
}

fn euros(minor: i64) -> Money {
    Money::new(minor, Currency::from_code("EUR").expect("EUR")).expect("an amount")
}

impl Case<'_> {
    fn reference(&self, what: &str) -> Reference {
        format!("{}.{}.{what}", self.subject.prefix(), self.name).parse().expect("a reference")
    }

    fn asked(&self, amount: Money) -> Authorization {
        Authorization {
            reference: self.reference("authorize"),
            begun_at: self.subject.now(),
            amount,
            authentication: Authentication::IssuerDecides,
            recurring: false,
            sets_up: false,
        }
    }

    fn sought(&self, asked: &Authorization, charge: Option<&Charge>) -> Sought {
        Sought {
            reference: asked.reference.clone(),
            begun_at: asked.begun_at,
            amount: asked.amount,
            charge: charge.map(|charge| charge.id.clone()),
        }
    }

    async fn authorize(&self, kind: Kind, asked: &Authorization) -> Decision {
        let decision = self.subject.acquirer().authorize(&self.subject.card(kind), asked, deadline()).await;
        decision.unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    async fn approved(&self, asked: &Authorization) -> Charge {
        match self.authorize(Kind::Approved, asked).await {
            Decision::Approved(charge) => {
                assert_eq!((charge.state, charge.captured_minor, charge.refunded_minor), (ChargeState::Authorized, 0, 0), "{}", self.name);
                assert_eq!((&charge.reference, charge.amount), (&asked.reference, asked.amount), "{}", self.name);
                charge
            }
            other => panic!("{}: {other:?}", self.name),
        }
    }

    async fn capture(&self, charge: &Sought, what: &str, amount: Money) -> Settlement {
        let capture = Capture { charge: charge.clone(), reference: self.reference(what), amount };
        self.subject.acquirer().capture(&capture, deadline()).await.unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    async fn refund(&self, charge: &Sought, what: &str, amount: Money) -> Settlement {
        let refund = Refund { charge: charge.clone(), reference: self.reference(what), amount };
        self.subject.acquirer().refund(&refund, deadline()).await.unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    async fn void(&self, charge: &Sought) -> Settlement {
        let void = Void { charge: charge.clone(), reference: self.reference("void") };
        self.subject.acquirer().void(&void, deadline()).await.unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    async fn look_up(&self, charge: &Sought) -> Option<Charge> {
        let found = self.subject.acquirer().look_up(charge, deadline()).await;
        found.unwrap_or_else(|failure| panic!("{}: {failure}", self.name))
    }

    /// The state and the sums of a charge that is there.
    async fn found(&self, charge: &Sought) -> (ChargeState, i64, i64) {
        let charge = self.look_up(charge).await.unwrap_or_else(|| panic!("{}: it is not there", self.name));
        (charge.state, charge.captured_minor, charge.refunded_minor)
    }

    fn done(&self, settlement: Settlement) -> (ChargeState, i64, i64) {
        match settlement {
            Settlement::Done(charge) => (charge.state, charge.captured_minor, charge.refunded_minor),
            Settlement::Declined(decline) => panic!("{}: {decline:?}", self.name),
        }
    }

    fn declined(&self, settlement: Settlement) -> DeclineReason {
        match settlement {
            Settlement::Declined(decline) => decline.reason,
            Settlement::Done(charge) => panic!("{}: {charge:?}", self.name),
        }
    }
}

async fn money_is_held_taken_and_given_back(case: &Case<'_>) {
    let asked = case.asked(euros(10_000));
    let charge = case.approved(&asked).await;
    let sought = case.sought(&asked, Some(&charge));
    assert_eq!(case.found(&sought).await, (ChargeState::Authorized, 0, 0));
    let captured = case.capture(&sought, "capture", euros(7_000)).await;
    assert_eq!(case.done(captured), (ChargeState::Captured, 7_000, 0));
    let refunded = case.refund(&sought, "refund1", euros(2_000)).await;
    assert_eq!(case.done(refunded), (ChargeState::Captured, 7_000, 2_000));
    let refunded = case.refund(&sought, "refund2", euros(5_000)).await;
    assert_eq!(case.done(refunded), (ChargeState::Captured, 7_000, 7_000));
    assert_eq!(case.found(&sought).await, (ChargeState::Captured, 7_000, 7_000));
}

async fn the_same_reference_is_the_same_authorization(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let first = case.approved(&asked).await;
    assert_eq!(case.approved(&asked).await, first);
    let sought = case.sought(&asked, None);
    case.done(case.capture(&sought, "capture", euros(1_000)).await);
    match case.authorize(Kind::Approved, &asked).await {
        Decision::Approved(charge) => assert_eq!(charge.id, first.id),
        other => panic!("{other:?}"),
    }
}

async fn a_reference_with_another_amount_is_no_second_authorization(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let charge = case.approved(&asked).await;
    let other = Authorization { amount: euros(1_001), ..asked.clone() };
    let refused = case.subject.acquirer().authorize(&case.subject.card(Kind::Approved), &other, deadline()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(case.look_up(&case.sought(&asked, None)).await, Some(charge));
}

async fn what_is_declined_stays_declined(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    for _ in 0..2 {
        match case.authorize(Kind::Declined, &asked).await {
            Decision::Declined(decline) => assert_eq!(decline.reason, DeclineReason::DoNotHonor, "{decline:?}"),
            other => panic!("{other:?}"),
        }
    }
    let sought = case.sought(&asked, None);
    assert_eq!(case.found(&sought).await, (ChargeState::Declined, 0, 0));
    assert_eq!(case.declined(case.capture(&sought, "capture", euros(1_000)).await), DeclineReason::WrongState);
    assert_eq!(case.declined(case.refund(&sought, "refund", euros(1_000)).await), DeclineReason::WrongState);
    assert_eq!(case.done(case.void(&sought).await), (ChargeState::Declined, 0, 0), "nothing is held");
}

async fn what_is_voided_is_not_captured(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let charge = case.approved(&asked).await;
    let sought = case.sought(&asked, Some(&charge));
    for _ in 0..2 {
        assert_eq!(case.done(case.void(&sought).await), (ChargeState::Voided, 0, 0));
    }
    assert_eq!(case.declined(case.capture(&sought, "capture", euros(1_000)).await), DeclineReason::WrongState);
    assert_eq!(case.found(&sought).await, (ChargeState::Voided, 0, 0));
}

async fn what_was_voided_before_it_came_is_not_authorized(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let sought = case.sought(&asked, None);
    if let Some(charge) = case.look_up(&sought).await {
        assert!(!charge.state.is_decided(), "{charge:?}");
    }
    assert_eq!(case.done(case.void(&sought).await), (ChargeState::Voided, 0, 0));
    match case.authorize(Kind::Approved, &asked).await {
        Decision::Declined(decline) => assert_eq!(decline.reason, DeclineReason::WrongState),
        other => panic!("{other:?}"),
    }
    assert_eq!(case.found(&sought).await, (ChargeState::Voided, 0, 0));
}

async fn no_more_is_captured_than_was_authorized_and_once(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let charge = case.approved(&asked).await;
    let sought = case.sought(&asked, Some(&charge));
    assert_eq!(case.declined(case.capture(&sought, "more", euros(1_001)).await), DeclineReason::AmountTooLarge);
    assert_eq!(case.found(&sought).await, (ChargeState::Authorized, 0, 0));
    for _ in 0..2 {
        assert_eq!(case.done(case.capture(&sought, "capture", euros(600)).await), (ChargeState::Captured, 600, 0));
    }
    assert_eq!(case.declined(case.capture(&sought, "again", euros(400)).await), DeclineReason::WrongState);
    assert_eq!(case.declined(case.void(&sought).await), DeclineReason::WrongState);
    assert_eq!(case.found(&sought).await, (ChargeState::Captured, 600, 0));
}

async fn no_more_is_refunded_than_was_captured(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let charge = case.approved(&asked).await;
    let sought = case.sought(&asked, Some(&charge));
    assert_eq!(case.declined(case.refund(&sought, "early", euros(1)).await), DeclineReason::WrongState);
    case.done(case.capture(&sought, "capture", euros(600)).await);
    assert_eq!(case.declined(case.refund(&sought, "more", euros(601)).await), DeclineReason::AmountTooLarge);
    for _ in 0..2 {
        assert_eq!(case.done(case.refund(&sought, "refund", euros(500)).await), (ChargeState::Captured, 600, 500), "once");
    }
    let other = Refund { charge: sought.clone(), reference: case.reference("refund"), amount: euros(1) };
    assert!(case.subject.acquirer().refund(&other, deadline()).await.is_err(), "the reference is another refund's");
    assert_eq!(case.declined(case.refund(&sought, "rest", euros(101)).await), DeclineReason::AmountTooLarge);
    assert_eq!(case.found(&sought).await, (ChargeState::Captured, 600, 500));
}

async fn challenged(case: &Case<'_>, asked: &Authorization) -> Challenge {
    match case.authorize(Kind::Challenged, asked).await {
        Decision::ActionRequired { challenge, .. } => challenge,
        other => panic!("{}: {other:?}", case.name),
    }
}

async fn a_challenge_is_waited_for(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let sought = case.sought(&asked, None);
    let challenge = challenged(case, &asked).await;
    assert!(!format!("{challenge:?}").contains(&challenge.id), "it does not print");
    assert_eq!(case.found(&sought).await, (ChargeState::ActionRequired, 0, 0));
    let waiting = Authorization { authentication: Authentication::Answered { answer: None }, ..asked.clone() };
    assert!(matches!(case.authorize(Kind::Challenged, &waiting).await, Decision::ActionRequired { .. }), "nobody has answered");
    let answer = case.subject.answer(&challenge, true).await;
    let answered = Authorization { authentication: Authentication::Answered { answer }, ..asked.clone() };
    assert!(matches!(case.authorize(Kind::Challenged, &answered).await, Decision::Approved(_)));
    assert_eq!(case.found(&sought).await, (ChargeState::Authorized, 0, 0));
    case.done(case.capture(&sought, "capture", euros(1_000)).await);
}

async fn a_challenge_that_is_not_met_is_a_decline(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let challenge = challenged(case, &asked).await;
    let answer = case.subject.answer(&challenge, false).await;
    let answered = Authorization { authentication: Authentication::Answered { answer }, ..asked.clone() };
    match case.authorize(Kind::Challenged, &answered).await {
        Decision::Declined(decline) => assert_eq!(decline.reason, DeclineReason::AuthenticationFailed),
        other => panic!("{other:?}"),
    }
    assert_eq!(case.found(&case.sought(&asked, None)).await, (ChargeState::Declined, 0, 0));
}

async fn a_charge_is_found_by_its_reference_alone(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    let charge = case.approved(&asked).await;
    assert_eq!(case.look_up(&case.sought(&asked, None)).await, Some(charge.clone()));
    assert_eq!(case.look_up(&case.sought(&asked, Some(&charge))).await, Some(charge));
}

async fn amounts_of_all_exponents_come_back_as_they_went(case: &Case<'_>) {
    for (code, minor) in [("JPY", 5_000), ("KWD", 12_340), ("ISK", 900), ("MGA", 70_000)] {
        let amount = Money::new(minor, Currency::from_code(code).expect(code)).expect("an amount");
        let asked = Authorization { reference: case.reference(code), ..case.asked(amount) };
        case.approved(&asked).await;
        let sought = case.sought(&asked, None);
        assert_eq!(case.done(case.capture(&sought, &format!("{code}.capture"), amount).await), (ChargeState::Captured, minor, 0), "{code}");
    }
}

async fn no_call_outlasts_its_deadline(case: &Case<'_>) {
    let asked = case.asked(euros(1_000));
    // More than once: a timer that is rounded up lets a quick answer through only where it falls well.
    for _ in 0..32 {
        let begun = Instant::now();
        let late = case.subject.acquirer().authorize(&case.subject.card(Kind::Approved), &asked, begun).await;
        assert!(late.is_err(), "{late:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
