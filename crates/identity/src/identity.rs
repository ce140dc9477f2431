//! Credentials in use: connections accepted and made with what the files say now.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use paymesh_types::RegionName;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server};

use crate::{
    AUTHORITIES_FILE, CallerName, CannotSign, Dialed, Error, NodeName, Signed,
    belief::{Belief, Side},
    certificate::{CHAIN_MAX, Statement},
    files::Files,
    signature,
    trust::{PROTOCOL, configured, connect},
    verifier::RegionVerifier,
};

/// A node's credentials, as the files in its directory were when they were last good. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    mesh: String,
    region: RegionName,
    /// What it is in its region, as a certificate says it.
    service: &'static str,
    current: RwLock<Arc<Loaded>>,
    /// How often other authorities were read than before; told after they are in use.
    authorities_reading: AtomicU64,
}

/// What was read at one time.
struct Loaded {
    files: Files,
    name: NodeName,
    not_after: SystemTime,
    authorities: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    certificate: Arc<SingleCertAndKey>,
    /// The same, to sign with.
    key: Arc<CertifiedKey>,
    /// What says of a certificate that an authority vouches for it as a client's.
    clients: Arc<dyn ClientCertVerifier>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Reads a directory's three files: what a node of that region and mesh shows others, and whom it believes.
    ///
    /// # Errors
    /// A file is missing, or can be read by everybody, or does not fit the others; the certificate is another's, or does not hold now,
    /// or those who believe the same authorities would not believe it.
    pub fn load(directory: &Path, mesh: &str, region: &RegionName, now: SystemTime) -> Result<Self, Error> {
        Self::load_as(NodeName::NODE, directory, mesh, region, now)
    }

    /// The same for an edge of that region.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_edge(directory: &Path, mesh: &str, region: &RegionName, now: SystemTime) -> Result<Self, Error> {
        Self::load_as(NodeName::EDGE, directory, mesh, region, now)
    }

    fn load_as(service: &'static str, directory: &Path, mesh: &str, region: &RegionName, now: SystemTime) -> Result<Self, Error> {
        let loaded = Loaded::new(Files::read(directory)?, mesh, region, service, now)?;
        let inner = Inner {
            directory: directory.to_owned(),
            mesh: mesh.to_owned(),
            region: region.clone(),
            service,
            current: RwLock::new(Arc::new(loaded)),
            authorities_reading: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads the files again. True: they have changed, and connections are made and accepted with what they say now. Those that are open
    /// stay, but for those whose other end no authority vouches for any more: they break when next something is read or written.
    ///
    /// # Errors
    /// As for [`Self::load`]. What was read before stays in use.
    pub fn reload(&self, now: SystemTime) -> Result<bool, Error> {
        let files = Files::read(&self.inner.directory)?;
        let before = self.current();
        if before.files.same(&files) {
            return Ok(false);
        }
        let loaded = Arc::new(Loaded::new(files, &self.inner.mesh, &self.inner.region, self.inner.service, now)?);
        let other_authorities = !before.files.authorities.same(&loaded.files.authorities);
        *self.inner.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        if other_authorities {
            self.inner.authorities_reading.fetch_add(1, Ordering::Release);
        }
        Ok(true)
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// What the certificate calls this node.
    pub fn name(&self) -> NodeName {
        self.current().name.clone()
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.current().not_after
    }

    /// A connection that came in. Its handshake is done when it is first read or written.
    pub fn accept(&self, stream: TcpStream) -> Accepted {
        let belief = Belief::new(self, Side::Client);
        let current = self.current();
        let mesh = current.name.mesh().to_owned();
        let accept = TlsAcceptor::from(current.server.clone()).accept(stream);
        Accepted { state: Accepting::Shaking(Box::new(accept)), mesh, peer: Connected::default(), belief }
    }

    /// A connection to a node of this region, which is shown to be one.
    ///
    /// # Errors
    /// The handshake failed, or somebody else answers.
    pub async fn dial(&self, region: &RegionName, host: &str, stream: TcpStream) -> io::Result<Dialed> {
        let belief = Belief::new(self, Side::Server);
        let current = self.current();
        let verifier = RegionVerifier {
            mesh: current.name.mesh().to_owned(),
            region: region.clone(),
            authorities: current.authorities.clone(),
            provider: current.provider.clone(),
        };
        let config = ClientConfig::builder_with_provider(current.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(current.certificate.clone());
        Ok(Dialed::believed(connect(configured(config), host, stream).await?, belief))
    }

    /// The caller of this mesh whose certificate this is, its own first in the chain, where an authority vouches for it now. That it was its owner who showed
    /// it is not known by that: only who shook hands with it knows.
    pub fn caller_of(&self, chain: &[CertificateDer<'static>], now: SystemTime) -> Option<ShownCaller> {
        let vouched_for = chain.len() <= CHAIN_MAX && self.vouched_for(chain, Side::Client, now);
        vouched_for.then(|| shown_caller(chain, self.current().name.mesh()))?
    }

    /// Signs content for a purpose, which names what is signed and nothing else that is. Whoever believes the same authorities can tell from it which node that was
    /// ([`Trust::signer`](crate::Trust::signer)).
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, purpose: &str, content: &[u8]) -> Result<Signed, CannotSign> {
        signature::sign(&self.current().key, purpose, content)
    }

    /// Whether an authority that is believed now vouches for who shows this chain, its own certificate first.
    pub(crate) fn vouched_for(&self, chain: &[CertificateDer<'static>], side: Side, now: SystemTime) -> bool {
        let Some((own, intermediates)) = chain.split_first() else { return false };
        let current = self.current();
        match side {
            Side::Client => current.clients.verify_client_cert(own, intermediates, unix(now)).is_ok(),
            Side::Server => verify_server(own, intermediates, &current.authorities, &current.provider, unix(now)).is_ok(),
        }
    }

    /// Another number than before: other authorities may be believed.
    pub(crate) fn authorities_reading(&self) -> u64 {
        self.inner.authorities_reading.load(Ordering::Acquire)
    }

    fn current(&self) -> Arc<Loaded> {
        self.inner.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.name())
    }
}

impl Loaded {
    fn new(files: Files, mesh: &str, region: &RegionName, service: &str, now: SystemTime) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = files.certificate.certificates()?;
        if chain.len() > CHAIN_MAX {
            return Err(files.certificate.unusable(format!(
                "has {} certificates, and nobody believes a chain of more than {CHAIN_MAX}: the node's own and those between it and an authority, which is left out",
                chain.len()
            )));
        }
        let authorities = Arc::new(files.authorities.authorities()?);
        let said = Statement::of(&chain[0]).map_err(|error| files.certificate.unusable(error))?;
        let name = name(&files, &said, mesh, region, service)?;
        holds(&files, &said, now)?;
        let clients = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| files.authorities.unusable(format!("cannot be believed: {error}")))?;
        believed(&files, &chain, &*clients, &authorities, &provider, now)?;
        let key = files.key.key()?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => files.key.unusable("is not the key of the certificate beside it"),
            other => files.key.unusable(format!("cannot be used: {other}")),
        })?;
        let key = Arc::new(certified);
        let certificate = Arc::new(SingleCertAndKey::from(key.clone()));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| files.key.unusable(error.to_string()))?
            .with_client_cert_verifier(clients.clone())
            .with_cert_resolver(certificate.clone());
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A session that is taken up again would be believed without a look at its certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { files, name, not_after: said.not_after, authorities, provider, certificate, key, clients, server: Arc::new(server) })
    }
}

