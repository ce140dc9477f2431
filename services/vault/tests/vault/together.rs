//! Cards that come at the same time share a commit, and nothing else: what becomes of one is nobody else's matter.

use futures::future::join_all;
use paymesh_types::Timestamp;
use paymesh_vault::{
    Offered,
    keys::KekId,
    store::{AddedCard, AddedKey, DeletedCard, NewCard, Purpose, Store, WrappedKey},
};
use sqlx::Connection as _;

use crate::support::{Place, card, number, request, tokenize, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_at_once_is_all_there_afterwards_and_the_same_is_there_once() {
    let place = Place::new();
    let vault = place.open().await;
    // Ten cards of each of twenty users, each asked for twice under one request id and once under another.
    let cards = (0..200_u64).flat_map(|seed| {
        let same = request();
        [same, same, request()].map(|request| (seed, request))
    });
    let took = join_all(cards.map(|(seed, request)| {
        let vault = vault.clone();
        tokio::spawn(async move {
            let offered = Offered::Clear(card(&number(seed), 7, 2031));
            (seed, vault.tokenize(request, user(1 + seed % 20), offered).await.expect("a card"))
        })
    }));
    let mut tokens = std::collections::BTreeMap::new();
    for took in took.await {
        let (seed, description) = took.expect("no panic");
        assert_eq!(
            *tokens.entry(seed).or_insert_with(|| description.token.clone()),
            description.token,
            "one number of a user is one token"
        );
    }
    assert_eq!(tokens.values().collect::<std::collections::BTreeSet<_>>().len(), 200);
    let crashed = place.crashed();
    let again = crashed.open().await;
    for (seed, token) in tokens {
        assert_eq!(again.describe(&token).await.expect("it is there").user, user(1 + seed % 20));
    }
}

#[tokio::test]
async fn one_that_cannot_be_written_holds_up_no_other_that_came_with_it() {
    let place = Place::new();
    let vault = place.open().await;
    tokenize(&vault, 1, &number(1)).await;
    let store = place.store().await;
    let key = store.user_key(user(1)).await.expect("it can be read").expect("it is there");
    let new = |seed: u8| NewCard {
        request: request(),
        body: [seed; 32],
        token: [seed; 16],
        replaces: false,
        user: user(1),
        key: key.name,
        lookup: [seed; 32],
        sealed: vec![seed; 40],
    };
    let (damaged, others) = (new(1), (2..12).map(new).collect::<Vec<_>>());
    assert_eq!(store.add_card(&damaged).await.expect("it is written"), AddedCard::Added);
    let url = format!("sqlite://{}", place.data().join("vault.sqlite").display());
    let mut raw = sqlx::SqliteConnection::connect(&url).await.expect("a connection");
    let damage = sqlx::query("UPDATE requests SET token = x'00' WHERE id = ?").bind(damaged.request.as_bytes().to_vec());
    assert_eq!(damage.execute(&mut raw).await.expect("it is changed").rows_affected(), 1);

    let mut all: Vec<_> = others.iter().collect();
    all.insert(5, &damaged);
    let wrote = join_all(all.into_iter().map(|card| store.add_card(card))).await;
    for (index, wrote) in wrote.into_iter().enumerate() {
        match wrote {
            Ok(added) => assert_eq!((index != 5, added), (true, AddedCard::Added)),
            Err(error) => assert!(index == 5 && error.to_string().contains("is damaged"), "{index}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_token_that_was_deleted_is_not_given_out_again_to_who_saw_it_just_before() {
    let place = Place::new();
    let vault = place.open().await;
    let taken = tokenize(&vault, 1, &number(1)).await;
    let store = place.store().await;
    let key = store.user_key(user(1)).await.expect("it can be read").expect("it is there");
    let new = |token, lookup, replaces| NewCard {
        request: request(),
        body: [1; 32],
        token,
        replaces,
        user: user(1),
        key: key.name,
        lookup,
        sealed: vec![1; 40],
    };
    let first = new([1; 16], [9; 32], false);
    assert_eq!(store.add_card(&first).await.expect("it is written"), AddedCard::Added);
    assert_eq!(store.add_card(&new([2; 16], [9; 32], false)).await.expect("it is read"), AddedCard::Has([1; 16]));
    assert_eq!(store.add_card(&new([1; 16], [9; 32], true)).await.expect("it is written"), AddedCard::Added);
    assert_eq!(store.delete_card(request(), &[1; 16]).await.expect("it is deleted"), DeletedCard::Deleted);
    assert_eq!(store.add_card(&new([1; 16], [9; 32], true)).await.expect("it is read"), AddedCard::Gone);
    assert!(store.card(&[1; 16]).await.expect("it is read").is_none());
    vault.describe(&taken.token).await.expect("others stay");
}

/// Who is gone before anything was written is told nothing, and leaves nothing.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_written() {
    let place = Place::new();
    drop(place.open().await);
    let store = place.store().await;
    let key = |name: u8| WrappedKey {
        name: [name; 16],
        purpose: Purpose::User(user(u64::from(name))),
        kek: KekId::new(1).expect("more than 0"),
        wrapped: vec![1; 60],
        made_at: Timestamp(1),
    };
    let (gone, stays) = (key(7), key(8));
    // Each is polled once: the first has the turn, and the second waits for it.
    let mut first = Box::pin(store.add_key(&stays));
    let mut second = Box::pin(store.add_key(&gone));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    drop(second);
    assert_eq!(first.await.expect("it is written"), AddedKey::Added);
    assert!(store.user_key(user(8)).await.expect("it can be read").is_some());
    let another = key(9);
    assert_eq!(store.add_key(&another).await.expect("it is written"), AddedKey::Added);
    assert!(store.user_key(user(7)).await.expect("it can be read").is_none());
}
