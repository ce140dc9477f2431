//! Plays a bank's trace through a fresh mesh and compares every balance; `cargo xtask play-trace` builds and runs it.
//!
//! Promises: whatever it starts is stopped before it ends, its data is removed unless it is to be kept, and it exits with 0
//! only if every line of every statement, the second submission and the proof of the books agree.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks through its output")]

#[path = "play_trace/compare.rs"]
mod compare;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use xtask::{
    bank_trace::Trace,
    mesh::{Connections, Mesh, Shown},
};

/// Plays a bank's trace through a fresh mesh and compares every balance
///
/// `cargo xtask play-trace` builds what this needs and runs it.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Arguments {
    /// The trace
    trace: PathBuf,
    /// The paymesh binary
    #[arg(long)]
    paymesh: PathBuf,
    /// The configuration to take regions and zones from; the ports are replaced with free ones
    #[arg(long)]
    config: PathBuf,
    /// Keep data and logs in this folder, which must not exist yet
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("play-trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let begun = Instant::now();
    let file = File::open(&arguments.trace).with_context(|| format!("{} cannot be opened", arguments.trace.display()))?;
    let trace = Trace::read(file).with_context(|| arguments.trace.display().to_string())?;
    println!("{}", trace.summary());

    // Dropped last, after the mesh: what a node still writes has a place to go to.
    let temporary = tempfile::tempdir().context("no temporary folder")?;
    let folder = match &arguments.keep {
        Some(keep) => {
            fs::create_dir(keep).with_context(|| format!("{} cannot be created", keep.display()))?;
            keep.clone()
        }
        None => temporary.path().to_owned(),
    };
    let mut submit_files = Vec::new();
    for wave in 0..trace.waves() {
        submit_files.push(folder.join(format!("trace-{wave}.submit.csv")));
        trace.write_wave(wave, File::create(&submit_files[wave])?)?;
    }

    let mut mesh = Mesh::start(&arguments.paymesh, &arguments.config, &folder, Connections::PlainText)?;
    let outcome = play(&mut mesh, &trace, &submit_files).await;
    let stopped = mesh.stop().await;
    if outcome.is_err() || stopped.is_err() {
        mesh.show_log();
    }
    outcome?;
    stopped?;
    ensure!(
        trace.contradictions.is_empty(),
        "the mesh agrees with the trace's amounts, but the trace contradicts itself at {} lines, listed above",
        trace.contradictions.len()
    );
    println!("the mesh agrees with the bank: {} rows of {} accounts in {:.1?}", trace.rows, trace.accounts.len(), begun.elapsed());
    Ok(())
}

async fn play(mesh: &mut Mesh, trace: &Trace, submit_files: &[PathBuf]) -> Result<()> {
    mesh.wait_until_ready().await?;

    let begun = Instant::now();
    submit(mesh, submit_files).await.context("the files were not accepted whole")?;
    let transfers: usize = trace.counters().values().map(|counter| counter.transfers).sum();
    println!(
        "submitted in {} waves in {:.1?}: among them {transfers} transfers, each to or from one of {} users in the other zone",
        submit_files.len(),
        begun.elapsed(),
        trace.counters().len()
    );
    compare::homes(mesh, trace).await?;

    let before = mesh.settled().await?;
    submit(mesh, submit_files).await.context("the second submission of the same files failed")?;
    let after = mesh.settled().await?;
    let grown: Vec<_> = after.iter().filter(|(shard, head)| before.get(*shard) != Some(head)).map(|(shard, _)| shard.as_str()).collect();
    ensure!(grown.is_empty() && before.len() == after.len(), "the same files changed something the second time: {}", grown.join(", "));
    println!("submitted again: none of {} journals grew", after.len());
    compare::homes(mesh, trace).await?;
    compare::copies(mesh, trace).await?;

    // Which proves the copies in other regions too.
    mesh.paymesh(["verify"], None, Shown::Always).await.context("the books do not add up")
}

/// Submits the waves, each when everything of the one before has arrived.
async fn submit(mesh: &Mesh, submit_files: &[PathBuf]) -> Result<()> {
    for (wave, file) in submit_files.iter().enumerate() {
        // The first is most of it: what is said of the others is shown only if they fail.
        let shown = if wave == 0 { Shown::Always } else { Shown::OnFailure };
        let submitted = mesh.paymesh(["submit", "--strict", "--no-progress-file"], Some(file), shown).await;
        submitted.with_context(|| file.display().to_string())?;
        mesh.settled().await?;
    }
    Ok(())
}
