//! Credentials as files: a directory with a certificate, its key, and the authorities that are believed.
//!
//! The names are those that cert-manager gives the keys of a Kubernetes secret, so that one is mounted as it is.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{Error, certificate::Statement};

/// The certificate, and the intermediate ones between it and an authority, as PEM.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// Its private key, as PEM.
pub const KEY_FILE: &str = "tls.key";
/// The certificates of the authorities that are believed, as PEM. Two while one takes over from the other.
pub const AUTHORITIES_FILE: &str = "ca.crt";

/// Bytes of a file at most: some hundred certificates.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// Everybody's permissions, of a file's mode.
const OTHERS: u32 = 0o007;

/// A file's bytes and what is said of it.
pub(crate) struct Read {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Read {
    pub(crate) fn unusable(&self, what: impl Into<String>) -> Error {
        Error::Unusable { path: self.path.clone(), what: what.into() }
    }

    /// The certificates in it, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let found = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        match found {
            Ok(found) if found.is_empty() => Err(self.unusable("has no certificate: PEM with BEGIN CERTIFICATE is wanted")),
            Ok(found) => Ok(found),
            Err(error) => Err(self.unusable(format!("is not PEM: {error}"))),
        }
    }

    /// The authorities in it, at least one.
    pub(crate) fn authorities(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            // Whatever stands here may issue: a node's certificate must not.
            if !Statement::of(&certificate).map_err(|error| self.unusable(error))?.is_authority {
                return Err(self.unusable("holds a certificate that is no authority's"));
            }
            roots.add(certificate).map_err(|error| self.unusable(format!("holds a certificate that cannot be an authority's: {error}")))?;
        }
        Ok(roots)
    }

    /// The private key in it.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        // What PEM says of bytes that are none may quote them.
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| self.unusable("has no private key: PEM with BEGIN PRIVATE KEY is wanted"))
    }

    /// All of it.
    pub(crate) fn text(&self) -> Result<String, Error> {
        std::str::from_utf8(&self.bytes).map(str::to_owned).map_err(|_| self.unusable("is no text"))
    }

    /// The same bytes as at another time.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        // A key may be in it. The compiler may leave this out; what zeroes for certain belongs to types that hold secrets for long.
        self.bytes.fill(0);
    }
}

/// The three files of a directory.
pub(crate) struct Files {
    pub(crate) certificate: Read,
    pub(crate) key: Read,
    pub(crate) authorities: Read,
}

impl Files {
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        Ok(Self {
            certificate: read(directory, CERTIFICATE_FILE)?,
            key: read_secret(directory, KEY_FILE)?,
            authorities: read(directory, AUTHORITIES_FILE)?,
        })
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.certificate.same(&other.certificate) && self.key.same(&other.key) && self.authorities.same(&other.authorities)
    }
}

pub(crate) fn read(directory: &Path, name: &str) -> Result<Read, Error> {
    let path = directory.join(name);
    read_within(&path).map(|(bytes, _)| Read { path, bytes })
}

/// A file that must be a secret.
pub(crate) fn read_secret(directory: &Path, name: &str) -> Result<Read, Error> {
    let path = directory.join(name);
    let (bytes, mode) = read_within(&path)?;
    if mode & OTHERS != 0 {
        return Err(Error::Exposed { path, mode: mode & 0o777 });
    }
    Ok(Read { path, bytes })
}

/// A file's bytes and its mode, of the same file.
fn read_within(path: &Path) -> Result<(Vec<u8>, u32), Error> {
    let cannot = |source| Error::Unreadable { path: path.to_owned(), source };
    // A pipe would be waited for.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Error::Unusable { path: path.to_owned(), what: "is no file".to_owned() });
    }
    let file = fs::File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::Unusable { path: path.to_owned(), what: format!("is longer than {FILE_BYTES_MAX} bytes") });
    }
    Ok((bytes, mode))
}

/// A file that anybody may read, and its bytes.
///
/// # Errors
/// It cannot be read, or is larger than a file of credentials can be.
pub fn read_public(path: &Path) -> Result<Vec<u8>, Error> {
    read_within(path).map(|(bytes, _)| bytes)
}

/// A secret's text, of a file that not everybody may read.
///
/// # Errors
/// It cannot be read, is no text, or everybody may read it.
pub fn read_secret_text(path: &Path) -> Result<String, Error> {
    let (directory, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    read_secret(directory, &name.to_string_lossy())?.text()
}

/// A directory that its owner alone may enter; made when missing.
///
/// # Errors
/// It cannot be made.
pub fn make_directory(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| unwritten(directory, source))
}

/// Writes a file whole or not at all, with these permissions.
///
/// # Errors
/// It cannot be written.
pub fn write(directory: &Path, name: &str, text: &str, mode: u32) -> Result<(), Error> {
    let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
    let _ = fs::remove_file(&new);
    let file = fs::File::options().create_new(true).write(true).mode(mode).open(&new);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&new, &path)).map_err(|source| unwritten(&path, source))
}

fn unwritten(path: &Path, source: io::Error) -> Error {
    Error::Unusable { path: path.to_owned(), what: format!("cannot be written: {source}") }
}
