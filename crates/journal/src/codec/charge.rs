//! Payments by card: what of them is in an entry's sealed part, and what happened to them.

use paymesh_contract::events::v1 as pb;
use paymesh_ledger::{
    Authentication, CardStep, Challenge, Charge, Exemption, GATEWAYS_ASKED_MAX, Left, LeftBecause, Mandate, MandateKind, MandateState,
    MandateUse, Means, NewCharge, NewPayment, Operation, OperationKind, Payment, REFUNDS_MAX, Risk, Totals,
};
use paymesh_types::{ChargeId, GatewayName, Score};

use super::{DecodeError, asked, below, signed, time, unsigned};

/// Operations of a charge at most: as many as there can be refunds, and one that comes by itself.
const OPERATIONS_MAX: usize = REFUNDS_MAX as usize + 1;

/// A charge as a message.
pub(crate) fn charge(charge: &Charge) -> pb::Charge {
    pb::Charge {
        vault_token: charge.token.to_string(),
        gateway: charge.gateway.to_string(),
        charge_id: charge.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        hold_s: charge.hold_s,
        challenge_id: charge.challenge.as_ref().map(|challenge| challenge.id.clone()).unwrap_or_default(),
        challenge_url: charge.challenge.as_ref().and_then(|challenge| challenge.url.clone()).unwrap_or_default(),
        operations: charge.operations.iter().map(operation).collect(),
        next_operation: charge.next_operation,
        refunds: charge.refunds,
        left: charge.left.iter().map(|left| pb::GatewayLeft { gateway: left.gateway.to_string(), why: because(left.why) as i32 }).collect(),
        risk: charge.risk.as_ref().map(risk),
        authentication: authentication(charge.authentication) as i32,
        mandate: charge.mandate.map(mandate),
        under: charge.under.as_ref().map(under),
        turned_down: charge.turned_down.map(|before| authentication(before) as i32),
        monitoring: (charge.means.is_some() || charge.fraud_reported_at.is_some()).then(|| pb::Monitoring {
            means: charge.means.map_or(pb::Means::Unspecified, means) as i32,
            fraud_reported_at_us: charge.fraud_reported_at.unwrap_or_default().0,
        }),
    }
}

fn mandate(Mandate { kind, state }: Mandate) -> pb::Mandate {
    let state = match state {
        MandateState::Pending => pb::MandateState::Pending,
        MandateState::Active => pb::MandateState::Active,
        MandateState::Cancelled => pb::MandateState::Cancelled,
    };
    pb::Mandate { kind: mandate_kind(kind) as i32, state: state as i32 }
}

fn under(under: &MandateUse) -> pb::MandateUse {
    pb::MandateUse { mandate_id: under.mandate.to_string(), kind: mandate_kind(under.kind) as i32 }
}

fn mandate_kind(kind: MandateKind) -> pb::MandateKind {
    match kind {
        MandateKind::Recurring => pb::MandateKind::Recurring,
        MandateKind::TrustedPayee => pb::MandateKind::TrustedPayee,
    }
}

fn from_mandate(message: &pb::Mandate) -> Result<Mandate, DecodeError> {
    let state = match message.state() {
        pb::MandateState::Pending => MandateState::Pending,
        pb::MandateState::Active => MandateState::Active,
        pb::MandateState::Cancelled => MandateState::Cancelled,
        pb::MandateState::Unspecified => return Err(DecodeError::Missing("a mandate without a state")),
    };
    Ok(Mandate { kind: from_mandate_kind(message.kind())?, state })
}

fn from_under(message: &pb::MandateUse) -> Result<MandateUse, DecodeError> {
    Ok(MandateUse { mandate: message.mandate_id.parse()?, kind: from_mandate_kind(message.kind())? })
}

fn from_mandate_kind(kind: pb::MandateKind) -> Result<MandateKind, DecodeError> {
    Ok(match kind {
        pb::MandateKind::Recurring => MandateKind::Recurring,
        pb::MandateKind::TrustedPayee => MandateKind::TrustedPayee,
        pb::MandateKind::Unspecified => return Err(DecodeError::Missing("a mandate of no kind")),
    })
}

fn means(means: Means) -> pb::Means {
    match means {
        Means::Authenticated => pb::Means::Authenticated,
        Means::LowValue => pb::Means::LowValue,
        Means::TransactionRisk => pb::Means::TransactionRisk,
        Means::Other => pb::Means::Other,
        Means::Recurring => pb::Means::Recurring,
        Means::TrustedPayee => pb::Means::TrustedPayee,
    }
}

