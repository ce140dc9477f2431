//! Turns a bank's trace of transactions into a file for `paymesh submit`, and says what every account's statement must
//! read afterwards.
//!
//! Promises: no floats; the same trace makes the same file, byte for byte; the order of an account's rows is kept; what
//! cannot be understood is an error that names the line. Running the file and reading the statements is left to
//! `play-trace`.
//!
//! A trace is CSV with the header `seq,date,txn_id,account_id,operation,amount_czk,balance_after_czk,bank,counter_account`
//! (columns in any order). The amount's sign says whether money came or went; the operation's name is only carried along.
//!
//! A transfer's row names the account at the other end, which the bank does not keep. Either the row is a deposit or a withdrawal
//! like all others ([`Trace::write_submit`]), or that account is a user too, who lives in the other zone, and the row a payment
//! between the two ([`Trace::write_wave`], and `transfers` for how).
//!
//! Two things a bank's trace may hold and the mesh's wallets do not are bridged by one deposit before an account's first row:
//! a balance from before the trace began, and a balance below zero later on (the *cover*: as much as the account was ever
//! overdrawn). The running balances of such an account are higher than the bank's by its cover, by nothing else.

mod transfers;

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rust_decimal::Decimal;

pub use transfers::Counter;
use transfers::{COUNTER_USERS_FROM, Counters};

/// The currency of every trace.
pub const CURRENCY: &str = "CZK";

/// Digits after the point of [`CURRENCY`].
const CURRENCY_EXPONENT: u32 = 2;

/// The mesh's bound of an amount or balance, in minor units.
const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// The mesh's bound of a reference.
const REFERENCE_BYTES_MAX: usize = 140;

/// The bound of a transaction's own id: with its prefix it is an `id` of the submit file (at most 64 characters).
const TXN_ID_CHARS_MAX: usize = 56;

/// The columns that are read.
const COLUMNS: [&str; 9] =
    ["seq", "date", "txn_id", "account_id", "operation", "amount_czk", "balance_after_czk", "bank", "counter_account"];

/// The operations that the first trace holds. Others are taken too, and counted.
const OPERATIONS_KNOWN: [&str; 6] =
    ["cash_deposit", "cash_withdrawal", "card_withdrawal", "interest_or_fee", "transfer_from_bank", "transfer_to_bank"];

/// The header of a submit file.
const SUBMIT_HEADER: [&str; 9] = ["id", "kind", "user", "counterparty", "amount", "currency", "country", "via", "reference"];

/// Countries of residence, by zone: an account's hash picks the zone, then the country.
const COUNTRIES: [[&str; 4]; 2] = [["US", "JP", "AU", "CA"], ["CZ", "DE", "FR", "IE"]];

/// Regions by which requests enter: an account's hash picks one.
const ENTRY_REGIONS: [&str; 4] = ["us_east", "us_west", "eu_west", "asia_pacific"];

/// A trace, understood.
#[derive(Debug)]
pub struct Trace {
    /// Its accounts by id.
    pub accounts: BTreeMap<u64, Account>,
    /// Rows in the file, without the header.
    pub rows: usize,
    /// Rows of amount zero: they move nothing and are left out of the submit file.
    pub zero_rows: usize,
    /// How many rows name an operation that the first trace did not hold, by name.
    pub unknown_operations: BTreeMap<String, usize>,
    /// Rows whose balance is not the one before plus the amount: the trace contradicts itself there.
    pub contradictions: Vec<Contradiction>,
    movements: Vec<Movement>,
    counters: Counters,
}

/// One account of a trace.
#[derive(Debug)]
pub struct Account {
    /// What it held before its first row, by the trace; haléře, may be negative.
    pub opening: i64,
    /// What is deposited on top so that no row overdraws it; haléře, not negative.
    pub cover: i64,
    /// What its statement must read, oldest first.
    pub expected: Vec<ExpectedLine>,
}

/// A line that an account's statement must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedLine {
    /// The line of the trace; 0 for the opening deposit.
    pub line: u64,
    /// Haléře: positive came in, negative went out.
    pub amount: i64,
    /// The running balance of the mesh after it, in haléře: the bank's plus the cover.
    pub balance: i64,
}

