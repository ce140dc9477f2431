//! Money: integers in minor units, one currency, checked.

use std::fmt;

use rust_decimal::Decimal;

use crate::Invalid;

/// The bound of every amount and wallet balance, in minor units (the source document's `DECIMAL(15,2)`).
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// From the alphabetic code, upper case. Codes without a minor unit of their own (metals, test codes) are refused:
    /// they have no amounts.
    pub fn from_code(code: &str) -> Result<Self, Invalid> {
        iso_currency::Currency::from_code(code)
            .filter(|currency| currency.exponent().is_some())
            .map(Self)
            .ok_or_else(|| Invalid::new("a currency is an ISO 4217 code such as EUR"))
    }

    /// From the numeric code, as journals and tables store it.
    pub fn from_numeric(number: u16) -> Result<Self, Invalid> {
        iso_currency::Currency::from_numeric(number)
            .filter(|currency| currency.exponent().is_some())
            .map(Self)
            .ok_or_else(|| Invalid::new(format!("no currency has the ISO 4217 number {number}")))
    }

    /// The alphabetic code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// The numeric code.
    pub fn numeric(self) -> u16 {
        self.0.numeric()
    }

    /// Digits after the decimal point.
    pub fn exponent(self) -> u32 {
        u32::from(self.0.exponent().expect("currencies without an exponent are refused when made"))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl PartialOrd for Currency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Currency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numeric().cmp(&other.numeric())
    }
}

/// An amount that moves: 1 to [`AMOUNT_MINOR_MAX`] minor units of one currency.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// An amount. `None` when `minor` is not 1 to [`AMOUNT_MINOR_MAX`].
    pub fn new(minor: i64, currency: Currency) -> Option<Self> {
        (1..=AMOUNT_MINOR_MAX).contains(&minor).then_some(Self { minor, currency })
    }

    /// Minor units: 1 to [`AMOUNT_MINOR_MAX`].
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// From a decimal such as `12.50`: not more digits than the currency has, more than zero, within the bound.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, Invalid> {
        let wrong = || Invalid::new(format!("an amount is a decimal such as 12.50, not `{text}`"));
        // The library also takes `1_0.0_0`, `5.` and `.5`, which are somebody's mistakes.
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(fraction) {
            return Err(wrong());
        }
        let decimal = Decimal::from_str_exact(text).map_err(|_| wrong())?;
        // Trailing zeros past the exponent are digits that the currency does not have: 1.500 EUR is refused, not guessed at.
        if decimal.scale() > currency.exponent() {
            return Err(Invalid::new(format!(
                "{currency} has {} digits after the point, `{text}` has {}",
                currency.exponent(),
                decimal.scale()
            )));
        }
        let bound = || Invalid::new(format!("an amount is more than zero and at most {}", display(AMOUNT_MINOR_MAX, currency)));
        let mut scaled = decimal;
        scaled.rescale(currency.exponent());
        if scaled.scale() != currency.exponent() {
            return Err(bound());
        }
        let minor = i64::try_from(scaled.mantissa()).map_err(|_| bound())?;
        Self::new(minor, currency).ok_or_else(bound)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", display(self.minor, self.currency), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn display(minor: i64, currency: Currency) -> Decimal {
    Decimal::new(minor, currency.exponent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_minor_units_by_the_currency_exponent() {
        let table = [
            ("12.50", "EUR", Some(1250)),
            ("1_0.0_0", "EUR", None),
            ("5.", "EUR", None),
            (".5", "EUR", None),
            ("+5", "EUR", None),
            ("12.5", "EUR", Some(1250)),
            ("12", "EUR", Some(1200)),
            ("1250", "JPY", Some(1250)),
            ("12.5", "JPY", None),
            ("1.234", "KWD", Some(1234)),
            ("1.234", "EUR", None),
            ("1.500", "EUR", None),
            ("0", "EUR", None),
            ("0.00", "EUR", None),
            ("-1", "EUR", None),
            ("10000000000000.00", "EUR", Some(AMOUNT_MINOR_MAX)),
            ("10000000000000.01", "EUR", None),
            ("79228162514264337593543950335", "EUR", None),
            ("1e3", "EUR", None),
            ("", "EUR", None),
            ("NaN", "EUR", None),
        ];
        for (text, code, minor) in table {
            let currency = Currency::from_code(code).expect(code);
            assert_eq!(Money::parse(text, currency).ok().map(Money::minor), minor, "{text} {code}");
        }
    }

    #[test]
    fn only_currencies_with_amounts_are_known() {
        for wrong in ["", "eur", "EURO", "XXX", "XTS", "XAU", "ZZZ"] {
            assert!(Currency::from_code(wrong).is_err(), "{wrong}");
        }
        let euro = Currency::from_code("EUR").expect("EUR");
        assert_eq!(Currency::from_numeric(euro.numeric()), Ok(euro));
    }
}
