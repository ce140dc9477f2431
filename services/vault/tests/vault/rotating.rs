//! Rotation of key-encryption keys: while the vault serves, and broken off at every step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use paymesh_contract::vault::v1::GetVaultKeyResponse;
use paymesh_types::{RequestId, Timestamp, UserId, VaultToken};
use paymesh_vault::{
    Error, Offered, REWRAPPED_AT_ONCE_MAX, RotationPlan, SealedCard, Standing, Vault,
    keys::{self, FileKeys, KekId, KeyProvider, Secret},
    store::{
        self, AddedCard, AddedKey, BegunRotation, DeletedCard, ErasedUser, KeyName, NewCard, Outcome, SqliteStore, State, Store,
        StoredCard, TokenId, WrappedKey,
    },
};
use tokio::sync::Notify;

use crate::support::{AMEX, Place, VISA, card, number, request, tokenize, user};

#[tokio::test]
async fn a_rotation_leaves_one_key_and_every_card() {
    let place = Place::new();
    let vault = place.open().await;
    let before = [tokenize(&vault, 1, VISA).await, tokenize(&vault, 2, AMEX).await];
    let rotated = vault.rotate().await.expect("rotated");
    // Two users' keys and that of fingerprints.
    assert_eq!((rotated.kek.get(), rotated.rewrapped, rotated.destroyed.len()), (2, 3, 1));
    assert_eq!(vault.resume_rotation().await.expect("nothing to resume"), None);
    for (vault, what) in [(&vault, "the same process"), (&place.open().await, "another")] {
        for description in &before {
            assert!(vault.describe(&description.token).await.expect(what) == *description, "{what}");
        }
    }
    assert_eq!(place.file_keys().ids().await.expect("it answers"), [rotated.kek]);
}

/// Fails at one step that changes something, before it is done or after: what comes after it is not reached.
#[derive(Debug)]
struct Breaking {
    /// Steps that are done before the one that fails.
    left: AtomicI64,
    /// Whether that one is done.
    done: bool,
}

impl Breaking {
    /// Whether the step is to be done, and whether it is to be said so.
    fn step(&self) -> (bool, bool) {
        match self.left.fetch_sub(1, SeqCst) {
            1.. => (true, true),
            0 => (self.done, false),
            _ => (false, false),
        }
    }

    async fn changing<T, E>(&self, work: impl Future<Output = Result<T, E>>, broken: impl Fn() -> E) -> Result<T, E> {
        let (does, says) = self.step();
        if !does {
            return Err(broken());
        }
        let done = work.await?;
        if says { Ok(done) } else { Err(broken()) }
    }
}

#[derive(Debug)]
struct BreakingStore(SqliteStore, Arc<Breaking>);

#[derive(Debug)]
struct BreakingKeys(FileKeys, Arc<Breaking>);

fn broken_store() -> store::Error {
    store::Error::Engine { place: "test".to_owned(), source: "broken off".into() }
}

fn broken_keys() -> keys::Error {
    keys::Error::Unusable { place: "test".into(), what: "broken off".to_owned() }
}

#[async_trait]
impl Store for BreakingStore {
    async fn state(&self) -> Result<State, store::Error> {
        self.0.state().await
    }
    async fn use_kek(&self, kek: KekId, at: Timestamp) -> Result<(), store::Error> {
        self.1.changing(self.0.use_kek(kek, at), broken_store).await
    }
    async fn begin_rotation(&self, request: RequestId, kek: KekId, at: Timestamp) -> Result<BegunRotation, store::Error> {
        self.1.changing(self.0.begin_rotation(request, kek, at), broken_store).await
    }
    async fn user_key(&self, user: UserId) -> Result<Option<WrappedKey>, store::Error> {
        self.0.user_key(user).await
    }
    async fn zone_keys(&self) -> Result<Vec<WrappedKey>, store::Error> {
        self.0.zone_keys().await
    }
    async fn add_key(&self, key: &WrappedKey) -> Result<AddedKey, store::Error> {
        self.1.changing(self.0.add_key(key), broken_store).await
    }
    async fn remove_key(&self, name: &KeyName) -> Result<(), store::Error> {
        self.0.remove_key(name).await
    }
    async fn not_under(&self, kek: KekId, limit: u32) -> Result<Vec<WrappedKey>, store::Error> {
        self.0.not_under(kek, limit).await
    }
    async fn count_not_under(&self, kek: KekId) -> Result<u64, store::Error> {
        self.0.count_not_under(kek).await
    }
    async fn rewrap(&self, keys: &[(WrappedKey, KekId)]) -> Result<(), store::Error> {
        self.1.changing(self.0.rewrap(keys), broken_store).await
    }
    async fn outcome(&self, request: RequestId) -> Result<Option<Outcome>, store::Error> {
        self.0.outcome(request).await
    }
    async fn known(&self, request: RequestId, user: UserId) -> Result<(Option<Outcome>, Option<WrappedKey>), store::Error> {
        self.0.known(request, user).await
    }
    async fn add_card(&self, card: &NewCard) -> Result<AddedCard, store::Error> {
        self.1.changing(self.0.add_card(card), broken_store).await
    }
    async fn card(&self, token: &TokenId) -> Result<Option<StoredCard>, store::Error> {
        self.0.card(token).await
    }
    async fn delete_card(&self, request: RequestId, token: &TokenId) -> Result<DeletedCard, store::Error> {
        self.0.delete_card(request, token).await
    }
    async fn erase(&self, request: RequestId, user: UserId, at: Timestamp) -> Result<ErasedUser, store::Error> {
        self.0.erase(request, user, at).await
    }
}

