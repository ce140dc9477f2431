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
//! Two things a bank's trace may hold and the mesh's wallets do not are bridged by one deposit before an account's first row:
//! a balance from before the trace began, and a balance below zero later on (the *cover*: as much as the account was ever
//! overdrawn). The running balances of such an account are higher than the bank's by its cover, by nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rust_decimal::Decimal;

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
const COLUMNS: [&str; 7] = ["seq", "date", "txn_id", "account_id", "operation", "amount_czk", "balance_after_czk"];

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
        let [seq, date, txn_id, account, operation, amount, balance] = fields;
        let seq: u64 = seq.parse().map_err(|_| anyhow!("line {line}, seq: a whole number is needed, not `{seq}`"))?;
        let account = account
            .parse()
            .ok()
            .filter(|account: &u64| (1..=i64::MAX as u64).contains(account))
            .ok_or_else(|| anyhow!("line {line}, account_id: a number from 1 to {} is needed, not `{account}`", i64::MAX))?;
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
                entry.insert(Running { opening, booked: opening, lowest: opening, gap: 0, seq, seq_line: line, lines: Vec::new() })
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
        self.movements.push(Movement { account, txn_id: txn_id.to_owned(), amount, reference: reference(date, operation) });
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
        for (&id, account) in &self.accounts {
            let (country, via) = place(id);
            writer.write_record([&format!("enrol-{id}"), "enrol", &id.to_string(), "", "", CURRENCY, country, via, ""])?;
            if let Some(opening) = account.opening_deposit() {
                let reference = if account.cover > 0 { "balance brought forward and cover" } else { "balance brought forward" };
                let (line, user, amount) = (format!("opening-{id}"), id.to_string(), decimal(opening).to_string());
                writer.write_record([&line, "deposit", &user, "", &amount, CURRENCY, "", via, reference])?;
            }
        }
        for Movement { account, txn_id, amount, reference } in &self.movements {
            let (_, via) = place(*account);
            let kind = if *amount > 0 { "deposit" } else { "withdrawal" };
            let (line, user, amount) = (format!("txn-{txn_id}"), account.to_string(), decimal(amount.abs()).to_string());
            writer.write_record([&line, kind, &user, "", &amount, CURRENCY, "", via, reference])?;
        }
        writer.flush().context("the submit file cannot be written")
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
    let hash = mix(account);
    // Different bits pick the zone, the country and the entry region, so all combinations come up.
    let pick = |shift: u32, count: usize| usize::try_from(hash >> shift & 0xFFFF).expect("16 bits fit") % count;
    let countries = COUNTRIES[pick(0, COUNTRIES.len())];
    (countries[pick(16, countries.len())], ENTRY_REGIONS[pick(32, ENTRY_REGIONS.len())])
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
mod tests {
    use super::*;

    const HEADER: &str = "seq,date,txn_id,account_id,operation,amount_czk,balance_after_czk,bank,counter_account\n";

    fn read(rows: &str) -> Result<Trace> {
        Trace::read(format!("{HEADER}{rows}").as_bytes())
    }

    fn submit(trace: &Trace) -> String {
        let mut bytes = Vec::new();
        trace.write_submit(&mut bytes).expect("memory takes everything");
        String::from_utf8(bytes).expect("the file is UTF-8")
    }

    fn lines(trace: &Trace, account: u64) -> Vec<(u64, i64, i64)> {
        trace.accounts[&account].expected.iter().map(|line| (line.line, line.amount, line.balance)).collect()
    }

    fn refusal(rows: &str) -> String {
        format!("{:#}", read(rows).expect_err("the trace is wrong"))
    }

    #[test]
    fn the_sign_of_the_amount_says_which_way_money_went() {
        let trace =
            read("1,1993-01-01,a1,7,cash_deposit,600.00,600.00,,\n2,1993-01-02,a2,7,robbery,-14.60,585.40,,\n").expect("a good trace");
        assert_eq!(lines(&trace, 7), [(2, 60_000, 60_000), (3, -1_460, 58_540)]);
        assert_eq!(trace.unknown_operations.get("robbery"), Some(&1));
        let (country, via) = place(7);
        assert_eq!(
            submit(&trace),
            format!(
                "id,kind,user,counterparty,amount,currency,country,via,reference\n\
                 enrol-7,enrol,7,,,CZK,{country},{via},\n\
                 txn-a1,deposit,7,,600.00,CZK,,{via},1993-01-01 cash_deposit\n\
                 txn-a2,withdrawal,7,,14.60,CZK,,{via},1993-01-02 robbery\n"
            )
        );
        assert_eq!(trace.submit_lines(), 3);
    }

