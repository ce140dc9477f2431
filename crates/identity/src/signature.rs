//! What a node says to people who are not at the other end of its connections: bytes under its certificate's key, which pass through any hands.

use std::time::SystemTime;

use rustls::{RootCertStore, SignatureScheme, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;

use crate::{
    NodeName,
    certificate::{CHAIN_MAX, Statement},
    identity,
};

/// How nodes sign, the best first: what TLS 1.3 allows in its CertificateVerify (RFC 8446, section 4.2.3), so that every key of a node's can.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// A signature, with the certificates that say whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// How it was made, by the number that TLS has for it (IANA, "TLS SignatureScheme").
    pub scheme: u16,
    /// The signature.
    pub signature: Vec<u8>,
    /// As DER: the signer's own, then those between it and an authority.
    pub certificates: Vec<Vec<u8>>,
}

/// Why something is not taken for what a node has signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// There are no certificates, or too many, or none that reads.
    #[error("there is no chain of 1 to {CHAIN_MAX} certificates: {0}")]
    Chain(String),
    /// Nobody who is believed vouches for the signer now.
    #[error("no authority that is believed vouches for who signed it: {0}")]
    Unbelieved(String),
    /// Whoever signed it may be believed in other things.
    #[error("it was signed by {0}, which is no node")]
    NotANode(String),
    /// Other bytes were signed, or for another purpose, or with another key.
    #[error("the signature is not that of these bytes")]
    Forged,
}

/// What is signed for `content`, as TLS 1.3 does it (RFC 8446, section 4.4.3): 64 spaces, the purpose, a zero byte, the content. As handshakes have purposes of their own
/// there, nothing that is signed here passes for a part of one.
fn message(purpose: &str, content: &[u8]) -> Vec<u8> {
    [&[b' '; 64][..], purpose.as_bytes(), &[0], content].concat()
}

/// Why a key does not sign.
#[derive(Debug, thiserror::Error)]
#[error("the certificate's key does not sign: {0}")]
pub struct CannotSign(String);

/// Signs with a certificate's key.
pub(crate) fn sign(key: &CertifiedKey, purpose: &str, content: &[u8]) -> Result<Signed, CannotSign> {
    let signer = key.key.choose_scheme(&SCHEMES).ok_or_else(|| CannotSign("it has no scheme of TLS 1.3".to_owned()))?;
    let signature = signer.sign(&message(purpose, content)).map_err(|error| CannotSign(error.to_string()))?;
    let certificates = key.cert.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Signed { scheme: signer.scheme().into(), signature, certificates })
}

/// The node that has signed this content for this purpose.
pub(crate) fn signer(
    signed: &Signed,
    purpose: &str,
    content: &[u8],
    authorities: &RootCertStore,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<NodeName, NotSigned> {
    let chain: Vec<_> = signed.certificates.iter().take(CHAIN_MAX + 1).map(|bytes| CertificateDer::from(&bytes[..])).collect();
    let Some((own, intermediates)) = chain.split_first().filter(|_| chain.len() <= CHAIN_MAX) else {
        return Err(NotSigned::Chain(format!("there are {}", signed.certificates.len())));
    };
    let vouched_for = identity::verify_server(own, intermediates, authorities, provider, identity::unix(now));
    vouched_for.map_err(|error| NotSigned::Unbelieved(error.to_string()))?;
    let name = Statement::of(own).map_err(NotSigned::Chain)?.node().ok_or_else(|| NotSigned::NotANode("somebody".to_owned()))?;
    if !name.is_node() {
        return Err(NotSigned::NotANode(name.to_string()));
    }
    let scheme = SCHEMES.into_iter().find(|scheme| u16::from(*scheme) == signed.scheme).ok_or(NotSigned::Forged)?;
    let verifiers = provider.signature_verification_algorithms.mapping.iter().find(|(mapped, _)| *mapped == scheme);
    // As in TLS 1.3: of an elliptic curve's, the first is that of the scheme's own curve.
    let verifier = verifiers.and_then(|(_, verifiers)| verifiers.first()).ok_or(NotSigned::Forged)?;
    let key = webpki::EndEntityCert::try_from(own).map_err(|error| NotSigned::Chain(error.to_string()))?;
    key.verify_signature(*verifier, &message(purpose, content), &signed.signature).map_err(|_| NotSigned::Forged)?;
    Ok(name)
}