#[async_trait]
impl KeyProvider for BreakingKeys {
    async fn ids(&self) -> Result<Vec<KekId>, keys::Error> {
        self.0.ids().await
    }
    async fn make(&self) -> Result<KekId, keys::Error> {
        self.1.changing(self.0.make(), broken_keys).await
    }
    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, keys::Error> {
        self.0.wrap(kek, context, key).await
    }
    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, keys::Error> {
        self.0.unwrap(kek, context, wrapped).await
    }
    async fn destroy(&self, kek: KekId) -> Result<(), keys::Error> {
        self.1.changing(self.0.destroy(kek), broken_keys).await
    }
}

/// A vault that breaks off at its step number `left`.
async fn breaking(place: &Place, left: i64, done: bool) -> Vault {
    let breaking = Arc::new(Breaking { left: AtomicI64::new(left), done });
    let keys = place.file_keys();
    let (store, keys) = (BreakingStore(place.store().await, breaking.clone()), BreakingKeys(keys, breaking));
    place.open_over(Arc::new(store), Arc::new(keys)).await.expect("the vault opens")
}

#[tokio::test]
async fn a_rotation_that_is_broken_off_anywhere_is_gone_on_with() {
    let users = u64::from(REWRAPPED_AT_ONCE_MAX) * 2 + 10;
    let original = Place::new();
    let vault = original.open().await;
    let mut tokens = Vec::new();
    for id in 1..=users {
        tokens.push(tokenize(&vault, id, &number(id)).await.token);
    }
    let mut steps_of_a_whole_one = None;
    for done in [false, true] {
        for step in 0.. {
            let place = original.crashed();
            let vault = breaking(&place, step, done).await;
            let Err(error) = vault.rotate().await else {
                steps_of_a_whole_one = Some(step);
                break;
            };
            assert!(error.to_string().contains("broken off"), "step {step}: {error}");
            // Whoever goes on serving meanwhile has every card, and takes in more under the right key.
            let at = usize::try_from(step).expect("small") * 37 % tokens.len();
            vault.describe(&tokens[at]).await.unwrap_or_else(|error| panic!("step {step}, done {done}: {error}"));

            let found = place.crashed();
            let vault = found.open().await;
            let more = tokenize(&vault, users + 1, VISA).await.token;
            let resumed = vault.resume_rotation().await.expect("it goes on");
            // Nothing had begun, or all was done.
            assert!(resumed.is_some() || (step, done) == (0, false) || step >= 5, "step {step}, done {done}");
            let vault = found.open().await;
            for token in tokens.iter().chain([&more]) {
                vault.describe(token).await.unwrap_or_else(|error| panic!("step {step}, done {done}: {error}"));
            }
            let left = found.file_keys().ids().await.expect("it answers");
            assert_eq!(left.len(), 1, "step {step}, done {done}: {left:?}");
        }
    }
    // The key, its use, three batches, the end of the one before.
    assert_eq!(steps_of_a_whole_one, Some(6));
}

