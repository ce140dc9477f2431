//! The step "foreign clients": finds programs that know nothing of paymesh, and has them call a mesh of this build (`foreign_clients.rs`).

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    check::WORKSPACE,
    process::{cargo, command, on_path, root, run as run_program, target_folder},
    steps::{self, Outcome},
    tools::GRPC_PYTHON,
};

/// Programs of the system, by what the program that calls them is told, their names and the package of Debian's that has them.
const PROGRAMS: [(&str, &[&str], &str); 4] = [
    ("--openssl", &["openssl"], "openssl"),
    ("--sslscan", &["sslscan"], "sslscan"),
    ("--testssl", &["testssl", "testssl.sh"], "testssl.sh"),
    ("--h2load", &["h2load"], "nghttp2-client"),
];

/// The step by itself.
///
/// # Errors
/// A program did not find what it should.
pub(crate) fn alone() -> Result<()> {
    steps::run(&[("foreign clients", run)], false)
}

/// Runs those that are there; the outcome names the others, and why they are not.
pub(crate) fn run() -> Result<Outcome> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    let mut options: Vec<(&str, PathBuf)> = Vec::new();
    match GRPC_PYTHON.find() {
        Ok(packages) => {
            options.push(("--python-packages", packages));
            there.push("python");
        }
        Err(why) => missing.push(format!("python: {why:#}")),
    }
    for (option, names, package) in PROGRAMS {
        match names.iter().find_map(|name| on_path(name)) {
            Some(program) => {
                options.push((option, program));
                there.push(names[0]);
            }
            None => missing.push(format!("{}: apt-get install {package}", names[0])),
        }
    }
    if there.is_empty() {
        return Ok(Outcome::Skipped(missing.join("; ")));
    }
    run_program(cargo().arg("build").args(WORKSPACE).args(["--bin", "paymesh", "--bin", "foreign-clients"]))?;
    let programs = target_folder()?.join("debug");
    let mut clients = command(programs.join("foreign-clients"));
    clients.arg("--paymesh").arg(programs.join("paymesh")).arg("--config").arg(root().join("region-config/regions.yaml"));
    clients.arg("--proto").arg(root().join("proto")).arg("--example").arg(root().join("examples/python/pay.py"));
    for (option, value) in options {
        clients.arg(option).arg(value);
    }
    run_program(&mut clients)?;
    let skipped = if missing.is_empty() { String::new() } else { format!("; SKIPPED: {}", missing.join("; ")) };
    Ok(Outcome::PassedWith(format!("{}{skipped}", there.join(", "))))
}
