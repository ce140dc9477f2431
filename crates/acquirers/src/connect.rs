//! From a gateway in the configuration to its connector.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use paymesh_topology::{ConnectorKind, Gateway};
use paymesh_types::Timestamp;
use zeroize::Zeroizing;

use crate::{Acquirer, simulator::Simulator, stripe, stripe::Stripe, web::Web};

/// Bytes of a file with a gateway's key at most.
const KEY_BYTES_MAX: usize = 4096;

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why a gateway has no connector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file with its key cannot be read.
    #[error("gateway {gateway}: {path} cannot be read: {source}")]
    File {
        /// Which gateway.
        gateway: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in that file is no key.
    #[error("gateway {gateway}: {path} holds no key: one line of printable characters")]
    Key {
        /// Which gateway.
        gateway: String,
        /// Which file.
        path: PathBuf,
    },
    /// The connector needs a key, and the configuration names no file.
    #[error("gateway {gateway} has no `credentials`")]
    NoKey {
        /// Which gateway.
        gateway: String,
    },
}

/// A gateway's connector. Files that the gateway names are in `credentials`, a directory. Nothing is connected to yet.
///
/// # Errors
/// The gateway's files cannot be used.
pub fn connector(gateway: &Gateway, credentials: &Path, clock: Clock) -> Result<Arc<dyn Acquirer>, Error> {
    let authorities = gateway.authorities.as_ref().map(|file| credentials.join(file));
    match gateway.connector {
        ConnectorKind::Simulator => Ok(Arc::new(Simulator::new(Web::new(&gateway.url, authorities, Vec::new())))),
        ConnectorKind::Stripe => {
            let name = || gateway.name.clone();
            let file = gateway.credentials.as_ref().ok_or_else(|| Error::NoKey { gateway: name() })?;
            let path = credentials.join(file);
            let bytes = std::fs::read(&path).map(Zeroizing::new);
            let bytes = bytes.map_err(|source| Error::File { gateway: name(), path: path.clone(), source })?;
            let key = std::str::from_utf8(&bytes)
                .ok()
                .map(str::trim)
                .filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            let headers =
                key.and_then(|key| stripe::headers(key).ok()).ok_or_else(|| Error::Key { gateway: name(), path: path.clone() })?;
            let web = Web::new(&gateway.url, authorities, headers);
            Ok(Arc::new(Stripe::new(web, clock, gateway.return_url.clone())))
        }
    }
}
