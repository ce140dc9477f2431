//! Every benchmark, with tiny sizes: so that none rots. What they measure here says nothing.

#![forbid(unsafe_code)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Runs a benchmark and gives back its JSON.
fn bench(name: &str, more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let program = Path::new(env!("CARGO_BIN_EXE_bench"));
    let node = program.with_file_name("paymesh");
    let mut command = Command::new(program);
    command.arg(name);
    // A build of the whole workspace has made the node; building it again beside other tests would pull it from under them.
    if node.is_file() && !["ledger", "peers"].contains(&name) {
        command.args(["--paymesh", path(&node)]);
    }
    let output = command
        .args(["--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1", "--batch", "64,16", "--batches", "2", "--in-flight", "1,64"])
        .args(["--data", path(folder.path()), "--json", path(&json)])
        .args(more)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(&json).expect("a report")).expect("JSON")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("folders for tests have plain names")
}

/// The report has runs of each of these sides, all with payments, and these many bars.
fn assert_holds(report: &Value, sides: &[&str], bars: usize) {
    // Whoever reads the figures can tell which program they are of.
    if !["ledger", "peers"].iter().any(|bench| report["bench"] == *bench) {
        assert_eq!(report["program"]["version"], concat!("paymesh ", env!("CARGO_PKG_VERSION")));
        assert_eq!(report["program"]["blake3"].as_str().map(str::len), Some(64), "{}", report["program"]);
    }
    let runs = report["runs"].as_array().expect("runs");
    for side in sides {
        assert!(runs.iter().any(|run| run["side"] == *side), "no run of {side}");
    }
    for run in runs {
        assert!(run["answered"].as_u64() > Some(0) && run["sustained"].as_f64() > Some(0.0), "{run}");
    }
    assert_eq!(report["bars"].as_array().map(Vec::len), Some(bars), "{}", report["bars"]);
}

#[test]
fn ledger_runs() {
    assert_holds(&bench("ledger", &["--accounts", "20,40"]), &["ledger"], 0);
}

#[test]
fn node_runs() {
    assert_holds(&bench("node", &["--accounts", "20,40", "--shards", "2"]), &["node", "echo", "secured"], 8);
}

#[test]
fn naive_runs() {
    assert_holds(&bench("naive", &["--accounts", "20", "--shards", "2"]), &["node", "naive"], 2);
}

#[test]
fn peers_run() {
    assert_holds(&bench("peers", &["--accounts", "20"]), &["naive", "echo"], 0);
}

#[test]
fn forward_runs() {
    assert_holds(&bench("forward", &["--accounts", "20", "--shards", "2"]), &["home", "forwarded", "echo"], 1);
}

#[test]
fn edge_runs() {
    let report = bench("edge", &["--accounts", "20", "--shards", "2"]);
    assert_holds(&report, &["home", "edge", "echo"], 0);
    let figures = report["figures"].as_array().expect("figures");
    let of_edge = |figure: &&Value| {
        figure["name"].as_str().is_some_and(|name| name.starts_with("payments/s for each processor that it fills itself, edge"))
    };
    let measured: Vec<f64> = figures.iter().filter(of_edge).filter_map(|figure| figure["rounds"][0].as_f64()).collect();
    // One that had no part in the calls would have spent nothing on them.
    assert!(measured.len() == 2 && measured.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{figures:?}");
}

#[test]
fn cards_run() {
    let sizes = ["--accounts", "20", "--shards", "2", "--latency-ms", "0,5", "--rate", "40"];
    let report = bench("cards", &sizes);
    assert_holds(&report, &["mesh", "acquirer", "vault"], 6);
    let runs = report["runs"].as_array().expect("runs");
    let p50 = |side: &str, latency: &str| {
        let of = |run: &&Value| {
            run["side"] == side && run["load"] == "card at 40/s" && run["case"].as_str().is_some_and(|case| case.contains(latency))
        };
        runs.iter().find(of).and_then(|run| run["p50_us"].as_u64()).expect("a run at 40/s")
    };
    // An authorization and a capture, each as long as the acquirer takes; and a mesh that is quicker than its acquirer has not asked it.
    assert!(p50("acquirer", " at 5 ms") >= 10_000 && p50("mesh", " at 5 ms") > p50("acquirer", " at 5 ms"), "{runs:?}");
    let figures = report["figures"].as_array().expect("figures");
    assert_eq!(figures.iter().filter(|figure| figure["name"].as_str().is_some_and(|name| name.starts_with("added p99 ms"))).count(), 4);
}

#[test]
fn replication_runs() {
    let sizes = ["--accounts", "20", "--shards", "2", "--followers", "0,1", "--behind", "300"];
    // Tests install nothing.
    let postgres = Path::new("/usr/lib/postgresql").is_dir();
    let report = bench("replication", &[&sizes[..], if postgres { &[] } else { &["--without-postgres"] }].concat());
    assert_holds(&report, &["paymesh"], if postgres { 5 } else { 3 });
    let figures = report["figures"].as_array().expect("figures");
    let has = |case: &str, name: &str| {
        let positive = |rounds: &Value| rounds[0].as_f64() > Some(0.0);
        figures.iter().any(|figure| {
            let (of, what) = (figure["case"].as_str().expect("a case"), figure["name"].as_str().expect("a name"));
            of.starts_with(case) && what.starts_with(name) && positive(&figure["rounds"])
        })
    };
    for name in ["committed to stored, p99", "committed to readable, p99", "entries/s stored", "entries/s readable", "bytes on the wire"] {
        assert!(has("paymesh", name), "{name}: {figures:?}");
    }
    for name in ["payments/s", "committed to visible, p99", "payments/s visible", "bytes on the wire"] {
        assert!(!postgres || has("PostgreSQL", name), "{name}: {figures:?}");
    }
}
