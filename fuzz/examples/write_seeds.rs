//! Writes the seeds of the fuzz targets anew, after the contract or the journal's format has changed:
//! `cargo run -p paymesh-fuzz --example write_seeds`.

#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use paymesh_access::{ISSUER_DIRECTORY, ISSUER_KEYS_FILE, TokenIssuer, Wanted};
use paymesh_contract::{common, directory, events, mesh, payments, policies};
use paymesh_journal::{Chain, SegmentBuilder, codec};
use paymesh_ledger::{Account, Body, Credit, Effect, Entry, Exempted, LineId, NewPayment, Posting, Reason};
use paymesh_topology::{Access, Topology, UserGrant};
use paymesh_types::{Currency, Cursor, Epoch, HistoryMark, Money, PaymentId, Position, RequestId, Sequence, ShardRef, Timestamp, UserId};
use prost::Message;
use serde_json::{Value, json};

/// The number that each entry gets.
const SEQUENCE: Sequence = Sequence(7);

fn main() -> io::Result<()> {
    for (name, message) in requests() {
        let length = u32::try_from(message.len()).expect("seeds are small");
        write("request_path", name, &[&[0], &length.to_be_bytes()[..], &message].concat())?;
    }

    write("region_config", "ours.yaml", include_bytes!("../../region-config/regions.yaml"))?;
    write("region_config", "small.yaml", SMALL_TOPOLOGY.as_bytes())?;

    write("access_config", "ours.yaml", include_bytes!("../../region-config/access.yaml"))?;
    write("access_config", "demo.yaml", include_bytes!("../../services/paymesh/src/demo/access.yaml"))?;
    write("access_config", "small.yaml", SMALL_ACCESS.as_bytes())?;
    write_tokens()?;

    let mut scratch = codec::Scratch::default();
    let start = Chain::start(shard()).hash();
    let mut segment = SegmentBuilder::new(shard(), Epoch(1), Sequence(1), start, [7; 32]);
    for (name, entry) in entries() {
        let parts = codec::encode(&entry, SEQUENCE, &mut scratch);
        let length = u16::try_from(parts.open.len()).expect("seeds are small");
        write("entry_codec", name, &[&length.to_le_bytes()[..], parts.open, parts.sealed].concat())?;
        // Alone, so that its own number in the segment does not matter to it.
        let mut one = SegmentBuilder::new(shard(), Epoch(1), SEQUENCE, start, [7; 32]);
        one.push(&entry);
        write_segment(name, &one.finish().payload, 1)?;
        segment.push(&entry);
    }
    let segment = segment.finish();
    let zone = "global".parse().expect("a zone");
    let reduced = segment.reduced_for(&zone, &shard()).expect("it was just written");
    let raw = zstd::bulk::decompress(&reduced.payload, paymesh_journal::SEGMENT_BYTES_MAX)?;
    let count = u16::try_from(segment.count).expect("seeds are small").to_le_bytes();
    write("border_segment", "all-packed", &[&count[..], &reduced.payload].concat())?;
    write("border_segment", "all", &[&count[..], &raw].concat())?;
    write_segment("all", &segment.payload, u16::try_from(segment.count).expect("seeds are small"))
}

