//! An issuer of tokens for development: a key in a file, and its public half as the JWK Set that nodes read.
//!
//! In production an identity provider of one's own issues tokens, and access.yaml names its URL.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use paymesh_identity::{make_directory, read_secret_text, write};
use paymesh_topology::{Issuer, Principal, UserGrant};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Map, Value, json};

use crate::Error;

/// The directory of the development issuer, in that of the mesh's credentials.
pub const ISSUER_DIRECTORY: &str = "issuer";
/// Its public keys in it.
pub const ISSUER_KEYS_FILE: &str = "jwks.json";
/// Its own key in it, as PEM.
const ISSUER_KEY_FILE: &str = "token.key";

/// Issues tokens.
pub struct TokenIssuer {
    key: EncodingKey,
    id: String,
}

/// What a token is to say beside what its principal is known by.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// How long it holds.
    pub holds: Duration,
    /// The scopes, of the principal's; all where there are none.
    pub scopes: Vec<String>,
    /// The users, where the principal acts for those of the token.
    pub users: Vec<u64>,
}

/// A token.
#[derive(Clone)]
pub struct Issued {
    /// It.
    pub token: String,
    /// When it ends.
    pub expires: SystemTime,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl TokenIssuer {
    /// The issuer in the credentials' directory; made, when there is none.
    ///
    /// # Errors
    /// Its files cannot be read or written.
    pub fn open_or_make(credentials: &Path) -> Result<Self, Error> {
        let directory = credentials.join(ISSUER_DIRECTORY);
        if !directory.join(ISSUER_KEY_FILE).exists() {
            let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| Error::Issue(error.to_string()))?;
            make_directory(&directory)?;
            write(&directory, ISSUER_KEYS_FILE, &format!("{:#}\n", set(&pair)?), 0o644)?;
            write(&directory, ISSUER_KEY_FILE, &pair.serialize_pem(), 0o600)?;
        }
        Self::open(credentials)
    }

    /// The issuer in the credentials' directory.
    ///
    /// # Errors
    /// There is none, or its key cannot be used.
    pub fn open(credentials: &Path) -> Result<Self, Error> {
        let path = credentials.join(ISSUER_DIRECTORY).join(ISSUER_KEY_FILE);
        let pem = read_secret_text(&path)?;
        let pair = KeyPair::from_pem(&pem).map_err(|_| Error::Keys { path, what: "has no key of an issuer".to_owned() })?;
        Ok(Self { key: EncodingKey::from_ed_der(pair.serialized_der()), id: id(&pair) })
    }

    /// Issues a token by which its owner is this principal.
    ///
    /// # Errors
    /// The principal has no tokens of this issuer, or what is wanted is more than it may have.
    pub fn issue(&self, issuer: &Issuer, principal: &Principal, wanted: &Wanted, now: SystemTime) -> Result<Issued, Error> {
        let refuse = |what: String| Err(Error::Issue(what));
        let name = &principal.name;
        let Some(tokens) = principal.tokens.as_ref().filter(|tokens| tokens.issuer == issuer.name) else {
            return refuse(format!("{name} is not known by tokens of {}", issuer.name));
        };
        if wanted.holds > issuer.lifetime_max {
            return refuse(format!("a token of {} holds for {} s at most", issuer.name, issuer.lifetime_max.as_secs()));
        }
        if let Some(scope) = wanted.scopes.iter().find(|scope| !principal.scopes.contains(*scope)) {
            return refuse(format!("{name} does not have the scope {scope}"));
        }
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = now + wanted.holds;
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), json!(issuer.issuer));
        claims.insert("aud".to_owned(), json!(issuer.audience));
        claims.insert("iat".to_owned(), json!(seconds(now)));
        claims.insert("exp".to_owned(), json!(seconds(expires)));
        claims.insert("jti".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
        match (&principal.users, &wanted.users[..]) {
            (UserGrant::Any, []) => {}
            (UserGrant::Any, _) => return refuse(format!("{name} acts for all users of its zones, so its tokens name none")),
            (UserGrant::Own, [user]) => {
                claims.insert("sub".to_owned(), json!(user.to_string()));
            }
            (UserGrant::Own, _) => return refuse(format!("{name} acts for the user that its token names: name one with --user")),
            (UserGrant::Claim(_), []) => return refuse(format!("{name} acts for the users that its token names: name at least one")),
            (UserGrant::Claim(claim), users) => {
                claims.insert(claim.clone(), json!(users));
            }
        }
        if !wanted.scopes.is_empty() {
            claims.insert("scope".to_owned(), json!(wanted.scopes.join(" ")));
        }
        claims.extend(tokens.claims.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        let token = encode(&header, &claims, &self.key).map_err(|error| Error::Issue(error.to_string()))?;
        Ok(Issued { token, expires })
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenIssuer({})", self.id)
    }
}

/// A key's id: of what everybody may know of it.
fn id(pair: &KeyPair) -> String {
    blake3::hash(pair.public_key_raw()).to_hex()[..16].to_owned()
}

fn set(pair: &KeyPair) -> Result<Value, Error> {
    let cannot = |error: jsonwebtoken::errors::Error| Error::Issue(error.to_string());
    let mut key = Jwk::from_decoding_key(&DecodingKey::from_ed_der(pair.public_key_raw()), Some(Algorithm::EdDSA)).map_err(cannot)?;
    key.common.public_key_use = Some(PublicKeyUse::Signature);
    key.common.key_id = Some(id(pair));
    serde_json::to_value(JwkSet { keys: vec![key] }).map_err(|error| Error::Issue(error.to_string()))
}
