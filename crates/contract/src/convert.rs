//! Between the contract's shared messages and the domain types.
//!
//! Into a domain type, everything is checked, and a [`Fault`] names the field as seen from the message itself: the caller
//! puts its own field in front with [`Fault::under`]. Out of one, nothing can fail.

use paymesh_types::{AMOUNT_MINOR_MAX, Currency, Epoch, Money, Position, Sequence, ShardRef, Timestamp};
use tonic::Code;

use crate::{Fault, common::v1 as proto};

impl From<&ShardRef> for proto::ShardRef {
    fn from(shard: &ShardRef) -> Self {
        Self { zone: shard.zone.as_str().to_owned(), shard: u32::from(shard.index) }
    }
}

impl TryFrom<&proto::ShardRef> for ShardRef {
    type Error = Fault;

    fn try_from(shard: &proto::ShardRef) -> Result<Self, Fault> {
        shard_ref(&shard.zone, shard.shard)
    }
}

impl From<&Position> for proto::Position {
    fn from(Position { shard, epoch, sequence }: &Position) -> Self {
        Self { zone: shard.zone.as_str().to_owned(), shard: u32::from(shard.index), epoch: epoch.0, sequence: sequence.0 }
    }
}

impl TryFrom<&proto::Position> for Position {
    type Error = Fault;

    fn try_from(position: &proto::Position) -> Result<Self, Fault> {
        Ok(Self { shard: shard_ref(&position.zone, position.shard)?, epoch: Epoch(position.epoch), sequence: Sequence(position.sequence) })
    }
}

fn shard_ref(zone: &str, shard: u32) -> Result<ShardRef, Fault> {
    let zone = zone.parse().map_err(|error: paymesh_types::Invalid| Fault::invalid_field("zone", error.to_string()))?;
    let index =
        u16::try_from(shard).map_err(|_| Fault::invalid_field("shard", format!("a shard's number is 0 to {}, not {shard}", u16::MAX)))?;
    Ok(ShardRef { zone, index })
}

impl From<Money> for proto::Money {
    fn from(money: Money) -> Self {
        Self { minor_units: money.minor(), currency_code: money.currency().code().to_owned() }
    }
}

/// An amount that moves. Zero or less can never be accepted: INVALID_ARGUMENT. More than the bound is OUT_OF_RANGE
/// `AMOUNT_OUT_OF_RANGE`.
impl TryFrom<&proto::Money> for Money {
    type Error = Fault;

    fn try_from(money: &proto::Money) -> Result<Self, Fault> {
        let currency =
            Currency::from_code(&money.currency_code).map_err(|error| Fault::invalid_field("currency_code", error.to_string()))?;
        Money::new(money.minor_units, currency).ok_or_else(|| {
            if money.minor_units <= 0 {
                Fault::invalid_field("minor_units", "an amount is more than zero")
            } else {
                Fault::new(Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", format!("an amount is at most {AMOUNT_MINOR_MAX} minor units"))
                    .with_field("minor_units")
            }
        })
    }
}

const MICROS_PER_SECOND: u64 = 1_000_000;
const NANOS_PER_MICRO: u64 = 1_000;

/// An instant as the contract shows it. Microseconds are kept; past the year 9999, where protobuf's timestamps end, it is
/// the last one there.
pub fn timestamp(instant: Timestamp) -> prost_types::Timestamp {
    /// 9999-12-31T23:59:59Z, the last second of google/protobuf/timestamp.proto.
    const SECONDS_MAX: u64 = 253_402_300_799;

    let seconds = (instant.0 / MICROS_PER_SECOND).min(SECONDS_MAX);
    let nanos = instant.0 % MICROS_PER_SECOND * NANOS_PER_MICRO;
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).expect("bounded by the year 9999"),
        nanos: i32::try_from(nanos).expect("less than a second of nanoseconds fits in 30 bits"),
    }
}

/// The instant of a timestamp, to the microsecond: what is finer is cut off. None: it is before 1970, or its nanoseconds are a second or more.
pub fn instant(shown: &prost_types::Timestamp) -> Option<Timestamp> {
    let (seconds, nanos) = (u64::try_from(shown.seconds).ok()?, u64::try_from(shown.nanos).ok()?);
    let micros = Some(nanos / NANOS_PER_MICRO).filter(|micros| *micros < MICROS_PER_SECOND)?;
    seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(micros).map(Timestamp)
}

#[cfg(test)]
mod tests;
