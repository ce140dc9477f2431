//! Callers that pay and refund through every region, each request with an id that is sent again until it is answered, and
//! a record of every answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt as _;
use paymesh_contract::{
    common::v1::{Money, Position, ReadLevel, ReadOptions},
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    payments::v1::{
        CreatePaymentRequest, CreatePaymentsRequest, PaymentStatus, RefundPaymentRequest, RefundPaymentResponse, payment_outcome::Outcome,
        payment_service_client::PaymentServiceClient,
    },
    wallet::v1::{CloseAccountRequest, DepositRequest, GetBalanceRequest, GetBalanceResponse, wallet_service_client::WalletServiceClient},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, transport::Channel};
use uuid::Uuid;

/// Users of each zone.
pub(crate) const ZONE_USERS: u64 = 20;
/// The currencies of the mesh.
pub(crate) const CURRENCIES: [&str; 2] = ["EUR", "USD"];
/// What a user starts with in each currency, in minor units.
const OPENING: i64 = 100_000_000;
/// What those start with who soon have nothing left.
const POOR_OPENING: i64 = 2_000;
/// How long a caller waits for an answer before it asks again.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Between two tries, in milliseconds.
const AGAIN_MS: std::ops::Range<u64> = 10..300;
/// How long a request may be unanswered, over all its tries.
pub(crate) const UNANSWERED_MAX: Duration = Duration::from_secs(90);
/// Callers that pay one by one, and those that pay in batches.
const CALLERS: usize = 24;
const BATCH_CALLERS: usize = 8;

/// A user, and what is special about them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(pub(crate) u64);

impl User {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..=ZONE_USERS).chain(101..=100 + ZONE_USERS).map(User)
    }

    pub(crate) fn zone(self) -> &'static str {
        if self.0 <= 100 { "eu" } else { "global" }
    }

    fn country(self) -> &'static str {
        match (self.zone(), self.0 % 3) {
            ("eu", 0) => "FR",
            ("eu", _) => "DE",
            (_, 0) => "JP",
            _ => "US",
        }
    }

    /// The region that leads their shard, by the configuration.
    pub(crate) fn home(self) -> &'static str {
        match (self.zone(), self.0 % 2) {
            ("eu", _) => "eu_west",
            (_, 0) => "us_east",
            _ => "us_west",
        }
    }

    /// Has no account in the second currency.
    fn lacks_an_account(self) -> bool {
        matches!(self.0 % 100, 5 | 6)
    }

    /// Has so little that payments are declined.
    fn is_poor(self) -> bool {
        matches!(self.0 % 100, 7 | 8)
    }

    /// Their account in the first currency is closed: money sent to it comes back.
    fn is_closed(self) -> bool {
        matches!(self.0 % 100, 9 | 10)
    }

    /// What they start with in each currency that they have an account in.
    pub(crate) fn openings(self) -> BTreeMap<&'static str, i64> {
        let openings = CURRENCIES.into_iter().map(|currency| match currency {
            "EUR" if self.is_closed() => ("EUR", 0),
            _ if self.is_poor() => (currency, POOR_OPENING),
            _ => (currency, OPENING),
        });
        openings.filter(|(currency, _)| *currency == "EUR" || !self.lacks_an_account()).collect()
    }

    /// Whether a payment in this currency reaches them.
    pub(crate) fn takes(self, currency: &str) -> bool {
        if currency == "EUR" { !self.is_closed() } else { !self.lacks_an_account() }
    }
}

/// A payment that was asked for, and the answer.
#[derive(Debug, Clone)]
pub(crate) struct Paid {
    pub(crate) payment_id: String,
    pub(crate) payer: u64,
    pub(crate) payee: u64,
    pub(crate) minor: i64,
    pub(crate) currency: String,
    pub(crate) declined: bool,
}

/// A refund that was asked for. `taken`: what was answered; a refund that was refused has none, and may have been taken all the same by
/// a try that came late.
#[derive(Debug, Clone)]
pub(crate) struct Refunded {
    pub(crate) payment_id: String,
    pub(crate) minor: i64,
    pub(crate) taken: bool,
}

/// Every answer.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) paid: Vec<Paid>,
    pub(crate) refunded: Vec<Refunded>,
    /// Answers that nobody was meant to get.
    pub(crate) wrong: Vec<String>,
    /// Requests that were sent more than once.
    pub(crate) repeated: u64,
    /// Reads that were to have a write in them and were answered, and those of them that a copy answered.
    pub(crate) own_writes_read: u64,
    pub(crate) read_from_copies: u64,
}

impl Record {
    fn add(&mut self, other: Self) {
        self.paid.extend(other.paid);
        self.refunded.extend(other.refunded);
        self.wrong.extend(other.wrong);
        self.repeated += other.repeated;
        self.own_writes_read += other.own_writes_read;
        self.read_from_copies += other.read_from_copies;
    }
}

/// When callers begin nothing more, and how far they are.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    pub(crate) stop: AtomicBool,
    /// Payments between zones that were answered and not declined.
    pub(crate) crossed: AtomicU64,
}