/// A row at which a trace contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The line of the trace.
    pub line: u64,
    /// The account.
    pub account: u64,
    /// The balance that the row states, less the one that its account's rows so far make; haléře.
    pub gap: i64,
}

/// Where a statement and the trace differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The account.
    pub account: u64,
    /// Which line of its statement, the oldest being 1.
    pub statement_line: usize,
    /// What the trace asks for; `None` when the statement has a line too many.
    pub expected: Option<ExpectedLine>,
    /// Amount and balance in the statement, in haléře; `None` when a line is missing.
    pub found: Option<(i64, i64)>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "account {}, statement line {}: ", self.account, self.statement_line)?;
        match self.expected {
            Some(expected) if expected.line == 0 => {
                write!(f, "opening deposit of {}, balance {}", decimal(expected.amount), decimal(expected.balance))?;
            }
            Some(expected) => {
                write!(f, "trace line {} has {}, balance {}", expected.line, decimal(expected.amount), decimal(expected.balance))?;
            }
            None => write!(f, "the trace has no such line")?,
        }
        match self.found {
            Some((amount, balance)) => write!(f, "; the mesh has {}, balance {}", decimal(amount), decimal(balance)),
            None => write!(f, "; the mesh has no such line"),
        }
    }
}

/// A row that moves money.
#[derive(Debug)]
struct Movement {
    account: u64,
    txn_id: String,
    amount: i64,
    reference: String,
    /// The user at the other end of a transfer.
    counter: Option<u64>,
    /// What has to have arrived before it: see [`Trace::write_wave`].
    wave: usize,
}

