//! Payment cards: numbers that are checked, their brands, until when they hold.
//!
//! A [`CardNumber`] is made of digits that pass for a number of its brand. It neither prints nor serializes, has one place in memory
//! however often it is moved, and that place is zeroed when it is dropped; what may be shown of it is its [`Brand`], [`CardNumber::bin`] and
//! [`CardNumber::last_four`]. [`Card`] is a number and its [`Expiry`], and has one spelling in bytes, the [`card_bytes`] that are encrypted.
//!
//! Nothing here does I/O, reads a clock or draws a random number. Encryption is left to whoever holds the keys.

#![forbid(unsafe_code)]

mod brand;
mod card;
mod expiry;
mod number;

pub use brand::Brand;
pub use card::{CARD_BYTES, Card, SEALING_KEY_PURPOSE, card_bytes, sealing_context, sealing_info, sealing_key_statement};
pub use expiry::Expiry;
pub use number::CardNumber;

/// Why digits, or a month and a year, are no card's. None says which digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something other than digits, such as a space.
    #[error("a card number is digits and nothing else")]
    NotDigits,
    /// Too few or too many of them (ISO/IEC 7812-1).
    #[error("a card number has {} to {} digits", number::DIGITS_MIN, number::DIGITS_MAX)]
    Length,
    /// Not a number of digits that its brand has.
    #[error("no card number of {0} has so many digits")]
    BrandLength(Brand),
    /// A typing error, most often: the last digit does not fit the others.
    #[error("the card number's check digit is wrong")]
    CheckDigit,
    /// A month that no year has.
    #[error("a month is 1 to 12")]
    Month,
    /// A year that is on no card.
    #[error("a year is {} to {}, with all four digits", expiry::YEAR_MIN, expiry::YEAR_MAX)]
    Year,
    /// Bytes that are no card's.
    #[error("these bytes are no card")]
    Bytes,
}
