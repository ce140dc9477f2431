//! scaling.yaml out of its tree: keys known, figures within their bounds, and bounds, thresholds and schedules that agree with each other.

use std::collections::BTreeMap;

use paymesh_types::RegionName;

use super::{At, Field, Reader};
use crate::{
    Autoscaler, Metric, Reactive, Scaling, Schedule, Scheduled, Topology,
    problem::{Problems, quote, suggest},
    tree::{Place, Value},
};

/// Edges of a region at most.
const INSTANCES_MAX: u64 = 10_000;
/// Seconds that an edge may take until it takes calls.
const START_SECONDS_MAX: u64 = 3_600;
/// Seconds of a rule at least and at most: Kubernetes looks back for half an hour.
const DURATION_SECONDS: std::ops::RangeInclusive<u64> = 60..=1_800;
const THRESHOLD_MAX: u64 = 100_000_000;
const QUEUE_LENGTH_MAX: u64 = 1_000_000;
/// Scheduled entries at most.
const SCHEDULED_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 40;
/// Percent of the edges there are that a rule adds or takes away at most.
const PERCENT_MAX: u32 = 900;

/// Reads the file. `None`, or less than it says, where there is a problem.
pub(crate) fn read(root: &Value, topology: &Topology, problems: &mut Problems) -> Option<Scaling> {
    let mut reader = Reader { problems };
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let known = ["time_zone", "regions", "start_seconds", "autoscaler", "scheduled_scaling", "reactive_scaling"];
    let root = reader.mapping(&root, Some(&known))?;
    let time_zone = reader.required(&root, "time_zone").and_then(|field| reader.time_zone(field));
    let regions = match root.find("regions") {
        Some(field) => reader.zones_of(field, topology),
        None => Some(BTreeMap::new()),
    };
    let start_seconds = reader.required(&root, "start_seconds").and_then(|field| reader.figure(field, START_SECONDS_MAX));
    let autoscaler = reader.required(&root, "autoscaler").and_then(|field| reader.autoscaler(field));
    let scheduled = reader.required(&root, "scheduled_scaling").and_then(|field| reader.scheduled(field));
    let reactive = reader.required(&root, "reactive_scaling").and_then(|field| reader.reactive(field));
    let (scale_up, scale_down) = reactive?;
    Some(Scaling {
        time_zone: time_zone?,
        regions: regions?,
        start_seconds: start_seconds?,
        autoscaler: autoscaler?,
        scheduled: scheduled?,
        scale_up,
        scale_down,
    })
}

