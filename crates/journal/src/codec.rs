//! Entries as bytes: the messages of `paymesh.events.v1`, in two parts.

pub(crate) mod charge;

use paymesh_contract::events::v1 as pb;
use paymesh_ledger::{
    Account, Body, Counted, Credit, Effect, Entry, Exempted, LineId, NewPayment, Payment, PaymentMethod, Phase, Posting, Reason,
};
use paymesh_types::{
    Country, Currency, Cursor, Epoch, HistoryMark, Money, PaymentId, Position, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName,
};
use prost::Message as _;

use crate::StoredEntry;

/// Postings of an entry at most: money goes from one account to another.
const POSTINGS_MAX: usize = 2;

/// Why bytes are not an entry.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf.
    #[error("an entry does not decode: {0}")]
    Wire(#[from] prost::DecodeError),
    /// A value that no leader writes.
    #[error("an entry does not make sense: {0}")]
    Value(#[from] paymesh_types::Invalid),
    /// A field that every leader writes is absent or out of its range.
    #[error("an entry does not make sense: {0}")]
    Missing(&'static str),
}

/// Buffers that encoding uses again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    open: Vec<u8>,
    sealed: Vec<u8>,
}

/// Encodes an entry of number `sequence`.
pub fn encode<'a>(entry: &Entry, sequence: Sequence, scratch: &'a mut Scratch) -> StoredEntry<'a> {
    scratch.open.clear();
    scratch.sealed.clear();
    open(entry, sequence).encode(&mut scratch.open).expect("a vector has room");
    sealed(entry, sequence).encode(&mut scratch.sealed).expect("a vector has room");
    StoredEntry { open: &scratch.open, sealed: &scratch.sealed }
}

/// Decodes an entry of number `sequence` of `shard`.
///
/// # Errors
/// The bytes are not an entry that a leader wrote.
pub fn decode(parts: StoredEntry<'_>, sequence: Sequence, shard: &ShardRef) -> Result<Entry, DecodeError> {
    from_parts(pb::EntryOpen::decode(parts.open)?, pb::EntrySealed::decode(parts.sealed)?, sequence, shard)
}

/// Decodes the open part of an entry of number `sequence` of `shard`: the entry without postings and reference. `None` where
/// the entry is of a kind that does not make sense without its sealed part.
///
/// # Errors
/// The bytes are not an entry that a leader wrote.
pub fn decode_open(open: &[u8], sequence: Sequence, shard: &ShardRef) -> Result<Option<Entry>, DecodeError> {
    let open = pb::EntryOpen::decode(open)?;
    match &open.body {
        Some(
            pb::entry_open::Body::UserEnrolled(_)
            | pb::entry_open::Body::PaymentMethodAdded(_)
            | pb::entry_open::Body::PaymentMethodRemoved(_),
        ) => return Ok(None),
        Some(pb::entry_open::Body::PaymentCreated(created)) if created.by_card => return Ok(None),
        _ => {}
    }
    from_parts(open, pb::EntrySealed::default(), sequence, shard).map(Some)
}

/// The open part of an entry.
pub fn open(entry: &Entry, sequence: Sequence) -> pb::EntryOpen {
    pb::EntryOpen {
        at_us: entry.at.0,
        request_id: entry.request_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        body: Some(body(&entry.body, sequence)),
    }
}

/// The sealed part of an entry.
pub fn sealed(entry: &Entry, sequence: Sequence) -> pb::EntrySealed {
    let residence_country = match &entry.body {
        Body::UserEnrolled { country, .. } => country.code().to_owned(),
        _ => String::new(),
    };
    pb::EntrySealed {
        postings: entry.postings.iter().map(|each| posting(each, sequence)).collect(),
        reference: entry.reference.clone(),
        residence_country,
        charge: match &entry.body {
            Body::PaymentCreated(new) => charge::beginning(new),
            body => of_body(body).and_then(|payment| payment.card.as_deref()).map(charge::charge),
        },
        charge_before: match &entry.body {
            Body::Card { before, .. } => before.card.as_deref().map(charge::charge),
            _ => None,
        },
        monitored: entry.counted().map(|counted| charge::monitored(counted.means, &counted.after)),
        vault_token: match &entry.body {
            Body::MethodAdded { token, .. } | Body::MethodRemoved { method: PaymentMethod { token, .. }, .. } => token.to_string(),
            _ => String::new(),
        },
    }
}