pub(crate) fn from_means(number: i32) -> Result<Option<Means>, DecodeError> {
    Ok(match pb::Means::try_from(number).map_err(|_| DecodeError::Missing("an unknown way to be authorized"))? {
        pb::Means::Unspecified => None,
        pb::Means::Authenticated => Some(Means::Authenticated),
        pb::Means::LowValue => Some(Means::LowValue),
        pb::Means::TransactionRisk => Some(Means::TransactionRisk),
        pb::Means::Other => Some(Means::Other),
        pb::Means::Recurring => Some(Means::Recurring),
        pb::Means::TrustedPayee => Some(Means::TrustedPayee),
    })
}

/// What the payments of some means come to, as a message.
pub(crate) fn monitored(of: Means, totals: &Totals) -> pb::Monitored {
    pb::Monitored {
        means: means(of) as i32,
        payments: totals.payments,
        minor: unsigned(totals.minor),
        frauds: totals.frauds,
        fraud_minor: unsigned(totals.fraud_minor),
    }
}

pub(crate) fn from_monitored(message: &pb::Monitored) -> Result<(Option<Means>, Totals), DecodeError> {
    let totals = Totals {
        payments: below(message.payments)?,
        minor: signed(message.minor)?,
        frauds: below(message.frauds)?,
        fraud_minor: signed(message.fraud_minor)?,
    };
    Ok((from_means(message.means)?, totals))
}

fn authentication(authentication: Authentication) -> pb::Authentication {
    match authentication {
        Authentication::NotRequired => pb::Authentication::Unspecified,
        Authentication::Exempt(Exemption::LowValue) => pb::Authentication::ExemptLowValue,
        Authentication::Exempt(Exemption::Recurring) => pb::Authentication::ExemptRecurring,
        Authentication::Exempt(Exemption::TrustedPayee) => pb::Authentication::ExemptTrustedPayee,
        Authentication::Exempt(Exemption::TransactionRisk) => pb::Authentication::ExemptTransactionRisk,
        Authentication::Required => pb::Authentication::Required,
    }
}

fn from_authentication(number: i32) -> Result<Authentication, DecodeError> {
    Ok(match pb::Authentication::try_from(number).map_err(|_| DecodeError::Missing("an unknown authentication"))? {
        pb::Authentication::Unspecified => Authentication::NotRequired,
        pb::Authentication::ExemptLowValue => Authentication::Exempt(Exemption::LowValue),
        pb::Authentication::ExemptRecurring => Authentication::Exempt(Exemption::Recurring),
        pb::Authentication::ExemptTrustedPayee => Authentication::Exempt(Exemption::TrustedPayee),
        pb::Authentication::ExemptTransactionRisk => Authentication::Exempt(Exemption::TransactionRisk),
        pb::Authentication::Required => Authentication::Required,
    })
}

fn risk(risk: &Risk) -> pb::Risk {
    pb::Risk { score: risk.score.map(Score::ten_thousandths), review: risk.review, rules_version: risk.rules.clone() }
}

fn from_risk(message: &pb::Risk) -> Result<Risk, DecodeError> {
    if message.rules_version.len() > Risk::RULES_BYTES_MAX {
        return Err(DecodeError::Missing("a version of rules that is longer than one is"));
    }
    let score = message.score.map(|score| Score::new(score).ok_or(DecodeError::Missing("a score out of range"))).transpose()?;
    Ok(Risk { score, review: message.review, rules: message.rules_version.clone() })
}

/// What a new payment's charge is, of which the ledger's entry says the beginning only.
pub(super) fn beginning(new: &NewPayment) -> Option<pb::Charge> {
    let card = new.card.as_ref()?;
    Some(pb::Charge {
        vault_token: card.token.to_string(),
        gateway: card.gateway.to_string(),
        risk: card.risk.as_ref().map(risk),
        authentication: authentication(card.authentication) as i32,
        mandate: card.mandate.map(|kind| mandate(Mandate { kind, state: MandateState::Pending })),
        under: card.under.as_ref().map(under),
        ..pb::Charge::default()
    })
}

fn operation(operation: &Operation) -> pb::ChargeOperation {
    pb::ChargeOperation {
        number: operation.number,
        kind: kind(operation.kind) as i32,
        amount: unsigned(operation.amount),
        asked_at_us: operation.asked_at.0,
    }
}

