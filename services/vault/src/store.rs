//! Storage of a vault: the port, and what is stored. Nothing of it can be read without a key-encryption key.

mod sqlite;

use std::fmt;

use async_trait::async_trait;
use paymesh_types::{RequestId, Timestamp, UserId};

use crate::{crypto::MAC_BYTES, keys::KekId};

pub use sqlite::SqliteStore;

/// Cards of a user at most.
pub const CARDS_PER_USER_MAX: u32 = 64;

/// Names a key of the vault's: 16 bytes.
pub type KeyName = [u8; 16];

/// The id of a token in its zone.
pub type TokenId = [u8; 16];

/// What a key of the vault's is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// All that is kept of a user is encrypted under it.
    User(UserId),
    /// Fingerprints of the zone are made with it.
    Fingerprints,
    /// Cards are sealed to it; this is its public half.
    Sealing(Vec<u8>),
}

/// A key of the vault's, wrapped under a key-encryption key.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its name, which stays the same when it is wrapped anew.
    pub name: KeyName,
    /// What it is for.
    pub purpose: Purpose,
    /// The key-encryption key that it is wrapped under.
    pub kek: KekId,
    /// As the provider gave it.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub made_at: Timestamp,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({:?} under {})", self.purpose, self.kek)
    }
}

/// What the store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The key-encryption key that new keys are wrapped under, and since when; `None`: none was named yet.
    pub kek: Option<(KekId, Timestamp)>,
    /// When the first user was erased since then. Copies of the store from before hold that one's key, wrapped under an older key-encryption key or under this.
    pub erased_at: Option<Timestamp>,
}

/// What became of a key that was to be added.
#[derive(Debug, PartialEq, Eq)]
pub enum AddedKey {
    /// It is there.
    Added,
    /// There is one for that purpose already: another was faster.
    Exists(WrappedKey),
    /// New keys are wrapped under this key-encryption key by now.
    Rotated(KekId),
}

/// A card to be added, or to be kept instead of what is under its token.
#[derive(Clone)]
pub struct NewCard {
    /// Under which request.
    pub request: RequestId,
    /// What the request was about: an HMAC, under a key that goes with the user's.
    pub body: [u8; MAC_BYTES],
    /// The token.
    pub token: TokenId,
    /// Whether the user has the number under this token already, and the card is to be there instead.
    pub replaces: bool,
    /// Whose.
    pub user: UserId,
    /// The user's data key.
    pub key: KeyName,
    /// Finds the number among the user's: an HMAC, under a key that goes with the user's.
    pub lookup: [u8; MAC_BYTES],
    /// The card, encrypted.
    pub sealed: Vec<u8>,
}

/// What became of a card that was to be added.
#[derive(Debug, PartialEq, Eq)]
pub enum AddedCard {
    /// It is there.
    Added,
    /// The request was made before, and this is what became of it. Nothing was done.
    Replayed(Outcome),
    /// The user has the number under another token than the card was encrypted for. Nothing was done.
    Has(TokenId),
    /// The user's data key, or the card that is to be replaced, is gone: user or card was erased meanwhile. Nothing was done.
    Gone,
    /// The user has as many cards as may be. Nothing was done.
    Full,
}

/// A card that is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredCard {
    /// Whose.
    pub user: UserId,
    /// The card, encrypted.
    pub sealed: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A card was taken in.
    Tokenized {
        /// Whose.
        user: UserId,
        /// Its token.
        token: TokenId,
        /// What the request was about; `None`: the user was erased afterwards.
        body: Option<[u8; MAC_BYTES]>,
    },
    /// A card was deleted.
    Deleted {
        /// Whose.
        user: UserId,
        /// Its token.
        token: TokenId,
    },
    /// A user was erased.
    Erased {
        /// Whom.
        user: UserId,
        /// How many tokens stood for cards of the user's.
        tokens: u32,
    },
    /// A rotation was begun.
    Rotating {
        /// The key-encryption key that everything is brought under.
        kek: KekId,
    },
}

