//! decide and apply alone: what the state machine costs before anything is stored or sent.
//!
//! One shard, in this process and on one thread. A batch is made first; the clock then runs over what a shard does with it
//! in memory: note what is missing, take it in (no tables: unknown request ids are new), decide, apply, and let go of
//! what is no longer needed.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use paymesh_ledger::{Body, Command, Context, CreatePayment, Decision, Missing, Records, Request, State, decide};
use paymesh_types::{Country, Currency, Epoch, Money, Position, RequestId, Sequence, ShardRef, Timestamp, UserId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Builder;

use crate::{
    lab::Lab,
    load::{CURRENCY, DEPOSIT_MINOR, FIRST_USER, PAYMENT_MINOR_MAX, Payees},
    report::Run,
    sample::{Process, load_average, thread_cpu_seconds},
};

/// Payments decided between two looks at what may leave memory.
const BATCH: usize = 8_192;

/// Records that stay in memory for each account: the wallet itself and some room.
const RECORDS_PER_ACCOUNT: usize = 4;

/// Records that stay in memory at least.
const RECORDS_MIN: usize = 65_536;

/// Rate with a hot payee against the rate without: only told, the bar is the node's.
pub(crate) fn run(lab: &mut Lab) -> anyhow::Result<()> {
    for accounts in [Some(lab.common.few()), lab.common.many()].into_iter().flatten() {
        let case = format!("1 shard, {accounts} accounts");
        let mut books = Books::open(accounts, lab.common.seed)?;
        let mut ratios = Vec::new();
        for round in 1..=lab.common.rounds {
            let uniform = books.measure(lab, &case, Payees::Uniform, round)?;
            let hot = books.measure(lab, &case, Payees::Hot, round)?;
            ratios.push(hot / uniform);
        }
        lab.report.ratio(&format!("hot payee / uniform, ledger, {case}"), ratios);
    }
    Ok(())
}

struct Books {
    state: State,
    rng: StdRng,
    users: Vec<UserId>,
    currency: Currency,
    keep: usize,
    next: Position,
    now: Timestamp,
}

impl Books {
    fn open(accounts: u64, seed: u64) -> anyhow::Result<Self> {
        let shard = ShardRef { zone: "eu".parse()?, index: 0 };
        let users: Vec<UserId> = (FIRST_USER..FIRST_USER + accounts).map(UserId::try_from).collect::<Result<_, _>>()?;
        let mut books = Self {
            state: State::new(shard.clone()),
            rng: StdRng::seed_from_u64(seed),
            currency: Currency::from_code(CURRENCY)?,
            keep: (users.len() * RECORDS_PER_ACCOUNT).max(RECORDS_MIN),
            users,
            next: Position { shard, epoch: Epoch(1), sequence: Sequence(1) },
            now: Timestamp(1_700_000_000_000_000),
        };
        let country: Country = "DE".parse()?;
        let money = Money::new(DEPOSIT_MINOR, books.currency).context("the deposit is an amount")?;
        for user in books.users.clone() {
            let currencies = [books.currency].into_iter().collect();
            let enrol = Command::EnrollUser { user, country, currencies };
            let deposit = Command::Deposit { user, money, reference: String::new() };
            let requests = [books.request(enrol)?, books.request(deposit)?];
            books.book(&requests)?;
        }
        Ok(books)
    }

    fn measure(&mut self, lab: &mut Lab, case: &str, payees: Payees, round: usize) -> anyhow::Result<f64> {
        let load_before = load_average();
        let (mut busy, mut cpu_seconds, mut booked) = (Duration::ZERO, 0.0, 0_u64);
        while busy < Duration::from_millis(lab.common.measure_ms()) {
            let batch = self.batch(payees)?;
            let (began, cpu_before) = (Instant::now(), thread_cpu_seconds()?);
            self.book(black_box(&batch))?;
            cpu_seconds += thread_cpu_seconds()? - cpu_before;
            busy += began.elapsed();
            booked += batch.len() as u64;
        }
        let (seconds, process) = (busy.as_secs_f64(), Process::of("self")?);
        let rate = booked as f64 / seconds;
        eprintln!("{case}, ledger, {payees:?}, round {round}: {rate:.0}/s");
        lab.report.runs.push(Run {
            case: case.to_owned(),
            side: "ledger".to_owned(),
            load: format!("batch {BATCH}"),
            payees,
            round,
            answered: booked,
            rate,
            sustained: rate,
            p50_us: 0,
            p99_us: 0,
            max_us: 0,
            drain_ms: None,
            cpu_seconds,
            cpu_seconds_per_million: cpu_seconds * 1e6 / booked as f64,
            client_cpu_seconds: 0.0,
            peak_bytes: process.peak_bytes,
            threads: 1,
            journal_bytes_per_payment: 0.0,
            disk_bytes_per_payment: 0.0,
            load_before,
            load_after: load_average(),
        });
        Ok(rate)
    }

    fn request(&mut self, command: Command) -> anyhow::Result<Request> {
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        let id = Builder::from_unix_timestamp_millis(self.now.0 / 1_000, &random).into_uuid();
        Ok(Request { id: Some(RequestId::try_from(id)?), command })
    }

    fn batch(&mut self, payees: Payees) -> anyhow::Result<Vec<Request>> {
        (0..BATCH)
            .map(|_| {
                let payer = self.rng.random_range(1..self.users.len());
                let hot = payees == Payees::Hot && self.rng.random();
                let other = self.rng.random_range(0..self.users.len() - 1);
                let payee = if hot { 0 } else { other + usize::from(other >= payer) };
                let minor = self.rng.random_range(1..=PAYMENT_MINOR_MAX);
                self.request(Command::CreatePayment(CreatePayment {
                    payer: self.users[payer],
                    payee: self.users[payee],
                    payee_shard: None,
                    money: Money::new(minor, self.currency).context("payments are amounts")?,
                    hold_s: 0,
                    reference: String::new(),
                    card: None,
                }))
            })
            .collect()
    }

    /// What a shard does with a batch in memory.
    fn book(&mut self, batch: &[Request]) -> anyhow::Result<()> {
        let mut missing = Missing::default();
        for request in batch {
            self.state.missing(request, &mut missing);
        }
        self.state.load(&missing, Records::default());
        for request in batch {
            self.now = Timestamp(self.now.0 + 1);
            let context = Context { now: self.now, epoch: self.next.epoch, next: self.next.sequence };
            let Decision::New(entry) = decide(&self.state, context, request)? else { bail!("a request id came twice") };
            if let Body::PaymentCreated(payment) = &entry.body {
                ensure!(payment.declined.is_none(), "a payment was declined: {:?}", payment.declined);
            }
            self.state.apply(&self.next, &entry)?;
            self.next.sequence = self.next.sequence.next();
        }
        self.state.evict(Sequence(self.next.sequence.0 - 1), self.keep);
        Ok(())
    }
}
