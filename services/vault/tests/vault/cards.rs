//! Taking cards in, describing and deleting them.

use std::collections::BTreeSet;

use paymesh_cards::{Brand, Expiry};
use paymesh_vault::{Error, Offered, store::CARDS_PER_USER_MAX};

use crate::support::{AMEX, DAY_SECONDS, MASTERCARD, Place, VISA, card, is_in_a_file, number, request, tokenize, user, zone};

#[tokio::test]
async fn a_card_is_described_by_what_may_be_shown_of_it() {
    let place = Place::new();
    let vault = place.open().await;
    let taken = vault.tokenize(request(), user(7), Offered::Clear(card(VISA, 7, 2031))).await.expect("a card");
    assert_eq!((taken.brand, taken.bin.as_str(), taken.last_four.as_str()), (Brand::Visa, "42424242", "4242"));
    assert_eq!((taken.expiry, taken.user, taken.token.zone()), (Expiry::new(7, 2031).expect("an expiry"), user(7), &zone()));
    assert!(vault.describe(&taken.token).await.expect("a card") == taken);
    assert_eq!(vault.owner(&taken.token).await.expect("a card"), user(7));

    let again = place.open().await;
    assert!(again.describe(&taken.token).await.expect("a card") == taken, "another process describes it otherwise");
}

#[tokio::test]
async fn fingerprints_are_equal_for_equal_numbers_only_whosever_they_are() {
    let place = Place::new();
    let vault = place.open().await;
    let (one, other) = (tokenize(&vault, 1, VISA).await, tokenize(&vault, 2, VISA).await);
    assert_ne!(one.token, other.token);
    assert_eq!(one.fingerprint, other.fingerprint);
    assert_ne!(one.fingerprint, tokenize(&vault, 1, MASTERCARD).await.fingerprint);
    let elsewhere = Place::new();
    assert_ne!(
        one.fingerprint,
        tokenize(&elsewhere.open().await, 1, VISA).await.fingerprint,
        "the key of fingerprints is each vault's own"
    );
}

#[tokio::test]
async fn a_request_is_answered_once_and_the_same_again() {
    let place = Place::new();
    let vault = place.open().await;
    let id = request();
    let taken = vault.tokenize(id, user(7), Offered::Clear(card(VISA, 7, 2031))).await.expect("a card");
    assert!(vault.tokenize(id, user(7), Offered::Clear(card(VISA, 7, 2031))).await.expect("the same") == taken);
    for (user_id, digits, month, field) in [(7, MASTERCARD, 7, "card"), (7, VISA, 8, "card"), (8, VISA, 7, "user_id")] {
        let reused = vault.tokenize(id, user(user_id), Offered::Clear(card(digits, month, 2031))).await;
        assert!(matches!(reused, Err(Error::RequestIdReused { field: told }) if told == field), "{reused:?}");
    }
    assert!(matches!(vault.delete(id, &taken.token).await, Err(Error::RequestIdReused { field: "request_id" })));
    assert!(matches!(vault.erase(id, user(7)).await, Err(Error::RequestIdReused { field: "request_id" })));
    // Also by another process, after the card has ended, and after it was deleted.
    place.time.pass(6 * 366 * DAY_SECONDS);
    let again = place.open().await;
    assert!(again.tokenize(id, user(7), Offered::Clear(card(VISA, 7, 2031))).await.expect("the same") == taken);
    again.delete(request(), &taken.token).await.expect("deleted");
    assert!(again.tokenize(id, user(7), Offered::Clear(card(VISA, 7, 2031))).await.expect("the same") == taken);
    assert!(matches!(again.describe(&taken.token).await, Err(Error::TokenNotFound(_))), "a replay brings nothing back");
}

