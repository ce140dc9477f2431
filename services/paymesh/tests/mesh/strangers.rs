//! Every method of the contract, called by everybody who may not. Made of the descriptor set: a method that is added is covered.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use paymesh_contract::{
    FILE_DESCRIPTOR_SET, Fault, MethodPolicy, Target,
    payments::v1 as payments,
    policies,
    vault::v1::{CardDetails, TokenizeRequest, vault_service_client::VaultServiceClient},
};
use paymesh_identity::{Authority, CallerName, Trust};
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _, Bytes},
};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::{
    audit,
    certificates::as_node_of,
    support::{FOUR_REGIONS, TestMesh, four_regions_with_vaults, payment},
    tokens::{self, Issuer, bearer},
};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// The user whose money everybody is after, in `global`, and whom they would send it to.
const RICH: u64 = 10;
const ACCOMPLICE: u64 = 12;

/// Messages as their bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls a method: its first answer, if there is one.
async fn call(channel: &Channel, policy: &MethodPolicy, message: Bytes, metadata: MetadataMap) -> Result<Option<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let mut request = Request::new(futures::stream::iter([message]));
    *request.metadata_mut() = metadata;
    let answer = client.streaming(request, policy.path.parse().unwrap(), Raw).await?;
    tokio::time::timeout(WAIT_MAX, answer.into_inner().message()).await.expect("an answer")
}

/// What is there of the rich user: a payment, and the token of a card.
struct Made {
    payment: String,
    token: String,
}

/// A request that would do something: about the rich user, with each field filled in by its name.
fn request(policy: &MethodPolicy, made: &Made) -> Bytes {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name(&policy.service).unwrap();
    let method = service.methods().find(|method| method.name() == policy.method).unwrap();
    filled(&method.input(), made, 0).encode_to_vec().into()
}

fn filled(descriptor: &MessageDescriptor, made: &Made, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let value = match (field.name(), field.kind()) {
            ("request_id", _) => Value::String(Uuid::new_v4().to_string()),
            ("user_id" | "payer_id" | "user_ids", _) => Value::U64(RICH),
            ("payee_id", _) => Value::U64(ACCOMPLICE),
            ("payment_id", _) => Value::String(made.payment.clone()),
            ("vault_token", _) => Value::String(made.token.clone()),
            ("number", Kind::String) => Value::String("4242424242424242".to_owned()),
            ("expiry_month", _) => Value::U32(7),
            ("expiry_year", _) => Value::U32(2031),
            // Beside a card in clear, it would be refused for that.
            ("sealed_card", _) => continue,
            ("residence_country", _) => Value::String("US".to_owned()),
            ("currency_code" | "currency_codes", _) => Value::String("EUR".to_owned()),
            ("minor_units", _) => Value::I64(1),
            ("zone", Kind::String) => Value::String("global".to_owned()),
            ("region", Kind::String) => Value::String("us_west".to_owned()),
            ("page_token" | "page_size" | "read" | "hold_duration" | "reference", _) => continue,
            (_, Kind::Message(inner))
                if depth < 4 && field.containing_oneof().is_none_or(|one| one.fields().next() == Some(field.clone())) =>
            {
                Value::Message(filled(&inner, made, depth + 1))
            }
            _ => continue,
        };
        message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
    }
    assert_eq!(message.descriptor(), *descriptor);
    message
}

fn shows(token: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", bearer(token));
    metadata
}

/// What a stranger's call is refused with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    Unauthenticated(&'static str),
    Denied(&'static str),
    /// It is answered, with nothing in it that was asked for.
    Nothing,
}

use Wanted::{Denied, Nothing, Unauthenticated};