/// Packed as the journal has it, and unpacked, which is what the target packs by itself.
fn write_segment(name: &str, payload: &[u8], count: u16) -> io::Result<()> {
    let raw = zstd::bulk::decompress(payload, paymesh_journal::SEGMENT_BYTES_MAX)?;
    write("segment_decoder", &format!("{name}-packed"), &[&count.to_le_bytes()[..], payload].concat())?;
    write("segment_decoder", name, &[&count.to_le_bytes()[..], &raw].concat())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// Tokens of an issuer whose key is gone when this ends, its public key, and tokens that are not quite its.
fn write_tokens() -> io::Result<()> {
    let fixed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixed");
    let topology = Topology::parse("regions.yaml", include_str!("../../region-config/regions.yaml")).expect("ours is valid");
    let access = Access::load(&fixed, &topology, &policies().caller_scopes()).expect("it is valid").expect("it is there");
    let folder = tempfile::tempdir()?;
    let own = TokenIssuer::open_or_make(folder.path()).expect("an issuer");
    let mut tokens = Vec::new();
    for principal in access.principals() {
        let users = if principal.users == UserGrant::Any { Vec::new() } else { vec![4_100] };
        let wanted = Wanted { holds: Duration::from_secs(3_600), scopes: Vec::new(), users };
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(paymesh_fuzz::TOKENS_ISSUED_AT);
        let issued = own.issue(&access.issuers()[0], principal, &wanted, at).expect("a token");
        write("jwt", &principal.name, issued.token.as_bytes())?;
        tokens.push(issued.token);
    }
    fs::write(fixed.join("tokens"), tokens.join("\n") + "\n")?;

    // Beside its key those of RFC 7517, appendix A.1, so that tokens may say any algorithm.
    let keys = fs::read(folder.path().join(ISSUER_DIRECTORY).join(ISSUER_KEYS_FILE))?;
    let mut keys: Value = serde_json::from_slice(&keys)?;
    let others: Value = serde_json::from_str(OTHER_KEYS)?;
    let id = keys["keys"][0]["kid"].clone();
    let all = keys["keys"].as_array_mut().expect("a set of keys");
    all.extend(others.as_array().expect("keys").iter().cloned());
    fs::write(fixed.join(ISSUER_DIRECTORY).join(ISSUER_KEYS_FILE), format!("{keys:#}\n"))?;

    let parts: Vec<&str> = tokens[0].split('.').collect();
    let headers = [
        ("alg_none", json!({"alg": "none", "typ": "JWT"})),
        ("alg_hs256", json!({"alg": "HS256", "kid": id})),
        ("alg_es256", json!({"alg": "ES256", "kid": "es"})),
        ("alg_rs256", json!({"alg": "RS256", "kid": "rs"})),
        ("other_key", json!({"alg": "EdDSA", "kid": "rs"})),
        ("critical", json!({"alg": "EdDSA", "kid": id, "crit": ["exp"], "exp": 1})),
        ("key_in_it", json!({"alg": "EdDSA", "kid": id, "jku": "https://127.0.0.1/", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}})),
    ];
    for (name, header) in headers {
        write("jwt", name, format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), parts[1], parts[2]).as_bytes())?;
    }
    write("jwt", "unsigned", format!("{}.{}.", parts[0], parts[1]).as_bytes())
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let request_id = "0193c0de-0000-7000-8000-000000000001".to_owned();
    let create = payments::v1::CreatePaymentRequest {
        request_id: request_id.clone(),
        payer_id: 7,
        payee_id: 8,
        amount: Some(common::v1::Money { minor_units: 1_250, currency_code: "EUR".into() }),
        reference: "rent".into(),
        ..Default::default()
    };
    let enrol = directory::v1::EnrollUserRequest {
        request_id: request_id.clone(),
        user_id: 7,
        residence_country: "DE".into(),
        currency_codes: vec!["EUR".into(), "CZK".into()],
    };
    let capture = payments::v1::CapturePaymentRequest { request_id, payment_id: "pay_eu_1_1_7".into(), amount_minor_units: Some(1_000) };
    let shard = common::v1::ShardRef { zone: "eu".into(), shard: 1 };
    vec![
        ("create_payment", create.encode_to_vec()),
        ("create_payments", payments::v1::CreatePaymentsRequest { payments: vec![create.clone(), create] }.encode_to_vec()),
        ("enrol", enrol.encode_to_vec()),
        ("capture", capture.encode_to_vec()),
        ("look_up", directory::v1::LookUpUsersRequest { user_ids: vec![7, 8, 1 << 62] }.encode_to_vec()),
        ("verify_shard", mesh::v1::VerifyShardRequest { shard: Some(shard), sent_by: Vec::new() }.encode_to_vec()),
        ("subscribe", events::v1::SubscribeRequest { zone: "eu".into(), shard: 1, from_sequence: 3, read: None }.encode_to_vec()),
        ("empty", Vec::new()),
    ]
}