/// The payment as the entry left it, where the entry says it whole.
fn of_body(body: &Body) -> Option<&Payment> {
    match body {
        Body::Card { payment, .. }
        | Body::PaymentCaptured { payment, .. }
        | Body::PaymentVoided { payment }
        | Body::PaymentExpired { payment }
        | Body::RefundCompleted { payment, .. }
        | Body::RefundRequested { payment, .. } => Some(payment),
        Body::Received { effect, .. } => match effect {
            Effect::PaymentReturned(payment) | Effect::RefundReceived { payment, .. } | Effect::RefundFailed { payment, .. } => {
                Some(payment)
            }
            Effect::Credited(_) | Effect::Bounced(_) | Effect::RefundPaid(_) | Effect::RefundRefused(_) => None,
        },
        Body::UserEnrolled { .. }
        | Body::UserClaimed { .. }
        | Body::AccountOpened { .. }
        | Body::AccountClosed { .. }
        | Body::MethodAdded { .. }
        | Body::MethodRemoved { .. }
        | Body::Deposited { .. }
        | Body::Withdrawn { .. }
        | Body::PaymentCreated(_)
        | Body::Delivered { .. } => None,
    }
}

fn body(body: &Body, at: Sequence) -> pb::entry_open::Body {
    use pb::entry_open::Body as B;
    match body {
        Body::UserEnrolled { user, currencies, .. } => B::UserEnrolled(pb::UserEnrolled {
            user_id: user.get(),
            currencies: currencies.iter().map(|currency| number(*currency)).collect(),
        }),
        Body::UserClaimed { user, zone } => B::UserClaimed(pb::UserClaimed { user_id: user.get(), zone: zone.to_string() }),
        Body::AccountOpened { user, currency } => B::AccountOpened(pb::AccountOpened { user_id: user.get(), currency: number(*currency) }),
        Body::AccountClosed { user, currency } => B::AccountClosed(pb::AccountClosed { user_id: user.get(), currency: number(*currency) }),
        Body::MethodAdded { user, .. } => B::PaymentMethodAdded(pb::PaymentMethodAdded { user_id: user.get() }),
        Body::MethodRemoved { user, method } => B::PaymentMethodRemoved(pb::PaymentMethodRemoved {
            user_id: user.get(),
            added_sequence: method.added.0,
            added_at_us: method.added_at.0,
        }),
        Body::Deposited { user, money } => {
            B::Deposited(pb::Deposited { user_id: user.get(), currency: number(money.currency()), amount: unsigned(money.minor()) })
        }
        Body::Withdrawn { user, money, declined } => B::Withdrawn(pb::Withdrawn {
            user_id: user.get(),
            currency: number(money.currency()),
            amount: unsigned(money.minor()),
            declined: reason(*declined),
        }),
        Body::PaymentCreated(new) => B::PaymentCreated(created(new, at)),
        // What it counts is in the sealed part.
        Body::Card { step, payment, before, counted: _ } => {
            let (step, amount, asked) = charge::step(*step);
            B::CardStepped(pb::CardStepped { step: step as i32, payment: Some(state(payment)), before: Some(state(before)), amount, asked })
        }
        Body::PaymentCaptured { payment, asked } => {
            B::PaymentCaptured(pb::PaymentCaptured { payment: Some(state(payment)), asked: asked.map(unsigned).unwrap_or(0) })
        }
        Body::PaymentVoided { payment } => B::PaymentVoided(pb::PaymentVoided { payment: Some(state(payment)) }),
        Body::PaymentExpired { payment } => B::PaymentExpired(pb::PaymentExpired { payment: Some(state(payment)) }),
        Body::RefundCompleted { payment, amount, asked } => B::RefundCompleted(pb::RefundCompleted {
            payment: Some(state(payment)),
            amount: unsigned(*amount),
            asked: asked.map(unsigned).unwrap_or(0),
        }),
        Body::RefundRequested { payment, amount, asked } => B::RefundRequested(pb::RefundRequested {
            payment: Some(state(payment)),
            amount: unsigned(*amount),
            asked: asked.map(unsigned).unwrap_or(0),
        }),
        Body::Received { source, at, effect } => B::Received(pb::Received {
            source_zone: source.zone.to_string(),
            source_shard: source.index.into(),
            source_sequence: at.sequence.0,
            effect: Some(self::effect(effect)),
            source_mark: mark(at.mark),
        }),
        Body::Delivered { to, up_to, read_to } => B::Delivered(pb::Delivered {
            zone: to.zone.to_string(),
            shard: to.index.into(),
            up_to_sequence: up_to.0,
            read_to_sequence: read_to.sequence.0,
            read_to_mark: mark(read_to.mark),
        }),
    }
}

