//! What became of the lines: counted as their outcomes leave in the file's order.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use paymesh_types::{Position, RegionName};
use serde::{Deserialize, Serialize};

use crate::{
    output::{Table, micros},
    say,
};

/// Failures, and declined lines, that a JSON report lists at most. All are counted; failures are printed as they happen.
const LINES_LISTED_MAX: usize = 1_000;
/// Declined lines that are printed at most.
const DECLINED_SHOWN_MAX: usize = 20;
/// The longest time that the histograms tell apart: 10 minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What became of one line.
pub(crate) struct Outcome {
    /// Where it entered the mesh; `None` for a line that was not sent.
    pub(crate) region: Option<RegionName>,
    /// How it ended.
    pub(crate) end: End,
    /// From the first try to the answer.
    pub(crate) took: Duration,
    /// The kind of instruction; `None` for a line that was not understood.
    pub(crate) kind: Option<&'static str>,
    /// What it adds to the mesh's money if it was accepted: currency and minor units.
    pub(crate) moved: Option<(&'static str, i64)>,
    /// Where its answer is booked, if there is one.
    pub(crate) position: Option<Position>,
}

/// How a line ended.
pub(crate) enum End {
    /// Done, now or by an earlier run.
    Accepted { replay: bool },
    /// An answer: it does not take place.
    Declined { reason: String, replay: bool },
    /// Refused, or no answer.
    Failed { reason: String, unreachable: bool },
}

impl Outcome {
    /// Of a line that could not be understood.
    pub(crate) fn bad_line(reason: String) -> Self {
        let end = End::Failed { reason, unreachable: false };
        Self { region: None, end, took: Duration::ZERO, kind: None, moved: None, position: None }
    }
}

/// Counts of lines. A replay is a line whose answer, accepted or declined, had been recorded before the run began: playing it again
/// changed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Accepted, replays not included.
    pub(crate) accepted: u64,
    /// Accepted or declined before.
    pub(crate) replays: u64,
    /// Of the replays, those that were declined.
    pub(crate) replays_declined: u64,
    /// Declined, replays not included.
    pub(crate) declined: u64,
    /// Failed, bad lines included.
    pub(crate) failed: u64,
    /// The declined, replays included, by reason.
    pub(crate) declines: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn lines(&self) -> u64 {
        self.accepted + self.replays + self.declined + self.failed
    }

    /// How many were declined, now or before: the sum of the reasons.
    pub(crate) fn declined_ever(&self) -> u64 {
        self.declined + self.replays_declined
    }

    fn decline(&mut self, reason: &str, replay: bool) {
        if replay {
            self.replays += 1;
            self.replays_declined += 1;
        } else {
            self.declined += 1;
        }
        *self.declines.entry(reason.to_owned()).or_default() += 1;
    }

    /// With what other lines came to.
    fn plus(mut self, more: &Self) -> Self {
        self.accepted += more.accepted;
        self.replays += more.replays;
        self.replays_declined += more.replays_declined;
        self.declined += more.declined;
        self.failed += more.failed;
        for (reason, lines) in &more.declines {
            *self.declines.entry(reason.clone()).or_default() += lines;
        }
        self
    }
}

/// A line that failed or was declined.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListedLine {
    pub(crate) line: u64,
    pub(crate) reason: String,
}

/// One entry region's part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EntryReport {
    pub(crate) lines: u64,
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self { p50_us: at(0.50), p95_us: at(0.95), p99_us: at(0.99), max_us: histogram.max() }
    }
}

/// Counts as they grow.
pub(crate) struct Counts {
    /// Of the lines before the one where an interrupted run went on.
    pub(crate) before: Tally,
    /// Of this run.
    pub(crate) tally: Tally,
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    pub(crate) declined_payments: u64,
    pub(crate) declined_lines: Vec<ListedLine>,
    /// Accepted deposits less accepted withdrawals, by currency, in minor units; repeated ones included.
    pub(crate) money_in: BTreeMap<&'static str, i128>,
    pub(crate) failures: Vec<ListedLine>,
    all: Histogram<u64>,
    by_region: BTreeMap<RegionName, Histogram<u64>>,
}

impl Counts {
    pub(crate) fn new(before: Tally, regions: impl Iterator<Item = RegionName>) -> Self {
        Self {
            before,
            tally: Tally::default(),
            kinds: BTreeMap::new(),
            declined_payments: 0,
            declined_lines: Vec::new(),
            money_in: BTreeMap::new(),
            failures: Vec::new(),
            all: histogram(),
            by_region: regions.map(|region| (region, histogram())).collect(),
        }
    }

