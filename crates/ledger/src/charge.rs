//! The side of a payment by card that is at its acquirer: what was asked there, what is in progress, and what came of it.
//!
//! Each step outside is an [`Operation`]: it is in the books before the acquirer is asked, and until it is known what the acquirer made of it.
//! Whoever leads the shard asks for what is in progress until it knows.

use paymesh_types::{ChargeId, GatewayName, Score, Timestamp, VaultToken};
use smallvec::SmallVec;

use crate::{Authentication, Mandate, MandateState, MandateUse, Means, NewCharge};

/// Refunds of one payment by card at most.
pub const REFUNDS_MAX: u32 = 100;
/// Gateways that are asked for one authorization at most, each where it is certain that the one before did nothing.
pub const GATEWAYS_ASKED_MAX: usize = 8;
/// How long a cardholder has for a challenge, in seconds.
pub const CHALLENGE_SECONDS: u32 = 15 * 60;

/// What a payment by card is at its acquirer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Charge {
    /// Stands for the card.
    pub token: VaultToken,
    /// The gateway that is asked, or that has the charge.
    pub gateway: GatewayName,
    /// The acquirer's name for it, once it is known.
    pub id: Option<ChargeId>,
    /// How long the hold lasts once it is there, in seconds; 0: what is authorized is captured at once.
    pub hold_s: u32,
    /// What the cardholder is asked to do.
    pub challenge: Option<Challenge>,
    /// What the acquirer is being asked for, by number. More than one only where they are refunds.
    pub operations: SmallVec<[Operation; 1]>,
    /// The number that the next operation gets, from 1.
    pub next_operation: u32,
    /// Refunds ever asked for, at most [`REFUNDS_MAX`].
    pub refunds: u32,
    /// Gateways that did nothing, for certain, in the order in which they were asked.
    pub left: SmallVec<[Left; 1]>,
    /// What fraud detection said of the payment; `None` where nobody asked.
    pub risk: Option<Risk>,
    /// Whether the cardholder has to authenticate it.
    pub authentication: Authentication,
    /// What that was before the issuer turned it down and the acquirer was asked again, with a challenge.
    pub turned_down: Option<Authentication>,
    /// The mandate that it sets up.
    pub mandate: Option<Mandate>,
    /// The mandate that it is made under.
    pub under: Option<MandateUse>,
    /// How it came to be authorized; `None` until it is, and where that was before it was noted.
    pub means: Option<Means>,
    /// When somebody reported it as fraud.
    pub fraud_reported_at: Option<Timestamp>,
}

/// What fraud detection said of a payment before anything was done for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Risk {
    /// How likely it is to be fraud; `None` where no score came in time, and the zone's policy took its place.
    pub score: Option<Score>,
    /// Whether somebody is to look at it.
    pub review: bool,
    /// The version of the rules that it was decided by, at most [`Risk::RULES_BYTES_MAX`] bytes; empty where there were none.
    pub rules: String,
}

impl Risk {
    /// Bytes of the rules' version at most.
    pub const RULES_BYTES_MAX: usize = 128;
}

/// Something that the acquirer is being asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Tells it from the others of the payment; the acquirer gets it as part of the reference.
    pub number: u32,
    /// What.
    pub kind: OperationKind,
    /// How much, in minor units.
    pub amount: i64,
    /// Since when.
    pub asked_at: Timestamp,
}

/// What an acquirer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationKind {
    /// To hold the amount.
    Authorize,
    /// To take the amount, and to let go of the rest.
    Capture,
    /// To let go of what is held, because a caller asked for it.
    Void,
    /// To let go of what is held, because its time is up.
    Expire,
    /// To send the amount back to the card.
    Refund,
}

/// A step that the cardholder has to take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// What the acquirer, or its code in a browser, calls it: at most [`Challenge::BYTES_MAX`] bytes.
    pub id: String,
    /// Where the cardholder goes, at most [`Challenge::BYTES_MAX`] bytes; `None` where the acquirer's own code in a browser takes the id.
    pub url: Option<String>,
}

impl Challenge {
    /// Bytes of each of its texts at most.
    pub const BYTES_MAX: usize = 1_024;
}

/// A gateway that was asked and did nothing, for certain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Left {
    /// Which.
    pub gateway: GatewayName,
    /// Why it was left.
    pub why: LeftBecause,
}

/// Why a gateway was left for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftBecause {
    /// There was no connection.
    Unreachable,
    /// It said that it has too much to do, and did nothing.
    Overloaded,
    /// Its circuit breaker was open.
    BreakerOpen,
    /// It refused the request itself, its credentials or its form: nobody's card was asked.
    Refused,
}

