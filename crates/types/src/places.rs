//! Places in the mesh (regions, zones, shards) and in its journals (positions), and instants.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 32;

/// Makes a cheap-to-clone name type with its own rule.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal, $separator:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let mut bytes = text.bytes();
                let valid = text.len() <= NAME_BYTES_MAX
                    && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
                    && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == $separator);
                if valid { Ok(Self(text.into())) } else { Err(Invalid::new(concat!($what, " is ", $allowed))) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
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

name!(
    /// A place where nodes run, such as `us_east`.
    RegionName,
    "a region's name",
    "1 to 32 of a-z, 0-9 and _, beginning with a letter",
    b'_'
);
name!(
    /// A compliance zone, such as `eu`. It has no underscore, so that a payment id can carry it.
    ZoneName,
    "a zone's name",
    "1 to 32 of a-z, 0-9 and -, beginning with a letter",
    b'-'
);

name!(
    /// A connection to an acquirer, such as `acquirer_a`: what an acquirer is asked through.
    GatewayName,
    "a gateway's name",
    "1 to 32 of a-z, 0-9 and _, beginning with a letter",
    b'_'
);

/// A country of ISO 3166-1, by its alpha-2 code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

impl Country {
    /// The alpha-2 code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII codes are made")
    }
}

impl FromStr for Country {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("a country is an ISO 3166-1 alpha-2 code such as DE");
        if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        celes::Country::from_alpha2(text).map_err(|_| invalid())?;
        let bytes = text.as_bytes();
        Ok(Self([bytes[0], bytes[1]]))
    }
}

impl TryFrom<String> for Country {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Country> for String {
    fn from(country: Country) -> String {
        country.code().to_owned()
    }
}

/// A country of residence is personal data: it does not print.
impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(country withheld)")
    }
}

/// Names a shard: the unit of ordering, leadership, storage and replication.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardRef {
    /// The compliance zone.
    pub zone: ZoneName,
    /// The number in the zone, from 0.
    pub index: u16,
}

impl fmt::Display for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.zone, self.index)
    }
}

impl fmt::Debug for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A term of leadership of a shard. The first is 1; each leader takes the next, and appends of earlier ones are fenced off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(pub u64);

/// An entry's number in its journal. The first entry is 1; 0 stands before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells a journal's history up to a place from others that have the same numbers: eight bytes of the chain's hash there. Histories
/// part by accident, not by design, so that is enough of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HistoryMark(NonZeroU64);

impl HistoryMark {
    /// The mark of that number; `None` for 0, which marks nothing.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Its number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// How far a journal was read, and of which history it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Cursor {
    /// The last entry that was read; 0 for none.
    pub sequence: Sequence,
    /// The mark of the history there; `None` where it was not noted.
    pub mark: Option<HistoryMark>,
}

impl Cursor {
    /// Moves on to another, if that is further.
    pub fn advance(&mut self, to: Self) {
        if to.sequence > self.sequence {
            *self = to;
        }
    }
}

impl From<Sequence> for Cursor {
    /// Without a mark.
    fn from(sequence: Sequence) -> Self {
        Self { sequence, mark: None }
    }
}

/// A place in one shard's journal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The shard.
    pub shard: ShardRef,
    /// The term of leadership that committed the entry.
    pub epoch: Epoch,
    /// The entry's number.
    pub sequence: Sequence,
}

/// An instant: microseconds since 1970 UTC. The leader stamps it; pure code gets it as an argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This instant and `seconds` more, or the largest there is.
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_rule() {
        for good in ["us_east", "eu", "a1"] {
            assert!(good.parse::<RegionName>().is_ok(), "{good}");
        }
        for wrong in ["", "US", "1a", "us-east", "a b", "ä", &"a".repeat(33)] {
            assert!(wrong.parse::<RegionName>().is_err(), "{wrong}");
        }
        assert!("eu_1".parse::<ZoneName>().is_err(), "an underscore would break payment ids");
        assert!("eu-1".parse::<ZoneName>().is_ok());
    }

    #[test]
    fn countries_are_those_of_iso_3166() {
        assert!("DE".parse::<Country>().is_ok());
        for wrong in ["de", "D", "DEU", "ZZ", "", "Ä"] {
            assert!(wrong.parse::<Country>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_country_of_residence_does_not_print() {
        let country: Country = "DE".parse().expect("DE");
        assert!(!format!("{country:?}").contains("DE"));
    }
}
