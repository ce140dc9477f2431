//! No crate of ours has unsafe code, and none can get some unnoticed: the first lines of each forbid it.

#![forbid(unsafe_code)]

use std::{env, fs, path::Path, process::Command};

use serde_json::Value;

/// libFuzzer's macro exports a C function. What these call is in the library beside them, which forbids it.
const EXCEPT: &str = "fuzz_targets";

/// The root file of every library, program, test, example, measurement and build script of a workspace.
fn roots(manifest: &Path) -> Vec<String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let targets = list(&metadata["packages"]).into_iter().flat_map(|package| list(&package["targets"]));
    targets.map(|target| target["src_path"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn every_root_file_of_ours_forbids_unsafe_code() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let mut files = roots(&workspace.join("Cargo.toml"));
    assert!(files.len() > 30, "there are more root files than {files:?}");
    files.retain(|file| !Path::new(file).parent().is_some_and(|folder| folder.ends_with(EXCEPT)));
    let lacking: Vec<_> = files
        .into_iter()
        .filter(|file| !fs::read_to_string(file).expect("a root file can be read").lines().any(|line| line == "#![forbid(unsafe_code)]"))
        .collect();
    assert!(lacking.is_empty(), "without #![forbid(unsafe_code)]:\n{}", lacking.join("\n"));
}
