//! Ids of users, requests, payments and cards that a vault keeps.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::{Epoch, Invalid, Position, Sequence, ShardRef, ZoneName};

/// An account holder, payer or payee, person or merchant. The caller chose the number: 1 to 2^63-1 (the databases' BIGINT).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(NonZeroU64);

impl UserId {
    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The shard that the user belongs to in a zone of `shards` shards: `user_id % shards` (source document,
    /// "Transaction Sharding by User ID").
    pub fn shard(self, shards: u16) -> u16 {
        u16::try_from(self.get() % u64::from(shards.max(1))).expect("a remainder of a u16 fits in a u16")
    }
}

impl TryFrom<u64> for UserId {
    type Error = Invalid;

    fn try_from(value: u64) -> Result<Self, Invalid> {
        match NonZeroU64::new(value) {
            Some(id) if value <= i64::MAX as u64 => Ok(Self(id)),
            _ => Err(Invalid::new(format!("a user id is 1 to {}, not {value}", i64::MAX))),
        }
    }
}

impl FromStr for UserId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number: u64 = text.parse().map_err(|_| Invalid::new(format!("a user id is a whole number, not `{text}`")))?;
        Self::try_from(number)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

/// The caller's name for one write: a UUID, not nil. The same id with the same body gets the same answer again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The instant in a UUID of version 7, in milliseconds since 1970 UTC: whatever the caller's clock said. None for the
    /// other versions.
    pub fn named_at_ms(&self) -> Option<u64> {
        let bytes = self.0.as_bytes();
        (self.0.get_version_num() == 7).then(|| bytes[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)))
    }

    /// From the 16 bytes of a journal entry.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
        let uuid = Uuid::from_slice(bytes).map_err(|_| Invalid::new("a request id is 16 bytes"))?;
        Self::try_from(uuid)
    }
}

impl TryFrom<Uuid> for RequestId {
    type Error = Invalid;

    fn try_from(uuid: Uuid) -> Result<Self, Invalid> {
        if uuid.is_nil() {
            return Err(Invalid::new("a request id is a UUID other than nil"));
        }
        Ok(Self(uuid))
    }
}

impl FromStr for RequestId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let uuid = Uuid::try_parse(text).map_err(|_| Invalid::new("a request id is a UUID"))?;
        Self::try_from(uuid)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// An acquirer's own name for a charge: 1 to 128 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChargeId(Arc<str>);

impl ChargeId {
    /// Characters at most.
    pub const BYTES_MAX: usize = 128;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChargeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::new(format!("an acquirer's name of a charge is 1 to {} visible ASCII characters", Self::BYTES_MAX)));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ChargeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChargeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "charge {}", self.0)
    }
}

/// Names a payment and its home: the position of the entry that created it, as `pay_ZONE_SHARD_EPOCH_SEQUENCE`.
///
/// The epoch makes the name unique even if a leader that lost its lease had given the same sequence number away.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PaymentId(Position);

impl PaymentId {
    /// The position of the entry that created the payment.
    pub fn position(&self) -> &Position {
        &self.0
    }

    /// The payment's home shard.
    pub fn shard(&self) -> &ShardRef {
        &self.0.shard
    }

    /// The sequence number of the entry that created the payment.
    pub fn sequence(&self) -> Sequence {
        self.0.sequence
    }

    /// The term of leadership that created the payment.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }
}

impl From<Position> for PaymentId {
    fn from(position: Position) -> Self {
        Self(position)
    }
}

impl FromStr for PaymentId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("a payment id is pay_ZONE_SHARD_EPOCH_SEQUENCE");
        let mut parts = text.split('_');
        let (Some("pay"), Some(zone), Some(shard), Some(epoch), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let number = |text: &str| -> Result<u64, Invalid> {
            // One spelling for each id: no sign, no leading zero.
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
                return Err(invalid());
            }
            text.parse().map_err(|_| invalid())
        };
        let position = Position {
            shard: ShardRef { zone: zone.parse()?, index: u16::try_from(number(shard)?).map_err(|_| invalid())? },
            epoch: Epoch(number(epoch)?),
            sequence: Sequence(number(sequence)?),
        };
        let fits = |number: u64| number > 0 && number <= i64::MAX as u64;
        if !fits(position.sequence.0) || !fits(position.epoch.0) {
            return Err(invalid());
        }
        Ok(Self(position))
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { shard, epoch, sequence } = &self.0;
        write!(f, "pay_{}_{}_{}_{}", shard.zone, shard.index, epoch.0, sequence.0)
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Stands for a card that the vault of a zone keeps, as `card_ZONE_LETTERS`.
///
/// The letters are 16 random bytes, two for each of them, `a` to `p`. There is no digit among them, so that no token is taken for a card number
/// by those who look for such in logs and tables.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultToken {
    zone: ZoneName,
    id: [u8; 16],
}