fn created(new: &NewPayment, at: Sequence) -> pb::PaymentCreated {
    let (payee_zone, payee_shard) = shard_parts(new.payee_shard.as_ref());
    pb::PaymentCreated {
        payer_id: new.payer.get(),
        payee_id: new.payee.get(),
        payee_zone,
        payee_shard,
        currency: number(new.money.currency()),
        amount: unsigned(new.money.minor()),
        hold_s: new.hold_s,
        declined: reason(new.declined),
        previous_payment: if new.previous == Sequence(0) { 0 } else { at.0 - new.previous.0 },
        by_card: new.card.is_some(),
    }
}

fn effect(effect: &Effect) -> pb::received::Effect {
    use pb::received::Effect as E;
    match effect {
        Effect::Credited(it) => E::Credit(credit(it)),
        Effect::Bounced(it) => E::Bounce(credit(it)),
        Effect::RefundPaid(it) => E::RefundPaid(credit(it)),
        Effect::RefundRefused(it) => E::RefundRefused(credit(it)),
        Effect::PaymentReturned(payment) => E::PaymentReturned(state(payment)),
        Effect::RefundReceived { payment, amount } => {
            E::RefundReceived(pb::RefundSettled { payment: Some(state(payment)), amount: unsigned(*amount), reason: 0 })
        }
        Effect::RefundFailed { payment, amount, reason: why } => {
            E::RefundFailed(pb::RefundSettled { payment: Some(state(payment)), amount: unsigned(*amount), reason: reason(*why) })
        }
    }
}

fn credit(credit: &Credit) -> pb::Credit {
    let Position { shard, epoch, sequence } = credit.payment.position();
    pb::Credit {
        payment_zone: shard.zone.to_string(),
        payment_shard: shard.index.into(),
        payment_epoch: epoch.0,
        payment_sequence: sequence.0,
        payer_id: credit.payer.get(),
        payee_id: credit.payee.get(),
        currency: number(credit.money.currency()),
        amount: unsigned(credit.money.minor()),
        reason: reason(credit.reason),
    }
}

pub(crate) fn state(payment: &Payment) -> pb::PaymentState {
    let (payee_zone, payee_shard) = shard_parts(payment.payee_shard.as_ref());
    pb::PaymentState {
        epoch: payment.epoch.0,
        sequence: payment.sequence.0,
        payer_id: payment.payer.get(),
        payee_id: payment.payee.get(),
        payee_zone,
        payee_shard,
        currency: number(payment.currency),
        amount: unsigned(payment.amount),
        captured: unsigned(payment.captured),
        refunded: unsigned(payment.refunded),
        sent_sequence: payment.sent.0,
        phase: phase(payment.phase) as i32,
        reason: reason(payment.reason),
        created_at_us: payment.created_at.0,
        expires_at_us: payment.expires_at.unwrap_or_default().0,
    }
}

