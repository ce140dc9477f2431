//! The paymesh binary: a region's node, and the command line of its operators.
//!
//! This file parses the command line, hands over to the module of the command, and turns the result into an exit code
//! (`args::AFTER_HELP` lists them). A node is composed in `node`; everything else here is a client of running nodes
//! through the generated stubs and shares no memory with them.

#![forbid(unsafe_code)]

mod acquirer;
mod args;
mod certs;
mod clearing;
mod client;
mod demo;
mod exit;
mod node;
mod output;
mod place;
mod plan;
mod progress;
mod region;
mod render;
mod status;
mod submit;
mod supervisor;
mod token;
mod up;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Args, Command, Setting},
    exit::Exit,
};

/// A payment makes some dozens of short-lived allocations on one thread and frees many of them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let setting = Setting { config: args.config, credentials: (!args.plain_text).then_some(args.credentials) };
    let result = match args.command {
        // A node builds its own runtime: it decides how many threads it takes.
        Command::Node(node) => node::run(&setting, &node),
        Command::Vault(vault) => node::run_vault(&setting, vault),
        Command::Edge(edge) => node::edge::run(&setting, &edge),
        Command::Up(up) => on_runtime(up::run(&setting, up)),
        Command::Submit(submit) => on_runtime(submit::run(&setting, submit)),
        Command::Status(status) => on_runtime(status::run(&setting, status)),
        Command::Verify(verify) => on_runtime(verify::run(&setting, verify)),
        Command::Demo(demo) => on_runtime(demo::run(&setting, demo)),
        Command::Token(token) => token::run(&setting, &token).map(Into::into),
        Command::Certs(certs) => certs::run(&setting.config, &certs).map(Into::into),
        Command::Render { command } => render::run(&setting, &command).map(Into::into),
        Command::Acquirer(acquirer) => on_runtime(acquirer::run(acquirer)),
        Command::Region(region) => region::run(&setting, &region).map(Into::into),
        Command::Plan(what) => plan::run(&setting, &what).map(Into::into),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "paymesh", &mut std::io::stdout());
            Ok(Exit::Good.into())
        }
    };
    match result {
        // Half a result is none.
        Ok(_) if output::is_result_lost() => Exit::Failed.into(),
        Ok(code) => code,
        Err(error) => {
            note!("paymesh: {error:#}");
            exit::code_of(&error).into()
        }
    }
}

/// Runs a client command to its end.
fn on_runtime(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(command)?;
    Ok(exit.into())
}
