//! `cargo xtask bank-trace` and `cargo xtask play-trace`.

use std::{
    env,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use xtask::bank_trace::Trace;

use crate::{
    check::WORKSPACE,
    process::{cargo, command, root, run as run_program, target_folder},
};

/// The trace that is played when none is named, from the workspace's root.
pub(crate) const DEFAULT_TRACE: &str = "../shared/data/bank-trace.csv";

/// Converts a trace to a submit file.
///
/// # Errors
///
/// Those of [`Trace::read`] and [`Trace::write_submit`], with the file's name; nothing is written for a trace with errors.
pub(crate) fn convert(input: &Path, output: &Path) -> Result<()> {
    let file = File::open(input).with_context(|| format!("{} cannot be opened", input.display()))?;
    let trace = Trace::read(file).with_context(|| input.display().to_string())?;
    let file = File::create(output).with_context(|| format!("{} cannot be created", output.display()))?;
    trace.write_submit(BufWriter::new(file)).with_context(|| output.display().to_string())?;
    println!("{}", trace.summary());
    println!("{} is ready for `paymesh submit`", output.display());
    Ok(())
}

/// The trace to play when none is named: `$PAYMESH_TRACE`, or the default where it exists.
///
/// # Errors
///
/// `$PAYMESH_TRACE` names no file.
pub(crate) fn default_trace() -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os("PAYMESH_TRACE").filter(|path| !path.is_empty()).map(PathBuf::from) {
        ensure!(path.is_file(), "PAYMESH_TRACE names {}, which is no file", path.display());
        return Ok(Some(path));
    }
    let path = root().join(DEFAULT_TRACE);
    Ok(path.is_file().then_some(path))
}

/// Builds the mesh and plays a trace through it.
///
/// # Errors
///
/// The build failed, or the program that plays the trace found a difference; it has said which.
pub(crate) fn play(trace: Option<PathBuf>, release: bool, keep: Option<PathBuf>) -> Result<()> {
    let trace = match trace {
        Some(trace) => std::path::absolute(&trace).with_context(|| trace.display().to_string())?,
        None => match default_trace()? {
            Some(trace) => trace,
            None => bail!("no trace to play: name one, or set PAYMESH_TRACE ({DEFAULT_TRACE} does not exist)"),
        },
    };
    let mut build = cargo();
    build.arg("build").args(WORKSPACE).args(["--bin", "paymesh", "--bin", "play-trace"]);
    if release {
        build.arg("--release");
    }
    run_program(&mut build)?;
    let programs = target_folder()?.join(if release { "release" } else { "debug" });
    let mut play = command(programs.join("play-trace"));
    play.arg(&trace).arg("--paymesh").arg(programs.join("paymesh")).arg("--config").arg(root().join("region-config/regions.yaml"));
    if let Some(keep) = keep {
        play.arg("--keep").arg(std::path::absolute(keep)?);
    }
    run_program(&mut play)
}
