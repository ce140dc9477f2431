//! What Stripe answers, as far as it is looked at. More than that may be there: Stripe adds fields.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::amount;
use crate::{Charge, ChargeId, ChargeState, Class, Decline, Failure, Settlement, Sought};

/// What an answer says about the whole.
pub(super) enum Told {
    /// It is done.
    Yes,
    /// It is not, and the code says why; `declined` where somebody said no to the card.
    No { declined: bool, code: String },
    /// Neither.
    Failed(Failure),
}

/// An intent that was made, now or before.
pub(super) struct Made {
    pub(super) intent: Intent,
    pub(super) replayed: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

#[derive(Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: Status,
    amount: i64,
    amount_received: Option<i64>,
    currency: String,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) client_secret: Option<String>,
    pub(super) next_action: Option<NextAction>,
    pub(super) last_payment_error: Option<ErrorFields>,
    latest_charge: Option<LatestCharge>,
}

#[derive(Deserialize)]
pub(super) struct NextAction {
    pub(super) redirect_to_url: Option<Redirect>,
}

#[derive(Deserialize)]
pub(super) struct Redirect {
    pub(super) url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LatestCharge {
    Whole { amount: i64, amount_captured: Option<i64> },
    Id(#[allow(dead_code, reason = "only its shape is looked at")] String),
}

#[derive(Deserialize)]
pub(super) struct Intents {
    pub(super) data: Vec<Intent>,
    pub(super) has_more: bool,
}

#[derive(Deserialize)]
pub(super) struct Method {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Refunds {
    pub(super) data: Vec<Refunded>,
    pub(super) has_more: bool,
}

#[derive(Deserialize)]
pub(super) struct Refunded {
    pub(super) id: String,
    pub(super) amount: i64,
    status: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
pub(super) struct Failed {
    pub(super) error: ErrorFields,
}

#[derive(Deserialize)]
pub(super) struct ErrorFields {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
}

/// A text that goes into a URL as it is.
pub(super) fn plain(id: &str) -> Result<ChargeId, Failure> {
    id.parse().map_err(|_| Failure::unknown(Class::Malformed, "an id is none"))
}

impl ErrorFields {
    /// The issuer's code says more than Stripe's.
    pub(super) fn decline(&self) -> Decline {
        Decline::of_code(self.decline_code.as_deref().or(self.code.as_deref()).unwrap_or("unknown"))
    }
}

impl Refunded {
    pub(super) fn reference(&self) -> Option<&str> {
        self.metadata.as_ref()?.get("paymesh_reference").map(String::as_str)
    }

    /// Whether the money is on its way back, or may still be.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }

    /// What became of it, with the charge after it. One that waits may fail days later (docs.stripe.com/refunds): it is asked about until it is decided.
    pub(super) fn settled(&self, charge: Charge) -> Result<Settlement, Failure> {
        match self.status.as_deref() {
            Some("failed" | "canceled") => Ok(Settlement::Declined(Decline::of_code("refund_failed"))),
            Some("pending" | "requires_action") => Err(Failure::unknown(Class::Undecided, "the refund waits at the acquirer")),
            _ => Ok(Settlement::Done(charge)),
        }
    }
}

impl Intent {
    pub(super) fn reference(&self) -> Option<&str> {
        self.metadata.get("paymesh_reference").map(String::as_str)
    }

    pub(super) fn charge_id(&self) -> Result<ChargeId, Failure> {
        plain(&self.id)
    }

    /// Whether it is what was asked for.
    pub(super) fn check(&self, sought: &Sought) -> Result<(), Failure> {
        let mismatch = |what: &'static str| Err(Failure::unknown(Class::Mismatch, what));
        self.charge_id()?;
        if self.reference() != Some(sought.reference.as_str()) {
            return mismatch("the answer is about another reference");
        }
        if !self.currency.eq_ignore_ascii_case(sought.amount.currency().code()) {
            return mismatch("the answer is in another currency");
        }
        if amount::from_stripe(self.amount, sought.amount.currency()) != Some(sought.amount.minor()) {
            return mismatch("the answer is about another amount");
        }
        Ok(())
    }

    pub(super) fn charge(&self, sought: &Sought, refunds: &[Refunded]) -> Result<Charge, Failure> {
        let sums = || Failure::unknown(Class::Mismatch, "the answer's sums contradict each other");
        let state = match self.status {
            Status::RequiresPaymentMethod if self.last_payment_error.is_some() => ChargeState::Declined,
            Status::RequiresPaymentMethod | Status::RequiresConfirmation | Status::Processing => ChargeState::Undecided,
            Status::RequiresAction => ChargeState::ActionRequired,
            Status::RequiresCapture => ChargeState::Authorized,
            Status::Canceled => ChargeState::Voided,
            Status::Succeeded => ChargeState::Captured,
        };
        let (mut captured_minor, mut refunded_minor) = (0, 0);
        if state == ChargeState::Captured {
            let counting = refunds.iter().filter(|refund| refund.counts());
            let sum = |ours: bool| {
                counting.clone().filter(|refund| refund.reference().is_some() == ours).map(|refund| refund.amount).sum::<i64>()
            };
            let captured = match (self.amount_received, &self.latest_charge) {
                (Some(received), _) => received,
                (None, Some(LatestCharge::Whole { amount_captured: Some(captured), .. })) => *captured,
                // Before 2020, what was not captured was a refund that nobody had asked for.
                (None, Some(LatestCharge::Whole { amount, amount_captured: None })) => amount - sum(false),
                (None, _) => return Err(Failure::unknown(Class::Malformed, "the answer does not say how much was captured")),
            };
            let currency = sought.amount.currency();
            captured_minor = amount::from_stripe(captured, currency).ok_or_else(sums)?;
            refunded_minor = amount::from_stripe(sum(true), currency).ok_or_else(sums)?;
        }
        if !(0..=sought.amount.minor()).contains(&captured_minor) || !(0..=captured_minor).contains(&refunded_minor) {
            return Err(sums());
        }
        let decline = self.last_payment_error.as_ref().filter(|_| state == ChargeState::Declined).map(ErrorFields::decline);
        Ok(Charge {
            id: self.charge_id()?,
            reference: sought.reference.clone(),
            state,
            amount: sought.amount,
            captured_minor,
            refunded_minor,
            decline,
        })
    }
}