/// Enrols every user. Nothing fails yet.
pub(crate) async fn enrol(entries: &[Channel]) {
    let enrol = async |user: User| {
        let entry = &entries[usize::try_from(user.0).unwrap() % entries.len()];
        let openings = user.openings();
        let request = EnrollUserRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: user.0,
            residence_country: user.country().to_owned(),
            currency_codes: openings.keys().map(|currency| (*currency).to_owned()).collect(),
        };
        DirectoryServiceClient::new(entry.clone()).enroll_user(request).await.unwrap();
        let mut wallet = WalletServiceClient::new(entry.clone());
        for (currency, minor) in openings.iter().filter(|(_, minor)| **minor > 0) {
            let amount = Some(Money { minor_units: *minor, currency_code: (*currency).to_owned() });
            let request = DepositRequest { request_id: Uuid::new_v4().to_string(), user_id: user.0, amount, reference: String::new() };
            wallet.deposit(request).await.unwrap();
        }
        if user.is_closed() {
            let request_id = Uuid::new_v4().to_string();
            let request = CloseAccountRequest { request_id, user_id: user.0, currency_code: "EUR".to_owned() };
            wallet.close_account(request).await.unwrap();
        }
    };
    futures::stream::iter(User::all()).for_each_concurrent(8, enrol).await;
}

/// Pays and refunds until it is told to stop and everything asked for has been answered. `batch_max`: payments of a batch at most.
pub(crate) async fn run(entries: &[Channel], seed: u64, batch_max: usize, gauge: &Arc<Gauge>) -> Record {
    let mut seeds = StdRng::seed_from_u64(seed);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS + BATCH_CALLERS {
        let caller = Caller {
            entries: entries.to_vec(),
            random: StdRng::seed_from_u64(seeds.random()),
            gauge: gauge.clone(),
            batch_max,
            record: Record::default(),
        };
        callers.spawn(caller.run(number >= CALLERS));
    }
    let mut record = Record::default();
    for part in callers.join_all().await {
        record.add(part);
    }
    record
}

struct Caller {
    entries: Vec<Channel>,
    random: StdRng,
    gauge: Arc<Gauge>,
    batch_max: usize,
    record: Record,
}

/// How a request ended that will not be sent again.
enum Ended<R> {
    Answered(R),
    Refused(Status),
}

impl Caller {
    async fn run(mut self, batches: bool) -> Record {
        while !self.gauge.stop.load(Relaxed) && self.record.wrong.is_empty() {
            if batches {
                self.pay_many().await;
            } else if self.random.random_ratio(1, 8) && !self.record.paid.is_empty() {
                self.refund().await;
            } else {
                self.pay_one().await;
            }
        }
        self.record
    }

    fn payment(&mut self) -> CreatePaymentRequest {
        let user = |random: &mut StdRng, zone: u64| User(zone * 100 + random.random_range(1..=ZONE_USERS));
        let currency = CURRENCIES[usize::from(self.random.random_ratio(1, 3))];
        loop {
            let zone = self.random.random_range(0..=1);
            let crosses = self.random.random_ratio(2, 3);
            let payer = user(&mut self.random, zone);
            let payee = user(&mut self.random, if crosses { 1 - zone } else { zone });
            if payer.0 == payee.0 || !payer.takes(currency) {
                continue;
            }
            // The ids are drawn too: a seed gives the same requests. Ids of both kinds that callers send.
            let id = uuid::Builder::from_random_bytes(self.random.random()).into_uuid();
            return CreatePaymentRequest {
                request_id: if id.as_u128() & 1 == 0 { id } else { Uuid::now_v7() }.to_string(),
                payer_id: payer.0,
                payee_id: payee.0,
                amount: Some(Money { minor_units: self.random.random_range(1..500), currency_code: currency.to_owned() }),
                ..CreatePaymentRequest::default()
            };
        }
    }

    async fn pay_one(&mut self) {
        let request = self.payment();
        let ended = self
            .until_answered(|entry| {
                let request = timed(request.clone());
                async move { PaymentServiceClient::new(entry).create_payment(request).await }
            })
            .await;
        match ended {
            Ended::Answered(answer) => {
                let payment = answer.payment.unwrap_or_default();
                self.note(&request, payment.payment_id.clone(), payment.status());
                if let Some(position) = answer.position.filter(|_| self.random.random_ratio(1, 4)) {
                    self.read_own_write(request.payer_id, position).await;
                }
            }
            Ended::Refused(status) => self.record.wrong.push(format!("{request:?}: {status}")),
        }
    }

