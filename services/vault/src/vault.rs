//! The vault itself: cards in, tokens and descriptions out.
//!
//! Each user has a data key. What is encrypted under it is bound to its token, user and zone, so that no row is taken for another; what finds a number
//! among the user's is an HMAC under a key that is derived from it. So nothing of a user can be read, or compared with a number that somebody has, once
//! that key is gone. Fingerprints, which are the same for a number whosever it is, are made when they are asked for and stored nowhere.

use std::{fmt, sync::Arc};

use paymesh_acquirers::{Acquirer, Authorization, Decision, Failure};
use paymesh_cards::{Brand, Card, CardNumber, card_bytes};
use paymesh_types::{RequestId, Timestamp, UserId, VaultToken, ZoneName};
use tokio::sync::{Mutex, Notify};

use crate::{
    Error, crypto,
    keys::{self, KekId, KeyProvider, Secret},
    sealing::{Opening, SealedCard},
    store::{AddedCard, AddedKey, DeletedCard, ErasedUser, KeyName, NewCard, Outcome, Purpose, Store, TokenId, WrappedKey},
};

/// How often a step is taken again because others changed what it was based on.
const TRIES_MAX: usize = 8;

/// Bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = 16;

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The vault of a zone. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Vault {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) zone: ZoneName,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<dyn KeyProvider>,
    pub(crate) clock: Clock,
    fingerprints: Secret,
    /// Held by whoever makes a sealing key.
    pub(crate) sealing: Mutex<()>,
    pub(crate) opening: Opening,
    /// Held by whoever rotates key-encryption keys.
    pub(crate) rotating: Mutex<()>,
    /// Held by whoever makes the next key-encryption key, which begins a rotation: no two are begun at once.
    pub(crate) beginning: Mutex<()>,
    /// Told when a rotation was begun that somebody has to go on with.
    pub(crate) begun: Notify,
}

/// What may be shown of a card.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// Stands for the card.
    pub token: VaultToken,
    /// Whose it is.
    pub user: UserId,
    /// Its brand.
    pub brand: Brand,
    /// As [`CardNumber::bin`].
    pub bin: String,
    /// As [`CardNumber::last_four`].
    pub last_four: String,
    /// Through when it holds.
    pub expiry: paymesh_cards::Expiry,
    /// The same for equal numbers of all users of the zone.
    pub fingerprint: [u8; FINGERPRINT_BYTES],
}

/// Personal data: the token and the user are all that prints.
impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Description({} of {:?})", self.token, self.user)
    }
}

/// A card that is to be taken in.
#[derive(Debug)]
pub enum Offered {
    /// As it was typed in.
    Clear(Card),
    /// Sealed to the vault's key.
    Sealed(SealedCard),
}

/// A user's data key, with what is derived from it.
struct UserKeys {
    name: KeyName,
    cards: Secret,
    lookups: Secret,
    bodies: Secret,
}

impl UserKeys {
    fn new(name: KeyName, key: &Secret) -> Self {
        Self {
            name,
            cards: crypto::derive(key, b"cards"),
            lookups: crypto::derive(key, b"lookups"),
            bodies: crypto::derive(key, b"bodies"),
        }
    }
}

impl Vault {
    /// A vault over its store and the keys that its own are wrapped under. A rotation that a crash broke off is not gone on with before
    /// [`Self::resume_rotation`].
    ///
    /// # Errors
    /// Store or keys cannot be had; [`keys::Error::Missing`] and [`Error::StoreMissing`] where they do not belong together.
    pub async fn open(zone: ZoneName, store: Arc<dyn Store>, keys: Arc<dyn KeyProvider>, clock: Clock) -> Result<Self, Error> {
        let known = keys.ids().await?;
        let kek = match store.state().await?.kek {
            Some((kek, _)) if known.contains(&kek) => kek,
            Some((kek, _)) => return Err(keys::Error::Missing { kek }.into()),
            None => {
                let kek = match known[..] {
                    [] => keys.make().await?,
                    // A first start that broke off between the two.
                    [first] if first.get() == 1 && store.zone_keys().await?.is_empty() && store.count_not_under(first).await? == 0 => first,
                    [.., last] => return Err(Error::StoreMissing(last)),
                };
                store.use_kek(kek, clock()).await?;
                kek
            }
        };
        let fingerprints = fingerprint_key(&zone, &*store, &*keys, kek, clock()).await?;
        let (sealing, opening, rotating, beginning, begun) = Default::default();
        Ok(Self { inner: Arc::new(Inner { zone, store, keys, clock, fingerprints, sealing, opening, rotating, beginning, begun }) })
    }

