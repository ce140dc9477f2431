//! A development authority, and what it issues.
//!
//! Its key lies in a file beside its certificate. That is fit for one machine's meshes and for tests; in production an authority of
//! one's own (cert-manager, Vault, SPIRE) writes the same three files.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, string::Ia5String,
};

use crate::{AUTHORITIES_FILE, CERTIFICATE_FILE, CallerName, Error, KEY_FILE, NodeName, certificate::Statement, files};

/// The authority's own key, beside its certificate.
const AUTHORITY_KEY_FILE: &str = "ca.key";
/// How long an authority holds.
const AUTHORITY_HOLDS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin a little before they are made: clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5 * 60);

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM.
    certificate: String,
}

/// What was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Where.
    pub directory: PathBuf,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Authority {
    /// The authority in a directory; made, when there is none.
    ///
    /// # Errors
    /// Its files cannot be read or written, or hold no authority that can issue.
    pub fn open(directory: &Path, mesh: &str, now: SystemTime) -> Result<Self, Error> {
        match [AUTHORITY_KEY_FILE, AUTHORITIES_FILE].map(|file| directory.join(file).exists()) {
            [true, true] => Self::read(directory, now),
            [false, false] => Self::make(directory, mesh, now),
            // Another would take its place, and those who believe it would not know.
            [has_key, _] => {
                let (there, missing) =
                    if has_key { (AUTHORITY_KEY_FILE, AUTHORITIES_FILE) } else { (AUTHORITIES_FILE, AUTHORITY_KEY_FILE) };
                let what = format!("is missing, and {there} is beside where it should be: put it back, or move {there} away to begin anew");
                Err(Error::Unusable { path: directory.join(missing), what })
            }
        }
    }

    fn read(directory: &Path, now: SystemTime) -> Result<Self, Error> {
        let (certificate, key) = (files::read(directory, AUTHORITIES_FILE)?, files::read_secret(directory, AUTHORITY_KEY_FILE)?);
        let own = certificate.certificates()?.remove(0);
        let said = Statement::of(&own).map_err(|error| certificate.unusable(error))?;
        if !said.is_authority || said.time_left(now).is_none() {
            return Err(certificate.unusable("is not, or no longer, an authority's; move it away, and a new one is made"));
        }
        let pair = KeyPair::try_from(&key.key()?).map_err(|error| key.unusable(format!("cannot be used: {error}")))?;
        if said.public_key != pair.subject_public_key_info() {
            return Err(key.unusable(format!("is not the key of {AUTHORITIES_FILE} beside it")));
        }
        let pem = certificate.text()?;
        let issuer = Issuer::new(params(said.common_name.as_deref().unwrap_or_default())?, pair);
        Ok(Self { issuer, certificate: pem })
    }

    fn make(directory: &Path, mesh: &str, now: SystemTime) -> Result<Self, Error> {
        let name = format!("{mesh} development authority");
        let mut params = params(&name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = ((now - CLOCKS_DIFFER).into(), (now + AUTHORITY_HOLDS).into());
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        files::make_directory(directory)?;
        files::write(directory, AUTHORITY_KEY_FILE, &key.serialize_pem(), 0o600)?;
        files::write(directory, AUTHORITIES_FILE, &certificate, 0o644)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Issues a node's credentials into a directory, over what is there: for calls to it by these hosts, names or addresses.
    ///
    /// # Errors
    /// A host cannot be in a certificate, or a file cannot be written.
    pub fn issue_node(
        &self,
        name: &NodeName,
        hosts: &[String],
        directory: &Path,
        now: SystemTime,
        holds: Duration,
    ) -> Result<Issued, Error> {
        let mut names = vec![SanType::URI(Ia5String::try_from(name.to_string())?)];
        for host in hosts {
            names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(host.as_str())?),
            });
        }
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&name.to_string(), names, usages, directory, now, holds)
    }

    /// Issues a caller's credentials into a directory, over what is there.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn issue_caller(&self, name: &CallerName, directory: &Path, now: SystemTime, holds: Duration) -> Result<Issued, Error> {
        let names = vec![SanType::URI(Ia5String::try_from(name.to_string())?)];
        self.issue(&name.to_string(), names, vec![ExtendedKeyUsagePurpose::ClientAuth], directory, now, holds)
    }

    fn issue(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        directory: &Path,
        now: SystemTime,
        holds: Duration,
    ) -> Result<Issued, Error> {
        let mut params = params(common_name)?;
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let not_after = now + holds;
        (params.not_before, params.not_after) = ((now - CLOCKS_DIFFER).into(), not_after.into());
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        files::make_directory(directory)?;
        files::write(directory, AUTHORITIES_FILE, &self.certificate, 0o644)?;
        files::write(directory, CERTIFICATE_FILE, &certificate, 0o644)?;
        files::write(directory, KEY_FILE, &key.serialize_pem(), 0o600)?;
        Ok(Issued { directory: directory.to_owned(), not_after })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

fn params(common_name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}
