//! How good the shipped rules are, on payments that were made up (`generator.rs` says how), and how fast a score is made.
//!
//! `cargo run --release -p paymesh-fraud-detection --example measure [-- [--seed N] [BANK_TRACE.csv]]`
//!
//! Prints precision and recall at the zone's threshold, each pattern's recall, the same for what is reviewed or declined; scores in a second by one thread, without
//! gRPC and without a store; what it takes to know as many users as may be known; and the same through a whole detector with its store, 64 at once, without gRPC. With a file of a bank's real payments (seq,date,txn_id,account_id,operation,amount_czk,...,counter_account; days without
//! times, not labelled) it prints how many of them would be declined and reviewed: of payments that nobody complained of, nearly all wrongly.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a measurement prints what it measured")]

mod generator;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use generator::{Label, WARM_UP_DAYS, generate};
use paymesh_cache::InProcess;
use paymesh_fraud_detection::{
    Detector, Error, Parts, Store,
    memory::{KEYS_MAX, Memory, Payment, device_hash},
    score::{Code, Decision, score},
};
use paymesh_topology::{Fraud, Topology};
use paymesh_types::{Currency, Money, RequestId, Timestamp, UserId, ZoneName};
use tokio::sync::watch;
use uuid::Uuid;

type Any = Box<dyn std::error::Error>;

const SEED: u64 = 7;
/// Payments that go through a whole detector, and how many at once.
const THROUGH: usize = 100_000;
const AT_ONCE: usize = 64;

fn main() -> Result<(), Any> {
    let (mut seed, mut trace) = (SEED, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => seed = args.next().ok_or("--seed needs a number")?.parse()?,
            file => trace = Some(PathBuf::from(file)),
        }
    }
    let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    let topology = Topology::load(&config)?;
    let rules = Fraud::load(&config, &topology)?.ok_or("there are no rules")?;
    let zone: ZoneName = "global".parse()?;
    println!("rules {}, zone {zone}, seed {seed}", rules.version());
    labelled(&rules, &zone, seed);
    speed(&rules, &zone, seed);
    full(&rules)?;
    tokio::runtime::Runtime::new()?.block_on(through(&rules, &zone, seed))?;
    if let Some(file) = trace {
        bank(&rules, &zone, &file)?;
    }
    Ok(())
}

fn decide(memory: &mut Memory, rules: &Fraud, zone: &ZoneName, payment: &Payment) -> (Decision, Vec<Code>) {
    let scored = score(rules, rules.policy(zone), &memory.facts(rules, payment));
    memory.learn(&payment.seen(rules.to_reference(payment.amount), scored.decision != Decision::Decline));
    (scored.decision, scored.reasons.iter().map(|reason| reason.code).collect())
}

/// Of a hundred, with one digit after the point.
fn percent(part: u64, all: u64) -> String {
    let permille = (part * 1_000 + all / 2).checked_div(all).unwrap_or(0);
    format!("{}.{}%", permille / 10, permille % 10)
}

fn labelled(rules: &Fraud, zone: &ZoneName, seed: u64) {
    let mut memory = Memory::default();
    let mut by_label: BTreeMap<Label, [u64; 3]> = BTreeMap::new();
    for labelled in generate(seed) {
        let (decision, _) = decide(&mut memory, rules, zone, &labelled.payment);
        if labelled.measured {
            by_label.entry(labelled.label).or_default()[decision as usize] += 1;
        }
    }
    let of = |label: &Label| by_label.get(label).copied().unwrap_or_default();
    let all = |[accepted, reviewed, declined]: [u64; 3]| accepted + reviewed + declined;
    let (honest, fraud) =
        (of(&Label::Honest), Label::FRAUD.iter().map(of).fold([0; 3], |sum, one| std::array::from_fn(|at| sum[at] + one[at])));
    println!("payments after {WARM_UP_DAYS} days: {} honest, {} fraud", all(honest), all(fraud));
    for (what, from) in [("declined", 2), ("declined or reviewed", 1)] {
        let hits = |counts: [u64; 3]| counts[from..].iter().sum::<u64>();
        let (caught, wrong) = (hits(fraud), hits(honest));
        println!(
            "{what}: precision {}, recall {}, of honest payments {}",
            percent(caught, caught + wrong),
            percent(caught, all(fraud)),
            percent(wrong, all(honest))
        );
    }
    for label in Label::FRAUD {
        let counts = of(&label);
        println!(
            "  {label:?}: {} payments, {} declined, {} more reviewed",
            all(counts),
            percent(counts[2], all(counts)),
            percent(counts[1], all(counts))
        );
    }
}

fn speed(rules: &Fraud, zone: &ZoneName, seed: u64) {
    let payments = generate(seed);
    let mut memory = Memory::default();
    let begun = Instant::now();
    for labelled in &payments {
        decide(&mut memory, rules, zone, &labelled.payment);
    }
    let took = begun.elapsed();
    let each = took.as_nanos() / u128::try_from(payments.len().max(1)).unwrap_or(1);
    println!("speed: {} scores in {} ms by one thread, {} a second", payments.len(), took.as_millis(), 1_000_000_000 / each.max(1));
}

