//! A card as it is typed in and as it is encrypted.

use paymesh_types::{Timestamp, UserId, ZoneName};
use zeroize::Zeroizing;

use crate::{CardNumber, Error, Expiry, number::DIGITS_MAX};

/// Bytes of a card that is to be encrypted: always as many, so that what is encrypted does not tell how long the number is.
pub const CARD_BYTES: usize = 4 + DIGITS_MAX;

/// The first byte of a card's bytes: how the others are to be read.
const FORMAT: u8 = 1;

/// What HPKE's `info` is for a card that is sealed to a vault.
const SEALING_INFO: &[u8] = b"paymesh/vault/sealed-card/1";

/// What a node's signature of a vault's key is for.
pub const SEALING_KEY_PURPOSE: &str = "paymesh/vault/sealing-key/1";

/// A card's number and its expiry.
#[derive(Debug)]
pub struct Card {
    /// The number.
    pub number: CardNumber,
    /// Through when it holds.
    pub expiry: Expiry,
}

impl Card {
    /// Of its [`card_bytes`].
    ///
    /// # Errors
    /// [`Error::Bytes`], or what is wrong with the card.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: &[u8; CARD_BYTES] = bytes.try_into().map_err(|_| Error::Bytes)?;
        let [FORMAT, month, century_and_year @ ..] = bytes else { return Err(Error::Bytes) };
        let [high, low, digits @ ..] = century_and_year;
        let length = digits.iter().position(|byte| *byte == 0).unwrap_or(DIGITS_MAX);
        // One spelling for each card.
        if digits[length..].iter().any(|byte| *byte != 0) {
            return Err(Error::Bytes);
        }
        let expiry = Expiry::new(u32::from(*month), u32::from(u16::from_be_bytes([*high, *low])))?;
        Ok(Self { number: CardNumber::from_ascii(&digits[..length])?, expiry })
    }
}

/// A card's bytes, which are there to be encrypted: the format 1, the month, the year (two bytes, the higher first), and the digits in ASCII
/// with zeros up to 19.
pub fn card_bytes(card: &Card) -> Zeroizing<Vec<u8>> {
    // All of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(CARD_BYTES));
    bytes.extend_from_slice(&[FORMAT, card.expiry.month()]);
    bytes.extend_from_slice(&card.expiry.year().to_be_bytes());
    bytes.extend_from_slice(card.number.expose().as_bytes());
    bytes.resize(CARD_BYTES, 0);
    bytes
}

/// HPKE's `info` for a card that is sealed to a vault (RFC 9180, section 5.1).
pub fn sealing_info() -> &'static [u8] {
    SEALING_INFO
}

/// HPKE's associated data for a user's card that is sealed to the vault of a zone: the number of bytes of the zone's name, the name, the
/// user's id in eight bytes, the highest first. What was sealed for one user is nothing for another.
pub fn sealing_context(zone: &ZoneName, user: UserId) -> Vec<u8> {
    [&named(zone)[..], &user.get().to_be_bytes()].concat()
}

/// What a vault's node signs when it says which key a user's cards are sealed to, for the purpose [`SEALING_KEY_PURPOSE`]: the user's id in eight bytes, the highest first; the
/// number of bytes of the zone's name, the name; until when the vault opens what is sealed to it, in microseconds in eight bytes, the highest first; and the key.
pub fn sealing_key_statement(user: UserId, zone: &ZoneName, ends_at: Timestamp, public_key: &[u8]) -> Vec<u8> {
    [&user.get().to_be_bytes(), &named(zone)[..], &ends_at.0.to_be_bytes(), public_key].concat()
}

/// A zone's name after the number of its bytes.
fn named(zone: &ZoneName) -> Vec<u8> {
    let name = zone.as_str().as_bytes();
    let length = u8::try_from(name.len()).expect("a zone's name has 32 bytes at most");
    [&[length], name].concat()
}
