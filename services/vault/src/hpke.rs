//! Opens what was sealed with HPKE (RFC 9180): base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message for each encapsulated key.
//!
//! As rustls' HPKE, which clients seal with, and which this is tested against; but a key is decoded and checked once and not for each card, which takes as long as what
//! is done with it then.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey},
    hkdf, hmac,
};
use zeroize::Zeroizing;

use crate::keys::Secret;

/// `I2OSP(kem_id, 2)` after `KEM`, section 4.1.
const KEM: &[u8] = b"KEM\x00\x10";
/// The ids of KEM, KDF and AEAD after `HPKE`, section 5.1.
const SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";
const VERSION: &[u8] = b"HPKE-v1";
const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// The private half of a key that is sealed to. In memory for as long as it is there, zeroed by aws-lc when it is dropped.
#[derive(Debug)]
pub(crate) struct OpeningKey {
    private: PrivateKey,
    /// As `SerializePublicKey` of section 4 gives it.
    public: Vec<u8>,
    /// `key_schedule_context` of section 5.1, which is the same for all that is sealed for one purpose.
    context: Vec<u8>,
}

/// It is no private key of P-256, or what was sealed is not what was sealed to the key.
#[derive(Debug)]
pub(crate) struct Refused;

impl OpeningKey {
    /// `info` is what keys are sealed to it for.
    pub(crate) fn new(private: &Secret, info: &[u8]) -> Result<Self, Refused> {
        let private = PrivateKey::from_private_key(&ECDH_P256, private.expose()).map_err(|_| Refused)?;
        let public = private.compute_public_key().map_err(|_| Refused)?.as_ref().to_vec();
        const BASE_MODE: u8 = 0;
        let context = [&[BASE_MODE][..], &extracted(b"psk_id_hash", b""), &extracted(b"info_hash", info)].concat();
        Ok(Self { private, public, context })
    }

    /// `Open`, of the first message.
    pub(crate) fn open(&self, encapsulated: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let shared = self.decapsulated(encapsulated)?;
        let secret = prk(SUITE, &*shared, b"secret", b"");
        let (mut key, mut nonce) = (Zeroizing::new([0; KEY_BYTES]), [0; NONCE_LEN]);
        expand(&secret, SUITE, b"key", &self.context, &mut *key);
        expand(&secret, SUITE, b"base_nonce", &self.context, &mut nonce);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).expect("the key has the length that AES-256 takes"));
        let mut in_out = Zeroizing::new(sealed.to_vec());
        let length = key.open_in_place(Nonce::from(&nonce), Aad::from(aad), &mut in_out).map_err(|_| Refused)?.len();
        in_out.truncate(length);
        Ok(in_out)
    }

    /// `Decap` of section 4.1.
    fn decapsulated(&self, encapsulated: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, Refused> {
        let context = [encapsulated, &self.public].concat();
        agreement::agree(&self.private, UnparsedPublicKey::new(&ECDH_P256, encapsulated), Refused, |dh| {
            let mut shared = Zeroizing::new([0; KEY_BYTES]);
            expand(&prk(KEM, b"", b"eae_prk", dh), KEM, b"shared_secret", &context, &mut *shared);
            Ok(shared)
        })
    }
}

/// `LabeledExtract` of section 4, to be expanded.
fn prk(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> hkdf::Prk {
    let labeled = Zeroizing::new([VERSION, suite, label, input].concat());
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&labeled)
}

/// `LabeledExtract` without a salt, whose bytes are part of something else.
fn extracted(label: &[u8], input: &[u8]) -> [u8; HASH_BYTES] {
    let salt = hmac::Key::new(hmac::HMAC_SHA256, b"");
    let extracted = hmac::sign(&salt, &[VERSION, SUITE, label, input].concat());
    extracted.as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
}

/// `LabeledExpand` of section 4.
fn expand(secret: &hkdf::Prk, suite: &[u8], label: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    let length = u16::try_from(out.len()).expect("keys are short").to_be_bytes();
    let parts = [&length[..], VERSION, suite, label, info];
    let output = secret.expand(&parts, Length(out.len())).expect("keys are short");
    output.fill(out).expect("as many bytes as were asked for");
}

#[cfg(test)]
mod tests {
    use rustls::crypto::{
        aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256,
        hpke::{Hpke as _, HpkePublicKey},
    };

    use super::*;
    use crate::crypto;

    #[test]
    fn what_rustls_seals_opens_and_nothing_else() {
        let suite = DH_KEM_P256_HKDF_SHA256_AES_256;
        for plain in [&b"a card"[..], b"", &[0; 23]] {
            let (public, private) = suite.generate_key_pair().expect("a key");
            let key = OpeningKey::new(&Secret::copied(private.secret_bytes()).expect("32 bytes"), b"info").expect("a key");
            assert_eq!(key.public, public.0);
            let (encapsulated, sealed) = suite.seal(b"info", b"aad", plain, &HpkePublicKey(public.0.clone())).expect("sealed");
            assert_eq!(key.open(&encapsulated.0, b"aad", &sealed).expect("it opens").as_slice(), plain);
            let changed = |bytes: &[u8], at: usize| {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                changed
            };
            for at in 0..encapsulated.0.len() {
                key.open(&changed(&encapsulated.0, at), b"aad", &sealed).map(drop).expect_err("another point, or none");
            }
            for at in 0..sealed.len() {
                key.open(&encapsulated.0, b"aad", &changed(&sealed, at)).map(drop).expect_err("changed");
                key.open(&encapsulated.0, b"aad", &sealed[..at]).map(drop).expect_err("cut off");
            }
            key.open(&encapsulated.0, b"another", &sealed).map(drop).expect_err("for another use");
            let other_info = OpeningKey::new(&Secret::copied(private.secret_bytes()).expect("32 bytes"), b"another").expect("a key");
            other_info.open(&encapsulated.0, b"aad", &sealed).map(drop).expect_err("for another purpose");
        }
        OpeningKey::new(&Secret::zeros(), b"").map(drop).expect_err("0 is no private key");
        let other = OpeningKey::new(&crypto::random_secret(), b"info").expect("a key");
        other.open(&[4; 65], b"", &[0; 39]).map(drop).expect_err("no point of the curve");
    }
}
