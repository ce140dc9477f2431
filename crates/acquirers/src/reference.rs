//! What we call an operation, and what an acquirer calls a charge.

use std::{fmt, str::FromStr};

/// Bytes of a [`Reference`] at most: with what a connector adds, fewer than the 255 of Stripe's idempotency keys.
pub const REFERENCE_BYTES_MAX: usize = 160;
/// Bytes of a [`ChargeId`] at most.
const CHARGE_ID_BYTES_MAX: usize = 128;

/// Why a text is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is 1 to {bytes_max} of A-Z, a-z, 0-9, `_`, `-` and `.`")]
pub struct Invalid {
    what: &'static str,
    bytes_max: usize,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let fits = (1..=$bytes_max).contains(&text.len()) && text.bytes().all(is_plain);
                fits.then(|| Self(text.to_owned())).ok_or(Invalid { what: $what, bytes_max: $bytes_max })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word!(
    /// Our name for one operation on one payment, which acquirers take as its idempotency key: the same reference is the same operation, done once.
    /// A payment id and what is done, such as `pay_eu_1_1_17.authorize.1`. It goes into URLs as it is.
    Reference,
    "a reference",
    REFERENCE_BYTES_MAX
);
word!(
    /// What an acquirer calls a charge. It goes into URLs as it is.
    ChargeId,
    "a charge's id",
    CHARGE_ID_BYTES_MAX
);

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_plain_and_bounded() {
        for good in ["pay_eu_1_1_17.authorize.1", "a", &"x".repeat(REFERENCE_BYTES_MAX)] {
            assert!(good.parse::<Reference>().is_ok(), "{good}");
        }
        for wrong in ["", "a b", "a/b", "a?b", "ä", "a\n", &"x".repeat(REFERENCE_BYTES_MAX + 1)] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
