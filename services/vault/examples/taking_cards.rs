//! What it costs to take cards in: `cargo run --release -p paymesh-vault --example taking_cards -- DIRECTORY`, the directory on the disk that is to be measured.
//!
//! Cards of users who have some, one at a time and 64 at once; the same sealed, which is done before anything is measured; first cards of users, who need a key; and 64 at
//! once while every key is wrapped anew. The sides take turns, and ratios are of medians.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::float_arithmetic, reason = "a measurement prints figures")]

use std::{
    env,
    error::Error,
    fs,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_client::{VaultKey, seal};
use paymesh_contract::vault::v1::{GetVaultKeyResponse, SealedCard};
use paymesh_types::{Timestamp, UserId, ZoneName};
use paymesh_vault::{Offered, Vault, keys::FileKeys, store::SqliteStore};
use uuid::Uuid;

const ROUNDS: usize = 3;
/// Users who have cards before anything is measured.
const USERS: u64 = 2_000;
const AT_ONCE: u64 = 64;
const CARDS: u64 = 10_000;
const CARDS_ALONE: u64 = 1_000;

type Failure = Box<dyn Error + Send + Sync>;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// A number that belongs to nobody, another for each `seed` below 10^9.
fn card(seed: u64) -> Result<Card, Failure> {
    let number = (0..10).find_map(|check| CardNumber::parse(&format!("400000{seed:09}{check}")).ok());
    Ok(Card { number: number.ok_or("one of ten digits fits")?, expiry: Expiry::new(12, 2045)? })
}

/// How cards are offered.
#[derive(Clone, Copy)]
enum How {
    Clear,
    Sealed,
}

/// Takes in the cards of these numbers, so many at once; gives the cards a second, and the processor time of each in microseconds, which says more where others use the
/// processors too.
async fn take_in(vault: &Vault, seeds: Range<u64>, at_once: u64, how: How, user: fn(u64) -> u64) -> Result<[f64; 2], Failure> {
    let count = seeds.end - seeds.start;
    // Sealed where they are typed in, which is elsewhere.
    let key = vault.sealing_key().await?;
    let told =
        GetVaultKeyResponse { key_id: key.id, public_key: key.public, zone: vault.zone().to_string(), ..GetVaultKeyResponse::default() };
    let mut lanes: Vec<Vec<(u64, Offered)>> = (0..at_once).map(|_| Vec::new()).collect();
    for (seed, lane) in seeds.zip((0..usize::try_from(at_once)?).cycle()) {
        let offered = match how {
            How::Clear => Offered::Clear(card(seed)?),
            How::Sealed => {
                let SealedCard { key_id, encapsulated_key, ciphertext } = seal(&card(seed)?, &VaultKey::unproven(user(seed), &told)?)?;
                Offered::Sealed(paymesh_vault::SealedCard { key_id, encapsulated: encapsulated_key, ciphertext })
            }
        };
        lanes[lane].push((user(seed), offered));
    }
    let (began, cpu_before) = (Instant::now(), cpu_seconds()?);
    let lanes = lanes.into_iter().map(|cards| {
        let vault = vault.clone();
        tokio::spawn(async move {
            for (user, offered) in cards {
                vault.tokenize(Uuid::now_v7().try_into()?, UserId::try_from(user)?, offered).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await??;
    }
    let count = count as f64;
    Ok([count / began.elapsed().as_secs_f64(), (cpu_seconds()? - cpu_before) * 1e6 / count])
}

/// Processor time of this process until now, in seconds.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or("proc(5) says otherwise");
    // utime and stime, in hundredths.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = env::args_os().nth(1).map(PathBuf::from).ok_or("name a directory on the disk to be measured")?;
    let directory = directory.join(format!("vault-cost-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let zone: ZoneName = "eu".parse()?;
    let keys = FileKeys::open(&directory.join("keys"), "cost", &zone)?;
    let store = SqliteStore::open(&directory.join("data"), "cost", &zone).await?;
    let vault = Vault::open(zone, Arc::new(store), Arc::new(keys), Arc::new(now)).await?;
    let (of_known, of_new) = (|seed: u64| 1 + seed % USERS, |seed: u64| 1_000_000 + seed);
    take_in(&vault, 0..USERS, AT_ONCE, How::Clear, of_known).await?;
    let mut seed = USERS;
    let mut seeds = |count: u64| {
        seed += count;
        seed - count..seed
    };
    let mut measured = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        measured[0].push(take_in(&vault, seeds(CARDS_ALONE), 1, How::Clear, of_known).await?);
        measured[1].push(take_in(&vault, seeds(CARDS), AT_ONCE, How::Clear, of_known).await?);
        measured[2].push(take_in(&vault, seeds(CARDS), AT_ONCE, How::Sealed, of_known).await?);
        measured[3].push(take_in(&vault, seeds(CARDS), AT_ONCE, How::Clear, of_new).await?);
        let rotation = tokio::spawn({
            let vault = vault.clone();
            async move {
                let began = Instant::now();
                vault.rotate().await.map(|rotated| (rotated.rewrapped, began.elapsed()))
            }
        });
        measured[4].push(take_in(&vault, seeds(CARDS), AT_ONCE, How::Clear, of_known).await?);
        let (rewrapped, took) = rotation.await??;
        println!("{rewrapped} keys wrapped anew in {took:.1?}");
    }
    let names = [
        "one at a time",
        "64 at once",
        "64 at once, sealed",
        "64 at once, first cards of users",
        "64 at once, while keys are wrapped anew",
    ];
    for (name, measured) in names.iter().zip(&measured) {
        let (rates, cpu): (Vec<f64>, Vec<f64>) = measured.iter().map(|[rate, cpu]| (*rate, *cpu)).unzip();
        println!("{name:<40} cards a second {rates:>8.0?}, processor time of a card, us {cpu:>6.0?}");
    }
    let [alone, together, sealed, new, rotating] = measured.map(|measured| median(measured.iter().map(|[rate, _]| *rate).collect()));
    println!(
        "64 at once / one {:.1}; sealed / clear {:.2}; first cards / others {:.2}; while keys are wrapped / not {:.2}",
        together / alone,
        sealed / together,
        new / together,
        rotating / together
    );
    fs::remove_dir_all(&directory)?;
    Ok(())
}