fn check(who: &str, policy: &MethodPolicy, answer: Result<Option<Bytes>, Status>, wanted: Wanted) {
    let path = &policy.path;
    let (code, reason) = match wanted {
        Unauthenticated(reason) => (Code::Unauthenticated, reason),
        Denied(reason) => (Code::PermissionDenied, reason),
        Nothing => {
            let bytes = answer.unwrap_or_else(|status| panic!("{who} at {path}: {status:?}")).unwrap_or_default();
            if policy.method.ends_with("Payments") {
                let answer = payments::CreatePaymentsResponse::decode(bytes.clone());
                let outcomes = match policy.client_streaming {
                    false => answer.unwrap().outcomes,
                    true => payments::StreamPaymentsResponse::decode(bytes).unwrap().outcomes,
                };
                let [outcome] = &outcomes[..] else { panic!("{who} at {path}: {outcomes:?}") };
                let Some(payments::payment_outcome::Outcome::Error(error)) = &outcome.outcome else { panic!("{who}: {outcome:?}") };
                assert_eq!((error.code, error.reason.as_str()), (Code::PermissionDenied as i32, "NOT_YOUR_USER"), "{who} at {path}");
            } else {
                assert!(bytes.is_empty(), "{who} at {path}: {bytes:?}");
            }
            return;
        }
    };
    let status = answer.expect_err(&format!("{who} at {path} was let in"));
    let fault = Fault::from_status(&status);
    assert_eq!((fault.code, fault.reason.as_ref()), (code, reason), "{who} at {path}: {fault}");
}