    /// Counts one line.
    pub(crate) fn add(&mut self, line: u64, outcome: &Outcome) {
        match &outcome.end {
            End::Accepted { replay } => {
                if *replay {
                    self.tally.replays += 1;
                } else {
                    self.tally.accepted += 1;
                }
                if let Some(kind) = outcome.kind {
                    *self.kinds.entry(kind).or_default() += 1;
                }
                if let Some((currency, minor)) = outcome.moved {
                    *self.money_in.entry(currency).or_default() += i128::from(minor);
                }
            }
            End::Declined { reason, replay } => {
                self.tally.decline(reason, *replay);
                self.declined_payments += u64::from(outcome.kind == Some("payment"));
                if self.declined_lines.len() < LINES_LISTED_MAX {
                    self.declined_lines.push(ListedLine { line, reason: reason.clone() });
                }
            }
            End::Failed { reason, .. } => {
                self.tally.failed += 1;
                if self.failures.len() < LINES_LISTED_MAX {
                    self.failures.push(ListedLine { line, reason: reason.clone() });
                }
            }
        }
        if let Some(region) = &outcome.region {
            let took = u64::try_from(outcome.took.as_micros()).unwrap_or(LATENCY_US_MAX);
            self.all.saturating_record(took);
            self.by_region.entry(region.clone()).or_insert_with(histogram).saturating_record(took);
        }
    }

    /// Of this run and of the lines before it.
    pub(crate) fn overall(&self) -> Tally {
        self.before.clone().plus(&self.tally)
    }

    /// The report of a run that took `elapsed`.
    pub(crate) fn report(self, finished: bool, elapsed: Duration) -> Report {
        let overall = self.overall();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let sent = self.all.len();
        Report {
            finished,
            lines: overall.lines(),
            resumed_lines: self.before.lines(),
            rate_per_second: sent.saturating_mul(1_000) / elapsed_ms,
            elapsed_ms,
            latency: Latency::of(&self.all),
            by_region: self
                .by_region
                .iter()
                .map(|(region, histogram)| (region.clone(), EntryReport { lines: histogram.len(), latency: Latency::of(histogram) }))
                .collect(),
            declined_lines_not_listed: self.tally.declined_ever().saturating_sub(self.declined_lines.len() as u64),
            declined_lines: self.declined_lines,
            kinds: self.kinds,
            declined_payments: self.declined_payments,
            failures_not_listed: self.tally.failed.saturating_sub(self.failures.len() as u64),
            failures: self.failures,
            tally: overall,
            money_in: self.money_in,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants in order")
}

/// What `submit` found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Whether the whole file is done.
    pub(crate) finished: bool,
    /// Lines that have their outcome, of earlier runs that this one went on from as well.
    pub(crate) lines: u64,
    /// Of those, the ones of earlier runs.
    pub(crate) resumed_lines: u64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Accepted lines of this run by kind, replays included; a transfer is a payment.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    /// Declined payments of this run, replays included; withdrawals are not.
    pub(crate) declined_payments: u64,
    /// The first declined lines of this run, replays included.
    pub(crate) declined_lines: Vec<ListedLine>,
    pub(crate) declined_lines_not_listed: u64,
    pub(crate) elapsed_ms: u64,
    /// Lines sent by this run for each second.
    pub(crate) rate_per_second: u64,
    pub(crate) latency: Latency,
    pub(crate) by_region: BTreeMap<RegionName, EntryReport>,
    pub(crate) failures: Vec<ListedLine>,
    pub(crate) failures_not_listed: u64,
    /// See [`Counts::money_in`]; the demo compares it with the books.
    #[serde(skip)]
    pub(crate) money_in: BTreeMap<&'static str, i128>,
}

impl Report {
    /// Prints it.
    pub(crate) fn say(&self) {
        say!("{}", self.summary());
        say!("{} lines a second, {}.{} s in all", self.rate_per_second, self.elapsed_ms / 1_000, self.elapsed_ms % 1_000 / 100);
        let table = self.latencies();
        if !table.is_empty() {
            say!("{table}");
        }
    }

    /// What became of all lines.
    fn summary(&self) -> String {
        let Tally { accepted, replays, replays_declined, declined, failed, declines } = &self.tally;
        let mut text = format!("{} lines: {accepted} accepted, {replays} replays, {declined} declined, {failed} failed", self.lines);
        if self.resumed_lines > 0 {
            text.push_str(&format!("\n  {} of them by earlier runs of the same file", self.resumed_lines));
        }
        if *replays > 0 {
            text.push_str("\n  replays were answered before this run, and changed nothing");
        }
        if *replays_declined > 0 {
            text.push_str(&format!("; {replays_declined} of them had been declined"));
        }
        for (reason, lines) in declines {
            text.push_str(&format!("\n  declined for {reason}: {lines}"));
        }
        text
    }

