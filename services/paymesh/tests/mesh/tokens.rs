//! Tokens of a test's mesh: good ones, and all that a forger might try.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tonic::metadata::{Ascii, MetadataValue};

use crate::support::TestMesh;

/// The issuer that `paymesh certs` made for a mesh, in the hands of the test.
pub(crate) struct Issuer {
    key: EncodingKey,
    /// The public key, as nodes read it.
    public: Value,
}

impl Issuer {
    pub(crate) fn of(mesh: &TestMesh) -> Self {
        let directory = mesh.credentials().unwrap().join("issuer");
        let der = PrivatePkcs8KeyDer::from_pem_file(directory.join("token.key")).unwrap();
        let set: Value = serde_json::from_slice(&std::fs::read(directory.join("jwks.json")).unwrap()).unwrap();
        Self { key: EncodingKey::from_ed_der(der.secret_pkcs8_der()), public: set["keys"][0].clone() }
    }

    fn header(&self, algorithm: Algorithm) -> Header {
        let mut header = Header::new(algorithm);
        header.kid = Some(self.public["kid"].as_str().unwrap().to_owned());
        header
    }

    /// A token of these claims, and of those that every good one has where they are not among them.
    pub(crate) fn token(&self, claims: Value) -> String {
        encode(&self.header(Algorithm::EdDSA), &whole(claims), &self.key).unwrap()
    }

    /// The same claims, signed by somebody else under the issuer's name.
    pub(crate) fn wrongly_signed(&self, claims: Value) -> String {
        let other = another_key();
        encode(&self.header(Algorithm::EdDSA), &whole(claims), &EncodingKey::from_ed_der(&other)).unwrap()
    }

    /// Signed with what everybody knows: the public key as a secret.
    pub(crate) fn confused(&self, claims: Value) -> String {
        let public = URL_SAFE_NO_PAD.decode(self.public["x"].as_str().unwrap()).unwrap();
        encode(&self.header(Algorithm::HS256), &whole(claims), &EncodingKey::from_secret(&public)).unwrap()
    }
}

/// Not signed at all.
pub(crate) fn unsigned(claims: Value) -> String {
    let parts = [json!({"alg": "none", "typ": "JWT"}), whole(claims)].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{}.{}.", parts[0], parts[1])
}

/// As a call shows it.
pub(crate) fn bearer(token: &str) -> MetadataValue<Ascii> {
    format!("Bearer {token}").parse().unwrap()
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn whole(claims: Value) -> Value {
    let mut all = json!({"iss": "test-issuer", "aud": "test", "iat": now() - 5, "exp": now() + 600});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    all
}

fn another_key() -> Vec<u8> {
    // Another issuer of the same kind, made by the program itself.
    let directory = tempfile::tempdir().unwrap();
    paymesh_access::TokenIssuer::open_or_make(directory.path()).unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_file(directory.path().join("issuer/token.key")).unwrap();
    der.secret_pkcs8_der().to_vec()
}
