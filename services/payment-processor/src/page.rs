//! Page sizes, and the tokens that lead from one page to the next.
//!
//! A token is a place in a list and a checksum that ties it to that list: one that was mistyped, or given for another
//! account, is refused. It keeps nobody out, and does not have to: lists only ever show their own account.

use paymesh_contract::Fault;
use paymesh_types::{Currency, UserId};
use tonic::Code;

/// Items of a page at most.
const PAGE_ITEMS_MAX: u32 = 1_000;

/// Items of a page when the caller does not say.
const PAGE_ITEMS_DEFAULT: u32 = 100;

/// Hexadecimal digits of a token: a place, and its checksum.
const PLACE_DIGITS: usize = 16;
const CHECK_DIGITS: usize = 8;

/// A list that is given out in pages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List {
    /// The lines of an account.
    Statement(UserId, Currency),
    /// The payments of a payer.
    Payments(UserId),
}

impl List {
    /// The token of a place in the list.
    pub(crate) fn token(self, place: u64) -> String {
        format!("{place:0PLACE_DIGITS$x}{:0CHECK_DIGITS$x}", self.check(place))
    }

    /// The place that a token names. None: the list's beginning.
    ///
    /// # Errors
    /// INVALID_ARGUMENT `INVALID_PAGE_TOKEN`.
    pub(crate) fn place(self, token: &str) -> Result<Option<u64>, Fault> {
        if token.is_empty() {
            return Ok(None);
        }
        let digits = token.len() == PLACE_DIGITS + CHECK_DIGITS && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let place = digits.then(|| u64::from_str_radix(&token[..PLACE_DIGITS], 16).ok()).flatten();
        // Places are stored as BIGINT.
        match place.filter(|place| *place <= i64::MAX as u64 && self.token(*place) == token) {
            Some(place) => Ok(Some(place)),
            None => Err(no_such_place()),
        }
    }

    fn check(self, place: u64) -> u32 {
        let (kind, user, currency) = match self {
            Self::Statement(user, currency) => (1, user, u64::from(currency.numeric())),
            Self::Payments(user) => (2, user, 0),
        };
        let sum = [kind, user.get(), currency, place].into_iter().fold(0, |sum, word| mix(sum ^ word));
        u32::try_from(sum >> 32).expect("half of 64 bits")
    }
}

/// INVALID_ARGUMENT `INVALID_PAGE_TOKEN`.
pub(crate) fn no_such_place() -> Fault {
    let message = "the token is not one that this list gave out: begin again without one";
    Fault::new(Code::InvalidArgument, "INVALID_PAGE_TOKEN", message).with_field("page_token")
}

/// The finalizer of SplitMix64: every bit of the sum depends on every bit of the words.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Items of the page that the caller wants.
///
/// # Errors
/// INVALID_ARGUMENT `INVALID_FIELD`: more than a page holds.
pub(crate) fn size(page_size: u32) -> Result<u32, Fault> {
    match page_size {
        0 => Ok(PAGE_ITEMS_DEFAULT),
        1..=PAGE_ITEMS_MAX => Ok(page_size),
        _ => Err(Fault::invalid_field("page_size", format!("a page has 1 to {PAGE_ITEMS_MAX} items, not {page_size}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        UserId::try_from(number).expect("a user")
    }

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let euro = Currency::from_code("EUR").expect("EUR");
        let yen = Currency::from_code("JPY").expect("JPY");
        let list = List::Statement(user(7), euro);
        let token = list.token(42);
        assert_eq!(list.place(&token), Ok(Some(42)));
        assert_eq!(list.place(""), Ok(None));
        for other in [List::Statement(user(8), euro), List::Statement(user(7), yen), List::Payments(user(7))] {
            assert_eq!(other.place(&token).expect_err("another list's").reason, "INVALID_PAGE_TOKEN");
        }
    }

    #[test]
    fn a_token_that_was_changed_is_refused() {
        let list = List::Payments(user(7));
        let token = list.token(42);
        for index in 0..token.len() {
            let digit = if token.as_bytes()[index] == b'0' { "1" } else { "0" };
            let mut changed = token.clone();
            changed.replace_range(index..=index, digit);
            assert!(list.place(&changed).is_err(), "{changed}");
        }
        for wrong in ["x", "0", "ä", &"0".repeat(24), &token.to_uppercase(), &token[1..], &list.token(u64::MAX)] {
            assert!(list.place(wrong).is_err() || *wrong == token, "{wrong}");
        }
    }
}