fn entries() -> Vec<(&'static str, Entry)> {
    let [payer, payee] = [7, 8].map(|id: u64| UserId::try_from(id).expect("a user"));
    let eur = Currency::from_code("EUR").expect("a currency");
    let money = Money::new(1_250, eur).expect("an amount");
    let other = ShardRef { zone: "global".parse().expect("a zone"), index: 2 };
    let entry = |body, postings: Vec<Posting>, reference: &str| Entry {
        at: Timestamp(1_800_000_000_000_000),
        request_id: RequestId::from_slice(&[3; 16]).ok(),
        body,
        postings: postings.into(),
        reference: reference.into(),
    };
    let posting = |account, amount, balance_after| Posting {
        account,
        currency: eur,
        amount,
        balance_after,
        held_after: 0,
        previous_line: LineId(0),
        exempted_after: Exempted::default(),
    };
    let new = |payee_shard, declined, hold_s| {
        Body::PaymentCreated(NewPayment { payer, payee, payee_shard, money, hold_s, declined, previous: Sequence(0), card: None })
    };
    let credit = Credit {
        payment: PaymentId::from(Position { shard: other.clone(), epoch: Epoch(1), sequence: Sequence(5) }),
        payer: payee,
        payee: payer,
        money,
        reason: None,
    };
    let external = |amount: i64| posting(Account::External, amount, amount);
    vec![
        (
            "enrolled",
            entry(Body::UserEnrolled { user: payer, country: "DE".parse().expect("a country"), currencies: vec![eur].into() }, vec![], ""),
        ),
        ("claimed", entry(Body::UserClaimed { user: payer, zone: shard().zone }, vec![], "")),
        (
            "deposited",
            entry(Body::Deposited { user: payer, money }, vec![posting(Account::Wallet(payer), 1_250, 1_250), external(-1_250)], "salary"),
        ),
        ("declined", entry(Body::Withdrawn { user: payer, money, declined: Some(Reason::InsufficientFunds) }, vec![], "")),
        (
            "paid",
            entry(
                new(None, None, 0),
                vec![posting(Account::Wallet(payer), -1_250, 0), posting(Account::Wallet(payee), 1_250, 1_250)],
                "rent",
            ),
        ),
        (
            "sent",
            entry(
                new(Some(other.clone()), None, 0),
                vec![posting(Account::Wallet(payer), -1_250, 0), posting(Account::Sent(other.clone()), 1_250, 1_250)],
                "",
            ),
        ),
        ("held", entry(new(None, None, 60), vec![posting(Account::Wallet(payer), 0, 1_250)], "")),
        (
            "received",
            entry(
                Body::Received {
                    source: other.clone(),
                    at: Cursor { sequence: Sequence(5), mark: HistoryMark::new(7) },
                    effect: Effect::Credited(credit),
                },
                vec![posting(Account::Received(other.clone()), -1_250, -1_250), posting(Account::Wallet(payer), 1_250, 1_250)],
                "",
            ),
        ),
        (
            "delivered",
            entry(
                Body::Delivered { to: other, up_to: Sequence(5), read_to: Cursor { sequence: Sequence(9), mark: HistoryMark::new(8) } },
                vec![],
                "",
            ),
        ),
    ]
}

fn shard() -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone"), index: 1 }
}

const SMALL_TOPOLOGY: &str = "mesh: m
regions:
  a: {primary: true, services: [payment_processor], database: primary_master}
  b: {primary: false, services: [vault], database: regional_master, compliance: [GDPR]}
zones:
  x: {shards: 2, regions: [a], countries: [US]}
  y: {shards: 3, regions: [b], countries: [DE, \"NO\"], leaders: {b: \"0-2\"}}
endpoints:
  a: {grpc: '127.0.0.1:1', http: '127.0.0.1:2'}
  b: {grpc: '127.0.0.1:3', http: '127.0.0.1:4'}
outcomes: {retention_hours: 24}
";

const SMALL_ACCESS: &str = "issuers:
  there: {issuer: 'https://there', audience: m, keys: {url: 'https://there/keys', authorities: there.pem}, clock_skew_seconds: 0}
principals:
  some: {tokens: {issuer: there, claims: {client_id: some}}, scopes: [payments.read], zones: [eu], pays: any, users: {claim: users}}
  one: {certificate: true, scopes: [mesh.read], zones: any, users: any, limits: {calls_per_second: 1, calls_in_progress: 1}}
";

const OTHER_KEYS: &str = r#"[
  {"kty": "EC", "crv": "P-256", "kid": "es",
   "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
  {"kty": "RSA", "kid": "rs", "e": "AQAB",
   "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}
]"#;
