//! Cards that are sealed where they are typed in, so that no node between here and the vault of their user's zone sees them.

use paymesh_cards::{Card, card_bytes, sealing_context, sealing_info};
use paymesh_contract::vault::v1::{GetVaultKeyResponse, SealedCard};
use paymesh_types::{Invalid, UserId, ZoneName};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256,
    hpke::{Hpke as _, HpkePublicKey},
};

/// Why a card was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The answer names no zone, or the user has no id that one can have.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The answer has no key that can be sealed to.
    #[error("the vault's key is no point of P-256")]
    Key,
}

/// Seals a user's card to the key that `VaultService.GetVaultKey` has answered for that user. It opens for that user only, and for no other vault.
///
/// The key is as good as who it came from: over TLS it comes from the node that was asked. Who knows from elsewhere which key the zone has compares
/// `key_id`, which is made of the key.
///
/// # Errors
/// The answer is none that a vault gives.
pub fn seal(card: &Card, user_id: u64, key: &GetVaultKeyResponse) -> Result<SealedCard, SealError> {
    let (zone, user): (ZoneName, UserId) = (key.zone.parse()?, user_id.try_into()?);
    let public = HpkePublicKey(key.public_key.clone());
    let sealed = DH_KEM_P256_HKDF_SHA256_AES_256.seal(sealing_info(), &sealing_context(&zone, user), &card_bytes(card), &public);
    let (encapsulated, ciphertext) = sealed.map_err(|_| SealError::Key)?;
    Ok(SealedCard { key_id: key.key_id.clone(), encapsulated_key: encapsulated.0, ciphertext })
}