/// The node that the certificate names, which must be the one that is wanted.
fn name(files: &Files, said: &Statement, mesh: &str, region: &RegionName, service: &str) -> Result<NodeName, Error> {
    let wanted = NodeName::new(mesh, region, service);
    let wanted = wanted.ok_or_else(|| files.certificate.unusable(format!("cannot name a node of mesh {mesh}")))?;
    if said.is_authority {
        return Err(files.certificate.unusable("is an authority's certificate; a node has one of its own"));
    }
    match said.node() {
        Some(found) if found == wanted => Ok(found),
        Some(found) => Err(files.certificate.unusable(format!("is that of {found}; this node is {wanted}"))),
        None => Err(files.certificate.unusable(format!("names no node: its only URI must be {wanted}"))),
    }
}

fn holds(files: &Files, said: &Statement, now: SystemTime) -> Result<(), Error> {
    if said.time_left(now).is_none() {
        let ago = now.duration_since(said.not_after).unwrap_or_default();
        return Err(files.certificate.unusable(format!("ended {} ago; get a new one, or look at this machine's clock", rough(ago))));
    }
    if let Ok(wait) = said.not_before.duration_since(now)
        && !wait.is_zero()
    {
        return Err(files.certificate.unusable(format!("begins in {} only; look at this machine's clock", rough(wait))));
    }
    Ok(())
}

/// Whether those who believe the same authorities believe the certificate, as a server's and as a client's.
fn believed(
    files: &Files,
    chain: &[CertificateDer<'static>],
    clients: &dyn ClientCertVerifier,
    authorities: &RootCertStore,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), Error> {
    let (own, intermediates) = chain.split_first().expect("a file without a certificate was refused");
    let now = unix(now);
    let as_client = clients.verify_client_cert(own, intermediates, now).map(|_| ());
    let as_server = || verify_server(own, intermediates, authorities, provider, now);
    as_client.and_then(|()| as_server()).map_err(|error| {
        files.certificate.unusable(format!("would not be believed by those who believe {AUTHORITIES_FILE} beside it: {error}"))
    })
}

pub(crate) fn verify_server(
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    authorities: &RootCertStore,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(own)?, authorities, intermediates, now, algorithms)
}

