//! Cards that are sealed by the client library and opened by the vault alone.

use paymesh_client::{VaultKey, seal};
use paymesh_contract::vault::v1::GetVaultKeyResponse;
use paymesh_vault::{Error, Offered, SealedCard, SealingKey, Vault};

use crate::support::{AMEX, DAY_SECONDS, Place, VISA, card, request, tokenize, user, zone};

fn told(key: &SealingKey) -> GetVaultKeyResponse {
    GetVaultKeyResponse {
        key_id: key.id.clone(),
        public_key: key.public.clone(),
        zone: zone().to_string(),
        ..GetVaultKeyResponse::default()
    }
}

fn sealed_for(user_id: u64, digits: &str, key: &GetVaultKeyResponse) -> SealedCard {
    let key = VaultKey::unproven(user_id, key).expect("a key");
    let sealed = seal(&card(digits, 7, 2031), &key).expect("sealed");
    SealedCard { key_id: sealed.key_id, encapsulated: sealed.encapsulated_key, ciphertext: sealed.ciphertext }
}

async fn take(vault: &Vault, user_id: u64, sealed: SealedCard) -> Result<paymesh_vault::Description, Error> {
    vault.tokenize(request(), user(user_id), Offered::Sealed(sealed)).await
}

#[tokio::test]
async fn a_sealed_card_is_the_card_that_was_sealed() {
    let place = Place::new();
    let vault = place.open().await;
    let key = told(&vault.sealing_key().await.expect("a key"));
    let (one, other) = (sealed_for(7, VISA, &key), sealed_for(7, AMEX, &key));
    assert_eq!((one.encapsulated.len(), one.ciphertext.len()), (65, other.ciphertext.len()), "its length tells what it is");
    let taken = take(&vault, 7, one).await.expect("a card");
    assert!(tokenize(&vault, 7, VISA).await == taken, "the same as in clear");

    // Sealed anew, the bytes differ and the request is the same.
    let id = request();
    let first = vault.tokenize(id, user(7), Offered::Sealed(sealed_for(7, AMEX, &key))).await.expect("a card");
    let again = vault.tokenize(id, user(7), Offered::Sealed(sealed_for(7, AMEX, &key))).await.expect("the same");
    assert!(first == again);
}

#[tokio::test]
async fn what_was_sealed_for_another_or_changed_does_not_open() {
    let place = Place::new();
    let vault = place.open().await;
    let key = told(&vault.sealing_key().await.expect("a key"));
    let refused = |error: Result<paymesh_vault::Description, Error>| matches!(error, Err(Error::NotSealedForUser(_)));
    assert!(refused(take(&vault, 8, sealed_for(7, VISA, &key)).await), "for another user");
    let elsewhere = GetVaultKeyResponse { zone: "global".to_owned(), ..key.clone() };
    assert!(refused(take(&vault, 7, sealed_for(7, VISA, &elsewhere)).await), "for another zone");
    let good = sealed_for(7, VISA, &key);
    for place in [0, 1, 64] {
        let mut changed = good.clone();
        changed.encapsulated[place] ^= 1;
        assert!(refused(take(&vault, 7, changed).await), "byte {place} of the encapsulated key");
    }
    for place in [0, 22, 38] {
        let mut changed = good.clone();
        changed.ciphertext[place] ^= 1;
        assert!(refused(take(&vault, 7, changed).await), "byte {place} of the ciphertext");
    }
    let other_key = told(&Place::new().open().await.sealing_key().await.expect("a key"));
    let mut mixed = sealed_for(7, VISA, &other_key);
    assert!(matches!(take(&vault, 7, mixed.clone()).await, Err(Error::SealingKeyNotFound)));
    mixed.key_id = key.key_id;
    assert!(refused(take(&vault, 7, mixed).await), "to another vault's key");
}

#[tokio::test]
async fn one_key_takes_over_from_the_other_and_both_open_meanwhile() {
    let place = Place::new();
    let vault = place.open().await;
    let first = vault.sealing_key().await.expect("a key");
    assert_eq!(vault.sealing_key().await.expect("a key"), first);
    place.time.pass(29 * DAY_SECONDS);
    assert_eq!(place.open().await.sealing_key().await.expect("a key"), first, "also by another process");
    place.time.pass(DAY_SECONDS);
    let second = vault.sealing_key().await.expect("a key");
    assert_ne!(second.id, first.id);
    for (key, digits) in [(&first, VISA), (&second, AMEX)] {
        take(&vault, 7, sealed_for(7, digits, &told(key))).await.expect("both open");
    }
    // Under the next key-encryption key, too.
    vault.rotate().await.expect("rotated");
    take(&vault, 7, sealed_for(7, VISA, &told(&first))).await.expect("it opens");
    place.time.pass(7 * DAY_SECONDS);
    let ended = take(&vault, 7, sealed_for(7, VISA, &told(&first))).await;
    assert!(matches!(ended, Err(Error::SealingKeyNotFound)), "{ended:?}");
    take(&vault, 7, sealed_for(7, VISA, &told(&second))).await.expect("it opens");
    vault.tend(paymesh_vault::RotationPlan::default()).await.expect("tended");
    assert_eq!(vault.sealing_key().await.expect("a key"), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_ask_at_once_get_the_same_key() {
    let place = Place::new();
    let vault = place.open().await;
    let asking: Vec<_> = (0..16)
        .map(|_| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.sealing_key().await.expect("a key").id })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for asked in asking {
        ids.insert(asked.await.expect("it ran"));
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn an_answer_that_no_vault_gives_is_not_sealed_to() {
    let good = told(&Place::new().open().await.sealing_key().await.expect("a key"));
    let mut off_the_curve = good.clone();
    off_the_curve.public_key[40] ^= 1;
    for wrong in [
        GetVaultKeyResponse { public_key: Vec::new(), ..good.clone() },
        GetVaultKeyResponse { public_key: vec![4; 65], ..good.clone() },
        GetVaultKeyResponse { zone: String::new(), ..good.clone() },
        off_the_curve,
    ] {
        assert!(VaultKey::unproven(7, &wrong).and_then(|key| seal(&card(VISA, 7, 2031), &key)).is_err());
    }
    assert!(VaultKey::unproven(0, &good).is_err());
}