    async fn pay_many(&mut self) {
        let mut open: Vec<_> = (0..self.random.random_range(1..=self.batch_max)).map(|_| self.payment()).collect();
        let until = Instant::now() + UNANSWERED_MAX;
        while !open.is_empty() {
            let payments = open.clone();
            let ended = self
                .until_answered(|entry| {
                    let request = timed(CreatePaymentsRequest { payments: payments.clone() });
                    async move { PaymentServiceClient::new(entry).create_payments(request).await }
                })
                .await;
            let outcomes = match ended {
                Ended::Answered(answer) => answer.outcomes,
                Ended::Refused(status) => return self.record.wrong.push(format!("a batch: {status}")),
            };
            if outcomes.len() != open.len() || Instant::now() > until {
                return self.record.wrong.push(format!("{} of {} outcomes: {outcomes:?}", outcomes.len(), open.len()));
            }
            let mut again = Vec::new();
            for (request, outcome) in open.into_iter().zip(outcomes) {
                match outcome.outcome {
                    Some(Outcome::Receipt(receipt)) => self.note(&request, receipt.payment_id.clone(), receipt.status()),
                    Some(Outcome::Error(error)) if is_worth_another_try(Code::from(error.code)) => again.push(request),
                    other => self.record.wrong.push(format!("{request:?}: {other:?}")),
                }
            }
            if !again.is_empty() {
                self.record.repeated += 1;
                self.pause().await;
            }
            open = again;
        }
    }

    async fn refund(&mut self) {
        let paid = &self.record.paid[self.random.random_range(0..self.record.paid.len())];
        let payee = User(paid.payee);
        // One who cannot pay it back now would leave it pending.
        if paid.declined || payee.is_poor() || !payee.takes(&paid.currency) {
            return;
        }
        let (payment_id, minor) = (paid.payment_id.clone(), self.random.random_range(1..=paid.minor));
        let request = RefundPaymentRequest {
            request_id: Uuid::now_v7().to_string(),
            payment_id: payment_id.clone(),
            amount_minor_units: Some(minor),
        };
        let ended: Ended<RefundPaymentResponse> = self
            .until_answered(|entry| {
                let request = timed(request.clone());
                async move { PaymentServiceClient::new(entry).refund_payment(request).await }
            })
            .await;
        let taken = match ended {
            Ended::Answered(answer) if answer.amount_minor_units == minor => true,
            Ended::Answered(answer) => return self.record.wrong.push(format!("{request:?}: {answer:?}")),
            // Not there yet, or sent back already.
            Ended::Refused(status) if matches!(status.code(), Code::FailedPrecondition | Code::OutOfRange) => false,
            Ended::Refused(status) => return self.record.wrong.push(format!("{request:?}: {status}")),
        };
        self.record.refunded.push(Refunded { payment_id, minor, taken });
    }

    /// Asks any region for an answer that has this write in it. It may not come; an older one must not.
    async fn read_own_write(&mut self, user_id: u64, written: Position) {
        let entry = self.entries[self.random.random_range(0..self.entries.len())].clone();
        let read = ReadOptions { level: ReadLevel::Local.into(), max_staleness_ms: None, at_least: vec![written.clone()] };
        let request = timed(GetBalanceRequest { user_id, read: Some(read) });
        let Ok(answer) = WalletServiceClient::new(entry).get_balance(request).await else { return };
        let GetBalanceResponse { position, source, .. } = answer.into_inner();
        let position = position.unwrap_or_default();
        if (&position.zone, position.shard) != (&written.zone, written.shard) || position.sequence < written.sequence {
            self.record.wrong.push(format!("asked for at least {written:?}, {source:?} answered at {position:?}"));
        }
        self.record.own_writes_read += 1;
        self.record.read_from_copies += u64::from(source.is_some_and(|source| source.region != User(user_id).home()));
    }

    fn note(&mut self, request: &CreatePaymentRequest, payment_id: String, status: PaymentStatus) {
        let Money { minor_units, currency_code } = request.amount.clone().unwrap();
        let declined = status == PaymentStatus::Declined;
        if User(request.payer_id).zone() != User(request.payee_id).zone() && !declined {
            self.gauge.crossed.fetch_add(1, Relaxed);
        }
        self.record.paid.push(Paid {
            payment_id,
            payer: request.payer_id,
            payee: request.payee_id,
            minor: minor_units,
            currency: currency_code,
            declined,
        });
    }

    /// Sends the same request again and again, each time through any region, until something is known of it.
    async fn until_answered<R, F>(&mut self, send: impl Fn(Channel) -> F) -> Ended<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let until = Instant::now() + UNANSWERED_MAX;
        let mut tries = 0_u64;
        loop {
            let entry = self.entries[self.random.random_range(0..self.entries.len())].clone();
            match send(entry).await {
                Ok(answer) => return Ended::Answered(answer.into_inner()),
                Err(status) if !is_worth_another_try(status.code()) => return Ended::Refused(status),
                Err(status) if Instant::now() > until => {
                    return Ended::Refused(Status::aborted(format!("{tries} tries in vain: {status}")));
                }
                Err(_) => {}
            }
            tries += 1;
            self.record.repeated += u64::from(tries == 1);
            self.pause().await;
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(AGAIN_MS))).await;
    }
}

/// Whether the same request may be answered another time: it was not, or nobody knows whether it was taken.
pub(crate) fn is_worth_another_try(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::ResourceExhausted)
}

fn timed<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    request
}
