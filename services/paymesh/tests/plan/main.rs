//! `paymesh plan` as a process: the source document's example, measurements of this very program and of others, and mistakes.
//!
//! node.json and replication.json are what bench wrote with `--json` in short runs without optimisation on two cores: they are of the shape of a report, and
//! their figures say nothing. A test puts this program's own hash into them.

#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const NODE: &str = include_str!("node.json");
const REPLICATION: &str = include_str!("replication.json");

fn paymesh(arguments: &[&str]) -> Output {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    with_config(&config, arguments)
}

fn with_config(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paymesh")).arg("--config").arg(config).arg("plan").args(arguments).output().expect("it starts")
}

/// What it printed, and its exit code.
fn json(output: &Output) -> (Value, Option<i32>) {
    let errors = String::from_utf8_lossy(&output.stderr);
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}")), output.status.code())
}

/// It says so on standard error, prints nothing, and ends with 2.
fn refused(output: &Output, wanted: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(wanted), "wanted {wanted}, got {errors}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{errors}");
}

/// A report with this program's hash, and something of it changed.
fn report(folder: &Path, name: &str, text: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut report: Value = serde_json::from_str(text).expect("JSON");
    let program = fs::read(env!("CARGO_BIN_EXE_paymesh")).expect("this program");
    report["program"]["blake3"] = blake3::hash(&program).to_hex().to_string().into();
    change(&mut report);
    let path = folder.join(name);
    fs::write(&path, report.to_string()).expect("written");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("folders for tests have plain names")
}

/// Source document, "Traffic Estimation".
#[test]
fn the_documents_example_is_150_instances_1500_connections_15_gb_and_75_dollars() {
    let example = ["capacity", "--base-tps", "1000", "--peak-multiplier", "10", "--safety-margin", "1.5"];
    let (plan, code) = json(&paymesh(&[&example[..], &["--json"]].concat()));
    assert_eq!((&plan["required_instances"], &plan["required_db_connections"]), (&150.into(), &1_500.into()));
    assert_eq!((&plan["required_redis_memory_gb"], &plan["estimated_cost_per_hour"]), (&15.into(), &"75.00".into()));
    assert_eq!((&plan["bound"], code), (&Value::Null, Some(0)));
    assert!(plan["sources"].as_array().is_some_and(|all| all.iter().all(|of| of["source"].as_str().is_some_and(|text| !text.is_empty()))));
    let table = paymesh(&example);
    let table = String::from_utf8_lossy(&table.stdout);
    let has = |what: &str, amount: &str| {
        table.lines().any(|line| line.trim_start().starts_with(what) && line.split_whitespace().any(|word| word == amount))
    };
    assert!(
        has("instances", "150") && has("database connections", "1500") && has("Redis memory", "15") && has("instances, an hour", "75.00"),
        "{table}"
    );
}

#[test]
fn a_measurement_of_this_program_bounds_what_the_mesh_carries() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = report(folder.path(), "node.json", NODE, |_| ());
    let wire = report(folder.path(), "replication.json", REPLICATION, |_| ());
    let measured = ["capacity", "--json", "--profile", "measured", "--measured", text(&node), "--measured", text(&wire)];
    // Half of the shards are us_east's and half eu_west's; the sample's node does some 1,000 a second.
    let (plan, code) = json(&paymesh(&[&measured[..], &["--base-tps", "100", "--peak-multiplier", "1"]].concat()));
    assert_eq!((&plan["bound"]["fits"], code), (&true.into(), Some(0)), "{plan}");
    assert_eq!(plan["bound"]["regions"][0]["required_tps"], "75");
    let (plan, code) = json(&paymesh(&[&measured[..], &["--base-tps", "1000"]].concat()));
    assert_eq!((&plan["bound"]["fits"], code), (&false.into(), Some(1)), "{plan}");
    let source = |figure: &str| {
        let found = plan["sources"].as_array().expect("a list").iter().find(|of| of["figure"] == figure).expect("a figure");
        found["source"].as_str().expect("text").to_owned()
    };
    // Call by call, with the most shards; the single shard for itself; and the replication's own bytes.
    let of_node = source("TPS of a region's node");
    assert!(of_node.contains("sustained") && of_node.contains("4 shards, 1000 accounts") && of_node.contains("unary 64"), "{of_node}");
    assert!(source("TPS of a single shard").contains("1 shards"));
    assert!(source("wire bytes a payment and copy").contains("bench replication"));
    assert!(source("an hour of an instance").contains("instance_types.c5.xlarge"));
}