fn posting(posting: &Posting, at: Sequence) -> pb::Posting {
    let (user_id, clearing, clearing_received) = match &posting.account {
        Account::Wallet(user) => (user.get(), None, false),
        Account::External => (0, None, false),
        Account::Sent(shard) => (0, Some(shard), false),
        Account::Received(shard) => (0, Some(shard), true),
        Account::Acquirer(_) | Account::RefundsPayable => (0, None, false),
    };
    let (clearing_zone, clearing_shard) = shard_parts(clearing);
    let previous = posting.previous_line;
    pb::Posting {
        user_id,
        currency: number(posting.currency),
        amount: posting.amount,
        balance_after: posting.balance_after,
        held_after: posting.held_after,
        previous_line: if previous == LineId(0) { 0 } else { (at.0 - previous.sequence().0) * 2 + previous.0 % 2 },
        clearing_zone,
        clearing_shard,
        clearing_received,
        acquirer_gateway: match &posting.account {
            Account::Acquirer(gateway) => gateway.to_string(),
            _ => String::new(),
        },
        refunds_payable: posting.account == Account::RefundsPayable,
        exempted_payments: posting.exempted_after.payments,
        exempted_minor: unsigned(posting.exempted_after.minor),
    }
}

pub(crate) fn mark(mark: Option<HistoryMark>) -> u64 {
    mark.map_or(0, HistoryMark::get)
}

fn shard_parts(shard: Option<&ShardRef>) -> (String, u32) {
    shard.map_or((String::new(), 0), |shard| (shard.zone.to_string(), shard.index.into()))
}

fn number(currency: Currency) -> u32 {
    currency.numeric().into()
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).expect("amounts of payments are not negative")
}

fn reason(reason: Option<Reason>) -> i32 {
    (match reason {
        None => pb::Reason::Unspecified,
        Some(Reason::InsufficientFunds) => pb::Reason::InsufficientFunds,
        Some(Reason::AccountClosed) => pb::Reason::AccountClosed,
        Some(Reason::PayeeAccountNotFound) => pb::Reason::PayeeAccountNotFound,
        Some(Reason::PayeeAccountClosed) => pb::Reason::PayeeAccountClosed,
        Some(Reason::PayeeBalanceLimit) => pb::Reason::PayeeBalanceLimit,
        Some(Reason::PayeeInsufficientFunds) => pb::Reason::PayeeInsufficientFunds,
        Some(Reason::CardDeclined) => pb::Reason::CardDeclined,
        Some(Reason::CardInsufficientFunds) => pb::Reason::CardInsufficientFunds,
        Some(Reason::CardExpired) => pb::Reason::CardExpired,
        Some(Reason::CardInvalid) => pb::Reason::CardInvalid,
        Some(Reason::CardNotFound) => pb::Reason::CardNotFound,
        Some(Reason::AuthenticationFailed) => pb::Reason::AuthenticationFailed,
        Some(Reason::FraudDetected) => pb::Reason::FraudDetected,
        Some(Reason::FraudUnavailable) => pb::Reason::FraudUnavailable,
        Some(Reason::GatewayUnavailable) => pb::Reason::GatewayUnavailable,
        Some(Reason::CaptureRefused) => pb::Reason::CaptureRefused,
    }) as i32
}

/// The contract's name of a phase.
pub fn phase(phase: Phase) -> pb::Phase {
    match phase {
        Phase::Authorized => pb::Phase::Authorized,
        Phase::Captured => pb::Phase::Captured,
        Phase::Returned => pb::Phase::Returned,
        Phase::Declined => pb::Phase::Declined,
        Phase::Voided => pb::Phase::Voided,
        Phase::Expired => pb::Phase::Expired,
        Phase::Pending => pb::Phase::Pending,
        Phase::ActionRequired => pb::Phase::ActionRequired,
    }
}

fn from_parts(open: pb::EntryOpen, sealed: pb::EntrySealed, at: Sequence, shard: &ShardRef) -> Result<Entry, DecodeError> {
    let request_id = if open.request_id.is_empty() { None } else { Some(RequestId::from_slice(&open.request_id)?) };
    let body = from_body(open.body.ok_or(DecodeError::Missing("no body"))?, &sealed, at, shard)?;
    if sealed.postings.len() > POSTINGS_MAX {
        return Err(DecodeError::Missing("more postings than an entry has"));
    }
    let postings = sealed.postings.iter().map(|each| from_posting(each, at)).collect::<Result<_, _>>()?;
    Ok(Entry { at: time(open.at_us)?, request_id, body, postings, reference: sealed.reference })
}

