//! What a certificate says, of what is asked here: its names and how long it holds. That it may say so is for the verifier.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode as _, Encode as _, oid::ObjectIdentifier},
    ext::pkix::{BasicConstraints, SubjectAltName, name::GeneralName},
};

use crate::{CallerName, NodeName};

/// The attribute of a name that says what it is called (X.520).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Certificates of a chain at most: somebody's own, and some between it and an authority.
pub(crate) const CHAIN_MAX: usize = 4;

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Every URI among its names.
    uris: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) is_authority: bool,
    /// The public key, with its algorithm, as DER.
    pub(crate) public_key: Vec<u8>,
    /// What its subject is called, where it is.
    pub(crate) common_name: Option<String>,
}

impl Statement {
    /// Reads it. The error says what cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate =
            Certificate::from_der(certificate).map_err(|error| format!("it does not read as an X.509 certificate: {error}"))?;
        let body = &certificate.tbs_certificate;
        let cannot = |error| format!("one of its extensions does not read: {error}");
        let uris = match body.get::<SubjectAltName>().map_err(cannot)? {
            Some((_, names)) => names.0.iter().filter_map(uri).collect(),
            None => Vec::new(),
        };
        let is_authority = body.get::<BasicConstraints>().map_err(cannot)?.is_some_and(|(_, constraints)| constraints.ca);
        let at = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
        let public_key = body.subject_public_key_info.to_der().map_err(|error| format!("its key does not read: {error}"))?;
        let mut attributes = body.subject.0.iter().flat_map(|names| names.0.iter());
        let common_name = attributes.find(|attribute| attribute.oid == COMMON_NAME).and_then(|attribute| {
            let bytes = attribute.value.value();
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        });
        Ok(Self {
            uris,
            public_key,
            common_name,
            not_before: at(body.validity.not_before),
            not_after: at(body.validity.not_after),
            is_authority,
        })
    }

    /// The node that it names. One with two URIs, or another kind of URI, names none: SPIFFE allows a single one.
    pub(crate) fn node(&self) -> Option<NodeName> {
        let [uri] = &self.uris[..] else { return None };
        uri.parse().ok()
    }

    /// The caller that it names. As with nodes, one with two URIs names none.
    pub(crate) fn caller(&self) -> Option<CallerName> {
        let [uri] = &self.uris[..] else { return None };
        uri.parse().ok()
    }

    /// How long it holds from now; `None` when it is over.
    pub(crate) fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok().filter(|left| !left.is_zero())
    }
}

fn uri(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    }
}
