//! Certificates that say almost the right thing, shown by clients and servers that check nothing themselves.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use paymesh_identity::{Authority, Identity, NodeName};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MESH: &str = "paymesh-test";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn named(mesh: &str, region: &str, service: &str) -> NodeName {
    NodeName::new(mesh, &region.parse().unwrap(), service).unwrap()
}

fn client_of(directory: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(directory.join("ca.crt")).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(directory.join("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn server_of(directory: &Path) -> ServerConfig {
    let chain: Vec<_> = CertificateDer::pem_file_iter(directory.join("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Who the node takes one with these credentials for.
async fn taken_for(server: &Identity, directory: &Path) -> Option<NodeName> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = client_of(directory);
    let dial = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut tls =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
        tls.write_all(b"you").await.unwrap();
        let mut all = Vec::new();
        let _ = tls.read_to_end(&mut all).await;
    };
    let accept = async {
        let mut accepted = server.accept(listener.accept().await.unwrap().0);
        let mut bytes = [0; 3];
        accepted.read_exact(&mut bytes).await.unwrap();
        accepted.peer().node(SystemTime::now()).cloned()
    };
    let ((), node) = tokio::join!(dial, accept);
    node
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn authority(&self) -> Authority {
        Authority::open(self.0.path(), MESH, SystemTime::now()).unwrap()
    }
    fn issue(&self, name: &NodeName, directory: &str) -> std::path::PathBuf {
        let directory = self.0.path().join(directory);
        self.authority().issue_node(name, &["127.0.0.1".to_owned()], &directory, SystemTime::now(), DAY).unwrap();
        directory
    }
    fn node(&self, region: &str) -> Identity {
        let directory = self.issue(&named(MESH, region, "node"), region);
        Identity::load(&directory, MESH, &region.parse().unwrap(), SystemTime::now()).unwrap()
    }
    /// With the authority's key: a node's certificate that is good for this alone.
    fn issue_for(&self, directory: &str, region: &str, uses: Vec<ExtendedKeyUsagePurpose>) -> std::path::PathBuf {
        let out = self.issue(&named(MESH, region, "node"), directory);
        let pair = KeyPair::from_pem(&fs::read_to_string(self.0.path().join("ca.key")).unwrap()).unwrap();
        let mut of = CertificateParams::new(Vec::new()).unwrap();
        of.distinguished_name = DistinguishedName::new();
        of.distinguished_name.push(DnType::CommonName, format!("{MESH} development authority"));
        of.is_ca = IsCa::NoCa;
        let issuer = Issuer::new(of, pair);
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(named(MESH, region, "node").to_string().try_into().unwrap()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses;
        let key = KeyPair::generate().unwrap();
        fs::write(out.join("tls.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(out.join("tls.key"), key.serialize_pem()).unwrap();
        out
    }
}

/// A certificate for something else of the region's is not its node's.
#[tokio::test]
async fn what_is_of_the_region_and_no_node_is_not_taken_for_its_node() {
    let place = Place::new();
    let west = place.node("us_west");
    let billing = place.issue(&named(MESH, "us_east", "billing"), "billing");
    let node = taken_for(&west, &billing).await;
    assert_eq!(node, None, "a server takes it for a node");
}

#[tokio::test]
async fn what_is_of_the_region_and_no_node_is_not_dialled_as_its_node() {
    let place = Place::new();
    let east = place.node("us_east");
    let billing = place.issue(&named(MESH, "us_west", "billing"), "billing");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(server_of(&billing));
    let server = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        let _ = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
    });
    let dialled = east.dial(&"us_west".parse().unwrap(), "127.0.0.1", TcpStream::connect(address).await.unwrap()).await;
    assert!(dialled.is_err(), "the server of us_west's billing is dialled as us_west's node");
    server.await.unwrap();
}

#[tokio::test]
async fn another_meshs_node_that_shows_its_certificate_is_none() {
    let place = Place::new();
    let west = place.node("us_west");
    let stranger = place.issue(&named("elsewhere", "us_east", "node"), "elsewhere");
    assert_eq!(taken_for(&west, &stranger).await, None);
}

/// As Loaded::believed says: as a server's and as a client's.
#[tokio::test]
async fn a_certificate_that_is_no_servers_is_refused_when_read() {
    let place = Place::new();
    for (uses, what) in [(ExtendedKeyUsagePurpose::ServerAuth, "server"), (ExtendedKeyUsagePurpose::ClientAuth, "client")] {
        let directory = place.issue_for(what, "us_west", vec![uses]);
        let loaded = Identity::load(&directory, MESH, &"us_west".parse().unwrap(), SystemTime::now());
        if let Ok(west) = &loaded {
            let east = place.node("us_east");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (dialled, _) = tokio::join!(
                async { east.dial(&"us_west".parse().unwrap(), "127.0.0.1", TcpStream::connect(address).await.unwrap()).await.map(drop) },
                async {
                    let mut accepted = west.accept(listener.accept().await.unwrap().0);
                    accepted.read_u8().await
                }
            );
            panic!("it is loaded, and who dials it says {dialled:?}");
        }
    }
}

/// What is in ca.crt and is no authority's.
#[tokio::test]
async fn a_nodes_certificate_among_the_authorities_is_refused() {
    let place = Place::new();
    let west = place.node("us_west");
    let east = place.issue(&named(MESH, "us_east", "node"), "us_east");
    // An operator puts a node's certificate into ca.crt, "so that it is believed".
    let authorities = west.directory().join("ca.crt");
    let both = fs::read_to_string(&authorities).unwrap() + &fs::read_to_string(east.join("tls.crt")).unwrap();
    fs::write(&authorities, both).unwrap();
    let reloaded = west.reload(SystemTime::now());
    // The node's key issues for anybody now.
    let pair = KeyPair::from_pem(&fs::read_to_string(east.join("tls.key")).unwrap()).unwrap();
    let mut of = CertificateParams::new(Vec::new()).unwrap();
    of.distinguished_name = DistinguishedName::new();
    of.distinguished_name.push(DnType::CommonName, named(MESH, "us_east", "node").to_string());
    let issuer = Issuer::new(of, pair);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(named(MESH, "eu_west", "node").to_string().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let forged = place.issue(&named(MESH, "eu_west", "node"), "forged");
    fs::write(forged.join("tls.crt"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(forged.join("tls.key"), key.serialize_pem()).unwrap();
    assert!(reloaded.is_err(), "it is believed as an authority: {:?}", taken_for(&west, &forged).await);
}

/// Whether a first handshake's session is taken up again by who would like to.
#[tokio::test]
async fn no_session_is_taken_up_again() {
    let place = Place::new();
    let west = place.node("us_west");
    let east = place.issue(&named(MESH, "us_east", "node"), "us_east");
    let config = Arc::new(client_of(&east));
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kind = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut tls =
                tokio_rustls::TlsConnector::from(config.clone()).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
            tls.write_all(b"you").await.unwrap();
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all).await;
            tls.get_ref().1.handshake_kind()
        };
        let accept = async {
            let mut accepted = west.accept(listener.accept().await.unwrap().0);
            let mut bytes = [0; 3];
            accepted.read_exact(&mut bytes).await.unwrap();
            accepted.write_all(b"me").await.unwrap();
            accepted.shutdown().await.unwrap();
        };
        let (kind, ()) = tokio::join!(kind, accept);
        assert!(!matches!(kind, Some(rustls::HandshakeKind::Resumed)));
    }
}
