//! Payment methods through real clients: a real node, a vault that follows a script, and a cache with a clock that tests move.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use paymesh_cache::Cache;
use paymesh_contract::{
    Fault,
    common::v1::{ReadLevel, ReadOptions},
    vault::v1::{
        AuthorizeRequest, AuthorizeResponse, CardBrand, DeleteTokenRequest, DeleteTokenResponse, DescribeTokenRequest,
        DescribeTokenResponse, EraseUserRequest, EraseUserResponse, GetVaultKeyRequest, GetVaultKeyResponse, RotateKeysRequest,
        RotateKeysResponse, TokenDescription, TokenizeRequest, TokenizeResponse,
        vault_service_server::{VaultService, VaultServiceServer},
    },
    wallet::v1::{
        AddPaymentMethodRequest, ForgetDeletedCardsRequest, KeptCard, ListPaymentMethodsRequest, ListPaymentMethodsResponse,
        RemovePaymentMethodRequest, payment_method_service_client::PaymentMethodServiceClient,
    },
};
use paymesh_ledger::Command;
use paymesh_mesh::MeshChannel;
use paymesh_payment_processor::{Services, services};
use paymesh_shard::Options;
use paymesh_topology::Topology;
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Code, Request, Response, Status};

use crate::{
    reads::Pair,
    support::{Node, id, no_problems, refusal, refused},
};

const TOPOLOGY: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, vault], database: primary_master}
zones:
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
";
const HOUR: u64 = 3_600;
/// How long the tests wait for what happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long for what must not happen.
const A_MOMENT: Duration = Duration::from_millis(200);

/// What the vault does. A card is known by the letter that its token is made of.
#[derive(Clone, Default)]
struct Vault {
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// Whose each card is, and when it expires.
    cards: BTreeMap<String, (u64, u32)>,
    away: bool,
    asked: u64,
    /// Answers that are made wait for one of these before they are sent.
    held: Option<Arc<Semaphore>>,
}

impl Vault {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics with it")
    }

    fn has(&self, card: char, user: u64, expiry_year: u32) -> String {
        self.script().cards.insert(token(card), (user, expiry_year));
        token(card)
    }

    fn deletes(&self, card: char) {
        assert!(self.script().cards.remove(&token(card)).is_some());
    }

    fn is_away(&self, away: bool) {
        self.script().away = away;
    }

    /// How often it was asked since the last time.
    fn asked(&self) -> u64 {
        std::mem::take(&mut self.script().asked)
    }

    /// Has it hold its answers back.
    fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        self.script().held = Some(Arc::clone(&held));
        held
    }

    async fn until_asked(&self) {
        let asked = async {
            while self.script().asked == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("the vault is asked");
        self.script().asked = 0;
    }
}

fn token(card: char) -> String {
    format!("card_eu_{}", card.to_string().repeat(32))
}

#[tonic::async_trait]
impl VaultService for Vault {
    async fn describe_token(&self, request: Request<DescribeTokenRequest>) -> Result<Response<DescribeTokenResponse>, Status> {
        let vault_token = request.into_inner().vault_token;
        let (answer, held) = {
            let mut script = self.script();
            script.asked += 1;
            let answer: Result<_, Status> = match (script.away, script.cards.get(&vault_token)) {
                (true, _) => Err(Fault::unavailable("VAULT_UNAVAILABLE", "for a test", Duration::from_secs(1)).into()),
                (false, None) => Err(Fault::not_found("TOKEN_NOT_FOUND", "there is no such card").into()),
                (false, Some((user_id, expiry_year))) => Ok(TokenDescription {
                    vault_token,
                    user_id: *user_id,
                    brand: CardBrand::Visa.into(),
                    bin: "42424242".to_owned(),
                    last_four: "4242".to_owned(),
                    expiry_month: 7,
                    expiry_year: *expiry_year,
                    fingerprint: vec![7; 16],
                }),
            };
            (answer, script.held.clone())
        };
        if let Some(held) = held {
            held.acquire().await.expect("it is never closed").forget();
        }
        answer.map(|description| Response::new(DescribeTokenResponse { description: Some(description) }))
    }

