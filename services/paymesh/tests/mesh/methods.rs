//! Payment methods over a whole mesh: kept by one region's word, listed by every region of the zone, and by none once they are removed, deleted or erased.

use std::time::{Duration, Instant};

use paymesh_contract::{
    Fault,
    common::v1::{Position, ReadLevel, ReadOptions},
    vault::v1::{CardDetails, DeleteTokenRequest, EraseUserRequest, TokenizeRequest, vault_service_client::VaultServiceClient},
    wallet::v1::{
        AddPaymentMethodRequest, ListPaymentMethodsRequest, ListPaymentMethodsResponse, RemovePaymentMethodRequest,
        payment_method_service_client::PaymentMethodServiceClient,
    },
};
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

use crate::support::{TestMesh, four_regions_with_vaults};

const VISA: &str = "4000056655665556";
const MASTERCARD: &str = "5200828282828210";
const AMEX: &str = "378282246310005";
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The regions of the user's zone, and one of another that callers may enter by.
const OF_THE_ZONE: [&str; 3] = ["us_east", "us_west", "asia_pacific"];
const ELSEWHERE: &str = "eu_west";

fn methods(mesh: &TestMesh, via: &str) -> PaymentMethodServiceClient<Channel> {
    PaymentMethodServiceClient::new(mesh.channel(via))
}

fn vault(mesh: &TestMesh, via: &str) -> VaultServiceClient<Channel> {
    VaultServiceClient::new(mesh.channel(via))
}

fn id() -> String {
    Uuid::now_v7().to_string()
}

async fn token(mesh: &TestMesh, user_id: u64, number: &str) -> String {
    let card = Some(CardDetails { number: number.to_owned(), expiry_month: 7, expiry_year: 2031 });
    let request = TokenizeRequest { request_id: id(), user_id, card, sealed_card: None };
    vault(mesh, "asia_pacific").tokenize(request).await.unwrap().into_inner().description.unwrap().vault_token
}

async fn add(mesh: &TestMesh, via: &str, user_id: u64, vault_token: &str) -> Position {
    let request = AddPaymentMethodRequest { request_id: id(), user_id, vault_token: vault_token.to_owned() };
    methods(mesh, via).add_payment_method(request).await.unwrap().into_inner().position.unwrap()
}

async fn list(mesh: &TestMesh, via: &str, user_id: u64, read: Option<ReadOptions>) -> Result<ListPaymentMethodsResponse, Status> {
    let mut request = Request::new(ListPaymentMethodsRequest { user_id, read });
    request.set_timeout(WAIT_MAX);
    methods(mesh, via).list_payment_methods(request).await.map(tonic::Response::into_inner)
}

fn shown(list: &ListPaymentMethodsResponse) -> Vec<&str> {
    list.methods.iter().map(|method| method.card.as_ref().map_or("?", |card| &card.last_four)).collect()
}

/// Every region lists these cards: read at the home, and from a copy that has come to `position`.
async fn listed_everywhere(mesh: &TestMesh, user_id: u64, position: &Position, last_fours: &[&str]) {
    for via in OF_THE_ZONE.into_iter().chain([ELSEWHERE]) {
        let at_home = list(mesh, via, user_id, None).await.unwrap();
        assert_eq!(shown(&at_home), last_fours, "by {via}, at home");
        let read = ReadOptions { level: ReadLevel::Local.into(), at_least: vec![position.clone()], ..ReadOptions::default() };
        let near_by = list(mesh, via, user_id, Some(read)).await.unwrap();
        assert_eq!(shown(&near_by), last_fours, "by {via}, from {:?}", near_by.source);
        assert!(!at_home.cards_missing && !near_by.cards_missing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_region_lists_what_is_kept_and_none_what_is_not() {
    // The odd users of the zone live in us_west; its vault is in us_east.
    let config = four_regions_with_vaults().replacen("database: read_replica", "database: regional_master", 1);
    let config = config.replace("asia_pacific], countries", "asia_pacific], leaders: {us_east: \"0\", us_west: \"1\"}, countries");
    let mut mesh = TestMesh::started(&config);
    let user = 11;
    mesh.enrol("us_east", user, "US", 0).await;
    let (visa, mastercard) = (token(&mesh, user, VISA).await, token(&mesh, user, MASTERCARD).await);
    add(&mesh, "asia_pacific", user, &visa).await;
    let kept = add(&mesh, "us_east", user, &mastercard).await;
    listed_everywhere(&mesh, user, &kept, &["5556", "8210"]).await;
    let home = list(&mesh, "us_east", user, None).await.unwrap().source.unwrap().region;
    assert_eq!(home, "us_west", "this test kills another region than it means to");

    // The home dies. Its copies list what they have; a card that is deleted meanwhile is not said to be.
    let near_by = ReadOptions { level: ReadLevel::Local.into(), at_least: vec![kept.clone()], ..ReadOptions::default() };
    let deadline = Instant::now() + WAIT_MAX;
    while list(&mesh, "asia_pacific", user, Some(near_by.clone())).await.unwrap().source.unwrap().region != "asia_pacific" {
        assert!(Instant::now() < deadline, "asia_pacific has no copy to be read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    mesh.kill("us_west");
    let from_copy = list(&mesh, "asia_pacific", user, Some(near_by)).await.unwrap();
    assert_eq!((shown(&from_copy), from_copy.source.as_ref().unwrap().region.as_str()), (vec!["5556", "8210"], "asia_pacific"));
    let delete = DeleteTokenRequest { request_id: id(), vault_token: visa.clone() };
    let mut deleting = Request::new(delete.clone());
    deleting.set_timeout(Duration::from_secs(8));
    let not_told = Fault::from_status(&vault(&mesh, "asia_pacific").delete_token(deleting).await.unwrap_err());
    assert_eq!((not_told.code, not_told.reason.as_ref(), not_told.retry_after.is_some()), (Code::Unavailable, "HOME_NOT_TOLD", true));
    mesh.start("us_west");
    let deadline = Instant::now() + WAIT_MAX;
    let deleted = loop {
        match vault(&mesh, "asia_pacific").delete_token(delete.clone()).await {
            Ok(deleted) => break deleted.into_inner().position.unwrap(),
            Err(status) => assert!(Instant::now() < deadline && status.code() == Code::Unavailable, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    listed_everywhere(&mesh, user, &deleted, &["8210"]).await;

    // Removed, killed at once, and kept again: the vault has the card still.
    let removing = RemovePaymentMethodRequest { request_id: id(), user_id: user, vault_token: mastercard.clone() };
    let removed = methods(&mesh, ELSEWHERE).remove_payment_method(removing.clone()).await.unwrap().into_inner();
    mesh.kill("us_west");
    mesh.start("us_west");
    listed_everywhere(&mesh, user, removed.position.as_ref().unwrap(), &[]).await;
    assert_eq!(methods(&mesh, "us_east").remove_payment_method(removing).await.unwrap().into_inner(), removed, "the same request again");
    add(&mesh, "us_west", user, &mastercard).await;
    let amex = token(&mesh, user, AMEX).await;
    let kept = add(&mesh, "us_west", user, &amex).await;
    listed_everywhere(&mesh, user, &kept, &["8210", "0005"]).await;

    let erase = EraseUserRequest { request_id: id(), user_id: user };
    let erased = vault(&mesh, ELSEWHERE).erase_user(erase).await.unwrap().into_inner();
    assert_eq!(erased.erased_tokens, 2);
    listed_everywhere(&mesh, user, erased.position.as_ref().unwrap(), &[]).await;
    mesh.assert_books();
}
