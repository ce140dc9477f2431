//! Cards that are sealed where they are typed in, so that no node between here and the vault of their user's zone sees them.

use std::time::{SystemTime, UNIX_EPOCH};

use paymesh_cards::{Card, SEALING_KEY_PURPOSE, card_bytes, sealing_context, sealing_info, sealing_key_statement};
use paymesh_contract::{
    instant, timestamp,
    vault::v1::{GetVaultKeyResponse, SealedCard},
};
use paymesh_identity::{NodeName, NotSigned, Signed, Trust};
use paymesh_types::{Invalid, RegionName, UserId, ZoneName};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256,
    hpke::{Hpke as _, HpkePublicKey},
};

/// Why a card was not sealed, or a key is not sealed to.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The answer names no zone, or the user has no id that one can have.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The answer has no key that can be sealed to.
    #[error("the vault's key is no point of P-256")]
    Key,
    /// The answer is not signed: the mesh is in plain text, or somebody between took the signature away.
    #[error("the vault's key is not signed, so that anybody between may have put another in its place")]
    Unsigned,
    /// What is signed is something else, or whoever signed it is not believed.
    #[error("the vault's key is not believed: {0}")]
    NotSigned(#[from] NotSigned),
    /// A node that has not the vault of that zone says that this is its vault's key.
    #[error("the vault's key is not believed: {signer} has signed it, which is not known to have the vault of zone {zone}")]
    AnotherNode {
        /// Who signed it.
        signer: NodeName,
        /// The zone that the answer names.
        zone: ZoneName,
    },
    /// The vault does not open what is sealed to it any more.
    #[error("the vault's key ended {0} s ago: ask for it again, or look at this machine's clock")]
    Ended(u64),
}

/// Which nodes are believed when they say which key a zone's cards are sealed to: those of the regions that have its vault.
#[derive(Debug, Clone)]
pub struct Vaults {
    trust: Trust,
    nodes: Vec<(ZoneName, NodeName)>,
}

impl Vaults {
    /// The vaults of a mesh, by the regions.yaml that its nodes have read: each zone with the region that has its vault. Deployed with a vault apart, that is a region of its own, such as
    /// `eu_west_vault` (`paymesh render kubernetes` says which). A zone may have several, while its vault moves. None: the mesh's name is none that a mesh can have.
    pub fn new(trust: Trust, mesh: &str, vaults: impl IntoIterator<Item = (ZoneName, RegionName)>) -> Option<Self> {
        let node = |(zone, region)| Some((zone, NodeName::new(mesh, &region, NodeName::NODE)?));
        let nodes = vaults.into_iter().map(node).collect::<Option<_>>()?;
        Some(Self { trust, nodes })
    }

    /// The key that `VaultService.GetVaultKey` has answered for this user, where the node that has the vault of the user's zone has signed it, which an authority vouches for now. Who passed
    /// the answer on need not be believed. Reads the authorities' file again.
    ///
    /// # Errors
    /// The answer is none that a vault gives, or is not signed by a vault's node for this user, or its key has ended.
    pub fn key(&self, user_id: u64, answer: &GetVaultKeyResponse, now: SystemTime) -> Result<VaultKey, SealError> {
        let key = VaultKey::unproven(user_id, answer)?;
        let signature = answer.signature.as_ref().ok_or(SealError::Unsigned)?;
        // As a vault shows it: another spelling of the same instant is not what was signed.
        let ends_at = answer
            .ends_at
            .as_ref()
            .and_then(|shown| instant(shown).filter(|at| timestamp(*at) == *shown))
            .ok_or(SealError::NotSigned(NotSigned::Forged))?;
        let signed = Signed {
            // One that is no number of TLS's is none of those that are taken.
            scheme: u16::try_from(signature.scheme).unwrap_or_default(),
            signature: signature.signature.clone(),
            certificates: signature.certificates.clone(),
        };
        let statement = sealing_key_statement(key.user, &key.zone, ends_at, &key.public.0);
        let signer = self.trust.signer(&signed, SEALING_KEY_PURPOSE, &statement, now)?;
        if !self.nodes.iter().any(|(zone, node)| *zone == key.zone && *node == signer) {
            return Err(SealError::AnotherNode { signer, zone: key.zone });
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        match now.checked_sub(ends_at.0.into()) {
            Some(ago) => Err(SealError::Ended(u64::try_from(ago / 1_000_000).unwrap_or(u64::MAX))),
            None => Ok(key),
        }
    }
}

/// A vault's key, which a user's cards are sealed to.
#[derive(Debug, Clone)]
pub struct VaultKey {
    user: UserId,
    id: String,
    public: HpkePublicKey,
    zone: ZoneName,
}

impl VaultKey {
    /// The key of an answer for this user, whoever it comes from: whoever is between here and the vault may have put one of its own in its place, and reads what is sealed to it. For a mesh in plain
    /// text, and for who knows from elsewhere which key the zone has and compares the answer's `public_key`.
    ///
    /// # Errors
    /// The answer is none that a vault gives.
    pub fn unproven(user_id: u64, answer: &GetVaultKeyResponse) -> Result<Self, SealError> {
        Ok(Self {
            user: user_id.try_into()?,
            id: answer.key_id.clone(),
            public: HpkePublicKey(answer.public_key.clone()),
            zone: answer.zone.parse()?,
        })
    }

    /// The zone whose vault opens what is sealed to it.
    pub fn zone(&self) -> &ZoneName {
        &self.zone
    }
}

/// Seals a card of the key's user to a vault's key. It opens for that user only, and for no other vault.
///
/// # Errors
/// The key is none.
pub fn seal(card: &Card, key: &VaultKey) -> Result<SealedCard, SealError> {
    let sealed =
        DH_KEM_P256_HKDF_SHA256_AES_256.seal(sealing_info(), &sealing_context(&key.zone, key.user), &card_bytes(card), &key.public);
    let (encapsulated, ciphertext) = sealed.map_err(|_| SealError::Key)?;
    Ok(SealedCard { key_id: key.id.clone(), encapsulated_key: encapsulated.0, ciphertext })
}
