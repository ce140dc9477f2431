//! What a person or a script reads: lines, tables, JSON files.
//!
//! Results go to standard output, everything else (progress, failures, logs) to standard error. A reader that went
//! away (`paymesh status | head`) is not an error.

use std::{
    fmt::{self, Write as _},
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use paymesh_telemetry::Lines;
use paymesh_types::Currency;
use rust_decimal::Decimal;
use serde::Serialize;

/// A line of the result, to standard output.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::output::stdout(format_args!($($text)*)) };
}

/// A line beside the result, to standard error.
#[macro_export]
macro_rules! note {
    ($($text:tt)*) => { $crate::output::stderr(format_args!($($text)*)) };
}

/// Whether a part of the result could not be written.
static RESULT_LOST: AtomicBool = AtomicBool::new(false);

/// See [`say!`].
pub(crate) fn stdout(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // Whole lines leave by themselves; what is no line would leave when the process ends, where nobody hears of an error.
    if let Err(error) = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
        && !RESULT_LOST.swap(true, Ordering::Relaxed)
    {
        stderr(format_args!("paymesh: standard output cannot be written: {error}"));
    }
}

/// Whether a part of the result could not be written, other than because its reader went away.
pub(crate) fn is_result_lost() -> bool {
    RESULT_LOST.load(Ordering::Relaxed)
}

/// The same, in place of what is on the screen, where it is one. For what is shown again and again: who reads may have gone.
pub(crate) fn refresh(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // Clear, and begin at the top (ECMA-48: ED, CUP).
    let clear = if out.is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    out.write_all(format!("{clear}{text}\n").as_bytes())?;
    out.flush()
}

/// See [`note!`].
pub(crate) fn stderr(text: fmt::Arguments<'_>) {
    // In one write: standard error has no buffer, and others write to the same terminal.
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Standard output and standard error of a program that goes on when nobody reads them: lines that find no room are dropped,
/// and their number is shown once they are read again. Not for results. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    out: Lines,
    err: Lines,
}

impl Terminal {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let tell =
            |lines: &Lines, dropped| lines.push(format!("paymesh: {dropped} lines are not shown so far: nobody read them\n").as_bytes());
        let started = || Ok::<_, io::Error>(Self { out: Lines::to(io::stdout(), tell)?, err: Lines::to(io::stderr(), tell)? });
        started().context("cannot start the threads that print")
    }

    /// As [`say!`], without waiting for the reader.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        self.out.push(format!("{line}\n").as_bytes());
    }

    /// As [`note!`], without waiting for the reader.
    pub(crate) fn note(&self, line: impl fmt::Display) {
        self.err.push(format!("{line}\n").as_bytes());
    }

    /// Waits until all of it is printed, or nobody seems to read it.
    pub(crate) fn flush(&self) {
        self.out.flush();
        self.err.flush();
    }
}

/// Prints a value as JSON.
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Writes a value as a JSON file.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write the report to {}", path.display()))
}

/// Rows under a heading. A column of which every cell begins with a digit or a sign is aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> =
            (0..columns).map(|column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|column| self.rows.iter().skip(1).all(|row| cell(row, column).starts_with(|c: char| c.is_ascii_digit() || c == '-')))
            .collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for column in 0..columns {
                let (text, width) = (cell(row, column), widths[column]);
                if numeric[column] {
                    write!(line, "  {text:>width$}")?;
                } else {
                    write!(line, "  {text:<width$}")?;
                }
            }
            if index > 0 {
                f.write_char('\n')?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

/// A hash as it is shown.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A sum of minor units as a decimal with its currency. Sums may pass the bound of a single amount.
pub(crate) fn money(minor: i128, code: &str) -> String {
    let exponent = Currency::from_code(code).map_or(0, Currency::exponent);
    match Decimal::try_from_i128_with_scale(minor, exponent) {
        Ok(decimal) => format!("{decimal} {code}"),
        Err(_) => format!("{minor} minor units of {code}"),
    }
}

/// Microseconds as a short text: `870 us`, `12.3 ms`, `4.1 s`.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use paymesh_types::AMOUNT_MINOR_MAX;

    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(["region", "calls"]);
        table.row(["us_east".into(), "7".into()]);
        table.row(["eu".into(), "12345".into()]);
        assert_eq!(table.to_string(), "  region   calls\n  us_east      7\n  eu       12345");
    }

    #[test]
    fn sums_print_in_the_currency_of_their_minor_units() {
        assert_eq!(money(-1250, "EUR"), "-12.50 EUR");
        assert_eq!(money(1250, "JPY"), "1250 JPY");
        assert_eq!(money(i128::from(AMOUNT_MINOR_MAX) * 1000, "EUR"), "10000000000000000.00 EUR");
    }
}
