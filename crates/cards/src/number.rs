//! The number on a card.

use std::fmt;

use zeroize::Zeroize as _;

use crate::{Brand, Error};

/// Digits at least.
pub(crate) const DIGITS_MIN: usize = 12;
/// Digits at most (ISO/IEC 7812-1).
pub(crate) const DIGITS_MAX: usize = 19;
/// Digits that are shown at a number's end.
const LAST_DIGITS: usize = 4;

/// A primary account number: 12 to 19 digits, as many as its brand has, with the right check digit.
///
/// Neither `Clone` nor `Copy`, without `Display`, and with a `Debug` that withholds it: whoever needs the digits says so with
/// [`Self::expose`]. They are in one place on the heap, so that to move the number does not copy them, and are zeroed with it.
pub struct CardNumber {
    /// ASCII; what is after the last digit is zero.
    digits: Box<[u8; DIGITS_MAX]>,
    length: usize,
    brand: Brand,
}

impl CardNumber {
    /// Of digits and nothing else.
    ///
    /// # Errors
    /// What is wrong with them, without a digit of them.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::from_ascii(text.as_bytes())
    }

    /// Of ASCII digits and nothing else.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_ascii(digits: &[u8]) -> Result<Self, Error> {
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Error::NotDigits);
        }
        if !(DIGITS_MIN..=DIGITS_MAX).contains(&digits.len()) {
            return Err(Error::Length);
        }
        let (brand, has_such) = Brand::of(digits);
        if !has_such {
            return Err(Error::BrandLength(brand));
        }
        if !passes_luhn(digits) {
            return Err(Error::CheckDigit);
        }
        let mut own = Box::new([0; DIGITS_MAX]);
        own[..digits.len()].copy_from_slice(digits);
        Ok(Self { digits: own, length: digits.len(), brand })
    }

    /// All digits. Whatever they are copied to has to be zeroed, and is not to be printed or stored.
    pub fn expose(&self) -> &str {
        self.part(0, self.length)
    }

    /// Whose card it is.
    pub fn brand(&self) -> Brand {
        self.brand
    }

    /// The issuer identification number: the first eight digits of a number of 16 and more, the first six of a shorter one. With
    /// [`Self::last_four`], as much as may be shown and kept (PCI DSS 3.4.1; PCI SSC FAQ 1091).
    pub fn bin(&self) -> &str {
        self.part(0, if self.length >= 16 { 8 } else { 6 })
    }

    /// The last four digits.
    pub fn last_four(&self) -> &str {
        self.part(self.length - LAST_DIGITS, self.length)
    }

    fn part(&self, from: usize, to: usize) -> &str {
        std::str::from_utf8(&self.digits[from..to]).expect("only ASCII digits are made")
    }
}

impl Drop for CardNumber {
    fn drop(&mut self) {
        self.digits.zeroize();
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(card number of {} withheld)", self.brand)
    }
}

/// The check of ISO/IEC 7812-1, annex B: from the right, every second digit counts double, and the sum of digits is a multiple of ten.
fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            match (place % 2, digit) {
                (0, _) => digit,
                (_, 0..=4) => digit * 2,
                _ => digit * 2 - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}
