//! What came out: runs, ratios, bars; as a table for people and as JSON for everything else.

use std::{collections::BTreeMap, fs::File, io::BufWriter, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{load::Payees, sample::Machine};

/// Everything that one invocation measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The subcommand.
    pub(crate) bench: String,
    /// The arguments as given.
    pub(crate) arguments: Vec<String>,
    /// Seeds all runs.
    pub(crate) seed: u64,
    /// Whether this program, and so the peers and the client in it, was built with optimisation.
    pub(crate) optimised: bool,
    /// The node's program. Absent where no node was started.
    pub(crate) program: Option<Program>,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Every run, in the order in which they ran.
    pub(crate) runs: Vec<Run>,
    /// Enrolments and other work that sets the stage.
    pub(crate) setups: Vec<Setup>,
    /// What is no run of payments: lags, bytes, rates of catching up.
    pub(crate) figures: Vec<Figure>,
    /// Side against side.
    pub(crate) ratios: Vec<Ratio>,
    /// What was wanted, and whether it was met.
    pub(crate) bars: Vec<Bar>,
}

/// A program, so that figures are not taken for another's: `paymesh plan capacity --measured` compares it with itself.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Program {
    /// What it says of its version: `paymesh 0.1.0`.
    pub(crate) version: String,
    /// The BLAKE3 hash of its file.
    pub(crate) blake3: String,
}

impl Program {
    /// Looks at a program.
    pub(crate) fn look(path: &Path) -> anyhow::Result<Self> {
        let output = Command::new(path).arg("--version").output().with_context(|| format!("cannot start {}", path.display()))?;
        ensure!(output.status.success(), "{} does not say its version", path.display());
        let mut hasher = blake3::Hasher::new();
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        hasher.update_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { version: String::from_utf8_lossy(&output.stdout).trim().to_owned(), blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// One run of one load against one side.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    /// What was the same for all sides: `4 shards, 1000 accounts`.
    pub(crate) case: String,
    /// What was measured: `node`, `naive`, `echo`, `ledger`.
    pub(crate) side: String,
    /// `stream 8192`, `unary 64`, …
    pub(crate) load: String,
    /// Who was paid.
    pub(crate) payees: Payees,
    /// From 1.
    pub(crate) round: usize,
    /// Payments answered, warm-up included.
    pub(crate) answered: u64,
    /// Payments answered a second, in the measured time.
    pub(crate) rate: f64,
    /// Payments a second from the first call until the last has been answered and everything downstream has caught up.
    pub(crate) sustained: f64,
    /// Median time of a call (of a batch, for streams), in microseconds. 0 where nothing is called.
    pub(crate) p50_us: u64,
    /// 99th percentile.
    pub(crate) p99_us: u64,
    /// The longest.
    pub(crate) max_us: u64,
    /// From the last answer until query tables and inboxes had caught up, in milliseconds; absent where there are none.
    pub(crate) drain_ms: Option<f64>,
    /// CPU time of the server processes during the run and the drain, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The same for a million payments.
    pub(crate) cpu_seconds_per_million: f64,
    /// CPU time of the client process, in seconds.
    pub(crate) client_cpu_seconds: f64,
    /// The most resident memory of a server process since it started, in bytes.
    pub(crate) peak_bytes: u64,
    /// Threads of the server processes.
    pub(crate) threads: u64,
    /// What the files of the journals grew by, for each payment; 0 where there are none. Short runs say little: files grow in steps.
    pub(crate) journal_bytes_per_payment: f64,
    /// What all files of the servers' data grew by, for each payment.
    pub(crate) disk_bytes_per_payment: f64,
    /// Load average of the last minute before the run.
    pub(crate) load_before: f64,
    /// Load average of the last minute after it.
    pub(crate) load_after: f64,
}

/// Work before the runs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    /// What it was for.
    pub(crate) case: String,
    /// Users enrolled, each with a deposit: two calls.
    pub(crate) users: u64,
    /// Users a second.
    pub(crate) rate: f64,
    /// The most resident memory of the node after it, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Something else that was measured, round by round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Under which circumstances.
    pub(crate) case: String,
    /// What it is, its unit last.
    pub(crate) name: String,
    /// One for each round.
    pub(crate) rounds: Vec<f64>,
}

/// One side divided by another, round by round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// `node / echo, unary 64`.
    pub(crate) name: String,
    /// The smallest of the rounds.
    pub(crate) min: f64,
    /// The median of the rounds.
    pub(crate) median: f64,
    /// The largest of the rounds.
    pub(crate) max: f64,
    /// One for each round.
    pub(crate) rounds: Vec<f64>,
}

/// What was wanted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    /// What is measured.
    pub(crate) name: String,
    /// The median over the rounds.
    pub(crate) measured: f64,
    /// `>=` or `<=`.
    pub(crate) relation: &'static str,
    /// The bar.
    pub(crate) wanted: f64,
    /// Whether it was met.
    pub(crate) met: bool,
}

/// Which side of the bar is the good one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// Measured must be this or more.
    AtLeast(f64),
    /// Measured must be this or less.
    AtMost(f64),
}

impl Report {
    /// Notes one round of a figure.
    pub(crate) fn figure(&mut self, case: &str, name: &str, value: f64) {
        eprintln!("{case}: {name} {value:.2}");
        match self.figures.iter_mut().find(|figure| figure.case == case && figure.name == name) {
            Some(figure) => figure.rounds.push(value),
            None => self.figures.push(Figure { case: case.to_owned(), name: name.to_owned(), rounds: vec![value] }),
        }
    }

    /// Notes the rounds of a ratio and gives back its median.
    pub(crate) fn ratio(&mut self, name: &str, rounds: Vec<f64>) -> f64 {
        let (median, (min, max)) = (median(&rounds), bounds(&rounds));
        self.ratios.push(Ratio { name: name.to_owned(), min, median, max, rounds });
        median
    }

