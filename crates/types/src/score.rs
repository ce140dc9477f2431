//! A score of fraud: a share between none and all, in ten-thousandths.

use std::{fmt, str::FromStr};

use crate::Invalid;

/// Ten-thousandths of the largest score.
const ONE: u16 = 10_000;
/// Digits after the point.
const DIGITS: usize = 4;

/// How likely a payment is taken to be fraud, or how much something counts towards that: 0 to 1, in steps of a ten-thousandth. Fixed point, so that every
/// node computes the same from the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Score(u16);

impl Score {
    /// Nothing speaks for it.
    pub const ZERO: Self = Self(0);
    /// It is certain.
    pub const ONE: Self = Self(ONE);

    /// From ten-thousandths. `None` when there are more than 10,000.
    pub fn new(ten_thousandths: u32) -> Option<Self> {
        u16::try_from(ten_thousandths).ok().filter(|score| *score <= ONE).map(Self)
    }

    /// Ten-thousandths: 0 to 10,000.
    pub fn ten_thousandths(self) -> u32 {
        u32::from(self.0)
    }

    /// This share of that one, rounded down: 0.5 of 0.5 is 0.25.
    #[must_use]
    pub fn of(self, other: Self) -> Self {
        let product = u32::from(self.0) * u32::from(other.0) / u32::from(ONE);
        Self(u16::try_from(product).unwrap_or(ONE))
    }
}

/// From a decimal from 0 to 1 with at most four digits after the point, such as `0.85`.
impl FromStr for Score {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("a score is a decimal from 0 to 1 with at most four digits after the point");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() != 1 || !digits(whole) || !digits(fraction) || fraction.len() > DIGITS {
            return Err(wrong());
        }
        format!("{whole}{fraction:0<DIGITS$}").parse().ok().and_then(Self::new).ok_or_else(wrong)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:0DIGITS$}", self.0 / ONE, self.0 % ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_scores_and_print_with_four_digits() {
        let table = [
            ("0", Some(0)),
            ("1", Some(10_000)),
            ("0.8", Some(8_000)),
            ("0.0001", Some(1)),
            ("1.0000", Some(10_000)),
            ("1.0001", None),
            ("2", None),
            ("0.00001", None),
            ("-0.1", None),
            (".5", None),
            ("5.", None),
            ("00.5", None),
            ("1e-3", None),
            ("", None),
        ];
        for (text, wanted) in table {
            let score: Option<Score> = text.parse().ok();
            assert_eq!(score.map(Score::ten_thousandths), wanted, "{text}");
            if let Some(score) = score {
                assert_eq!(score.to_string().parse(), Ok(score), "{text}");
            }
        }
        assert_eq!(Score::new(8_312).expect("a score").to_string(), "0.8312");
        assert_eq!(Score::ONE.to_string(), "1.0000");
        assert_eq!(Score::new(10_001), None);
    }

    #[test]
    fn a_share_of_a_share_is_no_more_than_either() {
        for (one, other, wanted) in [(5_000, 5_000, 2_500), (10_000, 7, 7), (0, 10_000, 0), (1, 1, 0), (3_333, 3_333, 1_110)] {
            let (one, other) = (Score::new(one).expect("a score"), Score::new(other).expect("a score"));
            assert_eq!(one.of(other).ten_thousandths(), wanted);
        }
    }
}