pub(crate) fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A time as people say it.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Who is at the other end of a connection that was accepted, once its handshake is done.
#[derive(Debug, Clone, Default)]
pub struct Connected {
    shown: Arc<OnceLock<Option<Shown>>>,
}

/// Whose certificate it was when the connection was made.
#[derive(Debug)]
enum Shown {
    Node { node: NodeName, not_after: SystemTime },
    Edge { edge: NodeName, not_after: SystemTime },
    Caller(ShownCaller),
}

/// A caller, by a certificate that it has shown.
#[derive(Debug, Clone)]
pub struct ShownCaller {
    /// Who it is.
    pub name: CallerName,
    /// When its certificate ends.
    pub not_after: SystemTime,
    /// Its certificate and those between it and an authority, for whoever looks at them too.
    pub chain: Arc<[CertificateDer<'static>]>,
}

impl Connected {
    /// The node of this mesh that it is, by a certificate that holds at this time. None: it is a caller, or one whose certificate has ended
    /// since, or nobody knows yet.
    pub fn node(&self, now: SystemTime) -> Option<&NodeName> {
        match self.shown.get()?.as_ref()? {
            Shown::Node { node, not_after } => (now < *not_after).then_some(node),
            Shown::Edge { .. } | Shown::Caller(_) => None,
        }
    }

    /// The edge of this mesh that it is, by a certificate that holds at this time.
    pub fn edge(&self, now: SystemTime) -> Option<&NodeName> {
        match self.shown.get()?.as_ref()? {
            Shown::Edge { edge, not_after } => (now < *not_after).then_some(edge),
            Shown::Node { .. } | Shown::Caller(_) => None,
        }
    }

    /// When the certificate that was shown ends. None: none was, or nobody knows yet.
    pub fn not_after(&self) -> Option<SystemTime> {
        Some(match self.shown.get()?.as_ref()? {
            Shown::Node { not_after, .. } | Shown::Edge { not_after, .. } => *not_after,
            Shown::Caller(caller) => caller.not_after,
        })
    }

    /// The caller of this mesh that it is, by a certificate that holds at this time.
    pub fn caller(&self, now: SystemTime) -> Option<&ShownCaller> {
        match self.shown.get()?.as_ref()? {
            Shown::Caller(caller) => (now < caller.not_after).then_some(caller),
            Shown::Node { .. } | Shown::Edge { .. } => None,
        }
    }
}

/// A connection that was accepted.
pub struct Accepted {
    state: Accepting,
    mesh: String,
    peer: Connected,
    belief: Belief,
}

/// How far it is.
pub enum Accepting {
    /// The handshake is not done.
    Shaking(Box<Accept<TcpStream>>),
    /// It is.
    Done(Box<server::TlsStream<TcpStream>>),
    /// It never will be.
    Failed,
}

impl Accepted {
    /// Who is at the other end: a handle that knows once the handshake is done.
    pub fn peer(&self) -> Connected {
        self.peer.clone()
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut server::TlsStream<TcpStream>>>> {
        if let Accepting::Shaking(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(stream) => {
                    let _ = self.peer.shown.set(shown(&stream, &self.mesh));
                    self.belief.shown(stream.get_ref().1.peer_certificates());
                    self.state = Accepting::Done(Box::new(stream));
                }
                Err(error) => {
                    self.state = Accepting::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.belief.check()?;
        match &mut self.state {
            Accepting::Done(stream) => Poll::Ready(Ok(Pin::new(stream))),
            _ => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the handshake failed"))),
        }
    }
}

/// Whose certificate was shown, of this mesh. The verifier has seen that an authority says so.
fn shown(stream: &server::TlsStream<TcpStream>, mesh: &str) -> Option<Shown> {
    let chain = stream.get_ref().1.peer_certificates()?;
    let said = Statement::of(chain.first()?).ok()?;
    match said.node().filter(|node| node.mesh() == mesh) {
        Some(node) if node.is_node() => Some(Shown::Node { node, not_after: said.not_after }),
        Some(edge) if edge.is_edge() => Some(Shown::Edge { edge, not_after: said.not_after }),
        _ => shown_caller(chain, mesh).map(Shown::Caller),
    }
}

fn shown_caller(chain: &[CertificateDer<'_>], mesh: &str) -> Option<ShownCaller> {
    let own = chain.first().filter(|_| chain.len() <= CHAIN_MAX)?;
    let said = Statement::of(own).ok()?;
    let name = said.caller().filter(|caller| caller.mesh() == mesh && !said.is_authority)?;
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    Some(ShownCaller { name, not_after: said.not_after, chain })
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accepted({:?})", self.peer)
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_shutdown(cx)
    }
}
