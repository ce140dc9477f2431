use paymesh_contract::{
    directory::v1::{EnrollUserRequest, LookUpUsersRequest},
    events::v1::SubscribeRequest,
    fraud::v1::{ExplainRequest, ScoreRequest, ScoredPayment},
    payments::v1::{CreatePaymentRequest, GetPaymentRequest},
    policies,
    vault::v1::{DescribeTokenRequest, EraseUserRequest, RotateKeysRequest},
};
use proptest::prelude::*;
use prost::Message;

use super::*;

const CREATE: &str = "/paymesh.payments.v1.PaymentService/CreatePayment";
const GET: &str = "/paymesh.payments.v1.PaymentService/GetPayment";
const ENROLL: &str = "/paymesh.directory.v1.DirectoryService/EnrollUser";
const LOOK_UP: &str = "/paymesh.directory.v1.DirectoryService/LookUpUsers";
const ERASE: &str = "/paymesh.vault.v1.VaultService/EraseUser";
const ROTATE: &str = "/paymesh.vault.v1.VaultService/RotateKeys";
const DESCRIBE: &str = "/paymesh.vault.v1.VaultService/DescribeToken";
const SCORE: &str = "/paymesh.fraud.v1.FraudService/Score";
const EXPLAIN: &str = "/paymesh.fraud.v1.FraudService/Explain";
const SUBSCRIBE: &str = "/paymesh.events.v1.EventService/Subscribe";

fn policy(path: &str) -> &'static MethodPolicy {
    policies().method(path).expect("a method of the contract")
}

/// The shard and its leader, or the fault.
fn home(path: &str, message: &impl Message, zone: Option<&str>) -> Result<(String, String), Fault> {
    let topology = crate::mesh::tests::topology(&[1, 2]);
    let plan = plan(policy(path), &message.encode_to_vec())?;
    let zone = zone.map(|zone| zone.parse().expect("a zone"));
    let shard = shard(&topology, &plan, zone.as_ref())?.expect("not local");
    let leader = leader(&topology, &shard)?.to_string();
    Ok((shard.to_string(), leader))
}

fn found(shard: &str, leader: &str) -> Result<(String, String), Fault> {
    Ok((shard.to_owned(), leader.to_owned()))
}

#[test]
fn a_call_goes_to_the_leader_of_what_its_key_names() {
    let pay = CreatePaymentRequest { payer_id: 7, ..Default::default() };
    assert_eq!(home(CREATE, &pay, Some("eu")), found("eu/1", "eu_west"));
    assert_eq!(home(CREATE, &pay, Some("global")), found("global/1", "us_east"));
    let get = |id: &str| GetPaymentRequest { payment_id: id.to_owned(), read: None };
    assert_eq!(home(GET, &get("pay_eu_0_1_5"), None), found("eu/0", "eu_west"));
    let enroll = |country: &str| EnrollUserRequest { user_id: 8, residence_country: country.to_owned(), ..Default::default() };
    assert_eq!(home(ENROLL, &enroll("DE"), None), found("eu/0", "eu_west"));
    assert_eq!(home(ENROLL, &enroll("US"), None), found("global/0", "us_east"));
    assert_eq!(home(LOOK_UP, &LookUpUsersRequest { user_ids: vec![8, 9] }, None), found("directory/0", "us_east"));
    let subscribe = |zone: &str, shard| SubscribeRequest { zone: zone.to_owned(), shard, from_sequence: 0, read: None };
    assert_eq!(home(SUBSCRIBE, &subscribe("eu", 1), None), found("eu/1", "eu_west"));
    assert_eq!(home(SUBSCRIBE, &subscribe("eu", 0), None), found("eu/0", "eu_west"), "shard 0 is absent on the wire");
}