    /// The zone whose users' cards it keeps.
    pub fn zone(&self) -> &ZoneName {
        &self.inner.zone
    }

    /// Takes a user's card in. The same number again is the token that the user has, and another expiry replaces the one that it has.
    ///
    /// # Errors
    /// Those of [`Error`] that say so; nothing was done then.
    pub async fn tokenize(&self, request: RequestId, user: UserId, offered: Offered) -> Result<Description, Error> {
        let card = match offered {
            Offered::Clear(card) => card,
            Offered::Sealed(sealed) => self.open_sealed(user, &sealed).await?,
        };
        let bytes = crypto::in_the_clear(|| card_bytes(&card));
        let mut has = None;
        for _ in 0..TRIES_MAX {
            let (outcome, key) = self.inner.store.known(request, user).await?;
            // First, so that what was answered once is answered again, also of a card that has ended since.
            if let Some(outcome) = outcome {
                return self.replayed(user, &card, outcome).await;
            }
            if card.expiry.is_over((self.inner.clock)()) {
                return Err(Error::CardExpired);
            }
            let Some(key) = key else {
                self.make_user_key(user).await?;
                continue;
            };
            let Some(keys) = self.unwrapped_user_key(&key).await? else { continue };
            let lookup = crypto::in_the_clear(|| crypto::mac(&keys.lookups, card.number.expose().as_bytes()));
            // A card that the user has shows when another is to be added: most are new.
            let replaces = has.take();
            let token = replaces.unwrap_or_else(crypto::random);
            let new = crypto::in_the_clear(|| NewCard {
                request,
                body: crypto::mac(&keys.bodies, &bytes),
                token,
                replaces: replaces.is_some(),
                user,
                key: keys.name,
                lookup,
                sealed: crypto::encrypt(&keys.cards, &self.card_context(&token, user), &bytes),
            });
            match self.inner.store.add_card(&new).await? {
                AddedCard::Added => return Ok(self.describe_card(token, user, &card)),
                AddedCard::Has(token) => has = Some(token),
                AddedCard::Replayed(_) | AddedCard::Gone => {}
                AddedCard::Full => return Err(Error::TooManyCards(user)),
            }
        }
        Err(Error::Contended(user))
    }

    /// What was answered before, to the same request.
    async fn replayed(&self, user: UserId, card: &Card, outcome: Outcome) -> Result<Description, Error> {
        let reused = |field| Err(Error::RequestIdReused { field });
        let Outcome::Tokenized { user: before, token, body } = outcome else { return reused("request_id") };
        if before != user {
            return reused("user_id");
        }
        let (Some(body), Some(keys)) = (body, self.user_keys(user).await?) else { return Err(Error::UserErased(user)) };
        if crypto::in_the_clear(|| crypto::mac(&keys.bodies, &card_bytes(card))) != body {
            return reused("card");
        }
        Ok(self.describe_card(token, user, card))
    }

    /// What may be shown of a card.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::Damaged`]; store or keys cannot be had.
    pub async fn describe(&self, token: &VaultToken) -> Result<Description, Error> {
        let (user, card) = self.card(token).await?;
        Ok(self.describe_card(*token.as_bytes(), user, &card))
    }

    /// Whose card a token stands for.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`]; the store cannot be had.
    pub async fn owner(&self, token: &VaultToken) -> Result<UserId, Error> {
        let missing = || Error::TokenNotFound(token.clone());
        if *token.zone() != self.inner.zone {
            return Err(missing());
        }
        Ok(self.inner.store.card(token.as_bytes()).await?.ok_or_else(missing)?.user)
    }

    /// The card itself, for whoever makes the acquirer's call in here.
    async fn card(&self, token: &VaultToken) -> Result<(UserId, Card), Error> {
        let missing = || Error::TokenNotFound(token.clone());
        if *token.zone() != self.inner.zone {
            return Err(missing());
        }
        let stored = self.inner.store.card(token.as_bytes()).await?.ok_or_else(missing)?;
        // Erased between the two.
        let keys = self.user_keys(stored.user).await?.ok_or_else(missing)?;
        let context = self.card_context(token.as_bytes(), stored.user);
        let opened = crypto::in_the_clear(|| Card::from_bytes(&crypto::decrypt(&keys.cards, &context, &stored.sealed)?).ok());
        let Some(card) = opened else {
            // Erased and taken in again between the two, or damaged.
            let still_there = self.inner.store.card(token.as_bytes()).await? == Some(stored);
            return Err(if still_there { Error::Damaged(token.clone()) } else { missing() });
        };
        Ok((stored.user, card))
    }