/// What is known of an account while its rows are read.
struct Running {
    /// By the trace, before the first row.
    opening: i64,
    /// Opening plus the amounts so far.
    booked: i64,
    /// The least that `booked` ever was.
    lowest: i64,
    /// The sum of the account's contradictions so far.
    gap: i64,
    seq: u64,
    seq_line: u64,
    /// Transfers that came in so far.
    wave: usize,
    lines: Vec<(u64, i64, i64)>,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// Names the line and the column of: a missing column, a wrong number of fields, text that is not UTF-8, a number that
    /// is not one, an amount with more than two decimals or past 10^15 haléře, an account's rows out of order by `seq`,
    /// a `seq` or `txn_id` that came before.
    pub fn read(mut input: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).context("the trace cannot be read")?;
        let mut lines = LineCounter { bytes: &bytes, at: 0, line: 1 };
        // The reader drops a byte order mark and takes CRLF and LF alike.
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&bytes[..]);
        let header = reader.headers().context("line 1: the header cannot be read")?;
        let mut columns = [0; COLUMNS.len()];
        for (place, name) in columns.iter_mut().zip(COLUMNS) {
            *place = header
                .iter()
                .position(|field| field == name)
                .ok_or_else(|| anyhow!("line 1: no column `{name}`; the header must be seq,date,txn_id,account_id,operation,amount_czk,balance_after_czk,bank,counter_account"))?;
        }

        let mut trace = Self {
            accounts: BTreeMap::new(),
            rows: 0,
            zero_rows: 0,
            unknown_operations: BTreeMap::new(),
            contradictions: Vec::new(),
            movements: Vec::new(),
            counters: Counters::default(),
        };
        let mut running: BTreeMap<u64, Running> = BTreeMap::new();
        let mut seqs: HashMap<u64, u64> = HashMap::new();
        let mut txn_ids: HashMap<String, u64> = HashMap::new();
        let mut record = csv::ByteRecord::new();
        loop {
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(describe(&error, &mut lines)),
            }
            let line = lines.line_of(record.position());
            let mut fields = [""; COLUMNS.len()];
            for ((field, place), name) in fields.iter_mut().zip(columns).zip(COLUMNS) {
                let bytes = record.get(place).unwrap_or_default();
                *field = std::str::from_utf8(bytes).map_err(|_| anyhow!("line {line}, {name}: not UTF-8"))?;
            }
            trace.row(line, fields, &mut running, &mut seqs, &mut txn_ids)?;
        }
        ensure!(trace.rows > 0, "the trace has no rows");

        trace.accounts = running.into_iter().map(|(id, account)| (id, account.finish())).collect();
        Ok(trace)
    }

    fn row(
        &mut self,
        line: u64,
        fields: [&str; COLUMNS.len()],
        running: &mut BTreeMap<u64, Running>,
        seqs: &mut HashMap<u64, u64>,
        txn_ids: &mut HashMap<String, u64>,
    ) -> Result<()> {
        let [seq, date, txn_id, account, operation, amount, balance, bank, counter] = fields;
        let seq: u64 = seq.parse().map_err(|_| anyhow!("line {line}, seq: a whole number is needed, not `{seq}`"))?;
        let account =
            account.parse().ok().filter(|account: &u64| (1..COUNTER_USERS_FROM).contains(account)).ok_or_else(|| {
                anyhow!("line {line}, account_id: a number from 1 to {} is needed, not `{account}`", COUNTER_USERS_FROM - 1)
            })?;
        let amount = minor_units(amount).map_err(|why| anyhow!("line {line}, amount_czk: {why}"))?;
        let balance = minor_units(balance).map_err(|why| anyhow!("line {line}, balance_after_czk: {why}"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ensure!(
            (1..=TXN_ID_CHARS_MAX).contains(&txn_id.len()) && txn_id.bytes().all(plain),
            "line {line}, txn_id: 1 to {TXN_ID_CHARS_MAX} of letters, digits, `.`, `_` and `-` are needed, not `{txn_id}`"
        );
        if let Some(before) = seqs.insert(seq, line) {
            bail!("line {line}, seq: {seq} is also on line {before}");
        }
        if let Some(before) = txn_ids.insert(txn_id.to_owned(), line) {
            bail!("line {line}, txn_id: {txn_id} is also on line {before}");
        }

        self.rows += 1;
        if !OPERATIONS_KNOWN.contains(&operation) {
            *self.unknown_operations.entry(operation.to_owned()).or_default() += 1;
        }
        let state = match running.entry(account) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                let opening = balance - amount;
                entry.insert(Running { opening, booked: opening, lowest: opening, gap: 0, seq, seq_line: line, wave: 0, lines: Vec::new() })
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                let state = entry.into_mut();
                ensure!(
                    seq > state.seq,
                    "line {line}, seq: rows of account {account} are out of order: {seq} comes after {} of line {}; sort the trace by seq",
                    state.seq,
                    state.seq_line
                );
                (state.seq, state.seq_line) = (seq, line);
                state
            }
        };
        // Neither overflows: both addends are within the bound, and the sum is checked before it is added to again.
        state.booked += amount;
        ensure!(state.booked.abs() <= AMOUNT_MINOR_MAX, "line {line}: the balance of account {account} passes 10^15 haléře");
        state.lowest = state.lowest.min(state.booked);
        let gap = balance - state.booked;
        if gap != state.gap {
            self.contradictions.push(Contradiction { line, account, gap: gap - state.gap });
            state.gap = gap;
        }
        if amount == 0 {
            self.zero_rows += 1;
            return Ok(());
        }
        state.lines.push((line, amount, state.booked));
        // The trace has a number without a bank, 0, on rows that are no transfers.
        let is_transfer = !bank.is_empty() && !counter.is_empty();
        let counter = is_transfer
            .then(|| self.counters.note(bank, counter, account, -amount))
            .transpose()
            .map_err(|why| anyhow!("line {line}, counter_account: {why}"))?;
        let wave = state.wave;
        state.wave += usize::from(counter.is_some() && amount > 0);
        self.movements.push(Movement { account, txn_id: txn_id.to_owned(), amount, reference: reference(date, operation), counter, wave });
        Ok(())
    }

    /// Writes the submit file: every account's enrolment and, where it needs one, its opening deposit; then the rows in the
    /// trace's order.
    ///
    /// # Errors
    ///
    /// Those of `output`.
    pub fn write_submit(&self, output: impl Write) -> Result<()> {
        let mut writer = csv::Writer::from_writer(output);
        writer.write_record(SUBMIT_HEADER)?;
        self.write_accounts(&mut writer)?;
        for movement in &self.movements {
            movement.write(&mut writer)?;
        }
        writer.flush().context("the submit file cannot be written")
    }

    fn write_accounts(&self, writer: &mut csv::Writer<impl Write>) -> Result<()> {
        for (&id, account) in &self.accounts {
            let (country, via) = place(id);
            write_user(writer, id, country, via)?;
            if let Some(opening) = account.opening_deposit() {
                let reference = if account.cover > 0 { "balance brought forward and cover" } else { "balance brought forward" };
                write_opening(writer, id, opening, via, reference)?;
            }
        }
        Ok(())
    }

    /// How many lines the submit file has, without the header.
    pub fn submit_lines(&self) -> usize {
        let openings = self.accounts.values().filter(|account| account.opening_deposit().is_some()).count();
        self.accounts.len() + openings + self.movements.len()
    }

    /// Compares one account's statement with the trace. `statement`: amount and running balance of each line, in haléře,
    /// oldest first. An account that the trace does not have must have no lines.
    pub fn compare(&self, account: u64, statement: &[(i64, i64)]) -> Vec<Difference> {
        let expected = self.accounts.get(&account).map_or(&[][..], |account| &account.expected);
        (0..expected.len().max(statement.len()))
            .map(|index| (index, expected.get(index).copied(), statement.get(index).copied()))
            .filter(|(_, expected, found)| expected.map(|line| (line.amount, line.balance)) != *found)
            .map(|(index, expected, found)| Difference { account, statement_line: index + 1, expected, found })
            .collect()
    }

    /// What was read and what it became, for a person.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} rows of {} accounts; {} lines to submit, {} rows of amount zero left out",
            self.rows,
            self.accounts.len(),
            self.submit_lines(),
            self.zero_rows
        );
        let carried = self.accounts.values().filter(|account| account.opening != 0).count();
        if carried > 0 {
            text += &format!("\n{carried} accounts held money or a debt before the trace began: an opening deposit carries it forward");
        }
        let covered: Vec<_> = self.accounts.iter().filter(|(_, account)| account.cover > 0).collect();
        if !covered.is_empty() {
            let total: i64 = covered.iter().map(|(_, account)| account.cover).sum();
            text += &format!(
                "\n{} accounts are overdrawn at some time, which wallets cannot be: they get a cover deposit, {} {CURRENCY} in all, \
                 and their balances are compared less the cover",
                covered.len(),
                decimal(total)
            );
        }
        for (operation, count) in &self.unknown_operations {
            text += &format!("\n{count} rows of an operation not seen before, `{operation}`: the amount's sign says which way money went");
        }
        for Contradiction { line, account, gap } in self.contradictions.iter().take(20) {
            text += &format!("\nthe trace contradicts itself at line {line}: the balance of account {account} is off by {}", decimal(*gap));
        }
        if self.contradictions.len() > 20 {
            text += &format!("\n… and at {} more lines", self.contradictions.len() - 20);
        }
        text
    }
}