    async fn authorize(&self, _: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_vault_key(&self, _: Request<GetVaultKeyRequest>) -> Result<Response<GetVaultKeyResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn tokenize(&self, _: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_token(&self, _: Request<DeleteTokenRequest>) -> Result<Response<DeleteTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn erase_user(&self, _: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_keys(&self, _: Request<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// What is cached, and until when.
type Entries = BTreeMap<Vec<u8>, (Bytes, u64)>;

/// A cache whose time tests move.
#[derive(Debug, Clone, Default)]
struct Clocked {
    now_s: Arc<AtomicU64>,
    entries: Arc<Mutex<Entries>>,
    broken: Arc<AtomicU64>,
}

impl Clocked {
    fn pass(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Relaxed);
    }

    fn len(&self) -> usize {
        self.entries.lock().expect("no test panics with it").len()
    }

    async fn until_empty(&self) {
        let emptied = async {
            while self.len() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, emptied).await.expect("what was cached is let go of");
    }

    fn usable(&self) -> Result<MutexGuard<'_, Entries>, paymesh_cache::Error> {
        match self.broken.load(Relaxed) {
            0 => Ok(self.entries.lock().expect("no test panics with it")),
            _ => Err(paymesh_cache::Error { place: "test".to_owned(), why: "for a test".to_owned() }),
        }
    }
}

#[async_trait]
impl Cache for Clocked {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, paymesh_cache::Error> {
        let now = self.now_s.load(Relaxed);
        Ok(self.usable()?.get(key).filter(|(_, ends)| *ends > now).map(|(value, _)| value.clone()))
    }

    async fn insert(&self, key: &[u8], value: Bytes, time_to_live: Duration) -> Result<(), paymesh_cache::Error> {
        let ends = self.now_s.load(Relaxed) + time_to_live.as_secs();
        self.usable()?.insert(key.to_vec(), (value, ends));
        Ok(())
    }

    async fn invalidate(&self, key: &[u8]) -> Result<(), paymesh_cache::Error> {
        self.usable()?.remove(key);
        Ok(())
    }
}

/// A node with a vault, and users 1 to 3.
struct Place {
    node: Node,
    vault: Vault,
    cache: Clocked,
}

impl Place {
    async fn start() -> Self {
        let topology = Arc::new(Topology::parse("test", TOPOLOGY).unwrap_or_else(|errors| panic!("{errors}")));
        let node = Node::of(topology, "eu_west", Options::default()).await;
        let (vault, cache) = (Vault::default(), Clocked::default());
        attach(&node, &vault, &cache);
        node.users(&[(1, 0), (2, 0), (3, 0)]).await;
        Self { node, vault, cache }
    }

    fn client(&self) -> PaymentMethodServiceClient<MeshChannel> {
        PaymentMethodServiceClient::new(self.node.mesh.channel())
    }

    async fn add(&self, user_id: u64, vault_token: &str) -> AddPaymentMethodRequest {
        let request = adding(user_id, vault_token);
        self.client().add_payment_method(request.clone()).await.expect("it is kept");
        request
    }

    async fn remove(&self, user_id: u64, vault_token: &str) {
        let request = RemovePaymentMethodRequest { request_id: id(), user_id, vault_token: vault_token.to_owned() };
        self.client().remove_payment_method(request).await.expect("it is removed");
    }

    async fn forget(&self, user_id: u64, vault_token: &str) {
        let request = ForgetDeletedCardsRequest { user_id, vault_token: vault_token.to_owned() };
        self.client().forget_deleted_cards(request).await.expect("what is gone is removed");
    }

    async fn list(&self, user_id: u64) -> ListPaymentMethodsResponse {
        self.client().list_payment_methods(ListPaymentMethodsRequest { user_id, read: None }).await.expect("a list").into_inner()
    }

    /// The tokens that a user keeps.
    async fn tokens(&self, user_id: u64) -> Vec<String> {
        self.list(user_id).await.methods.into_iter().map(|method| method.vault_token).collect()
    }
}

fn attach(node: &Node, vault: &Vault, cache: &Clocked) {
    let Services { routes, sweep } =
        services(node.shards.clone(), node.copies.clone(), node.mesh.clone(), no_problems(), None, Arc::new(cache.clone()));
    node.mesh.attach(routes.add_service(VaultServiceServer::new(vault.clone())));
    tokio::spawn(sweep);
}

fn adding(user_id: u64, vault_token: &str) -> AddPaymentMethodRequest {
    AddPaymentMethodRequest { request_id: id(), user_id, vault_token: vault_token.to_owned() }
}

fn card(expiry_year: u32) -> KeptCard {
    KeptCard { brand: CardBrand::Visa.into(), last_four: "4242".to_owned(), expiry_month: 7, expiry_year }
}

fn cards(list: &ListPaymentMethodsResponse) -> Vec<Option<KeptCard>> {
    list.methods.iter().map(|method| method.card.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_own_cards_are_kept_and_no_others() {
    let place = Place::start().await;
    let (mine, second, others) = (place.vault.has('a', 1, 2031), place.vault.has('b', 1, 2030), place.vault.has('c', 2, 2031));
    assert_eq!(place.tokens(1).await, [""; 0]);
    let first = place.add(1, &mine).await;
    place.add(1, &second).await;
    let list = place.list(1).await;
    assert_eq!(cards(&list), [Some(card(2031)), Some(card(2030))]);
    assert!(!list.cards_missing && list.methods.iter().all(|method| method.added_at.is_some()));
    assert_eq!(list.source.expect("it says where").region, "eu_west");

    let mut client = place.client();
    for (user, token, wanted) in [
        (1, others.as_str(), refusal(Code::NotFound, "TOKEN_NOT_FOUND", "vault_token")),
        (1, &token('d'), refusal(Code::NotFound, "TOKEN_NOT_FOUND", "vault_token")),
        (1, &token('a').replace("eu", "us"), refusal(Code::NotFound, "TOKEN_NOT_FOUND", "vault_token")),
        (1, "4242424242424242", refusal(Code::InvalidArgument, "INVALID_FIELD", "vault_token")),
        (0, &mine, refusal(Code::InvalidArgument, "INVALID_FIELD", "user_id")),
        (999, &mine, refusal(Code::NotFound, "USER_NOT_FOUND", "user_id")),
        (1, &mine, refusal(Code::AlreadyExists, "PAYMENT_METHOD_EXISTS", "vault_token")),
    ] {
        assert_eq!(refused(client.add_payment_method(adding(user, token)).await), wanted, "{user} {token}");
    }
    let list = client.list_payment_methods(ListPaymentMethodsRequest { user_id: 999, read: None }).await;
    assert_eq!(refused(list), refusal(Code::NotFound, "USER_NOT_FOUND", "user_id"));

    // The same request again, whatever has become of the card; and another under its id.
    place.vault.deletes('a');
    for again in 0..2 {
        place.vault.is_away(again == 1);
        client.add_payment_method(first.clone()).await.expect("the same answer");
        let other = AddPaymentMethodRequest { vault_token: token('e'), ..first.clone() };
        assert_eq!(refused(client.add_payment_method(other).await), refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", "vault_token"));
    }
    place.vault.is_away(false);

    let removing = RemovePaymentMethodRequest { request_id: id(), user_id: 1, vault_token: second.clone() };
    let removed = client.remove_payment_method(removing.clone()).await.expect("it is removed").into_inner();
    assert_eq!(client.remove_payment_method(removing).await.expect("the same again").into_inner(), removed);
    let removing = RemovePaymentMethodRequest { request_id: id(), user_id: 1, vault_token: second.clone() };
    let missing = refused(client.remove_payment_method(removing).await);
    assert_eq!(missing, refusal(Code::NotFound, "PAYMENT_METHOD_NOT_FOUND", "vault_token"));
    assert!(!place.tokens(1).await.contains(&second));
    place.node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vault_is_asked_once_an_hour_for_what_a_card_looks_like() {
    let place = Place::start().await;
    let mine = place.vault.has('a', 1, 2031);
    place.add(1, &mine).await;
    assert_eq!(place.vault.asked(), 1, "whose it is");
    for _ in 0..20 {
        assert_eq!(cards(&place.list(1).await), [Some(card(2031))]);
    }
    assert_eq!(place.vault.asked(), 1);
    // The card is renewed, which its vault knows.
    place.vault.has('a', 1, 2036);
    place.cache.pass(HOUR - 1);
    assert_eq!((cards(&place.list(1).await), place.vault.asked()), (vec![Some(card(2031))], 0));
    place.cache.pass(1);
    assert_eq!((cards(&place.list(1).await), place.vault.asked()), (vec![Some(card(2036))], 1));
    assert_eq!((cards(&place.list(1).await), place.vault.asked()), (vec![Some(card(2036))], 0));
    // A cache that cannot be had is one that has nothing.
    place.cache.broken.store(1, Relaxed);
    assert_eq!((cards(&place.list(1).await), place.vault.asked()), (vec![Some(card(2036))], 1));
    place.node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_is_not_listed_and_the_cache_lets_go_of_it() {
    let place = Place::start().await;
    let mine = place.vault.has('a', 1, 2031);
    for year in [2031, 2032, 2033] {
        place.vault.has('a', 1, year);
        place.add(1, &mine).await;
        // Also one that was kept a moment ago, and looked otherwise.
        assert_eq!(cards(&place.list(1).await), [Some(card(year))]);
        place.remove(1, &mine).await;
        assert_eq!(place.tokens(1).await, [""; 0], "at once");
    }
    place.cache.until_empty().await;
    place.node.close().await;
}

/// A list that asked the vault before a card was removed, and is answered afterwards, leaves nothing of it in the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_late_brings_nothing_back_into_the_cache() {
    let place = Place::start().await;
    let (mine, second) = (place.vault.has('a', 1, 2031), place.vault.has('b', 1, 2031));
    place.add(1, &mine).await;
    place.add(1, &second).await;
    // So that the journal is followed.
    place.list(1).await;
    place.cache.pass(HOUR);
    place.vault.asked();
    let held = place.vault.hold();
    let late = tokio::spawn({
        let mut client = place.client();
        async move { client.list_payment_methods(ListPaymentMethodsRequest { user_id: 1, read: None }).await }
    });
    place.vault.until_asked().await;
    place.remove(1, &mine).await;
    place.remove(1, &second).await;
    place.cache.until_empty().await;
    held.add_permits(2);
    assert_eq!(late.await.expect("it ends").expect("a list").into_inner().methods.len(), 2, "as it was when it began");
    assert_eq!(place.cache.len(), 0);
    place.node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_away_keeps_nobody_from_their_list() {
    let place = Place::start().await;
    let (known, unknown) = (place.vault.has('a', 1, 2031), place.vault.has('b', 1, 2031));
    place.add(1, &known).await;
    place.list(1).await;
    place.add(1, &unknown).await;
    place.vault.is_away(true);
    let list = place.list(1).await;
    assert_eq!((cards(&list), list.cards_missing), (vec![Some(card(2031)), None], true));
    let third = place.vault.has('c', 1, 2031);
    assert_eq!(refused(place.client().add_payment_method(adding(1, &third)).await).1, "VAULT_UNAVAILABLE");
    // Nor one that says nothing.
    place.vault.is_away(false);
    place.vault.hold();
    let list = timeout(PATIENCE, place.list(1)).await.expect("it is answered");
    assert_eq!((cards(&list), list.cards_missing), (vec![Some(card(2031)), None], true));
    // What is removed is not listed, whether the vault can be asked or not.
    place.remove(1, &known).await;
    place.vault.script().held = None;
    assert_eq!(place.tokens(1).await, [unknown]);
    place.node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_vault_has_deleted_is_forgotten_and_nothing_else() {
    let place = Place::start().await;
    for letter in ['a', 'b', 'c', 'd'] {
        let token = place.vault.has(letter, 1, 2031);
        place.add(1, &token).await;
    }
    place.list(1).await;
    place.vault.deletes('a');
    place.forget(1, &token('a')).await;
    place.vault.is_away(true);
    assert_eq!(place.tokens(1).await, [token('b'), token('c'), token('d')], "cached or not");
    let away = refused(place.client().forget_deleted_cards(ForgetDeletedCardsRequest { user_id: 1, ..Default::default() }).await);
    assert_eq!((away.0, away.1.as_str()), (Code::Unavailable, "VAULT_UNAVAILABLE"), "whoever is told so asks again");
    place.vault.is_away(false);
    // Erased, and one taken in again.
    for letter in ['b', 'c', 'd'] {
        place.vault.deletes(letter);
    }
    let again = place.vault.has('e', 1, 2031);
    place.add(1, &again).await;
    place.forget(1, "").await;
    place.vault.is_away(true);
    assert_eq!(place.tokens(1).await, [again.as_str()]);
    place.vault.is_away(false);
    for _ in 0..2 {
        place.forget(1, "").await;
        place.forget(1, &token('b')).await;
        assert_eq!(place.tokens(1).await, [again.as_str()], "whoever says so: the vault has it");
    }
    // A home that was not told yet lists a deleted card no longer than it is cached.
    place.vault.deletes('e');
    place.cache.pass(HOUR);
    assert_eq!(place.tokens(1).await, [""; 0]);
    place.node.close().await;
}

/// The vault said that the card is there, and deleted it while that was on its way to the home.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_is_deleted_while_it_is_being_kept_is_not_kept() {
    for goes_away in [false, true] {
        let place = Place::start().await;
        let mine = place.vault.has('a', 1, 2031);
        let held = place.vault.hold();
        let adding = tokio::spawn({
            let (mut client, request) = (place.client(), adding(1, &mine));
            async move { client.add_payment_method(request).await }
        });
        place.vault.until_asked().await;
        place.vault.deletes('a');
        if goes_away {
            adding.abort();
        }
        let forgetting = tokio::spawn({
            let mut client = place.client();
            let request = ForgetDeletedCardsRequest { user_id: 1, vault_token: mine.clone() };
            async move { client.forget_deleted_cards(request).await }
        });
        tokio::time::sleep(A_MOMENT).await;
        assert!(!forgetting.is_finished(), "it waits for its turn");
        held.add_permits(2);
        forgetting.await.expect("it ends").expect("it is told");
        place.vault.is_away(true);
        assert_eq!(place.tokens(1).await, [""; 0]);
        if !goes_away {
            adding.await.expect("it ends").expect("it was kept for a moment");
        }
        place.node.close().await;
    }
}

/// A copy lists what its tables have, asks the vault by itself, and lets go of what its leader's journal says was removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_lists_and_forgets_by_the_journal_of_its_leader() {
    let pair = Pair::with_a_vault_in_the_west().await;
    pair.home.users(&[(2, 0)]).await;
    let (vault, cache) = (Vault::default(), Clocked::default());
    attach(&pair.west, &vault, &cache);
    let shard = pair.home.shards.get(pair.copy.reference()).expect("it is led there");
    let (user, mine) = (2.try_into().expect("a user"), vault.has('a', 2, 2031));
    let submit =
        async |command: Command| shard.submit(paymesh_ledger::Request { id: None, command }).await.expect("it is accepted").position;
    submit(Command::AddMethod { user, token: mine.parse().expect("a token") }).await;
    pair.feed().await;
    let list = async |at_least: Option<paymesh_types::Position>| {
        let at_least = at_least.iter().map(Into::into).collect();
        let read = ReadOptions { level: ReadLevel::Local.into(), at_least, ..ReadOptions::default() };
        let request = ListPaymentMethodsRequest { user_id: 2, read: Some(read) };
        PaymentMethodServiceClient::new(pair.west.mesh.channel()).list_payment_methods(request).await.expect("a list").into_inner()
    };
    for _ in 0..2 {
        let listed = list(None).await;
        assert_eq!((cards(&listed), listed.source.expect("set").region.as_str()), (vec![Some(card(2031))], "us_west"));
    }
    assert_eq!((vault.asked(), cache.len()), (1, 1));
    let removed = submit(Command::RemoveMethod { user, token: mine.parse().expect("a token") }).await;
    assert_eq!(list(None).await.methods.len(), 1, "it has not heard of it, and says how far it is");
    let (listed, ()) = tokio::join!(list(Some(removed)), async {
        tokio::time::sleep(A_MOMENT).await;
        pair.feed().await;
    });
    assert_eq!((listed.methods.len(), listed.source.expect("set").region.as_str()), (0, "us_west"));
    cache.until_empty().await;
    pair.stop().await;
}