/// What a caller of another zone, or for another user, is refused with. `None`: the method is about the mesh, and nobody's.
fn about_another(policy: &MethodPolicy, bound_to_users: bool) -> Option<Wanted> {
    Some(match (policy.target, policy.method.as_str()) {
        (Target::Local, "CreatePayments" | "StreamPayments") => Nothing,
        (Target::Local, "ReadAudit" | "VerifyAudit") => Denied("NOT_YOUR_USERS"),
        (Target::Local, _) => return None,
        (Target::Directory, _) if bound_to_users => Denied("NOT_YOUR_USERS"),
        (Target::Directory, _) => Nothing,
        _ if policy.key.as_ref().is_some_and(|key| matches!(key.as_str(), "payment_id" | "vault_token")) => {
            Denied(if bound_to_users { "NOT_YOUR_USER" } else { "NOT_YOUR_ZONE" })
        }
        (Target::Replica, _) if policy.shard_key.is_some() => Denied(if bound_to_users { "NOT_YOUR_USERS" } else { "NOT_YOUR_ZONE" }),
        (Target::VaultOfZone, _) => Denied(if bound_to_users { "NOT_YOUR_USERS" } else { "NOT_YOUR_ZONE" }),
        _ => Denied("NOT_YOUR_USER"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_may_not_gets_anything_from_any_method() {
    let mesh = TestMesh::started(&four_regions_with_vaults());
    let issuer = Issuer::of(&mesh);
    mesh.enrol("us_east", RICH, "US", 1_000).await;
    mesh.enrol("us_east", ACCOMPLICE, "US", 0).await;
    let made = mesh.payments("us_east").create_payment(payment(RICH, ACCOMPLICE, 1)).await.unwrap().into_inner().payment.unwrap();
    let offered = TokenizeRequest {
        request_id: Uuid::new_v4().to_string(),
        user_id: RICH,
        card: Some(CardDetails { number: "5555555555554444".to_owned(), expiry_month: 7, expiry_year: 2031 }),
        sealed_card: None,
    };
    let card = VaultServiceClient::new(mesh.channel("us_east")).tokenize(offered).await.unwrap().into_inner().description.unwrap();
    let made = Made { payment: made.payment_id, token: card.vault_token };
    let service = issuer.token(json!({"client_id": "service"}));
    let before = mesh.heads();

    // One who shows nothing of its own, and believes the mesh.
    let authorities = mesh.credentials().unwrap();
    let unknown = |region: &str| {
        let connector = Trust::load(&authorities).unwrap().connector("127.0.0.1", mesh.grpc_port(region), WAIT_MAX);
        Endpoint::from_shared(format!("http://{}", mesh.grpc_address(region))).unwrap().connect_with_connector_lazy(connector)
    };
    let stranger = |claims: serde_json::Value| shows(&issuer.token(claims));
    let another_authority = tempfile::tempdir().unwrap();
    let self_made = {
        let authority = Authority::open(another_authority.path(), "test", SystemTime::now()).unwrap();
        let own = another_authority.path().join("operator");
        authority.issue_caller(&CallerName::new("test", "operator").unwrap(), &own, SystemTime::now(), WAIT_MAX * 100).unwrap();
        let trust = Trust::load_with_certificate(&authorities, &own).unwrap();
        let connector = trust.connector("127.0.0.1", mesh.grpc_port("us_west"), WAIT_MAX);
        Endpoint::from_shared(format!("http://{}", mesh.grpc_address("us_west"))).unwrap().connect_with_connector_lazy(connector)
    };
    let plain = Endpoint::from_shared(format!("http://{}", mesh.grpc_address("us_west"))).unwrap().connect_lazy();
    let hops = |region: &'static str, mut metadata: MetadataMap| {
        metadata.insert("paymesh-hops", region.parse().unwrap());
        metadata.insert("paymesh-entry-region", region.parse().unwrap());
        metadata
    };

    // At the region that the call enters by, and at the home itself.
    for region in ["us_west", "us_east"] {
        let channel = unknown(region);
        let eu_node = as_node_of(&mesh, "eu_west", region);
        for policy in policies().methods() {
            let message = || request(policy, &made);
            let nodes_only = |other: Wanted| if policy.nodes_only { Denied("NODES_ONLY") } else { other };
            let unauthenticated = [
                ("nobody", MetadataMap::new(), "NO_CREDENTIAL"),
                ("one without a signature", shows(&tokens::unsigned(json!({"client_id": "service"}))), "TOKEN_INVALID"),
                ("one with another's signature", shows(&issuer.wrongly_signed(json!({"client_id": "service"}))), "TOKEN_INVALID"),
                ("one with a public secret", shows(&issuer.confused(json!({"client_id": "service"}))), "TOKEN_KEY_UNKNOWN"),
                (
                    "one whose time is over",
                    stranger(json!({"client_id": "service", "exp": tokens::now() - 100, "iat": tokens::now() - 200})),
                    "CREDENTIAL_EXPIRED",
                ),
                ("one who is too early", stranger(json!({"client_id": "service", "nbf": tokens::now() + 100})), "TOKEN_NOT_YET_VALID"),
                ("one of another mesh", stranger(json!({"client_id": "service", "aud": "production"})), "TOKEN_AUDIENCE_WRONG"),
                ("one of another issuer", stranger(json!({"client_id": "service", "iss": "elsewhere"})), "TOKEN_ISSUER_UNKNOWN"),
            ];
            for (who, metadata, reason) in unauthenticated {
                check(who, policy, call(&channel, policy, message(), metadata).await, nodes_only(Unauthenticated(reason)));
            }
            let two_tokens = {
                let mut metadata = shows(&service);
                metadata.append("authorization", bearer(&service));
                metadata
            };
            check(
                "one with two tokens",
                policy,
                call(&channel, policy, message(), two_tokens).await,
                nodes_only(Unauthenticated("CREDENTIAL_AMBIGUOUS")),
            );
            let nobody = stranger(json!({"client_id": "nobody"}));
            check(
                "a principal of nobody",
                policy,
                call(&channel, policy, message(), nobody).await,
                nodes_only(Denied("PRINCIPAL_UNKNOWN")),
            );
            let powerless = stranger(json!({"client_id": "service", "scope": ""}));
            check("one without scopes", policy, call(&channel, policy, message(), powerless).await, nodes_only(Denied("SCOPE_MISSING")));
            if !policy.nodes_only {
                if let Some(wanted) = about_another(policy, false) {
                    let europe = stranger(json!({"client_id": "europe"}));
                    check("one of another zone", policy, call(&channel, policy, message(), europe).await, wanted);
                }
                if let Some(wanted) = about_another(policy, true) {
                    let app = stranger(json!({"client_id": "app", "sub": "14"}));
                    check("another user", policy, call(&channel, policy, message(), app).await, wanted);
                }
            }

            // Who says that a node passes the call on, must be that node; and a node is no caller.
            let said = call(&channel, policy, message(), hops("eu_west", MetadataMap::new())).await;
            check("one who poses as a node", policy, said, Denied("NOT_THAT_NODE"));
            let said = call(&eu_node, policy, message(), hops("asia_pacific", shows(&service))).await;
            check("a node that poses as another", policy, said, Denied("NOT_THAT_NODE"));
            if !policy.nodes_only && !policy.nodes_too {
                let said = call(&eu_node, policy, message(), hops("eu_west", MetadataMap::new())).await;
                check("a node by itself", policy, said, Denied("CALLERS_ONLY"));
            }
            if region == "us_west" {
                for (who, channel) in [("one with an authority of its own", &self_made), ("one in plain text", &plain)] {
                    let status = call(channel, policy, message(), shows(&service)).await.expect_err(who);
                    assert!(
                        status.details().is_empty(),
                        "{who} at {}: the connection ends before there is an answer: {status:?}",
                        policy.path
                    );
                }
            }
        }
    }
    assert_eq!(mesh.heads(), before, "nobody has changed anything");
    assert_eq!(mesh.balance("us_east", RICH).await, 999);
    for region in ["us_west", "us_east"] {
        let metrics = mesh.http(region, "/metrics").unwrap().1;
        for reason in ["NO_CREDENTIAL", "TOKEN_INVALID", "CREDENTIAL_EXPIRED", "SCOPE_MISSING", "NODES_ONLY", "NOT_YOUR_USER"] {
            let counted = format!("paymesh_calls_denied_total{{region=\"{region}\",reason=\"{reason}\"}}");
            assert!(metrics.contains(&counted), "{counted} is not in {metrics}");
        }
    }

    // Every refusal is in the log of the node that refused, with the method and, where it is known, who it was.
    let records = audit::read_at(&mesh, "us_west", 1).await.unwrap();
    let recorded: BTreeSet<(&str, &str, &str)> = records
        .iter()
        .map(|record| (record.method.as_str(), record.reason.as_str(), record.caller.as_ref().map_or("", |caller| &caller.principal)))
        .collect();
    for policy in policies().methods() {
        let path = policy.path.as_str();
        let mut wanted = vec![(path, "NOT_THAT_NODE", "")];
        if policy.nodes_only {
            wanted.push((path, "NODES_ONLY", ""));
        } else {
            let unknown =
                ["NO_CREDENTIAL", "TOKEN_INVALID", "TOKEN_KEY_UNKNOWN", "CREDENTIAL_EXPIRED", "TOKEN_AUDIENCE_WRONG", "PRINCIPAL_UNKNOWN"];
            wanted.extend(unknown.map(|reason| (path, reason, "")));
            wanted.push((path, "SCOPE_MISSING", "service"));
            for (principal, bound_to_users) in [("europe", false), ("app", true)] {
                if let Some(Denied(reason)) = about_another(policy, bound_to_users) {
                    wanted.push((path, reason, principal));
                }
            }
        }
        for wanted in wanted {
            assert!(recorded.contains(&wanted), "{wanted:?} is not in the audit log");
        }
    }

    // The same calls by one who may: so it is not for another reason that the others are refused.
    let channel = unknown("us_west");
    for policy in policies().methods().filter(|policy| !policy.nodes_only) {
        let answer = call(&channel, policy, request(policy, &made), shows(&service)).await;
        if let Err(status) = answer {
            assert!(!matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied), "{}: {status:?}", policy.path);
        }
    }
    assert_ne!(mesh.heads(), before, "they would have done something");
}

/// TLS 1.2 and older are not spoken: the first words of such a client are answered with an alert (RFC 8446, section 6).
#[test]
fn what_is_older_than_tls_1_3_is_refused_in_the_handshake() {
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let mesh = TestMesh::started(FOUR_REGIONS);
    let mut stream = TcpStream::connect(("127.0.0.1", mesh.grpc_port("us_west"))).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session, two suites of TLS 1.2, no compression, and how it takes signatures.
    hello.extend([0, 0, 4, 0xc0, 0x2f, 0x00, 0x9c, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut record = vec![22, 3, 1, 0, u8::try_from(hello.len() + 4).unwrap(), 1, 0, 0, u8::try_from(hello.len()).unwrap()];
    record.extend(hello);
    stream.write_all(&record).unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((answer[0], answer[6]), (ALERT, PROTOCOL_VERSION), "{answer:?}");
}
