//! The load: what a client process is told to do and what it reports.
//!
//! The client is a process of its own, so that its work is not counted as the server's and no memory is shared. Every
//! server compared gets the same client with the same [`Plan`]. The loop is closed, a new call starts when one has ended, but
//! for [`Mode::Paced`] and [`Pace::Timed`].

mod cards;
mod charges;
mod client;
mod enrol;
mod pace;
mod payments;
mod stream;
mod unary;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use cards::CARDS_PER_USER_MAX;
pub(crate) use client::{main, run};
pub(crate) use pace::Pace;
pub(crate) use payments::Payments;

/// How long a client may run past its planned end before it gives up, in seconds.
const OVERTIME_SECONDS: u64 = 120;

/// The currency of every payment.
pub(crate) const CURRENCY: &str = "EUR";

/// What every account starts with, in minor units: enough for millions of payments of [`PAYMENT_MINOR_MAX`].
pub(crate) const DEPOSIT_MINOR: i64 = 10_000_000_000;

/// The largest payment, in minor units.
pub(crate) const PAYMENT_MINOR_MAX: i64 = 100;

/// The user who is the hot payee, and the first of all users.
pub(crate) const FIRST_USER: u64 = 1;

/// How a server that wants TLS and a token is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Security {
    /// The directory of the mesh's credentials.
    pub(crate) credentials: PathBuf,
    /// What every call shows.
    pub(crate) token: String,
}

/// What a client process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The server: `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// What the client believes and shows. `None`: it calls in plain text, and shows nothing.
    pub(crate) security: Option<Security>,
    /// HTTP/2 connections; calls are dealt out over them in turn.
    pub(crate) connections: usize,
    /// Users are [`FIRST_USER`] and the `accounts - 1` that follow.
    pub(crate) accounts: u64,
    /// Seeds payers, payees, amounts and request ids.
    pub(crate) seed: u64,
    /// The calls.
    pub(crate) work: Work,
}

/// The calls of a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Enrol every user with one account and pay a deposit in.
    Enrol {
        /// Calls in flight.
        in_flight: usize,
        /// Country of residence.
        country: String,
    },
    /// Payments for some time.
    Pay {
        /// How they are sent.
        mode: Mode,
        /// Who is paid.
        payees: Payees,
        /// Time before measuring, in milliseconds.
        warm_up_ms: u64,
        /// Time of measuring, in milliseconds.
        measure_ms: u64,
    },
}

impl Work {
    /// How long payments are made, in seconds, rounded up.
    fn seconds(&self) -> u64 {
        match self {
            Self::Enrol { .. } => 0,
            Self::Pay { warm_up_ms, measure_ms, .. } => (warm_up_ms + measure_ms).div_ceil(1_000),
        }
    }
}

/// How payments are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// One StreamPayments call, batches of `batch`, `in_flight` of them unanswered at a time.
    Stream {
        /// Payments of a batch.
        batch: usize,
        /// Batches in flight.
        in_flight: usize,
    },
    /// One StreamPayments call, batches of `batch` sent at their times, whether those before are answered or not.
    Paced {
        /// Payments of a batch.
        batch: usize,
        /// Payments a second.
        rate: u64,
    },
    /// CreatePayment, `in_flight` calls at a time.
    Unary {
        /// Calls in flight.
        in_flight: usize,
    },
    /// CreatePayment by card, captured at once.
    Card {
        /// When payments begin.
        pace: Pace,
    },
    /// The same charges straight at the acquirer: an authorization, and the capture of it.
    Charge {
        /// When authorizations begin.
        pace: Pace,
    },
    /// Tokenize, each a card that its user does not have.
    Tokenize {
        /// Calls in flight.
        in_flight: usize,
        /// Whether cards are sealed to the vault's key, which is done before anything is measured.
        sealed: bool,
    },
}

impl Mode {
    /// The name in tables, such as `stream 8192`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Stream { batch, .. } => format!("stream {batch}"),
            Self::Paced { batch, rate } => format!("stream {batch} at {rate}/s"),
            Self::Unary { in_flight } => format!("unary {in_flight}"),
            // One load, at two sides.
            Self::Card { pace } | Self::Charge { pace } => format!("card {}", pace.name()),
            Self::Tokenize { in_flight, sealed: false } => format!("tokenize {in_flight}"),
            Self::Tokenize { in_flight, sealed: true } => format!("tokenize sealed {in_flight}"),
        }
    }
}

/// Who is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Payees {
    /// Anybody, each as likely as the other.
    Uniform,
    /// [`FIRST_USER`] in half of the payments, anybody in the other half.
    Hot,
}

/// A line that the client writes to stdout.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// Users enrolled so far.
    Done(u64),
    /// The end.
    Report(Report),
    /// The end, too early: why.
    Failed(String),
}

/// What a client measured. Rates are payments (users, when enrolling) a second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Answers of the whole run, warm-up included.
    pub(crate) answered: u64,
    /// Answers a second between the first and the last answer of the measured time.
    pub(crate) rate: f64,
    /// Median time of a call (of a batch, for streams), in microseconds.
    pub(crate) p50_us: u64,
    /// 99th percentile of it, in microseconds.
    pub(crate) p99_us: u64,
    /// The longest, in microseconds.
    pub(crate) max_us: u64,
    /// When the first call began: microseconds since 1970.
    pub(crate) began_us: u64,
    /// When the last answer came: microseconds since 1970.
    pub(crate) ended_us: u64,
    /// The client's own CPU time, in seconds.
    pub(crate) client_cpu_seconds: f64,
    /// The client's CPU time for each request that it made ready before the first call, in microseconds: not in the above. 0 where it made none.
    pub(crate) preparation_us: f64,
}
