//! Who is let in by which token, and as whom: real keys, real files, a real web server.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use paymesh_access::{Caller, Callers, Grant, Refusal, Settings, TokenIssuer, Wanted, Watched};
use paymesh_contract::policies;
use paymesh_topology::{Access, Topology};
use paymesh_types::UserId;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

const REGIONS: &str = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: '127.0.0.1:1', http: '127.0.0.1:2'}
  eu_west: {grpc: '127.0.0.1:3', http: '127.0.0.1:4'}
";

const ACCESS: &str = "
issuers:
  dev: {issuer: dev-issuer, audience: test, keys: {file: keys.json}, clock_skew_seconds: 10, token_lifetime_seconds_max: 3600}
principals:
  checkout:
    tokens: {issuer: dev, claims: {sub: checkout}}
    scopes: [payments.read, payments.write]
    zones: [eu]
    users: any
    limits: {calls_per_second: 5}
  app:
    tokens: {issuer: dev, claims: {azp: app, sub: '7'}}
    scopes: [payments.read]
    zones: any
    users: own
  clerk:
    tokens: {issuer: dev, claims: {sub: clerk}}
    scopes: [payments.read]
    zones: any
    users: {claim: customers}
";

/// When all of it happens.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn seconds() -> u64 {
    1_800_000_000
}

/// A key of an issuer.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    jwk: Jwk,
}