#[test]
fn a_report_of_another_shape_version_or_build_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let measured = |path: &Path, more: &[&str]| paymesh(&[&["capacity", "--profile", "measured", "--measured", text(path)], more].concat());
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 7] = [
        ("program.version: it is of paymesh 0.0.9", |report| report["program"]["version"] = "paymesh 0.0.9".into()),
        ("program.blake3: another build of the same version", |report| report["program"]["blake3"] = "00".into()),
        ("program is missing", |report| report["program"] = Value::Null),
        ("missing field `runs`", |report| drop(report.as_object_mut().expect("an object").remove("runs"))),
        ("must be 0 to 1000000000, not -1", |report| report["runs"][0]["sustained"] = (-1).into()),
        ("must be 0 to 1000000000, not 1e+300", |report| report["runs"][0]["sustained"] = 1e300.into()),
        ("no report has runs of a node", |report| report["runs"] = Value::Array(Vec::new())),
    ];
    for (index, (wanted, change)) in changes.into_iter().enumerate() {
        let path = report(folder.path(), &format!("{index}.json"), NODE, change);
        refused(&measured(&path, &[]), wanted);
    }
    let another = report(folder.path(), "another.json", NODE, |report| report["program"]["blake3"] = "00".into());
    assert_eq!(measured(&another, &["--other-build", "--base-tps", "1"]).status.code(), Some(0));
    refused(&measured(&folder.path().join("none.json"), &[]), "none.json: cannot be read");
    refused(&paymesh(&["capacity", "--profile", "measured"]), "--measured: the measured profile takes 1 to 16 reports");
    refused(&paymesh(&["capacity", "--measured", text(&another)]), "--measured: the default profile takes no measurements");
}

#[test]
fn absurd_figures_are_refused_by_the_name_of_their_option() {
    for (command, option) in [
        ("capacity", "--base-tps"),
        ("capacity", "--peak-multiplier"),
        ("capacity", "--safety-margin"),
        ("cost", "--cpu"),
        ("cost", "--memory-gib"),
        ("cost", "--tps"),
        ("cost", "--instances"),
        ("cost", "--peak-hours"),
    ] {
        for value in ["-1", "1e30", "NaN", "", "1000000000000", "9999999999999999999999999999999999999999"] {
            refused(&paymesh(&[command, option, value]), option);
        }
    }
    refused(&paymesh(&["capacity", "--base-tps", "0"]), "must be 0.001 to 1000000000");
}

#[test]
fn the_documents_options_come_cheapest_first_and_an_impossible_one_says_what_is_missing() {
    let (plan, code) = json(&paymesh(&["cost", "--cpu", "2", "--memory-gib", "4", "--tps", "100", "--json"]));
    let kinds: Vec<&str> = plan["options"].as_array().expect("a list").iter().filter_map(|of| of["type"].as_str()).collect();
    assert_eq!((&kinds[..4], code), (&["t3.medium", "t3.large", "c5.large", "c5.xlarge"][..], Some(0)));
    assert_eq!(plan["options"][0]["cost_per_tps"], "0.000416");
    assert_eq!((&plan["reserved"][0]["break_even_hours_per_month"], &plan["mix"]["per_month"]), (&"438".into(), &"837.30".into()));
    refused(&paymesh(&["cost", "--cpu", "2", "--memory-gib", "4", "--tps", "1000"]), "--tps 1000: the most is 200 payments a second");
}

#[test]
fn missing_prices_are_named_before_anything_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    fs::copy(shipped.join("regions.yaml"), folder.path().join("regions.yaml")).expect("copied");
    for command in [&["capacity"][..], &["cost", "--cpu", "1", "--memory-gib", "1", "--tps", "1"]] {
        refused(&with_config(folder.path(), command), "prices.yaml: is missing");
    }
    let text = fs::read_to_string(shipped.join("prices.yaml")).expect("the prices").replace("per_hour: \"0.17\"", "per_hour: -1");
    fs::write(folder.path().join("prices.yaml"), text).expect("written");
    refused(&with_config(folder.path(), &["capacity"]), "instance_types.c5.xlarge.per_hour: must be a decimal above 0");
}

