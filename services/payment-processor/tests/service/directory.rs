//! Enrolment, claims and look-ups.

use paymesh_contract::{
    directory::v1::{ClaimUserRequest, LookUpUsersRequest},
    wallet::v1::{GetBalanceRequest, OpenAccountRequest},
};
use prost::Message as _;
use tonic::Code;

use crate::support::{Node, enrolment, id, refusal, refused};

fn claim(user_id: u64, zone: &str) -> ClaimUserRequest {
    ClaimUserRequest { user_id, zone: zone.to_owned() }
}

#[tokio::test]
async fn a_user_is_enrolled_once_in_the_zone_of_their_country() {
    let node = Node::start().await;
    let mut directory = node.directory();
    let request = enrolment(7, "DE");
    let first = directory.enroll_user(request.clone()).await.expect("an enrolment").into_inner();
    assert_eq!(first.shard.as_ref().map(|shard| (shard.zone.as_str(), shard.shard)), Some(("eu", 1)));
    let again = directory.enroll_user(request.clone()).await.expect("the same").into_inner();
    assert_eq!(again.encode_to_vec(), first.encode_to_vec());
    assert_eq!(refused(directory.enroll_user(enrolment(7, "DE")).await), refusal(Code::AlreadyExists, "USER_EXISTS", ""));
    let mut other = request;
    other.currency_codes.push("USD".to_owned());
    assert_eq!(refused(directory.enroll_user(other).await), refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", "currency_codes"));
    node.close().await;
}

#[tokio::test]
async fn who_cannot_be_enrolled_is_told_why() {
    let node = Node::start().await;
    let mut directory = node.directory();
    let invalid = |field: &str| refusal(Code::InvalidArgument, "INVALID_FIELD", field);
    assert_eq!(refused(directory.enroll_user(enrolment(8, "FR")).await), refusal(Code::FailedPrecondition, "COUNTRY_NOT_SERVED", ""));
    assert_eq!(refused(directory.enroll_user(enrolment(8, "de")).await), invalid("residence_country"));
    assert_eq!(refused(directory.enroll_user(enrolment(0, "DE")).await), invalid("user_id"));
    let mut twice = enrolment(8, "DE");
    twice.currency_codes.push("EUR".to_owned());
    assert_eq!(refused(directory.enroll_user(twice).await), invalid("currency_codes"));
    let mut many = enrolment(8, "DE");
    many.currency_codes = vec!["EUR".to_owned(); 17];
    assert_eq!(refused(directory.enroll_user(many).await), invalid("currency_codes"));
    let mut nameless = enrolment(8, "DE");
    nameless.request_id.clear();
    assert_eq!(refused(directory.enroll_user(nameless).await), invalid("request_id"));
    node.close().await;
}

#[tokio::test]
async fn a_claim_can_be_made_again_and_an_unfinished_enrolment_goes_on_from_it() {
    let node = Node::start().await;
    let mut directory = node.directory();
    let first = directory.claim_user(claim(9, "eu")).await.expect("a claim").into_inner().position.expect("a position");
    let again = directory.claim_user(claim(9, "eu")).await.expect("it stands").into_inner().position.expect("a position");
    assert!(again.sequence >= first.sequence);
    assert_eq!(refused(directory.claim_user(claim(9, "mars")).await), refusal(Code::InvalidArgument, "INVALID_FIELD", "zone"));
    // Claimed, not enrolled: there is no such user yet.
    let balance = node.wallets().get_balance(GetBalanceRequest { user_id: 9, read: None }).await;
    assert_eq!(refused(balance), refusal(Code::NotFound, "USER_NOT_FOUND", "user_id"));
    let open = OpenAccountRequest { request_id: id(), user_id: 9, currency_code: "EUR".to_owned() };
    assert_eq!(refused(node.wallets().open_account(open).await), refusal(Code::NotFound, "USER_NOT_FOUND", "user_id"));
    directory.enroll_user(enrolment(9, "DE")).await.expect("an enrolment");
    assert_eq!(node.balance(9).await, (0, 0));
    node.close().await;
}

#[tokio::test]
async fn users_are_looked_up_and_those_nobody_claimed_are_absent() {
    let node = Node::start().await;
    node.users(&[(7, 0), (8, 0)]).await;
    let look_up = |user_ids| LookUpUsersRequest { user_ids };
    let mut found = node.directory().look_up_users(look_up(vec![7, 99, 8, 7])).await.expect("users").into_inner().users;
    found.sort_by_key(|user| user.user_id);
    found.dedup();
    assert_eq!(found.iter().map(|user| (user.user_id, user.zone.as_str())).collect::<Vec<_>>(), [(7, "eu"), (8, "eu")]);
    let too_many = node.directory().look_up_users(look_up((1..=8_193).collect())).await;
    assert_eq!(refused(too_many), refusal(Code::InvalidArgument, "TOO_MANY_ITEMS", "user_ids"));
    let zero = node.directory().look_up_users(look_up(vec![7, 0])).await;
    assert_eq!(refused(zero), refusal(Code::InvalidArgument, "INVALID_FIELD", "user_ids"));
    node.close().await;
}
