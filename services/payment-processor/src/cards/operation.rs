//! One try at an operation: what the acquirer is asked, and what its answer comes to.
//!
//! What is certain ends the operation; what is not leaves it in progress, and from then on in doubt: an earlier call may have done it. In doubt nothing is tried
//! elsewhere, and every call is under the same reference, which acquirers do once.

use std::time::Duration;

use paymesh_acquirers::{
    Attempt, Authentication, Authorization, Capture, ChargeState, Class, Decision, Decline, DeclineReason, Failure, Refund, Settlement,
    Sought, Void,
};
use paymesh_ledger::{Charge, Operation, OperationKind, Outcome, Payment, Reason};
use paymesh_types::{GatewayName, Money, PaymentId, Timestamp};
use tokio::time::Instant;

use super::{
    outside::Outside,
    vaults::{Authorized, CardOf},
    words::{self, Named},
};

/// How long an authorization is asked for, from when its caller asked for it. After that it is let go of: nobody waits for it any more.
const AUTHORIZE_FOR: Duration = Duration::from_secs(60);
/// How long one try may take, whatever the gateway's own time is.
const TRY_MAX: Duration = Duration::from_secs(30);

/// An operation, and what it is of.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: PaymentId,
    pub(super) payment: Payment,
    pub(super) operation: Operation,
    /// An earlier call may have done it.
    pub(super) doubt: bool,
    /// The gateways to ask where it is certain that the ones before did nothing.
    pub(super) fall_back: Vec<GatewayName>,
    pub(super) attempt: Attempt,
}

/// It is not known what the acquirer makes of it.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// Whether the acquirer may have done it.
    pub(super) doubt: bool,
    pub(super) why: Failure,
}

impl Job {
    fn charge(&self) -> &Charge {
        self.payment.card.as_deref().expect("only payments by card have operations")
    }