/// One that is asked for begins at once, and once; whoever tends the vault brings it to its end.
#[tokio::test]
async fn a_rotation_that_is_asked_for_begins_once_and_says_how_far_it_is() {
    let place = Place::new();
    let vault = place.open().await;
    let tokens = [tokenize(&vault, 1, VISA).await.token, tokenize(&vault, 2, AMEX).await.token];
    let (first, second) = (request(), request());
    let begun = vault.begin_rotation(first).await.expect("it begins");
    // Two users' keys and that of fingerprints.
    assert_eq!((begun.kek.get(), begun.begun, begun.left), (2, true, Some(3)));
    // The same again, and another: also by whoever comes after this process.
    let after = place.crashed();
    for vault in [&vault, &after.open().await] {
        assert_eq!(vault.begin_rotation(first).await.expect("it has begun"), begun);
        assert_eq!(vault.begin_rotation(second).await.expect("one is in progress"), Standing { begun: false, ..begun });
        for token in &tokens {
            vault.describe(token).await.expect("a card");
        }
    }
    // What tends it hears of it, once.
    tokio::time::timeout(Duration::from_secs(10), vault.rotation_begun()).await.expect("it hears of it");
    assert!(tokio::time::timeout(Duration::from_millis(20), vault.rotation_begun()).await.is_err());
    let rotated = vault.tend(RotationPlan::default()).await.expect("it goes on").expect("there is one");
    assert_eq!((rotated.kek, rotated.rewrapped, rotated.destroyed.len()), (begun.kek, 3, 1));
    let over = Standing { left: None, ..begun };
    assert_eq!(vault.begin_rotation(first).await.expect("it is over"), over);
    // The request that began none has the next.
    assert_eq!(vault.begin_rotation(second).await.expect("it begins").kek.get(), 3);
    vault.tend(RotationPlan::default()).await.expect("it goes on");
    assert_eq!(vault.begin_rotation(first).await.expect("it was over before"), over);
    assert_eq!(place.file_keys().ids().await.expect("it answers").len(), 1);

    // An id that stands for something else, both ways.
    let erasing = request();
    vault.erase(erasing, user(9)).await.expect("erased");
    for result in [
        vault.begin_rotation(erasing).await.map(drop),
        vault.erase(first, user(9)).await.map(drop),
        vault.delete(first, &tokens[0]).await,
        vault.tokenize(first, user(1), Offered::Clear(card(VISA, 7, 2031))).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::RequestIdReused { field: "request_id" })), "{result:?}");
    }
}