#[test]
fn a_key_that_leads_nowhere_is_a_fault_that_names_its_field_or_reason() {
    let pay = |payer_id| CreatePaymentRequest { payer_id, ..Default::default() };
    let get = |id: &str| GetPaymentRequest { payment_id: id.to_owned(), read: None };
    let enroll = |country: &str| EnrollUserRequest { user_id: 8, residence_country: country.to_owned(), ..Default::default() };
    let subscribe = |zone: &str, shard| SubscribeRequest { zone: zone.to_owned(), shard, from_sequence: 0, read: None };
    let no_user = EnrollUserRequest { residence_country: "DE".to_owned(), ..Default::default() };
    let none = LookUpUsersRequest { user_ids: vec![] };
    for (answer, reason, field) in [
        (home(CREATE, &pay(0), None), "INVALID_FIELD", Some("payer_id")),
        (home(CREATE, &pay(u64::MAX), None), "INVALID_FIELD", Some("payer_id")),
        (home(CREATE, &pay(7), None), "USER_NOT_FOUND", None),
        (home(CREATE, &pay(7), Some("moon")), "COUNTRY_NOT_SERVED", None),
        (home(GET, &get(""), None), "INVALID_FIELD", Some("payment_id")),
        (home(GET, &get("7"), None), "INVALID_FIELD", Some("payment_id")),
        (home(GET, &get("pay_moon_0_1_5"), None), "PAYMENT_NOT_FOUND", None),
        (home(GET, &get("pay_eu_2_1_5"), None), "PAYMENT_NOT_FOUND", None),
        (home(GET, &get("pay_directory_0_1_5"), None), "PAYMENT_NOT_FOUND", None),
        (home(ENROLL, &enroll("FR"), None), "COUNTRY_NOT_SERVED", None),
        (home(ENROLL, &enroll("de"), None), "INVALID_FIELD", Some("residence_country")),
        (home(ENROLL, &no_user, None), "INVALID_FIELD", Some("user_id")),
        (home(LOOK_UP, &none, None), "INVALID_FIELD", Some("user_ids")),
        (home(SUBSCRIBE, &subscribe("eu", 2), None), "SHARD_NOT_FOUND", None),
        (home(SUBSCRIBE, &subscribe("eu", 70_000), None), "SHARD_NOT_FOUND", None),
        (home(SUBSCRIBE, &subscribe("moon", 0), None), "SHARD_NOT_FOUND", None),
        (home(SUBSCRIBE, &subscribe("", 0), None), "INVALID_FIELD", Some("zone")),
    ] {
        let fault = answer.expect_err(reason);
        assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), (reason, field), "{fault}");
    }
}

#[test]
fn a_payment_is_scored_at_its_payers_home_or_near_it_in_the_zone() {
    let yaml = "
mesh: m
regions:
  us_east: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
  us_west: {primary: false, services: [payment_processor, fraud_detection], database: regional_master}
  us_south: {primary: false, services: [payment_processor], database: regional_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master}
zones:
  global: {shards: 3, regions: [us_south, us_west, us_east], countries: [US], leaders: {us_east: 0, us_west: 1, us_south: 2}}
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
endpoints:
  us_east: {grpc: '127.0.0.1:1', http: '127.0.0.1:2'}
  us_west: {grpc: '127.0.0.1:3', http: '127.0.0.1:4'}
  us_south: {grpc: '127.0.0.1:5', http: '127.0.0.1:6'}
  eu_west: {grpc: '127.0.0.1:7', http: '127.0.0.1:8'}
";
    let topology = Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"));
    let of = |payer_id| Some(ScoredPayment { payer_id, ..Default::default() });
    let at = |path, message: &[u8], zone: Option<&str>| {
        let plan = plan(policy(path), message)?;
        let zone = zone.map(|zone| zone.parse().expect("a zone"));
        fraud(&topology, &plan, zone.as_ref()).map(|region| region.expect("fraud detection's").to_string())
    };
    let score = |payer| ScoreRequest { request_id: String::new(), payment: of(payer) }.encode_to_vec();
    for (payer, region) in [(3, "us_east"), (4, "us_west"), (5, "us_east")] {
        assert_eq!(at(SCORE, &score(payer), Some("global")), Ok(region.to_owned()), "{payer}");
        assert_eq!(at(EXPLAIN, &ExplainRequest { payment: of(payer) }.encode_to_vec(), Some("global")), Ok(region.to_owned()));
    }
    for (result, reason) in [
        (at(SCORE, &score(3), Some("eu")), "FRAUD_NOT_IN_ZONE"),
        (at(SCORE, &score(3), None), "USER_NOT_FOUND"),
        (at(SCORE, &score(0), Some("eu")), "INVALID_FIELD"),
        (at(SCORE, b"", Some("eu")), "INVALID_FIELD"),
    ] {
        assert_eq!(result.expect_err(reason).reason, reason);
    }
    let pay = plan(policy(CREATE), &CreatePaymentRequest { payer_id: 7, ..Default::default() }.encode_to_vec()).expect("a plan");
    assert_eq!(fraud(&topology, &pay, None), Ok(None));
}

