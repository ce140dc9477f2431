//! Cards across regions: taken in where the user's zone has its vault, whichever region is called, and seen nowhere else.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant, SystemTime},
};

use paymesh_client::{Card, CardNumber, Client, Expiry, Options, SealError, Session, Trust, VaultKey, Vaults, seal};
use paymesh_contract::{
    Fault,
    audit::v1::{ReadAuditRequest, audit_service_client::AuditServiceClient},
    vault::v1::{
        CardDetails, DeleteTokenRequest, DescribeTokenRequest, EraseUserRequest, GetVaultKeyRequest, GetVaultKeyResponse,
        RotateKeysRequest, RotationState, TokenDescription, TokenizeRequest, vault_service_client::VaultServiceClient,
    },
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{
    audit,
    remains::{files_below, has, is_in_memory, unpacked_segments},
    support::{TestMesh, four_regions_with_vaults, operator, payment},
};

const VISA: &str = "4000056655665556";
const MASTERCARD: &str = "5200828282828210";
const WAIT_MAX: Duration = Duration::from_secs(30);

fn vault(mesh: &TestMesh, via: &str) -> VaultServiceClient<Channel> {
    VaultServiceClient::new(mesh.channel(via))
}

fn in_clear(user_id: u64, number: &str) -> TokenizeRequest {
    let card = CardDetails { number: number.to_owned(), expiry_month: 7, expiry_year: 2031 };
    TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id, card: Some(card), sealed_card: None }
}

async fn tokenize(mesh: &TestMesh, via: &str, request: TokenizeRequest) -> TokenDescription {
    vault(mesh, via).tokenize(request).await.unwrap().into_inner().description.unwrap()
}

