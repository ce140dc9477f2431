//! What the tests of a shard share: a shard over an engine, a clock that stands still, and commands in few words.

#![allow(dead_code)] // each test file is a program of its own and uses some of it

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use paymesh_journal::{Chain, Committed, Error as JournalError, Holding, Identity, Segment, Store, memory::MemoryStore, sqlite};
use paymesh_ledger::{Command, CreatePayment, Request, Wallet};
use paymesh_shard::{Answer, Clock, Error, Options, Shard, verify};
use paymesh_types::{Currency, Money, PaymentId, RequestId, Sequence, ShardRef, Timestamp, UserId};

/// The first instant of the clock.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// A clock that tests move.
#[derive(Debug, Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START.0)))
    }

    pub(crate) fn clock(&self) -> Clock {
        let now = self.0.clone();
        Arc::new(move || Timestamp(now.load(Ordering::Relaxed)))
    }

    /// The clock is set back, as clocks are.
    pub(crate) fn set_back_seconds(&self, seconds: u64) {
        self.0.fetch_sub(seconds * 1_000_000, Ordering::Relaxed);
    }

    pub(crate) fn pass_seconds(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

/// Where a shard's storage is.
pub(crate) enum Disk {
    Memory(MemoryStore),
    Sqlite(tempfile::TempDir),
}

impl Disk {
    pub(crate) fn memory(shard: &ShardRef) -> Self {
        Self::Memory(MemoryStore::new(&identity(shard)))
    }

    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a directory"))
    }

    /// One of each engine.
    pub(crate) fn each() -> [Self; 2] {
        [Self::memory(&eu(0)), Self::sqlite()]
    }

    pub(crate) async fn store(&self, shard: &ShardRef) -> Result<Store, JournalError> {
        match self {
            Self::Memory(store) => store.open(&identity(shard)),
            Self::Sqlite(directory) => sqlite::open(directory.path(), &identity(shard)).await,
        }
    }

    pub(crate) async fn try_open(&self, shard: &ShardRef, options: Options, time: &Time) -> Result<Shard, Error> {
        let store = self.store(shard).await.map_err(|source| Error::Storage { shard: shard.clone(), source })?;
        Shard::open(&identity(shard), store, options, time.clock()).await
    }

    pub(crate) async fn open(&self, shard: &ShardRef) -> Shard {
        self.try_open(shard, Options::default(), &Time::new()).await.expect("the shard opens")
    }
}

/// A raw connection to one of a shard's files, for damage.
pub(crate) async fn raw(disk: &Disk, file: &str) -> sqlx::SqliteConnection {
    use sqlx::Connection as _;
    let Disk::Sqlite(directory) = disk else { panic!("memory has no files") };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join(file));
    sqlx::SqliteConnection::connect_with(&options).await.expect("the file opens")
}

pub(crate) fn eu(index: u16) -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone's name"), index }
}

pub(crate) fn identity(shard: &ShardRef) -> Identity {
    Identity { mesh: "test".to_owned(), shard: shard.clone(), shards: 4, holding: Holding::Whole }
}

pub(crate) fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("users are counted from one")
}

pub(crate) fn currency(code: &str) -> Currency {
    Currency::from_code(code).expect("a code of ISO 4217")
}

pub(crate) fn euro() -> Currency {
    currency("EUR")
}

pub(crate) fn money(minor: i64) -> Money {
    Money::new(minor, euro()).expect("within the bounds")
}

/// A request id by number, from 1. Two of three are of version 7, by clocks that do not quite agree.
pub(crate) fn id(number: u128) -> RequestId {
    let mut bytes = number.to_be_bytes();
    if !number.is_multiple_of(3) {
        let low = u64::try_from(number & 0xffff_ffff_ffff).expect("48 bits");
        let ms = 1_000 + low - low % 7 + low * 5 % 11;
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        bytes[6] = 0x70;
    }
    RequestId::from_slice(&bytes).expect("sixteen bytes, not all zero")
}

