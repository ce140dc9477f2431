use paymesh_contract::{
    directory::v1::{EnrollUserRequest, LookUpUsersRequest},
    events::v1::SubscribeRequest,
    payments::v1::{CreatePaymentRequest, GetPaymentRequest},
    policies,
};
use proptest::prelude::*;
use prost::Message;

use super::*;

const CREATE: &str = "/paymesh.payments.v1.PaymentService/CreatePayment";
const GET: &str = "/paymesh.payments.v1.PaymentService/GetPayment";
const ENROLL: &str = "/paymesh.directory.v1.DirectoryService/EnrollUser";
const LOOK_UP: &str = "/paymesh.directory.v1.DirectoryService/LookUpUsers";
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
            if let Ok(Some(shard)) = shard(&topology, &plan, zone.as_ref()) {
                let _ = leader(&topology, &shard);
            }
        }
    }
}
