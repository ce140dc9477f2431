//! Who a node is, and how others know.
//!
//! A node holds a certificate of its mesh's authority that says which region it serves ([`NodeName`]), and the key of it. [`Identity`]
//! has both as they are on disk now, accepts connections and makes them: TLS 1.3 and nothing older. Nodes show each other their
//! certificates; a node believes another to be of the region that its certificate names, and nothing that anyone says beside it.
//! Callers know a node by the same certificate, which names its hosts too, and may show one of their own ([`CallerName`]).
//!
//! [`Authority`] makes certificates for development: production has an authority of its own.
//!
//! Left to others: sockets, and what a known peer may do.

#![forbid(unsafe_code)]

mod authority;
mod belief;
mod certificate;
mod connector;
mod files;
mod identity;
mod name;
mod signature;
mod trust;
mod verifier;

use std::{io, path::PathBuf};

pub use authority::{Authority, Issued};
pub use belief::Dialed;
pub use connector::Connector;
pub use files::{AUTHORITIES_FILE, CERTIFICATE_FILE, KEY_FILE, make_directory, read_public, read_secret_text, write};
pub use identity::{Accepted, Accepting, Connected, Identity, ShownCaller};
pub use name::{CallerName, NodeName};
pub use signature::{CannotSign, NotSigned, Signed};
pub use trust::{Authorities, Trust};

/// Why credentials cannot be used. Each says which file it is about, and none says what a key is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key that people other than its owner and group can read is nobody's secret.
    #[error("{}: its mode is {mode:o}: a key must not be readable by everybody; chmod o= it, and make a new key if others may have read it", path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What a file holds cannot be used.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        what: String,
    },
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
}
