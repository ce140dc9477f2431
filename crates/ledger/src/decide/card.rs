//! Payments by card: what callers ask for, and what acquirers make of it.
//!
//! What a caller asks for goes into the books first, as an operation in progress; the outcome is an entry of its own. No outcome of an operation that is in
//! progress is rejected for what users did meanwhile: money that an acquirer took has somewhere to go.

use paymesh_types::{ChargeId, GatewayName, PaymentId, Timestamp};
use smallvec::{SmallVec, smallvec};

use super::{Bound, Decider, Rejection, credit, debit, unmoved};
use crate::{
    Account, Agreement, Authentication, Body, ByCard, CHALLENGE_SECONDS, CardStep, Challenge, Charge, Command, Counted, CreatePayment,
    Exempted, Exemption, GATEWAYS_ASKED_MAX, Left, LeftBecause, Mandate, MandateKind, MandateStanding, MandateState, MandateUse, Means,
    NewCharge, NewPayment, Operation, OperationKind, Outcome, Payment, Phase, Posting, REFUNDS_MAX, Reason, mandate, sca,
};

/// A payment that goes from one state to the next.
struct Change<'a> {
    before: &'a Payment,
    after: Payment,
    postings: SmallVec<[Posting; 2]>,
    counted: Option<Counted>,
}

impl<'a> Change<'a> {
    fn of(payment: &'a Payment) -> Self {
        Self { before: payment, after: payment.clone(), postings: SmallVec::new(), counted: None }
    }

    fn charge(&mut self) -> &mut Charge {
        self.after.card.as_deref_mut().expect("it is by card")
    }

    fn comes_to(self, step: CardStep) -> super::Outcome {
        let counted = self.counted.map(Box::new);
        let body = Body::Card { step, payment: self.after, before: Box::new(self.before.clone()), counted };
        Ok((body, self.postings, String::new()))
    }
}

