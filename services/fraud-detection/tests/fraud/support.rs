//! Rules, payments and a detector in a temporary folder, and a time that tests move.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use paymesh_cache::{Cache, InProcess};
use paymesh_fraud_detection::{Clock, Detector, Error, Parts, Store, memory::Payment};
use paymesh_topology::{Fraud, Topology};
use paymesh_types::{Currency, Money, RequestId, Timestamp, UserId, ZoneName};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

pub(crate) const START: u64 = 1_795_000_000;

pub(crate) const TOPOLOGY: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
  us: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  us_east: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
";

/// Rules whose numbers are easy to reckon with.
pub(crate) const RULES: &str = "
version: test
reference_currency: EUR
rates: {USD: 0.5}
rules:
  user_count: [{per: five_minutes, from: 2, full: 4, weight: 0.9}]
  user_amount: [{per: hour, from: 100000, full: 200000, weight: 0.5}]
  card_users: [{per: day, from: 1, full: 2, weight: 0.6}]
  amount_unusual: {from: 200, full: 400, weight: 0.5, after: 2}
  first_payment: {weight: 0.1}
  first_device: {weight: 0.3, after: 1}
  card_abroad: {weight: 0.4}
block: {users: [66], countries: [KP]}
allow: {users: [77]}
";

pub(crate) fn topology() -> Topology {
    Topology::parse("test", TOPOLOGY).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn rules(yaml: &str) -> Fraud {
    Fraud::parse("fraud.yaml", yaml, &topology()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The rules that ship, for the zones of the tests.
pub(crate) fn shipped() -> Fraud {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config/fraud.yaml");
    rules(&std::fs::read_to_string(path).expect("it can be read").replace("  global:\n", "  us:\n"))
}

pub(crate) fn zone() -> ZoneName {
    "eu".parse().expect("a zone")
}

pub(crate) fn user(id: u64) -> UserId {
    id.try_into().expect("a user")
}

pub(crate) fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::from_code("EUR").expect("EUR")).expect("an amount")
}

/// A payment from a wallet, so many seconds after the start.
pub(crate) fn payment(payer: u64, payee: u64, minor: i64, after_seconds: u64) -> Payment {
    Payment {
        at: Timestamp((START + after_seconds) * 1_000_000),
        payer: user(payer),
        payee: user(payee),
        amount: euro(minor),
        card: None,
        bin: None,
        card_country: None,
        device: None,
        region: "eu_west".parse().expect("a region"),
        enters_abroad: false,
        residence: None,
    }
}

pub(crate) fn request() -> RequestId {
    Uuid::now_v7().try_into().expect("a request id")
}

/// A time that tests move.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START * 1_000_000)))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || Timestamp(time.load(Relaxed)))
    }
}

/// The folder of a detector.
pub(crate) struct Place {
    directory: Arc<TempDir>,
    pub(crate) time: Time,
}

/// A detector that runs, until it is dropped: as abruptly as a process that is killed.
pub(crate) struct Running {
    pub(crate) detector: Detector,
    pub(crate) rules: watch::Sender<Option<Arc<Fraud>>>,
    pub(crate) store: Store,
    pub(crate) tending: JoinHandle<()>,
    _directory: Arc<TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tending.abort();
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: Arc::new(tempfile::tempdir().expect("a directory")), time: Time::new() }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) async fn open(&self) -> Running {
        self.open_with(Arc::new(InProcess::new(1 << 20)), rules(RULES)).await.expect("it opens")
    }

    pub(crate) async fn open_with(&self, cache: Arc<dyn Cache>, fraud: Fraud) -> Result<Running, Error> {
        let store = Store::open(self.path(), "test", &zone(), &"eu_west".parse().expect("a region")).await?;
        let (rules, current) = watch::channel(Some(Arc::new(fraud)));
        let parts = Parts { zone: zone(), store: store.clone(), cache, rules: current, clock: self.time.clock() };
        let (detector, tending) = Detector::open(parts).await?;
        let tending = tokio::spawn(tending.tend(|_| {}));
        Ok(Running { detector, rules, store, tending, _directory: self.directory.clone() })
    }
}
