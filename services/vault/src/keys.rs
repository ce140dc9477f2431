//! Key-encryption keys: the port behind which they are, and what goes through it.
//!
//! The vault's own keys are stored wrapped under a key-encryption key that never leaves its provider: a directory ([`FileKeys`]), or a PKCS#11 token (`TokenKeys`, of the feature `pkcs11`). What
//! a provider must do is in [`KeyProvider`] and, as a suite that runs against any of them, in `conformance`.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod file;
#[cfg(feature = "pkcs11")]
mod pkcs11;

use std::{fmt, num::NonZeroU32, path::PathBuf};

use async_trait::async_trait;
use zeroize::Zeroize as _;

pub use file::FileKeys;
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Token, TokenKeys};

/// Bytes of a key.
pub const SECRET_BYTES: usize = 32;

/// 32 bytes that are a key. One place in memory, however often it is moved; zeroed when it is dropped; not printed.
pub struct Secret(Box<[u8; SECRET_BYTES]>);

impl Secret {
    /// All zeros, to be filled.
    pub(crate) fn zeros() -> Self {
        Self(Box::new([0; SECRET_BYTES]))
    }

    /// A copy of these bytes; `None` where there are not 32 of them.
    pub fn copied(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::zeros();
        if bytes.len() != SECRET_BYTES {
            return None;
        }
        secret.0.copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes. Whatever they are copied to has to be zeroed.
    pub fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; SECRET_BYTES] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(key withheld)")
    }
}

/// Names a key-encryption key. The first is 1; a later one has a greater number, and none has the number of another, also of one that was destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KekId(NonZeroU32);

impl KekId {
    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Of that number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }
}

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Keeps key-encryption keys, and wraps and unwraps other keys under them. They are one vault's: it destroys those that it needs no more.
///
/// Wrapping is authenticated encryption: what is unwrapped is what was wrapped, under the same context, or an error. Fewer than 2^32 keys are wrapped
/// under one key-encryption key (NIST SP 800-38D, 8.3: nonces are random).
#[async_trait]
pub trait KeyProvider: Send + Sync + fmt::Debug {
    /// The keys that there are, the smallest first. The last is the current one.
    ///
    /// # Errors
    /// The provider cannot be asked.
    async fn ids(&self) -> Result<Vec<KekId>, Error>;

    /// Makes a key, which is the current one when this returns, and survives a crash from then on.
    ///
    /// # Errors
    /// It cannot be made. There may be one all the same.
    async fn make(&self) -> Result<KekId, Error>;

    /// Wraps a key; `context` is what it is for, and has to be the same when it is unwrapped.
    ///
    /// # Errors
    /// [`Error::Missing`]; the provider cannot be asked.
    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, Error>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::NotWrapped`]; the provider cannot be asked.
    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, Error>;

    /// Destroys a key, and with it all that is wrapped under it, wherever copies of that are. One that is not there is destroyed.
    ///
    /// # Errors
    /// [`Error::Current`]: the last key is not destroyed, so that its number is not given out again; the provider cannot be asked.
    async fn destroy(&self, kek: KekId) -> Result<(), Error>;
}

/// Why a key provider did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such key. Final, if it was destroyed.
    #[error("there is no key-encryption key {kek}")]
    Missing {
        /// The key asked for.
        kek: KekId,
    },
    /// These bytes were not wrapped under that key with that context. Final.
    #[error("what is to be unwrapped was not wrapped under key-encryption key {kek} for that use")]
    NotWrapped {
        /// The key asked for.
        kek: KekId,
    },
    /// The current key is not destroyed. Final.
    #[error("key-encryption key {kek} is the current one: make the next before it is destroyed")]
    Current {
        /// The key.
        kek: KekId,
    },
    /// A place that cannot be used as it is. An operator must look.
    #[error("{}: {what}", place.display())]
    Unusable {
        /// The file or directory.
        place: PathBuf,
        /// What is wrong with it; nothing of what is in it.
        what: String,
    },
    /// The token cannot be had now. May pass.
    #[error("token {token}: {what}")]
    Unavailable {
        /// Its label.
        token: String,
        /// What happened.
        what: String,
    },
}
