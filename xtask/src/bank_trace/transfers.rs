//! The other end of a trace's transfers: users who stand for the accounts at other banks.
//!
//! Each lives in the zone in which the account is not, so every transfer crosses a border, and the ocean between two homes. It starts
//! with all that it will ever pay. An account at another bank that deals with accounts of both zones is two users.
//!
//! Money that comes in arrives a while after it was sent, and the trace's next row may need it. So the rows are parted into
//! waves: those of an account up to and with a transfer that comes in are one, and the next begins when everything has arrived.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use anyhow::{Context, Result, ensure};

use super::{AMOUNT_MINOR_MAX, COUNTRIES, CURRENCY, SUBMIT_HEADER, Trace, decimal, place, place_in, write_opening, write_user, zone};

/// The first id of these users. Accounts have lower ones.
pub(super) const COUNTER_USERS_FROM: u64 = 1 << 62;

/// A user who stands for an account at another bank.
#[derive(Debug)]
pub struct Counter {
    zone: usize,
    /// All that it pays, in haléře: what it starts with.
    pub pays: i64,
    /// All that it gets, in haléře: what it ends with.
    pub gets: i64,
    /// Transfers from it and to it.
    pub transfers: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    users: BTreeMap<u64, Counter>,
    /// By bank, number there, and zone.
    ids: HashMap<(String, String, usize), u64>,
}

impl Counters {
    /// Notes a transfer with an account. `minor`: what it brings the other end, in haléře; negative when that pays. Returns the user.
    pub(super) fn note(&mut self, bank: &str, number: &str, account: u64, minor: i64) -> Result<u64> {
        let zone = (zone(account) + 1) % COUNTRIES.len();
        let next = COUNTER_USERS_FROM + self.users.len() as u64;
        let id = *self.ids.entry((bank.to_owned(), number.to_owned(), zone)).or_insert(next);
        let counter = self.users.entry(id).or_insert(Counter { zone, pays: 0, gets: 0, transfers: 0 });
        let total = if minor < 0 { &mut counter.pays } else { &mut counter.gets };
        // Does not overflow: both are within the bound.
        *total += minor.abs();
        ensure!(*total <= AMOUNT_MINOR_MAX, "all transfers of {number} pass the bound of {} {CURRENCY}", decimal(AMOUNT_MINOR_MAX));
        counter.transfers += 1;
        Ok(id)
    }
}

impl Trace {
    /// The users who stand for accounts at other banks.
    pub fn counters(&self) -> &BTreeMap<u64, Counter> {
        &self.counters.users
    }

    /// How many waves there are.
    pub fn waves(&self) -> usize {
        self.movements.iter().map(|movement| movement.wave + 1).max().unwrap_or(1)
    }

    /// Writes the submit file of a wave, with transfers as payments. The first also enrols everybody. Each is to be submitted when
    /// everything from the one before has arrived.
    ///
    /// # Errors
    ///
    /// Those of `output`.
    pub fn write_wave(&self, wave: usize, output: impl Write) -> Result<()> {
        let mut writer = csv::Writer::from_writer(output);
        writer.write_record(SUBMIT_HEADER)?;
        if wave == 0 {
            self.write_accounts(&mut writer)?;
            for (&id, counter) in self.counters() {
                let (country, via) = place_in(counter.zone, id);
                write_user(&mut writer, id, country, via)?;
                if counter.pays > 0 {
                    write_opening(&mut writer, id, counter.pays, via, "all that it will pay")?;
                }
            }
        }
        for movement in self.movements.iter().filter(|movement| movement.wave == wave) {
            let Some(counter) = movement.counter else {
                movement.write(&mut writer)?;
                continue;
            };
            let ends = if movement.amount > 0 { [counter, movement.account] } else { [movement.account, counter] };
            let [payer, payee] = ends.map(|user| user.to_string());
            let (line, amount) = (format!("txn-{}", movement.txn_id), decimal(movement.amount.abs()).to_string());
            let (_, via) = place(movement.account);
            writer.write_record([&line, "payment", &payer, &payee, &amount, CURRENCY, "", via, &movement.reference])?;
        }
        writer.flush().context("the submit file cannot be written")
    }
}