    #[test]
    fn byte_order_mark_crlf_quotes_and_reordered_columns_are_taken() {
        let text = "\u{feff}\"account_id\",seq,date,txn_id,operation,amount_czk,balance_after_czk,bank,counter_account\r\n\
                    7,1,1993-01-01,a1,\"fee, \"\"odd\"\"\r\nindeed\",+1.5,1.50,\"A\",\"\"\r\n\r\n7,2,1993-01-02,a2,fee,1,2.500,,\r\n";
        let trace = Trace::read(text.as_bytes()).expect("a good trace");
        assert_eq!(lines(&trace, 7), [(2, 150, 150), (5, 100, 250)]);
        assert!(submit(&trace).contains("\"1993-01-01 fee, \"\"odd\"\"indeed\""), "{}", submit(&trace));
    }

    #[test]
    fn zero_rows_are_left_out_and_counted() {
        let trace = read("1,,a1,7,x,0.00,0.00,,\n2,,a2,7,x,5.00,5.00,,\n3,,a3,7,x,-0.00,5.00,,\n").expect("a good trace");
        assert_eq!((trace.rows, trace.zero_rows), (3, 2));
        assert_eq!(lines(&trace, 7), [(3, 500, 500)]);
    }

    #[test]
    fn money_from_before_the_trace_is_carried_forward() {
        let trace = read("1,,a1,7,x,-5.00,95.00,,\n").expect("a good trace");
        assert_eq!(lines(&trace, 7), [(0, 10_000, 10_000), (2, -500, 9_500)]);
        assert!(submit(&trace).contains("\nopening-7,deposit,7,,100.00,CZK,,"));
    }

    #[test]
    fn an_overdrawn_account_is_covered_and_its_balances_differ_by_the_cover_alone() {
        let trace = read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,-30.00,-20.00,,\n3,,a3,7,x,50.00,30.00,,\n").expect("a good trace");
        assert_eq!(trace.accounts[&7].cover, 2_000);
        assert_eq!(lines(&trace, 7), [(0, 2_000, 2_000), (2, 1_000, 3_000), (3, -3_000, 0), (4, 5_000, 5_000)]);
        // In debt from the start: the deposit brings the account to what lets the lowest row pass.
        let trace = read("1,,a1,7,x,10.00,-40.00,,\n").expect("a good trace");
        assert_eq!(lines(&trace, 7), [(2, 1_000, 1_000)]);
        assert_eq!((trace.accounts[&7].opening, trace.accounts[&7].cover), (-5_000, 5_000));
    }

    #[test]
    fn a_trace_that_contradicts_itself_is_named_once_for_each_gap() {
        let trace =
            read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,5.00,16.00,,\n3,,a3,7,x,1.00,17.00,,\n4,,a4,7,x,1.00,17.00,,\n").expect("readable");
        let found: Vec<_> = trace.contradictions.iter().map(|gap| (gap.line, gap.gap)).collect();
        assert_eq!(found, [(3, 100), (5, -100)]);
        assert_eq!(lines(&trace, 7).last(), Some(&(5, 100, 1_700)));
    }