impl Signer {
    fn new(id: &str, algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .expect("a key");
        let der = pair.serialized_der();
        let (key, jwk) = match algorithm {
            Algorithm::EdDSA => {
                (EncodingKey::from_ed_der(der), Jwk::from_decoding_key(&DecodingKey::from_ed_der(pair.public_key_raw()), Some(algorithm)))
            }
            _ => {
                let key = match algorithm {
                    Algorithm::ES256 => EncodingKey::from_ec_der(der),
                    // Without what PKCS #8 puts around a key of 2048 bits.
                    _ => EncodingKey::from_rsa_der(&der[26..]),
                };
                let jwk = Jwk::from_encoding_key(&key, algorithm);
                (key, jwk)
            }
        };
        let mut jwk = jwk.expect("a public key");
        jwk.common.key_id = Some(id.to_owned());
        Self { key, algorithm, jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk.common.key_id.clone();
        encode(&header, claims, &self.key).expect("a token")
    }
}

/// A token's header, claims and signature, put together.
fn put_together(header: &Value, claims: &Value, signature: &[u8]) -> String {
    [header.to_string().as_bytes(), claims.to_string().as_bytes(), signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

fn set(signers: &[&Signer]) -> String {
    serde_json::to_string(&JwkSet { keys: signers.iter().map(|signer| signer.jwk.clone()).collect() }).expect("JSON")
}

fn claims() -> Value {
    json!({"iss": "dev-issuer", "aud": "test", "sub": "checkout", "iat": seconds() - 60, "exp": seconds() + 600, "jti": "t-1"})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        let map = claims.as_object_mut().expect("an object");
        if value.is_null() {
            map.remove(name)
        } else {
            map.insert(name.clone(), value.clone())
        };
    }
    claims
}

/// A configuration's folder, which is that of the credentials too.
struct Place(TempDir);

impl Place {
    fn new(access: &str, keys: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.write("access.yaml", access);
        place.write("keys.json", keys);
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("written");
    }

    fn try_load(&self) -> Result<Callers, String> {
        let topology = Arc::new(Topology::parse("regions.yaml", REGIONS).expect("a topology"));
        Callers::load(Settings::new(self.path(), self.path(), topology), Instant::now()).map_err(|error| error.to_string())
    }

    fn load(&self) -> Callers {
        self.try_load().expect("callers")
    }
}

fn reason(callers: &Callers, token: &str) -> &'static str {
    callers.by_token(token, now()).map_or_else(|refusal| refusal.reason(), |_| "let in")
}

fn user(id: u64) -> UserId {
    UserId::try_from(id).expect("a user")
}

#[tokio::test]
async fn tokens_of_each_algorithm_are_taken_and_nothing_that_only_looks_like_one() {
    let (ed, ec, rsa) = (Signer::new("ed", Algorithm::EdDSA), Signer::new("ec", Algorithm::ES256), Signer::new("rsa", Algorithm::RS256));
    let stranger = Signer { jwk: ed.jwk.clone(), ..Signer::new("ed", Algorithm::EdDSA) };
    let callers = Place::new(ACCESS, &set(&[&ed, &ec, &rsa])).load();
    for signer in [&ed, &ec, &rsa] {
        assert_eq!(reason(&callers, &signer.sign(&claims())), "let in", "{:?}", signer.algorithm);
    }
    let good = ed.sign(&claims());
    let [header, body, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let other_body = URL_SAFE_NO_PAD.encode(with(json!({"exp": seconds() + 601})).to_string());
    // A secret that everybody knows: the public key, as HMAC would take it.
    let public = serde_json::to_vec(&rsa.jwk).expect("JSON");
    let confused = {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("rsa".to_owned());
        encode(&header, &claims(), &EncodingKey::from_secret(&public)).expect("a token")
    };
    let under_another_id = {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("ec".to_owned());
        encode(&header, &claims(), &ed.key).expect("a token")
    };
    let without_id = encode(&Header::new(Algorithm::EdDSA), &claims(), &ed.key).expect("a token");
    let critical = {
        let header = json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"]});
        let message = put_together(&header, &claims(), b"");
        let message = message.trim_end_matches('.');
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &ed.key, Algorithm::EdDSA).expect("signed");
        format!("{message}.{signature}")
    };
    for (token, wanted) in [
        (String::new(), "TOKEN_INVALID"),
        ("a.b".to_owned(), "TOKEN_INVALID"),
        ("a.b.c.d".to_owned(), "TOKEN_INVALID"),
        (put_together(&json!({"alg": "none"}), &claims(), b""), "TOKEN_INVALID"),
        (put_together(&json!({"alg": "None", "kid": "ed"}), &claims(), b""), "TOKEN_INVALID"),
        (put_together(&json!({"alg": "EdDSA", "kid": "ed"}), &claims(), b""), "TOKEN_INVALID"),
        (confused, "TOKEN_KEY_UNKNOWN"),
        (under_another_id, "TOKEN_KEY_UNKNOWN"),
        (without_id, "TOKEN_KEY_UNKNOWN"),
        (critical, "TOKEN_INVALID"),
        (stranger.sign(&claims()), "TOKEN_INVALID"),
        (format!("{header}.{other_body}.{signature}"), "TOKEN_INVALID"),
        (format!("{header}.{body}.{}", &signature[..80]), "TOKEN_INVALID"),
        (format!("{header}.{body}."), "TOKEN_INVALID"),
        (format!("{good} "), "TOKEN_INVALID"),
        (ed.sign(&with(json!({"pad": "x".repeat(9_000)}))), "TOKEN_INVALID"),
    ] {
        assert_eq!(reason(&callers, &token), wanted, "{token}");
    }
    assert_eq!(reason(&callers, &good), "let in", "what is refused changes nothing");
}

#[tokio::test]
async fn a_token_is_for_this_mesh_and_its_time_and_names_one_principal() {
    let ed = Signer::new("ed", Algorithm::EdDSA);
    let callers = Place::new(ACCESS, &set(&[&ed])).load();
    for (changes, wanted) in [
        (json!({"iss": "other"}), "TOKEN_ISSUER_UNKNOWN"),
        (json!({"iss": null}), "TOKEN_INVALID"),
        (json!({"aud": "production"}), "TOKEN_AUDIENCE_WRONG"),
        (json!({"aud": null}), "TOKEN_AUDIENCE_WRONG"),
        (json!({"aud": ["other", "test"]}), "let in"),
        (json!({"aud": []}), "TOKEN_AUDIENCE_WRONG"),
        (json!({"exp": null}), "TOKEN_INVALID"),
        (json!({"exp": "tomorrow"}), "TOKEN_INVALID"),
        (json!({"exp": -1}), "TOKEN_INVALID"),
        // Clocks may be ten seconds apart, and no more.
        (json!({"exp": seconds() - 9}), "let in"),
        (json!({"exp": seconds() - 10}), "CREDENTIAL_EXPIRED"),
        (json!({"exp": 0}), "CREDENTIAL_EXPIRED"),
        (json!({"nbf": seconds() + 10}), "let in"),
        (json!({"nbf": seconds() + 11}), "TOKEN_NOT_YET_VALID"),
        (json!({"iat": seconds() + 11}), "TOKEN_NOT_YET_VALID"),
        (json!({"iat": null}), "TOKEN_LIFETIME_TOO_LONG"),
        (json!({"iat": seconds() - 60, "exp": seconds() + 3_540}), "let in"),
        (json!({"iat": seconds() - 60, "exp": seconds() + 3_541}), "TOKEN_LIFETIME_TOO_LONG"),
        (json!({"exp": u64::MAX}), "TOKEN_INVALID"),
        (json!({"exp": 1_800_000_600.7}), "let in"),
        (json!({"sub": "Checkout"}), "PRINCIPAL_UNKNOWN"),
        (json!({"sub": null}), "PRINCIPAL_UNKNOWN"),
        (json!({"sub": ["checkout"]}), "TOKEN_INVALID"),
        (json!({"scope": 7}), "let in"),
        (json!({"scope": {}}), "TOKEN_INVALID"),
    ] {
        assert_eq!(reason(&callers, &ed.sign(&with(changes.clone()))), wanted, "{changes}");
    }
    // What was let in once is not let in past its end.
    let token = ed.sign(&claims());
    assert!(callers.by_token(&token, now()).is_ok());
    assert_eq!(callers.by_token(&token, now() + Duration::from_secs(610)).expect_err("it has ended"), Refusal::Expired);
    // Nor before its beginning, when the clock is put back.
    assert_eq!(callers.by_token(&token, now() - Duration::from_secs(71)).expect_err("it has not begun"), Refusal::NotYetValid);
}

fn grant(callers: &Callers, token: &str) -> (Arc<Grant>, Caller) {
    let grant = callers.by_token(token, now()).expect("let in");
    (grant.clone(), Caller::Known(grant))
}

#[tokio::test]
async fn a_caller_does_what_its_principal_may_and_its_token_says() {
    let ed = Signer::new("ed", Algorithm::EdDSA);
    let callers = Place::new(ACCESS, &set(&[&ed])).load();
    let (eu, global) = ("eu".parse().expect("a zone"), "global".parse().expect("a zone"));
    let may = |caller: &Caller, method: &str| {
        let policy = policies().methods().find(|policy| policy.method == method).expect("a method");
        caller.may_call(policy, false).map_err(|refusal| refusal.reason())
    };

    let (known, checkout) = grant(&callers, &ed.sign(&claims()));
    assert_eq!(known.principal(), "checkout");
    assert_eq!(may(&checkout, "CreatePayment"), Ok(()));
    assert_eq!(may(&checkout, "GetBalance"), Err("SCOPE_MISSING"));
    assert_eq!(may(&checkout, "Follow"), Err("NODES_ONLY"));
    assert!(checkout.acts_for(user(1), Some(&eu)).is_ok());
    let other_zone = checkout.acts_for(user(2), Some(&global)).expect_err("another zone's");
    let nobody = checkout.acts_for(user(3), None).expect_err("nobody");
    assert_eq!(other_zone, nobody, "who is not there and who is not theirs look the same");
    assert!(checkout.pays_into(&eu) && !checkout.pays_into(&global));
    assert!(checkout.acts_for_all_of(&eu).is_ok() && checkout.acts_for_all_of(&global).is_err());
    let begun = (0..100).filter(|_| checkout.begin(Instant::now()).is_ok()).count();
    assert!((10..15).contains(&begun), "five a second, and ten at once: {begun}");
    let (_, again) = grant(&callers, &ed.sign(&with(json!({"jti": "t-2"}))));
    assert_eq!(again.begin(Instant::now()).expect_err("another token is the same principal's").reason(), "RATE_LIMITED");

    let (_, less) = grant(&callers, &ed.sign(&with(json!({"scope": "payments.read other.scope"}))));
    assert_eq!([may(&less, "GetPayment"), may(&less, "CreatePayment")], [Ok(()), Err("SCOPE_MISSING")]);
    let (_, nothing) = grant(&callers, &ed.sign(&with(json!({"scope": ""}))));
    assert_eq!(may(&nothing, "GetPayment"), Err("SCOPE_MISSING"));

    let (_, own) = grant(&callers, &ed.sign(&with(json!({"sub": "7", "azp": "app"}))));
    assert!(own.acts_for(user(7), Some(&global)).is_ok() && own.acts_for(user(8), Some(&global)).is_err());
    assert!(own.acts_for_either(user(8), user(7)).is_ok() && own.acts_for_either(user(8), user(9)).is_err());
    assert!(own.acts_for_all().is_err() && own.acts_for_all_of(&eu).is_err());

    for (customers, wanted) in [
        (json!([4, "5"]), Some(BTreeSet::from([4, 5]))),
        (json!("4 5"), Some(BTreeSet::from([4, 5]))),
        (json!(4), Some(BTreeSet::from([4]))),
        (json!([]), Some(BTreeSet::new())),
        (json!([4, -1]), None),
        (json!([4, [5]]), None),
        (json!("all"), None),
        (json!(true), None),
        (json!((1..=300).collect::<Vec<u64>>()), None),
        (Value::Null, None),
    ] {
        let token = ed.sign(&with(json!({"sub": "clerk", "customers": customers})));
        let Some(wanted) = wanted else {
            assert_eq!(reason(&callers, &token), "TOKEN_INVALID", "{customers}");
            continue;
        };
        let (_, clerk) = grant(&callers, &token);
        let found: BTreeSet<u64> = (1..10).filter(|id| clerk.acts_for(user(*id), Some(&eu)).is_ok()).collect();
        assert_eq!(found, wanted, "{customers}");
        assert!(clerk.is_bound_to_users(), "{customers}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_files_hold_at_once_and_end_what_they_no_longer_grant_and_those_that_do_not_fit_change_nothing() {
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::ES256));
    let place = Place::new(ACCESS, &set(&[&old]));
    let callers = place.load();
    let token = old.sign(&claims());
    let (held, _) = grant(&callers, &token);
    assert!(!callers.reload(Instant::now()).expect("the same files"));

    // An overlap, as issuers rotate.
    place.write("keys.json", &set(&[&old, &new]));
    assert!(callers.reload(Instant::now()).expect("good files"));
    assert_eq!([reason(&callers, &token), reason(&callers, &new.sign(&claims()))], ["let in"; 2]);
    let ended = callers.ended(held.clone(), now);
    tokio::pin!(ended);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut ended).await.is_err(), "it goes on");

    fs::rename(place.path().join("access.yaml"), place.path().join("moved.yaml")).expect("moved");
    assert!(callers.reload(Instant::now()).expect_err("it is gone").to_string().contains("access.yaml: is gone"));
    fs::rename(place.path().join("moved.yaml"), place.path().join("access.yaml")).expect("moved");
    for (file, text, wanted) in [
        ("keys.json", r#"{"keys": []}"#, "has no key"),
        ("keys.json", "", "is no JWK Set"),
        ("access.yaml", "principals: {}", "must not be empty"),
    ] {
        let good = fs::read_to_string(place.path().join(file)).expect("there");
        place.write(file, text);
        let error = callers.reload(Instant::now()).expect_err(wanted).to_string();
        assert!(error.contains(wanted) && error.contains(file), "{error}");
        assert_eq!(reason(&callers, &token), "let in", "what was read before stays");
        assert!(place.try_load().is_err(), "a node does not start with it");
        place.write(file, &good);
    }

    place.write("keys.json", &set(&[&new]));
    assert!(callers.reload(Instant::now()).expect("good files"));
    assert_eq!(reason(&callers, &token), "TOKEN_KEY_UNKNOWN", "also one that was let in before");
    let refusal = tokio::time::timeout(Duration::from_secs(1), ended).await.expect("a stream ends with its key");
    assert_eq!(refusal, Refusal::KeyUnknown);

    let (held, _) = grant(&callers, &new.sign(&claims()));
    place.write("access.yaml", &ACCESS.replacen("zones: [eu]", "zones: [global]", 1));
    assert!(callers.reload(Instant::now()).expect("good files"));
    let refusal = tokio::time::timeout(Duration::from_secs(1), callers.ended(held, now)).await;
    assert_eq!(refusal.expect("also who looks after it was told").reason(), "GRANT_REDUCED");
}

