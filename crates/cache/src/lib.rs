//! The cache port: bytes under a key, each with its own end.
//!
//! What is in a cache can be gone at any time, and is somewhere else too: a cache makes an answer faster and is never what makes it right. So a cache that
//! cannot be had is a cache that has nothing, for everybody but its operators.
//!
//! [`InProcess`] keeps a bounded weight in this process. Another kind (a server that several nodes share) fits the same port: every call is asynchronous,
//! may fail, and what goes in and out is bytes. The suite in `conformance` holds every kind to the same promises.

#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod in_process;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use in_process::InProcess;

/// Why a cache did not do as asked. Nothing is lost by it.
#[derive(Debug, thiserror::Error)]
#[error("the cache at {place} cannot be had: {why}")]
pub struct Error {
    /// Where the cache is.
    pub place: String,
    /// What went wrong, in the words of whoever was asked.
    pub why: String,
}

/// A cache. Bounded, in memory and in time: it lets go of what it likes, and a call ends within a deadline of the cache's own.
#[async_trait]
pub trait Cache: Send + Sync + std::fmt::Debug {
    /// What is under a key. None: nothing was put there, its time is over, or the cache has let go of it.
    ///
    /// # Errors
    /// The cache cannot be had: go on as with none.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Puts a value under a key for so long, in the place of what was there. A value that is too heavy, or less wanted than others, may be gone at once.
    ///
    /// # Errors
    /// The cache cannot be had: what was there before is there, or is not.
    async fn insert(&self, key: &[u8], value: Bytes, time_to_live: Duration) -> Result<(), Error>;

    /// Removes what is under a key, if anything is.
    ///
    /// # Errors
    /// The cache cannot be had, and what was there may still be.
    async fn invalidate(&self, key: &[u8]) -> Result<(), Error>;
}
