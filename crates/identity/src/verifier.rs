//! Whether the server at the other end is the node that was meant to be called.

use std::sync::Arc;

use paymesh_types::RegionName;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Statement;

/// Takes a server for a region's node if an authority of the mesh says so. Which host it is at says nothing: nodes move.
#[derive(Debug)]
pub(crate) struct RegionVerifier {
    pub(crate) mesh: String,
    pub(crate) region: RegionName,
    pub(crate) authorities: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// The certificate is good, and another's.
#[derive(thiserror::Error)]
#[error("the certificate there is {found}, not of a node of region {wanted}")]
struct AnotherNode {
    found: String,
    wanted: RegionName,
}

impl std::fmt::Debug for AnotherNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What people get to see of it: rustls prints its causes so.
        write!(f, "{self}")
    }
}

impl ServerCertVerifier for RegionVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.authorities, intermediates, now, algorithms)?;
        let said = Statement::of(end_entity).map_err(|_| CertificateError::BadEncoding)?.node();
        match said {
            Some(node) if node.is_node() && node.mesh() == self.mesh && *node.region() == self.region => {
                Ok(ServerCertVerified::assertion())
            }
            other => {
                let found = other.map_or_else(|| "no node's".to_owned(), |node| format!("that of {node}"));
                let error = AnotherNode { found, wanted: self.region.clone() };
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
