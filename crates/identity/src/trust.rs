//! The callers' side: whom they believe, and what they show of themselves.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use crate::{AUTHORITIES_FILE, CERTIFICATE_FILE, Dialed, Error, KEY_FILE, NodeName, NotSigned, Signed, files, signature};

/// What a connection is for, as TLS names it.
pub(crate) const PROTOCOL: &[u8] = b"h2";
/// The same, where a web server is asked.
const WEB_PROTOCOL: &[u8] = b"http/1.1";

/// Whom a caller of the mesh believes: it calls nodes by their hosts' names, as any stock client does. And its own certificate, where
/// it is known by one. Files that have changed are used from the next connection on, so that nobody restarts for a new authority. Cheap to clone;
/// all clones are the same.
#[derive(Clone)]
pub struct Trust {
    inner: Arc<Inner>,
}

struct Inner {
    authorities: PathBuf,
    own: Option<PathBuf>,
    current: RwLock<Arc<Loaded>>,
}

/// What was read at one time.
struct Loaded {
    files: Vec<files::Read>,
    config: Arc<ClientConfig>,
    authorities: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({})", self.inner.authorities.display())
    }
}

impl Trust {
    /// Reads [`AUTHORITIES_FILE`] of a directory. Who calls with it shows nothing of itself.
    ///
    /// # Errors
    /// It is missing, or holds no authority.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        Self::new(directory, None)
    }

    /// The same, with a certificate and its key in a directory of the caller's own, to be shown to nodes.
    ///
    /// # Errors
    /// A file is missing or does not fit the others, or the key can be read by everybody.
    pub fn load_with_certificate(authorities: &Path, own: &Path) -> Result<Self, Error> {
        Self::new(authorities, Some(own))
    }

    fn new(directory: &Path, own: Option<&Path>) -> Result<Self, Error> {
        let current = RwLock::new(Arc::new(Loaded::read(directory, own)?));
        Ok(Self { inner: Arc::new(Inner { authorities: directory.to_owned(), own: own.map(Path::to_owned), current }) })
    }

    /// What the files say now; what they said before, where that cannot be used.
    fn fresh(&self) -> Arc<Loaded> {
        let Inner { authorities, own, current } = &*self.inner;
        let before = current.read().unwrap_or_else(PoisonError::into_inner).clone();
        match Loaded::read(authorities, own.as_deref()) {
            Ok(now) if !now.same(&before) => {
                let now = Arc::new(now);
                *current.write().unwrap_or_else(PoisonError::into_inner) = now.clone();
                now
            }
            _ => before,
        }
    }

    /// A connection to the node at this host, whose certificate must name it.
    ///
    /// # Errors
    /// The handshake failed, or somebody else answers.
    pub async fn dial(&self, host: &str, stream: TcpStream) -> io::Result<Dialed> {
        let trust = self.clone();
        let now = tokio::task::spawn_blocking(move || trust.fresh()).await.map_err(io::Error::other)?;
        connect(now.config.clone(), host, stream).await.map(Dialed::once)
    }

    /// The node that has signed this content for this purpose ([`Identity::sign`](crate::Identity::sign)): whoever brought it here. Reads the authorities' file again, which is small.
    ///
    /// # Errors
    /// It is not what a node has signed, or no authority vouches for that node at this time.
    pub fn signer(&self, signed: &Signed, purpose: &str, content: &[u8], now: SystemTime) -> Result<NodeName, NotSigned> {
        let before = self.inner.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let file =
            files::read(&self.inner.authorities, AUTHORITIES_FILE).ok().filter(|file| !before.files.iter().any(|read| read.same(file)));
        // What cannot be used is not taken for authorities, as for connections.
        let others = file.and_then(|file| file.authorities().ok());
        signature::signer(signed, purpose, content, others.as_ref().unwrap_or(&before.authorities), &before.provider, now)
    }
}

impl Loaded {
    fn same(&self, other: &Self) -> bool {
        self.files.len() == other.files.len() && self.files.iter().zip(&other.files).all(|(one, other)| one.same(other))
    }

    fn read(directory: &Path, own: Option<&Path>) -> Result<Self, Error> {
        let file = files::read(directory, AUTHORITIES_FILE)?;
        let (authorities, provider) = (Arc::new(file.authorities()?), Arc::new(aws_lc_rs::default_provider()));
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| file.unusable(error.to_string()))?
            .with_root_certificates(authorities.clone());
        let mut read = vec![file];
        let config = match own {
            None => config.with_no_client_auth(),
            Some(own) => {
                let (certificate, key) = (files::read(own, CERTIFICATE_FILE)?, files::read_secret(own, KEY_FILE)?);
                let certified = CertifiedKey::from_der(certificate.certificates()?, key.key()?, &provider);
                let certified =
                    certified.map_err(|error| key.unusable(format!("does not go with {CERTIFICATE_FILE} beside it: {error}")))?;
                read.extend([certificate, key]);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        Ok(Self { files: read, config: configured(config), authorities, provider })
    }
}

/// Authorities of the web that are believed, as a file has them.
#[derive(Debug, Clone)]
pub struct Authorities {
    config: Arc<ClientConfig>,
}

impl Authorities {
    /// Reads a file of certificates, as PEM.
    ///
    /// # Errors
    /// It cannot be read, or holds no authority.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let read = files::read(file.parent().unwrap_or(Path::new("")), &file.file_name().unwrap_or_default().to_string_lossy())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| read.unusable(error.to_string()))?
            .with_root_certificates(read.authorities()?)
            .with_no_client_auth();
        config.alpn_protocols = vec![WEB_PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// A connection to the server at this host, for HTTP/1.1.
    ///
    /// # Errors
    /// The handshake failed, or somebody else answers.
    pub async fn dial_web(&self, host: &str, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        connect(self.config.clone(), host, stream).await
    }
}

pub(crate) fn configured(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub(crate) async fn connect(config: Arc<ClientConfig>, host: &str, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
    let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(host, stream).await
}
