//! `cargo xtask fuzz`: runs the targets of `fuzz/` under cargo-fuzz.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process::{command, read, root, run as run_program, target_folder},
    tools::{CARGO_FUZZ, cache_folder},
};

/// Runs one target, or all of them in turn, `seconds` each.
///
/// # Errors
///
/// No nightly toolchain, no cargo-fuzz, no such target, or an input that fails.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> Result<()> {
    let targets = targets()?;
    if let Some(target) = target {
        ensure!(targets.iter().any(|name| name == target), "no fuzz target `{target}`: there are {}", targets.join(", "));
    }
    let toolchains = read(command("rustup").args(["toolchain", "list"])).context("fuzzing needs rustup and a nightly toolchain")?;
    ensure!(toolchains.lines().any(|line| line.starts_with("nightly")), "fuzzing needs nightly: run `rustup toolchain install nightly`");
    let tools = driver()?;
    let build = target_folder()?.join("fuzz");
    for name in targets.iter().filter(|name| target.is_none_or(|target| target == *name)) {
        println!("\n=== fuzz {name}, {seconds} s ===");
        let begun = Instant::now();
        // libFuzzer writes what it finds to the first folder: not to the seeds, which are part of the project.
        let found = cache_folder()?.join("corpus").join(name);
        let artifacts = build.join("artifacts").join(name);
        for folder in [&found, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        }
        let seeds = root().join("fuzz/corpus").join(name);
        let mut fuzz = command("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "fuzz", "--features", "libfuzzer", "--target-dir"]);
        fuzz.arg(&build).arg(name).arg(&found);
        if seeds.is_dir() {
            fuzz.arg(seeds);
        }
        fuzz.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", artifacts.display()));
        fuzz.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        // Link-time optimisation takes minutes and finds nothing.
        fuzz.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        // cargo passes its own toolchain down, which would win over the one asked for.
        fuzz.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC").env("PATH", &tools);
        run_program(&mut fuzz).with_context(|| format!("target {name}; an input that failed is in {}", artifacts.display()))?;
        println!("--- fuzz {name}: nothing found in {:.0?}", begun.elapsed());
    }
    Ok(())
}

/// PATH with cargo-fuzz on it, which is fetched, or else built, when it is missing.
fn driver() -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let with = |folder: &Path| {
        std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path))).context("PATH cannot be extended")
    };
    match CARGO_FUZZ.find() {
        Ok(program) => match program.parent().filter(|folder| folder.is_absolute()) {
            Some(folder) => with(folder),
            None => Ok(path),
        },
        Err(why) => {
            println!("{why:#}: building cargo-fuzz instead");
            let folder = cache_folder()?.join("cargo-fuzz");
            run_program(
                command("rustup")
                    .env_remove("CARGO")
                    .args(["run", "nightly", "cargo", "install", "--locked", "--root"])
                    .arg(&folder)
                    .arg("cargo-fuzz"),
            )?;
            with(&folder.join("bin"))
        }
    }
}

/// The targets there are: one for each file in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if let (Some(name), Some("rs")) = (path.file_stem().and_then(|name| name.to_str()), path.extension().and_then(|end| end.to_str())) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        bail!("{} holds no fuzz targets", folder.display());
    }
    names.sort();
    Ok(names)
}
