//! What a call shows of its caller: a token in its headers, a certificate in its connection's handshake, or, where another node passes it
//! on, one of these in its headers.
//!
//! A token is looked at by every node that it comes to, as if it had come from the caller. A certificate that is passed on is looked at
//! too: that an authority vouches for it, that it holds now, and whose it is. That its owner showed it is the word of the node that
//! shook hands with it, which is taken from nodes alone, over a connection that shows that it is one.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header::AUTHORIZATION};
use paymesh_access::{Caller, Callers, Refusal, Shown, TOKEN_BYTES_MAX};
use paymesh_identity::Identity;
use rustls_pki_types::CertificateDer;
use tonic::body::Body;

use crate::{call::Call, incoming::OtherEnd};

/// The certificate of a caller and those between it and an authority, in base64 with commas between. Set by nodes only.
pub const CALLER_CERTIFICATE_HEADER: &str = "paymesh-caller-certificate";

/// What stands before a token (RFC 6750, section 2.1). Case does not matter.
const SCHEME: &str = "bearer ";

/// Who sends a request now, by what it shows. `call` says whether a node passed it on, which is known to be one.
pub(crate) fn caller(
    request: &Request<Body>,
    call: &Call,
    identity: &Identity,
    callers: &Callers,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    let headers = request.headers();
    if let Some(token) = token(headers)? {
        return callers.by_token(token, now).map(Caller::Known);
    }
    if let Some(node) = call.node() {
        return match headers.get(CALLER_CERTIFICATE_HEADER) {
            None => Ok(Caller::Node(node.clone())),
            Some(chain) => {
                let chain = chain_of(chain).ok_or(Refusal::Ambiguous)?;
                let shown = identity.caller_of(&chain, now).ok_or(Refusal::PrincipalUnknown)?;
                callers.by_certificate(&shown, now).map(Caller::Known)
            }
        };
    }
    if let Some(edge) = call.edge() {
        return Ok(Caller::Edge(edge.clone()));
    }
    let connected = request.extensions().get::<OtherEnd>().and_then(|OtherEnd(connected)| connected.as_ref());
    match connected.and_then(|connected| connected.caller(now)) {
        Some(_) if identity.name().is_edge() => Err(Refusal::TokensOnly { region: identity.name().region().to_string() }),
        Some(shown) => callers.by_certificate(shown, now).map(Caller::Known),
        None => Err(Refusal::NoCredential),
    }
}

/// The token that a call shows. None: it shows none.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::Ambiguous)?;
    let is_bearer = text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
    let one = is_bearer && all.next().is_none() && text.len() <= SCHEME.len() + TOKEN_BYTES_MAX;
    if one { Ok(Some(text[SCHEME.len()..].trim())) } else { Err(Refusal::Ambiguous) }
}

fn chain_of(value: &HeaderValue) -> Option<Vec<CertificateDer<'static>>> {
    let parts = value.to_str().ok()?.split(',');
    parts.map(|part| STANDARD.decode(part).ok().map(CertificateDer::from)).collect()
}

/// Has a call that is passed on show what its caller has shown here.
pub(crate) fn write(caller: &Caller, headers: &mut HeaderMap) {
    let Caller::Known(grant) = caller else { return };
    let (name, text) = match &grant.shown {
        Shown::Token { token, .. } => (AUTHORIZATION, format!("Bearer {token}")),
        Shown::Certificate(shown) => {
            let chain: Vec<String> = shown.chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
            (HeaderName::from_static(CALLER_CERTIFICATE_HEADER), chain.join(","))
        }
    };
    let mut value = HeaderValue::from_str(&text).expect("a token came in a header, and base64 is ASCII");
    value.set_sensitive(true);
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_shows_one_token_or_none_and_nothing_that_could_be_taken_for_two() {
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX));
        for (shown, wanted) in [
            (&[][..], Ok(None)),
            (&["Bearer a.b.c"], Ok(Some("a.b.c"))),
            (&["bEARER  a.b.c"], Ok(Some("a.b.c"))),
            (&[&long], Ok(Some(&long["Bearer ".len()..]))),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err(Refusal::Ambiguous)),
            (&["Bearer a.b.c", "Basic abc"], Err(Refusal::Ambiguous)),
            (&["Basic abc"], Err(Refusal::Ambiguous)),
            (&["Bearer"], Err(Refusal::Ambiguous)),
            (&[""], Err(Refusal::Ambiguous)),
            (&[&format!("{long}x")], Err(Refusal::Ambiguous)),
        ] {
            let mut headers = HeaderMap::new();
            for value in shown {
                headers.append(AUTHORIZATION, value.parse().expect("a header"));
            }
            assert_eq!(token(&headers), wanted, "{shown:?}");
        }
    }
}