#[tokio::test(start_paused = true)]
async fn a_grant_ends_with_its_token_and_when_it_would_be_less() {
    let ed = Signer::new("ed", Algorithm::EdDSA);
    let place = Place::new(ACCESS, &set(&[&ed]));
    let callers = place.load();
    let (held, _) = grant(&callers, &ed.sign(&with(json!({"exp": seconds() + 20}))));
    let began = Instant::now();
    assert_eq!(callers.ended(held, || now() + began.elapsed()).await, Refusal::Expired);
    assert_eq!(began.elapsed().as_secs(), 30, "its time and what clocks may differ by");

    let (held, _) = grant(&callers, &ed.sign(&claims()));
    let ended = tokio::spawn({
        let callers = callers.clone();
        async move { callers.ended(held, now).await }
    });
    tokio::task::yield_now().await;
    for (from, to) in [("payments.write]", "payments.write, wallets.read]"), ("zones: [eu]", "zones: [global]")] {
        assert!(!ended.is_finished(), "more than it had is no reason to end");
        let access = fs::read_to_string(place.path().join("access.yaml")).expect("there");
        place.write("access.yaml", &access.replacen(from, to, 1));
        assert!(callers.reload(Instant::now()).expect("good files"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(ended.await.expect("no panic").reason(), "GRANT_REDUCED");
}

/// Whatever of a grant becomes less ends the streams that rest on it, and nothing else does.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_any_part_of_its_grant_becomes_less_and_goes_on_when_it_becomes_more() {
    let ed = Signer::new("ed", Algorithm::EdDSA);
    let clerk = json!({"sub": "clerk", "customers": [4, 5], "fewer": [4], "more": [4, 5, 6]});
    let clerks = "users: {claim: customers}";
    for (claims, from, to, ends) in [
        (json!({}), "payments.write]", "wallets.read]", true),
        (json!({}), "[payments.read, payments.write]", "[payments.write, wallets.read, payments.read]", false),
        (json!({}), "zones: [eu]", "zones: [eu, global]", false),
        (json!({}), "zones: [eu]", "zones: any", false),
        (json!({}), "zones: [eu]", "zones: [global]\n    pays: [eu]", true),
        (json!({}), "zones: [eu]", "zones: [eu]\n    pays: [global]", true),
        (json!({}), "zones: [eu]", "zones: [eu]\n    pays: any", false),
        (clerk.clone(), "zones: any\n    users: {claim", "zones: [eu, global]\n    users: {claim", true),
        (json!({}), "calls_per_second: 5", "calls_per_second: 6", false),
        (json!({}), "checkout:", "till:", true),
        (clerk.clone(), clerks, "users: {claim: fewer}", true),
        (clerk.clone(), clerks, "users: {claim: more}", false),
        (clerk, clerks, "users: any", false),
    ] {
        let place = Place::new(ACCESS, &set(&[&ed]));
        let callers = place.load();
        let (held, _) = grant(&callers, &ed.sign(&with(claims)));
        let ended = callers.ended(held, now);
        tokio::pin!(ended);
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut ended).await.is_err(), "nothing has changed");
        assert!(ACCESS.contains(from), "{from}");
        place.write("access.yaml", &ACCESS.replacen(from, to, 1));
        assert!(callers.reload(Instant::now()).expect("good files"), "{to}");
        assert_eq!(tokio::time::timeout(Duration::from_millis(1), ended).await.is_ok(), ends, "{from} became {to}");
    }
}