    /// How long lines took, by the region that they entered at. One that no line entered at is left out: nothing took no time.
    fn latencies(&self) -> Table {
        let mut table = Table::new(["entered at", "lines", "p50", "p95", "p99", "longest"]);
        let mut row = |name: &str, lines: u64, latency: &Latency| {
            if lines > 0 {
                let Latency { p50_us, p95_us, p99_us, max_us } = *latency;
                table.row([name.to_owned(), lines.to_string(), micros(p50_us), micros(p95_us), micros(p99_us), micros(max_us)]);
            }
        };
        self.by_region.iter().for_each(|(region, entry)| row(region.as_str(), entry.lines, &entry.latency));
        row("all", self.by_region.values().map(|entry| entry.lines).sum(), &self.latency);
        table
    }

    /// Prints the first declined lines.
    pub(crate) fn say_declined(&self) {
        for ListedLine { line, reason } in self.declined_lines.iter().take(DECLINED_SHOWN_MAX) {
            say!("line {line}: declined for {reason}");
        }
        let declined = self.declined_lines.len() as u64 + self.declined_lines_not_listed;
        let more = declined.saturating_sub(DECLINED_SHOWN_MAX as u64);
        if more > 0 {
            say!("and {more} more declined lines; --json lists up to {LINES_LISTED_MAX}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declined(replay: bool) -> Outcome {
        let end = End::Declined { reason: "INSUFFICIENT_FUNDS".to_owned(), replay };
        Outcome { region: None, end, took: Duration::ZERO, kind: Some("payment"), moved: None, position: None }
    }

    #[test]
    fn the_reasons_add_up_to_the_declined_and_to_the_replays_that_had_been() {
        let mut first = Counts::new(Tally::default(), std::iter::empty());
        first.add(2, &declined(false));
        first.add(3, &declined(false));
        let before = first.overall();
        assert_eq!(
            first.report(true, Duration::from_secs(1)).summary(),
            "2 lines: 0 accepted, 0 replays, 2 declined, 0 failed\n  declined for INSUFFICIENT_FUNDS: 2"
        );
        // A run that goes on after those, and comes to lines that an earlier one had sent.
        let mut counts = Counts::new(before, std::iter::empty());
        counts.add(4, &declined(true));
        let end = End::Accepted { replay: true };
        counts.add(5, &Outcome { end, ..declined(true) });
        counts.add(6, &declined(false));
        let report = counts.report(true, Duration::from_secs(1));
        assert_eq!(
            report.summary(),
            "5 lines: 0 accepted, 2 replays, 3 declined, 0 failed\n  2 of them by earlier runs of the same file\n  \
             replays were answered before this run, and changed nothing; 1 of them had been declined\n  \
             declined for INSUFFICIENT_FUNDS: 4"
        );
        let json = serde_json::to_value(&report).expect("it is plain");
        let of = |name: &str| json[name].as_u64().expect("a number");
        assert_eq!(json["declines"]["INSUFFICIENT_FUNDS"].as_u64(), Some(of("declined") + of("replays_declined")));
        assert_eq!(of("lines"), of("accepted") + of("replays") + of("declined") + of("failed"));
        assert_eq!((of("declined_lines_not_listed"), json["declined_lines"].as_array().map(Vec::len)), (0, Some(2)), "of this run");
    }

    #[test]
    fn a_region_that_no_line_entered_at_has_no_latency() {
        let region = |name: &str| name.parse::<RegionName>().expect("a region's name");
        let mut counts = Counts::new(Tally::default(), ["eu_west", "us_east"].map(region).into_iter());
        let nothing = Counts::new(Tally::default(), [region("eu_west")].into_iter()).report(true, Duration::from_secs(1));
        assert!(nothing.latencies().is_empty(), "nothing was sent");
        let end = End::Accepted { replay: false };
        let took = Duration::from_micros(700);
        counts.add(1, &Outcome { region: Some(region("us_east")), end, took, kind: Some("deposit"), moved: None, position: None });
        let table = counts.report(true, Duration::from_secs(1)).latencies().to_string();
        assert!(table.contains("us_east") && table.contains("700 us") && !table.contains("eu_west"), "{table}");
    }
}