fn simulated(arguments: &[&str]) -> Output {
    let traffic = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/traffic");
    let all = [&["simulate", "--trace"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_paymesh"))
        .current_dir(traffic)
        .args(["--config", "../../region-config", "plan"])
        .args(all)
        .output()
        .expect("it starts")
}

#[test]
fn the_shipped_curves_are_played_and_what_is_dropped_ends_with_1() {
    let (day, code) = json(&simulated(&["day.csv", "--json"]));
    assert_eq!((&day["dropped"], &day["edges_peak"], code), (&0.into(), &40.into(), Some(0)));
    assert_eq!(day["minutes"].as_array().map(Vec::len), Some(1_440));
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("picture.svg");
    let output = simulated(&["black-friday.csv", "--svg", picture.to_str().expect("a path")]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("665993040 dropped (62.42 %)") && printed.contains("60 edges at most"), "{printed}");
    assert!(fs::read_to_string(&picture).expect("it is there").starts_with("<svg "));
    let all_day = simulated(&["day.csv", "--edge-tps", "10000", "--json"]);
    assert_eq!(json(&all_day).1, Some(0));
}

/// A script that stores half a result must hear of it.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    let arguments = ["plan", "capacity", "--base-tps", "1000", "--peak-multiplier", "10", "--safety-margin", "1.5", "--json"];
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_paymesh"));
    let output =
        command.arg("--config").arg(config).args(arguments).stdout(full).stderr(std::process::Stdio::piped()).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output cannot be written"), "{output:?}");
}

#[test]
fn what_cannot_be_played_is_refused_by_its_name() {
    refused(&simulated(&["nothing.csv"]), "nothing.csv: cannot be read");
    refused(&simulated(&["../payments.csv"]), "payments.csv: line 1: the first line must be `minute,tps`");
    refused(&simulated(&["day.csv", "--date", "2026-02-30"]), "must be a day such as 2026-11-27");
    refused(&simulated(&["day.csv", "--edge-tps", "0"]), "--edge-tps");
    refused(&simulated(&["day.csv", "--svg", "not-there/day.svg"]), "--svg: not-there/day.svg cannot be written");
}

#[test]
fn application_auto_scaling_gets_the_policies_that_kubernetes_gets() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    let render = |resource: &str| {
        let arguments = ["render", "autoscaling", "--region", "eu_west", "--resource-id", resource];
        Command::new(env!("CARGO_BIN_EXE_paymesh")).arg("--config").arg(&config).args(arguments).output().expect("it starts")
    };
    let (rendered, code) = json(&render("service/payments/edge"));
    assert_eq!(code, Some(0));
    let resources = &rendered["resource"];
    let target = &resources["aws_appautoscaling_target"]["edge"];
    assert_eq!((&target["min_capacity"], &target["max_capacity"]), (&5.into(), &100.into()));
    // What a schedule has set is not set back by the next apply.
    assert_eq!(target["lifecycle"]["ignore_changes"], serde_json::json!(["min_capacity", "max_capacity"]));
    let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes/overlays/eu_west/scaling.yaml");
    let overlay = fs::read_to_string(overlay).expect("it ships");
    let actions = resources["aws_appautoscaling_scheduled_action"].as_object().expect("actions");
    assert_eq!(actions.len(), overlay.matches("kind: CronJob").count());
    for (name, crontab, aws, min, max) in [
        ("morning_rush", "0 8 * * MON-FRI", "cron(0 8 ? * MON-FRI *)", 20, 50),
        ("evening_peak", "0 18 * * *", "cron(0 18 * * ? *)", 25, 60),
        ("weekend_low", "0 2 * * SUN,SAT", "cron(0 2 ? * SUN,SAT *)", 10, 25),
    ] {
        let action = &actions[name];
        assert_eq!((&action["schedule"], &action["timezone"]), (&aws.into(), &"UTC".into()));
        assert_eq!(action["scalable_target_action"], serde_json::json!({"min_capacity": min, "max_capacity": max}), "{name}");
        let patch = format!(r#"{{\"maxReplicas\":{max},\"minReplicas\":{min}}}"#);
        assert!(overlay.contains(crontab) && overlay.contains(&patch), "{name}: {patch}");
    }
    // A rule's percentage, threshold and duration are in its step and its alarm.
    let step = &resources["aws_appautoscaling_policy"]["up_1"]["step_scaling_policy_configuration"];
    assert_eq!(step["step_adjustment"][0]["scaling_adjustment"], 50);
    let alarm = &resources["aws_cloudwatch_metric_alarm"]["up_1"];
    assert_eq!((&alarm["threshold"], &alarm["metric_name"]), (&100.into(), &"payment_queue_length".into()));
    assert_eq!(alarm["alarm_actions"][0], "${aws_appautoscaling_policy.up_1.arn}");
    let down = &resources["aws_cloudwatch_metric_alarm"]["down_0"];
    assert_eq!((&down["evaluation_periods"], &down["comparison_operator"]), (&15.into(), &"LessThanThreshold".into()));
    for wrong in ["payments", "service/payments", "service//edge", "service/a/b/c", "service/a/b${c}"] {
        refused(&render(wrong), "--resource-id: must be service/CLUSTER/SERVICE");
    }
}
