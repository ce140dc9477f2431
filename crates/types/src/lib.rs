//! The words every crate shares: ids, money, places in the mesh and in its journals.
//!
//! Each id is a type of its own and can only be made valid, so code behind the door never checks one again.
//! Nothing here does I/O, reads a clock or draws a random number.

#![forbid(unsafe_code)]

mod ids;
mod money;
mod places;
mod score;

pub use ids::{ChargeId, PaymentId, RequestId, UserId, VaultToken};
pub use money::{AMOUNT_MINOR_MAX, Currency, Money};
pub use places::{Country, Cursor, Epoch, GatewayName, HistoryMark, Position, RegionName, Sequence, ShardRef, Timestamp, ZoneName};
pub use score::Score;

/// Why a text or a number is not one of these types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    message: String,
}

impl Invalid {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}
