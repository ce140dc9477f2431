//! A node in this process, its clients, and words for what they do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use paymesh_cache::{Cache, InProcess};
use paymesh_contract::{
    Fault,
    common::v1::Money,
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    events::v1::event_service_client::EventServiceClient,
    mesh::v1::mesh_service_client::MeshServiceClient,
    payments::v1::{CreatePaymentRequest, GetPaymentRequest, Payment, PaymentStatus, payment_service_client::PaymentServiceClient},
    wallet::v1::{DepositRequest, GetBalanceRequest, wallet_service_client::WalletServiceClient},
};
use paymesh_journal::{Holding, Identity, sqlite};
use paymesh_mesh::{Mesh, MeshChannel, Security};
use paymesh_payment_processor::{Problems, services};
use paymesh_shard::{Clock, Copies, Options, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{RegionName, ShardRef, Timestamp};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// How long the tests wait for what happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One region that leads everything: three shards of zone eu, which takes residents of Germany.
pub(crate) fn one_region() -> Topology {
    let yaml = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor], database: primary_master}
zones:
  eu: {shards: 3, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
";
    Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A time that tests move.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        Self(Arc::new(AtomicU64::new(u64::try_from(since.as_micros()).expect("before the year 586524"))))
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000, Relaxed);
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || Timestamp(time.load(Relaxed)))
    }
}

/// Of a node that has no parts to be wrong.
pub(crate) fn no_problems() -> Problems {
    Arc::new(Vec::new)
}

/// What a node keeps of what cards look like.
pub(crate) fn cache() -> Arc<dyn Cache> {
    Arc::new(InProcess::new(1 << 20))
}

/// A node in this process.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) shards: Shards,
    pub(crate) copies: Copies,
    pub(crate) time: Time,
    _inboxes: JoinSet<(ShardRef, ShardRef, String)>,
    _directory: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::of(Arc::new(one_region()), "eu_west", Options::default()).await
    }

    pub(crate) async fn of(topology: Arc<Topology>, region: &str, options: Options) -> Self {
        Self::with_copies(topology, region, options, Copies::default()).await
    }

    pub(crate) async fn with_copies(topology: Arc<Topology>, region: &str, options: Options, copies: Copies) -> Self {
        let region: RegionName = region.parse().expect("a region");
        let (directory, time) = (TempDir::new().expect("a folder"), Time::now());
        let storage = sqlite::Engine::new(directory.path());
        let mut shards = BTreeMap::new();
        for shard in topology.led_by(&region) {
            let count = topology.zone(&shard.zone).map_or(paymesh_topology::DIRECTORY_SHARDS, |zone| zone.shards);
            let identity = Identity { mesh: topology.mesh().to_owned(), shard: shard.clone(), shards: count, holding: Holding::Whole };
            let store = storage.store(&identity).await.expect("storage");
            let open = Shard::open(&identity, store, options.clone(), time.clock()).await.expect("a shard");
            shards.insert(shard, Ok(open));
        }
        let shards = Shards::new(shards);
        let mesh = Mesh::new(topology, region, Security::PlainText).expect("a mesh");
        mesh.attach(services(shards.clone(), copies.clone(), mesh.clone(), no_problems(), None, cache()).routes);
        Self { _inboxes: shards.follow_each_other(), mesh, shards, copies, time, _directory: directory }
    }

    pub(crate) fn payments(&self) -> PaymentServiceClient<MeshChannel> {
        PaymentServiceClient::new(self.mesh.channel()).max_decoding_message_size(16 << 20)
    }

    pub(crate) fn wallets(&self) -> WalletServiceClient<MeshChannel> {
        WalletServiceClient::new(self.mesh.channel())
    }

    pub(crate) fn directory(&self) -> DirectoryServiceClient<MeshChannel> {
        DirectoryServiceClient::new(self.mesh.channel())
    }

    pub(crate) fn events(&self) -> EventServiceClient<MeshChannel> {
        EventServiceClient::new(self.mesh.channel())
    }

    pub(crate) fn operations(&self) -> MeshServiceClient<MeshChannel> {
        MeshServiceClient::new(self.mesh.channel())
    }

    /// Enrols users with an account in EUR and so much in it.
    pub(crate) async fn users(&self, users: &[(u64, i64)]) {
        for (user, cents) in users {
            self.directory().enroll_user(enrolment(*user, "DE")).await.expect("an enrolment");
            if *cents > 0 {
                self.wallets().deposit(deposit(*user, *cents)).await.expect("a deposit");
            }
        }
    }

    /// What a user has in EUR, and what of it is held.
    pub(crate) async fn balance(&self, user: u64) -> (i64, i64) {
        let answer = self.wallets().get_balance(GetBalanceRequest { user_id: user, read: None }).await.expect("a balance").into_inner();
        let balance = answer.balances.iter().find(|balance| balance.currency_code == "EUR").expect("an account in EUR");
        assert_eq!(balance.available_minor_units, balance.booked_minor_units - balance.held_minor_units);
        (balance.booked_minor_units, balance.held_minor_units)
    }

    pub(crate) async fn payment(&self, id: &str) -> Payment {
        let request = GetPaymentRequest { payment_id: id.to_owned(), read: None };
        self.payments().get_payment(request).await.expect("a payment").into_inner().payment.expect("a payment")
    }

    /// Waits until a payment stands so.
    pub(crate) async fn until(&self, id: &str, status: PaymentStatus) -> Payment {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let payment = self.payment(id).await;
                if payment.status() == status {
                    return payment;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{id} never was {status:?}"))
    }

    /// Waits until a user has so much.
    pub(crate) async fn until_balance(&self, user: u64, cents: i64) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.balance(user).await.0 != cents {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("user {user} never had {cents}"));
    }

    pub(crate) async fn close(self) {
        self.mesh.detach();
        for (_, shard) in self.shards.iter() {
            shard.expect("it was opened").close().await;
        }
    }
}

pub(crate) fn id() -> String {
    uuid::Uuid::now_v7().to_string()
}

pub(crate) fn euro(cents: i64) -> Option<Money> {
    Some(Money { minor_units: cents, currency_code: "EUR".to_owned() })
}

pub(crate) fn enrolment(user: u64, country: &str) -> EnrollUserRequest {
    EnrollUserRequest { request_id: id(), user_id: user, residence_country: country.to_owned(), currency_codes: vec!["EUR".to_owned()] }
}

pub(crate) fn deposit(user: u64, cents: i64) -> DepositRequest {
    DepositRequest { request_id: id(), user_id: user, amount: euro(cents), reference: String::new() }
}

pub(crate) fn pay(payer: u64, payee: u64, cents: i64) -> CreatePaymentRequest {
    CreatePaymentRequest {
        request_id: id(),
        payer_id: payer,
        payee_id: payee,
        amount: euro(cents),
        reference: format!("from {payer}"),
        ..CreatePaymentRequest::default()
    }
}

pub(crate) fn hold(payer: u64, payee: u64, cents: i64) -> CreatePaymentRequest {
    CreatePaymentRequest { capture_mode: 2, ..pay(payer, payee, cents) }
}

/// A refusal: its code, reason and field.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, String) {
    let fault = Fault::from_status(&answer.expect_err("it is refused"));
    (fault.code, fault.reason.into_owned(), fault.field.unwrap_or_default())
}

/// As [`refused`], to compare with.
pub(crate) fn refusal(code: Code, reason: &str, field: &str) -> (Code, String, String) {
    (code, reason.to_owned(), field.to_owned())
}
