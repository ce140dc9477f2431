//! Brands, by the ranges of issuer identification numbers that they have published, and the lengths of their numbers.

use std::{fmt, ops::RangeInclusive};

/// Digits of the prefixes in [`RANGES`].
const PREFIX_DIGITS: usize = 6;

/// Who a card is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Brand {
    /// Visa.
    Visa,
    /// Mastercard.
    Mastercard,
    /// American Express.
    Amex,
    /// Diners Club International.
    Diners,
    /// Discover.
    Discover,
    /// JCB.
    Jcb,
    /// China UnionPay.
    UnionPay,
    /// Maestro.
    Maestro,
    /// Mir.
    Mir,
    /// None of these: a card of a domestic scheme, most often. Whether it is taken is for the acquirer to say.
    Other,
}

/// A range of numbers by their first six digits, whose they are, and how many digits they have.
struct Range {
    prefixes: RangeInclusive<u32>,
    brand: Brand,
    digits: RangeInclusive<usize>,
}

const fn range(first: u32, last: u32, brand: Brand, digits: RangeInclusive<usize>) -> Range {
    Range { prefixes: first..=last, brand, digits }
}

/// The first that fits counts: ranges within others stand before them.
const RANGES: &[Range] = &[
    range(220_000, 220_499, Brand::Mir, 16..=19),
    range(222_100, 272_099, Brand::Mastercard, 16..=16),
    range(300_000, 305_999, Brand::Diners, 14..=19),
    range(309_500, 309_599, Brand::Diners, 14..=19),
    range(340_000, 349_999, Brand::Amex, 15..=15),
    range(352_800, 358_999, Brand::Jcb, 16..=19),
    range(360_000, 369_999, Brand::Diners, 14..=19),
    range(370_000, 379_999, Brand::Amex, 15..=15),
    range(380_000, 399_999, Brand::Diners, 14..=19),
    range(400_000, 499_999, Brand::Visa, 13..=19),
    range(501_800, 501_899, Brand::Maestro, 12..=19),
    range(502_000, 502_099, Brand::Maestro, 12..=19),
    range(503_800, 503_899, Brand::Maestro, 12..=19),
    range(510_000, 559_999, Brand::Mastercard, 16..=16),
    range(589_300, 589_399, Brand::Maestro, 12..=19),
    range(601_100, 601_199, Brand::Discover, 16..=19),
    // Some of these are taken in Discover's network too; they are UnionPay's.
    range(620_000, 629_999, Brand::UnionPay, 16..=19),
    range(630_400, 630_499, Brand::Maestro, 12..=19),
    range(644_000, 659_999, Brand::Discover, 16..=19),
    range(675_900, 675_999, Brand::Maestro, 12..=19),
    range(676_100, 676_399, Brand::Maestro, 12..=19),
    range(810_000, 817_199, Brand::UnionPay, 16..=19),
];

impl Brand {
    /// Every brand.
    pub const ALL: [Self; 10] = [
        Self::Visa,
        Self::Mastercard,
        Self::Amex,
        Self::Diners,
        Self::Discover,
        Self::Jcb,
        Self::UnionPay,
        Self::Maestro,
        Self::Mir,
        Self::Other,
    ];

    /// Whose a number of these digits would be, and whether that brand has numbers of so many. `digits` are ASCII.
    pub(crate) fn of(digits: &[u8]) -> (Self, bool) {
        let prefix = digits.iter().take(PREFIX_DIGITS).fold(0, |prefix, digit| prefix * 10 + u32::from(digit - b'0'));
        match RANGES.iter().find(|range| range.prefixes.contains(&prefix)) {
            // Visa's are of 13, 16 or 19 and of nothing between.
            Some(Range { brand: Self::Visa, .. }) => (Self::Visa, matches!(digits.len(), 13 | 16 | 19)),
            Some(range) => (range.brand, range.digits.contains(&digits.len())),
            None => (Self::Other, true),
        }
    }

    /// Its name, as people know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Visa => "Visa",
            Self::Mastercard => "Mastercard",
            Self::Amex => "American Express",
            Self::Diners => "Diners Club",
            Self::Discover => "Discover",
            Self::Jcb => "JCB",
            Self::UnionPay => "UnionPay",
            Self::Maestro => "Maestro",
            Self::Mir => "Mir",
            Self::Other => "another brand",
        }
    }
}

impl fmt::Display for Brand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_six_digits_and_no_later_one_is_hidden() {
        for (at, range) in RANGES.iter().enumerate() {
            let (first, last) = (*range.prefixes.start(), *range.prefixes.end());
            assert!((100_000..=999_999).contains(&first) && first <= last && last <= 999_999, "{first} to {last}");
            let hidden = RANGES[..at].iter().any(|before| before.prefixes.contains(&first) && before.prefixes.contains(&last));
            assert!(!hidden, "{first} to {last} is never reached");
        }
    }
}