    /// Holds an amount on a user's card at an acquirer. The number is in memory from when it is decrypted until the acquirer has answered or the deadline has passed, and is
    /// zeroed then.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], also where the card is another user's; [`Error::Damaged`]; store or keys cannot be had. Nothing was sent then.
    pub async fn authorize(
        &self,
        token: &VaultToken,
        user: UserId,
        acquirer: &dyn Acquirer,
        authorization: &Authorization,
        deadline: tokio::time::Instant,
    ) -> Result<Result<Decision, Failure>, Error> {
        let (owner, card) = self.card(token).await?;
        if owner != user {
            return Err(Error::TokenNotFound(token.clone()));
        }
        Ok(acquirer.authorize(&card, authorization, deadline).await)
    }

    /// Deletes a card.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`], [`Error::RequestIdReused`]; the store cannot be had.
    pub async fn delete(&self, request: RequestId, token: &VaultToken) -> Result<(), Error> {
        let missing = || Error::TokenNotFound(token.clone());
        if *token.zone() != self.inner.zone {
            return Err(missing());
        }
        match self.inner.store.delete_card(request, token.as_bytes()).await? {
            DeletedCard::Deleted => Ok(()),
            DeletedCard::Replayed(Outcome::Deleted { token: before, .. }) if before == *token.as_bytes() => Ok(()),
            DeletedCard::Replayed(Outcome::Deleted { .. }) => Err(Error::RequestIdReused { field: "vault_token" }),
            DeletedCard::Replayed(_) => Err(Error::RequestIdReused { field: "request_id" }),
            DeletedCard::Missing => Err(missing()),
        }
    }

    /// Whose card this request has deleted; none where it has not.
    ///
    /// # Errors
    /// The store cannot be had.
    pub async fn deleted_by(&self, request: RequestId, token: &VaultToken) -> Result<Option<UserId>, Error> {
        Ok(match self.inner.store.outcome(request).await? {
            Some(Outcome::Deleted { user, token: deleted }) if deleted == *token.as_bytes() => Some(user),
            _ => None,
        })
    }

    /// Destroys a user's data key, and deletes all that was encrypted under it. Returns how many tokens stood for cards.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`]; the store cannot be had.
    pub async fn erase(&self, request: RequestId, user: UserId) -> Result<u32, Error> {
        match self.inner.store.erase(request, user, (self.inner.clock)()).await? {
            ErasedUser::Erased(tokens) => Ok(tokens),
            ErasedUser::Replayed(Outcome::Erased { user: before, tokens }) if before == user => Ok(tokens),
            ErasedUser::Replayed(Outcome::Erased { .. }) => Err(Error::RequestIdReused { field: "user_id" }),
            ErasedUser::Replayed(_) => Err(Error::RequestIdReused { field: "request_id" }),
        }
    }

    fn describe_card(&self, token: TokenId, user: UserId, card: &Card) -> Description {
        Description {
            token: VaultToken::new(self.inner.zone.clone(), token),
            user,
            brand: card.number.brand(),
            bin: card.number.bin().to_owned(),
            last_four: card.number.last_four().to_owned(),
            expiry: card.expiry,
            fingerprint: self.fingerprint(&card.number),
        }
    }

    fn fingerprint(&self, number: &CardNumber) -> [u8; FINGERPRINT_BYTES] {
        let mac = crypto::in_the_clear(|| crypto::mac(&self.inner.fingerprints, number.expose().as_bytes()));
        *mac.first_chunk().expect("an HMAC has more bytes")
    }

    /// A user's keys; none where there is no user's data key.
    async fn user_keys(&self, user: UserId) -> Result<Option<UserKeys>, Error> {
        for _ in 0..TRIES_MAX {
            let Some(key) = self.inner.store.user_key(user).await? else { return Ok(None) };
            if let Some(keys) = self.unwrapped_user_key(&key).await? {
                return Ok(Some(keys));
            }
        }
        Err(Error::Contended(user))
    }

