//! Which keys cards are sealed to: what the vault's node has signed, whoever passed it on.

#![forbid(unsafe_code)]

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use paymesh_cards::{SEALING_KEY_PURPOSE, sealing_key_statement};
use paymesh_client::{SealError, Trust, VaultKey, Vaults};
use paymesh_contract::{
    timestamp,
    vault::v1::{GetVaultKeyResponse, VaultKeySignature},
};
use paymesh_identity::{Authority, CallerName, Identity, NodeName, NotSigned};
use paymesh_types::{RegionName, Timestamp, UserId, ZoneName};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tempfile::TempDir;

const MESH: &str = "paymesh-test";
/// Whose cards are to be sealed.
const USER: u64 = 5_001;
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn region(name: &str) -> RegionName {
    name.parse().expect("a region")
}

fn user(id: u64) -> UserId {
    id.try_into().expect("a user")
}

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone")
}

/// An authority, and what it has issued.
struct Place {
    directory: TempDir,
    now: SystemTime,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().expect("a directory"), now: SystemTime::now() };
        place.authority();
        place
    }

    fn authority(&self) -> Authority {
        Authority::open(self.directory.path(), MESH, self.now).expect("an authority")
    }

    fn issued(&self, mesh: &str, name: &str, service: &str) -> PathBuf {
        let directory = self.directory.path().join(format!("{mesh}-{name}-{service}"));
        let named = NodeName::new(mesh, &region(name), service).expect("a name");
        self.authority().issue_node(&named, &["127.0.0.1".to_owned()], &directory, self.now, DAY).expect("issued");
        directory
    }

    fn node(&self, name: &str) -> Identity {
        Identity::load(&self.issued(MESH, name, NodeName::NODE), MESH, &region(name), self.now).expect("an identity")
    }

    /// What callers believe: the vaults of both zones.
    fn vaults(&self) -> Vaults {
        let vaults = [(zone("eu"), region("eu_west")), (zone("global"), region("us_east"))];
        Vaults::new(Trust::load(self.directory.path()).expect("an authority"), MESH, vaults).expect("vaults")
    }

    /// Until when the key of these tests holds: longer than the certificates.
    fn ends_at(&self) -> Timestamp {
        let micros = (self.now + 30 * DAY).duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
        Timestamp(micros.try_into().expect("a time"))
    }

    /// What a vault answers whose node this is.
    fn answer(&self, node: &Identity, name: &str) -> GetVaultKeyResponse {
        let public_key = vec![4; 65];
        let signed =
            node.sign(SEALING_KEY_PURPOSE, &sealing_key_statement(user(USER), &zone(name), self.ends_at(), &public_key)).expect("signed");
        GetVaultKeyResponse {
            key_id: "one".to_owned(),
            public_key,
            zone: name.to_owned(),
            ends_at: Some(timestamp(self.ends_at())),
            signature: Some(VaultKeySignature {
                scheme: signed.scheme.into(),
                signature: signed.signature,
                certificates: signed.certificates,
            }),
        }
    }
}

fn forged(key: &Result<VaultKey, SealError>) -> bool {
    matches!(key, Err(SealError::NotSigned(NotSigned::Forged)))
}

fn unbelieved(key: &Result<VaultKey, SealError>) -> bool {
    matches!(key, Err(SealError::NotSigned(NotSigned::Unbelieved(_))))
}

#[test]
fn the_key_that_a_vaults_node_has_signed_is_believed() {
    let place = Place::new();
    let vaults = place.vaults();
    for (name, zone) in [("eu_west", "eu"), ("us_east", "global")] {
        let key = vaults.key(USER, &place.answer(&place.node(name), zone), place.now).expect("a key");
        assert_eq!(key.zone().as_str(), zone);
    }
}

#[test]
fn what_was_changed_on_the_way_is_not() {
    let place = Place::new();
    let (vaults, good) = (place.vaults(), place.answer(&place.node("eu_west"), "eu"));
    let key = |change: &dyn Fn(&mut GetVaultKeyResponse)| {
        let mut answer = good.clone();
        change(&mut answer);
        vaults.key(USER, &answer, place.now)
    };
    let signature = |change: &dyn Fn(&mut VaultKeySignature)| key(&|answer| change(answer.signature.as_mut().expect("it is signed")));
    assert!(forged(&key(&|answer| answer.public_key[40] ^= 1)));
    assert!(forged(&key(&|answer| answer.zone = "global".to_owned())));
    assert!(forged(&key(&|answer| answer.ends_at.as_mut().expect("an end").seconds += 1)));
    assert!(forged(&key(&|answer| answer.ends_at.as_mut().expect("an end").nanos ^= 1)));
    assert!(forged(&key(&|answer| answer.ends_at = None)));
    // What was said of another user, who may be of another zone: the vault there says nothing of this one.
    assert!(forged(&vaults.key(USER + 1, &good, place.now)));
    assert!(matches!(vaults.key(0, &good, place.now), Err(SealError::Invalid(_))));
    // A byte of the name that goes over to the next field.
    assert!(forged(&key(&|answer| answer.zone = "e".to_owned())));
    assert!(matches!(key(&|answer| answer.zone = String::new()), Err(SealError::Invalid(_))));
    assert!(matches!(key(&|answer| answer.signature = None), Err(SealError::Unsigned)));
    for byte in [0, 20, 60] {
        assert!(forged(&signature(&|signature| signature.signature[byte] ^= 1)), "byte {byte}");
    }
    assert!(forged(&signature(&|signature| signature.signature.clear())));
    // Of other kinds, among them one whose number is the right one in sixteen bits.
    for scheme in [0, 0x0503, 0x0401, 0x0804, 0x1_0403] {
        assert!(forged(&signature(&|signature| signature.scheme = scheme)), "{scheme}");
    }
    assert!(matches!(signature(&|signature| signature.certificates.clear()), Err(SealError::NotSigned(NotSigned::Chain(_)))));
    let many = signature(&|signature| signature.certificates = vec![signature.certificates[0].clone(); 5]);
    assert!(matches!(many, Err(SealError::NotSigned(NotSigned::Chain(_)))));
    assert!(unbelieved(&signature(&|signature| signature.certificates[0] = b"no certificate".to_vec())));
    // The certificate of somebody else's signature.
    let others = place.answer(&place.node("us_east"), "eu").signature.expect("it is signed").certificates;
    assert!(forged(&signature(&|signature| signature.certificates.clone_from(&others))));
}

