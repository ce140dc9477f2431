//! An acquirer in https is believed by the authorities that its gateway names and by no others, before anything of a card leaves.

#![forbid(unsafe_code)]

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use paymesh_acquirers::{Authentication, Authorization, Certainty, Class, Error, connector};
use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_topology::{BreakerRule, ConnectorKind, Cost, Gateway, ZoneGrant};
use paymesh_types::{Currency, Money, Timestamp};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

/// An authority as PEM, and a server on 127.0.0.1 that it vouches for.
fn web() -> (String, rustls::ServerConfig) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = rcgen::Issuer::new(params, key);
    let own_key = rcgen::KeyPair::generate().expect("a key");
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name").signed_by(&own_key, &issuer).expect("signed");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der())))
        .expect("they fit");
    (authority.pem(), config)
}

fn gateway(url: &str) -> Gateway {
    Gateway {
        name: "stripe".to_owned(),
        connector: ConnectorKind::Stripe,
        url: url.to_owned(),
        authorities: Some(PathBuf::from("web.pem")),
        credentials: Some(PathBuf::from("stripe.key")),
        return_url: None,
        zones: ZoneGrant::Any,
        cost: Cost::default(),
        timeout: Duration::from_secs(5),
        calls_in_flight: 4,
        breaker: BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
    }
}

#[tokio::test]
async fn nothing_leaves_before_the_other_end_is_believed() {
    let ((authority, server), (other, _)) = (web(), web());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let read = stream.read(&mut [0; 8192]).await.unwrap_or(0);
                counted.fetch_add(read, Ordering::Relaxed);
                let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let card = Card { number: CardNumber::parse("4242424242424242").expect("a number"), expiry: Expiry::new(12, 2034).expect("an expiry") };
    let asked = Authorization {
        reference: "a".parse().expect("a reference"),
        begun_at: Timestamp(1),
        amount: Money::new(1_000, Currency::from_code("EUR").expect("EUR")).expect("an amount"),
        authentication: Authentication::IssuerDecides,
        recurring: false,
        sets_up: false,
    };
    for (authority, class, reached) in
        [(other, Class::Unreachable, false), ("no PEM".to_owned(), Class::Unreachable, false), (authority, Class::Configuration, true)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("web.pem"), authority).expect("written");
        fs::write(folder.path().join("stripe.key"), "sk_test_1\n").expect("written");
        let acquirer = connector(&gateway(&url), folder.path(), Arc::new(|| Timestamp(1))).expect("a connector");
        let failure = acquirer.authorize(&card, &asked, Instant::now() + Duration::from_secs(5)).await.expect_err("it is refused");
        assert_eq!((failure.class, failure.certainty), (class, Certainty::NotDone), "{failure}");
        assert_eq!(read.load(Ordering::Relaxed) > 0, reached, "{failure}");
    }
}

#[test]
fn a_key_that_is_none_is_named_by_its_file_and_does_not_print() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = || connector(&gateway("https://127.0.0.1:1"), folder.path(), Arc::new(|| Timestamp(1)));
    let missing = make().err().expect("there is no file");
    assert!(matches!(missing, Error::File { .. }) && missing.to_string().contains("stripe.key"), "{missing}");
    for wrong in ["", "\n", "sk_live two words", "sk_live_ä", "sk_live_1\nsk_live_2"] {
        fs::write(folder.path().join("stripe.key"), wrong).expect("written");
        let none = make().err().expect(wrong);
        assert!(matches!(none, Error::Key { .. }) && !none.to_string().contains("sk_live"), "{none}");
    }
    let without = Gateway { credentials: None, ..gateway("https://127.0.0.1:1") };
    let without = connector(&without, folder.path(), Arc::new(|| Timestamp(1))).err().expect("no key");
    assert!(matches!(without, Error::NoKey { .. }), "{without}");
}