impl Movement {
    /// Writes it as what it is to the account alone.
    fn write(&self, writer: &mut csv::Writer<impl Write>) -> Result<()> {
        let Self { account, txn_id, amount, reference, .. } = self;
        let (_, via) = place(*account);
        let kind = if *amount > 0 { "deposit" } else { "withdrawal" };
        let (line, user, amount) = (format!("txn-{txn_id}"), account.to_string(), decimal(amount.abs()).to_string());
        Ok(writer.write_record([&line, kind, &user, "", &amount, CURRENCY, "", via, reference])?)
    }
}

fn write_user(writer: &mut csv::Writer<impl Write>, id: u64, country: &str, via: &str) -> Result<()> {
    Ok(writer.write_record([&format!("enrol-{id}"), "enrol", &id.to_string(), "", "", CURRENCY, country, via, ""])?)
}

fn write_opening(writer: &mut csv::Writer<impl Write>, id: u64, minor: i64, via: &str, reference: &str) -> Result<()> {
    let (line, user, amount) = (format!("opening-{id}"), id.to_string(), decimal(minor).to_string());
    Ok(writer.write_record([&line, "deposit", &user, "", &amount, CURRENCY, "", via, reference])?)
}

impl Account {
    /// The deposit before the first row; `None` when none is needed.
    fn opening_deposit(&self) -> Option<i64> {
        Some(self.opening + self.cover).filter(|amount| *amount > 0)
    }
}

