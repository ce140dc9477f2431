//! What the simulator knows: its charges, and what may be done with them. No clock, no files.
//!
//! An operation changes one charge and returns it; the log writes it down whole, and the last of each reference counts.

use std::collections::{BTreeMap, HashMap};

use paymesh_types::{Currency, Money};
use serde::{Deserialize, Serialize};

/// Charges at most.
pub(crate) const CHARGES_MAX: usize = 2_000_000;
/// Operations on one charge at most.
const OPERATIONS_MAX: usize = 256;
/// Bytes of a reference at most.
const REFERENCE_BYTES_MAX: usize = 255;

/// How far a charge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for the cardholder.
    ActionRequired,
    /// The amount is held.
    Authorized,
    /// What was captured is captured, and the rest let go of.
    Captured,
    /// Nothing is held and nothing will be.
    Voided,
    /// Nothing is held and nothing will be.
    Declined,
}

/// A charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Charge {
    /// What the simulator calls it.
    pub(crate) id: String,
    /// Its number, from 1, in the order of their coming.
    pub(crate) sequence: u64,
    /// The caller's name for it.
    pub(crate) reference: String,
    /// How far it is.
    pub(crate) state: State,
    /// What was asked for.
    pub(crate) amount_minor: i64,
    /// ISO 4217.
    pub(crate) currency: String,
    /// As much of the card as may be shown: BIN, last four. None where it was voided before it came.
    pub(crate) card: Option<String>,
    /// Of `amount_minor`.
    pub(crate) captured_minor: i64,
    /// Of `captured_minor`.
    pub(crate) refunded_minor: i64,
    /// The reference of the capture.
    pub(crate) capture_reference: Option<String>,
    /// What was given back.
    pub(crate) refunds: Vec<Refund>,
    /// Why it was declined.
    pub(crate) decline_code: Option<String>,
    /// With which code it is declined once the cardholder has approved.
    after_challenge: Option<String>,
    /// Captures, voids and refunds, those that were declined among them.
    operations: Vec<Operation>,
}

/// Something given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refund {
    /// The caller's name for it.
    pub(crate) reference: String,
    /// How much.
    pub(crate) amount_minor: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    reference: String,
    kind: Kind,
    amount_minor: Option<i64>,
    declined: Option<String>,
}

/// What is done with a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Capture,
    Void,
    Refund,
}

/// What is not done, and not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The reference stands for something else.
    Reused,
    /// No charge has the reference.
    NoCharge,
    /// The field is malformed.
    Malformed(&'static str),
    /// There is no room left.
    Full,
}

/// A new charge's terms.
pub(crate) struct Terms<'a> {
    pub(crate) reference: &'a str,
    pub(crate) amount_minor: i64,
    pub(crate) currency: &'a str,
    /// BIN, last four.
    pub(crate) card: String,
    pub(crate) verdict: Verdict,
}

/// What is to become of it.
pub(crate) enum Verdict {
    Approve,
    Decline(&'static str),
    Challenge { then: Option<&'static str> },
}

/// An operation on a charge.
pub(crate) struct Order<'a> {
    pub(crate) kind: Kind,
    pub(crate) charge_reference: &'a str,
    /// What was to be authorized, for a void of what never came.
    pub(crate) charge_amount_minor: i64,
    pub(crate) reference: &'a str,
    pub(crate) amount_minor: Option<i64>,
    pub(crate) currency: &'a str,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) charge: Charge,
    pub(crate) declined: Option<String>,
    /// Whether there is something to write down: not where it had been done before.
    pub(crate) new: bool,
}

/// The charges.
#[derive(Debug, Default)]
pub(crate) struct Book {
    charges: BTreeMap<u64, Charge>,
    /// The charge that each reference is of: a charge's own, and its operations'.
    references: HashMap<String, u64>,
}

impl Book {
    /// Takes in a charge as it was written down. A later one with the same number replaces it.
    pub(crate) fn restore(&mut self, charge: Charge) {
        let references = charge.operations.iter().map(|operation| &operation.reference).chain([&charge.reference]);
        for reference in references {
            self.references.insert(reference.clone(), charge.sequence);
        }
        self.charges.insert(charge.sequence, charge);
    }