    #[test]
    fn a_wrong_row_is_refused_by_line_and_column() {
        for (rows, wanted) in [
            ("x,,a1,7,x,1,1,,\n", "line 2, seq: a whole number is needed, not `x`"),
            ("1,,a1,0,x,1,1,,\n", "line 2, account_id: "),
            ("1,,a1,9223372036854775808,x,1,1,,\n", "line 2, account_id: "),
            ("1,,a1,7,x,1e3,1,,\n", "line 2, amount_czk: a decimal such as -14.60 is needed, not `1e3`"),
            ("1,,a1,7,x,,1,,\n", "line 2, amount_czk: "),
            ("1,,a1,7,x,NaN,1,,\n", "line 2, amount_czk: "),
            ("1,,a1,7,x,1.005,1,,\n", "line 2, amount_czk: CZK has 2 digits after the point"),
            ("1,,a1,7,x,1,10000000000000.01,,\n", "line 2, balance_after_czk: `10000000000000.01` passes the bound"),
            ("1,,a1,7,x,1,79228162514264337593543950336,,\n", "line 2, balance_after_czk: "),
            ("1,,,7,x,1,1,,\n", "line 2, txn_id: "),
            ("1,,a 1,7,x,1,1,,\n", "line 2, txn_id: "),
            ("1,,a1,7,x,1,1,,\n1,,a2,8,x,1,1,,\n", "line 3, seq: 1 is also on line 2"),
            ("1,,a1,7,x,1,1,,\n2,,a1,8,x,1,1,,\n", "line 3, txn_id: a1 is also on line 2"),
            ("5,,a1,7,x,1,1,,\n4,,a2,7,x,1,2,,\n", "line 3, seq: rows of account 7 are out of order: 4 comes after 5 of line 2"),
            ("1,,a1,7,x,1,1,,\n2,,a2,7,x,1\n", "line 3: 6 fields, the header has 9"),
            ("1,,a1,7,x,9000000000000,9000000000000,,\n2,,a2,7,x,9000000000000,0,,\n", "line 3: the balance of account 7 passes"),
            ("", "the trace has no rows"),
        ] {
            let error = refusal(rows);
            assert!(error.starts_with(wanted), "{rows:?} gave: {error}");
        }
        let error = format!("{:#}", Trace::read(&b"seq,date\n"[..]).expect_err("columns are missing"));
        assert!(error.starts_with("line 1: no column `txn_id`"), "{error}");
        let mut bytes = HEADER.as_bytes().to_vec();
        bytes.extend_from_slice(b"1,,a1,7,caf\xe9,1,1,,\n");
        let error = format!("{:#}", Trace::read(&bytes[..]).expect_err("not UTF-8"));
        assert_eq!(error, "line 2, operation: not UTF-8");
    }

    #[test]
    fn lines_are_counted_right_after_crlf_and_blank_lines() {
        let error = refusal("1,,a1,7,x,1,1,,\r\n\r\n\n2,,a2,7,x,1,wrong,,\r\n");
        assert!(error.starts_with("line 5, balance_after_czk: "), "{error}");
        let error = refusal("1,,a1,7,x,1,1,,\r\n\r\n2,,a2,7,x,1\r\n");
        assert!(error.starts_with("line 4: 6 fields"), "{error}");
    }

    #[test]
    fn rows_of_different_accounts_may_be_grouped() {
        let trace = read("3,,a3,9,x,1,1,,\n4,,a4,9,x,1,2,,\n1,,a1,7,x,1,1,,\n").expect("each account is in order");
        assert_eq!(lines(&trace, 9), [(2, 100, 100), (3, 100, 200)]);
    }

    #[test]
    fn references_stay_within_the_mesh_bound() {
        let reference = reference("1993-01-01", &"ž".repeat(200));
        assert!(reference.len() <= REFERENCE_BYTES_MAX && reference.ends_with('ž'));
    }

    #[test]
    fn a_statement_that_differs_is_told_line_by_line() {
        let trace = read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,-3.00,7.00,,\n").expect("a good trace");
        assert_eq!(trace.compare(7, &[(1_000, 1_000), (-300, 700)]), []);
        let wrong = trace.compare(7, &[(1_000, 1_001)]);
        assert_eq!(wrong.len(), 2);
        assert_eq!(
            wrong[0].to_string(),
            "account 7, statement line 1: trace line 2 has 10.00, balance 10.00; the mesh has 10.00, balance 10.01"
        );
        assert_eq!(wrong[1].to_string(), "account 7, statement line 2: trace line 3 has -3.00, balance 7.00; the mesh has no such line");
        assert_eq!(trace.compare(8, &[(1, 1)]).len(), 1);
    }

    #[test]
    fn accounts_spread_over_both_zones_and_all_entry_regions() {
        for country in COUNTRIES.as_flattened() {
            for via in ENTRY_REGIONS {
                assert!((1..=1_000).any(|account| place(account) == (country, via)), "{country} via {via}");
            }
        }
    }
}