/// Answers every request on a port of this machine with what is in the cell now.
async fn web_server(answer: Arc<Mutex<String>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let answer = answer.lock().expect("no panic").clone();
            let mut asked = vec![0; 4_096];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_at_a_url_are_asked_for_and_asked_for_again_when_a_token_has_another() {
    let (old, new) = (Signer::new("old", Algorithm::EdDSA), Signer::new("new", Algorithm::EdDSA));
    let served = Arc::new(Mutex::new(answer("503 Service Unavailable", "")));
    let port = web_server(served.clone()).await;
    let access = ACCESS.replace("{file: keys.json}", &format!("{{url: 'http://127.0.0.1:{port}/keys'}}"));
    let place = Place::new(&access, "");
    let callers = place.load();
    assert_eq!(reason(&callers, &old.sign(&claims())), "TOKEN_KEYS_MISSING");
    let told = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn({
        let (callers, told) = (callers.clone(), told.clone());
        async move { callers.watch(|watched| told.lock().expect("no panic").push(watched)).await }
    });
    let deadline = Instant::now() + Duration::from_secs(90);
    let wait_for = async |token: &str, wanted: &str| {
        while reason(&callers, token) != wanted {
            assert!(Instant::now() < deadline, "still {} instead of {wanted}: {told:?}", reason(&callers, token));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    while told.lock().expect("no panic").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(format!("{told:?}").contains("answered 503"), "{told:?}");
    *served.lock().expect("no panic") = answer("200 OK", &set(&[&old]));
    wait_for(&old.sign(&claims()), "let in").await;
    // Sooner than it would be asked again by itself.
    *served.lock().expect("no panic") = answer("200 OK", &set(&[&new]));
    wait_for(&new.sign(&claims()), "let in").await;
    assert_eq!(reason(&callers, &old.sign(&claims())), "TOKEN_KEY_UNKNOWN");
    // An answer that is none changes nothing.
    *served.lock().expect("no panic") = answer("200 OK", "{}");
    assert_eq!(reason(&callers, &old.sign(&claims())), "TOKEN_KEY_UNKNOWN");
    assert_eq!(reason(&callers, &new.sign(&claims())), "let in");
    watching.abort();
}

/// An authority of the web, and its server for this machine's name.
fn web() -> (String, rustls::ServerConfig) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters").signed_by(&own, &issuer).expect("a certificate");
    let key = PrivateKeyDer::try_from(own.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("they fit");
    (authority.pem(), config)
}

/// By the authorities in the file that access.yaml names, beside the other credentials, and by no others.
#[tokio::test]
async fn keys_at_an_https_url_are_taken_from_a_server_that_a_named_authority_vouches_for_and_from_no_other() {
    let ed = Signer::new("ed", Algorithm::EdDSA);
    let ((authority, server), (other_authority, _)) = (web(), web());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let keys = set(&[&ed]);
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        loop {
            let Ok(mut stream) = acceptor.accept(listener.accept().await.expect("a connection").0).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer("200 OK", &keys).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    for (host, file, wanted) in [
        ("127.0.0.1", authority, None),
        ("127.0.0.1", other_authority, Some("is not believed")),
        ("localhost", web().0, Some("is not believed")),
        ("127.0.0.1", "no PEM".to_owned(), Some("web.pem")),
    ] {
        let access = ACCESS.replace("{file: keys.json}", &format!("{{url: 'https://{host}:{port}/keys', authorities: web.pem}}"));
        let place = Place::new(&access, "");
        place.write("web.pem", &file);
        let callers = place.load();
        let (tell, mut told) = tokio::sync::mpsc::channel(64);
        let watching = tokio::spawn({
            let callers = callers.clone();
            async move { callers.watch(|watched| drop(tell.try_send(watched))).await }
        });
        let seen = tokio::time::timeout(Duration::from_secs(30), async {
            match wanted {
                None => {
                    while reason(&callers, &ed.sign(&claims())) != "let in" {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                Some(why) => while !matches!(told.recv().await, Some(Watched::Problem(said)) if said.contains(why)) {},
            }
        });
        seen.await.unwrap_or_else(|_| panic!("{host}: {wanted:?}"));
        assert_eq!(reason(&callers, &ed.sign(&claims())), if wanted.is_some() { "TOKEN_KEYS_MISSING" } else { "let in" }, "{host}");
        watching.abort();
    }
}

#[tokio::test]
async fn without_access_yaml_nobody_is_let_in() {
    let place = Place::new(ACCESS, "");
    fs::remove_file(place.path().join("access.yaml")).expect("removed");
    let callers = place.load();
    assert!(callers.is_empty());
    assert_eq!(reason(&callers, &Signer::new("ed", Algorithm::EdDSA).sign(&claims())), "TOKEN_ISSUER_UNKNOWN");
}

#[tokio::test]
async fn tokens_for_development_are_let_in_as_whom_they_are_for() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    let topology = Arc::new(Topology::load(&shipped).expect("the shipped topology"));
    let credentials = tempfile::tempdir().expect("a folder");
    let issuer = TokenIssuer::open_or_make(credentials.path()).expect("an issuer");
    let callers = Callers::load(Settings::new(&shipped, credentials.path(), topology.clone()), Instant::now()).expect("callers");
    let access = Access::load(&shipped, &topology, &policies().caller_scopes()).expect("sound").expect("it ships");
    let issue = |name: &str, wanted: &Wanted| {
        let principal = access.principals().iter().find(|principal| principal.name == name).expect("a principal");
        issuer.issue(&access.issuers()[0], principal, wanted, now()).map_err(|error| error.to_string())
    };
    let wanted = Wanted { holds: Duration::from_secs(600), ..Wanted::default() };
    let issued = issue("checkout", &wanted).expect("a token");
    assert_eq!(grant(&callers, &issued.token).0.principal(), "checkout");
    assert_eq!(issued.expires, now() + Duration::from_secs(600));
    let own = issue("wallet_app", &Wanted { users: vec![4_100], ..wanted.clone() }).expect("a token");
    let (_, own) = grant(&callers, &own.token);
    assert!(own.acts_for(user(4_100), Some(&"eu".parse().expect("a zone"))).is_ok() && own.acts_for_all().is_err());
    for (name, wanted, why) in [
        ("operator", wanted.clone(), "is not known by tokens"),
        ("wallet_app", wanted.clone(), "name one"),
        ("checkout", Wanted { users: vec![1], ..wanted.clone() }, "its tokens name none"),
        ("support_eu", Wanted { scopes: vec!["payments.write".to_owned()], ..wanted.clone() }, "does not have the scope"),
        ("checkout", Wanted { holds: Duration::from_secs(90_000), ..wanted.clone() }, "holds for 86400 s at most"),
    ] {
        let error = issue(name, &wanted).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
    // It stays the issuer that it is.
    let again = TokenIssuer::open_or_make(credentials.path()).expect("an issuer");
    assert_eq!(format!("{again:?}"), format!("{issuer:?}"));
}
