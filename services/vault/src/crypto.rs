//! What the vault does with keys, through aws-lc-rs: one place, so that one page shows which algorithm is used with which nonce.
//!
//! AES-256-GCM with random nonces of 96 bits, HKDF-SHA256, HMAC-SHA256.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest, hkdf, hmac, rand,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::keys::{SECRET_BYTES, Secret};

/// Separates what is derived here from what others derive of the same key.
const SALT: &[u8] = b"paymesh/vault/1";

/// Bytes of the stack that are overwritten after a card was worked with: what the work below takes, debug builds included.
const STACK_BYTES: usize = 32 << 10;

/// Bytes of an HMAC.
pub(crate) const MAC_BYTES: usize = 32;

/// Random bytes of the system's.
///
/// # Panics
/// Where the system has none: nothing may go on with bytes that can be guessed.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// Does what has a card's number in the clear, and leaves none of it on the stack: buffers of a hash or a cipher are there when it returns, until
/// the thread calls something else as deep. Not across an await, which may go on with another thread.
pub(crate) fn in_the_clear<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn below<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        // In words: each is written for itself, so that the compiler leaves none out, and bytes take eight times as long, which shows in the rate of cards.
        let mut stack = [u64::MAX; STACK_BYTES / size_of::<u64>()];
        stack.zeroize();
        std::hint::black_box(&mut stack);
    }
    let done = below(work);
    wipe();
    done
}

/// A new key.
///
/// # Panics
/// As [`random`].
pub(crate) fn random_secret() -> Secret {
    let mut secret = Secret::zeros();
    rand::fill(secret.expose_mut()).expect("the system has random bytes");
    secret
}

fn aead(key: &Secret) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key.expose()).expect("the key has the length that AES-256 takes")
}

/// Encrypts, and authenticates together with `context`. The nonce stands before the ciphertext.
pub(crate) fn encrypt(key: &Secret, context: &[u8], plain: &[u8]) -> Vec<u8> {
    // Encrypted in its place, which has room for the tag: no copy of the plain text is left behind.
    let mut in_out = Zeroizing::new(Vec::with_capacity(plain.len() + AES_256_GCM.tag_len()));
    in_out.extend_from_slice(plain);
    let nonce = aead(key).seal_in_place_append_tag(Aad::from(context), &mut *in_out).expect("plain texts are short");
    [&nonce.as_ref()[..], &in_out].concat()
}

/// Decrypts what [`encrypt`] made of the same key and context. `None`: it did not.
pub(crate) fn decrypt(key: &Secret, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut in_out = Zeroizing::new(ciphertext.to_vec());
    let plain = aead(key).open_in_place(Nonce::from(nonce), Aad::from(context), &mut in_out).ok()?;
    let length = plain.len();
    in_out.truncate(length);
    Some(in_out)
}

/// A key for one use, of a key that has several.
pub(crate) fn derive(key: &Secret, used_for: &[u8]) -> Secret {
    struct Length;

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            SECRET_BYTES
        }
    }

    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(key.expose());
    let mut derived = Secret::zeros();
    let parts = [used_for];
    let output = pseudorandom.expand(&parts, Length).expect("32 bytes are not too many");
    output.fill(derived.expose_mut()).expect("as many bytes as were asked for");
    derived
}

/// HMAC-SHA256.
pub(crate) fn mac(key: &Secret, data: &[u8]) -> [u8; MAC_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), data);
    tag.as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
}

/// The first bytes of a SHA-256.
pub(crate) fn hash<const N: usize>(data: &[u8]) -> [u8; N] {
    digest::digest(&digest::SHA256, data).as_ref()[..N].try_into().expect("at most as many as a SHA-256 has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_is_decrypted_with_the_same_key_and_context_only() {
        let (key, other) = (random_secret(), random_secret());
        let sealed = encrypt(&key, b"context", b"plain");
        assert_eq!(decrypt(&key, b"context", &sealed).expect("the same").as_slice(), b"plain");
        assert!(decrypt(&other, b"context", &sealed).is_none());
        assert!(decrypt(&key, b"another", &sealed).is_none());
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(decrypt(&key, b"context", &changed).is_none(), "byte {place}");
            assert!(decrypt(&key, b"context", &sealed[..place]).is_none(), "{place} bytes");
        }
        assert_ne!(sealed, encrypt(&key, b"context", b"plain"), "nonces are random");
    }

    #[test]
    fn derived_keys_differ_by_use() {
        let key = random_secret();
        assert_eq!(derive(&key, b"one").expose(), derive(&key, b"one").expose());
        assert_ne!(derive(&key, b"one").expose(), derive(&key, b"other").expose());
        assert_ne!(derive(&key, b"one").expose(), derive(&random_secret(), b"one").expose());
    }

    /// Test case 1. To HMAC, its key of 20 bytes is the same as one with zeros after it (RFC 2104, section 2).
    #[test]
    fn an_hmac_is_that_of_rfc_4231() {
        let mut key = Secret::zeros();
        key.expose_mut()[..20].copy_from_slice(&[0x0b; 20]);
        let wanted = [
            0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88, 0x1d, 0xc2, 0x00, 0xc9,
            0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7,
        ];
        assert_eq!(mac(&key, b"Hi There"), wanted);
    }
}