    pub(crate) fn find(&self, reference: &str) -> Option<&Charge> {
        let charge = self.charges.get(self.references.get(reference)?)?;
        (charge.reference == reference).then_some(charge)
    }

    /// Those after a number, in their order.
    pub(crate) fn page(&self, after: u64, limit: usize) -> Vec<Charge> {
        let from = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.charges.range(from).take(limit).map(|(_, charge)| charge.clone()).collect()
    }

    /// Authorizes, or says again what was said before.
    pub(crate) fn authorize(&mut self, terms: &Terms<'_>) -> Result<Done, Refusal> {
        check_reference(terms.reference, "reference")?;
        check_amount(terms.amount_minor, terms.currency)?;
        if let Some(sequence) = self.references.get(terms.reference) {
            let charge = &self.charges[sequence];
            let same = charge.reference == terms.reference
                && charge.amount_minor == terms.amount_minor
                && charge.currency == terms.currency
                && charge.card.as_ref().is_none_or(|card| *card == terms.card);
            return if same { Ok(Done { declined: declined(charge), charge: charge.clone(), new: false }) } else { Err(Refusal::Reused) };
        }
        let (state, decline_code, after_challenge) = match terms.verdict {
            Verdict::Approve => (State::Authorized, None, None),
            Verdict::Decline(code) => (State::Declined, Some(code.to_owned()), None),
            Verdict::Challenge { then } => (State::ActionRequired, None, then.map(str::to_owned)),
        };
        let charge = self.add(terms.reference, terms.amount_minor, terms.currency, state)?;
        (charge.card, charge.decline_code, charge.after_challenge) = (Some(terms.card.clone()), decline_code, after_challenge);
        Ok(Done { declined: declined(charge), charge: charge.clone(), new: true })
    }

    /// The cardholder's answer. What is not waiting for one stays as it is.
    pub(crate) fn answer(&mut self, reference: &str, approved: bool) -> Result<Done, Refusal> {
        let sequence = self.find(reference).ok_or(Refusal::NoCharge)?.sequence;
        let charge = self.charges.get_mut(&sequence).ok_or(Refusal::NoCharge)?;
        let new = charge.state == State::ActionRequired;
        if new {
            let decline = if approved { charge.after_challenge.take() } else { Some("authentication_failed".to_owned()) };
            charge.state = if decline.is_some() { State::Declined } else { State::Authorized };
            charge.decline_code = decline;
        }
        Ok(Done { declined: declined(charge), charge: charge.clone(), new })
    }

    /// The charge that a challenge is of.
    pub(crate) fn challenged(&self, id: &str) -> Option<&Charge> {
        let sequence = id.strip_prefix("challenge_")?.parse().ok()?;
        self.charges.get(&sequence)
    }

