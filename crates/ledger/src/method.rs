//! Payment methods: the cards that a user keeps with the mesh, by their vault tokens. What a card looks like is the vault's to say.

use paymesh_types::{Sequence, Timestamp, VaultToken};

/// Payment methods of a user at most: as many as the vault keeps cards of one.
pub const PAYMENT_METHODS_MAX: usize = 64;

/// A card that a user keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PaymentMethod {
    /// The entry that added it: tells it from one of the same card that was removed before.
    pub added: Sequence,
    /// When that was.
    pub added_at: Timestamp,
    /// Stands for the card. No other method of the user has it.
    pub token: VaultToken,
}
