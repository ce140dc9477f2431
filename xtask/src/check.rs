//! `cargo xtask test`, which is what CI runs, and `cargo xtask soak`.
//!
//! One set of packages and features is used throughout ([`WORKSPACE`]), so that clippy and the documentation share one
//! build, and the tests and the played trace another.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::{
    foreign,
    process::{cargo, command, read, root, run as run_program},
    steps::{self, Outcome, Step},
    terraform,
    tools::{BUF, CARGO_DENY, KUBERNETES_VALIDATE, LOCALSTRIPE, SOFTHSM},
    trace,
};

/// What every build of the workspace is asked for.
pub(crate) const WORKSPACE: [&str; 4] = ["--workspace", "--locked", "--features", "xtask/play,paymesh/pkcs11"];

/// The system that nodes run on: `deny.toml` checks for it.
pub(crate) const NODE_TARGET: &str = "x86_64-unknown-linux-gnu";

const SETUP: Step = ("set-up", set_up);
const FORMAT: Step = ("formatting", format);
const CONTRACT_LINT: Step = ("contract: lint", contract_lint);
const CONTRACT_BREAKING: Step = ("contract: breaking", contract_breaking);
const DEPENDENCIES: Step = ("dependencies", dependencies);
const CLIPPY: Step = ("clippy", clippy);
const DOCUMENTATION: Step = ("documentation", documentation);
const DOC_TESTS: Step = ("documentation tests", documentation_tests);
const TESTS: Step = ("tests", tests);
const TRACE: Step = ("bank trace", bank_trace);
const TERRAFORM: Step = ("terraform", terraform::run);
const FOREIGN: Step = ("foreign clients", foreign::run);

/// Everything that CI checks, or the part that a quick look wants.
pub(crate) fn run(quick: bool, keep_going: bool) -> Result<()> {
    if quick {
        println!("quick: breaking changes, dependencies, documentation, terraform, the bank trace and foreign clients are left out");
        steps::run(&[SETUP, FORMAT, CONTRACT_LINT, CLIPPY, TESTS], keep_going)
    } else {
        // The tests come late because they take longest, and after the documentation's own, so that theirs is the count
        // that a reader finds at the end.
        let all = [
            SETUP,
            FORMAT,
            CONTRACT_LINT,
            CONTRACT_BREAKING,
            DEPENDENCIES,
            CLIPPY,
            DOCUMENTATION,
            DOC_TESTS,
            TESTS,
            TERRAFORM,
            TRACE,
            FOREIGN,
        ];
        steps::run(&all, keep_going)
    }
}

/// The tests in their longer forms, round after round.
pub(crate) fn soak(minutes: u64, filter: Option<&str>) -> Result<()> {
    let begun = Instant::now();
    let until = Duration::from_secs(minutes * 60);
    let mut round = 0_u64;
    while round == 0 || begun.elapsed() < until {
        round += 1;
        println!("\n=== soak: round {round}, {} of {minutes} minutes gone ===", begun.elapsed().as_secs() / 60);
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(round, |now| now.as_secs());
        println!("SEED={seed}");
        run_tests(filter, Some(seed)).with_context(|| format!("round {round}, SEED={seed}"))?;
    }
    println!("\nsoak: {round} rounds, nothing failed");
    Ok(())
}

fn set_up() -> Result<Outcome> {
    if read(cargo().args(["fmt", "--version"])).is_err() || read(cargo().args(["clippy", "--version"])).is_err() {
        run_program(command("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
    }
    if read(command("cc").arg("--version")).is_err() {
        bail!("no C compiler: SQLite and zstd are built from source and need `cc` (a package such as gcc or clang)");
    }
    // Fetched here, so that whatever fails later is not the network.
    run_program(cargo().args(["fetch", "--locked", "--target", NODE_TARGET]))?;
    Ok(Outcome::PassedWith(read(command("rustc").arg("--version"))?))
}

fn format() -> Result<Outcome> {
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::Passed)
}

fn contract_lint() -> Result<Outcome> {
    let buf = match BUF.find() {
        Ok(buf) => buf,
        Err(why) => return Ok(Outcome::Skipped(format!("{why:#}"))),
    };
    run_program(command(buf).args(["lint", "proto"]))?;
    Ok(Outcome::Passed)
}

fn contract_breaking() -> Result<Outcome> {
    let Some(base) = contract_base() else {
        return Ok(Outcome::PassedWith("no earlier commit on main holds proto/: nothing to break".into()));
    };
    let buf = match BUF.find() {
        Ok(buf) => buf,
        Err(why) => return Ok(Outcome::Skipped(format!("{why:#}"))),
    };
    // A work tree beside its repository keeps its objects elsewhere.
    let git = read(command("git").args(["rev-parse", "--path-format=absolute", "--git-common-dir"]))?;
    run_program(command(buf).args(["breaking", "proto", "--against", &format!("{git}#format=git,ref={base},subdir=proto")]))?;
    Ok(Outcome::PassedWith(format!("against {}", base.get(..12).unwrap_or(&base))))
}

/// The commit whose contract callers may hold already: the last on main; where that is what is checked out, unchanged, the
/// one before it.
fn contract_base() -> Option<String> {
    let commit = |name: &str| read(command("git").args(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])).ok();
    let holds_contract = |commit: &String| read(command("git").args(["cat-file", "-e", &format!("{commit}:proto/buf.yaml")])).is_ok();
    let main = commit("origin/main").or_else(|| commit("main"))?;
    let unchanged = read(command("git").args(["diff", "--quiet", &main, "--", "proto"])).is_ok();
    let base = if unchanged { commit(&format!("{main}~1"))? } else { main };
    Some(base).filter(holds_contract)
}