impl Running {
    fn finish(self) -> Account {
        let mut account =
            Account { opening: self.opening, cover: (-self.lowest).max(0), expected: Vec::with_capacity(self.lines.len() + 1) };
        if let Some(amount) = account.opening_deposit() {
            account.expected.push(ExpectedLine { line: 0, amount, balance: amount });
        }
        let cover = account.cover;
        account.expected.extend(self.lines.into_iter().map(|(line, amount, booked)| ExpectedLine {
            line,
            amount,
            balance: booked + cover,
        }));
        account
    }
}

/// The country of residence and the entry region of an account.
fn place(account: u64) -> (&'static str, &'static str) {
    place_in(zone(account), account)
}

/// The zone of an account, as a place in [`COUNTRIES`].
fn zone(account: u64) -> usize {
    pick(account, 0, COUNTRIES.len())
}

/// The country of residence and the entry region of a user of this zone.
fn place_in(zone: usize, user: u64) -> (&'static str, &'static str) {
    let countries = COUNTRIES[zone];
    (countries[pick(user, 16, countries.len())], ENTRY_REGIONS[pick(user, 32, ENTRY_REGIONS.len())])
}

/// Different bits pick the zone, the country and the entry region, so all combinations come up.
fn pick(user: u64, shift: u32, count: usize) -> usize {
    usize::try_from(mix(user) >> shift & 0xFFFF).expect("16 bits fit") % count
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): every bit of
/// the result depends on every bit of the input, and no library's next version changes it.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Haléře from a decimal such as `-14.60`.
fn minor_units(text: &str) -> Result<i64> {
    let number = Decimal::from_str_exact(text).map_err(|_| anyhow!("a decimal such as -14.60 is needed, not `{text}`"))?.normalize();
    ensure!(number.scale() <= CURRENCY_EXPONENT, "{CURRENCY} has {CURRENCY_EXPONENT} digits after the point, `{text}` has more");
    number
        .mantissa()
        .checked_mul(10_i128.pow(CURRENCY_EXPONENT - number.scale()))
        .and_then(|minor| i64::try_from(minor).ok())
        .filter(|minor| minor.abs() <= AMOUNT_MINOR_MAX)
        .ok_or_else(|| anyhow!("`{text}` passes the bound of {} {CURRENCY}", decimal(AMOUNT_MINOR_MAX)))
}

/// The decimal of haléře, with both digits after the point.
fn decimal(minor: i64) -> Decimal {
    Decimal::new(minor, CURRENCY_EXPONENT)
}

/// What the statement will show: the date and the operation, without control characters, cut to the mesh's bound.
fn reference(date: &str, operation: &str) -> String {
    let mut text: String = format!("{date} {operation}").chars().filter(|character| !character.is_control()).collect();
    while text.len() > REFERENCE_BYTES_MAX {
        text.pop();
    }
    text.trim().to_owned()
}

/// Finds the line on which a record starts. The CSV reader's own count is one short after CRLF, and before blank lines.
struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// Records must be asked for in the order of the file.
    fn line_of(&mut self, record: Option<&csv::Position>) -> u64 {
        let start = record.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.at);
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.at >= start && byte != b'\r' && byte != b'\n' {
                break;
            }
            self.line += u64::from(byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// The CSV reader's error, with the line first like all others.
fn describe(error: &csv::Error, lines: &mut LineCounter<'_>) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            anyhow!("line {}: {len} fields, the header has {expected_len}", lines.line_of(pos.as_ref()))
        }
        _ => anyhow!("the trace cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests;
