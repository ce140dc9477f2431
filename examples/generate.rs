//! Makes `examples/payments.csv`: the payments that `paymesh demo` plays.
//!
//! `cargo run -p paymesh --example generate -- [SEED] > examples/payments.csv`. The same seed makes the same file. It does not use
//! any of paymesh's code: it is a caller's file, made by a caller.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Of the committed file.
const SEED_DEFAULT: u64 = 20_251_122;
/// Users at home in the zone `eu`, and as many in `global`.
const USERS_OF_A_ZONE: u64 = 400;
/// Ids of the users in `eu` begin above this, of those in `global` above the other.
const FIRST_USERS: [u64; 2] = [10_000, 20_000];
const COUNTRIES: [&[&str]; 2] = [&["DE", "FR", "NL", "ES", "IT", "PL", "IE"], &["US", "CA", "JP", "AU", "SG", "BR"]];
const REGIONS: [&str; 4] = ["us_east", "us_west", "eu_west", "asia_pacific"];
/// Digits after the point.
const CURRENCIES: [(&str, u32); 3] = [("EUR", 2), ("USD", 2), ("JPY", 0)];
/// Whole units of each currency that everyone begins with.
const OPENING: u64 = 50_000;
const PAYMENTS: u64 = 10_500;
const WITHDRAWALS: u64 = 300;
/// Of a hundred payments, those to a user of the other zone.
const ACROSS_PERCENT: u32 = 15;
/// One payment of so many asks for far more than the payer has, and is declined.
const TOO_MUCH_ONE_IN: u32 = 200;
const REASONS: [&str; 6] = ["rent", "groceries", "ticket", "dinner", "invoice", "refund of a loan"];

fn main() -> io::Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(SEED_DEFAULT);
    print_seed(seed)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut file = BufWriter::new(io::stdout().lock());
    writeln!(file, "id,kind,user,counterparty,amount,currency,country,via,reference")?;

    let users: [Vec<u64>; 2] = FIRST_USERS.map(|first| (first + 1..=first + USERS_OF_A_ZONE).collect());
    for (zone, users) in users.iter().enumerate() {
        for user in users {
            let country = COUNTRIES[zone].choose(&mut random).unwrap_or(&"DE");
            writeln!(file, "e{user},enrol,{user},,,EUR;USD;JPY,{country},{},", region(&mut random))?;
            for (currency, _) in CURRENCIES {
                writeln!(file, "d{user}{currency},deposit,{user},,{OPENING},{currency},,{},opening balance", region(&mut random))?;
            }
        }
    }

    let every = PAYMENTS / WITHDRAWALS;
    for number in 1..=PAYMENTS {
        let zone = usize::from(random.random_bool(0.5));
        let across = random.random_ratio(ACROSS_PERCENT, 100);
        let payee_zone = if across { 1 - zone } else { zone };
        let payer = users[zone].choose(&mut random).copied().unwrap_or_default();
        let payee = loop {
            let payee = users[payee_zone].choose(&mut random).copied().unwrap_or_default();
            if payee != payer {
                break payee;
            }
        };
        let (currency, digits) = CURRENCIES[random.random_range(0..CURRENCIES.len())];
        let whole: u64 = if random.random_ratio(1, TOO_MUCH_ONE_IN) { 5_000_000 } else { random.random_range(1..200) };
        let amount = match digits {
            0 => whole.to_string(),
            _ => format!("{whole}.{:02}", random.random_range(0..100)),
        };
        let kind = if random.random_ratio(1, 10) { "transfer" } else { "payment" };
        let reason = REASONS.choose(&mut random).unwrap_or(&"");
        writeln!(file, "p{number},{kind},{payer},{payee},{amount},{currency},,{},{reason} {number}", region(&mut random))?;
        if number % every == 0 {
            let user = users[zone].choose(&mut random).copied().unwrap_or_default();
            writeln!(file, "w{number},withdrawal,{user},,{}.00,EUR,,{},cash", random.random_range(1..50), region(&mut random))?;
        }
    }
    file.flush()
}

/// One line in twenty leaves the region to the client.
fn region(random: &mut StdRng) -> &'static str {
    if random.random_ratio(1, 20) { "" } else { REGIONS[random.random_range(0..REGIONS.len())] }
}

fn print_seed(seed: u64) -> io::Result<()> {
    writeln!(io::stderr(), "seed {seed}")
}