fn from_body(body: pb::entry_open::Body, sealed: &pb::EntrySealed, at: Sequence, shard: &ShardRef) -> Result<Body, DecodeError> {
    use pb::entry_open::Body as B;
    let payment = |state: Option<pb::PaymentState>| charge::with(from_state(state)?, sealed.charge.as_ref());
    Ok(match body {
        B::UserEnrolled(it) => Body::UserEnrolled {
            user: user(it.user_id)?,
            country: sealed.residence_country.parse::<Country>()?,
            currencies: it.currencies.iter().map(|each| currency(*each)).collect::<Result<_, _>>()?,
        },
        B::UserClaimed(it) => Body::UserClaimed { user: user(it.user_id)?, zone: it.zone.parse()? },
        B::AccountOpened(it) => Body::AccountOpened { user: user(it.user_id)?, currency: currency(it.currency)? },
        B::AccountClosed(it) => Body::AccountClosed { user: user(it.user_id)?, currency: currency(it.currency)? },
        B::PaymentMethodAdded(it) => Body::MethodAdded { user: user(it.user_id)?, token: sealed.vault_token.parse()? },
        B::PaymentMethodRemoved(it) => Body::MethodRemoved {
            user: user(it.user_id)?,
            method: PaymentMethod {
                added: sequence(it.added_sequence)?,
                added_at: time(it.added_at_us)?,
                token: sealed.vault_token.parse()?,
            },
        },
        B::Deposited(it) => Body::Deposited { user: user(it.user_id)?, money: money(it.amount, it.currency)? },
        B::Withdrawn(it) => {
            Body::Withdrawn { user: user(it.user_id)?, money: money(it.amount, it.currency)?, declined: from_reason(it.declined)? }
        }
        B::PaymentCreated(it) => Body::PaymentCreated(NewPayment {
            payer: user(it.payer_id)?,
            payee: user(it.payee_id)?,
            payee_shard: from_shard(&it.payee_zone, it.payee_shard)?,
            money: money(it.amount, it.currency)?,
            hold_s: it.hold_s,
            declined: from_reason(it.declined)?,
            previous: Sequence(back(at, it.previous_payment)?),
            card: if it.by_card { Some(charge::from_beginning(sealed.charge.as_ref())?) } else { None },
        }),
        B::CardStepped(it) => Body::Card {
            step: charge::from_step(&it)?,
            payment: payment(it.payment)?,
            before: Box::new(charge::with(from_state(it.before)?, sealed.charge_before.as_ref())?),
            counted: match sealed.monitored.as_ref().map(charge::from_monitored).transpose()? {
                None => None,
                Some((Some(means), after)) => Some(Box::new(Counted { means, after })),
                Some((None, _)) => return Err(DecodeError::Missing("payments that are counted by no means")),
            },
        },
        B::PaymentCaptured(it) => Body::PaymentCaptured { payment: payment(it.payment)?, asked: asked(it.asked)? },
        B::PaymentVoided(it) => Body::PaymentVoided { payment: payment(it.payment)? },
        B::PaymentExpired(it) => Body::PaymentExpired { payment: payment(it.payment)? },
        B::RefundCompleted(it) => {
            Body::RefundCompleted { payment: payment(it.payment)?, amount: signed(it.amount)?, asked: asked(it.asked)? }
        }
        B::RefundRequested(it) => {
            Body::RefundRequested { payment: payment(it.payment)?, amount: signed(it.amount)?, asked: asked(it.asked)? }
        }
        B::Received(it) => {
            let source = from_shard(&it.source_zone, it.source_shard)?.ok_or(DecodeError::Missing("no source"))?;
            if &source == shard {
                return Err(DecodeError::Missing("a shard receives nothing from itself"));
            }
            let effect = from_effect(it.effect.ok_or(DecodeError::Missing("no effect"))?, payment)?;
            let at = Cursor { sequence: sequence(it.source_sequence)?, mark: HistoryMark::new(it.source_mark) };
            Body::Received { source, at, effect }
        }
        B::Delivered(it) => Body::Delivered {
            to: from_shard(&it.zone, it.shard)?.ok_or(DecodeError::Missing("no shard"))?,
            up_to: sequence(it.up_to_sequence)?,
            read_to: Cursor { sequence: sequence(it.read_to_sequence)?, mark: HistoryMark::new(it.read_to_mark) },
        },
    })
}

