//! What acquirers say, in the ledger's words, and what they are told, in theirs.

use paymesh_acquirers::{Class, DeclineReason, Failure, Reference};
use paymesh_ledger::{
    Authentication, Challenge, Charge, Exemption, LeftBecause, MandateKind, MandateState, Operation, OperationKind, Outcome, Reason,
};
use paymesh_types::{ChargeId, PaymentId, Timestamp};

/// What names a payment outside of the mesh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) id: &'a PaymentId,
    pub(super) made: Timestamp,
}

/// Our name for an operation of a payment: its id, when it was made (a mesh that begins anew gives the same ids again), what is done and a number. An authorization keeps its name while its cardholder is waited for, and has another at each gateway and once its exemption
/// was turned down; the others have a number.
pub(super) fn reference(payment: Named<'_>, charge: &Charge, operation: &Operation) -> Reference {
    let number = operation.number;
    match operation.kind {
        OperationKind::Authorize => authorization(payment, charge),
        OperationKind::Capture => named(payment, "capture", number),
        OperationKind::Void | OperationKind::Expire => named(payment, "void", number),
        OperationKind::Refund => named(payment, "refund", number),
    }
}

/// Our name for the authorization of a charge.
pub(super) fn authorization(payment: Named<'_>, charge: &Charge) -> Reference {
    named(payment, "authorize", tried(charge))
}

/// Our name for letting go of an authorization of which nobody knows what became of it.
pub(super) fn giving_up(payment: Named<'_>, charge: &Charge) -> Reference {
    named(payment, "give-up", tried(charge))
}

/// Authorizations of the payment that came to nothing before this one: at gateways that did nothing, and without the authentication that the issuer wants.
fn tried(charge: &Charge) -> u32 {
    u32::try_from(charge.left.len() + usize::from(charge.turned_down.is_some())).unwrap_or(u32::MAX)
}

fn named(Named { id, made }: Named<'_>, what: &str, number: u32) -> Reference {
    format!("{id}.{}.{what}.{number}", made.0).parse().expect("a payment's id is short and plain, and so is this")
}

/// An acquirer's name for a charge, where we can keep it.
pub(super) fn charge_id(id: &paymesh_acquirers::ChargeId) -> Option<ChargeId> {
    id.as_str().parse().ok()
}

/// The step that a cardholder is asked for. `None`: it is longer than any that we keep.
pub(super) fn challenge(challenge: paymesh_acquirers::Challenge) -> Option<Challenge> {
    let paymesh_acquirers::Challenge { id, url } = challenge;
    let fits = id.len().max(url.as_ref().map_or(0, String::len)) <= Challenge::BYTES_MAX && !id.is_empty();
    // It is followed by a cardholder's browser.
    let url = url.filter(|url| url.starts_with("https://") || url.starts_with("http://127.0.0.1:"));
    fits.then_some(Challenge { id, url })
}

/// What an acquirer is told of the cardholder's authentication before there was a challenge.
pub(super) fn authentication(authentication: Authentication) -> paymesh_acquirers::Authentication {
    match authentication {
        Authentication::NotRequired => paymesh_acquirers::Authentication::IssuerDecides,
        Authentication::Exempt(exemption) => paymesh_acquirers::Authentication::Exempt(match exemption {
            Exemption::LowValue => paymesh_acquirers::Exemption::LowValue,
            Exemption::Recurring => paymesh_acquirers::Exemption::Recurring,
            Exemption::TransactionRisk => paymesh_acquirers::Exemption::TransactionRisk,
            Exemption::TrustedPayee => paymesh_acquirers::Exemption::TrustedBeneficiary,
        }),
        Authentication::Required => paymesh_acquirers::Authentication::Challenge,
    }
}

/// Whether the cardholder agreed earlier and is not there.
pub(super) fn is_recurring(charge: &Charge) -> bool {
    charge.under.as_ref().is_some_and(|under| under.kind == MandateKind::Recurring)
}

/// Whether the cardholder agrees to later ones without them. A trusted payee's payer is there each time.
pub(super) fn sets_up_recurring(charge: &Charge) -> bool {
    charge.mandate.is_some_and(|mandate| mandate.kind == MandateKind::Recurring && mandate.state == MandateState::Pending)
}

/// An authorization that is declined. One that its issuer wants authenticated is the ledger's to ask for again. What may not be told to whoever shows the card is no more than a decline.
pub(super) fn declined(reason: DeclineReason) -> Outcome {
    let reason = match reason {
        DeclineReason::InsufficientFunds | DeclineReason::LimitExceeded => Reason::CardInsufficientFunds,
        DeclineReason::ExpiredCard => Reason::CardExpired,
        DeclineReason::InvalidCard => Reason::CardInvalid,
        DeclineReason::AuthenticationRequired => return Outcome::AuthenticationWanted,
        DeclineReason::AuthenticationFailed => Reason::AuthenticationFailed,
        DeclineReason::IssuerUnavailable => Reason::GatewayUnavailable,
        DeclineReason::DoNotHonor
        | DeclineReason::LostOrStolen
        | DeclineReason::NotSupported
        | DeclineReason::SuspectedFraud
        | DeclineReason::InvalidAmount
        | DeclineReason::AmountTooLarge
        | DeclineReason::WrongState
        | DeclineReason::Other => Reason::CardDeclined,
    };
    Outcome::Declined { reason }
}

/// Why a gateway is left for the next after a call that did nothing. `None`: it is not the gateway's fault, and the next would fare no better.
pub(super) fn left_because(failure: &Failure) -> Option<LeftBecause> {
    match failure.class {
        Class::Unreachable => Some(LeftBecause::Unreachable),
        Class::Overloaded | Class::Full | Class::ServerError | Class::Timeout | Class::Broken => Some(LeftBecause::Overloaded),
        Class::Open => Some(LeftBecause::BreakerOpen),
        Class::Refused | Class::Configuration | Class::Malformed | Class::Mismatch => Some(LeftBecause::Refused),
        Class::Undecided | Class::Late | Class::Spent | Class::Ours => None,
    }
}
