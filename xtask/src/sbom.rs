//! `cargo xtask sbom`: what the binary is made of, as a CycloneDX document (ECMA-424).
//!
//! Which crates there are, and which needs which, says `cargo tree` for the package of the binary alone: `cargo metadata` has the features
//! that any package of the workspace asks for. Licences are from `cargo metadata`, hashes from Cargo.lock. The document has neither a time
//! nor a random number, so that the same sources make the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::{cargo, read, root, target_folder};

/// The package of the binary.
const BINARY: &str = "paymesh";
/// The version of CycloneDX that the document follows.
const SPEC_VERSION: &str = "1.5";
/// Where released crates come from, as Cargo.lock has it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate, by name and version.
type Crate = (String, String);

/// Writes the document for the binary on `target` to `output`, or to the target folder.
///
/// # Errors
///
/// cargo cannot tell, a released crate has no checksum, or the file cannot be written.
pub(crate) fn write(target: &str, output: Option<PathBuf>) -> Result<()> {
    let output = match output {
        Some(output) => std::path::absolute(output)?,
        None => target_folder()?.join(format!("{BINARY}.cdx.json")),
    };
    let document = document(target)?;
    let components = document.get("components").and_then(Value::as_array).map_or(0, Vec::len);
    fs::write(&output, format!("{document:#}\n")).with_context(|| output.display().to_string())?;
    println!("{}: {components} components of {BINARY} for {target}, CycloneDX {SPEC_VERSION}", output.display());
    Ok(())
}

fn document(target: &str) -> Result<Value> {
    let needs = tree(target, "normal,build")?;
    let linked = tree(target, "normal,no-proc-macro")?;
    let licences = licences(target)?;
    let lock = root().join("Cargo.lock");
    let sums = checksums(&fs::read_to_string(&lock).with_context(|| lock.display().to_string())?);

    let binary = needs.keys().find(|(name, _)| name == BINARY).with_context(|| format!("there is no package {BINARY}"))?;
    let mut components = Vec::new();
    for this in needs.keys().filter(|this| *this != binary) {
        let mut component = component(this, "library", sums.get(this), licences.get(this))?;
        // A part of the binary, or only of what makes it: code that builds, and macros.
        component["scope"] = json!(if linked.contains_key(this) { "required" } else { "excluded" });
        components.push(component);
    }
    let needs: Vec<Value> =
        needs.iter().map(|(this, on)| json!({"ref": reference(this), "dependsOn": on.iter().map(reference).collect::<Vec<_>>()})).collect();
    let mut about = component(binary, "application", sums.get(binary), licences.get(binary))?;
    about["properties"] = json!([{"name": "paymesh:target", "value": target}]);
    Ok(json!({
        "$schema": format!("http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json"),
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": about},
        "components": components,
        "dependencies": needs,
    }))
}

fn component(this: &Crate, kind: &str, origin: Option<&Origin>, licence: Option<&String>) -> Result<Value> {
    let (name, version) = this;
    let origin = origin.with_context(|| format!("Cargo.lock does not have {name} {version}"))?;
    let mut component = json!({"type": kind, "bom-ref": reference(this), "name": name, "version": version});
    // In a package URL a plus is written so. Crates of ours are not released: `cargo` would be somebody else's of that name.
    let escaped = version.replace('+', "%2B");
    match origin {
        Origin::Ours => component["purl"] = json!(format!("pkg:generic/{name}@{escaped}")),
        Origin::Released { sha_256 } => {
            component["purl"] = json!(format!("pkg:cargo/{name}@{escaped}"));
            component["hashes"] = json!([{"alg": "SHA-256", "content": sha_256}]);
        }
        Origin::Elsewhere(source) => bail!("{name} {version} is from {source}, which no package URL of cargo's names"),
    }
    if let Some(licence) = licence {
        component["licenses"] = json!([{"expression": licence}]);
    }
    Ok(component)
}

fn reference(this: &Crate) -> String {
    format!("{}@{}", this.0, this.1)
}

/// What the binary's package is made with, by edges of these kinds, and what each crate needs of it.
fn tree(target: &str, edges: &str) -> Result<BTreeMap<Crate, BTreeSet<Crate>>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--offline", "--package", BINARY, "--target", target, "--edges", edges]);
    tree.args(["--prefix", "depth", "--format", " {p}", "--charset", "ascii"]);
    let mut needs: BTreeMap<Crate, BTreeSet<Crate>> = BTreeMap::new();
    let mut above: Vec<Crate> = Vec::new();
    for line in read(&mut tree)?.lines() {
        let mut words = line.split_whitespace();
        let (depth, name, version) = (words.next(), words.next(), words.next().and_then(|version| version.strip_prefix('v')));
        let (Some(depth), Some(name), Some(version)) = (depth, name, version) else { bail!("cargo tree says `{line}`") };
        let depth: usize = depth.parse().with_context(|| format!("cargo tree says `{line}`"))?;
        ensure!(depth <= above.len(), "cargo tree leaves out what needs `{line}`");
        above.truncate(depth);
        let this = (name.to_owned(), version.to_owned());
        if let Some(parent) = above.last() {
            needs.entry(parent.clone()).or_default().insert(this.clone());
        }
        needs.entry(this.clone()).or_default();
        above.push(this);
    }
    Ok(needs)
}

/// Each crate's licence, as an SPDX expression.
fn licences(target: &str) -> Result<BTreeMap<Crate, String>> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&read(&mut metadata)?).context("cargo metadata is not JSON")?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
    let mut licences = BTreeMap::new();
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
        if let (Some(name), Some(version), Some(licence)) = (text("name"), text("version"), text("license")) {
            // As it was written before SPDX expressions were asked for.
            let expression = licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ");
            licences.insert((name, version), expression);
        }
    }
    Ok(licences)
}

/// Where a crate is from.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// This workspace.
    Ours,
    /// crates.io, with the hash of the file that it has there.
    Released { sha_256: String },
    /// Another place, by Cargo.lock's name.
    Elsewhere(String),
}

/// Where each crate of a Cargo.lock is from.
fn checksums(lock: &str) -> BTreeMap<Crate, Origin> {
    let mut origins = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else { continue };
        let origin = match (value("source"), value("checksum")) {
            (None, _) => Origin::Ours,
            (Some(source), Some(sha_256)) if source == CRATES_IO => Origin::Released { sha_256 },
            (Some(source), _) => Origin::Elsewhere(source),
        };
        origins.insert((name, version), origin);
    }
    origins
}
