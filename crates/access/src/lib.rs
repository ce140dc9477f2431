//! Who a caller is, and what it may do.
//!
//! A call shows a token of one of the issuers that `access.yaml` names, or comes from a caller's certificate. [`Callers`] says which
//! principal that is, and under which [`Grant`]: scopes, zones, users, until when. A [`Caller`] is what a call carries from then on, and the
//! only place where a right is looked up. What is not granted is refused, and every refusal has a reason of its own.
//!
//! Tokens are JWTs (RFC 7519) signed with EdDSA, ES256 or RS256 (RFC 8037, RFC 7518). The key decides the algorithm, never the token
//! (RFC 8725, section 3.1): there is no `none`, and no secret shared with an issuer. Time is an argument.
//!
//! Files and URLs are read again by [`Callers::watch`]. What does not fit is said, and what was read before stays in use.
//!
//! Left to others: who is at the other end of a connection (`paymesh-identity`), which scope a method needs (`paymesh-contract`), which
//! user and zone a call is about (`paymesh-mesh`), and the books.

#![forbid(unsafe_code)]

mod caller;
mod callers;
mod fetch;
mod issue;
mod keys;
mod limits;
mod recent;
mod refusal;
mod token;

use std::path::PathBuf;

pub use caller::{Caller, Grant, Shown};
pub use callers::{Callers, Settings, Watched};
pub use issue::{ISSUER_DIRECTORY, ISSUER_KEYS_FILE, Issued, TokenIssuer, Wanted};
pub use limits::InProgress;
pub use refusal::Refusal;

/// Bytes of a token at most.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Users of a claim at most.
pub const CLAIM_USERS_MAX: usize = 256;

/// Why callers cannot be known by these files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// access.yaml has mistakes.
    #[error(transparent)]
    Access(#[from] paymesh_topology::Errors),
    /// A file cannot be used.
    #[error("{}: {what}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        what: String,
    },
    /// A place where keys are did not give any.
    #[error("{url}: {what}")]
    Fetch {
        /// The place.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Files(#[from] paymesh_identity::Error),
    /// A token cannot be made.
    #[error("a token cannot be made: {0}")]
    Issue(String),
}
