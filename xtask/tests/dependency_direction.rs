//! Crates depend only downwards, services never on each other, and the pure crates on nothing that could make them impure.
//!
//! The table below is the architecture. An edge that it does not allow is either a mistake or a change of the design, and
//! then an ADR in `docs/adr/` changes the table with it.

#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Each library and the libraries of ours that it may name.
const CRATES: &[(&str, &[&str])] = &[
    ("paymesh-types", &[]),
    ("paymesh-telemetry", &[]),
    // Bytes with an end: it knows nothing of what they are.
    ("paymesh-cache", &[]),
    // Card numbers: they are in no message but the vault's, and in nothing that prints.
    ("paymesh-cards", &["paymesh-types"]),
    ("paymesh-contract", &["paymesh-types"]),
    // Who is who, by certificates: it knows names, and neither sockets' users nor what they may do.
    ("paymesh-identity", &["paymesh-types"]),
    // For those who call the mesh: it knows the contract, and nothing of how the mesh is made.
    ("paymesh-client", &["paymesh-types", "paymesh-cards", "paymesh-contract", "paymesh-identity"]),
    // The map, and the rules by which cards go to gateways: of cards, it knows their brands.
    ("paymesh-topology", &["paymesh-types", "paymesh-cards"]),
    // What a mesh needs and costs, of what region-config says: it reads nothing itself.
    ("paymesh-planning", &["paymesh-topology"]),
    // The outside: acquirers over HTTP. Both who has a card's number and who has the payment's books use it, so it knows neither the contract nor the mesh.
    ("paymesh-acquirers", &["paymesh-types", "paymesh-cards", "paymesh-identity", "paymesh-topology"]),
    // For the mesh, which records calls there: it knows words and the contract, and nothing of calls.
    ("paymesh-audit", &["paymesh-types", "paymesh-contract"]),
    // Who callers are and what they may do: it knows methods and principals, and what an audit log calls them; neither calls nor books.
    ("paymesh-access", &["paymesh-types", "paymesh-contract", "paymesh-audit", "paymesh-identity", "paymesh-topology"]),
    ("paymesh-ledger", &["paymesh-types"]),
    ("paymesh-journal", &["paymesh-types", "paymesh-contract", "paymesh-ledger"]),
    ("paymesh-shard", &["paymesh-types", "paymesh-contract", "paymesh-ledger", "paymesh-journal"]),
    // The mesh carries bytes: it knows the contract and the map, and nothing of books.
    ("paymesh-mesh", &["paymesh-types", "paymesh-contract", "paymesh-access", "paymesh-audit", "paymesh-identity", "paymesh-topology"]),
];

/// Edges that only tests may have. Libraries speak to the facades (`tracing`, `metrics`); a test of what is seen there may set
/// telemetry up.
const FOR_TESTS_ONLY: &[(&str, &str)] = &[("paymesh-mesh", "paymesh-telemetry")];

/// The binary: the only package that may name services, because it puts them together.
const COMPOSITION_ROOT: &str = "paymesh";

/// Packages that look at the others from outside. They may name libraries; nothing may name them.
const OUTSIDE: &[&str] = &["bench", "paymesh-fuzz", "xtask"];

/// Libraries without I/O, clock, randomness or async, and what would bring these in.
const PURE: &[&str] = &["paymesh-types", "paymesh-cards", "paymesh-ledger", "paymesh-planning"];
const IMPURE_DEPENDENCIES: &[&str] =
    &["tokio", "futures", "async-trait", "tonic", "hyper", "sqlx", "tracing", "metrics", "rand", "getrandom", "jiff", "tempfile"];
const IMPURE_PATHS: &[&str] =
    &["std::fs", "std::net", "std::io", "std::env", "std::thread", "std::process", "SystemTime", "Instant", "now_v7", "new_v4", "async fn"];