fn dependencies() -> Result<Outcome> {
    let deny = match CARGO_DENY.find() {
        Ok(deny) => deny,
        Err(why) => return Ok(Outcome::Skipped(format!("{why:#}"))),
    };
    run_program(command(deny).args(["--locked", "--offline", "check", "licenses", "bans", "sources"]))?;
    Ok(Outcome::PassedWith("advisories need the network and are not checked here".into()))
}

fn clippy() -> Result<Outcome> {
    run_program(cargo().arg("clippy").args(WORKSPACE).args(["--all-targets", "--", "-D", "warnings"]))?;
    Ok(Outcome::Passed)
}

fn documentation() -> Result<Outcome> {
    run_program(cargo().env("RUSTDOCFLAGS", "-D warnings").arg("doc").args(WORKSPACE).arg("--no-deps"))?;
    Ok(Outcome::Passed)
}

fn documentation_tests() -> Result<Outcome> {
    run_program(cargo().args(["test", "--doc"]).args(WORKSPACE))?;
    Ok(Outcome::Passed)
}

fn tests() -> Result<Outcome> {
    run_tests(None, None)?;
    let kubectl = read(command("kubectl").args(["version", "--client"])).map(drop);
    let found = [
        ("localstripe", LOCALSTRIPE.find().map(drop)),
        ("SoftHSM2", SOFTHSM.find().map(drop)),
        ("kubernetes-validate", KUBERNETES_VALIDATE.find().map(drop)),
        ("kubectl", kubectl),
    ];
    let missing: Vec<String> =
        found.into_iter().filter_map(|(name, found)| Some(format!("SKIPPED: what needs {name}: {:#}", found.err()?))).collect();
    Ok(if missing.is_empty() { Outcome::Passed } else { Outcome::PassedWith(missing.join("; ")) })
}

fn bank_trace() -> Result<Outcome> {
    match trace::default_trace()? {
        Some(trace) => {
            trace::play(Some(trace), false, None)?;
            Ok(Outcome::Passed)
        }
        None => Ok(Outcome::Skipped(format!("no trace: PAYMESH_TRACE is not set, and there is no {}", trace::DEFAULT_TRACE))),
    }
}

/// Cases of each property test, and seeds of each seeded one, in a soak.
const SOAK_CASES: &str = "4096";
const SOAK_SEEDS: &str = "1000";

/// Runs all tests, or those whose names contain `filter`; in their longer forms with `soak`, their seed. cargo-nextest is faster where it is installed, and is
/// not needed.
fn run_tests(filter: Option<&str>, soak: Option<u64>) -> Result<()> {
    let nextest = read(cargo().current_dir(root()).args(["nextest", "--version"])).is_ok();
    let mut tests = cargo();
    if nextest {
        tests.args(["nextest", "run"]).args(WORKSPACE).arg("--no-fail-fast").args(filter);
    } else {
        tests.arg("test").args(WORKSPACE).args(["--all-targets", "--no-fail-fast"]).args(filter);
    }
    // Where it cannot be had, what needs it says so, and is skipped.
    if let Ok(localstripe) = LOCALSTRIPE.find() {
        tests.env("PAYMESH_LOCALSTRIPE", localstripe);
    }
    if let Ok(softhsm) = SOFTHSM.find() {
        tests.env("PAYMESH_SOFTHSM", softhsm);
    }
    if let Ok(validate) = KUBERNETES_VALIDATE.find() {
        tests.env("PAYMESH_KUBERNETES_VALIDATE", validate);
    }
    if let Some(seed) = soak {
        tests.env("PAYMESH_SOAK", "1").env("SEED", seed.to_string());
        tests.env("PROPTEST_CASES", SOAK_CASES).env("PAYMESH_TEST_SEEDS", SOAK_SEEDS);
    }
    run_program(&mut tests)
}