    /// Holds a measured value against a bar.
    pub(crate) fn bar(&mut self, name: &str, measured: f64, wanted: Wanted) {
        let (relation, wanted, met) = match wanted {
            Wanted::AtLeast(least) => (">=", least, measured >= least),
            Wanted::AtMost(most) => ("<=", most, measured <= most),
        };
        self.bars.push(Bar { name: name.to_owned(), measured, relation, wanted, met });
    }

    /// Whether every bar was met.
    pub(crate) fn all_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.met)
    }

    /// Writes the whole as JSON.
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(BufWriter::new(file), self).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Prints the medians of the rounds, the ratios and the bars.
    pub(crate) fn print(&self) {
        println!("\n{}", self.machine.line());
        if !self.optimised {
            println!("built without optimisation: these numbers say that the benchmark works, and nothing else");
        }
        if !self.machine.keeps_data() {
            println!("the data is in memory: nothing here was durable; give --data a folder on a disk");
        }
        let mut rows = vec![
            [
                "case",
                "side",
                "load",
                "payees",
                "rounds",
                "rate/s",
                "sustained/s",
                "p50",
                "p99",
                "drain",
                "cpu s/M",
                "client s/M",
                "peak MiB",
                "threads",
                "load avg",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        rows.extend(self.groups().into_iter().map(|group| row(&group)));
        if !self.runs.is_empty() {
            println!();
            print_table(&rows);
        }
        if !self.setups.is_empty() {
            println!();
        }
        for Setup { case, users, rate, peak_bytes } in &self.setups {
            println!("setup: {case}: {users} users enrolled with a deposit, {rate:.0}/s, peak {} MiB", peak_bytes >> 20);
        }
        let figures = self.figures.iter().map(|Figure { case, name, rounds }| {
            let (least, most) = bounds(rounds);
            [case.clone(), name.clone(), format!("{:.2}", median(rounds)), format!("(min {least:.2},"), format!("max {most:.2})")].to_vec()
        });
        if !self.figures.is_empty() {
            println!();
            print_table(&figures.collect::<Vec<_>>());
        }
        println!();
        for Ratio { name, min, median, max, rounds } in &self.ratios {
            println!("ratio: {name}  {median:.2}  (min {min:.2}, max {max:.2}, {} rounds)", rounds.len());
        }
        println!();
        for Bar { name, measured, relation, wanted, met } in &self.bars {
            println!("bar: {name}  measured {measured:.2}  wanted {relation} {wanted}  {}", if *met { "MET" } else { "MISSED" });
        }
    }

    /// Runs that differ only in their round, in the order of their first.
    fn groups(&self) -> Vec<Vec<&Run>> {
        let mut order: BTreeMap<(&str, &str, &str, bool), usize> = BTreeMap::new();
        let mut groups: Vec<Vec<&Run>> = Vec::new();
        for run in &self.runs {
            let key = (run.case.as_str(), run.side.as_str(), run.load.as_str(), run.payees == Payees::Hot);
            let index = *order.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[index].push(run);
        }
        groups
    }
}

fn row(group: &[&Run]) -> Vec<String> {
    let first = group[0];
    let of = |value: fn(&Run) -> f64| median(&group.iter().map(|run| value(run)).collect::<Vec<_>>());
    let drain = first.drain_ms.map(|_| of(|run| run.drain_ms.unwrap_or_default()));
    let busiest = group.iter().map(|run| run.load_before.max(run.load_after)).fold(0.0, f64::max);
    vec![
        first.case.clone(),
        first.side.clone(),
        first.load.clone(),
        if first.payees == Payees::Hot { "hot" } else { "uniform" }.to_owned(),
        group.len().to_string(),
        format!("{:.0}", of(|run| run.rate)),
        format!("{:.0}", of(|run| run.sustained)),
        time(of(|run| run.p50_us as f64)),
        time(of(|run| run.p99_us as f64)),
        drain.map_or_else(|| "-".to_owned(), |drain| time(drain * 1_000.0)),
        format!("{:.1}", of(|run| run.cpu_seconds_per_million)),
        format!("{:.1}", of(|run| if run.answered == 0 { 0.0 } else { run.client_cpu_seconds * 1e6 / run.answered as f64 })),
        group.iter().map(|run| run.peak_bytes >> 20).max().unwrap_or_default().to_string(),
        first.threads.to_string(),
        format!("{busiest:.1}"),
    ]
}

fn time(microseconds: f64) -> String {
    match microseconds {
        zero if zero <= 0.0 => "-".to_owned(),
        short if short < 1_000.0 => format!("{short:.0} us"),
        long if long < 1_000_000.0 => format!("{:.2} ms", long / 1_000.0),
        longer => format!("{:.2} s", longer / 1_000_000.0),
    }
}

fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default()).collect();
    for row in rows {
        // Words to the left, numbers to the right.
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> =
            cells.map(|(column, (cell, width))| if column < 4 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }).collect();
        println!("{}", line.join("  ").trim_end());
    }
}

/// The smallest and the largest.
fn bounds(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// The value in the middle; the mean of the two in the middle when there are as many on both sides. 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let close = |left: f64, right: f64| (left - right).abs() < f64::EPSILON;
        assert!(close(median(&[]), 0.0));
        assert!(close(median(&[3.0, 1.0, 2.0]), 2.0));
        assert!(close(median(&[4.0, 1.0, 2.0, 3.0]), 2.5));
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(["-", "12 us", "1.50 ms", "2.00 s"].map(str::to_owned), [0.0, 12.0, 1_500.0, 2_000_000.0].map(time));
    }
}
