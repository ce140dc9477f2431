//! VaultService through its generated client and the mesh of one node.

use std::sync::{Arc, Mutex};

use paymesh_client::{VaultKey, seal};
use paymesh_contract::{
    Fault,
    common::v1::Position,
    directory::v1::{
        ClaimUserRequest, ClaimUserResponse, EnrollUserRequest, EnrollUserResponse, LookUpUsersRequest, LookUpUsersResponse, UserZone,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    vault::v1::{
        CardBrand, CardDetails, DeleteTokenRequest, DescribeTokenRequest, EraseUserRequest, GetVaultKeyRequest, RotateKeysRequest,
        RotationState, TokenizeRequest, vault_service_client::VaultServiceClient,
    },
    wallet::v1::{
        AddPaymentMethodRequest, AddPaymentMethodResponse, ForgetDeletedCardsRequest, ForgetDeletedCardsResponse,
        ListPaymentMethodsRequest, ListPaymentMethodsResponse, RemovePaymentMethodRequest, RemovePaymentMethodResponse,
        payment_method_service_server::{PaymentMethodService, PaymentMethodServiceServer},
    },
};
use paymesh_mesh::{Mesh, MeshChannel, Security};
use paymesh_topology::Topology;
use paymesh_vault::{Acquirers, Vault};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::support::{AMEX, Place, VISA, card};

/// Users below 100 are of `eu`, those below 200 of `us`, which has no vault, and there are no others.
struct Users;

#[tonic::async_trait]
impl DirectoryService for Users {
    async fn enroll_user(&self, _: Request<EnrollUserRequest>) -> Result<Response<EnrollUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn claim_user(&self, _: Request<ClaimUserRequest>) -> Result<Response<ClaimUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn look_up_users(&self, request: Request<LookUpUsersRequest>) -> Result<Response<LookUpUsersResponse>, Status> {
        let zone = |id: u64| if id < 100 { Some("eu") } else { (id < 200).then_some("us") };
        let ids = request.into_inner().user_ids;
        let users = ids.into_iter().filter_map(|id| Some(UserZone { user_id: id, zone: zone(id)?.to_owned() })).collect();
        Ok(Response::new(LookUpUsersResponse { users }))
    }
}

/// The users' home: what it was told, and whether it cannot be.
#[derive(Clone, Default)]
struct Home(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    away: bool,
    told: Vec<(u64, String)>,
}

impl Home {
    fn is_away(&self, away: bool) {
        self.0.lock().expect("no test panics with it").away = away;
    }

    fn told(&self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.0.lock().expect("no test panics with it").told)
    }
}

#[tonic::async_trait]
impl PaymentMethodService for Home {
    async fn forget_deleted_cards(
        &self,
        request: Request<ForgetDeletedCardsRequest>,
    ) -> Result<Response<ForgetDeletedCardsResponse>, Status> {
        let ForgetDeletedCardsRequest { user_id, vault_token } = request.into_inner();
        let mut told = self.0.lock().expect("no test panics with it");
        if told.away {
            return Err(Status::unavailable("for a test"));
        }
        told.told.push((user_id, vault_token));
        let position = Some(Position { zone: "eu".to_owned(), sequence: told.told.len() as u64, ..Position::default() });
        Ok(Response::new(ForgetDeletedCardsResponse { position }))
    }

    async fn add_payment_method(&self, _: Request<AddPaymentMethodRequest>) -> Result<Response<AddPaymentMethodResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_payment_methods(&self, _: Request<ListPaymentMethodsRequest>) -> Result<Response<ListPaymentMethodsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_payment_method(&self, _: Request<RemovePaymentMethodRequest>) -> Result<Response<RemovePaymentMethodResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Node {
    home: Home,
    _place: Place,
    _opened: watch::Sender<Option<Vault>>,
    client: VaultServiceClient<MeshChannel>,
}

async fn node(opened: bool) -> Node {
    let yaml = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, vault], database: primary_master}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
  us: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  us_east: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
";
    let topology = Arc::new(Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}")));
    let place = Place::new();
    let vault = if opened { Some(place.open().await) } else { None };
    let (opened, vault) = watch::channel(vault);
    let mesh = Mesh::new(topology, "eu_west".parse().expect("a region"), Security::PlainText).expect("a mesh");
    let home = Home::default();
    let routes = Routes::new(DirectoryServiceServer::new(Users)).add_service(PaymentMethodServiceServer::new(home.clone()));
    mesh.attach(routes.add_service(paymesh_vault::service(vault, mesh.clone(), Acquirers::default())));
    let client = VaultServiceClient::new(mesh.channel());
    Node { home, _place: place, _opened: opened, client }
}

fn in_clear(user_id: u64, number: &str) -> TokenizeRequest {
    let card = CardDetails { number: number.to_owned(), expiry_month: 7, expiry_year: 2031 };
    TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id, card: Some(card), sealed_card: None }
}

fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> (Code, String, Option<String>) {
    let fault = Fault::from_status(&answer.expect_err("it is refused"));
    (fault.code, fault.reason.to_string(), fault.field)
}

#[tokio::test]
async fn a_card_goes_in_sealed_or_in_clear_and_comes_out_as_a_description() {
    let node = node(true).await;
    let mut client = node.client.clone();
    let taken = client.tokenize(in_clear(7, VISA)).await.expect("a card").into_inner().description.expect("a description");
    assert_eq!((taken.user_id, taken.brand(), taken.bin.as_str(), taken.last_four.as_str()), (7, CardBrand::Visa, "42424242", "4242"));
    assert_eq!((taken.expiry_month, taken.expiry_year, taken.fingerprint.len()), (7, 2031, 16));

    let key = client.get_vault_key(GetVaultKeyRequest { user_id: 7 }).await.expect("a key").into_inner();
    assert_eq!((key.zone.as_str(), key.public_key.len()), ("eu", 65));
    assert_eq!(key.signature, None, "in plain text nobody is anybody");
    let key = VaultKey::unproven(7, &key).expect("a key");
    let sealed_card = Some(seal(&card(VISA, 7, 2031), &key).expect("sealed"));
    let sealed = TokenizeRequest { request_id: Uuid::now_v7().to_string(), user_id: 7, card: None, sealed_card };
    assert_eq!(client.tokenize(sealed).await.expect("a card").into_inner().description, Some(taken.clone()));

    let described = client.describe_token(DescribeTokenRequest { vault_token: taken.vault_token.clone() }).await.expect("a card");
    assert_eq!(described.into_inner().description, Some(taken.clone()));

    let delete = DeleteTokenRequest { request_id: Uuid::now_v7().to_string(), vault_token: taken.vault_token.clone() };
    client.delete_token(delete.clone()).await.expect("deleted");
    client.delete_token(delete).await.expect("the same answer");
    let gone = refused(client.describe_token(DescribeTokenRequest { vault_token: taken.vault_token }).await);
    assert_eq!(gone, (Code::NotFound, "TOKEN_NOT_FOUND".to_owned(), Some("vault_token".to_owned())));
}

#[tokio::test]
async fn an_erased_users_tokens_are_not_found() {
    let node = node(true).await;
    let mut client = node.client.clone();
    let mut tokens = Vec::new();
    for number in [VISA, AMEX] {
        let taken = client.tokenize(in_clear(7, number)).await.expect("a card").into_inner().description.expect("a description");
        tokens.push(taken.vault_token);
    }
    let erase = EraseUserRequest { request_id: Uuid::now_v7().to_string(), user_id: 7 };
    for _ in 0..2 {
        assert_eq!(client.erase_user(erase.clone()).await.expect("erased").into_inner().erased_tokens, 2);
    }
    for vault_token in tokens {
        assert_eq!(refused(client.describe_token(DescribeTokenRequest { vault_token }).await).1, "TOKEN_NOT_FOUND");
    }
}

/// Who deleted a card knows that it is listed nowhere any more, or hears that it may be, and tells by the same request again.
#[tokio::test]
async fn a_users_home_is_told_of_what_is_deleted_before_the_answer() {
    let node = node(true).await;
    let mut client = node.client.clone();
    let mut taken = Vec::new();
    for number in [VISA, AMEX] {
        taken
            .push(client.tokenize(in_clear(7, number)).await.expect("a card").into_inner().description.expect("a description").vault_token);
    }
    assert_eq!(node.home.told(), [], "nothing is deleted");
    let delete = DeleteTokenRequest { request_id: Uuid::now_v7().to_string(), vault_token: taken[0].clone() };
    node.home.is_away(true);
    for _ in 0..2 {
        let fault = Fault::from_status(&client.delete_token(delete.clone()).await.expect_err("the home is away"));
        assert_eq!((fault.code, fault.reason.as_ref(), fault.retry_after.is_some()), (Code::Unavailable, "HOME_NOT_TOLD", true));
        let described = client.describe_token(DescribeTokenRequest { vault_token: taken[0].clone() }).await;
        assert_eq!(refused(described).1, "TOKEN_NOT_FOUND", "it is deleted all the same");
    }
    let other = DeleteTokenRequest { request_id: Uuid::now_v7().to_string(), ..delete.clone() };
    assert_eq!(refused(client.delete_token(other).await).1, "TOKEN_NOT_FOUND", "another request has deleted nothing, and tells nobody");
    node.home.is_away(false);
    for _ in 0..2 {
        let position = client.delete_token(delete.clone()).await.expect("it is told").into_inner().position.expect("a position");
        assert_eq!((position.zone.as_str(), position.sequence), ("eu", 1));
        assert_eq!(node.home.told(), [(7, taken[0].clone())]);
    }

    let erase = EraseUserRequest { request_id: Uuid::now_v7().to_string(), user_id: 7 };
    node.home.is_away(true);
    assert_eq!(refused(client.erase_user(erase.clone()).await).1, "HOME_NOT_TOLD");
    node.home.is_away(false);
    for _ in 0..2 {
        let erased = client.erase_user(erase.clone()).await.expect("erased").into_inner();
        assert_eq!((erased.erased_tokens, erased.position.expect("a position").sequence), (1, 1));
        assert_eq!(node.home.told(), [(7, String::new())], "any of the user's may be gone");
    }
}

