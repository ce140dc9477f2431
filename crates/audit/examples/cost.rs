//! What a record costs: the thread that hands it over, the disk, and who waits until it is durable.
//!
//! `cargo run --release -p paymesh-audit --example cost -- DIRECTORY`, the directory on the disk that is to be measured.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::float_arithmetic, reason = "a measurement prints figures")]

use std::{
    env,
    error::Error,
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use paymesh_audit::{Caller, Log, Outcome, Record, Settings, Token};
use paymesh_contract::policies;
use paymesh_types::{Sequence, Timestamp, UserId};
use tonic::Code;

/// All at once: what the writer can do.
const RECORDS: u64 = 200_000;
/// So many every so often, as a busy node has them: what a call pays.
const BURST: u64 = 500;
const BURSTS: u64 = 100;
const BURST_EVERY: Duration = Duration::from_millis(25);
const WAITERS: u64 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).map(PathBuf::from).ok_or("name a directory on the disk to be measured")?;
    fs::create_dir_all(&directory)?;
    let directory = directory.join(format!("audit-cost-{}", std::process::id()));
    let clock = Arc::new(|| Timestamp(1));
    let settings = Settings { records_max: RECORDS as usize + 1_000, ..Settings::new("test", "eu_west".parse()?, "1", clock) };
    let (log, writer) = Log::open(directory.join("audit"), settings.clone());
    let writing = thread::spawn(move || writer.run());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(log.settled());

    let token = Arc::new(Token { principal: "checkout".into(), issuer: "https://issuer.example".into(), id: "0190b8f5-0000-7000".into() });
    let record = |number: u64| -> Result<Record, Box<dyn Error>> {
        let method = policies().method("/paymesh.payments.v1.PaymentService/CreatePayment");
        let mut record = Record::new(Timestamp(1_764_180_000_000_000 + number), Caller::Token(token.clone()), method);
        record.entry_region = Some(settings.region.clone());
        record.peer = Some("10.0.0.7:51234".parse()?);
        record.subjects.add_user(UserId::try_from(4_100 + number)?);
        record.request_id = Some("0190b8f5-0000-7000-8000-000000000001".parse()?);
        Ok(record)
    };
    // Made before, so that what is measured is the log's part.
    let records = (0..RECORDS).map(record).collect::<Result<Vec<_>, _>>()?;
    let outcome = Outcome::new(Code::Ok, "", Duration::from_micros(950));
    let began = Instant::now();
    for record in records {
        log.reserve(record)?.record(outcome.clone());
    }
    let handing_over = began.elapsed();
    let mut state = log.watch();
    runtime.block_on(state.wait_for(|state| state.head.sequence >= Sequence(RECORDS + 2)))?;
    let all = began.elapsed();
    let bytes: u64 = fs::read_dir(directory.join("audit/chain-00001"))?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    let in_a_second = RECORDS as f64 / all.as_secs_f64();
    println!("a record: {} bytes on disk; the writer makes {in_a_second:.0} of them durable in a second", bytes / RECORDS);
    let mut bursts = Vec::new();
    for _ in 0..BURSTS {
        let records = (0..BURST).map(record).collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        for record in records {
            log.reserve(record)?.record(outcome.clone());
        }
        bursts.push(began.elapsed().as_nanos() / u128::from(BURST));
        thread::sleep(BURST_EVERY);
    }
    bursts.sort_unstable();
    let [fast, usual] = [10, 50].map(|percent| bursts[bursts.len() * percent / 100]);
    let flood = handing_over.as_nanos() / u128::from(RECORDS);
    println!("a slot, and handing a record over: {usual} ns (p50), {fast} ns (p10); {flood} ns where {RECORDS} come at once");

    let wait = |pause: Duration| -> Result<[Duration; 3], Box<dyn Error>> {
        let mut waits = Vec::new();
        for number in 0..WAITERS {
            let slot = log.reserve(record(number)?)?;
            let began = Instant::now();
            runtime.block_on(slot.record_durably(outcome.clone()))?;
            waits.push(began.elapsed());
            thread::sleep(pause);
        }
        waits.sort();
        Ok([50, 95, 99].map(|percent| waits[waits.len() * percent / 100]))
    };
    let [half, most, nearly_all] = wait(Duration::from_millis(3))?;
    println!("waiting until it is durable: {half:.1?} (p50), {most:.1?} (p95), {nearly_all:.1?} (p99)");

    let mut unsynced = Vec::new();
    for number in 0..100 {
        let before = log.state().head.sequence;
        let began = Instant::now();
        log.reserve(record(number)?)?.record(outcome.clone());
        runtime.block_on(state.wait_for(|state| state.head.sequence > before))?;
        unsynced.push(began.elapsed());
    }
    unsynced.sort();
    println!("not waiting, it is durable after {:.1?} (p50), {:.1?} (p99)", unsynced[50], unsynced[99]);
    let began = Instant::now();
    let report = log.verify(Sequence(0), |_, _| {})?;
    println!("verifying {} records: {:.2?}, {} wrong", report.last, began.elapsed(), report.damages.len());
    runtime.block_on(log.close());
    writing.join().map_err(|_| "the writer died")??;
    fs::remove_dir_all(&directory)?;
    Ok(())
}
