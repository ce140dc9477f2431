//! An issuer's public keys, out of a JWK Set (RFC 7517, section 5).

use std::collections::BTreeMap;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

/// Keys of a set at most.
const KEYS_MAX: usize = 64;

/// Bytes of an RSA key's modulus at least: 2048 bits (RFC 7518, section 3.3).
const RSA_MODULUS_BYTES_MIN: usize = 256;
/// And at most: a larger one costs more to check than a token is worth.
const RSA_MODULUS_BYTES_MAX: usize = 1_024;

/// Keys by which tokens are checked, by their ids. The one without an id has an empty one.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    keys: BTreeMap<String, Key>,
}

/// A public key, and the one algorithm that it is for.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// Keys are read one by one: a set may have those of other kinds too.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a set. Keys that are for something else, or of a kind that is not taken, are left out; at least one must remain. The error
    /// says what is wrong.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let set: Set = serde_json::from_slice(bytes).map_err(|error| {
            // Its own words may quote the file.
            format!("is no JWK Set (RFC 7517): line {}, column {}", error.line(), error.column())
        })?;
        if set.keys.is_empty() {
            return Err("has no key: no token of its issuer could be believed".to_owned());
        }
        if set.keys.len() > KEYS_MAX {
            return Err(format!("has {} keys, and {KEYS_MAX} are the most", set.keys.len()));
        }
        let mut keys = BTreeMap::new();
        for (index, value) in set.keys.into_iter().enumerate() {
            if value.get("k").is_some() || value.get("d").is_some() {
                return Err(format!("key {index} is a secret: a set that nodes read has public keys only; make new ones"));
            }
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            let Some(algorithm) = algorithm(&jwk).map_err(|what| format!("key {index} {what}"))? else { continue };
            let key = DecodingKey::from_jwk(&jwk).map_err(|_| format!("key {index} cannot be read"))?;
            let id = jwk.common.key_id.unwrap_or_default();
            if keys.insert(id, Key { algorithm, key }).is_some() {
                return Err(format!("key {index} has the id (`kid`) of another"));
            }
        }
        if keys.is_empty() {
            return Err("has no key for EdDSA (Ed25519), ES256 or RS256: no token of its issuer could be believed".to_owned());
        }
        Ok(Self { keys })
    }

    /// The key of this id; without an id, the only one that there is.
    pub(crate) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.keys.get(id),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.keys()).finish()
    }
}

/// The algorithm that a key is for. `None`: it is for something else.
fn algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, String> {
    let for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let found = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::RSA(rsa) => {
            // Four letters of base64url are three bytes.
            let bytes = rsa.n.len() * 3 / 4;
            if !(RSA_MODULUS_BYTES_MIN..=RSA_MODULUS_BYTES_MAX).contains(&bytes) {
                return Err(format!(
                    "is an RSA key of about {} bits: {} to {} are taken",
                    bytes * 8,
                    RSA_MODULUS_BYTES_MIN * 8,
                    RSA_MODULUS_BYTES_MAX * 8
                ));
            }
            Algorithm::RS256
        }
        _ => return Ok(None),
    };
    let said = jwk.common.key_algorithm;
    let fits = said.is_none_or(|said| said == found.into());
    Ok(Some(found).filter(|_| for_signatures && fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn set(keys: &[&str]) -> Result<Keys, String> {
        Keys::read(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    #[test]
    fn what_is_no_set_of_public_keys_is_refused_with_what_is_wrong() {
        let short_rsa = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, "A".repeat(171));
        for (keys, wanted) in [
            (&[][..], "has no key"),
            (&[r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#], "has no key for EdDSA"),
            (&[r#"{"kty":"oct","k":"AAAA","kid":"s"}"#], "is a secret"),
            (&[r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}"#], "is a secret"),
            (&[&short_rsa], "is an RSA key of about"),
            (&[ED25519, ED25519], "has the id"),
            (
                &[r#"{"kty":"OKP","crv":"Ed25519","kid":"a","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#],
                "has no key for",
            ),
            (
                &[r#"{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"ES256","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#],
                "has no key for",
            ),
        ] {
            let error = set(keys).expect_err(wanted);
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        for text in ["", "{}", "[]", r#"{"keys":3}"#] {
            assert!(Keys::read(text.as_bytes()).expect_err(text).contains("is no JWK Set"), "{text}");
        }
    }

    #[test]
    fn keys_are_found_by_their_ids_and_one_alone_without() {
        let other = ED25519.replace("\"a\"", "\"b\"");
        let ignored = r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA","kid":"c"}"#;
        let one = set(&[ED25519, ignored]).expect("a set");
        assert!(one.find(None).is_some() && one.find(Some("a")).is_some() && one.find(Some("c")).is_none());
        let two = set(&[ED25519, &other]).expect("a set");
        assert!(two.find(None).is_none() && two.find(Some("b")).is_some());
    }
}