impl Reader<'_> {
    fn figure(&mut self, field: &Field<'_>, most: u64) -> Option<u32> {
        self.whole(field, 1..=most).and_then(|figure| u32::try_from(figure).ok())
    }

    fn time_zone(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let part = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_uppercase())
                && part.len() > 1
                && part.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'-')
        };
        let parts = text.split('/').count();
        let valid = text == "UTC" || ((2..=3).contains(&parts) && text.split('/').all(part));
        if !valid {
            self.say(field, format!("must be a name of the tz database such as Europe/Dublin, or UTC, not {}", quote(text)));
        }
        valid.then(|| text.to_owned())
    }

    fn zones_of(&mut self, field: &Field<'_>, topology: &Topology) -> Option<BTreeMap<RegionName, String>> {
        let mapping = self.mapping(field, None)?;
        let mut zones = BTreeMap::new();
        for (name, field) in &mapping.fields {
            let region = topology.regions().find(|region| region.name.as_str() == *name);
            if region.is_none() {
                let known: Vec<&str> = topology.regions().map(|region| region.name.as_str()).collect();
                self.say(field, format!("no region is called {}{}", quote(name), suggest(name, known.iter().copied(), "the regions are")));
            }
            let zone = self.mapping(field, Some(&["time_zone"])).and_then(|region| {
                let field = self.required(&region, "time_zone")?;
                self.time_zone(field)
            });
            if let (Some(region), Some(zone)) = (region, zone) {
                zones.insert(region.name.clone(), zone);
            }
        }
        Some(zones)
    }

    fn autoscaler(&mut self, field: &Field<'_>) -> Option<Autoscaler> {
        let mapping = self.mapping(field, Some(&["min", "max", "cpu_percent", "memory_percent", "queue_length"]))?;
        let mut figure = |key, most| self.required(&mapping, key).and_then(|field| self.figure(field, most));
        let (min, max) = (figure("min", INSTANCES_MAX), figure("max", INSTANCES_MAX));
        let (cpu_percent, memory_percent) = (figure("cpu_percent", 100), figure("memory_percent", 100));
        let queue_length = figure("queue_length", QUEUE_LENGTH_MAX);
        let (min, max) = (min?, max?);
        if min > max {
            self.say(field, format!("min is {min}, and max {max}: it must not be less"));
            return None;
        }
        Some(Autoscaler { min, max, cpu_percent: cpu_percent?, memory_percent: memory_percent?, queue_length: queue_length? })
    }

    fn scheduled(&mut self, field: &Field<'_>) -> Option<Vec<Scheduled>> {
        let Value::List(items) = field.value else {
            self.expected(field, "a list");
            return None;
        };
        if items.len() > SCHEDULED_MAX {
            self.say(field, format!("must list at most {SCHEDULED_MAX}, not {}", items.len()));
            return None;
        }
        let mut all: Vec<At<Scheduled>> = Vec::new();
        let mut whole = true;
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let Some(entry) = self.entry(&item) else {
                whole = false;
                continue;
            };
            for other in &all {
                if other.value.name == entry.name {
                    self.say(&item, format!("there is a {} already", entry.name));
                    whole = false;
                }
                let same = |one: &Scheduled, two: &Scheduled| (one.min, one.max, one.target) == (two.min, two.max, two.target);
                if let Some((hour, minute)) = other.value.schedule.meets(&entry.schedule).filter(|_| !same(&other.value, &entry)) {
                    let message = format!(
                        "{} and {} begin together at {hour:02}:{minute:02}, with other bounds: which of them holds?",
                        other.value.name, entry.name
                    );
                    self.say(&item, message);
                    whole = false;
                }
            }
            all.push(item.with(entry));
        }
        whole.then(|| all.into_iter().map(|entry| entry.value).collect())
    }

    fn entry(&mut self, item: &Field<'_>) -> Option<Scheduled> {
        let entry = self.mapping(item, Some(&["name", "schedule", "min_capacity", "max_capacity", "target_capacity"]))?;
        let name = self.required(&entry, "name").and_then(|field| {
            let text = self.text(field)?;
            let valid = text.len() <= NAME_BYTES_MAX
                && text.starts_with(|first: char| first.is_ascii_lowercase())
                && text.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
                // A name of Kubernetes is made of it, in which `_` becomes `-`: two names must not become one.
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            if !valid {
                let must = format!("must be 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _, from a letter to a letter or digit");
                self.say(field, format!("{must}, not {}", quote(text)));
            }
            valid.then(|| text.to_owned())
        });
        let schedule = self.required(&entry, "schedule").and_then(|field| {
            let text = self.text(field)?;
            let schedule = Schedule::parse(text);
            if let Err(why) = &schedule {
                self.say(field, why);
            }
            schedule.ok()
        });
        let mut figure = |key| self.required(&entry, key).and_then(|field| self.figure(field, INSTANCES_MAX));
        let (min, max, target) = (figure("min_capacity"), figure("max_capacity"), figure("target_capacity"));
        let (min, max, target) = (min?, max?, target?);
        if !(min..=max).contains(&target) {
            self.say(item, format!("target_capacity {target} is not within min_capacity {min} and max_capacity {max}"));
            return None;
        }
        Some(Scheduled { name: name?, schedule: schedule?, min, max, target })
    }

    fn reactive(&mut self, field: &Field<'_>) -> Option<(Vec<Reactive>, Vec<Reactive>)> {
        let mapping = self.mapping(field, Some(&["scale_up", "scale_down"]))?;
        let up = self.required(&mapping, "scale_up").and_then(|field| self.rules(field, "increase"));
        let down = self.required(&mapping, "scale_down").and_then(|field| self.rules(field, "decrease"));
        let (up, down) = (up?, down?);
        for lower in &down {
            if let Some(upper) = up.iter().find(|upper| upper.metric == lower.metric && upper.threshold <= lower.threshold) {
                let message = format!(
                    "takes away below {} of {}, and adds above {}: it would do both in turn",
                    lower.threshold, lower.metric, upper.threshold
                );
                self.say(field, message);
                return None;
            }
        }
        Some((up, down))
    }

    fn rules(&mut self, field: &Field<'_>, word: &str) -> Option<Vec<Reactive>> {
        let rules = self.list(field, |reader, item| reader.rule(item, word), "rule")?;
        Some(rules.into_iter().map(|rule| rule.value).collect())
    }

    fn rule(&mut self, item: &Field<'_>, word: &str) -> Option<Reactive> {
        let rule = self.mapping(item, Some(&["metric", "threshold", "duration", "action"]))?;
        let metric = self.required(&rule, "metric").and_then(|field| self.word(field, Metric::WORDS, Metric::from_word, "metric"));
        let threshold = self.required(&rule, "threshold").and_then(|field| {
            // A percentage has its own bound.
            self.figure(field, if metric == Some(Metric::Cpu) { 100 } else { THRESHOLD_MAX })
        });
        let duration = self.required(&rule, "duration").and_then(|field| self.whole(field, DURATION_SECONDS));
        let percent = self.required(&rule, "action").and_then(|field| {
            let text = self.text(field)?;
            let most = if word == "decrease" { 99 } else { PERCENT_MAX };
            let percent =
                text.strip_prefix(word).and_then(|rest| rest.strip_prefix("_capacity_by_")).and_then(|rest| rest.strip_suffix("_percent"));
            let percent = percent.filter(|digits| !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
            let percent = percent.and_then(|digits| digits.parse::<u32>().ok()).filter(|percent| (1..=most).contains(percent));
            if percent.is_none() {
                self.say(field, format!("must be {word}_capacity_by_N_percent, N being 1 to {most}, not {}", quote(text)));
            }
            percent
        });
        Some(Reactive { metric: metric?, threshold: threshold?, duration_seconds: u32::try_from(duration?).ok()?, percent: percent? })
    }
}
