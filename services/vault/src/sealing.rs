//! Keys that cards are sealed to, so that no node between the caller and the vault sees them (HPKE, RFC 9180).
//!
//! A key is given out for 30 days and opens for 7 more: when the next takes over, what was sealed to the one before still opens. All are wrapped under the
//! key-encryption key, as the users' are; those that cards come sealed to are in memory too, ready to open: to make one ready takes as long as to open a card.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use paymesh_cards::{Card, sealing_context, sealing_info};
use paymesh_types::{Timestamp, UserId};
use rustls::crypto::{aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256, hpke::Hpke as _};

use crate::{
    Error, Vault, crypto,
    hpke::OpeningKey,
    keys::{self, Secret},
    store::{KeyName, Purpose, WrappedKey},
};

const DAY_SECONDS: u64 = 24 * 3600;
/// How long a key is given out.
const OFFERED_SECONDS: u64 = 30 * DAY_SECONDS;
/// How long a key opens what was sealed to it.
const ACCEPTED_SECONDS: u64 = OFFERED_SECONDS + 7 * DAY_SECONDS;

/// Bytes of a key's id in letters.
const ID_LETTERS: usize = 2 * std::mem::size_of::<KeyName>();

/// The public half of a key that cards are sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingKey {
    /// Its id: the first 16 bytes of its SHA-256, in letters from a to p.
    pub id: String,
    /// A point of P-256, uncompressed.
    pub public: Vec<u8>,
    /// Until when the vault opens what is sealed to it.
    pub ends_at: Timestamp,
}

/// A card as it arrives, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCard {
    /// Of the key that it is sealed to.
    pub key_id: String,
    /// HPKE's encapsulated key.
    pub encapsulated: Vec<u8>,
    /// HPKE's ciphertext.
    pub ciphertext: Vec<u8>,
}

impl Vault {
    /// The key that cards are to be sealed to now. Makes the next where the last has been given out for long enough.
    ///
    /// # Errors
    /// Store or keys cannot be had.
    pub async fn sealing_key(&self) -> Result<SealingKey, Error> {
        if let Some(key) = self.offered().await? {
            return Ok(key);
        }
        let _making = self.inner.sealing.lock().await;
        if let Some(key) = self.offered().await? {
            return Ok(key);
        }
        let (public, private) = DH_KEM_P256_HKDF_SHA256_AES_256.generate_key_pair().expect("the system has random bytes");
        let secret = Secret::copied(private.secret_bytes()).expect("a private key of P-256 has 32 bytes");
        let key = self.add_key(Purpose::Sealing(public.0.clone()), &secret, crypto::hash(&public.0)).await?;
        tracing::info!(zone = %self.zone(), key = %letters(&key.name), "a new key is given out that cards are sealed to");
        Ok(given_out(&key.name, public.0, key.made_at))
    }

    /// The youngest key, while it is given out.
    async fn offered(&self) -> Result<Option<SealingKey>, Error> {
        let now = (self.inner.clock)();
        let keys = self.inner.store.zone_keys().await?;
        Ok(keys.into_iter().rev().find_map(|key| match key.purpose {
            Purpose::Sealing(public) if now < key.made_at.plus_seconds(OFFERED_SECONDS) => Some(given_out(&key.name, public, key.made_at)),
            _ => None,
        }))
    }

    /// Removes keys that open nothing any more.
    pub(crate) async fn remove_ended_sealing_keys(&self) -> Result<(), Error> {
        let now = (self.inner.clock)();
        for key in self.inner.store.zone_keys().await? {
            if matches!(key.purpose, Purpose::Sealing(_)) && has_ended(key.made_at, now) {
                self.inner.store.remove_key(&key.name).await?;
            }
        }
        write(&self.inner.opening).retain(|_, (_, made_at)| !has_ended(*made_at, now));
        Ok(())
    }

    /// Opens a card that was sealed for this user.
    pub(crate) async fn open_sealed(&self, user: UserId, sealed: &SealedCard) -> Result<Card, Error> {
        let name = from_letters(&sealed.key_id).ok_or(Error::SealingKeyNotFound)?;
        let key = self.opening_key(name).await?;
        let context = sealing_context(self.zone(), user);
        crypto::in_the_clear(|| {
            let opened = key.open(&sealed.encapsulated, &context, &sealed.ciphertext);
            Card::from_bytes(&opened.map_err(|_| Error::NotSealedForUser(user))?).map_err(Error::SealedNonsense)
        })
    }

    /// The private half of a key that has not ended, out of the memory where it is there.
    async fn opening_key(&self, name: KeyName) -> Result<Arc<OpeningKey>, Error> {
        let now = (self.inner.clock)();
        let known = read(&self.inner.opening).get(&name).cloned();
        if let Some((key, made_at)) = known {
            return if has_ended(made_at, now) { Err(Error::SealingKeyNotFound) } else { Ok(key) };
        }
        let keys = self.inner.store.zone_keys().await?;
        let accepted = |key: &&WrappedKey| key.name == name && matches!(key.purpose, Purpose::Sealing(_)) && !has_ended(key.made_at, now);
        let key = keys.iter().find(accepted).ok_or(Error::SealingKeyNotFound)?;
        let secret = match self.unwrap(key).await {
            // Wrapped anew since it was read.
            Err(keys::Error::Missing { .. }) => {
                let again = self.inner.store.zone_keys().await?;
                self.unwrap(again.iter().find(accepted).ok_or(Error::SealingKeyNotFound)?).await?
            }
            unwrapped => unwrapped?,
        };
        let opening = crypto::in_the_clear(|| OpeningKey::new(&secret, sealing_info()));
        let opening = Arc::new(opening.map_err(|_| keys::Error::NotWrapped { kek: key.kek })?);
        write(&self.inner.opening).insert(name, (opening.clone(), key.made_at));
        Ok(opening)
    }
}

/// Sealing keys that something was opened with, and when they were made.
pub(crate) type Opening = RwLock<BTreeMap<KeyName, (Arc<OpeningKey>, Timestamp)>>;

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn given_out(name: &KeyName, public: Vec<u8>, made_at: Timestamp) -> SealingKey {
    SealingKey { id: letters(name), public, ends_at: made_at.plus_seconds(ACCEPTED_SECONDS) }
}

fn has_ended(made_at: Timestamp, now: Timestamp) -> bool {
    now >= made_at.plus_seconds(ACCEPTED_SECONDS)
}

/// Without digits, as tokens are: nobody takes an id for a card number.
fn letters(name: &KeyName) -> String {
    name.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(b'a' + nibble)).collect()
}

fn from_letters(id: &str) -> Option<KeyName> {
    let letters: &[u8; ID_LETTERS] = id.as_bytes().try_into().ok()?;
    let mut name = KeyName::default();
    for (byte, pair) in name.iter_mut().zip(letters.chunks_exact(2)) {
        let nibble = |letter: u8| (b'a'..=b'p').contains(&letter).then(|| letter - b'a');
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(name)
}