/// Whoever is between the caller and the vault has a certificate of the mesh's, or none.
#[test]
fn nobodys_key_but_the_vaults_is_believed() {
    let place = Place::new();
    let vaults = place.vaults();
    // Nodes: of a region without a vault, and of another zone's vault.
    for name in ["asia_pacific", "us_east"] {
        let error = vaults.key(USER, &place.answer(&place.node(name), "eu"), place.now).expect_err("it is refused");
        assert!(matches!(&error, SealError::AnotherNode { signer, .. } if signer.region().as_str() == name), "{error}");
    }
    // The edge of the region that has the vault.
    let edge = place.issued(MESH, "eu_west", NodeName::EDGE);
    let edge = Identity::load_edge(&edge, MESH, &region("eu_west"), place.now).expect("an identity");
    let error = vaults.key(USER, &place.answer(&edge, "eu"), place.now).expect_err("it is refused");
    assert!(matches!(&error, SealError::NotSigned(NotSigned::NotANode(name)) if name.ends_with("/eu_west/edge")), "{error}");
    // A caller, whose certificate is not for servers.
    let caller = place.directory.path().join("caller");
    place.authority().issue_caller(&CallerName::new(MESH, "node").expect("a name"), &caller, place.now, DAY).expect("issued");
    let mut answer = place.answer(&edge, "eu");
    let certificate = CertificateDer::from_pem_file(caller.join("tls.crt")).expect("a certificate");
    answer.signature.as_mut().expect("it is signed").certificates = vec![certificate.to_vec()];
    assert!(unbelieved(&vaults.key(USER, &answer, place.now)));
    // The same name in another mesh of the same authority, and with another authority.
    let other_mesh = Identity::load(&place.issued("other", "eu_west", NodeName::NODE), "other", &region("eu_west"), place.now);
    let error = vaults.key(USER, &place.answer(&other_mesh.expect("an identity"), "eu"), place.now).expect_err("it is refused");
    assert!(matches!(&error, SealError::AnotherNode { signer, .. } if signer.mesh() == "other"), "{error}");
    let elsewhere = Place::new();
    assert!(unbelieved(&vaults.key(USER, &elsewhere.answer(&elsewhere.node("eu_west"), "eu"), place.now)));
}

#[test]
fn a_signature_is_for_what_it_was_made_for_and_for_its_time() {
    let place = Place::new();
    let (vaults, node) = (place.vaults(), place.node("eu_west"));
    let mut answer = place.answer(&node, "eu");
    let signed = node.sign("paymesh/something/else", &sealing_key_statement(user(USER), &zone("eu"), place.ends_at(), &answer.public_key));
    answer.signature.as_mut().expect("it is signed").signature = signed.expect("signed").signature;
    assert!(forged(&vaults.key(USER, &answer, place.now)));

    let answer = place.answer(&node, "eu");
    // The node has another certificate by then, and its vault gives the key out with that.
    assert!(unbelieved(&vaults.key(USER, &answer, place.now + 2 * DAY)));
    let directory = place.directory.path().join("longer");
    let named = NodeName::new(MESH, &region("eu_west"), NodeName::NODE).expect("a name");
    place.authority().issue_node(&named, &["127.0.0.1".to_owned()], &directory, place.now, 60 * DAY).expect("issued");
    let node = Identity::load(&directory, MESH, &region("eu_west"), place.now).expect("an identity");
    let answer = place.answer(&node, "eu");
    vaults.key(USER, &answer, place.now + 29 * DAY).expect("a key");
    assert!(matches!(vaults.key(USER, &answer, place.now + 30 * DAY), Err(SealError::Ended(0))));
    assert!(matches!(vaults.key(USER, &answer, place.now + 31 * DAY), Err(SealError::Ended(86_400))));
}

#[test]
fn another_authority_is_believed_from_when_its_file_is_there() {
    let (place, next) = (Place::new(), Place::new());
    let vaults = place.vaults();
    let (before, after) = (place.answer(&place.node("eu_west"), "eu"), next.answer(&next.node("eu_west"), "eu"));
    vaults.key(USER, &before, place.now).expect("a key");
    assert!(unbelieved(&vaults.key(USER, &after, place.now)));
    std::fs::copy(next.directory.path().join("ca.crt"), place.directory.path().join("ca.crt")).expect("copied");
    vaults.key(USER, &after, place.now).expect("a key");
    assert!(unbelieved(&vaults.key(USER, &before, place.now)));
}