/// Where it breaks off between its two steps, the next key is there: that is a rotation in progress, and the request has begun none.
#[tokio::test]
async fn a_rotation_that_breaks_off_as_it_begins_is_one_all_the_same() {
    let original = Place::new();
    tokenize(&original.open().await, 1, VISA).await;
    for (step, done, keys) in [(0, false, 1), (0, true, 2), (1, false, 2), (1, true, 2)] {
        let (place, id) = (original.crashed(), request());
        breaking(&place, step, done).await.begin_rotation(id).await.expect_err("broken off");
        let vault = place.open().await;
        assert_eq!(place.file_keys().ids().await.expect("it answers").len(), keys, "step {step}, done {done}");
        let standing = vault.begin_rotation(id).await.expect("it answers");
        assert_eq!((standing.kek.get(), standing.left.is_some()), (2, true), "step {step}, done {done}");
        assert!(vault.tend(RotationPlan::default()).await.expect("it goes on").is_some());
        assert_eq!(place.file_keys().ids().await.expect("it answers"), [standing.kek]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_many_ask_for_a_rotation_at_once_one_begins() {
    let place = Place::new();
    let vault = place.open().await;
    tokenize(&vault, 1, VISA).await;
    let asking = (0..16).map(|_| {
        let vault = vault.clone();
        tokio::spawn(async move { vault.begin_rotation(request()).await.expect("it answers") })
    });
    let mut began = 0;
    for asked in asking.collect::<Vec<_>>() {
        let standing = asked.await.expect("it ran");
        assert_eq!(standing.kek.get(), 2);
        began += u32::from(standing.begun);
    }
    assert_eq!(began, 1);
}

/// A store that was lost, or is another's place, is not begun anew over keys that cards are under somewhere.
#[tokio::test]
async fn a_new_store_is_not_opened_with_the_keys_of_another() {
    let place = Place::new();
    let vault = place.open().await;
    let token = tokenize(&vault, 1, VISA).await.token;
    vault.rotate().await.expect("rotated");
    for (keys, made) in [(1, false), (2, true)] {
        if made {
            place.file_keys().make().await.expect("a key");
        }
        let lost = place.crashed();
        std::fs::remove_dir_all(lost.data()).expect("it is ours");
        for _ in 0..2 {
            let error = lost.try_open().await.expect_err("the cards are elsewhere");
            let last = 2 + u32::from(made);
            assert!(matches!(error, Error::StoreMissing(kek) if kek.get() == last), "{error}");
            assert!(error.to_string().contains("put that store back"), "{error}");
            assert_eq!(lost.file_keys().ids().await.expect("it answers").len(), keys);
        }
        // As it says: either the store is put back, or the keys are moved away.
        std::fs::remove_dir_all(lost.data()).expect("it is ours");
        crate::support::copy(&place.data(), &lost.data());
        lost.open().await.describe(&token).await.expect("a card");
        std::fs::remove_dir_all(lost.data()).expect("it is ours");
        std::fs::remove_dir_all(lost.keys()).expect("it is ours");
        assert!(matches!(lost.open().await.describe(&token).await, Err(Error::TokenNotFound(_))));
    }
}

/// The first start makes the first key, and then notes it.
#[tokio::test]
async fn a_first_start_that_breaks_off_anywhere_is_begun_again() {
    for done in [false, true] {
        for step in 0..3 {
            let place = Place::new();
            let breaking = Arc::new(Breaking { left: AtomicI64::new(step), done });
            let (store, keys) = (BreakingStore(place.store().await, breaking.clone()), BreakingKeys(place.file_keys(), breaking));
            place.open_over(Arc::new(store), Arc::new(keys)).await.expect_err("broken off");
            let found = place.crashed();
            let vault = found.open().await;
            assert_eq!(vault.rotate().await.expect("rotated").kek.get(), 2, "step {step}, done {done}");
        }
    }
}

/// Says that it wraps under the key that it is asked for, and wraps another key under it, or under another.
#[derive(Debug)]
struct Mistaking {
    keys: FileKeys,
    /// Under which it wraps all; `None`: another key is wrapped.
    under: Option<KekId>,
}

#[async_trait]
impl KeyProvider for Mistaking {
    async fn ids(&self) -> Result<Vec<KekId>, keys::Error> {
        self.keys.ids().await
    }
    async fn make(&self) -> Result<KekId, keys::Error> {
        self.keys.make().await
    }
    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, keys::Error> {
        match self.under {
            Some(under) => self.keys.wrap(under, context, key).await,
            None => self.keys.wrap(kek, context, &Secret::copied(&[7; 32]).expect("32 bytes")).await,
        }
    }
    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, keys::Error> {
        self.keys.unwrap(kek, context, wrapped).await
    }
    async fn destroy(&self, kek: KekId) -> Result<(), keys::Error> {
        self.keys.destroy(kek).await
    }
}

/// The copy of a key that opens is not replaced by one that does not, nor is what it is under destroyed.
#[tokio::test]
async fn what_is_wrapped_anew_is_opened_before_it_is_kept() {
    for under in [KekId::new(1), None] {
        let place = Place::new();
        let vault = place.open().await;
        let token = tokenize(&vault, 1, VISA).await.token;
        let before = place.store().await.user_key(user(1)).await.expect("it answers").expect("a key");
        let keys = Mistaking { keys: place.file_keys(), under };
        let mistaken = place.open_over(Arc::new(place.store().await), Arc::new(keys)).await.expect("the vault opens");
        let error = mistaken.rotate().await.expect_err("what it wraps does not open");
        assert!(matches!(error, Error::Keys(keys::Error::NotWrapped { kek }) if kek.get() == 2), "{error}");
        let after = place.store().await.user_key(user(1)).await.expect("it answers").expect("a key");
        assert!(after == before && after.kek.get() == 1, "{after:?}");
        assert_eq!(place.file_keys().ids().await.expect("it answers").len(), 2);
        // Whoever wraps rightly goes on with it.
        let vault = place.open().await;
        assert_eq!(vault.resume_rotation().await.expect("it goes on").expect("one is in progress").kek.get(), 2);
        vault.describe(&token).await.expect("a card");
    }
}

/// A broken step is broken again when it is gone on with, one step further each time.
#[tokio::test]
async fn a_rotation_that_is_broken_off_again_and_again_comes_to_its_end() {
    let place = Place::new();
    let vault = place.open().await;
    let tokens = [tokenize(&vault, 1, VISA).await.token, tokenize(&vault, 2, AMEX).await.token];
    for step in 0..12 {
        let _ = breaking(&place, step % 4, step % 2 == 0).await.rotate().await;
    }
    let vault = place.open().await;
    vault.resume_rotation().await.expect("it goes on");
    for token in &tokens {
        vault.describe(token).await.expect("a card");
    }
    assert_eq!(place.file_keys().ids().await.expect("it answers").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cards_are_taken_in_and_described_while_keys_rotate() {
    let place = Place::new();
    let vault = place.open().await;
    let stop = Arc::new(AtomicBool::new(false));
    let serving: Vec<_> = (0..4_u64)
        .map(|lane| {
            let (vault, stop) = (vault.clone(), stop.clone());
            tokio::spawn(async move {
                let mut tokens: Vec<VaultToken> = Vec::new();
                for turn in 0_u64.. {
                    if stop.load(SeqCst) {
                        break;
                    }
                    // New users, so that there are always new keys.
                    let offered = Offered::Clear(card(&number(turn), 7, 2031));
                    let taken: Result<_, Error> = vault.tokenize(request(), user(1 + lane + turn * 4), offered).await;
                    tokens.push(taken.expect("a card").token);
                    let at = usize::try_from(turn * 7).expect("small") % tokens.len();
                    vault.describe(&tokens[at]).await.expect("a card");
                    vault.sealing_key().await.expect("a key");
                }
                tokens
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let rotated = vault.rotate().await.expect("rotated");
        assert_eq!(rotated.destroyed.len(), 1);
    }
    stop.store(true, SeqCst);
    let again = place.open().await;
    let mut count = 0;
    for lane in serving {
        for token in lane.await.expect("no call failed") {
            again.describe(&token).await.expect("a card");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// What the next use of the keys stops at.
const NOTHING: u8 = 0;
const AFTER_WRAPPING: u8 = 1;
const BEFORE_UNWRAPPING: u8 = 2;

/// Stops whoever is the next to use the keys, until it is told to go on.
#[derive(Debug)]
struct Pausing {
    keys: FileKeys,
    at: AtomicU8,
    stopped: Notify,
    goes_on: Notify,
}

impl Pausing {
    async fn pause(&self, at: u8) {
        if self.at.compare_exchange(at, NOTHING, SeqCst, SeqCst).is_ok() {
            self.stopped.notify_one();
            self.goes_on.notified().await;
        }
    }

    /// A whole rotation while that work stands still where it uses the keys.
    async fn rotated_in_the_middle<T: Send + 'static>(&self, at: u8, vault: &Vault, work: impl Future<Output = T> + Send + 'static) -> T {
        self.at.store(at, SeqCst);
        let working = tokio::spawn(work);
        self.stopped.notified().await;
        assert_eq!(vault.rotate().await.expect("rotated").destroyed.len(), 1);
        self.goes_on.notify_one();
        working.await.expect("it ran")
    }
}

#[async_trait]
impl KeyProvider for Pausing {
    async fn ids(&self) -> Result<Vec<KekId>, keys::Error> {
        self.keys.ids().await
    }
    async fn make(&self) -> Result<KekId, keys::Error> {
        self.keys.make().await
    }
    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, keys::Error> {
        let wrapped = self.keys.wrap(kek, context, key).await;
        self.pause(AFTER_WRAPPING).await;
        wrapped
    }
    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, keys::Error> {
        self.pause(BEFORE_UNWRAPPING).await;
        self.keys.unwrap(kek, context, wrapped).await
    }
    async fn destroy(&self, kek: KekId) -> Result<(), keys::Error> {
        self.keys.destroy(kek).await
    }
}

#[tokio::test]
async fn a_key_that_is_used_while_its_key_encryption_key_is_destroyed_is_not_lost() {
    let place = Place::new();
    let keys = Arc::new(Pausing { keys: place.file_keys(), at: AtomicU8::new(NOTHING), stopped: Notify::new(), goes_on: Notify::new() });
    let vault = place.open_over(Arc::new(place.store().await), keys.clone()).await.expect("the vault opens");
    let first = tokenize(&vault, 1, VISA).await;

    // Wrapped under the key that is destroyed before it is kept.
    let working = vault.clone();
    let second = keys.rotated_in_the_middle(AFTER_WRAPPING, &vault, async move { tokenize(&working, 2, AMEX).await }).await;
    assert!(vault.describe(&second.token).await.expect("a card") == second);

    // Read under the key that is destroyed before it is unwrapped.
    let (working, token) = (vault.clone(), first.token.clone());
    let described = keys.rotated_in_the_middle(BEFORE_UNWRAPPING, &vault, async move { working.describe(&token).await }).await;
    assert!(described.expect("a card") == first);

    let key = vault.sealing_key().await.expect("a key");
    let told = GetVaultKeyResponse { key_id: key.id, public_key: key.public, zone: "eu".to_owned(), ..GetVaultKeyResponse::default() };
    let told = paymesh_client::VaultKey::unproven(1, &told).expect("a key");
    let sealed = paymesh_client::seal(&card(VISA, 7, 2031), &told).expect("sealed");
    let sealed = SealedCard { key_id: sealed.key_id, encapsulated: sealed.encapsulated_key, ciphertext: sealed.ciphertext };
    let working = vault.clone();
    let taking = async move { working.tokenize(request(), user(1), Offered::Sealed(sealed)).await };
    let taken = keys.rotated_in_the_middle(BEFORE_UNWRAPPING, &vault, taking).await;
    assert!(taken.expect("a card") == first);
}
