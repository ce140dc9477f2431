//! Credentials from files, and handshakes over real sockets.

#![forbid(unsafe_code)]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use paymesh_identity::{AUTHORITIES_FILE, Authority, CERTIFICATE_FILE, CallerName, Connected, Identity, KEY_FILE, NodeName, Trust};
use paymesh_types::RegionName;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MESH: &str = "paymesh-test";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A directory with an authority, and what it issues.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn authority(&self) -> Authority {
        Authority::open(self.directory.path(), MESH, SystemTime::now()).expect("an authority")
    }

    /// Issues a node's credentials: where they are.
    fn issue(&self, region: &str, made: SystemTime, holds: Duration) -> PathBuf {
        let directory = self.directory.path().join(region);
        self.authority().issue_node(&named(MESH, region), &["127.0.0.1".to_owned()], &directory, made, holds).expect("issued");
        directory
    }

    fn node(&self, region: &str) -> Identity {
        load(&self.issue(region, SystemTime::now(), DAY), region).expect("an identity")
    }
}

fn region(name: &str) -> RegionName {
    name.parse().expect("a region")
}

fn named(mesh: &str, name: &str) -> NodeName {
    NodeName::new(mesh, &region(name), NodeName::NODE).expect("a name")
}

fn load(directory: &Path, name: &str) -> Result<Identity, String> {
    Identity::load(directory, MESH, &region(name), SystemTime::now()).map_err(|error| error.to_string())
}

/// What came of a connection on both sides: the one who accepts reads three bytes and answers them.
async fn meet<F, C>(server: &Identity, dial: impl FnOnce(TcpStream) -> F) -> (io::Result<()>, io::Result<Connected>)
where
    F: Future<Output = io::Result<C>>,
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepting = async {
        let mut accepted = server.accept(listener.accept().await?.0);
        let peer = accepted.peer();
        assert!(peer.node(SystemTime::now()).is_none(), "nobody is known before the handshake");
        let mut bytes = [0; 3];
        accepted.read_exact(&mut bytes).await?;
        accepted.write_all(&bytes).await?;
        accepted.shutdown().await?;
        Ok(peer)
    };
    let dialling = async {
        let mut stream = dial(TcpStream::connect(address).await?).await?;
        stream.write_all(b"you").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"you");
        Ok(())
    };
    let met = async { tokio::join!(dialling, accepting) };
    tokio::time::timeout(Duration::from_secs(20), met).await.expect("no side waits for ever")
}