/// What became of a card that was to be deleted.
#[derive(Debug, PartialEq, Eq)]
pub enum DeletedCard {
    /// It is gone.
    Deleted,
    /// The request was made before, and this is what became of it. Nothing was done.
    Replayed(Outcome),
    /// There is no such card.
    Missing,
}

/// What became of a user who was to be erased.
#[derive(Debug, PartialEq, Eq)]
pub enum ErasedUser {
    /// Key and cards are gone: so many of these.
    Erased(u32),
    /// The request was made before, and this is what became of it. Nothing was done.
    Replayed(Outcome),
}

/// What became of a rotation that was to begin.
#[derive(Debug, PartialEq, Eq)]
pub enum BegunRotation {
    /// New keys are wrapped under its key-encryption key from now on.
    Begun,
    /// The request was made before, and this is what became of it. Nothing was done.
    Replayed(Outcome),
}

/// Keeps what a vault has. Every method that changes something does all of it or nothing, durably, before it returns; also where its caller is gone
/// in the middle.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What the store says of itself.
    async fn state(&self) -> Result<State, Error>;

    /// Has new keys wrapped under this key-encryption key from now on: no key is added that is wrapped under another. Never goes back to a smaller one.
    async fn use_kek(&self, kek: KekId, at: Timestamp) -> Result<(), Error>;

    /// [`Self::use_kek`], and notes what becomes of the request that asked for it.
    async fn begin_rotation(&self, request: RequestId, kek: KekId, at: Timestamp) -> Result<BegunRotation, Error>;

    /// A user's data key.
    async fn user_key(&self, user: UserId) -> Result<Option<WrappedKey>, Error>;

    /// The keys that are no user's.
    async fn zone_keys(&self) -> Result<Vec<WrappedKey>, Error>;

    /// Adds a key, where there is none for its purpose. There may be several for sealing.
    async fn add_key(&self, key: &WrappedKey) -> Result<AddedKey, Error>;

    /// Removes a key that is no user's.
    async fn remove_key(&self, name: &KeyName) -> Result<(), Error>;

    /// Keys that are wrapped under another key-encryption key than this: at most so many, and none only if there is none.
    async fn not_under(&self, kek: KekId, limit: u32) -> Result<Vec<WrappedKey>, Error>;

    /// How many keys are wrapped under another key-encryption key than this.
    async fn count_not_under(&self, kek: KekId) -> Result<u64, Error>;

    /// Keeps these keys as they are wrapped now, where they are still wrapped under the key-encryption key that stands beside them. Those that are gone stay gone.
    async fn rewrap(&self, keys: &[(WrappedKey, KekId)]) -> Result<(), Error>;

    /// What became of a request.
    async fn outcome(&self, request: RequestId) -> Result<Option<Outcome>, Error>;

    /// What became of a request, and a user's data key: [`Self::outcome`] and [`Self::user_key`] in one, as of one instant.
    async fn known(&self, request: RequestId, user: UserId) -> Result<(Option<Outcome>, Option<WrappedKey>), Error>;

    /// Adds a card, and what becomes of its request.
    async fn add_card(&self, card: &NewCard) -> Result<AddedCard, Error>;

    /// A card.
    async fn card(&self, token: &TokenId) -> Result<Option<StoredCard>, Error>;

    /// Deletes a card, and notes what becomes of its request.
    async fn delete_card(&self, request: RequestId, token: &TokenId) -> Result<DeletedCard, Error>;

    /// Deletes a user's data key and all that was encrypted under it, and notes what becomes of the request. What was in their places is overwritten.
    async fn erase(&self, request: RequestId, user: UserId, at: Timestamp) -> Result<ErasedUser, Error>;
}

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is of another mesh or zone. Final.
    #[error("{place} belongs to {found}, not to {wanted}")]
    Identity {
        /// Which file.
        place: String,
        /// What it says it is.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// What is stored is not what was written. Final: an operator must look.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// Which file.
        place: String,
        /// What was found; nothing of what is in it.
        what: String,
    },
    /// The engine failed. May pass.
    #[error("{place}: {source}")]
    Engine {
        /// Which file.
        place: String,
        /// What the engine says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
