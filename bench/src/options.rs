//! The command line, and the program under test.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, builder::TypedValueParser as _};

use crate::load::Mode;

/// Measures a paymesh node, side by side with its peers. See bench/README.md for how to read what comes out.
#[derive(Debug, Parser)]
#[command(name = "bench", version, max_term_width = 120)]
pub(crate) struct Options {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) bench: Bench,
}

/// The benchmarks, and the processes that they start.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// decide and apply alone, in this process: no storage, no network
    Ledger(Common),
    /// A durable node over loopback gRPC, beside a bare tonic echo server; a hot payee; many accounts
    Node(Common),
    /// A node beside what a team would write first: tonic and sqlx on SQLite, one transaction per payment
    Naive(Common),
    /// The hop: at the payer's home, and by way of another region's node
    Forward(Common),
    /// An edge before a node: what it adds to a call, and what it carries
    Edge(Common),
    /// Followers: what they cost, how late they are, how they catch up; beside PostgreSQL's logical replication
    Replication(ReplicationOptions),
    /// Payments by card: what the mesh adds to the acquirer's own time; and cards taken in
    Cards(CardsOptions),
    /// The peers alone, without a node
    Peers(Common),
    /// All of them but `peers`, `replication` and `cards`, one after the other
    All(Common),
    /// (internal) a client process
    #[command(hide = true)]
    Client {
        /// What it does, as JSON.
        plan: String,
    },
    /// (internal) the naive peer
    #[command(hide = true)]
    NaiveServer {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// Where its database is made.
        #[arg(long)]
        data: PathBuf,
        /// Accounts to begin with.
        #[arg(long)]
        accounts: u64,
    },
    /// (internal) the echo peer
    #[command(hide = true)]
    EchoServer {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// What all benchmarks take.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Write everything measured into this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Times that each side runs; sides alternate
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Measured time of a run
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Time of a run before it is measured
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Accounts; the last number is compared with the first
    #[arg(long, value_delimiter = ',', default_value = "1000,1000000", value_parser = clap::value_parser!(u64).range(4..))]
    pub(crate) accounts: Vec<u64>,
    /// Shards of the node's zone; each number is measured on its own
    #[arg(long, value_delimiter = ',', default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) shards: Vec<u16>,
    /// Only these loads: stream, unary, hot, accounts, security (of the benchmark `node`)
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Payments of a batch of the stream
    #[arg(long, value_delimiter = ',', default_value = "8192,1024")]
    pub(crate) batch: Vec<usize>,
    /// Batches of a stream in flight
    #[arg(long, default_value_t = 4)]
    pub(crate) batches: usize,
    /// Unary calls in flight
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub(crate) in_flight: Vec<usize>,
    /// HTTP/2 connections of a client, for every server alike
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Seeds payers, payees and amounts
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// A folder on the disk to measure on; the system's folder for temporary files if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The node's program; built beside this one if absent
    #[arg(long, value_name = "FILE")]
    paymesh: Option<PathBuf>,
    /// Exit with 1 when a bar is missed
    #[arg(long)]
    pub(crate) enforce: bool,
}

/// What the benchmark `replication` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplicationOptions {
    /// As of all benchmarks.
    #[command(flatten)]
    pub(crate) common: Common,
    /// Followers; each number is measured on its own, 0 among them
    #[arg(long, value_delimiter = ',', default_value = "0,1,3", value_parser = clap::value_parser!(u8).range(0..8).map(usize::from))]
    pub(crate) followers: Vec<usize>,
    /// Entries that the follower is behind which catches up
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) behind: u64,
    /// Only these parts, and the rates that they are measured against
    #[arg(long, value_delimiter = ',')]
    pub(crate) sections: Vec<Section>,
    /// Leave PostgreSQL out
    #[arg(long)]
    pub(crate) without_postgres: bool,
}

/// What the benchmark `cards` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CardsOptions {
    /// As of all benchmarks.
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long each call to the acquirer takes at least; each number is measured on its own
    #[arg(long, value_delimiter = ',', default_value = "0,100", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) latency_ms: Vec<u64>,
    /// Payments a second that are made at their times, before it is known how many there can be
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    pub(crate) sections: Vec<CardsSection>,
}

/// A part of the benchmark `cards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CardsSection {
    /// Payments beside the acquirer alone.
    Charge,
    /// Cards taken in.
    Tokenize,
}

/// A part of the benchmark `replication`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Section {
    /// How late a follower is.
    Lag,
    /// How fast one catches up.
    CatchUp,
    /// Bytes on the wire.
    Wire,
    /// None of these: the rates alone.
    Rate,
}

/// A part of the benchmark `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Batches over one stream.
    Stream,
    /// One payment a call, beside the echo server.
    Unary,
    /// A payee who takes half of all payments.
    Hot,
    /// Many accounts.
    Accounts,
    /// In TLS, with a token, beside plain text.
    Security,
}

impl Common {
    /// The measured time of a run, in milliseconds.
    pub(crate) fn measure_ms(&self) -> u64 {
        milliseconds(self.seconds)
    }

    /// The time before it, in milliseconds.
    pub(crate) fn warm_up_ms(&self) -> u64 {
        milliseconds(self.warm_up)
    }

    /// Whether a part of the benchmark `node` is wanted.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The stream load with the largest batches: the first of `--batch`.
    pub(crate) fn stream(&self) -> Mode {
        Mode::Stream { batch: self.batch.first().copied().unwrap_or(1), in_flight: self.batches }
    }

    /// The fewest accounts: the first of `--accounts`.
    pub(crate) fn few(&self) -> u64 {
        self.accounts.first().copied().unwrap_or(4)
    }

    /// The most accounts, where that is another number than the fewest: the last of `--accounts`.
    pub(crate) fn many(&self) -> Option<u64> {
        self.accounts.last().copied().filter(|many| *many != self.few())
    }

    /// The node's program. A stale one would be measured without anybody noticing, so it is built each time, which takes
    /// a moment when nothing has changed.
    pub(crate) fn paymesh(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = &self.paymesh {
            ensure!(program.is_file(), "--paymesh {}: there is no such file", program.display());
            return Ok(program.clone());
        }
        let this = std::env::current_exe().context("cannot find this program's own file")?;
        let beside = this.parent().context("this program has no folder")?;
        let target = beside.parent().context("this program's folder has no parent")?;
        let profile = match beside.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        eprintln!("building the node (profile {profile}); the first time takes minutes");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--package", "paymesh", "--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .status()
            .context("cannot run cargo to build the node; give its program with --paymesh")?;
        ensure!(status.success(), "the node does not build; give its program with --paymesh");
        Ok(beside.join("paymesh"))
    }
}

fn milliseconds(seconds: f64) -> u64 {
    // Saturates: nobody measures for longer than the end of time.
    (seconds.max(0.0) * 1_000.0) as u64
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