#[tokio::test]
async fn a_number_is_one_token_of_its_user_and_the_last_expiry_counts() {
    let place = Place::new();
    let vault = place.open().await;
    let first = tokenize(&vault, 7, VISA).await;
    let renewed = vault.tokenize(request(), user(7), Offered::Clear(card(VISA, 1, 2036))).await.expect("a card");
    assert_eq!(renewed.token, first.token);
    let described = vault.describe(&first.token).await.expect("a card");
    assert_eq!((described.expiry.month(), described.expiry.year()), (1, 2036));

    vault.delete(request(), &first.token).await.expect("deleted");
    assert_ne!(tokenize(&vault, 7, VISA).await.token, first.token, "a token is not given out again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_one_token_however_many_race() {
    let place = Place::new();
    let vault = place.open().await;
    let same = request();
    let racing: Vec<_> = (0..64)
        .map(|turn| {
            let vault = vault.clone();
            // Half of them are the same request.
            let id = if turn % 2 == 0 { same } else { request() };
            tokio::spawn(async move { vault.tokenize(id, user(7), Offered::Clear(card(VISA, 7, 2031))).await })
        })
        .collect();
    let mut tokens = BTreeSet::new();
    for turn in racing {
        tokens.insert(turn.await.expect("it ran").expect("a card").token);
    }
    assert_eq!(tokens.len(), 1, "{tokens:?}");
}

#[tokio::test]
async fn a_card_that_has_ended_is_refused_and_nothing_is_kept_of_it() {
    let place = Place::new();
    let vault = place.open().await;
    for (month, year) in [(10, 2026), (12, 2000)] {
        let refused = vault.tokenize(request(), user(7), Offered::Clear(card(VISA, month, year))).await;
        assert!(matches!(refused, Err(Error::CardExpired)), "{refused:?}");
    }
    assert_eq!(vault.erase(request(), user(7)).await.expect("erased"), 0);
    vault.tokenize(request(), user(7), Offered::Clear(card(VISA, 12, 2026))).await.expect("through the end of its month");
}

#[tokio::test]
async fn a_deleted_card_is_gone_and_its_deletion_is_answered_again() {
    let place = Place::new();
    let vault = place.open().await;
    let (taken, other, id) = (tokenize(&vault, 7, VISA).await.token, tokenize(&vault, 7, AMEX).await.token, request());
    vault.delete(id, &taken).await.expect("deleted");
    assert!(matches!(vault.describe(&taken).await, Err(Error::TokenNotFound(_))));
    vault.delete(id, &taken).await.expect("the same answer");
    assert!(matches!(vault.delete(request(), &taken).await, Err(Error::TokenNotFound(_))));
    assert!(matches!(vault.delete(id, &other).await, Err(Error::RequestIdReused { field: "vault_token" })));
    assert_eq!(vault.deleted_by(id, &taken).await.expect("it answers"), Some(user(7)));
    assert_eq!(vault.deleted_by(id, &other).await.expect("it answers"), None);
    vault.describe(&other).await.expect("the other card is there");
}

#[tokio::test]
async fn a_user_has_so_many_cards_and_no_more() {
    let place = Place::new();
    let vault = place.open().await;
    let mut last = None;
    for seed in 0..u64::from(CARDS_PER_USER_MAX) {
        last = Some(tokenize(&vault, 7, &number(seed)).await.token);
    }
    let one_more = vault.tokenize(request(), user(7), Offered::Clear(card(VISA, 7, 2031))).await;
    assert!(matches!(one_more, Err(Error::TooManyCards(_))), "{one_more:?}");
    tokenize(&vault, 7, &number(0)).await;
    tokenize(&vault, 8, VISA).await;
    vault.delete(request(), &last.expect("the last")).await.expect("deleted");
    tokenize(&vault, 7, VISA).await;
}

#[tokio::test]
async fn tokens_of_other_zones_and_such_as_never_were_are_not_found() {
    let place = Place::new();
    let vault = place.open().await;
    let taken = tokenize(&vault, 7, VISA).await.token;
    let elsewhere = taken.to_string().replace("card_eu_", "card_global_").parse().expect("a token");
    let never = format!("card_eu_{}", "a".repeat(32)).parse().expect("a token");
    for token in [&elsewhere, &never] {
        assert!(matches!(vault.describe(token).await, Err(Error::TokenNotFound(_))));
        assert!(matches!(vault.owner(token).await, Err(Error::TokenNotFound(_))));
        assert!(matches!(vault.delete(request(), token).await, Err(Error::TokenNotFound(_))));
    }
}

#[tokio::test]
async fn no_number_is_in_any_file_and_no_key_in_the_data() {
    let place = Place::new();
    let vault = place.open().await;
    for (user_id, digits) in [(1, VISA), (2, MASTERCARD), (3, AMEX)] {
        tokenize(&vault, user_id, digits).await;
    }
    for digits in [VISA, MASTERCARD, AMEX] {
        for folder in [place.data(), place.keys()] {
            assert!(!is_in_a_file(&folder, digits.as_bytes()), "{digits} in {}", folder.display());
            // Nor the part that is under the user's key too.
            assert!(!is_in_a_file(&folder, &digits.as_bytes()[..8]), "the BIN of {digits} in {}", folder.display());
        }
    }
    assert!(!is_in_a_file(&place.data(), b"paymesh-kek"), "a key-encryption key lies with what it protects");
    let printed = format!("{vault:?} {:?} {:?}", tokenize(&vault, 1, VISA).await, Offered::Clear(card(VISA, 7, 2031)));
    assert!(!printed.contains("4242"), "{printed}");
}

/// A row that is put in another's place, by whoever can write to the file, is not taken for it.
#[tokio::test]
async fn rows_that_are_swapped_are_found_damaged() {
    let place = Place::new();
    let vault = place.open().await;
    let (one, same_users, others) =
        (tokenize(&vault, 1, VISA).await, tokenize(&vault, 1, AMEX).await, tokenize(&vault, 2, MASTERCARD).await);
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}/vault.sqlite", place.data().display())).await.expect("the file");
    for from in [&same_users, &others] {
        let swap = "UPDATE cards SET sealed = (SELECT sealed FROM cards WHERE token = ?1) WHERE token = ?2";
        sqlx::query(swap).bind(&from.token.as_bytes()[..]).bind(&one.token.as_bytes()[..]).execute(&pool).await.expect("written");
        let described = vault.describe(&one.token).await;
        assert!(matches!(&described, Err(Error::Damaged(token)) if *token == one.token), "{described:?}");
    }
    // A card that is said to be another user's, and a key of one user in the place of another's.
    sqlx::query("UPDATE cards SET user = 1 WHERE token = ?").bind(&others.token.as_bytes()[..]).execute(&pool).await.expect("written");
    assert!(matches!(vault.describe(&others.token).await, Err(Error::Damaged(_))));
    let swap = "UPDATE keys SET wrapped = (SELECT wrapped FROM keys WHERE user = 2) WHERE user = 1";
    sqlx::query(swap).execute(&pool).await.expect("written");
    let described = vault.describe(&same_users.token).await;
    assert!(matches!(described, Err(Error::Keys(paymesh_vault::keys::Error::NotWrapped { .. }))), "{described:?}");
}

#[tokio::test]
async fn a_store_of_another_zone_is_refused_and_so_is_one_without_its_keys() {
    let place = Place::new();
    tokenize(&place.open().await, 7, VISA).await;
    for (mesh, zone) in [("test", "global"), ("other", "eu")] {
        let zone = zone.parse().expect("a zone");
        let error = paymesh_vault::store::SqliteStore::open(&place.data(), mesh, &zone).await.expect_err("not its own");
        assert!(matches!(error, paymesh_vault::store::Error::Identity { .. }), "{error}");
    }
    std::fs::remove_dir_all(place.keys()).expect("it is ours");
    let error = place.try_open().await.expect_err("its keys are gone");
    assert!(matches!(error, Error::Keys(paymesh_vault::keys::Error::Missing { .. })), "{error}");
}