#[tokio::test]
async fn a_rotation_is_begun_by_zone_and_the_same_request_begins_no_other() {
    let node = node(true).await;
    let mut client = node.client.clone();
    client.tokenize(in_clear(7, VISA)).await.expect("a card");
    let of = |zone: &str| RotateKeysRequest { request_id: Uuid::now_v7().to_string(), zone: zone.to_owned() };
    let rotate = of("eu");
    for _ in 0..2 {
        let begun = client.rotate_keys(rotate.clone()).await.expect("it begins").into_inner();
        assert_eq!((begun.key_number, begun.state(), begun.keys_left, begun.begun_by_request), (2, RotationState::InProgress, 2, true));
    }
    let other = client.rotate_keys(of("eu")).await.expect("it answers").into_inner();
    assert_eq!((other.key_number, other.begun_by_request), (2, false));
    for (request, code, reason, field) in [
        (of("us"), Code::FailedPrecondition, "VAULT_NOT_IN_ZONE", "zone"),
        (of("moon"), Code::NotFound, "ZONE_NOT_FOUND", "zone"),
        (of(""), Code::InvalidArgument, "INVALID_FIELD", "zone"),
        (of("E U"), Code::InvalidArgument, "INVALID_FIELD", "zone"),
        (RotateKeysRequest { request_id: String::new(), ..of("eu") }, Code::InvalidArgument, "INVALID_FIELD", "request_id"),
    ] {
        assert_eq!(refused(client.rotate_keys(request).await), (code, reason.to_owned(), Some(field.to_owned())));
    }
}

#[tokio::test]
async fn what_is_refused_names_its_reason_and_field_and_no_digit() {
    let node = node(true).await;
    let mut client = node.client.clone();
    let with = |change: fn(&mut TokenizeRequest)| {
        let mut request = in_clear(7, VISA);
        change(&mut request);
        request
    };
    for (request, code, reason, field) in [
        (with(|request| request.request_id.clear()), Code::InvalidArgument, "INVALID_FIELD", "request_id"),
        (with(|request| request.user_id = 0), Code::InvalidArgument, "INVALID_FIELD", "user_id"),
        (with(|request| request.card = None), Code::InvalidArgument, "INVALID_FIELD", "card"),
        (in_clear(7, "4242424242424241"), Code::InvalidArgument, "INVALID_FIELD", "card.number"),
        (in_clear(999, VISA), Code::NotFound, "USER_NOT_FOUND", "user_id"),
        (in_clear(150, VISA), Code::FailedPrecondition, "VAULT_NOT_IN_ZONE", "user_id"),
        (with(|request| request.card.as_mut().expect("set").expiry_year = 2020), Code::FailedPrecondition, "CARD_EXPIRED", ""),
    ] {
        let answer = client.tokenize(request).await;
        let printed = format!("{answer:?}");
        assert!(!printed.contains("424242"), "{printed}");
        assert_eq!(refused(answer), (code, reason.to_owned(), Some(field.to_owned()).filter(|field| !field.is_empty())));
    }
    let letters = "a".repeat(32);
    for (token, code, reason) in [
        ("".to_owned(), Code::InvalidArgument, "INVALID_FIELD"),
        ("4242424242424242".to_owned(), Code::InvalidArgument, "INVALID_FIELD"),
        (format!("card_eu_{letters}"), Code::NotFound, "TOKEN_NOT_FOUND"),
        (format!("card_us_{letters}"), Code::FailedPrecondition, "VAULT_NOT_IN_ZONE"),
        (format!("card_moon_{letters}"), Code::NotFound, "TOKEN_NOT_FOUND"),
    ] {
        let answer = refused(client.describe_token(DescribeTokenRequest { vault_token: token.clone() }).await);
        assert_eq!((answer.0, answer.1.as_str()), (code, reason), "{token}");
        let delete = DeleteTokenRequest { request_id: Uuid::now_v7().to_string(), vault_token: token.clone() };
        let answer = refused(client.delete_token(delete).await);
        assert_eq!((answer.0, answer.1.as_str()), (code, reason), "{token}");
    }
}

#[tokio::test]
async fn a_vault_that_is_not_open_says_when_to_come_again() {
    let node = node(false).await;
    let status = node.client.clone().tokenize(in_clear(7, VISA)).await.expect_err("it is not open");
    let fault = Fault::from_status(&status);
    assert_eq!((fault.code, fault.reason.as_ref(), fault.retry_after.is_some()), (Code::Unavailable, "VAULT_UNAVAILABLE", true));
}