fn from_effect(
    effect: pb::received::Effect,
    payment: impl Fn(Option<pb::PaymentState>) -> Result<Payment, DecodeError>,
) -> Result<Effect, DecodeError> {
    use pb::received::Effect as E;
    Ok(match effect {
        E::Credit(it) => Effect::Credited(from_credit(&it)?),
        E::Bounce(it) => Effect::Bounced(from_credit(&it)?),
        E::RefundPaid(it) => Effect::RefundPaid(from_credit(&it)?),
        E::RefundRefused(it) => Effect::RefundRefused(from_credit(&it)?),
        E::PaymentReturned(it) => Effect::PaymentReturned(payment(Some(it))?),
        E::RefundReceived(it) => Effect::RefundReceived { payment: payment(it.payment)?, amount: signed(it.amount)? },
        E::RefundFailed(it) => {
            Effect::RefundFailed { payment: payment(it.payment)?, amount: signed(it.amount)?, reason: from_reason(it.reason)? }
        }
    })
}

fn from_credit(it: &pb::Credit) -> Result<Credit, DecodeError> {
    let shard = from_shard(&it.payment_zone, it.payment_shard)?.ok_or(DecodeError::Missing("no payment"))?;
    Ok(Credit {
        payment: PaymentId::from(Position { shard, epoch: epoch(it.payment_epoch)?, sequence: sequence(it.payment_sequence)? }),
        payer: user(it.payer_id)?,
        payee: user(it.payee_id)?,
        money: money(it.amount, it.currency)?,
        reason: from_reason(it.reason)?,
    })
}

/// The payment, without its charge.
pub(crate) fn from_state(state: Option<pb::PaymentState>) -> Result<Payment, DecodeError> {
    let it = state.ok_or(DecodeError::Missing("no payment"))?;
    Ok(Payment {
        epoch: epoch(it.epoch)?,
        sequence: sequence(it.sequence)?,
        payer: user(it.payer_id)?,
        payee: user(it.payee_id)?,
        payee_shard: from_shard(&it.payee_zone, it.payee_shard)?,
        currency: currency(it.currency)?,
        amount: signed(it.amount)?,
        captured: signed(it.captured)?,
        refunded: signed(it.refunded)?,
        sent: sequence(it.sent_sequence)?,
        phase: match it.phase() {
            pb::Phase::Authorized => Phase::Authorized,
            pb::Phase::Captured => Phase::Captured,
            pb::Phase::Returned => Phase::Returned,
            pb::Phase::Declined => Phase::Declined,
            pb::Phase::Voided => Phase::Voided,
            pb::Phase::Expired => Phase::Expired,
            pb::Phase::Pending => Phase::Pending,
            pb::Phase::ActionRequired => Phase::ActionRequired,
            pb::Phase::Unspecified => return Err(DecodeError::Missing("a payment without a phase")),
        },
        reason: from_reason(it.reason)?,
        created_at: time(it.created_at_us)?,
        expires_at: if it.expires_at_us == 0 { None } else { Some(time(it.expires_at_us)?) },
        card: None,
    })
}

fn from_posting(it: &pb::Posting, at: Sequence) -> Result<Posting, DecodeError> {
    let account = match (it.user_id, from_shard(&it.clearing_zone, it.clearing_shard)?) {
        (0, None) if it.refunds_payable => Account::RefundsPayable,
        (0, None) if !it.acquirer_gateway.is_empty() => Account::Acquirer(it.acquirer_gateway.parse()?),
        (0, None) => Account::External,
        (0, Some(shard)) if it.clearing_received => Account::Received(shard),
        (0, Some(shard)) => Account::Sent(shard),
        (id, _) => Account::Wallet(user(id)?),
    };
    let previous_line = match it.previous_line {
        0 => LineId(0),
        distance => LineId::new(Sequence(back(at, distance / 2)?), distance % 2),
    };
    Ok(Posting {
        account,
        currency: currency(it.currency)?,
        amount: it.amount,
        balance_after: it.balance_after,
        held_after: it.held_after,
        previous_line,
        exempted_after: Exempted { payments: it.exempted_payments, minor: signed(it.exempted_minor)? },
    })
}