fn kind(kind: OperationKind) -> pb::OperationKind {
    match kind {
        OperationKind::Authorize => pb::OperationKind::Authorize,
        OperationKind::Capture => pb::OperationKind::Capture,
        OperationKind::Void => pb::OperationKind::Void,
        OperationKind::Expire => pb::OperationKind::Expire,
        OperationKind::Refund => pb::OperationKind::Refund,
    }
}

fn because(why: LeftBecause) -> pb::LeftBecause {
    match why {
        LeftBecause::Unreachable => pb::LeftBecause::Unreachable,
        LeftBecause::Overloaded => pb::LeftBecause::Overloaded,
        LeftBecause::BreakerOpen => pb::LeftBecause::BreakerOpen,
        LeftBecause::Refused => pb::LeftBecause::Refused,
    }
}

/// A step as a message: what it is, the amount of a refund, and what the caller asked for.
pub(super) fn step(step: CardStep) -> (pb::CardStep, u64, u64) {
    let asked = |asked: Option<i64>| asked.map_or(0, unsigned);
    match step {
        CardStep::Confirmed => (pb::CardStep::Confirmed, 0, 0),
        CardStep::Left => (pb::CardStep::Left, 0, 0),
        CardStep::Challenged => (pb::CardStep::Challenged, 0, 0),
        CardStep::Authorized => (pb::CardStep::Authorized, 0, 0),
        CardStep::Declined => (pb::CardStep::Declined, 0, 0),
        CardStep::ExemptionRefused => (pb::CardStep::ExemptionRefused, 0, 0),
        CardStep::MandateCancelled => (pb::CardStep::MandateCancelled, 0, 0),
        CardStep::CaptureAsked { asked: wanted } => (pb::CardStep::CaptureAsked, 0, asked(wanted)),
        CardStep::Captured => (pb::CardStep::Captured, 0, 0),
        CardStep::CaptureReturned => (pb::CardStep::CaptureReturned, 0, 0),
        CardStep::CaptureRefused => (pb::CardStep::CaptureRefused, 0, 0),
        CardStep::VoidAsked => (pb::CardStep::VoidAsked, 0, 0),
        CardStep::ExpiryAsked => (pb::CardStep::ExpiryAsked, 0, 0),
        CardStep::Voided => (pb::CardStep::Voided, 0, 0),
        CardStep::Expired => (pb::CardStep::Expired, 0, 0),
        CardStep::RefundAsked { amount, asked: wanted } => (pb::CardStep::RefundAsked, unsigned(amount), asked(wanted)),
        CardStep::Refunded { amount } => (pb::CardStep::Refunded, unsigned(amount), 0),
        CardStep::RefundRefused { amount } => (pb::CardStep::RefundRefused, unsigned(amount), 0),
        CardStep::FraudReported => (pb::CardStep::FraudReported, 0, 0),
    }
}

pub(super) fn from_step(message: &pb::CardStepped) -> Result<CardStep, DecodeError> {
    let amount = || signed(message.amount);
    let wanted = || asked(message.asked);
    let step = pb::CardStep::try_from(message.step).map_err(|_| DecodeError::Missing("an unknown step of a payment by card"))?;
    Ok(match step {
        pb::CardStep::Confirmed => CardStep::Confirmed,
        pb::CardStep::Left => CardStep::Left,
        pb::CardStep::Challenged => CardStep::Challenged,
        pb::CardStep::Authorized => CardStep::Authorized,
        pb::CardStep::Declined => CardStep::Declined,
        pb::CardStep::ExemptionRefused => CardStep::ExemptionRefused,
        pb::CardStep::MandateCancelled => CardStep::MandateCancelled,
        pb::CardStep::CaptureAsked => CardStep::CaptureAsked { asked: wanted()? },
        pb::CardStep::Captured => CardStep::Captured,
        pb::CardStep::CaptureReturned => CardStep::CaptureReturned,
        pb::CardStep::CaptureRefused => CardStep::CaptureRefused,
        pb::CardStep::VoidAsked => CardStep::VoidAsked,
        pb::CardStep::ExpiryAsked => CardStep::ExpiryAsked,
        pb::CardStep::Voided => CardStep::Voided,
        pb::CardStep::Expired => CardStep::Expired,
        pb::CardStep::RefundAsked => CardStep::RefundAsked { amount: amount()?, asked: wanted()? },
        pb::CardStep::Refunded => CardStep::Refunded { amount: amount()? },
        pb::CardStep::RefundRefused => CardStep::RefundRefused { amount: amount()? },
        pb::CardStep::FraudReported => CardStep::FraudReported,
        pb::CardStep::Unspecified => return Err(DecodeError::Missing("a payment by card without a step")),
    })
}

