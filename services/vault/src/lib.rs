//! The vault of a zone: card numbers go in, tokens come out, and no number comes back. It leaves for the acquirers of the vault's own configuration alone
//! (`charging`, ADR 0018).
//!
//! A request becomes domain types once, at the `door`; the [`Vault`] decides, over two ports: a [`Store`](store::Store) that keeps what is encrypted, and a
//! [`KeyProvider`](keys::KeyProvider) with the keys that the vault's own keys are wrapped under. What goes wrong becomes the contract's words in one
//! place (`error`). Why keys, files and backups are as they are: ADR 0017.
//!
//! Left to others: routing, deadlines, who may call, and the record of each call (`paymesh-mesh`). Nothing here trusts the routing: a user or a token of
//! another zone is refused.

#![forbid(unsafe_code)]

mod charging;
mod crypto;
mod door;
mod error;
mod homes;
mod hpke;
pub mod keys;
mod rotation;
mod sealing;
mod service;
pub mod store;
mod vault;

pub use charging::Acquirers;
pub use error::Error;
pub use rotation::{REWRAPPED_AT_ONCE_MAX, Rotated, RotationPlan, Standing};
pub use sealing::{SealedCard, SealingKey};
pub use service::service;
pub use vault::{Clock, Description, FINGERPRINT_BYTES, Offered, Vault};