/// A package of the workspace.
struct Package {
    folder: PathBuf,
    /// Names of dependencies, with their kinds: normal, dev or build.
    dependencies: Vec<(String, String)>,
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let dependencies = list(&package["dependencies"])
                .iter()
                .map(|dependency| (text(&dependency["name"]), dependency["kind"].as_str().unwrap_or("normal").to_owned()))
                .collect();
            let folder = manifest.parent().expect("a manifest lies in a folder").to_owned();
            (text(&package["name"]), Package { folder, dependencies })
        })
        .collect()
}

fn is_service(package: &Package) -> bool {
    package.folder.parent().is_some_and(|parent| parent.ends_with("services"))
}

/// Why one package may not name another, or `None` when it may.
fn objection(packages: &BTreeMap<String, Package>, from: &str, to: &str) -> Option<String> {
    let crates: BTreeMap<_, _> = CRATES.iter().copied().collect();
    if OUTSIDE.contains(&to) {
        return Some(format!("{to} looks at the others from outside, so nothing may depend on it"));
    }
    if to == COMPOSITION_ROOT {
        return Some(format!("{to} puts all the parts together, so nothing may depend on it"));
    }
    if let Some(allowed) = crates.get(from) {
        return (!allowed.contains(&to)).then(|| format!("{from} may depend on {allowed:?} only: crates depend downwards"));
    }
    let library = crates.contains_key(to);
    if OUTSIDE.contains(&from) {
        return (!library).then(|| format!("{from} may depend on libraries only"));
    }
    if from == COMPOSITION_ROOT || library {
        return None;
    }
    is_service(&packages[from]).then(|| "services never import each other: they meet through generated clients".to_owned())
}

#[test]
fn crates_depend_only_downwards_and_services_never_on_each_other() {
    let packages = packages();
    let mut wrong = Vec::new();
    for (from, package) in &packages {
        for (to, kind) in &package.dependencies {
            // A crate may name itself in its tests, to turn a feature on.
            if packages.contains_key(to)
                && to != from
                && !(kind == "dev" && FOR_TESTS_ONLY.contains(&(from.as_str(), to.as_str())))
                && let Some(why) = objection(&packages, from, to)
            {
                wrong.push(format!("{from} -> {to} ({kind} dependency): {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies that the design does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn every_package_has_its_place_in_the_design() {
    let packages = packages();
    let placed: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).chain(OUTSIDE.iter().copied()).chain([COMPOSITION_ROOT]).collect();
    for (name, package) in &packages {
        assert!(
            placed.contains(name.as_str()) || is_service(package),
            "{name} ({}) has no place in the table of this test",
            package.folder.display()
        );
    }
    for name in placed {
        assert!(packages.contains_key(name), "the table of this test names {name}, which is no package");
    }
}

#[test]
fn the_table_itself_points_downwards() {
    // Each row names only rows above it, so no cycle can be written down.
    for (row, (name, allowed)) in CRATES.iter().enumerate() {
        for lower in *allowed {
            assert!(CRATES.iter().take(row).any(|(above, _)| above == lower), "{name} -> {lower} points up");
        }
    }
}

#[test]
fn pure_crates_have_no_io_no_clock_no_randomness_and_no_async() {
    let packages = packages();
    for name in PURE {
        let package = &packages[*name];
        for (dependency, kind) in &package.dependencies {
            assert!(
                kind != "normal" || !IMPURE_DEPENDENCIES.contains(&dependency.as_str()),
                "{name} is pure (time and randomness are arguments) and must not depend on {dependency}"
            );
        }
        let mut files = Vec::new();
        rust_files(&package.folder.join("src"), &mut files);
        assert!(!files.is_empty(), "{name} has no sources");
        for file in files {
            let text = fs::read_to_string(&file).expect("sources are UTF-8");
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for path in IMPURE_PATHS {
                    let named = code.match_indices(path).any(|(at, _)| {
                        let outside = |character: Option<char>| character.is_none_or(|it| !it.is_alphanumeric() && it != '_');
                        outside(code[..at].chars().next_back()) && outside(code[at + path.len()..].chars().next())
                    });
                    assert!(!named, "{}:{}: {name} is pure and must not use {path}", file.display(), number + 1);
                }
            }
        }
    }
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}