/// What it takes to know as many users as may be known, each by eight payments with a card and a device of its own, of the last month.
fn full(rules: &Fraud) -> Result<(), Any> {
    let before = resident_kib()?;
    let mut memory = Memory::default();
    let template = generate(SEED).into_iter().map(|labelled| labelled.payment).next().ok_or("there are payments")?;
    let users = 2 * u64::try_from(KEYS_MAX)?;
    for number in 0..8 * users {
        let (user, round) = (number % users + 1, number / users);
        let key = |kind: u64| device_hash(&format!("{kind} {user}"));
        let payment = Payment {
            at: template.at.plus_seconds(round * 3 * 86_400 + number % 3_600),
            payer: UserId::try_from(user)?,
            payee: UserId::try_from(1 + (user * 7 + round) % 100_000)?,
            card: Some(key(1)),
            device: Some(key(2)),
            ..template.clone()
        };
        memory.learn(&payment.seen(rules.to_reference(payment.amount), true));
    }
    println!("memory: {users} users with a card, a device and eight payments each take {} MiB", (resident_kib()? - before) / 1024);
    drop(memory);
    Ok(())
}

fn resident_kib() -> Result<u64, Any> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the system does not say")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The same through a detector, with its queue, thread and store; and how long a start learns from what it has recorded.
async fn through(rules: &Fraud, zone: &ZoneName, seed: u64) -> Result<(), Any> {
    let directory = tempfile::tempdir()?;
    let (_rules, current) = watch::channel(Some(Arc::new(rules.clone())));
    let open = async || -> Result<_, Any> {
        let store = Store::open(directory.path(), "measure", zone, &"us_east".parse()?).await?;
        let cache = Arc::new(InProcess::new(64 << 20));
        let (zone, rules) = (zone.clone(), current.clone());
        let begun = Instant::now();
        let (detector, tending) = Detector::open(Parts { zone, store: store.clone(), cache, rules, clock: Arc::new(now) }).await?;
        let took = begun.elapsed();
        // The number of the last is how many there are.
        Ok((detector, tokio::spawn(tending.tend(|_| {})), took, store.before_last(0).await?))
    };
    let (detector, tending, _, _) = open().await?;
    let payments: Arc<Vec<Payment>> = Arc::new(generate(seed).into_iter().map(|labelled| labelled.payment).collect());
    let begun = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let (detector, payments) = (detector.clone(), payments.clone());
        callers.spawn(async move {
            for number in (first..THROUGH).step_by(AT_ONCE) {
                let request = RequestId::try_from(Uuid::now_v7()).map_err(|_| Error::Died)?;
                detector.score(request, [7; 32], payments[number % payments.len()].clone()).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let took = begun.elapsed();
    // Where too much waits, this is refused: asked again until it is not.
    while !detector.flush().await {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    println!(
        "through a detector: {THROUGH} scores, {AT_ONCE} at once, in {} ms, {} a second; what is recorded is {} ms after the last",
        took.as_millis(),
        THROUGH as u128 * 1_000 / took.as_millis().max(1),
        (begun.elapsed() - took).as_millis()
    );
    tending.abort();
    drop(detector);
    let (_detector, _tending, learnt, records) = open().await?;
    println!("of {THROUGH} scores {records} were recorded; a start learns from them in {} ms", learnt.as_millis());
    Ok(())
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

/// Payments that left an account of a bank, each at noon of its day, in order.
fn bank(rules: &Fraud, zone: &ZoneName, file: &std::path::Path) -> Result<(), Any> {
    let mut memory = Memory::default();
    let (mut counts, mut reasons) = ([0_u64; 3], BTreeMap::<String, u64>::new());
    let mut records = csv::Reader::from_path(file)?;
    let column = |headers: &csv::StringRecord, name: &str| headers.iter().position(|header| header == name).ok_or(format!("no {name}"));
    let headers = records.headers()?.clone();
    let (date, account, operation) = (column(&headers, "date")?, column(&headers, "account_id")?, column(&headers, "operation")?);
    let (amount, counter) = (column(&headers, "amount_czk")?, column(&headers, "counter_account")?);
    for (number, record) in records.records().enumerate() {
        let record = record?;
        // What customers pay: neither what comes in, nor the bank's own interest and fees.
        if !matches!(&record[operation], "transfer_to_bank" | "cash_withdrawal" | "card_withdrawal") {
            continue;
        }
        let payee: u64 = record[counter].parse().unwrap_or(1);
        let Ok(minor) = Money::parse(record[amount].trim_start_matches('-'), Currency::from_code("CZK")?) else { continue };
        let payment = Payment {
            at: Timestamp((noon(&record[date])? + u64::try_from(number)? % 3_600) * 1_000_000),
            payer: UserId::try_from(1_000_000_000 + record[account].parse::<u64>()?)?,
            payee: UserId::try_from(payee.max(1))?,
            amount: minor,
            card: None,
            bin: None,
            card_country: None,
            // Nothing is known of devices: everybody's own.
            device: Some(device_hash(&record[account])),
            region: "us_east".parse()?,
            enters_abroad: false,
            residence: None,
        };
        let (decision, codes) = decide(&mut memory, rules, zone, &payment);
        counts[decision as usize] += 1;
        if decision != Decision::Accept {
            codes.iter().for_each(|code| *reasons.entry(format!("{code:?}")).or_default() += 1);
        }
    }
    let all: u64 = counts.iter().sum();
    println!("bank: {all} real payments, {} declined, {} reviewed", percent(counts[2], all), percent(counts[1], all));
    println!("  reasons of those: {reasons:?}");
    Ok(())
}

/// The seconds since 1970 at noon of a day that is written YYYY-MM-DD (days from civil, Howard Hinnant's algorithm).
fn noon(date: &str) -> Result<u64, Any> {
    let mut parts = date.split('-').map(str::parse::<u64>);
    let mut next = || parts.next().ok_or("a date has three parts").map_err(Any::from)?.map_err(Any::from);
    let (year, month, day) = (next()?, next()?, next()?);
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    Ok((year / 400 * 146_097 + of_era - 719_468) * 86_400 + 43_200)
}
