//! A log for one test, its writer on a thread, and a clock that stands still unless it is told.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use paymesh_audit::{Caller, Log, Outcome, Record, Settings, Standing, State, Token, Unwritten};
use paymesh_contract::{audit::v1::AuditRecord, policies};
use paymesh_types::{Sequence, Timestamp, UserId};
use tonic::Code;

/// Bytes of a file's header.
pub(crate) const HEADER_BYTES: usize = 100;
/// What a record has before and after its bytes.
pub(crate) const FRAME_BYTES: usize = 36;

pub(crate) const METHOD: &str = "/paymesh.wallet.v1.WalletService/GetBalance";

/// A clock that is set by hand.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<AtomicU64>);

impl Hand {
    pub(crate) fn forward(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).expect("a short time"), Ordering::Relaxed);
    }
}

pub(crate) fn settings(clock: &Hand) -> Settings {
    let hand = clock.clone();
    let clock = Arc::new(move || Timestamp(hand.0.load(Ordering::Relaxed)));
    Settings { linger: Duration::from_millis(1), ..Settings::new("test", "eu_west".parse().expect("a region"), "1.2.3", clock) }
}

/// A log that is written.
pub(crate) struct Running {
    pub(crate) log: Log,
    writer: JoinHandle<Result<(), Unwritten>>,
}

impl Running {
    /// Opens a log, and waits until it is open.
    pub(crate) fn open(directory: &Path, settings: Settings) -> Self {
        let running = Self::start(directory, settings);
        wait_for(&running.log, |state| state.standing == Standing::Open);
        running
    }

    /// The same, without waiting.
    pub(crate) fn start(directory: &Path, settings: Settings) -> Self {
        let (log, writer) = Log::open(directory.join("audit"), settings);
        Self { log, writer: std::thread::spawn(move || writer.run()) }
    }

    /// Records calls that name these users, and waits until they are durable.
    pub(crate) fn record(&self, users: impl IntoIterator<Item = u64>) {
        let slots: Vec<_> = users.into_iter().map(|user| self.log.reserve(call(user)).expect("there is a slot")).collect();
        let durable: Vec<_> = slots.into_iter().map(|slot| slot.record_durably(good())).collect();
        for each in durable {
            block_on(each).expect("it is durable");
        }
    }

    pub(crate) fn close(self) -> Result<(), Unwritten> {
        block_on(self.log.close());
        self.writer.join().expect("the writer did not die")
    }
}

pub(crate) fn wait_for(log: &Log, until: impl FnMut(&State) -> bool) -> State {
    let mut state = log.watch();
    let waited = block_on(async {
        tokio::time::timeout(Duration::from_secs(30), state.wait_for(until)).await.map(|state| state.ok().map(|state| state.clone()))
    });
    waited.expect("it comes so far").expect("the log is there")
}

pub(crate) fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(what)
}

/// A call about one user.
pub(crate) fn call(user: u64) -> Record {
    let token = Token { principal: "checkout".to_owned(), issuer: "https://issuer.example".to_owned(), id: format!("token-{user}") };
    let mut record = Record::new(Timestamp(user), Caller::Token(Arc::new(token)), policies().method(METHOD));
    record.subjects.add_user(UserId::try_from(user).expect("a user"));
    record
}

pub(crate) fn good() -> Outcome {
    Outcome::new(Code::Ok, "", Duration::from_micros(250))
}

/// Everything that can be read from the first record that is kept.
pub(crate) fn read_all(log: &Log) -> Vec<AuditRecord> {
    let mut reader = log.read(Sequence(0)).expect("the log is open");
    let mut all = Vec::new();
    loop {
        let batch = reader.batch().expect("it can be read");
        if batch.records.is_empty() {
            return all;
        }
        all.extend(batch.records);
    }
}

/// The users of the calls that can be read.
pub(crate) fn users(log: &Log) -> Vec<u64> {
    read_all(log).iter().flat_map(|record| record.subjects.iter().flat_map(|subjects| subjects.user_ids.clone())).collect()
}

/// The files of a chain, by name.
pub(crate) fn files(directory: &Path, chain: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("audit").join(format!("chain-{chain:05}"))).expect("the chain is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

/// Below the log's directory.
pub(crate) fn name(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_str().expect("a name")).collect();
    format!("{}/{}", parts[1], parts[0])
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("it can be read") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}
