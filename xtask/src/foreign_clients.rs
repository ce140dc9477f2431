//! Has programs that know nothing of paymesh call a mesh of it in TLS; `cargo xtask test` builds this, finds the programs and runs it.
//!
//! Promises: whatever it starts is stopped before it ends, its files are removed, and it exits with 0 only if every program that it was
//! given found what it should. Left to others: which programs there are (`foreign.rs`), and what strangers of our own making get
//! (`services/paymesh/tests/mesh/strangers.rs`).

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks through its output")]

#[path = "foreign_clients/load.rs"]
mod load;
#[path = "foreign_clients/python.rs"]
mod python;
#[path = "foreign_clients/scan.rs"]
mod scan;

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::{io::AsyncWriteExt as _, process::Command};
use xtask::mesh::{Connections, Mesh};

/// Where callers enter: users of the zone `eu` have another home.
const ENTRANCE: &str = "us_west";
/// Another country than the entrance's.
const COUNTRY: &str = "DE";

/// Has programs that know nothing of paymesh call a mesh of it
///
/// `cargo xtask test` builds what this needs and runs it. Programs that are not given are left out.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Arguments {
    /// The paymesh binary
    #[arg(long)]
    paymesh: PathBuf,
    /// The configuration to take regions, zones and callers from; the ports are replaced with free ones
    #[arg(long)]
    config: PathBuf,
    /// The folder of the contract, for stubs in Python
    #[arg(long)]
    proto: PathBuf,
    /// The example in Python
    #[arg(long)]
    example: PathBuf,
    /// The folder with Python's packages grpcio and grpcio-tools
    #[arg(long)]
    python_packages: Option<PathBuf>,
    /// OpenSSL's program
    #[arg(long)]
    openssl: Option<PathBuf>,
    /// A scanner of what a TLS server takes
    #[arg(long)]
    sslscan: Option<PathBuf>,
    /// Another, which takes longer
    #[arg(long)]
    testssl: Option<PathBuf>,
    /// nghttp2's load generator
    #[arg(long)]
    h2load: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("foreign-clients: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    // Dropped last, after the mesh: what a node still writes has a place to go to.
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let mut mesh = Mesh::start(&arguments.paymesh, &arguments.config, folder.path(), Connections::Tls)?;
    let outcome = call(&mut mesh, &arguments, folder.path()).await;
    let stopped = mesh.stop().await;
    if outcome.is_err() || stopped.is_err() {
        mesh.show_log();
    }
    outcome.and(stopped)
}

async fn call(mesh: &mut Mesh, arguments: &Arguments, folder: &std::path::Path) -> Result<()> {
    mesh.wait_until_ready().await?;
    if let Some(packages) = &arguments.python_packages {
        timed("python", python::pay(mesh, packages, &arguments.proto, &arguments.example, folder)).await?;
    }
    if let Some(openssl) = &arguments.openssl {
        timed("openssl", scan::openssl(mesh, openssl)).await?;
    }
    if let Some(sslscan) = &arguments.sslscan {
        timed("sslscan", scan::sslscan(mesh, sslscan)).await?;
    }
    if let Some(testssl) = &arguments.testssl {
        timed("testssl", scan::testssl(mesh, testssl, folder)).await?;
    }
    if let Some(h2load) = &arguments.h2load {
        timed("h2load", load::h2load(mesh, h2load, folder)).await?;
    }
    Ok(())
}

async fn timed(name: &str, part: impl Future<Output = Result<()>>) -> Result<()> {
    println!("\n{name}:");
    let begun = Instant::now();
    // Boxed: what is held across the waits of all parts need not be one future.
    Box::pin(part).await.with_context(|| name.to_owned())?;
    println!("{name}: ok, {:.1?}", begun.elapsed());
    Ok(())
}

/// How a program ended, and all that it said.
struct Ended {
    success: bool,
    text: String,
}

impl Ended {
    fn succeeded(self) -> Result<String> {
        ensure!(self.success, "it failed: {}", self.text.trim());
        Ok(self.text)
    }

    fn says(&self, words: &str) -> Result<()> {
        ensure!(self.text.contains(words), "it does not say `{words}`: {}", self.text.trim());
        Ok(())
    }
}

/// Runs a program to its end with this as its standard input. It is killed where it takes longer.
async fn ended(mut command: std::process::Command, input: &[u8], time_max: Duration) -> Result<Ended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = PathBuf::from(command.get_program());
    let mut child =
        Command::from(command).kill_on_drop(true).spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    let mut stdin = child.stdin.take().context("a program without standard input")?;
    // Short enough for a pipe; whoever does not read it may end first.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = tokio::time::timeout(time_max, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{} has not ended within {time_max:?}", program.display()))??;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(Ended { success: output.status.success(), text })
}
