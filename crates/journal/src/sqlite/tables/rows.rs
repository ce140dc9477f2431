//! Rows as records. What no projector writes is reported, not guessed at.

use paymesh_contract::events::v1 as pb;
use paymesh_ledger::{Account, Charge, Day, Exempted, LineId, Means, Payment, PaymentMethod, Phase, Reason, Totals, Wallet};
use paymesh_types::{Country, Currency, Cursor, Epoch, HistoryMark, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};
use prost::Message as _;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::super::File;
use crate::{
    Error, Holding, Identity, Line, LineKind, PaymentRow,
    codec::{self, DecodeError},
};

pub(super) const EXTERNAL: i64 = 0;
pub(super) const SENT: i64 = 1;
pub(super) const RECEIVED: i64 = 2;
pub(super) const ACQUIRER: i64 = 3;
pub(super) const REFUNDS_PAYABLE: i64 = 4;
pub(super) const INBOX: i64 = 0;
pub(super) const DELIVERED: i64 = 1;

/// A value that no projector writes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("a row holds {0}")]
    Value(#[from] paymesh_types::Invalid),
    #[error("a row does not read: {0}")]
    Column(#[from] sqlx::Error),
    #[error("a row holds a charge that does not read: {0}")]
    Charge(#[from] DecodeError),
    #[error("a row holds a number out of range in {0}")]
    Range(&'static str),
}

impl Bad {
    /// What it means for the shard whose file it is.
    pub(super) fn of(self, shard: &ShardRef, file: &File) -> Error {
        match self {
            Self::Column(source) => file.failed(shard, source),
            other => file.corrupt(shard, &other.to_string()),
        }
    }
}

pub(super) fn sequence(column: i64) -> Sequence {
    Sequence(u64::try_from(column).unwrap_or(0))
}

fn user_id(row: &SqliteRow, column: &str) -> Result<UserId, Bad> {
    Ok(UserId::try_from(sequence(row.try_get(column)?).0)?)
}

fn currency(row: &SqliteRow) -> Result<Currency, Bad> {
    let number = u16::try_from(row.try_get::<i64, _>("currency")?).map_err(|_| Bad::Range("currency"))?;
    Ok(Currency::from_numeric(number)?)
}

fn shard(zone: &str, index: i64) -> Result<ShardRef, Bad> {
    Ok(ShardRef { zone: zone.parse::<ZoneName>()?, index: u16::try_from(index).map_err(|_| Bad::Range("shard"))? })
}

pub(super) fn identity(row: &SqliteRow) -> Result<Identity, Bad> {
    let shards = u16::try_from(row.try_get::<i64, _>("shards")?).map_err(|_| Bad::Range("shards"))?;
    Ok(Identity {
        mesh: row.try_get("mesh")?,
        shard: shard(row.try_get("zone")?, row.try_get("shard")?)?,
        shards,
        holding: holding(row.try_get("held_for")?)?,
    })
}

/// What is held, by the zone it is held for.
pub(in super::super) fn holding(held_for: Option<&str>) -> Result<Holding, paymesh_types::Invalid> {
    held_for.map_or(Ok(Holding::Whole), |zone| Ok(Holding::For(zone.parse()?)))
}

/// The zone it is held for.
pub(in super::super) fn held_for(holding: &Holding) -> Option<String> {
    match holding {
        Holding::Whole => None,
        Holding::For(zone) => Some(zone.to_string()),
    }
}

pub(super) fn user(row: &SqliteRow) -> Result<(UserId, Country), Bad> {
    Ok((user_id(row, "user_id")?, row.try_get::<&str, _>("country")?.parse()?))
}

pub(super) fn claim(row: &SqliteRow) -> Result<(UserId, ZoneName), Bad> {
    Ok((user_id(row, "user_id")?, row.try_get::<&str, _>("zone")?.parse()?))
}

pub(super) fn request(row: &SqliteRow) -> Result<(RequestId, Sequence), Bad> {
    Ok((RequestId::from_slice(row.try_get("request_id")?)?, sequence(row.try_get("sequence")?)))
}

pub(super) fn wallet(row: &SqliteRow) -> Result<((UserId, Currency), Wallet), Bad> {
    let payments = u32::try_from(row.try_get::<i64, _>("exempted_payments")?).map_err(|_| Bad::Range("exempted_payments"))?;
    let minor = Some(row.try_get("exempted_minor")?).filter(|minor| *minor >= 0).ok_or(Bad::Range("exempted_minor"))?;
    let wallet = Wallet {
        balance: row.try_get("balance")?,
        held: row.try_get("held")?,
        closed: row.try_get::<i64, _>("closed")? != 0,
        last_line: LineId(sequence(row.try_get("last_line")?).0),
        last_payment: sequence(row.try_get("last_payment")?),
        exempted: Exempted { payments, minor },
    };
    Ok(((user_id(row, "user_id")?, currency(row)?), wallet))
}

pub(super) fn method(row: &SqliteRow) -> Result<(UserId, PaymentMethod), Bad> {
    let method = PaymentMethod {
        added: number(row, "added")?,
        added_at: timestamp(row, "added_at")?,
        token: row.try_get::<&str, _>("token")?.parse()?,
    };
    Ok((user_id(row, "user_id")?, method))
}

pub(super) fn line(row: &SqliteRow) -> Result<Line, Bad> {
    Ok(Line {
        id: LineId(sequence(row.try_get("id")?).0),
        user: user_id(row, "user_id")?,
        currency: currency(row)?,
        kind: LineKind::from_number(row.try_get("kind")?).ok_or(Bad::Range("kind"))?,
        amount: row.try_get("amount")?,
        balance: row.try_get("balance")?,
        at: timestamp(row, "at")?,
        payment: row.try_get::<Option<&str>, _>("payment")?.map(str::parse).transpose()?,
        counterparty: row.try_get::<Option<i64>, _>("counterparty")?.map(|id| UserId::try_from(sequence(id).0)).transpose()?,
        reference: row.try_get::<Option<String>, _>("reference")?.unwrap_or_default(),
        previous: LineId(sequence(row.try_get("previous")?).0),
    })
}

pub(super) fn payment(row: &SqliteRow) -> Result<PaymentRow, Bad> {
    let payee_shard = match (row.try_get::<Option<&str>, _>("payee_zone")?, row.try_get::<Option<i64>, _>("payee_shard")?) {
        (Some(zone), Some(index)) => Some(shard(zone, index)?),
        _ => None,
    };
    Ok(PaymentRow {
        payment: Payment {
            epoch: Epoch(sequence(row.try_get("epoch")?).0),
            sequence: sequence(row.try_get("sequence")?),
            payer: user_id(row, "payer")?,
            payee: user_id(row, "payee")?,
            payee_shard,
            currency: currency(row)?,
            amount: row.try_get("amount")?,
            captured: row.try_get("captured")?,
            refunded: row.try_get("refunded")?,
            sent: sequence(row.try_get("sent")?),
            phase: from_phase(row.try_get("phase")?)?,
            reason: from_reason(row.try_get("reason")?)?,
            created_at: timestamp(row, "created_at")?,
            expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(|at| Timestamp(sequence(at).0)),
            card: row.try_get::<Option<&[u8]>, _>("charge")?.map(charge).transpose()?.map(Box::new),
        },
        previous: sequence(row.try_get("previous")?),
        reference: row.try_get::<Option<String>, _>("reference")?.unwrap_or_default(),
        delivered: Sequence(0),
    })
}

/// The column `charge`.
pub(super) fn charge_of(payment: &Payment) -> Option<Vec<u8>> {
    payment.card.as_deref().map(|charge| codec::charge::charge(charge).encode_to_vec())
}

/// The column `in_progress`.
pub(super) fn in_progress(payment: &Payment) -> i64 {
    payment.card.as_deref().map_or(0, |charge| charge.operations.len() as i64)
}

fn charge(bytes: &[u8]) -> Result<Charge, Bad> {
    let message = pb::Charge::decode(bytes).map_err(DecodeError::from)?;
    Ok(codec::charge::from_charge(&message)?)
}

pub(super) fn system(row: &SqliteRow) -> Result<((Account, Currency), i64), Bad> {
    let peer = || shard(row.try_get("party")?, row.try_get("shard")?);
    let account = match row.try_get::<i64, _>("kind")? {
        EXTERNAL => Account::External,
        SENT => Account::Sent(peer()?),
        RECEIVED => Account::Received(peer()?),
        ACQUIRER => Account::Acquirer(row.try_get::<&str, _>("party")?.parse()?),
        REFUNDS_PAYABLE => Account::RefundsPayable,
        _ => return Err(Bad::Range("kind")),
    };
    Ok(((account, currency(row)?), row.try_get("balance")?))
}

/// The column `means`.
pub(super) fn means(means: Means) -> i64 {
    place(&Means::ALL, &means)
}

pub(super) fn monitored_day(row: &SqliteRow) -> Result<((Day, Means), Totals), Bad> {
    let means: i64 = row.try_get("means")?;
    let means = usize::try_from(means - 1).ok().and_then(|at| Means::ALL.get(at)).ok_or(Bad::Range("means"))?;
    let minor = |column| Some(row.try_get(column)?).filter(|minor| *minor >= 0).ok_or(Bad::Range("monitored_days"));
    let totals = Totals {
        payments: number(row, "payments")?.0,
        minor: minor("minor")?,
        frauds: number(row, "frauds")?.0,
        fraud_minor: minor("fraud_minor")?,
    };
    Ok(((day(row.try_get("day")?)?, *means), totals))
}

pub(super) fn monitored_since(row: &SqliteRow) -> Result<Option<Day>, Bad> {
    row.try_get::<Option<i64>, _>("monitored_since")?.map(day).transpose()
}

fn day(number: i64) -> Result<Day, Bad> {
    u32::try_from(number).map(Day).map_err(|_| Bad::Range("day"))
}

pub(super) fn timestamp(row: &SqliteRow, column: &str) -> Result<Timestamp, Bad> {
    Ok(Timestamp(sequence(row.try_get(column)?).0))
}

/// A sequence number on its own.
pub(super) fn number(row: &SqliteRow, column: &str) -> Result<Sequence, Bad> {
    Ok(sequence(row.try_get(column)?))
}

pub(super) fn peer(row: &SqliteRow) -> Result<(i64, ShardRef, Cursor), Bad> {
    let mark: Option<i64> = row.try_get("mark")?;
    let cursor =
        Cursor { sequence: sequence(row.try_get("sequence")?), mark: mark.and_then(|mark| HistoryMark::new(mark.cast_unsigned())) };
    Ok((row.try_get("kind")?, shard(row.try_get("zone")?, row.try_get("shard")?)?, cursor))
}

const PHASES: [Phase; 8] = [
    Phase::Authorized,
    Phase::Captured,
    Phase::Returned,
    Phase::Declined,
    Phase::Voided,
    Phase::Expired,
    Phase::Pending,
    Phase::ActionRequired,
];
const REASONS: [Reason; 16] = [
    Reason::InsufficientFunds,
    Reason::AccountClosed,
    Reason::PayeeAccountNotFound,
    Reason::PayeeAccountClosed,
    Reason::PayeeBalanceLimit,
    Reason::PayeeInsufficientFunds,
    Reason::CardDeclined,
    Reason::CardInsufficientFunds,
    Reason::CardExpired,
    Reason::CardInvalid,
    Reason::CardNotFound,
    Reason::AuthenticationFailed,
    Reason::FraudDetected,
    Reason::FraudUnavailable,
    Reason::GatewayUnavailable,
    Reason::CaptureRefused,
];

/// The column's value: the place in the list, from 1.
fn place<T: PartialEq>(list: &[T], wanted: &T) -> i64 {
    (1..).zip(list).find(|(_, each)| *each == wanted).map(|(place, _)| place).expect("the list has every variant")
}

pub(super) fn phase(phase: Phase) -> i64 {
    place(&PHASES, &phase)
}

/// 0 for none.
pub(super) fn reason(reason: Option<Reason>) -> i64 {
    reason.map_or(0, |reason| place(&REASONS, &reason))
}

fn from_phase(column: i64) -> Result<Phase, Bad> {
    usize::try_from(column - 1).ok().and_then(|index| PHASES.get(index)).copied().ok_or(Bad::Range("phase"))
}

fn from_reason(column: i64) -> Result<Option<Reason>, Bad> {
    if column == 0 {
        return Ok(None);
    }
    usize::try_from(column - 1).ok().and_then(|index| REASONS.get(index)).copied().map(Some).ok_or(Bad::Range("reason"))
}
