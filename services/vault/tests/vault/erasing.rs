//! Erasing a user: what is left, here and in older backups.

use std::sync::Arc;

use paymesh_types::VaultToken;
use paymesh_vault::{Error, Offered, RotationPlan, Vault};

use crate::support::{AMEX, DAY_SECONDS, MASTERCARD, Place, VISA, card, copy, is_in_a_file, request, tokenize, user};

#[tokio::test]
async fn an_erased_user_has_no_cards_and_others_have_theirs() {
    let place = Place::new();
    let vault = place.open().await;
    let (one, two, others) = (tokenize(&vault, 1, VISA).await, tokenize(&vault, 1, AMEX).await, tokenize(&vault, 2, VISA).await);
    let id = request();
    assert_eq!(vault.erase(id, user(1)).await.expect("erased"), 2);
    for token in [&one.token, &two.token] {
        assert!(matches!(vault.describe(token).await, Err(Error::TokenNotFound(_))));
        assert!(matches!(vault.delete(request(), token).await, Err(Error::TokenNotFound(_))));
    }
    assert!(vault.describe(&others.token).await.expect("a card") == others);
    // The same answer again; another request finds nothing left.
    assert_eq!(vault.erase(id, user(1)).await.expect("erased"), 2);
    assert_eq!(vault.erase(request(), user(1)).await.expect("erased"), 0);
    assert!(matches!(vault.erase(id, user(2)).await, Err(Error::RequestIdReused { field: "user_id" })));
}

#[tokio::test]
async fn a_late_retry_brings_nothing_of_an_erased_user_back() {
    let place = Place::new();
    let vault = place.open().await;
    let (taking, erasing) = (request(), request());
    let offered = || Offered::Clear(card(VISA, 7, 2031));
    let before = vault.tokenize(taking, user(1), offered()).await.expect("a card");
    vault.erase(erasing, user(1)).await.expect("erased");
    assert!(matches!(vault.tokenize(taking, user(1), offered()).await, Err(Error::UserErased(_))));
    // Who comes again has another key, and the retry of neither request does anything to it.
    let after = vault.tokenize(request(), user(1), offered()).await.expect("a card");
    assert_ne!(after.token, before.token);
    assert!(matches!(vault.tokenize(taking, user(1), offered()).await, Err(Error::UserErased(_))));
    assert_eq!(vault.erase(erasing, user(1)).await.expect("the same answer"), 1);
    assert!(vault.describe(&after.token).await.expect("a card") == after);
}

#[tokio::test]
async fn nothing_that_was_encrypted_is_left_in_the_files() {
    let place = Place::new();
    let vault = place.open().await;
    let taken = tokenize(&vault, 1, VISA).await;
    tokenize(&vault, 2, MASTERCARD).await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}/vault.sqlite", place.data().display())).await.expect("the file");
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT wrapped FROM keys WHERE user = 1").fetch_one(&pool).await.expect("a key");
    let row: (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT sealed, lookup FROM cards WHERE user = 1").fetch_one(&pool).await.expect("a card");
    pool.close().await;
    for bytes in [&wrapped, &row.0, &row.1] {
        assert!(is_in_a_file(&place.data(), bytes), "this test looks in the wrong place");
    }
    vault.erase(request(), user(1)).await.expect("erased");
    for bytes in [&wrapped, &row.0, &row.1] {
        assert!(!is_in_a_file(&place.data(), bytes));
    }
    assert!(is_in_a_file(&place.data(), taken.token.as_bytes()), "what became of the request is kept");
}

/// An old backup of the data, with the keys as they are now: what can be read of it?
async fn restored(backup: &Place, keys_now: &Place) -> (Place, Result<Vault, Error>) {
    let restored = backup.crashed();
    std::fs::remove_dir_all(restored.keys()).expect("it is ours");
    copy(&keys_now.keys(), &restored.keys());
    let keys = restored.file_keys();
    let store = restored.store().await;
    let opened = restored.open_over(Arc::new(store), Arc::new(keys)).await;
    (restored, opened)
}

async fn describes(vault: &Result<Vault, Error>, token: &VaultToken) -> bool {
    match vault {
        Ok(vault) => vault.describe(token).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn the_rotation_after_an_erasure_makes_older_backups_unreadable() {
    let place = Place::new();
    let vault = place.open().await;
    let (erased, kept) = (tokenize(&vault, 1, VISA).await.token, tokenize(&vault, 2, AMEX).await.token);
    let backup = place.crashed();
    vault.erase(request(), user(1)).await.expect("erased");
    let (_at, at_once) = restored(&backup, &place).await;
    assert!(describes(&at_once, &erased).await, "until the key-encryption key is destroyed, a backup and the keys give it back");

    let plan = RotationPlan::default();
    assert_eq!(vault.tend(plan).await.expect("nothing is due"), None);
    place.time.pass(DAY_SECONDS);
    let rotated = vault.tend(plan).await.expect("it is due").expect("an erasure waits");
    assert_eq!(rotated.destroyed.len(), 1);
    assert_eq!(vault.tend(plan).await.expect("nothing is due any more"), None);

    let (_at, later) = restored(&backup, &place).await;
    assert!(matches!(later, Err(Error::Keys(paymesh_vault::keys::Error::Missing { .. }))), "{later:?}");
    assert!(!describes(&later, &erased).await && !describes(&later, &kept).await);
    // A backup from after the rotation has everybody but the one who was erased.
    let (_at, newer) = restored(&place.crashed(), &place).await;
    assert!(describes(&newer, &kept).await && !describes(&newer, &erased).await);
}

#[tokio::test]
async fn an_erasure_after_a_rotation_calls_for_another() {
    let place = Place::new();
    let vault = place.open().await;
    tokenize(&vault, 1, VISA).await;
    let plan = RotationPlan::default();
    vault.rotate().await.expect("rotated");
    vault.erase(request(), user(1)).await.expect("erased");
    place.time.pass(DAY_SECONDS);
    assert!(vault.tend(plan).await.expect("it is due").is_some());
    place.time.pass(89 * DAY_SECONDS);
    // One who had no key leaves nothing in backups.
    vault.erase(request(), user(3)).await.expect("erased");
    assert!(vault.tend(plan).await.expect("nothing is due").is_none());
    place.time.pass(DAY_SECONDS);
    assert!(vault.tend(plan).await.expect("it is due").is_some(), "after 90 days, whoever was erased");
}

/// The user is erased between the moment a card was encrypted under their key and the moment it is to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_races_an_erasure_is_there_whole_or_not_at_all() {
    let place = Place::new();
    let vault = place.open().await;
    for round in 0..40 {
        let (taking, erasing) = (vault.clone(), vault.clone());
        let taking = tokio::spawn(async move { taking.tokenize(request(), user(1), Offered::Clear(card(VISA, 7, 2031))).await });
        let erasing = tokio::spawn(async move { erasing.erase(request(), user(1)).await });
        let (taken, erased) = (taking.await.expect("it ran").expect("a card"), erasing.await.expect("it ran").expect("erased"));
        match vault.describe(&taken.token).await {
            Ok(described) => assert!(described == taken),
            Err(error) => assert!(matches!(error, Error::TokenNotFound(_)) && erased > 0, "round {round}: {error}, {erased} erased"),
        }
    }
}