/// The number `distance` before `at`; 0 for none.
fn back(at: Sequence, distance: u64) -> Result<u64, DecodeError> {
    match distance {
        0 => Ok(0),
        distance => {
            at.0.checked_sub(distance)
                .filter(|sequence| *sequence > 0)
                .ok_or(DecodeError::Missing("it points before the journal's beginning"))
        }
    }
}

fn from_shard(zone: &str, index: u32) -> Result<Option<ShardRef>, DecodeError> {
    if zone.is_empty() {
        return Ok(None);
    }
    let index = u16::try_from(index).map_err(|_| DecodeError::Missing("a shard number out of range"))?;
    Ok(Some(ShardRef { zone: zone.parse::<ZoneName>()?, index }))
}

/// Sequence numbers, epochs and instants are below 2^63: no engine keeps others.
fn below(number: u64) -> Result<u64, DecodeError> {
    if number < i64::MAX as u64 { Ok(number) } else { Err(DecodeError::Missing("a number out of range")) }
}

fn sequence(number: u64) -> Result<Sequence, DecodeError> {
    below(number).map(Sequence)
}

fn epoch(number: u64) -> Result<Epoch, DecodeError> {
    below(number).map(Epoch)
}

fn time(us: u64) -> Result<Timestamp, DecodeError> {
    below(us).map(Timestamp)
}

fn user(id: u64) -> Result<UserId, DecodeError> {
    Ok(UserId::try_from(id)?)
}

fn currency(number: u32) -> Result<Currency, DecodeError> {
    let number = u16::try_from(number).map_err(|_| DecodeError::Missing("a currency number out of range"))?;
    Ok(Currency::from_numeric(number)?)
}

fn signed(amount: u64) -> Result<i64, DecodeError> {
    i64::try_from(amount).map_err(|_| DecodeError::Missing("an amount out of range"))
}

fn asked(amount: u64) -> Result<Option<i64>, DecodeError> {
    Ok(if amount == 0 { None } else { Some(signed(amount)?) })
}

fn money(amount: u64, number: u32) -> Result<Money, DecodeError> {
    Money::new(signed(amount)?, currency(number)?).ok_or(DecodeError::Missing("an amount out of range"))
}

fn from_reason(reason: i32) -> Result<Option<Reason>, DecodeError> {
    Ok(match pb::Reason::try_from(reason).map_err(|_| DecodeError::Missing("an unknown reason"))? {
        pb::Reason::Unspecified => None,
        pb::Reason::InsufficientFunds => Some(Reason::InsufficientFunds),
        pb::Reason::AccountClosed => Some(Reason::AccountClosed),
        pb::Reason::PayeeAccountNotFound => Some(Reason::PayeeAccountNotFound),
        pb::Reason::PayeeAccountClosed => Some(Reason::PayeeAccountClosed),
        pb::Reason::PayeeBalanceLimit => Some(Reason::PayeeBalanceLimit),
        pb::Reason::PayeeInsufficientFunds => Some(Reason::PayeeInsufficientFunds),
        pb::Reason::CardDeclined => Some(Reason::CardDeclined),
        pb::Reason::CardInsufficientFunds => Some(Reason::CardInsufficientFunds),
        pb::Reason::CardExpired => Some(Reason::CardExpired),
        pb::Reason::CardInvalid => Some(Reason::CardInvalid),
        pb::Reason::CardNotFound => Some(Reason::CardNotFound),
        pb::Reason::AuthenticationFailed => Some(Reason::AuthenticationFailed),
        pb::Reason::FraudDetected => Some(Reason::FraudDetected),
        pb::Reason::FraudUnavailable => Some(Reason::FraudUnavailable),
        pb::Reason::GatewayUnavailable => Some(Reason::GatewayUnavailable),
        pb::Reason::CaptureRefused => Some(Reason::CaptureRefused),
    })
}
