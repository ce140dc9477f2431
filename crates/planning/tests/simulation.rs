//! Policies played against traffic: what they do, and what holds whatever comes.

#![forbid(unsafe_code)]

use std::{fs, path::PathBuf};

use paymesh_planning::{
    chart,
    simulation::{Date, Minute, Play, WAIT_SECONDS_MAX, play, read_trace, summary},
};
use paymesh_topology::{Scaling, Topology};
use proptest::prelude::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn scaling(edit: impl Fn(String) -> String) -> Scaling {
    let config = root().join("region-config");
    let topology = Topology::load(&config).unwrap_or_else(|errors| panic!("{errors}"));
    let text = fs::read_to_string(config.join("scaling.yaml")).expect("it ships");
    Scaling::parse("scaling.yaml", &edit(text), &topology).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The rules, and these schedules instead of those that ship, from so many edges on; one takes so many seconds to start.
fn with(scheduled: &str, min: u32, start_seconds: u32) -> Scaling {
    with_queue(scheduled, min, start_seconds, 100)
}

/// The same, and so many calls that wait are too many.
fn with_queue(scheduled: &str, min: u32, start_seconds: u32, queued: u64) -> Scaling {
    scaling(|text| {
        let text = text.replace("threshold: 100,", &format!("threshold: {queued},"));
        let begin = text.find("scheduled_scaling:").expect("it is there");
        let end = text.find("\n# What is done when").expect("it is there");
        let text = format!("{}scheduled_scaling: [{scheduled}]\n{}", &text[..begin], &text[end..]);
        let edited =
            text.replace("{min: 5,", &format!("{{min: {min},")).replace("start_seconds: 60", &format!("start_seconds: {start_seconds}"));
        assert!(edited.contains(&format!("{{min: {min},")) && edited.contains(&format!("start_seconds: {start_seconds}\n")), "{edited}");
        edited
    })
}

/// The rules alone, from 10 edges on.
fn rules_alone() -> Scaling {
    with("", 10, 60)
}

fn edges(minutes: &[Minute]) -> Vec<u32> {
    minutes.iter().map(|minute| minute.edges).collect()
}

fn friday() -> Date {
    Date::new(2026, 11, 27).expect("a day")
}

fn played(scaling: &Scaling, trace: &[u64]) -> Vec<Minute> {
    play(&Play { scaling, edge_tps: 100, start: friday() }, trace).expect("it can be played")
}

#[test]
fn days_are_those_of_the_calendar() {
    let moment = |year, month, day, minutes| Date::new(year, month, day).expect("a day").moment(minutes);
    let told = |moment: paymesh_topology::Moment| (moment.month, moment.day, moment.weekday, moment.hour, moment.minute);
    assert_eq!(told(moment(2026, 11, 27, 0)), (11, 27, 5, 0, 0), "a Friday");
    assert_eq!(told(moment(2026, 11, 27, 1_440 + 125)), (11, 28, 6, 2, 5));
    assert_eq!(told(moment(2024, 2, 28, 1_440)), (2, 29, 4, 0, 0));
    assert_eq!(told(moment(2026, 12, 31, 1_439)), (12, 31, 4, 23, 59));
    assert_eq!(told(moment(2026, 12, 31, 1_440)), (1, 1, 5, 0, 0));
    assert_eq!(told(moment(1, 1, 1, 0)), (1, 1, 1, 0, 0));
    for (year, month, day) in [(2026, 2, 29), (2026, 13, 1), (2026, 4, 31), (0, 1, 1), (10_000, 1, 1), (1900, 2, 29)] {
        assert!(Date::new(year, month, day).is_none(), "{year}-{month}-{day}");
    }
}

#[test]
fn busy_edges_get_a_fifth_more_after_five_minutes_and_take_calls_a_minute_later() {
    let minutes = played(&rules_alone(), &[800; 12]);
    // 800 of 1,000 is more than 70 percent; 800 of 1,200 is less.
    assert_eq!(edges(&minutes), [10, 10, 10, 10, 10, 12, 12, 12, 12, 12, 12, 12]);
    assert_eq!((minutes[4].utilisation_percent, minutes[5].utilisation_percent), (80, 66));
}

#[test]
fn a_queue_gets_half_more_after_a_minute() {
    let minutes = played(&rules_alone(), &[1_100; 4]);
    // 100 a second wait, for 30 seconds at most.
    assert_eq!((minutes[0].queued, minutes[0].dropped), (6_000, 0));
    assert_eq!(minutes[1].edges, 15);
    assert_eq!((minutes[1].queued, minutes[1].served), (0, 72_000));
}

#[test]
fn idle_edges_are_given_up_a_tenth_at_a_time_and_never_below_the_least() {
    let mut trace = vec![1_100; 3];
    trace.resize(120, 0);
    let edges = edges(&played(&rules_alone(), &trace));
    assert_eq!((edges[3], edges[17], edges[18]), (15, 15, 14), "a quarter of an hour later");
    assert_eq!(edges.last(), Some(&10));
    assert!(edges.windows(2).skip(18).all(|pair| pair[0] - pair[1] <= 1));
}

#[test]
fn a_rule_that_was_followed_waits_as_long_again() {
    // 900 of 1,200 is still more than 70 percent, and a fifth more of 12 is 15 whole ones.
    let minutes = played(&rules_alone(), &[900; 17]);
    assert_eq!(edges(&minutes), [10, 10, 10, 10, 10, 12, 12, 12, 12, 12, 15, 15, 15, 15, 15, 15, 15]);
}

#[test]
fn a_figure_at_its_threshold_is_not_past_it() {
    assert_eq!(edges(&played(&rules_alone(), &[700; 30])), [10; 30], "70 percent is not busy");
    // A hundred that wait are not too many: ten edges do 60,000 within a minute.
    let at = |queued: u64| edges(&played(&with_queue("", 10, 60, queued), &[1_100, 0, 0]));
    assert_eq!((at(6_000)[1], at(5_999)[1]), (10, 15));
    // From 15 on, which the queue of the first minute asks for.
    let down = |tps: u64| {
        let mut trace = vec![1_100, 1_100];
        trace.resize(40, tps);
        edges(&played(&rules_alone(), &trace))[39]
    };
    assert_eq!((down(450), down(449)), (15, 14), "30 percent is not idle; at 29 one goes, and of 14 these are 32");
}

#[test]
fn a_tenth_of_few_edges_is_one_at_least() {
    let mut trace = vec![600, 600];
    trace.resize(60, 0);
    let edges = edges(&played(&with("", 5, 60), &trace));
    assert_eq!((edges[2], edges[17], edges[32], edges[47]), (8, 7, 6, 5));
}

#[test]
fn edges_that_start_take_no_calls_yet_and_are_paid_for() {
    let minutes = played(&with("", 10, 121), &[1_100; 5]);
    assert_eq!(edges(&minutes), [10, 10, 10, 15, 23], "from the third minute on after they were asked for");
    let wanted: Vec<u32> = minutes.iter().map(|minute| minute.wanted).collect();
    // Too many wait until the first have started, and half more is asked for each time.
    assert_eq!(wanted, [10, 15, 23, 35, 35]);
    assert_eq!(summary(&minutes).edge_minutes, 10 + 15 + 23 + 35 + 35);
}

#[test]
fn of_too_many_those_go_first_that_have_not_started() {
    let scheduled = "{name: more, schedule: '1 0 * * *', min_capacity: 10, max_capacity: 50, target_capacity: 30}, \
                     {name: fewer, schedule: '3 0 * * *', min_capacity: 10, max_capacity: 12, target_capacity: 12}";
    let minutes = played(&with(scheduled, 10, 300), &[500; 9]);
    let told: Vec<(u32, u32)> = minutes.iter().map(|minute| (minute.edges, minute.wanted)).collect();
    assert_eq!(told, [(10, 10), (10, 30), (10, 30), (10, 12), (10, 12), (10, 12), (12, 12), (12, 12), (12, 12)]);
}

#[test]
fn what_is_scheduled_sets_bounds_and_number_until_the_next_begins() {
    let minutes = played(&scaling(|text| text), &vec![2_000; 24 * 60]);
    let at = |hour: usize, minute: usize| &minutes[hour * 60 + minute];
    // Those of the evening before.
    assert_eq!((at(0, 0).bounds, at(0, 0).edges, at(7, 59).bounds), ((25, 60), 25, (25, 60)));
    assert_eq!((at(8, 0).bounds, at(8, 0).wanted), ((20, 50), 30));
    assert_eq!((at(17, 59).bounds, at(18, 0).bounds), ((20, 50), (25, 60)));
    assert_eq!(at(23, 59).bounds, (25, 60));
}

#[test]
fn the_shipped_curves_give_what_they_give() {
    let of = |name: &str| {
        let text = fs::read_to_string(root().join("examples/traffic").join(name)).expect("it ships");
        let trace = read_trace(&text).expect("it is one");
        assert_eq!(trace.len(), 1_440, "{name}: a day");
        summary(&played(&scaling(|text| text), &trace))
    };
    let (day, black_friday) = (of("day.csv"), of("black-friday.csv"));
    assert_eq!((day.dropped, day.edges_peak), (0, 40), "{day:?}");
    // 60 edges at most by the evening before, then 50, then 60 again; and 26,500 a second come.
    assert_eq!((black_friday.edges_peak, black_friday.minutes_dropping > 600), (60, true), "{black_friday:?}");
    assert!(black_friday.dropped * 2 > black_friday.offered, "{black_friday:?}");
}

#[test]
fn what_is_no_trace_is_refused_by_its_line() {
    for (text, why) in [
        ("", "there is nothing in it"),
        ("tps,minute\n", "line 1: the first line must be `minute,tps`"),
        ("minute,tps\n", "there is no line after the first"),
        ("minute,tps\n1,5\n", "line 2: the first minute must be 0"),
        ("minute,tps\n0,5\n0,6\n", "line 3: the minute must be after 0"),
        ("minute,tps\n0,-5\n", "line 2: the rate must be a whole number"),
        ("minute,tps\n0,1e9\n", "line 2: the rate must be a whole number"),
        ("minute,tps\n0,1000000001\n", "line 2: the rate must be a whole number"),
        ("minute,tps\n0,5\n99999,5\n", "line 3: the minute must be 0 to 44639"),
        ("minute,tps\n0;5\n", "line 2: must be a minute and a rate"),
        ("minute,tps\n0,99999999999999999999\n", "line 2: the rate must be a whole number"),
    ] {
        let error = read_trace(text).expect_err(text);
        assert!(error.contains(why), "{text:?}: {error}");
    }
    assert_eq!(read_trace("# made up\nminute,tps\n\n0,10\n4,50\n").as_deref(), Ok(&[10, 20, 30, 40, 50][..]));
}

#[test]
fn a_picture_has_the_curves_and_no_words_of_the_titles_own() {
    let minutes = played(&scaling(|text| text), &[500; 600]);
    let svg = chart::svg("a < b & \"c\"", 100, &minutes);
    assert_eq!(svg.matches("<polyline").count(), 6);
    assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && !svg.contains("a < b"));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

proptest! {
    #[test]
    fn nothing_is_lost_and_edges_are_within_their_bounds(trace in prop::collection::vec(0_u64..20_000, 1..600), edge_tps in 1_u64..1_000) {
        let scaling = scaling(|text| text);
        let minutes = play(&Play { scaling: &scaling, edge_tps, start: friday() }, &trace).expect("it can be played");
        let mut queued = 0;
        for minute in &minutes {
            prop_assert_eq!(queued + minute.offered, minute.served + minute.dropped + minute.queued);
            prop_assert!(minute.wanted >= minute.bounds.0 && minute.wanted <= minute.bounds.1 && minute.edges <= minute.wanted);
            prop_assert!(minute.utilisation_percent <= 100);
            prop_assert!(minute.queued <= u64::from(minute.edges) * edge_tps * WAIT_SECONDS_MAX);
            queued = minute.queued;
        }
        let summary = summary(&minutes);
        prop_assert_eq!(summary.offered, summary.served + summary.dropped + summary.queued);
    }
}
