//! What every plan is made of: decimals within bounds, each with its source, and what is said of one that is not.

use rust_decimal::Decimal;

/// Hours of a month as clouds bill them: a year of 8,760 hours in twelve parts.
pub const HOURS_PER_MONTH: u32 = 730;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A figure is out of its bounds. The name is that of the option or the key.
    #[error("{name}: must be {least} to {most} with at most {digits} digits after the point, not {value}")]
    Bounds {
        /// What it is called.
        name: &'static str,
        /// What it is.
        value: String,
        /// The least that it may be.
        least: Decimal,
        /// The most.
        most: Decimal,
        /// Digits after the point at most.
        digits: u32,
    },
    /// The prices lack a kind of instance that is needed.
    #[error("prices.yaml: instance_types.{name} is missing: {needed_by} names it; add it with its price")]
    Unpriced {
        /// The kind.
        name: String,
        /// What names it.
        needed_by: String,
    },
    /// No kind of instance, or none in the numbers allowed, has what is required.
    #[error("{0}")]
    Impossible(String),
    /// Figures whose product no decimal holds.
    #[error("{0} is past what can be counted: the figures are too large together")]
    Overflow(&'static str),
}

/// A decimal that a plan goes by, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// The decimal.
    pub value: Decimal,
    /// A sentence for those who will ask.
    pub source: String,
}

impl Figure {
    /// A figure.
    pub fn new(value: Decimal, source: impl Into<String>) -> Self {
        Self { value, source: source.into() }
    }
}

/// A decimal in its own text: digits with a point among them, no sign, no exponent, no separators; within its bounds.
///
/// # Errors
/// It is no such text, or out of bounds.
pub fn decimal_within(name: &'static str, text: &str, least: Decimal, most: Decimal, digits: u32) -> Result<Decimal, Error> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && text.starts_with(|first: char| first.is_ascii_digit());
    let read = if plain { Decimal::from_str_exact(text).ok() } else { None };
    let shown: String = text.chars().take(40).collect();
    let error = || Error::Bounds { name, value: format!("`{shown}`"), least, most, digits };
    let value = read.ok_or_else(error)?;
    within(name, value, least, most, digits).map_err(|_| error())
}

/// The value, where it is within its bounds.
pub(crate) fn within(name: &'static str, value: Decimal, least: Decimal, most: Decimal, digits: u32) -> Result<Decimal, Error> {
    let fits = (least..=most).contains(&value) && value.normalize().scale() <= digits;
    if fits { Ok(value.normalize()) } else { Err(Error::Bounds { name, value: value.to_string(), least, most, digits }) }
}

/// A product; `what` is what it would have been.
pub(crate) fn times(what: &'static str, left: Decimal, right: Decimal) -> Result<Decimal, Error> {
    left.checked_mul(right).ok_or(Error::Overflow(what))
}

/// A quotient. Divisors are above 0 wherever this is called.
pub(crate) fn over(what: &'static str, left: Decimal, right: Decimal) -> Result<Decimal, Error> {
    left.checked_div(right).ok_or(Error::Overflow(what))
}

/// A sum.
pub(crate) fn plus(what: &'static str, left: Decimal, right: Decimal) -> Result<Decimal, Error> {
    left.checked_add(right).ok_or(Error::Overflow(what))
}

/// How many wholes cover the value: the source document's `math.ceil`.
pub(crate) fn wholes(what: &'static str, value: Decimal) -> Result<u64, Error> {
    u64::try_from(value.ceil()).map_err(|_| Error::Overflow(what))
}

/// A constant: so many units of 10^-scale.
pub(crate) const fn exact(units: u32, scale: u32) -> Decimal {
    Decimal::from_parts(units, 0, 0, false, scale)
}