/// What an acquirer made of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did it.
    Done {
        /// Its name for the charge.
        id: ChargeId,
    },
    /// The cardholder has to do something first.
    Challenged {
        /// Its name for the charge.
        id: ChargeId,
        /// What.
        challenge: Challenge,
    },
    /// It did not do it, and will not.
    Declined {
        /// Why.
        reason: crate::Reason,
    },
    /// It did not do it, because the issuer wants the cardholder authenticated first.
    AuthenticationWanted,
    /// It did nothing, for certain, and the next is asked.
    Left {
        /// The next.
        to: GatewayName,
        /// Why it is left.
        why: LeftBecause,
    },
}

/// What happened to a payment by card after it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardStep {
    /// The cardholder has done what was asked: the acquirer is asked again.
    Confirmed,
    /// The next gateway is asked: the one before did nothing.
    Left,
    /// The cardholder has to do something.
    Challenged,
    /// The amount is held. Where it is to be captured at once, that is asked for; or its release, where the payee cannot be credited.
    Authorized,
    /// It did not take place.
    Declined,
    /// The issuer turns the exemption down: the acquirer is asked again, with a challenge.
    ExemptionRefused,
    /// The payer ends the mandate that it has set up.
    MandateCancelled,
    /// A caller wants held money taken.
    CaptureAsked {
        /// What the caller asked for, in minor units.
        asked: Option<i64>,
    },
    /// It was taken, and is with the payee or on its way there.
    Captured,
    /// It was taken, and the payee cannot be credited: it goes back to the card.
    CaptureReturned,
    /// The acquirer does not take it. The hold stands, or is being released where it was to be captured at once.
    CaptureRefused,
    /// A caller wants held money released.
    VoidAsked,
    /// The hold's time is up.
    ExpiryAsked,
    /// It was released on request.
    Voided,
    /// It was released because its time was up.
    Expired,
    /// The payee, of the same shard, has given money back for the card.
    RefundAsked {
        /// What this refund is to send back, in minor units.
        amount: i64,
        /// What the caller asked for, in minor units.
        asked: Option<i64>,
    },
    /// It is on its way to the cardholder.
    Refunded {
        /// Minor units.
        amount: i64,
    },
    /// The acquirer does not send it back to the card: the payer's account has it.
    RefundRefused {
        /// Minor units.
        amount: i64,
    },
    /// Somebody says that it was unauthorised or fraudulent.
    FraudReported,
}

impl Charge {
    /// A charge that is about to be asked for.
    pub(crate) fn new(new: &NewCharge, hold_s: u32) -> Self {
        Self {
            token: new.token.clone(),
            gateway: new.gateway.clone(),
            id: None,
            hold_s,
            challenge: None,
            operations: SmallVec::new(),
            next_operation: 1,
            refunds: 0,
            left: SmallVec::new(),
            risk: new.risk.clone(),
            authentication: new.authentication,
            turned_down: None,
            mandate: new.mandate.map(|kind| Mandate { kind, state: MandateState::Pending }),
            under: new.under.clone(),
            means: None,
            fraud_reported_at: None,
        }
    }

    /// By which article [`Self::authentication`] is so; `None` where nothing is owed, also where the issuer wants it all the same.
    pub fn article(&self) -> Option<&'static str> {
        match self.turned_down {
            Some(Authentication::NotRequired) => None,
            _ => self.authentication.article(),
        }
    }

    /// Whether the cardholder has authenticated it with the challenge that it waits for, or does not have to.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.challenge.is_some() || self.authentication == Authentication::NotRequired
    }

    /// What becomes of its mandate once it is authorized.
    pub(crate) fn mandate_once_authorized(&self) -> Option<Mandate> {
        let active = self.is_authenticated();
        self.mandate.map(|mandate| match mandate.state {
            MandateState::Pending if active => Mandate { state: MandateState::Active, ..mandate },
            _ => mandate,
        })
    }

    /// The operation of this number, while it is in progress.
    pub fn operation(&self, number: u32) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.number == number)
    }

    pub(crate) fn ask(&mut self, kind: OperationKind, amount: i64, asked_at: Timestamp) {
        self.operations.push(Operation { number: self.next_operation, kind, amount, asked_at });
        self.next_operation += 1;
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<Operation> {
        let at = self.operations.iter().position(|operation| operation.number == number)?;
        Some(self.operations.remove(at))
    }

    /// As it was before its newest operation was asked for.
    pub(crate) fn before_asked(mut self) -> Self {
        if let Some(operation) = self.operations.pop() {
            self.next_operation = operation.number;
        }
        self
    }
}
