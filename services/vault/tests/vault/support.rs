//! A vault in a temporary folder, a time that tests move, and the words for what they do.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_types::{RequestId, Timestamp, UserId, ZoneName};
use paymesh_vault::{
    Clock, Description, Error, Offered, Vault,
    keys::{FileKeys, KeyProvider},
    store::{SqliteStore, Store},
};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const VISA: &str = "4242424242424242";
pub(crate) const MASTERCARD: &str = "5555555555554444";
pub(crate) const AMEX: &str = "378282246310005";

pub(crate) const DAY_SECONDS: u64 = 24 * 3600;

pub(crate) fn zone() -> ZoneName {
    "eu".parse().expect("a zone")
}

pub(crate) fn user(id: u64) -> UserId {
    id.try_into().expect("a user")
}

pub(crate) fn request() -> RequestId {
    Uuid::now_v7().try_into().expect("a request id")
}

pub(crate) fn card(number: &str, month: u32, year: u32) -> Card {
    Card { number: CardNumber::parse(number).expect("a number"), expiry: Expiry::new(month, year).expect("an expiry") }
}

/// A number that belongs to nobody, another for each `seed` below 10^9.
pub(crate) fn number(seed: u64) -> String {
    (0..10).map(|check| format!("400000{seed:09}{check}")).find(|digits| CardNumber::parse(digits).is_ok()).expect("one of ten digits fits")
}

/// A time that tests move. It begins in November 2026.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_795_000_000_000_000)))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || Timestamp(time.load(Relaxed)))
    }
}

/// The folder of a vault's data, and that of its keys.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) time: Time,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), time: Time::new() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    pub(crate) fn file_keys(&self) -> FileKeys {
        FileKeys::open(&self.keys(), "test", &zone()).expect("the keys open")
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.data(), "test", &zone()).await.expect("the store opens")
    }

    pub(crate) async fn open(&self) -> Vault {
        self.try_open().await.expect("the vault opens")
    }

    pub(crate) async fn try_open(&self) -> Result<Vault, Error> {
        let keys = self.file_keys();
        self.open_over(Arc::new(self.store().await), Arc::new(keys)).await
    }

    pub(crate) async fn open_over(&self, store: Arc<dyn Store>, keys: Arc<dyn KeyProvider>) -> Result<Vault, Error> {
        Vault::open(zone(), store, keys, self.time.clock()).await
    }

    /// As it is found by another process when this one ends now, without a word to anybody.
    pub(crate) fn crashed(&self) -> Self {
        let crashed = Self { directory: tempfile::tempdir().expect("a directory"), time: self.time.clone() };
        copy(&self.data(), &crashed.data());
        copy(&self.keys(), &crashed.keys());
        crashed
    }
}

/// Copies a folder, with the permissions of what is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("it can be made");
    std::fs::set_permissions(to, std::fs::metadata(from).expect("it is there").permissions()).expect("it is ours");
    for entry in std::fs::read_dir(from).expect("it can be read") {
        let entry = entry.expect("it can be read");
        // The index of the write-ahead log lives in memory that processes share; the next one makes it again.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
        }
    }
}

pub(crate) async fn tokenize(vault: &Vault, user_id: u64, digits: &str) -> Description {
    let offered = Offered::Clear(card(digits, 7, 2031));
    vault.tokenize(request(), user(user_id), offered).await.expect("a card")
}

/// Whether a text is in any file of a folder.
pub(crate) fn is_in_a_file(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("it can be read").any(|entry| {
        let path = entry.expect("it can be read").path();
        path.is_file() && std::fs::read(path).expect("it can be read").windows(bytes.len()).any(|part| part == bytes)
    })
}