    /// Captures, voids or refunds, or says again what was said before.
    pub(crate) fn operate(&mut self, order: &Order<'_>) -> Result<Done, Refusal> {
        check_reference(order.reference, "reference")?;
        check_reference(order.charge_reference, "charge_reference")?;
        if order.reference == order.charge_reference {
            return Err(Refusal::Malformed("reference"));
        }
        match order.amount_minor {
            Some(amount) => check_amount(amount, order.currency)?,
            None if order.kind == Kind::Void => {}
            None => return Err(Refusal::Malformed("amount_minor")),
        }
        let known = self.find(order.charge_reference).map(|charge| charge.sequence);
        if let Some(other) = self.references.get(order.reference)
            && Some(*other) != known
        {
            return Err(Refusal::Reused);
        }
        let sequence = match known {
            Some(sequence) => sequence,
            // What comes later under this reference is too late.
            None if order.kind == Kind::Void && !self.references.contains_key(order.charge_reference) => {
                check_amount(order.charge_amount_minor, order.currency)?;
                self.add(order.charge_reference, order.charge_amount_minor, order.currency, State::Voided)?.sequence
            }
            None => return Err(Refusal::NoCharge),
        };
        let charge = self.charges.get_mut(&sequence).ok_or(Refusal::NoCharge)?;
        if charge.currency != order.currency {
            return Err(Refusal::Malformed("currency"));
        }
        if let Some(before) = charge.operations.iter().find(|operation| operation.reference == order.reference) {
            let same = before.kind == order.kind && before.amount_minor == order.amount_minor;
            let declined = before.declined.clone();
            return if same { Ok(Done { charge: charge.clone(), declined, new: false }) } else { Err(Refusal::Reused) };
        }
        if charge.operations.len() >= OPERATIONS_MAX {
            return Err(Refusal::Full);
        }
        let declined = charge.operate(order).err().map(str::to_owned);
        charge.operations.push(Operation {
            reference: order.reference.to_owned(),
            kind: order.kind,
            amount_minor: order.amount_minor,
            declined: declined.clone(),
        });
        self.references.insert(order.reference.to_owned(), sequence);
        Ok(Done { charge: charge.clone(), declined, new: true })
    }

    fn add(&mut self, reference: &str, amount_minor: i64, currency: &str, state: State) -> Result<&mut Charge, Refusal> {
        if self.charges.len() >= CHARGES_MAX {
            return Err(Refusal::Full);
        }
        let sequence = self.charges.last_key_value().map_or(1, |(last, _)| last + 1);
        self.references.insert(reference.to_owned(), sequence);
        Ok(self.charges.entry(sequence).or_insert(Charge {
            id: format!("ch_{sequence}"),
            sequence,
            reference: reference.to_owned(),
            state,
            amount_minor,
            currency: currency.to_owned(),
            card: None,
            captured_minor: 0,
            refunded_minor: 0,
            capture_reference: None,
            refunds: Vec::new(),
            decline_code: None,
            after_challenge: None,
            operations: Vec::new(),
        }))
    }
}

impl Charge {
    /// What a challenge is called.
    pub(crate) fn challenge(&self) -> String {
        format!("challenge_{}", self.sequence)
    }

    /// The error is the code that it is declined with.
    fn operate(&mut self, order: &Order<'_>) -> Result<(), &'static str> {
        let amount = order.amount_minor.unwrap_or_default();
        match (order.kind, self.state) {
            (Kind::Capture, State::Authorized) if amount > self.amount_minor => Err("amount_too_large"),
            (Kind::Capture, State::Authorized) => {
                self.state = State::Captured;
                self.captured_minor = amount;
                self.capture_reference = Some(order.reference.to_owned());
                Ok(())
            }
            (Kind::Void, State::Authorized | State::ActionRequired | State::Voided) => {
                self.state = State::Voided;
                Ok(())
            }
            // Nothing is held.
            (Kind::Void, State::Declined) => Ok(()),
            (Kind::Refund, State::Captured) if amount > self.captured_minor - self.refunded_minor => Err("amount_too_large"),
            (Kind::Refund, State::Captured) => {
                self.refunded_minor += amount;
                self.refunds.push(Refund { reference: order.reference.to_owned(), amount_minor: amount });
                Ok(())
            }
            _ => Err("wrong_state"),
        }
    }
}

/// With which code an authorization was declined.
fn declined(charge: &Charge) -> Option<String> {
    match charge.state {
        State::Declined => charge.decline_code.clone(),
        State::Voided => Some("voided".to_owned()),
        _ => None,
    }
}

fn check_reference(reference: &str, field: &'static str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let fits = (1..=REFERENCE_BYTES_MAX).contains(&reference.len()) && reference.bytes().all(plain);
    if fits { Ok(()) } else { Err(Refusal::Malformed(field)) }
}

fn check_amount(minor: i64, currency: &str) -> Result<(), Refusal> {
    let currency = Currency::from_code(currency).map_err(|_| Refusal::Malformed("currency"))?;
    Money::new(minor, currency).map(drop).ok_or(Refusal::Malformed("amount_minor"))
}
