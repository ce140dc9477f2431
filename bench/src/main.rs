//! The peers and the side-by-side runs: `cargo run --release -p bench -- NAME`.
//!
//! Every comparison runs both sides in one invocation, alternating, with the same client process for each, and prints
//! ratios and whether the bars of the project are met. bench/README.md says how to read it.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tables and progress are what this program is for")]
#![allow(clippy::float_arithmetic, reason = "rates and ratios are statistics; money stays in integers")]

mod lab;
mod load;
mod options;
mod peers;
mod proto;
mod proxy;
mod region;
mod report;
mod runs;
mod sample;
mod server;
mod watch;

use std::{future::Future, process::ExitCode};

use clap::Parser as _;

use crate::{
    lab::Lab,
    options::{Bench, Common, Options},
    peers::{echo::Echo, naive::Naive, serve},
};

fn main() -> anyhow::Result<ExitCode> {
    match Options::parse().bench {
        Bench::Client { plan } => load::main(&plan)?,
        Bench::NaiveServer { listen, data, accounts } => run(async { serve(Naive::open(&data, accounts).await?, listen).await })?,
        Bench::EchoServer { listen } => run(serve(Echo::new(), listen))?,
        Bench::Ledger(common) => return measure("ledger", common, async |lab| runs::ledger::run(lab)),
        Bench::Node(common) => return measure("node", common, runs::node::run),
        Bench::Naive(common) => return measure("naive", common, runs::naive::run),
        Bench::Forward(common) => return measure("forward", common, runs::forward::run),
        Bench::Edge(common) => return measure("edge", common, runs::edge::run),
        Bench::Cards(options) => {
            return measure("cards", options.common.clone(), async |lab| runs::cards::run(lab, &options).await);
        }
        Bench::Replication(options) => {
            return measure("replication", options.common.clone(), async |lab| runs::replication::run(lab, &options).await);
        }
        Bench::Peers(common) => return measure("peers", common, runs::peers::run),
        Bench::All(common) => {
            return measure("all", common, async |lab| {
                runs::ledger::run(lab)?;
                runs::naive::run(lab).await?;
                runs::forward::run(lab).await?;
                runs::edge::run(lab).await?;
                runs::node::run(lab).await
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(name: &str, common: Common, bench: impl AsyncFnOnce(&mut Lab) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let mut lab = Lab::new(name, common)?;
    run(bench(&mut lab))?;
    lab.report.print();
    if let Some(path) = &lab.common.json {
        lab.report.write_json(path)?;
    }
    Ok(if lab.common.enforce && !lab.report.all_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run(what: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(what)
}
