//! A token, checked: that its issuer signed it, for this mesh, and that it holds now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Validation, dangerous::insecure_decode_claims, decode, decode_header};
use paymesh_topology::Issuer;
use serde_json::{Map, Value};

use crate::{Refusal, TOKEN_BYTES_MAX, keys::Keys};

/// What a token says, once it is believed.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) all: Map<String, Value>,
    /// When it begins, with what clocks may differ by.
    pub(crate) begins: SystemTime,
    /// When it ends, with what clocks may differ by.
    pub(crate) ends: SystemTime,
}

impl Claims {
    /// A claim's words: a text as it is, a whole number in digits.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(self.all.get(name)?)
    }

    /// A claim's words, each: of a list, of a text with blanks between as `scope` has it (RFC 8693, section 4.2), or the one that it is.
    pub(crate) fn words(&self, name: &str) -> Option<Vec<String>> {
        match self.all.get(name)? {
            Value::Array(items) => items.iter().map(text).collect(),
            Value::String(words) => Some(words.split_ascii_whitespace().map(str::to_owned).collect()),
            other => text(other).map(|one| vec![one]),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Which of the issuers a token says that it is of. Nothing of it is believed yet.
pub(crate) fn issuer_of<'a, T>(token: &str, issuers: &'a [T], issuer: impl Fn(&T) -> &Issuer) -> Result<&'a T, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TokenInvalid("is longer than tokens may be"));
    }
    let said: Map<String, Value> = insecure_decode_claims(token).map_err(|_| Refusal::TokenInvalid("is no JWT"))?;
    let said = said.get("iss").and_then(Value::as_str).ok_or(Refusal::TokenInvalid("has no `iss`"))?;
    issuers.iter().find(|known| issuer(known).issuer == said).ok_or(Refusal::IssuerUnknown)
}

/// Checks a token of this issuer at this time.
pub(crate) fn check(token: &str, issuer: &Issuer, keys: &Keys, now: SystemTime) -> Result<Claims, Refusal> {
    // An algorithm that is not known here, `none` among them, is no header that can be read.
    let header = decode_header(token).map_err(|_| Refusal::TokenInvalid("has a header or an algorithm that is not taken"))?;
    // What an issuer says must be understood is not (RFC 7515, section 4.1.11).
    if header.crit.is_some() {
        return Err(Refusal::TokenInvalid("has a `crit` header, and nothing critical is understood here"));
    }
    // Not told from a key of another algorithm: whoever forges tokens learns nothing of the keys.
    let key = keys.find(header.kid.as_deref()).filter(|key| key.algorithm == header.alg).ok_or(Refusal::KeyUnknown)?;
    let mut signature_alone = Validation::new(key.algorithm);
    signature_alone.required_spec_claims.clear();
    (signature_alone.validate_exp, signature_alone.validate_aud) = (false, false);
    let all = decode::<Map<String, Value>>(token, &key.key, &signature_alone)
        .map_err(|_| Refusal::TokenInvalid("is not signed by its issuer's key"))?
        .claims;
    if all.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) {
        return Err(Refusal::IssuerUnknown);
    }
    let meant_for_us = match all.get("aud") {
        Some(Value::String(one)) => *one == issuer.audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(&issuer.audience)),
        _ => false,
    };
    if !meant_for_us {
        return Err(Refusal::AudienceWrong);
    }
    let expires = instant(&all, "exp")?.ok_or(Refusal::TokenInvalid("has no `exp`"))?;
    let issued = instant(&all, "iat")?.ok_or(Refusal::LifetimeTooLong)?;
    let not_before = instant(&all, "nbf")?.unwrap_or(issued);
    let skew = issuer.clock_skew;
    let ends = expires.checked_add(skew).ok_or(Refusal::LifetimeTooLong)?;
    if now >= ends {
        return Err(Refusal::Expired);
    }
    let begins = not_before.max(issued).checked_sub(skew).unwrap_or(UNIX_EPOCH);
    if now < begins {
        return Err(Refusal::NotYetValid);
    }
    if expires.duration_since(issued).unwrap_or_default() > issuer.lifetime_max {
        return Err(Refusal::LifetimeTooLong);
    }
    Ok(Claims { all, begins, ends })
}

/// A time as JWTs have it: seconds since 1970, of which parts are dropped (RFC 7519, section 2, NumericDate).
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().or_else(|| value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64));
    let instant = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    instant.map(Some).ok_or(Refusal::TokenInvalid("has a time that is none"))
}