#[tokio::test]
async fn nodes_know_each_other_by_their_certificates() {
    let place = Place::new();
    let (east, west) = (place.node("us_east"), place.node("us_west"));
    let (dialled, accepted) = meet(&west, |stream| async move { east.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    dialled.expect("an answer");
    let peer = accepted.expect("a connection");
    assert_eq!(peer.node(SystemTime::now()), Some(&named(MESH, "us_east")));
    // A connection may outlive the certificate that it was made with; who is at its end is then nobody any more.
    assert_eq!(peer.node(SystemTime::now() + DAY), None);
}

#[tokio::test]
async fn an_edge_is_known_as_one_and_as_no_node_until_its_certificate_ends_and_is_one_by_its_next() {
    let place = Place::new();
    let west = place.node("us_west");
    let name = NodeName::new(MESH, &region("us_east"), NodeName::EDGE).expect("a name");
    let directory = place.directory.path().join("us_east-edge");
    let issue = |holds| {
        let issued = place.authority().issue_node(&name, &["127.0.0.1".to_owned()], &directory, SystemTime::now(), holds);
        issued.expect("issued");
    };
    issue(DAY);
    let now = SystemTime::now();
    let edge = Identity::load_edge(&directory, MESH, &region("us_east"), now).expect("an identity");
    let (dialled, accepted) = meet(&west, |stream| async move { edge.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    dialled.expect("an answer");
    let peer = accepted.expect("a connection");
    assert_eq!((peer.edge(now), peer.node(now)), (Some(&name), None));
    assert!(peer.caller(now).is_none());
    assert_eq!(peer.edge(now + DAY), None, "it is nobody any more");

    let edge = Identity::load_edge(&directory, MESH, &region("us_east"), now).expect("an identity");
    let first = edge.not_after();
    issue(2 * DAY);
    assert!(edge.reload(now).expect("a new certificate of an edge"));
    assert!(edge.name().is_edge() && edge.not_after() > first);
    // A node's in its place would make it one.
    place.authority().issue_node(&named(MESH, "us_east"), &["127.0.0.1".to_owned()], &directory, now, 3 * DAY).expect("issued");
    edge.reload(now).expect_err("a node's");
    assert!(edge.name().is_edge());
}

#[tokio::test]
async fn a_node_that_answers_for_another_region_is_hung_up_on() {
    let place = Place::new();
    let (east, west) = (place.node("us_east"), place.node("us_west"));
    let (dialled, accepted) = meet(&west, |stream| async move { east.dial(&region("eu_west"), "127.0.0.1", stream).await }).await;
    let why = dialled.expect_err("another region").to_string();
    assert!(why.contains("us_west") && why.contains("eu_west"), "{why}");
    accepted.expect_err("hung up on");
}

#[tokio::test]
async fn a_caller_needs_no_certificate_and_is_no_node() {
    let place = Place::new();
    let west = place.node("us_west");
    let trust = Trust::load(west.directory()).expect("authorities");
    let (dialled, accepted) = meet(&west, |stream| async move { trust.dial("127.0.0.1", stream).await }).await;
    dialled.expect("an answer");
    assert_eq!(accepted.expect("a connection").node(SystemTime::now()), None);
    // At a host that the certificate does not name, it is somebody else.
    let trust = Trust::load(west.directory()).expect("authorities");
    let (dialled, _) = meet(&west, |stream| async move { trust.dial("127.0.0.2", stream).await }).await;
    dialled.expect_err("another host's certificate");
}

/// Who calls for months sees authorities come and go.
#[tokio::test]
async fn a_caller_believes_what_the_file_says_now_and_what_it_said_before_where_that_cannot_be_used() {
    let (ours, theirs) = (Place::new(), Place::new());
    let (west, next) = (ours.node("us_west"), theirs.node("us_west"));
    let authorities = [&west, &next].map(|node| fs::read_to_string(node.directory().join(AUTHORITIES_FILE)).expect("authorities"));
    let own = ours.directory.path().join("caller");
    fs::create_dir(&own).expect("made");
    fs::write(own.join(AUTHORITIES_FILE), &authorities[0]).expect("written");
    let trust = Trust::load(&own).expect("authorities");
    let believes = async |node: &Identity| meet(node, |stream| trust.dial("127.0.0.1", stream)).await.0.is_ok();
    assert_eq!((believes(&west).await, believes(&next).await), (true, false));
    for (written, wanted) in
        [(authorities.concat(), (true, true)), ("no PEM".to_owned(), (true, true)), (authorities[1].clone(), (false, true))]
    {
        fs::write(own.join(AUTHORITIES_FILE), written).expect("written");
        assert_eq!((believes(&west).await, believes(&next).await), wanted);
    }
}

#[tokio::test]
async fn what_another_authority_says_is_not_believed_by_either_side() {
    let (place, other) = (Place::new(), Place::new());
    let (east, west) = (other.node("us_east"), place.node("us_west"));
    // Its certificate says everything right, and the one who says so is nobody.
    let (dialled, accepted) = meet(&west, |stream| async move { east.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    dialled.expect_err("the server is not believed");
    accepted.expect_err("hung up on");
    // Who believes the server, and shows a certificate of a self-made authority.
    let mixed = other.issue("us_east", SystemTime::now(), DAY);
    let both = [west.directory(), &mixed].map(|directory| fs::read_to_string(directory.join(AUTHORITIES_FILE)).expect("authorities"));
    fs::write(mixed.join(AUTHORITIES_FILE), both.concat()).expect("written");
    let east = load(&mixed, "us_east").expect("both authorities are believed");
    let (dialled, accepted) = meet(&west, |stream| async move { east.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    assert!(accepted.is_err() && dialled.is_err(), "{dialled:?} {accepted:?}");
}

#[tokio::test]
async fn another_meshs_node_is_a_stranger_even_under_the_same_authority() {
    let place = Place::new();
    let west = place.node("us_west");
    let directory = place.directory.path().join("elsewhere");
    place.authority().issue_node(&named("elsewhere", "us_east"), &[], &directory, SystemTime::now(), DAY).expect("issued");
    let stranger = Identity::load(&directory, "elsewhere", &region("us_east"), SystemTime::now()).expect("an identity");
    let (dialled, accepted) = meet(&west, |stream| async move { stranger.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    let why = dialled.expect_err("another mesh").to_string();
    assert!(why.contains("spiffe://paymesh-test/region/us_west/node"), "{why}");
    drop(accepted);
    // Who is not so careful gets in as a caller, and as nobody's node.
    let careless = Trust::load(west.directory()).expect("authorities");
    let (_, accepted) = meet(&west, |stream| async move { careless.dial("127.0.0.1", stream).await }).await;
    assert_eq!(accepted.expect("a connection").node(SystemTime::now()), None);
}

#[tokio::test]
async fn what_does_not_speak_tls_is_refused() {
    let place = Place::new();
    let west = place.node("us_west");
    let (_, accepted) = meet(&west, |mut stream| async move {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        Err::<TcpStream, _>(io::Error::other("that is all"))
    })
    .await;
    accepted.expect_err("plain text");
}

#[tokio::test]
async fn new_files_are_used_from_the_next_connection_on_and_bad_ones_are_not() {
    let place = Place::new();
    let (east, west) = (place.node("us_east"), place.node("us_west"));
    let (now, first) = (SystemTime::now(), west.not_after());
    assert!(!west.reload(now).expect("nothing has changed"));
    place.issue("us_west", now, 2 * DAY);
    assert!(west.reload(now).expect("a new certificate"));
    assert!(west.not_after() > first, "the new one");
    let second = west.not_after();
    // A key that does not fit, as between two files being written.
    let key = west.directory().join(KEY_FILE);
    let kept = fs::read(&key).expect("a key");
    fs::copy(east.directory().join(KEY_FILE), &key).expect("copied");
    let why = west.reload(now).expect_err("another's key").to_string();
    assert!(why.contains(KEY_FILE) && why.contains("not the key"), "{why}");
    assert_eq!(west.not_after(), second);
    let (dialled, accepted) = meet(&west, |stream| async move { east.dial(&region("us_west"), "127.0.0.1", stream).await }).await;
    dialled.expect("what was read before is in use");
    accepted.expect("a connection");
    fs::write(&key, kept).expect("written");
    assert!(!west.reload(now).expect("as before"), "the same files");
}

/// Whoever took an authority's key is to be locked out by taking the authority out of the file, also where its connections are open.
#[tokio::test]
async fn a_connection_breaks_when_no_authority_vouches_for_its_other_end_any_more_and_others_go_on() {
    let (ours, theirs) = (Place::new(), Place::new());
    let (now, west) = (SystemTime::now(), ours.node("us_west"));
    let east = theirs.issue("us_east", now, DAY);
    let authorities = [west.directory(), &east].map(|directory| fs::read_to_string(directory.join(AUTHORITIES_FILE)).expect("authorities"));
    let believe = |identity: &Identity, which: &str| {
        fs::write(identity.directory().join(AUTHORITIES_FILE), which).expect("written");
        assert!(identity.reload(now).expect("good files"));
    };
    fs::write(east.join(AUTHORITIES_FILE), authorities.concat()).expect("written");
    let east = load(&east, "us_east").expect("both authorities are believed");
    believe(&west, &authorities.concat());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connect = async |dialler: &Identity| {
        let dialling = async {
            let stream = TcpStream::connect(address).await.expect("a connection");
            let mut dialed = dialler.dial(&region("us_west"), "127.0.0.1", stream).await.expect("believed");
            dialed.write_all(b"you").await.expect("written");
            dialed
        };
        let accepting = async {
            let mut accepted = west.accept(listener.accept().await.expect("a connection").0);
            accepted.read_exact(&mut [0; 3]).await.expect("read");
            accepted
        };
        tokio::join!(dialling, accepting)
    };
    let (mut strangers, mut strange) = connect(&east).await;
    let known = ours.node("us_east");
    let (mut friends, mut friend) = connect(&known).await;
    // A new certificate, and one more authority, are nobody's end.
    ours.issue("us_west", now, 2 * DAY);
    believe(&west, &[&authorities[1][..], &authorities[0]].concat());
    strangers.write_all(b"a").await.expect("written");
    strange.read_exact(&mut [0; 1]).await.expect("still believed");

    believe(&west, &authorities[0]);
    strangers.write_all(b"b").await.expect("written");
    let why = strange.read_exact(&mut [0; 1]).await.expect_err("not believed any more").to_string();
    assert!(why.contains("no authority that is believed now"), "{why}");
    strange.write_all(b"c").await.expect_err("nor told anything");
    friends.write_all(b"d").await.expect("written");
    friend.read_exact(&mut [0; 1]).await.expect("it is vouched for as before");
    friend.write_all(b"e").await.expect("written");
    friends.read_exact(&mut [0; 1]).await.expect("read");

    // The same for who has dialled.
    let (mut strangers, mut strange) = {
        believe(&west, &authorities.concat());
        connect(&east).await
    };
    believe(&east, &authorities[1]);
    strange.write_all(b"f").await.expect("written");
    strangers.read_exact(&mut [0; 1]).await.expect_err("not believed any more");
    strangers.write_all(b"g").await.expect_err("nor told anything");
}

#[tokio::test]
async fn a_callers_certificate_that_is_passed_on_is_one_that_an_authority_vouches_for_now() {
    let (ours, theirs) = (Place::new(), Place::new());
    let (now, west) = (SystemTime::now(), ours.node("us_west"));
    let certificates = |directory: &Path| -> Vec<CertificateDer<'static>> {
        let read = CertificateDer::pem_file_iter(directory.join(CERTIFICATE_FILE)).expect("a file");
        read.map(|certificate| certificate.expect("a certificate")).collect()
    };
    let chain_of = |place: &Place, directory: &str, name: &CallerName| {
        let directory = place.directory.path().join(directory);
        place.authority().issue_caller(name, &directory, now, DAY).expect("issued");
        certificates(&directory)
    };
    let [checkout, elsewhere] = [MESH, "elsewhere"].map(|mesh| CallerName::new(mesh, "checkout").expect("a name"));
    let good = chain_of(&ours, "checkout", &checkout);
    assert_eq!(west.caller_of(&good, now).expect("vouched for").name, checkout);
    for (what, chain, when) in [
        ("another authority's", chain_of(&theirs, "checkout", &checkout), now),
        ("another mesh's", chain_of(&ours, "elsewhere", &elsewhere), now),
        ("ended", good.clone(), now + DAY + Duration::from_secs(1)),
        ("not begun", good.clone(), now - 2 * DAY),
        ("a node's", certificates(west.directory()), now),
        ("too long", vec![good[0].clone(); 5], now),
        ("none", Vec::new(), now),
    ] {
        assert!(west.caller_of(&chain, when).is_none(), "{what}");
    }
}

#[test]
fn credentials_that_do_not_fit_are_refused_by_file() {
    let place = Place::new();
    let now = SystemTime::now();
    let refused = |wanted: &str, spoil: &dyn Fn(&Path)| {
        let directory = place.issue("us_west", now, DAY);
        spoil(&directory);
        let why = load(&directory, "us_west").expect_err(wanted);
        assert!(why.contains(wanted), "{why:?} does not say {wanted:?}");
        why
    };
    let replace = |directory: &Path, file: &str, text: &str| fs::write(directory.join(file), text).expect("written");
    for file in [CERTIFICATE_FILE, KEY_FILE, AUTHORITIES_FILE] {
        refused(&format!("{file}: cannot be read"), &|directory| fs::remove_file(directory.join(file)).expect("removed"));
        refused(file, &|directory| replace(directory, file, ""));
        let why =
            refused(file, &|directory| replace(directory, file, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"));
        assert!(!why.contains("secret") && !why.contains("c2Vjc"), "a key is not quoted: {why}");
        refused(file, &|directory| replace(directory, file, &"x".repeat(600_000)));
    }
    refused("tls.key: its mode is 644", &|directory| {
        fs::set_permissions(directory.join(KEY_FILE), fs::Permissions::from_mode(0o644)).expect("a mode");
    });
    let other = place.issue("eu_west", now, DAY);
    refused("is that of spiffe://paymesh-test/region/eu_west/node", &|directory| {
        for file in [CERTIFICATE_FILE, KEY_FILE] {
            fs::copy(other.join(file), directory.join(file)).expect("copied");
        }
    });
    refused("not the key of the certificate", &|directory| {
        fs::copy(other.join(KEY_FILE), directory.join(KEY_FILE)).expect("copied");
    });
    let strangers = Place::new();
    strangers.authority();
    refused("would not be believed", &|directory| {
        fs::copy(strangers.directory.path().join(AUTHORITIES_FILE), directory.join(AUTHORITIES_FILE)).expect("copied");
    });
    refused("is an authority's", &|directory| {
        fs::copy(place.directory.path().join(AUTHORITIES_FILE), directory.join(CERTIFICATE_FILE)).expect("copied");
    });
    // Its times.
    let old = load(&place.issue("us_west", now - 10 * DAY, DAY), "us_west").expect_err("over");
    assert!(old.contains("tls.crt: ended 9 days ago"), "{old}");
    let early = load(&place.issue("us_west", now + 3 * DAY, DAY), "us_west").expect_err("not yet");
    assert!(early.contains("tls.crt: begins in 2 days only"), "{early}");
}

#[test]
fn an_authority_is_made_once_and_keeps_its_key() {
    let place = Place::new();
    place.authority();
    let files = || [AUTHORITIES_FILE, "ca.key"].map(|file| fs::read(place.directory.path().join(file)).expect("a file"));
    let made = files();
    let first = place.node("us_east");
    assert_eq!(files(), made, "it was not made again");
    let mode = fs::metadata(place.directory.path().join("ca.key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::metadata(first.directory().join(KEY_FILE)).expect("a key").permissions().mode() & 0o777, 0o600);
    // Another's key beside it issues nothing.
    let other = Place::new();
    other.authority();
    fs::copy(other.directory.path().join("ca.key"), place.directory.path().join("ca.key")).expect("copied");
    let why = Authority::open(place.directory.path(), MESH, SystemTime::now()).expect_err("another's key").to_string();
    assert!(why.contains("ca.key: is not the key of ca.crt"), "{why}");
}

/// Callers and peers take chains of four, and a node that nobody believes is one that does not start.
#[test]
fn a_chain_that_is_longer_than_anybody_believes_is_refused_where_it_is_read() {
    let place = Place::new();
    let directory = place.issue("eu_west", SystemTime::now(), DAY);
    let own = fs::read_to_string(directory.join(CERTIFICATE_FILE)).expect("issued");
    let authority = fs::read_to_string(directory.join(AUTHORITIES_FILE)).expect("issued");
    let chain = |others: usize| fs::write(directory.join(CERTIFICATE_FILE), own.clone() + &authority.repeat(others)).expect("written");
    chain(3);
    load(&directory, "eu_west").expect("four are believed");
    chain(4);
    let refused = load(&directory, "eu_west").expect_err("five are not");
    assert!(refused.contains("tls.crt: has 5 certificates, and nobody believes a chain of more than 4"), "{refused}");
}
