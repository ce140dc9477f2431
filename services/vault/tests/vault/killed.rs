//! A process that is killed while it takes cards in and rotates its keys: whatever it had answered is there.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use paymesh_types::VaultToken;
use paymesh_vault::Vault;

use crate::support::{Place, number, tokenize, zone};

/// Where the process that is killed finds its folders.
const DATA: &str = "PAYMESH_VAULT_TEST_DATA";
const KEYS: &str = "PAYMESH_VAULT_TEST_KEYS";
const ROUND: &str = "PAYMESH_VAULT_TEST_ROUND";

/// Milliseconds after its first answer in which each process is killed.
const LIVES_MS: [u64; 10] = [1, 3, 7, 12, 20, 33, 47, 71, 90, 130];

#[tokio::test]
#[ignore = "the process that the other test of this file kills"]
async fn takes_cards_in_and_rotates_until_it_is_killed() {
    let (Ok(data), Ok(keys), Ok(round)) = (std::env::var(DATA), std::env::var(KEYS), std::env::var(ROUND)) else { return };
    let store = paymesh_vault::store::SqliteStore::open(data.as_ref(), "test", &zone()).await.expect("the store opens");
    let keys = paymesh_vault::keys::FileKeys::open(keys.as_ref(), "test", &zone()).expect("the keys open");
    let clock = crate::support::Time::new().clock();
    let vault = Vault::open(zone(), std::sync::Arc::new(store), std::sync::Arc::new(keys), clock).await.expect("the vault opens");
    vault.resume_rotation().await.expect("it goes on");
    let rotating = vault.clone();
    tokio::spawn(async move {
        loop {
            rotating.rotate().await.expect("rotated");
        }
    });
    let first = round.parse::<u64>().expect("a number") * 100_000;
    for user in first.. {
        let token = tokenize(&vault, 1 + user, &number(user)).await.token;
        let mut out = std::io::stdout().lock();
        writeln!(out, "answered {token}").and_then(|()| out.flush()).expect("somebody reads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let place = Place::new();
    drop(place.open().await);
    let mut answered: Vec<VaultToken> = Vec::new();
    for (round, life_ms) in LIVES_MS.iter().enumerate() {
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "killed::takes_cards_in_and_rotates_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DATA, place.data())
            .env(KEYS, place.keys())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let token = |line: String| line.rsplit_once("answered ").map(|(_, token)| token.parse::<VaultToken>().expect("a token"));
        let first = lines.by_ref().find_map(|line| token(line.expect("text"))).expect("it takes cards in");
        answered.push(first);
        std::thread::sleep(Duration::from_millis(*life_ms));
        // SIGKILL.
        process.kill().expect("it runs");
        // What it had said by then. The last line may be cut off.
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = said.iter().filter_map(|line| line.rsplit_once("answered ")).filter_map(|(_, token)| token.parse().ok());
        answered.extend(whole);
        process.wait().expect("it ended");

        let vault = place.open().await;
        for token in &answered {
            vault.describe(token).await.unwrap_or_else(|error| panic!("round {round}, killed after {life_ms} ms: {error}"));
        }
    }
    let vault = place.open().await;
    vault.resume_rotation().await.expect("it goes on");
    for token in &answered {
        vault.describe(token).await.expect("a card");
    }
    println!("{} cards were answered before {} kills, and all are there", answered.len(), LIVES_MS.len());
    assert!(answered.len() > LIVES_MS.len(), "{}", answered.len());
}
