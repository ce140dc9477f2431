//! The port to an acquirer, and what it is asked.

use std::fmt;

use async_trait::async_trait;
use paymesh_cards::Card;
use paymesh_types::{Money, Timestamp};
use tokio::time::Instant;

use crate::{Charge, ChargeId, Decision, Failure, Reference, Settlement};

/// Whoever moves money between cards and banks.
///
/// Promises of every connector, which the conformance suite holds it to:
/// - the same reference is the same operation, done once; with another body it is refused or a failure, and never a second operation;
/// - no call takes longer than its deadline;
/// - an answer is about the amount, the currency and the reference that were asked for, or it is a [`Class::Mismatch`](crate::Class::Mismatch);
/// - a [`Failure`] says [`Certainty::NotDone`](crate::Certainty::NotDone) only where the call did nothing and never will;
/// - nothing that prints has a card's number.
///
/// What to do with a failure that is not certain: [`Self::capture`], [`Self::void`] and [`Self::refund`] may be asked again under the same reference until
/// they answer. An authorization needs the card for that; [`Self::look_up`] does not, and [`Self::void`] makes sure that nothing will be held.
#[async_trait]
pub trait Acquirer: Send + Sync {
    /// Holds an amount on a card. The number leaves for the acquirer's URL and for nowhere else.
    async fn authorize(&self, card: &Card, authorization: &Authorization, deadline: Instant) -> Result<Decision, Failure>;

    /// Takes what is held, or a part of it and lets the rest go. Once for each charge.
    async fn capture(&self, capture: &Capture, deadline: Instant) -> Result<Settlement, Failure>;

    /// Lets go of what is held. What has not been authorized yet, or has never been heard of, will not be: an authorization under that reference that
    /// comes later is declined.
    async fn void(&self, void: &Void, deadline: Instant) -> Result<Settlement, Failure>;

    /// Gives back what was captured, or a part of it.
    async fn refund(&self, refund: &Refund, deadline: Instant) -> Result<Settlement, Failure>;

    /// The charge that was authorized under a reference. `None`: there is none so far. A state that is not decided
    /// ([`ChargeState::is_decided`](crate::ChargeState::is_decided)) and `None` are no proof that there will be none: an authorization may still be on its way.
    async fn look_up(&self, sought: &Sought, deadline: Instant) -> Result<Option<Charge>, Failure>;
}

/// An amount to be held on a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Ours, of this authorization.
    pub reference: Reference,
    /// When this reference was first used, as the payment's journal has it. Acquirers forget idempotency keys: a connector does not authorize under a
    /// reference that is too old for that.
    pub begun_at: Timestamp,
    /// How much.
    pub amount: Money,
    /// What is known of the cardholder.
    pub authentication: Authentication,
    /// Whether the cardholder agreed to it earlier and is not there (a merchant-initiated transaction, such as a subscription's).
    pub recurring: bool,
    /// Whether the cardholder, who is there, agrees to later ones that are [`recurring`](Self::recurring).
    pub sets_up: bool,
}

/// What is known of the cardholder: strong customer authentication (Directive (EU) 2015/2366, article 97).
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// As the issuer wants it: it may ask for a challenge.
    IssuerDecides,
    /// The cardholder is to be challenged.
    Challenge,
    /// There is an exemption, which the issuer may turn down.
    Exempt(Exemption),
    /// The cardholder has answered a challenge: the authorization that waits for it goes on, under the same reference.
    Answered {
        /// What the cardholder's end gave back, where the acquirer wants it from us. None where the acquirer has it from the cardholder.
        answer: Option<String>,
    },
}

/// An answer to a challenge does not print.
impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IssuerDecides => f.write_str("IssuerDecides"),
            Self::Challenge => f.write_str("Challenge"),
            Self::Exempt(exemption) => write!(f, "Exempt({exemption:?})"),
            Self::Answered { .. } => f.write_str("Answered"),
        }
    }
}

/// Why no challenge is needed (Commission Delegated Regulation (EU) 2018/389, chapter III).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exemption {
    /// Article 16: a remote payment of small value.
    LowValue,
    /// Article 18: the analysis of the transaction's risk.
    TransactionRisk,
    /// Article 13: the payer has listed the payee as trusted.
    TrustedBeneficiary,
    /// Article 14: one of a series of equal payments to the same payee.
    Recurring,
    /// Article 17: a corporate payment by a dedicated process.
    SecureCorporate,
}

impl Exemption {
    /// Every exemption.
    pub const ALL: [Self; 5] = [Self::LowValue, Self::TransactionRisk, Self::TrustedBeneficiary, Self::Recurring, Self::SecureCorporate];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LowValue => "low_value",
            Self::TransactionRisk => "transaction_risk",
            Self::TrustedBeneficiary => "trusted_beneficiary",
            Self::Recurring => "recurring",
            Self::SecureCorporate => "secure_corporate",
        }
    }
}

/// A charge, by what we know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// The reference that it was to be authorized under.
    pub reference: Reference,
    /// As in [`Authorization::begun_at`].
    pub begun_at: Timestamp,
    /// What was to be authorized.
    pub amount: Money,
    /// What the acquirer calls it, where we have heard.
    pub charge: Option<ChargeId>,
}

/// Something to be taken of what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Of which charge.
    pub charge: Sought,
    /// Ours, of this capture.
    pub reference: Reference,
    /// How much: the charge's amount at most, in its currency.
    pub amount: Money,
}

/// Something to be let go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// Which charge.
    pub charge: Sought,
    /// Ours, of this void.
    pub reference: Reference,
}

/// Something to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Of which charge.
    pub charge: Sought,
    /// Ours, of this refund.
    pub reference: Reference,
    /// How much: what was captured and not refunded at most, in its currency.
    pub amount: Money,
}