/// A region of `eu` has a vault, neither the first nor the last, and none of `global`.
fn vaults() -> Topology {
    let yaml = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_north: {primary: false, services: [payment_processor], database: read_replica}
  eu_west: {primary: false, services: [payment_processor, vault], database: regional_master}
  eu_south: {primary: false, services: [payment_processor], database: read_replica}
zones:
  global: {shards: 2, regions: [us_east], countries: [US]}
  eu: {shards: 2, regions: [eu_north, eu_west, eu_south], countries: [DE]}
endpoints:
  us_east: {grpc: '127.0.0.1:1', http: '127.0.0.2:1'}
  eu_north: {grpc: '127.0.0.1:2', http: '127.0.0.2:2'}
  eu_west: {grpc: '127.0.0.1:3', http: '127.0.0.2:3'}
  eu_south: {grpc: '127.0.0.1:4', http: '127.0.0.2:4'}
";
    Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_call_about_cards_goes_to_the_vault_of_the_zone() {
    let topology = vaults();
    let at = |path: &str, message: &[u8], zone: Option<&str>| {
        let plan = plan(policy(path), message)?;
        assert_eq!(shard(&topology, &plan, None)?, None, "no shard is asked");
        let zone = zone.map(|zone| zone.parse().expect("a zone"));
        vault(&topology, &plan, zone.as_ref()).map(|region| region.expect("a vault's").to_string())
    };
    let erase = |user_id| EraseUserRequest { user_id, ..Default::default() }.encode_to_vec();
    let describe = |token: &str| DescribeTokenRequest { vault_token: token.to_owned() }.encode_to_vec();
    let rotate = |zone: &str| RotateKeysRequest { zone: zone.to_owned(), ..Default::default() }.encode_to_vec();
    let letters = "abcdefghijklmnop".repeat(2);
    assert_eq!(at(ROTATE, &rotate("eu"), None), Ok("eu_west".to_owned()));
    assert_eq!(at(ERASE, &erase(7), Some("eu")), Ok("eu_west".to_owned()));
    assert_eq!(at(DESCRIBE, &describe(&format!("card_eu_{letters}")), None), Ok("eu_west".to_owned()));
    for (answer, reason, field) in [
        (at(ERASE, &erase(7), Some("global")), "VAULT_NOT_IN_ZONE", None),
        (at(ERASE, &erase(7), None), "USER_NOT_FOUND", None),
        (at(ERASE, &erase(0), None), "INVALID_FIELD", Some("user_id")),
        (at(DESCRIBE, &describe(&format!("card_global_{letters}")), None), "VAULT_NOT_IN_ZONE", None),
        (at(DESCRIBE, &describe(&format!("card_moon_{letters}")), None), "TOKEN_NOT_FOUND", None),
        (at(ROTATE, &rotate("global"), None), "VAULT_NOT_IN_ZONE", None),
        (at(ROTATE, &rotate("moon"), None), "ZONE_NOT_FOUND", None),
        (at(ROTATE, &rotate(""), None), "INVALID_FIELD", Some("zone")),
        (at(ROTATE, &rotate("EU West"), None), "INVALID_FIELD", Some("zone")),
        (at(DESCRIBE, &describe(""), None), "INVALID_FIELD", Some("vault_token")),
        (at(DESCRIBE, &describe("card_eu_4242424242424242"), None), "INVALID_FIELD", Some("vault_token")),
    ] {
        let fault = answer.expect_err(reason);
        assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), (reason, field), "{fault}");
        assert!(!fault.message.contains("4242"), "{fault}");
    }
    let pay = plan(policy(CREATE), &CreatePaymentRequest { payer_id: 7, ..Default::default() }.encode_to_vec()).expect("a plan");
    assert_eq!(vault(&topology, &pay, None), Ok(None));
}

#[test]
fn a_fault_does_not_repeat_the_country() {
    for country in ["FR", "de"] {
        let request = EnrollUserRequest { user_id: 8, residence_country: country.to_owned(), ..Default::default() };
        let fault = home(ENROLL, &request, None).expect_err("not served");
        assert!(!fault.message.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == country), "{fault}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_home_or_a_fault(message: Vec<u8>, zone in proptest::option::of("[a-z]{1,4}")) {
        let topology = crate::mesh::tests::topology(&[1, 2]);
        let zone = zone.map(|zone| zone.parse().expect("a zone"));
        for policy in policies().methods() {
            let Ok(plan) = plan(policy, &message) else { continue };
            let _ = vault(&topology, &plan, zone.as_ref());
            if let Ok(Some(shard)) = shard(&topology, &plan, zone.as_ref()) {
                let _ = leader(&topology, &shard);
            }
        }
    }
}
