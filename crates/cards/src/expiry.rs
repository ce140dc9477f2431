//! Until when a card holds.

use std::fmt;

use paymesh_types::Timestamp;

use crate::Error;

/// The first year that a card can say. Older ones are typing errors.
pub(crate) const YEAR_MIN: u16 = 2000;
/// The last year that a card can say.
pub(crate) const YEAR_MAX: u16 = 2099;

const DAY_SECONDS: u64 = 86_400;
/// From the end of a day at Greenwich to its end at the last place on Earth, twelve hours behind (UTC-12).
const LAST_PLACE_SECONDS: u64 = DAY_SECONDS / 2;

/// The month that a card holds through. It does not print: beside a number it is cardholder data (PCI DSS, "Account Data").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Expiry {
    // In this order, so that earlier is less.
    year: u16,
    month: u8,
}

impl Expiry {
    /// A month, 1 to 12, of a year with all four digits.
    ///
    /// # Errors
    /// [`Error::Month`], [`Error::Year`].
    pub fn new(month: u32, year: u32) -> Result<Self, Error> {
        let month = u8::try_from(month).ok().filter(|month| (1..=12).contains(month)).ok_or(Error::Month)?;
        let year = u16::try_from(year).ok().filter(|year| (YEAR_MIN..=YEAR_MAX).contains(year)).ok_or(Error::Year)?;
        Ok(Self { year, month })
    }

    /// 1 to 12.
    pub fn month(self) -> u8 {
        self.month
    }

    /// With all four digits.
    pub fn year(self) -> u16 {
        self.year
    }

    /// Whether a card with it has ended: its month is over everywhere on Earth.
    pub fn is_over(self, at: Timestamp) -> bool {
        at >= self.end()
    }

    /// The first instant at which a card with it holds nowhere any more.
    pub fn end(self) -> Timestamp {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        Timestamp::default().plus_seconds(days_before(year, month) * DAY_SECONDS + LAST_PLACE_SECONDS)
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(expiry withheld)")
    }
}

/// Days from 1970-01-01 to the first of a month, by the Gregorian calendar. Years are from 1970 on.
fn days_before(year: u16, month: u8) -> u64 {
    const MONTH_DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let year = u64::from(year);
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let months: u64 = MONTH_DAYS[..usize::from(month) - 1].iter().sum();
    years + months + u64::from(month > 2 && is_leap(year))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_days_before_a_month_are_those_of_the_calendar() {
        for year in 1970..=2100_u16 {
            for month in 1..=12_u8 {
                let first = jiff::civil::date(i16::try_from(year).expect("small"), i8::try_from(month).expect("small"), 1);
                let seconds = first.to_zoned(jiff::tz::TimeZone::UTC).expect("a date").timestamp().as_second();
                assert_eq!(days_before(year, month) * DAY_SECONDS, u64::try_from(seconds).expect("after 1970"), "{first}");
            }
        }
    }
}
