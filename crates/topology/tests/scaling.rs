//! scaling.yaml: the shipped one is the source document's, the schema takes it, and one row for each mistake.

#![forbid(unsafe_code)]

mod common;

use std::fs;

use common::{Schema, region_config};
use paymesh_topology::{Metric, Scaling, Topology};

fn topology() -> Topology {
    Topology::load(&region_config()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn shipped() -> String {
    fs::read_to_string(region_config().join("scaling.yaml")).expect("it ships")
}

#[test]
fn the_shipped_policies_are_the_source_documents() {
    Schema::of("scaling.schema.json").validate(&shipped()).expect("the schema takes it");
    let scaling = Scaling::load(&region_config(), &topology()).unwrap_or_else(|errors| panic!("{errors}"));
    let scheduled: Vec<_> = scaling
        .scheduled
        .iter()
        .map(|entry| (entry.name.as_str(), entry.schedule.to_crontab(), entry.min, entry.max, entry.target))
        .collect();
    assert_eq!(
        scheduled,
        [
            ("morning_rush", "0 8 * * MON-FRI".to_owned(), 20, 50, 30),
            ("evening_peak", "0 18 * * *".to_owned(), 25, 60, 40),
            ("weekend_low", "0 2 * * SUN,SAT".to_owned(), 10, 25, 15)
        ]
    );
    let rules = |rules: &[paymesh_topology::Reactive]| {
        rules.iter().map(|rule| (rule.metric, rule.threshold, rule.duration_seconds, rule.percent)).collect::<Vec<_>>()
    };
    assert_eq!(rules(&scaling.scale_up), [(Metric::Cpu, 70, 300, 20), (Metric::QueueLength, 100, 60, 50)]);
    assert_eq!(rules(&scaling.scale_down), [(Metric::Cpu, 30, 900, 10)]);
    let autoscaler = scaling.autoscaler;
    assert_eq!(
        (autoscaler.min, autoscaler.max, autoscaler.cpu_percent, autoscaler.memory_percent, autoscaler.queue_length),
        (5, 100, 70, 80, 10)
    );
}

#[test]
fn a_region_may_count_its_hours_elsewhere() {
    let text = shipped().replace("regions: {}", "regions: {us_west: {time_zone: America/Los_Angeles}}");
    Schema::of("scaling.schema.json").validate(&text).expect("the schema takes it");
    let scaling = Scaling::parse("scaling.yaml", &text, &topology()).unwrap_or_else(|errors| panic!("{errors}"));
    let zone = |name: &str| scaling.time_zone(&name.parse().expect(name)).to_owned();
    assert_eq!((zone("us_west"), zone("us_east")), ("America/Los_Angeles".to_owned(), "UTC".to_owned()));
}

#[test]
fn every_mistake_is_refused_with_its_key() {
    let (topology, before) = (topology(), shipped());
    for (from, to, expected) in [
        ("time_zone: UTC\n", "", "time_zone: is missing"),
        ("time_zone: UTC", "time_zone: utc", "time_zone: must be a name of the tz database such as Europe/Dublin, or UTC, not `utc`"),
        ("regions: {}", "regions: {us_wst: {time_zone: UTC}}", "regions.us_wst: no region is called `us_wst`; did you mean `us_west`?"),
        ("start_seconds: 60", "start_seconds: 0", "start_seconds: must be 1 to 3600, not 0"),
        ("{min: 5, max: 100,", "{min: 101, max: 100,", "autoscaler: min is 101, and max 100: it must not be less"),
        ("cpu_percent: 70", "cpu_percent: 101", "autoscaler.cpu_percent: must be 1 to 100, not 101"),
        ("0 8 * * MON-FRI", "0 25 * * MON-FRI", "scheduled_scaling[0].schedule: the hour `25` is none"),
        ("0 8 * * MON-FRI", "0 8 * *", "scheduled_scaling[0].schedule: a schedule has five fields"),
        ("0 8 * * MON-FRI", "0 8 1 * MON-FRI", "scheduled_scaling[0].schedule: it says both a day of month and a day of week"),
        ("0 18 * * *", "0 8 * * *", "scheduled_scaling[1]: morning_rush and evening_peak begin together at 08:00, with other bounds"),
        (
            "max_capacity: 50",
            "max_capacity: 25",
            "scheduled_scaling[0]: target_capacity 30 is not within min_capacity 20 and max_capacity 25",
        ),
        ("name: evening_peak", "name: morning_rush", "scheduled_scaling[1]: there is a morning_rush already"),
        ("name: evening_peak", "name: Evening", "scheduled_scaling[1].name: must be 1 to 40 of a-z"),
        ("name: evening_peak", "name: evening_", "scheduled_scaling[1].name: must be 1 to 40 of a-z"),
        ("name: evening_peak", "name: evening-peak", "scheduled_scaling[1].name: must be 1 to 40 of a-z"),
        ("min_capacity: 10", "min: 10", "scheduled_scaling[2].min: unknown key"),
        (
            "{metric: payment_queue_length, threshold",
            "{metric: queue, threshold",
            "reactive_scaling.scale_up[1].metric: `queue` is not a known metric",
        ),
        (
            "threshold: 100, duration: 60",
            "threshold: 100, duration: 30",
            "reactive_scaling.scale_up[1].duration: must be 60 to 1800, not 30",
        ),
        (
            "threshold: 30, duration",
            "threshold: 70, duration",
            "reactive_scaling: takes away below 70 of CPUUtilization, and adds above 70",
        ),
        (
            "increase_capacity_by_20_percent",
            "increase_by_20",
            "reactive_scaling.scale_up[0].action: must be increase_capacity_by_N_percent, N being 1 to 900, not `increase_by_20`",
        ),
        (
            "decrease_capacity_by_10_percent",
            "decrease_capacity_by_100_percent",
            "reactive_scaling.scale_down[0].action: must be decrease_capacity_by_N_percent, N being 1 to 99",
        ),
        (
            "threshold: 70, duration: 300",
            "threshold: 101, duration: 300",
            "reactive_scaling.scale_up[0].threshold: must be 1 to 100, not 101",
        ),
    ] {
        assert_eq!(before.matches(from).count(), 1, "`{from}` must stand once");
        let errors = Scaling::parse("scaling.yaml", &before.replace(from, to), &topology).expect_err(to).to_string();
        assert!(errors.starts_with("scaling.yaml:") && errors.contains(expected), "{to}: expected `{expected}` in\n{errors}");
        // The line is that of the mistake, or where the entry or block begins that it makes wrong as a whole.
        let line = errors["scaling.yaml:".len()..].split(':').next().and_then(|line| line.parse::<usize>().ok());
        let place = before[..before.find(from).expect("it stands there")].matches('\n').count() + 1;
        match line {
            Some(line) => {
                assert!((place.saturating_sub(6)..=place).contains(&line), "{to}: line {line} for a mistake on {place}: {errors}")
            }
            None => assert!(expected.ends_with("is missing"), "{to}: no line in {errors}"),
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let missing = Scaling::load(folder.path(), &topology).expect_err("it is not there").to_string();
    assert!(missing.contains("scaling.yaml: cannot be read: No such file"), "{missing}");
}