impl VaultToken {
    /// A token of a zone; `id` is random.
    pub fn new(zone: ZoneName, id: [u8; 16]) -> Self {
        Self { zone, id }
    }

    /// The zone whose vault keeps the card.
    pub fn zone(&self) -> &ZoneName {
        &self.zone
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.id
    }
}

impl FromStr for VaultToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("a vault token is card_ZONE_LETTERS, with 32 letters from a to p");
        let mut parts = text.split('_');
        let (Some("card"), Some(zone), Some(letters), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(invalid());
        };
        let letters: &[u8; 32] = letters.as_bytes().try_into().map_err(|_| invalid())?;
        if !letters.iter().all(|letter| (b'a'..=b'p').contains(letter)) {
            return Err(invalid());
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(letters.chunks_exact(2)) {
            *byte = (pair[0] - b'a') << 4 | (pair[1] - b'a');
        }
        Ok(Self { zone: zone.parse()?, id })
    }
}

impl fmt::Display for VaultToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "card_{}_", self.zone)?;
        let letter = |nibble: u8| char::from(b'a' + nibble);
        self.id.iter().try_for_each(|byte| write!(f, "{}{}", letter(byte >> 4), letter(byte & 15)))
    }
}

impl fmt::Debug for VaultToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn user_ids_are_one_to_the_largest_bigint() {
        assert!(UserId::try_from(0).is_err());
        assert!(UserId::try_from(u64::MAX).is_err());
        assert_eq!(UserId::try_from(i64::MAX as u64).map(UserId::get), Ok(i64::MAX as u64));
        assert_eq!(UserId::try_from(7).map(|user| user.shard(4)), Ok(3));
    }

    #[test]
    fn a_payment_id_has_one_spelling() {
        for wrong in [
            "",
            "pay",
            "pay_eu_1_1",
            "pay_eu_1_1_1_1",
            "ref_eu_1_1_1",
            "pay_eu_01_1_1",
            "pay_eu_1_+1_1",
            "pay_eu_1_1_0",
            "pay_EU_1_1_1",
            "pay_eu_65536_1_1",
            "pay_eu_1_0_1",
        ] {
            assert!(wrong.parse::<PaymentId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_acquirers_name_of_a_charge_is_short_and_visible() {
        for good in ["ch_3MmlLrLkdIwHu7ix0snN0B15", "1", &"x".repeat(ChargeId::BYTES_MAX)] {
            assert_eq!(good.parse::<ChargeId>().map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for wrong in ["", "a b", "a\n", "é", &"x".repeat(ChargeId::BYTES_MAX + 1)] {
            assert!(wrong.parse::<ChargeId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vault_token_has_one_spelling() {
        let letters = "abcdefghijklmnopabcdefghijklmnop";
        let token: VaultToken = format!("card_eu_{letters}").parse().expect("a token");
        assert_eq!((token.zone().as_str(), token.as_bytes()[0], token.as_bytes()[15]), ("eu", 0x01, 0xef));
        for wrong in [
            String::new(),
            "card".to_owned(),
            "card_eu".to_owned(),
            format!("card_{letters}"),
            format!("pay_eu_{letters}"),
            format!("card_eu_{}", &letters[1..]),
            format!("card_eu_{letters}a"),
            format!("card_eu_{letters}_"),
            format!("card_EU_{letters}"),
            format!("card__{letters}"),
            format!("card_eu_{}", letters.to_uppercase()),
            format!("card_eu_{}", letters.replace('p', "q")),
            format!("card_eu_{}", letters.replace('p', "1")),
            format!("card_eu_{}", letters.replace("ab", "ä")),
        ] {
            assert!(wrong.parse::<VaultToken>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_nil_request_id_is_refused() {
        assert!("00000000-0000-0000-0000-000000000000".parse::<RequestId>().is_err());
    }

    proptest! {
        #[test]
        fn vault_tokens_survive_their_text_and_have_no_digits(id: [u8; 16]) {
            let token = VaultToken::new("eu".parse().expect("a zone"), id);
            let text = token.to_string();
            prop_assert!(!text.contains(|character: char| character.is_ascii_digit()));
            prop_assert_eq!(text.parse::<VaultToken>(), Ok(token));
        }

        #[test]
        fn payment_ids_survive_their_text(shard: u16, epoch in 1..=i64::MAX as u64, sequence in 1..=i64::MAX as u64) {
            let id = PaymentId::from(Position {
                shard: ShardRef { zone: "eu".parse().expect("a zone"), index: shard },
                epoch: Epoch(epoch),
                sequence: Sequence(sequence),
            });
            prop_assert_eq!(id.to_string().parse::<PaymentId>(), Ok(id));
        }
    }
}