    fn named(&self) -> Named<'_> {
        Named { id: &self.id, made: self.payment.created_at }
    }

    fn money(&self, minor: i64) -> Money {
        Money::new(minor, self.payment.currency).expect("what a payment is about is an amount")
    }

    fn sought(&self) -> Sought {
        Sought {
            reference: words::authorization(self.named(), self.charge()),
            // When the payment was made: no reference of it is older.
            begun_at: self.payment.created_at,
            amount: self.money(self.payment.amount),
            charge: self.charge().id.as_ref().and_then(|id| id.as_str().parse().ok()),
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let age = now.0.saturating_sub(self.operation.asked_at.0);
        Duration::from_micros(age) >= AUTHORIZE_FOR
    }

    fn unsettled(&self, why: Failure) -> Unsettled {
        Unsettled { doubt: self.doubt || !why.is_certain(), why }
    }

    /// Tries it once.
    pub(super) async fn attempt(&self, outside: &Outside, now: Timestamp) -> Result<Outcome, Unsettled> {
        let deadline = Instant::now() + TRY_MAX;
        match self.operation.kind {
            OperationKind::Authorize => self.authorize(outside, now, deadline).await,
            OperationKind::Capture => self.capture(outside, deadline).await,
            OperationKind::Void | OperationKind::Expire => self.void(outside, deadline).await,
            OperationKind::Refund => self.refund(outside, deadline).await,
        }
    }

    async fn authorize(&self, outside: &Outside, now: Timestamp, deadline: Instant) -> Result<Outcome, Unsettled> {
        if self.doubt
            && let Some(outcome) = self.look_up(outside, now, deadline).await?
        {
            return Ok(outcome);
        }
        if self.is_over(now) {
            return self.give_up(outside, now, deadline).await;
        }
        let charge = self.charge();
        let challenged = charge.id.is_some();
        let authorization = Authorization {
            reference: words::authorization(self.named(), charge),
            begun_at: self.payment.created_at,
            amount: self.money(self.payment.amount),
            authentication: if challenged {
                Authentication::Answered { answer: None }
            } else {
                words::authentication(charge.authentication)
            },
            recurring: words::is_recurring(charge),
            sets_up: words::sets_up_recurring(charge),
        };
        let card = CardOf { user: self.payment.payer, token: charge.token.clone() };
        match outside.authorize(&charge.gateway, &card, &authorization, self.attempt, deadline).await {
            Ok(Authorized::NoCard) if !self.doubt && !challenged => Ok(Outcome::Declined { reason: Reason::CardNotFound }),
            // The card was there when it was asked for first, and the acquirer may hold the amount since, or since the cardholder passed the challenge.
            Ok(Authorized::NoCard) => self.give_up(outside, now, deadline).await,
            Ok(Authorized::Decision(Decision::Approved(approved))) => self.done(&approved),
            Ok(Authorized::Decision(Decision::Declined(decline))) => Ok(self.declined(&decline, now)),
            Ok(Authorized::Decision(Decision::ActionRequired { charge, challenge })) => {
                match (words::charge_id(&charge), words::challenge(challenge)) {
                    (Some(id), Some(challenge)) => Ok(Outcome::Challenged { id, challenge }),
                    _ => Err(self.unsettled(Failure::unknown(Class::Malformed, "a challenge that is longer than any that is kept"))),
                }
            }
            Err(failure) if failure.is_certain() && !self.doubt && !challenged => self.next_gateway(outside, failure),
            Err(failure) => Err(self.unsettled(failure)),
        }
    }

    /// The gateway did nothing: the next is asked, if there is one.
    fn next_gateway(&self, outside: &Outside, failure: Failure) -> Result<Outcome, Unsettled> {
        let unavailable = Outcome::Declined { reason: Reason::GatewayUnavailable };
        match (words::left_because(&failure), failure.class) {
            (Some(why), _) => {
                let charge = self.charge();
                let asked = |gateway: &GatewayName| *gateway == charge.gateway || charge.left.iter().any(|left| left.gateway == *gateway);
                match self.fall_back.iter().find(|gateway| !asked(gateway) && outside.takes_calls(gateway)) {
                    Some(next) => Ok(Outcome::Left { to: next.clone(), why }),
                    None => Ok(unavailable),
                }
            }
            (None, Class::Spent) => Ok(unavailable),
            (None, _) => Err(self.unsettled(failure)),
        }
    }

    /// An authorization that is declined. One that is heard of too late is not asked for again: nobody waits for it any more.
    fn declined(&self, decline: &Decline, now: Timestamp) -> Outcome {
        match words::declined(decline.reason) {
            Outcome::AuthenticationWanted if self.is_over(now) => Outcome::Declined { reason: Reason::AuthenticationFailed },
            outcome => outcome,
        }
    }

    /// What the acquirer has of the charge, where that is decided.
    async fn look_up(&self, outside: &Outside, now: Timestamp, deadline: Instant) -> Result<Option<Outcome>, Unsettled> {
        let found =
            outside.look_up(&self.charge().gateway, &self.sought(), self.attempt, deadline).await.map_err(|why| self.unsettled(why))?;
        let Some(found) = found.filter(|found| found.state.is_decided()) else { return Ok(None) };
        match found.state {
            ChargeState::Authorized | ChargeState::Captured => self.done(&found).map(Some),
            _ => Ok(Some(match found.decline {
                Some(decline) => self.declined(&decline, now),
                None => Outcome::Declined { reason: Reason::GatewayUnavailable },
            })),
        }
    }

    /// Sees to it that nothing is held, and that nothing will be.
    async fn give_up(&self, outside: &Outside, now: Timestamp, deadline: Instant) -> Result<Outcome, Unsettled> {
        let declined = Outcome::Declined { reason: Reason::GatewayUnavailable };
        if !self.doubt && self.charge().id.is_none() {
            return Ok(declined);
        }
        let void = Void { charge: self.sought(), reference: words::giving_up(self.named(), self.charge()) };
        match outside.void(&self.charge().gateway, &void, self.attempt, deadline).await.map_err(|why| self.unsettled(why))? {
            Settlement::Done(_) => Ok(declined),
            Settlement::Declined(decline) => match self.look_up(outside, now, deadline).await? {
                Some(outcome) => Ok(outcome),
                None => Err(self.unsettled(refused("to let go of an authorization", decline.reason))),
            },
        }
    }

    async fn capture(&self, outside: &Outside, deadline: Instant) -> Result<Outcome, Unsettled> {
        let capture = Capture {
            charge: self.sought(),
            reference: words::reference(self.named(), self.charge(), &self.operation),
            amount: self.money(self.operation.amount),
        };
        match outside.capture(&self.charge().gateway, &capture, self.attempt, deadline).await {
            Ok(Settlement::Done(charge)) => self.done(&charge),
            Ok(Settlement::Declined(_)) => Ok(Outcome::Declined { reason: Reason::CaptureRefused }),
            Err(failure) => Err(self.unsettled(failure)),
        }
    }

    async fn void(&self, outside: &Outside, deadline: Instant) -> Result<Outcome, Unsettled> {
        let void = Void { charge: self.sought(), reference: words::reference(self.named(), self.charge(), &self.operation) };
        match outside.void(&self.charge().gateway, &void, self.attempt, deadline).await {
            Ok(Settlement::Done(charge)) => self.done(&charge),
            Ok(Settlement::Declined(decline)) => {
                let found = outside.look_up(&self.charge().gateway, &self.sought(), self.attempt, deadline).await;
                match found.map_err(|why| self.unsettled(why))? {
                    // The acquirer has let go of it by itself.
                    Some(charge) if matches!(charge.state, ChargeState::Voided | ChargeState::Declined) => self.done(&charge),
                    _ => Err(self.unsettled(refused("to let go of what it holds", decline.reason))),
                }
            }
            Err(failure) => Err(self.unsettled(failure)),
        }
    }

    async fn refund(&self, outside: &Outside, deadline: Instant) -> Result<Outcome, Unsettled> {
        let refund = Refund {
            charge: self.sought(),
            reference: words::reference(self.named(), self.charge(), &self.operation),
            amount: self.money(self.operation.amount),
        };
        match outside.refund(&self.charge().gateway, &refund, self.attempt, deadline).await {
            Ok(Settlement::Done(charge)) => self.done(&charge),
            // The ledger gives the money to the payer's account, whatever the words.
            Ok(Settlement::Declined(_)) => Ok(Outcome::Declined { reason: Reason::CardDeclined }),
            Err(failure) => Err(self.unsettled(failure)),
        }
    }

    fn done(&self, charge: &paymesh_acquirers::Charge) -> Result<Outcome, Unsettled> {
        match words::charge_id(&charge.id) {
            Some(id) => Ok(Outcome::Done { id }),
            None => Err(self.unsettled(Failure::unknown(Class::Malformed, "a charge's name that is longer than any that is kept"))),
        }
    }
}

fn refused(what: &str, reason: DeclineReason) -> Failure {
    Failure::unknown(Class::Refused, format!("the acquirer refuses {what}: {}", reason.as_str()))
}