    /// A user's keys. None: a rotation has wrapped the data key anew since it was read, and destroyed what it was wrapped under.
    async fn unwrapped_user_key(&self, key: &WrappedKey) -> Result<Option<UserKeys>, Error> {
        match self.unwrap(key).await {
            Ok(secret) => Ok(Some(UserKeys::new(key.name, &secret))),
            Err(keys::Error::Missing { kek }) if self.inner.store.state().await?.kek.is_some_and(|(current, _)| current > kek) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a user's data key, where nobody else has.
    async fn make_user_key(&self, user: UserId) -> Result<(), Error> {
        self.add_key(Purpose::User(user), &crypto::random_secret(), crypto::random()).await.map(drop)
    }

    /// Keeps a key, wrapped under the current key-encryption key: it, or the one that there is for that purpose.
    pub(crate) async fn add_key(&self, purpose: Purpose, secret: &Secret, name: KeyName) -> Result<WrappedKey, Error> {
        let Inner { zone, store, keys, clock, .. } = &*self.inner;
        let (kek, _) = store.state().await?.kek.ok_or_else(|| keys::Error::Missing { kek: KekId::new(1).expect("1 is more than 0") })?;
        add_key(zone, &**store, &**keys, kek, WrappedKey { name, purpose, kek, wrapped: Vec::new(), made_at: clock() }, secret).await
    }

    pub(crate) async fn unwrap(&self, key: &WrappedKey) -> Result<Secret, keys::Error> {
        self.inner.keys.unwrap(key.kek, &key_context(&self.inner.zone, key), &key.wrapped).await
    }

    /// What a card's encrypted form is bound to.
    fn card_context(&self, token: &TokenId, user: UserId) -> Vec<u8> {
        context(b"card", &self.inner.zone, &[&user.get().to_be_bytes()[..], &token[..]])
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.inner.zone)
    }
}

/// Adds a key, wrapped under the key-encryption key that is current when it is added.
async fn add_key(
    zone: &ZoneName,
    store: &dyn Store,
    keys: &dyn KeyProvider,
    mut kek: KekId,
    mut key: WrappedKey,
    secret: &Secret,
) -> Result<WrappedKey, Error> {
    // As often as a rotation begins meanwhile, which is not often.
    loop {
        key.kek = kek;
        match keys.wrap(kek, &key_context(zone, &key), secret).await {
            Ok(wrapped) => key.wrapped = wrapped,
            // Destroyed by a rotation that is over by now.
            Err(keys::Error::Missing { kek: missing }) => match store.state().await?.kek {
                Some((current, _)) if current > missing => {
                    kek = current;
                    continue;
                }
                _ => return Err(keys::Error::Missing { kek: missing }.into()),
            },
            Err(error) => return Err(error.into()),
        }
        match store.add_key(&key).await? {
            AddedKey::Added => return Ok(key),
            AddedKey::Exists(existing) => return Ok(existing),
            AddedKey::Rotated(current) => kek = current,
        }
    }
}

/// The zone's key for fingerprints; made where there is none.
async fn fingerprint_key(zone: &ZoneName, store: &dyn Store, keys: &dyn KeyProvider, kek: KekId, now: Timestamp) -> Result<Secret, Error> {
    let known = store.zone_keys().await?.into_iter().find(|key| key.purpose == Purpose::Fingerprints);
    let key = match known {
        Some(key) => key,
        None => {
            let key = WrappedKey { name: crypto::random(), purpose: Purpose::Fingerprints, kek, wrapped: Vec::new(), made_at: now };
            add_key(zone, store, keys, kek, key, &crypto::random_secret()).await?
        }
    };
    Ok(keys.unwrap(key.kek, &key_context(zone, &key), &key.wrapped).await?)
}

/// What a key is bound to when it is wrapped: its zone, name and purpose, so that none is taken for another.
pub(crate) fn key_context(zone: &ZoneName, key: &WrappedKey) -> Vec<u8> {
    match &key.purpose {
        Purpose::User(user) => context(b"user-key", zone, &[&user.get().to_be_bytes()[..], &key.name]),
        Purpose::Fingerprints => context(b"fingerprint-key", zone, &[&key.name]),
        Purpose::Sealing(public) => context(b"sealing-key", zone, &[&key.name, public]),
    }
}

/// Parts of which no two lists give the same bytes.
fn context(what: &[u8], zone: &ZoneName, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = b"paymesh/vault/1".to_vec();
    for part in [what, zone.as_str().as_bytes()].iter().chain(parts) {
        context.extend_from_slice(&u32::try_from(part.len()).expect("parts are short").to_be_bytes());
        context.extend_from_slice(part);
    }
    context
}
