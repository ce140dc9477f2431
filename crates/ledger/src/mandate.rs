//! Mandates: what a cardholder agrees to with one payment by card, authenticated, so that later ones are exempt.
//!
//! The exemptions are Articles 13 and 14 of Commission Delegated Regulation (EU) 2018/389 (the RTS): the payee is on the payer's list of trusted
//! beneficiaries, or the payment is one of a series of the same amount to the same payee. To create either needs strong customer authentication. A mandate
//! is named by the payment that set it up, and what it stands at is part of that payment.

use paymesh_types::{Money, PaymentId, ShardRef, UserId, VaultToken};

use crate::{Exemption, Means, OperationKind, Payment, Phase, Rejection};

/// What later payments are exempt as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MandateKind {
    /// One of a series of the same amount to the same payee: RTS Article 14. Its cardholder is not there.
    Recurring,
    /// To a payee whom the payer trusts, whatever the amount: RTS Article 13.
    TrustedPayee,
}

impl MandateKind {
    /// The name that callers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recurring => "RECURRING",
            Self::TrustedPayee => "TRUSTED_PAYEE",
        }
    }

    /// What a payment under it is exempt by.
    pub(crate) fn exemption(self) -> Exemption {
        match self {
            Self::Recurring => Exemption::Recurring,
            Self::TrustedPayee => Exemption::TrustedPayee,
        }
    }
}

/// A mandate, at the payment that sets it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mandate {
    /// What later payments are exempt as.
    pub kind: MandateKind,
    /// How far it came.
    pub state: MandateState,
}

/// How far a mandate came. What became of its payment says the rest: [`Payment::mandate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MandateState {
    /// Its cardholder was not authenticated.
    Pending,
    /// Its cardholder was authenticated, or did not have to be, and its payment was authorized.
    Active,
    /// Its payer does not want it any more.
    Cancelled,
}

/// How a mandate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MandateStanding {
    /// Its payment is not authorized yet.
    Pending,
    /// Its payment was authorized without the authentication that was owed: no later payment is exempt by it.
    NotAuthenticated,
    /// Later payments may name it.
    Active,
    /// Its payer does not want it any more.
    Cancelled,
    /// Its payment did not take place: it was declined, voided, returned, or ran out; or it was reported as fraud. Refunds change nothing of it.
    Ended,
}

impl MandateStanding {
    /// The name that callers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::NotAuthenticated => "NOT_AUTHENTICATED",
            Self::Active => "ACTIVE",
            Self::Cancelled => "CANCELLED",
            Self::Ended => "ENDED",
        }
    }
}

/// What a payment by card has to do with mandates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// It sets one up.
    SetUp(MandateKind),
    /// It is made under the one that this payment, of the same payer, has set up.
    Under(PaymentId),
}

impl Agreement {
    /// What it sets up.
    pub(crate) fn sets_up(&self) -> Option<MandateKind> {
        match self {
            Self::SetUp(kind) => Some(*kind),
            Self::Under(_) => None,
        }
    }

    /// The mandate that it is made under.
    pub(crate) fn under(&self) -> Option<&PaymentId> {
        match self {
            Self::SetUp(_) => None,
            Self::Under(mandate) => Some(mandate),
        }
    }
}

/// The mandate that a payment is made under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MandateUse {
    /// The payment that set it up.
    pub mandate: PaymentId,
    /// As what.
    pub kind: MandateKind,
}

/// What of a payment has to be as its mandate has it.
pub(crate) struct Terms<'a> {
    pub(crate) payer: UserId,
    pub(crate) payee: UserId,
    pub(crate) payee_shard: Option<&'a ShardRef>,
    pub(crate) money: Money,
    pub(crate) token: &'a VaultToken,
    /// Whether authentication is owed, so that the mandate has to have been given with it.
    pub(crate) owed: bool,
}

impl Payment {
    /// The mandate that the payment sets up, and how it stands.
    pub fn mandate(&self) -> Option<(MandateKind, MandateStanding)> {
        let charge = self.card.as_deref()?;
        let Mandate { kind, state } = charge.mandate?;
        let let_go = charge.operations.iter().any(|operation| matches!(operation.kind, OperationKind::Void | OperationKind::Expire));
        let standing = match (state, self.phase) {
            (MandateState::Cancelled, _) => MandateStanding::Cancelled,
            (_, Phase::Declined | Phase::Voided | Phase::Expired | Phase::Returned) => MandateStanding::Ended,
            // What nobody agreed to sets nothing up.
            _ if let_go || charge.fraud_reported_at.is_some() => MandateStanding::Ended,
            (MandateState::Active, _) => MandateStanding::Active,
            (MandateState::Pending, Phase::Pending | Phase::ActionRequired) => MandateStanding::Pending,
            (MandateState::Pending, Phase::Authorized | Phase::Captured) => MandateStanding::NotAuthenticated,
        };
        Some((kind, standing))
    }
}

/// What a payment of these terms is exempt as under the mandate that `set_up` has set up.
///
/// The card is the same: the mandate was authenticated to its issuer, and no other.
///
/// # Errors
/// `set_up` is nobody's mandate or another payer's, it does not stand, or the terms are not as it has them.
pub(crate) fn check(set_up: &Payment, terms: &Terms<'_>) -> Result<MandateKind, Rejection> {
    let mandate = set_up.mandate().filter(|_| set_up.payer == terms.payer);
    let (Some((kind, standing)), Some(charge)) = (mandate, set_up.card.as_deref()) else { return Err(Rejection::MandateNotFound) };
    match standing {
        // One that was given where nothing was owed exempts from nothing once something is.
        MandateStanding::Active if terms.owed && charge.means != Some(Means::Authenticated) => {
            return Err(Rejection::MandateNotAuthenticated);
        }
        MandateStanding::Active => {}
        MandateStanding::Pending | MandateStanding::NotAuthenticated => return Err(Rejection::MandateNotAuthenticated),
        MandateStanding::Cancelled => return Err(Rejection::MandateCancelled),
        MandateStanding::Ended => return Err(Rejection::MandateEnded),
    }
    let same = [
        ("payee_id", (set_up.payee, set_up.payee_shard.as_ref()) == (terms.payee, terms.payee_shard)),
        ("amount.currency_code", set_up.currency == terms.money.currency()),
        ("amount.minor_units", kind != MandateKind::Recurring || set_up.amount == terms.money.minor()),
        ("card.vault_token", charge.token == *terms.token),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(Rejection::MandateDiffers { field }),
        None => Ok(kind),
    }
}