pub(crate) fn ask(number: u128, command: Command) -> Request {
    Request { id: Some(id(number)), command }
}

pub(crate) fn enrol(number: u64) -> Command {
    enrol_with(number, &["EUR"])
}

pub(crate) fn enrol_with(number: u64, codes: &[&str]) -> Command {
    let currencies = codes.iter().map(|code| currency(code)).collect();
    Command::EnrollUser { user: user(number), country: "DE".parse().expect("a country"), currencies }
}

pub(crate) fn deposit(number: u64, minor: i64) -> Command {
    Command::Deposit { user: user(number), money: money(minor), reference: "salary".to_owned() }
}

pub(crate) fn withdraw(number: u64, minor: i64) -> Command {
    Command::Withdraw { user: user(number), money: money(minor), reference: String::new() }
}

pub(crate) fn pay(payer: u64, payee: u64, minor: i64) -> Command {
    pay_to(payer, payee, None, minor, 0)
}

pub(crate) fn pay_to(payer: u64, payee: u64, payee_shard: Option<ShardRef>, minor: i64, hold_s: u32) -> Command {
    let reference = "rent".to_owned();
    Command::CreatePayment(CreatePayment {
        payer: user(payer),
        payee: user(payee),
        payee_shard,
        money: money(minor),
        hold_s,
        reference,
        card: None,
    })
}

/// Submits commands without ids, which must all be accepted.
pub(crate) async fn all(shard: &Shard, commands: impl IntoIterator<Item = Command>) -> Vec<Answer> {
    let requests = commands.into_iter().map(|command| Request { id: None, command }).collect();
    let answers = shard.submit_all(requests).await.expect("the shard serves");
    answers.into_iter().map(|answer| answer.expect("the command is accepted")).collect()
}

pub(crate) async fn balance(shard: &Shard, number: u64) -> i64 {
    wallet(shard, number).await.balance
}

pub(crate) async fn wallet(shard: &Shard, number: u64) -> Wallet {
    let (wallets, _) = shard.wallets(user(number)).await.expect("the shard serves").expect("the user is enrolled");
    wallets.into_iter().find(|(each, _)| *each == euro()).expect("the user has an account").1
}

pub(crate) fn payment_of(answer: &Answer) -> PaymentId {
    PaymentId::from(answer.position.clone())
}

/// All segments of a store, checked, and their entries.
pub(crate) async fn journal(store: &Store, shard: &ShardRef) -> (Vec<Segment>, Vec<Committed>) {
    let mut chain = Chain::start(shard.clone());
    let (mut segments, mut entries) = (Vec::new(), Vec::new());
    loop {
        let read = store.journal.read(chain.last().next(), usize::MAX).await.expect("the journal is read");
        if read.is_empty() {
            return (segments, entries);
        }
        for segment in read {
            chain.link(&segment).expect("the chain holds");
            entries.extend(segment.entries(shard).expect("the entries decode"));
            segments.push(segment);
        }
    }
}

/// Where each request id took effect; panics when one did twice.
pub(crate) fn effects(entries: &[Committed]) -> BTreeMap<RequestId, Sequence> {
    let mut effects = BTreeMap::new();
    for (position, entry) in entries {
        let Some(id) = entry.request_id else { continue };
        let before = effects.insert(id, position.sequence);
        assert_eq!(before, None, "{id} took effect twice, the second time at {}", position.sequence);
    }
    effects
}

pub(crate) async fn problems(shard: &Shard) -> Vec<String> {
    verify(shard, &[], |_, _| {}).await.expect("the storage is read").problems
}

/// Checks that the shard proves its own books.
pub(crate) async fn proven(shard: &Shard) {
    assert_eq!(problems(shard).await, Vec::<String>::new());
}

/// Why the shard does not serve.
pub(crate) fn not_serving<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::NotServing { why, .. }) => why,
        other => panic!("it came to {other:?}"),
    }
}