/// How a payment by card begins.
pub(super) fn from_beginning(message: Option<&pb::Charge>) -> Result<NewCharge, DecodeError> {
    let message = message.ok_or(DecodeError::Missing("a payment by card without a charge"))?;
    let risk = message.risk.as_ref().map(from_risk).transpose()?;
    let authentication = from_authentication(message.authentication)?;
    Ok(NewCharge {
        token: message.vault_token.parse()?,
        gateway: message.gateway.parse()?,
        risk,
        authentication,
        mandate: message.mandate.as_ref().map(|mandate| from_mandate_kind(mandate.kind())).transpose()?,
        under: message.under.as_ref().map(from_under).transpose()?,
    })
}

/// The payment with its charge, where the message has one: the open part of an entry alone has none.
pub(crate) fn with(payment: Payment, message: Option<&pb::Charge>) -> Result<Payment, DecodeError> {
    let card = message.map(from_charge).transpose()?.map(Box::new);
    Ok(Payment { card, ..payment })
}

/// A charge out of its message.
pub(crate) fn from_charge(message: &pb::Charge) -> Result<Charge, DecodeError> {
    if message.operations.len() > OPERATIONS_MAX || message.left.len() > GATEWAYS_ASKED_MAX {
        return Err(DecodeError::Missing("a charge with more operations or gateways than one has"));
    }
    if message.challenge_url.len().max(message.challenge_id.len()) > Challenge::BYTES_MAX {
        return Err(DecodeError::Missing("a challenge with longer texts than one has"));
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let pb::Monitoring { means, fraud_reported_at_us } = message.monitoring.unwrap_or_default();
    Ok(Charge {
        token: message.vault_token.parse()?,
        gateway: message.gateway.parse()?,
        id: text(&message.charge_id).map(|id| id.parse::<ChargeId>()).transpose()?,
        hold_s: message.hold_s,
        challenge: text(&message.challenge_id).map(|id| Challenge { id, url: text(&message.challenge_url) }),
        operations: message.operations.iter().map(from_operation).collect::<Result<_, _>>()?,
        next_operation: message.next_operation,
        refunds: message.refunds,
        left: message
            .left
            .iter()
            .map(|left| Ok(Left { gateway: left.gateway.parse::<GatewayName>()?, why: from_because(left.why())? }))
            .collect::<Result<_, DecodeError>>()?,
        risk: message.risk.as_ref().map(from_risk).transpose()?,
        authentication: from_authentication(message.authentication)?,
        turned_down: message.turned_down.map(from_authentication).transpose()?,
        mandate: message.mandate.as_ref().map(from_mandate).transpose()?,
        under: message.under.as_ref().map(from_under).transpose()?,
        means: from_means(means)?,
        fraud_reported_at: if fraud_reported_at_us == 0 { None } else { Some(time(fraud_reported_at_us)?) },
    })
}

fn from_operation(message: &pb::ChargeOperation) -> Result<Operation, DecodeError> {
    let kind = match message.kind() {
        pb::OperationKind::Authorize => OperationKind::Authorize,
        pb::OperationKind::Capture => OperationKind::Capture,
        pb::OperationKind::Void => OperationKind::Void,
        pb::OperationKind::Expire => OperationKind::Expire,
        pb::OperationKind::Refund => OperationKind::Refund,
        pb::OperationKind::Unspecified => return Err(DecodeError::Missing("an operation of no kind")),
    };
    Ok(Operation { number: message.number, kind, amount: signed(message.amount)?, asked_at: time(message.asked_at_us)? })
}

fn from_because(why: pb::LeftBecause) -> Result<LeftBecause, DecodeError> {
    Ok(match why {
        pb::LeftBecause::Unreachable => LeftBecause::Unreachable,
        pb::LeftBecause::Overloaded => LeftBecause::Overloaded,
        pb::LeftBecause::BreakerOpen => LeftBecause::BreakerOpen,
        pb::LeftBecause::Refused => LeftBecause::Refused,
        pb::LeftBecause::Unspecified => return Err(DecodeError::Missing("a gateway that was left for no reason")),
    })
}