/// The key of an answer, where the node of that region has signed it: whoever passed it on.
pub(crate) fn proven(mesh: &TestMesh, region: &str, user_id: u64, answer: &GetVaultKeyResponse) -> Result<VaultKey, SealError> {
    let trust = Trust::load(&mesh.credentials().unwrap()).unwrap();
    let vaults = Vaults::new(trust, "test", [(answer.zone.parse().unwrap(), region.parse().unwrap())]).unwrap();
    vaults.key(user_id, answer, SystemTime::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_taken_in_by_its_zones_vault_from_anywhere_and_its_number_is_in_no_file_log_or_metric() {
    let mut mesh = TestMesh::new(&four_regions_with_vaults());
    for region in mesh.regions() {
        mesh.spawn_logging(&region, "debug");
    }
    for region in mesh.regions() {
        mesh.wait_ready(&region);
    }
    mesh.enrol("us_east", 10, "US", 0).await;
    mesh.enrol("us_east", 11, "DE", 0).await;

    // From a region without a vault: in clear for a user of its own zone, sealed for one of another.
    let taken = tokenize(&mesh, "us_west", in_clear(10, VISA)).await;
    assert!(taken.vault_token.starts_with("card_global_"), "{}", taken.vault_token);
    let answer = vault(&mesh, "us_west").get_vault_key(GetVaultKeyRequest { user_id: 11 }).await.unwrap().into_inner();
    assert_eq!(answer.zone, "eu");
    let key = proven(&mesh, "eu_west", 11, &answer).unwrap();
    // Its signature is nothing for another region's.
    let error = proven(&mesh, "us_east", 11, &answer).unwrap_err();
    assert!(matches!(&error, SealError::AnotherNode { signer, .. } if signer.region().as_str() == "eu_west"), "{error}");
    let card = Card { number: CardNumber::parse(MASTERCARD).unwrap(), expiry: Expiry::new(7, 2031).unwrap() };
    let sealed = TokenizeRequest { card: None, sealed_card: Some(seal(&card, &key).unwrap()), ..in_clear(11, MASTERCARD) };
    let european = tokenize(&mesh, "us_west", sealed.clone()).await;
    assert!(european.vault_token.starts_with("card_eu_"), "{}", european.vault_token);
    assert_eq!((european.bin.as_str(), european.last_four.as_str(), european.user_id), ("52008282", "8210", 11));
    assert_eq!(tokenize(&mesh, "asia_pacific", sealed.clone()).await, european, "the same request through another region");
    // Refused, repeated and malformed: what goes wrong must not bring it to light either.
    for request in [
        TokenizeRequest { request_id: sealed.request_id.clone(), ..in_clear(11, VISA) },
        TokenizeRequest { user_id: 999, ..in_clear(10, VISA) },
        in_clear(10, &format!("{VISA} ")),
        TokenizeRequest { request_id: String::new(), ..in_clear(10, VISA) },
        TokenizeRequest {
            sealed_card: Some(seal(&card, &VaultKey::unproven(12, &answer).unwrap()).unwrap()),
            card: None,
            ..in_clear(11, MASTERCARD)
        },
    ] {
        for via in mesh.regions() {
            let answer = vault(&mesh, &via).tokenize(request.clone()).await;
            assert!(answer.is_err(), "{answer:?}");
            let printed = format!("{answer:?} {request:?}");
            assert!(!printed.contains(VISA) && !printed.contains(MASTERCARD), "{printed}");
        }
    }
    for description in [&taken, &european] {
        for via in mesh.regions() {
            let request = DescribeTokenRequest { vault_token: description.vault_token.clone() };
            assert_eq!(vault(&mesh, &via).describe_token(request).await.unwrap().into_inner().description.as_ref(), Some(description));
        }
    }

    // Tokens outlive the process that gave them out.
    mesh.kill("eu_west");
    mesh.spawn_logging("eu_west", "debug");
    mesh.wait_ready("eu_west");
    let request = DescribeTokenRequest { vault_token: european.vault_token.clone() };
    let deadline = Instant::now() + WAIT_MAX;
    let described = loop {
        match vault(&mesh, "us_west").describe_token(request.clone()).await {
            Ok(described) => break described.into_inner().description,
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(described, Some(european.clone()));

    let erase = EraseUserRequest { request_id: Uuid::now_v7().to_string(), user_id: 11 };
    assert_eq!(vault(&mesh, "asia_pacific").erase_user(erase).await.unwrap().into_inner().erased_tokens, 1);
    assert_eq!(Fault::from_status(&vault(&mesh, "us_west").describe_token(request).await.unwrap_err()).reason, "TOKEN_NOT_FOUND");
    let delete = DeleteTokenRequest { request_id: Uuid::now_v7().to_string(), vault_token: taken.vault_token.clone() };
    vault(&mesh, "eu_west").delete_token(delete).await.unwrap();

    // The region where the call entered says of whom it was, and the vault's also which card.
    for (region, names_the_card) in [("us_west", false), ("us_east", true)] {
        let mut records = AuditServiceClient::new(mesh.channel(region)).read_audit(ReadAuditRequest::default()).await.unwrap().into_inner();
        let (mut of_the_user, mut of_the_card) = (false, false);
        while let Some(read) = records.message().await.unwrap() {
            for record in read.records.iter().filter(|record| record.method.ends_with("/Tokenize") && record.code == 0) {
                let subjects = record.subjects.clone().unwrap_or_default();
                of_the_user |= subjects.user_ids.contains(&10);
                of_the_card |= subjects.vault_tokens.contains(&taken.vault_token);
            }
        }
        assert_eq!((of_the_user, of_the_card), (true, names_the_card), "{region}");
    }

    for region in mesh.regions() {
        let (_, metrics) = mesh.http(&region, "/metrics").unwrap();
        assert!(!metrics.is_empty() && !metrics.contains(VISA) && !metrics.contains(MASTERCARD), "the metrics of {region}");
        // With its last lines and pages.
        assert!(mesh.stop(&region).success());
        assert!(!mesh.logs(&region).is_empty());
    }
    let all = mesh.data("us_east").parent().unwrap().to_owned();
    let files = files_below(&all);
    assert!(files.len() > 20, "this test looks in the wrong place");
    for digits in [VISA, MASTERCARD] {
        let found: Vec<_> = files.iter().filter(|(_, content)| has(content, digits.as_bytes())).map(|(path, _)| path).collect();
        assert!(found.is_empty(), "{digits} in {found:?}");
        for region in mesh.regions() {
            let found = unpacked_segments(&mesh.data(&region)).await.iter().any(|(_, segment)| has(segment, digits.as_bytes()));
            assert!(!found, "{digits} in a journal of {region}");
        }
    }
    // So that nothing was found because nothing could be: the vaults have their files.
    for region in ["us_east", "eu_west"] {
        assert!(mesh.data(region).join("vault/vault.sqlite").exists(), "{region}");
    }
    assert!(!mesh.data("us_west").join("vault").exists() && !mesh.data("asia_pacific").join("vault").exists());
}

/// An operator names the zone, wherever they call. The log says who it was, where the call came in and where it was done.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_rotates_a_zones_keys_while_it_serves() {
    let mesh = TestMesh::started(&four_regions_with_vaults());
    mesh.enrol("us_east", 11, "DE", 0).await;
    let taken = tokenize(&mesh, "us_west", in_clear(11, VISA)).await;
    let keys = mesh.credentials().unwrap().join("eu_west/vault-keys");
    assert!(keys.join("kek-1.key").exists());
    let rotate = RotateKeysRequest { request_id: Uuid::now_v7().to_string(), zone: "eu".to_owned() };
    let begun = vault(&mesh, "us_west").rotate_keys(rotate.clone()).await.unwrap().into_inner();
    assert!(begun.begun_by_request && begun.key_number == 2, "{begun:?}");
    let deadline = Instant::now() + WAIT_MAX;
    while vault(&mesh, "us_west").rotate_keys(rotate.clone()).await.unwrap().into_inner().state() != RotationState::Over {
        assert!(Instant::now() < deadline, "{}", mesh.logs("eu_west"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(keys.join("kek-2.key").exists() && !keys.join("kek-1.key").exists());
    let request = DescribeTokenRequest { vault_token: taken.vault_token.clone() };
    assert_eq!(vault(&mesh, "us_west").describe_token(request).await.unwrap().into_inner().description, Some(taken));
    let id = Uuid::parse_str(&rotate.request_id).unwrap().as_bytes().to_vec();
    for region in ["us_west", "eu_west"] {
        let records = audit::read_at(&mesh, region, 1).await.unwrap();
        let record = records.iter().find(|record| record.request_id == id).unwrap_or_else(|| panic!("{region} has no record"));
        let principal = record.caller.as_ref().map(|caller| caller.principal.as_str());
        assert_eq!((record.method.as_str(), principal), ("/paymesh.vault.v1.VaultService/RotateKeys", Some("operator")), "{region}");
        assert_eq!((record.code, &record.scopes[..]), (0, &["vault.rotate".to_owned()][..]), "{region}");
    }
}

/// Where a zone takes sealed cards only, one in clear is refused in words that do not repeat it, from wherever it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_takes_sealed_cards_only_takes_no_others() {
    let config = four_regions_with_vaults();
    let sealed = config.replace("regions: [eu_west]", "regions: [eu_west], sealed_cards: true");
    assert_ne!(config, sealed);
    let mesh = TestMesh::started(&sealed);
    mesh.enrol("us_east", 10, "US", 0).await;
    mesh.enrol("us_east", 11, "DE", 0).await;
    for via in mesh.regions() {
        let status = vault(&mesh, &via).tokenize(in_clear(11, VISA)).await.unwrap_err();
        let fault = Fault::from_status(&status);
        assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), ("CARD_NOT_SEALED", Some("sealed_card")), "{fault}");
        assert!(!format!("{status:?}").contains(VISA), "{status:?}");
    }
    tokenize(&mesh, "us_west", in_clear(10, VISA)).await;
    let answer = vault(&mesh, "us_west").get_vault_key(GetVaultKeyRequest { user_id: 11 }).await.unwrap().into_inner();
    let key = proven(&mesh, "eu_west", 11, &answer).unwrap();
    let card = Card { number: CardNumber::parse(VISA).unwrap(), expiry: Expiry::new(7, 2031).unwrap() };
    let sealed = TokenizeRequest { card: None, sealed_card: Some(seal(&card, &key).unwrap()), ..in_clear(11, VISA) };
    assert!(tokenize(&mesh, "us_west", sealed).await.vault_token.starts_with("card_eu_"));
}

/// No node on the way of a sealed card has its number, and the vault does not keep it in memory.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_sealed_card_is_in_no_nodes_memory() {
    let mut mesh = TestMesh::started(&four_regions_with_vaults());
    mesh.enrol("us_east", 11, "DE", 0).await;
    let answer = vault(&mesh, "us_west").get_vault_key(GetVaultKeyRequest { user_id: 11 }).await.unwrap().into_inner();
    let key = proven(&mesh, "eu_west", 11, &answer).unwrap();
    let card = Card { number: CardNumber::parse(MASTERCARD).unwrap(), expiry: Expiry::new(7, 2031).unwrap() };
    let trust = operator(&mesh.credentials().unwrap());
    for via in mesh.regions() {
        let options = Options { trust: Some(trust.clone()), ..Options::default() };
        let client = Client::connect([format!("https://{}", mesh.grpc_address(&via))], options).unwrap();
        let (session, sealed_card) = (Session::new(), Some(seal(&card, &key).unwrap()));
        // The client gives it its request id.
        let taking = TokenizeRequest { user_id: 11, sealed_card, ..TokenizeRequest::default() };
        let taken = client.call(&session, taking).await.unwrap().description.unwrap();
        let described = client.call(&session, DescribeTokenRequest { vault_token: taken.vault_token.clone() }).await.unwrap();
        assert_eq!(described.description, Some(taken));
    }
    for region in mesh.regions() {
        let process = mesh.process(&region);
        if is_in_memory(process, b"region-config") != Some(true) {
            println!("left out: this system does not let a test look at the memory of a node");
            return;
        }
        assert_eq!(is_in_memory(process, MASTERCARD.as_bytes()), Some(false), "{region} has the number in memory");
    }
    assert!(mesh.stop("eu_west").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_whose_keys_others_can_use_takes_no_cards_and_payments_go_on() {
    let mut mesh = TestMesh::started(&four_regions_with_vaults());
    mesh.enrol("us_east", 10, "US", 1_000).await;
    mesh.enrol("us_east", 12, "US", 0).await;
    let taken = tokenize(&mesh, "us_east", in_clear(10, VISA)).await;
    let keys = mesh.credentials().unwrap().join("us_east/vault-keys");
    assert!(mesh.stop("us_east").success());
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o755)).unwrap();
    mesh.spawn("us_east");
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some((503, body)) = mesh.http("us_east", "/health")
            && body.contains("vault-keys: others than its owner may use it (mode 755): chmod go-rwx")
        {
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", mesh.http("us_east", "/health"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    mesh.wait_ready("us_east");
    let request = DescribeTokenRequest { vault_token: taken.vault_token.clone() };
    let fault = Fault::from_status(&vault(&mesh, "us_west").describe_token(request.clone()).await.unwrap_err());
    assert_eq!((fault.reason.as_ref(), fault.retry_after.is_some()), ("VAULT_UNAVAILABLE", true));
    mesh.payments("us_west").create_payment(payment(10, 12, 5)).await.unwrap();

    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
    while let Err(status) = vault(&mesh, "us_west").describe_token(request.clone()).await {
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