impl Decider<'_> {
    pub(super) fn create_by_card(&self, create: &CreatePayment, card: &ByCard) -> super::Outcome {
        let currency = create.money.currency();
        let wallet = self.wallet(create.payer, currency)?;
        let declined = if wallet.closed {
            Some(Reason::AccountClosed)
        } else {
            card.declined.or_else(|| match create.payee_shard {
                None => self.cannot_credit(create.payee, currency, create.money.minor()),
                Some(_) => None,
            })
        };
        let under = card.agreement.as_ref().and_then(Agreement::under).map(|id| self.mandate_for(create, card, id)).transpose()?;
        let sets_up = card.agreement.as_ref().and_then(Agreement::sets_up);
        // An exemption counts from here on, whatever the acquirer makes of the payment: however many are asked for at once, no more are exempt than may be.
        let (authentication, exempted) = match (declined, card.psd2) {
            (Some(_), _) | (None, false) => (Authentication::NotRequired, wallet.exempted),
            (None, true) => match (&under, sets_up, wallet.exempted.with(create.money)) {
                (Some(under), ..) => (Authentication::Exempt(under.kind.exemption()), wallet.exempted),
                (None, None, Some(exempted)) => (Authentication::Exempt(Exemption::LowValue), exempted),
                (None, None, None) if self.is_low_risk(create, card) => {
                    (Authentication::Exempt(Exemption::TransactionRisk), wallet.exempted)
                }
                (None, ..) => (Authentication::Required, wallet.exempted),
            },
        };
        let body = Body::PaymentCreated(NewPayment {
            payer: create.payer,
            payee: create.payee,
            payee_shard: create.payee_shard.clone(),
            money: create.money,
            hold_s: create.hold_s,
            declined,
            previous: wallet.last_payment,
            card: Some(NewCharge {
                token: card.token.clone(),
                gateway: card.gateway.clone(),
                risk: card.risk.clone(),
                authentication,
                mandate: sets_up,
                under,
            }),
        });
        let posting = Posting { exempted_after: exempted, ..unmoved(create.payer, currency, wallet) };
        Ok((body, smallvec![posting], create.reference.clone()))
    }

    /// The mandate that a payment is to be made under.
    ///
    /// # Errors
    /// It does not stand, or the payment is not as it has it: nothing else is done for it then.
    fn mandate_for(&self, create: &CreatePayment, card: &ByCard, id: &PaymentId) -> Result<MandateUse, Rejection> {
        if id.shard() != self.state.shard() {
            return Err(Rejection::MandateNotFound);
        }
        let set_up = self.payment(id.epoch(), id.sequence()).map_err(|_| Rejection::MandateNotFound)?;
        let CreatePayment { payer, payee, money, .. } = *create;
        let terms = mandate::Terms { payer, payee, payee_shard: create.payee_shard.as_ref(), money, token: &card.token, owed: card.psd2 };
        Ok(MandateUse { mandate: id.clone(), kind: mandate::check(set_up, &terms)? })
    }

    pub(super) fn cancel_mandate(&self, payment: &Payment) -> super::Outcome {
        let mut change = Change::of(payment);
        match payment.mandate().map(|(_, standing)| standing) {
            None => return Err(Rejection::MandateNotFound),
            Some(MandateStanding::Cancelled) => return Err(Rejection::MandateCancelled),
            Some(MandateStanding::Ended) => return Err(Rejection::MandateEnded),
            Some(MandateStanding::Pending | MandateStanding::NotAuthenticated | MandateStanding::Active) => {}
        }
        let charge = change.charge();
        charge.mandate = charge.mandate.map(|mandate| Mandate { state: MandateState::Cancelled, ..mandate });
        change.comes_to(CardStep::MandateCancelled)
    }

    fn is_low_risk(&self, create: &CreatePayment, card: &ByCard) -> bool {
        let monitored = &self.state.monitored;
        card.analysis.is_some_and(|analysis| monitored.exempts(self.context.now, create.money, card.risk.as_ref(), &analysis))
    }

    /// Whatever the payment's acquirer is being asked for meanwhile.
    pub(super) fn report_fraud(&self, payment: &Payment) -> super::Outcome {
        let mut change = Change::of(payment);
        let charge = change.after.card.as_deref_mut().filter(|_| payment.captured > 0).ok_or(Rejection::NothingCaptured)?;
        if charge.fraud_reported_at.is_some() {
            return Err(Rejection::FraudReported);
        }
        charge.fraud_reported_at = Some(self.context.now);
        self.counted(change, CardStep::FraudReported)
    }

    /// The change by a step that counts towards the fraud rate.
    fn counted(&self, mut change: Change<'_>, step: CardStep) -> super::Outcome {
        change.counted = self.state.monitored.counting(self.context.now, step, &change.after);
        change.comes_to(step)
    }

    pub(super) fn confirm(&self, payment: &Payment) -> super::Outcome {
        if payment.phase != Phase::ActionRequired {
            return Err(Rejection::NoActionRequired { phase: payment.phase });
        }
        idle(payment)?;
        let now = self.context.now;
        if payment.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Rejection::HoldExpired);
        }
        let mut change = Change::of(payment);
        change.after.phase = Phase::Pending;
        change.after.expires_at = None;
        change.charge().ask(OperationKind::Authorize, payment.amount, now);
        change.comes_to(CardStep::Confirmed)
    }

    /// `amount` is what was authorized or less, and the payee could be credited now.
    pub(super) fn ask_capture(&self, payment: &Payment, amount: i64, asked: Option<i64>) -> super::Outcome {
        idle(payment)?;
        let mut change = Change::of(payment);
        change.charge().ask(OperationKind::Capture, amount, self.context.now);
        change.comes_to(CardStep::CaptureAsked { asked })
    }

    /// Asks for the release of a hold, or of what waits for its cardholder.
    pub(super) fn ask_release(&self, payment: &Payment, kind: OperationKind) -> super::Outcome {
        if !matches!(payment.phase, Phase::Authorized | Phase::ActionRequired) {
            return Err(Rejection::NotAuthorized { phase: payment.phase });
        }
        idle(payment)?;
        let mut change = Change::of(payment);
        change.charge().ask(kind, payment.amount, self.context.now);
        change.comes_to(if kind == OperationKind::Expire { CardStep::ExpiryAsked } else { CardStep::VoidAsked })
    }

    /// `amount` is what is left to refund or less.
    pub(super) fn refund_by_card(&self, payment: &Payment, amount: i64, asked: Option<i64>) -> super::Outcome {
        let mut change = Change::of(payment);
        if change.charge().refunds >= REFUNDS_MAX {
            return Err(Rejection::TooManyRefunds);
        }
        change.charge().refunds += 1;
        change.after.refunded += amount;
        match &payment.payee_shard {
            None => {
                let payee = self.wallet(payment.payee, payment.currency)?;
                if payee.available() < amount {
                    return Err(Rejection::PayeeInsufficientFunds);
                }
                change.postings = smallvec![
                    debit(payment.payee, payment.currency, payee, amount, 0),
                    self.system(Account::RefundsPayable, payment.currency, amount)?,
                ];
                change.charge().ask(OperationKind::Refund, amount, self.context.now);
                change.comes_to(CardStep::RefundAsked { amount, asked })
            }
            // The card has to wait until the payee has paid.
            Some(_) => Ok((Body::RefundRequested { payment: change.after, amount, asked }, smallvec![], String::new())),
        }
    }

    /// Where money of a payment goes that comes back to its payer: for one by card to the card, which is asked for with it.
    pub(super) fn give_back(&self, payment: &mut Payment, amount: i64) -> Result<Posting, Rejection> {
        match payment.card.as_deref_mut() {
            None => credit(payment.payer, payment.currency, self.wallet(payment.payer, payment.currency)?, amount, Bound::Waived),
            Some(charge) => {
                charge.ask(OperationKind::Refund, amount, self.context.now);
                self.system(Account::RefundsPayable, payment.currency, amount)
            }
        }
    }

    pub(super) fn settle(&self, payment: &Payment, number: u32, outcome: &Outcome) -> super::Outcome {
        let mut change = Change::of(payment);
        let operation = match change.after.card.as_deref_mut() {
            None => return Err(Rejection::Implausible { what: "an acquirer's word on a payment that is not by card" }),
            Some(charge) => charge.take(number).ok_or(Rejection::NothingNew)?,
        };
        match (operation.kind, outcome) {
            (OperationKind::Authorize, Outcome::Done { id }) => self.authorized_by_card(change, id),
            (OperationKind::Authorize, Outcome::Challenged { id, challenge }) => self.challenged(change, id, challenge),
            (OperationKind::Authorize, Outcome::Declined { reason }) => declined(change, *reason),
            (OperationKind::Authorize, Outcome::AuthenticationWanted) => exemption_refused(change, &operation, self.context.now),
            (OperationKind::Authorize, Outcome::Left { to, why }) => left(change, operation, to, *why),
            (OperationKind::Capture, Outcome::Done { id }) => self.captured(change, &operation, id),
            (OperationKind::Capture, Outcome::Declined { .. }) => self.capture_refused(change),
            (OperationKind::Void, Outcome::Done { .. }) => {
                change.after.phase = Phase::Voided;
                change.charge().challenge = None;
                change.comes_to(CardStep::Voided)
            }
            (OperationKind::Expire, Outcome::Done { .. }) => {
                change.after.phase = Phase::Expired;
                change.charge().challenge = None;
                change.comes_to(CardStep::Expired)
            }
            (OperationKind::Refund, Outcome::Done { .. }) => {
                let (currency, amount) = (payment.currency, operation.amount);
                let acquirer = Account::Acquirer(change.charge().gateway.clone());
                change.postings =
                    smallvec![self.system(Account::RefundsPayable, currency, -amount)?, self.system(acquirer, currency, amount)?];
                change.comes_to(CardStep::Refunded { amount })
            }
            (OperationKind::Refund, Outcome::Declined { .. }) => {
                let (currency, amount) = (payment.currency, operation.amount);
                let payer = self.wallet(payment.payer, currency)?;
                change.postings = smallvec![
                    self.system(Account::RefundsPayable, currency, -amount)?,
                    credit(payment.payer, currency, payer, amount, Bound::Waived)?,
                ];
                change.comes_to(CardStep::RefundRefused { amount })
            }
            // It is asked for until the acquirer says that the hold is gone: a hold that nobody knows of any more would be a charge forgotten.
            (OperationKind::Void | OperationKind::Expire, Outcome::Declined { .. }) => {
                Err(Rejection::Implausible { what: "an acquirer that does not let go of what it holds" })
            }
            (_, Outcome::Challenged { .. } | Outcome::Left { .. } | Outcome::AuthenticationWanted) => {
                Err(Rejection::Implausible { what: "an acquirer's word that does not answer what it was asked for" })
            }
        }
    }

    fn authorized_by_card(&self, mut change: Change<'_>, id: &ChargeId) -> super::Outcome {
        let now = self.context.now;
        let payment = &mut change.after;
        payment.phase = Phase::Authorized;
        payment.expires_at = None;
        let cannot = match payment.payee_shard {
            None => self.cannot_credit(payment.payee, payment.currency, payment.amount),
            Some(_) => None,
        };
        let (amount, charge) = (payment.amount, payment.card.as_deref_mut().expect("it is by card"));
        charge.id = Some(id.clone());
        charge.mandate = charge.mandate_once_authorized();
        let answered = charge.challenge.take().is_some();
        charge.means = Some(Means::of(charge.authentication, answered));
        // As of `Entry::authenticated_payer`.
        if answered && charge.authentication != Authentication::NotRequired && sca::counts(payment.currency) {
            let payer = self.wallet(payment.payer, payment.currency)?;
            change.postings = smallvec![Posting { exempted_after: Exempted::default(), ..unmoved(payment.payer, payment.currency, payer) }];
        }
        match charge.hold_s {
            0 if cannot.is_some() => {
                payment.reason = cannot;
                charge.ask(OperationKind::Void, amount, now);
            }
            0 => charge.ask(OperationKind::Capture, amount, now),
            hold_s => payment.expires_at = Some(now.plus_seconds(hold_s.into())),
        }
        change.comes_to(CardStep::Authorized)
    }

    fn challenged(&self, mut change: Change<'_>, id: &ChargeId, challenge: &Challenge) -> super::Outcome {
        change.after.phase = Phase::ActionRequired;
        change.after.expires_at = Some(self.context.now.plus_seconds(CHALLENGE_SECONDS.into()));
        let charge = change.charge();
        charge.id = Some(id.clone());
        charge.challenge = Some(challenge.clone());
        change.comes_to(CardStep::Challenged)
    }

    fn captured(&self, mut change: Change<'_>, operation: &Operation, id: &ChargeId) -> super::Outcome {
        let amount = operation.amount;
        let payment = &mut change.after;
        (payment.captured, payment.expires_at, payment.reason) = (amount, None, None);
        let charge = payment.card.as_deref_mut().expect("it is by card");
        charge.id = Some(id.clone());
        let taken = self.system(Account::Acquirer(charge.gateway.clone()), payment.currency, -amount)?;
        // The payee may have closed their account, and a clearing account may be full, since the acquirer was asked.
        let credited = match &payment.payee_shard {
            None => match self.cannot_credit(payment.payee, payment.currency, amount) {
                None => credit(payment.payee, payment.currency, self.wallet(payment.payee, payment.currency)?, amount, Bound::Kept),
                Some(reason) => {
                    payment.reason = Some(reason);
                    Err(Rejection::OutOfRange)
                }
            },
            Some(shard) => self.send(shard, payment.currency, amount),
        };
        match credited {
            Ok(to) => {
                payment.phase = Phase::Captured;
                if payment.payee_shard.is_some() {
                    payment.sent = self.context.next;
                }
                change.postings = smallvec![taken, to];
                self.counted(change, CardStep::Captured)
            }
            Err(_) => {
                payment.phase = Phase::Returned;
                payment.reason = payment.reason.or(Some(Reason::PayeeBalanceLimit));
                let back = self.give_back(payment, amount)?;
                change.postings = smallvec![taken, back];
                self.counted(change, CardStep::CaptureReturned)
            }
        }
    }

    fn capture_refused(&self, mut change: Change<'_>) -> super::Outcome {
        let amount = change.after.amount;
        change.after.reason = Some(Reason::CaptureRefused);
        // Nobody waits to try again: the hold is let go of.
        if change.charge().hold_s == 0 {
            change.charge().ask(OperationKind::Void, amount, self.context.now);
        }
        change.comes_to(CardStep::CaptureRefused)
    }
}

fn declined(mut change: Change<'_>, reason: Reason) -> super::Outcome {
    change.after.phase = Phase::Declined;
    change.after.reason = Some(reason);
    change.after.expires_at = None;
    change.charge().challenge = None;
    change.comes_to(CardStep::Declined)
}

/// Asked for again at the same gateway, once and with a challenge, as another operation: acquirers do not decide twice under one reference.
fn exemption_refused(mut change: Change<'_>, operation: &Operation, now: Timestamp) -> super::Outcome {
    let charge = change.charge();
    // Nobody is there to be challenged, or somebody was: there is nothing else to ask for.
    let unattended = charge.under.as_ref().is_some_and(|under| under.kind == MandateKind::Recurring);
    if charge.authentication == Authentication::Required || charge.id.is_some() || unattended {
        return declined(change, Reason::AuthenticationFailed);
    }
    charge.turned_down = Some(std::mem::replace(&mut charge.authentication, Authentication::Required));
    charge.ask(OperationKind::Authorize, operation.amount, now);
    change.comes_to(CardStep::ExemptionRefused)
}

fn left(mut change: Change<'_>, operation: Operation, to: &GatewayName, why: LeftBecause) -> super::Outcome {
    let charge = change.charge();
    if charge.left.len() + 1 >= GATEWAYS_ASKED_MAX {
        return declined(change, Reason::GatewayUnavailable);
    }
    // A cardholder who was challenged is the gateway's that challenged them.
    if charge.id.is_some() {
        return Err(Rejection::Implausible { what: "a gateway that is left while it has the charge" });
    }
    charge.left.push(Left { gateway: std::mem::replace(&mut charge.gateway, to.clone()), why });
    charge.operations.push(operation);
    change.comes_to(CardStep::Left)
}

/// Nothing may be asked of the acquirer while something else is.
fn idle(payment: &Payment) -> Result<(), Rejection> {
    match &payment.card {
        Some(charge) if charge.operations.is_empty() => Ok(()),
        Some(_) => Err(Rejection::OperationInProgress),
        None => Err(Rejection::NotAuthorized { phase: payment.phase }),
    }
}

/// What the request that led to a step asked for, where `command` is of its kind: the amount, or none.
pub(super) fn asked_for(step: CardStep, command: &Command) -> Option<Option<i64>> {
    match (step, command) {
        (CardStep::Confirmed, Command::ConfirmPayment { .. })
        | (CardStep::VoidAsked, Command::VoidPayment { .. })
        | (CardStep::MandateCancelled, Command::CancelMandate { .. })
        | (CardStep::FraudReported, Command::ReportFraud { .. }) => Some(None),
        (CardStep::CaptureAsked { asked }, Command::CapturePayment { .. })
        | (CardStep::RefundAsked { asked, .. }, Command::RefundPayment { .. }) => Some(asked),
        _ => None,
    }
}
