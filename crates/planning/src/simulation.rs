//! Scaling policies played against traffic, minute by minute.
//!
//! In each minute, in this order: edges that were asked for and have started take calls; what is scheduled begins; what came and what waited is served as far as
//! the edges reach, waits as far as calls have time, and is dropped beyond that; and the rules whose figures have been past their thresholds for long enough change the
//! number of edges, within the bounds of then. All of it is whole numbers: payments, percent rounded down, edges.

use paymesh_topology::{Metric, Moment, Reactive, Scaling};

use crate::Error;

/// Seconds of a step.
pub const STEP_SECONDS: u32 = 60;
/// Minutes of a trace at most: a month.
pub const MINUTES_MAX: usize = 31 * 24 * 60;
/// Payments a second at most.
pub const TPS_MAX: u64 = 1_000_000_000;
/// Days before the start in which a schedule is looked for: a leap day comes back within eight years.
const LOOK_BACK_DAYS: i64 = 8 * 366;
/// Seconds that a call waits at most: the deadline of one that asks for none (README, "Limits").
pub const WAIT_SECONDS_MAX: u64 = 30;

/// What is played: the policies, what an edge can, and when it begins.
#[derive(Debug, Clone)]
pub struct Play<'a> {
    /// The policies.
    pub scaling: &'a Scaling,
    /// Payments a second of an edge.
    pub edge_tps: u64,
    /// Its first minute, by the clock of the region. What the last schedule before it set holds then, as in a mesh that has been running.
    pub start: Date,
}

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    days: i64,
}

/// What was so in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// Payments that came.
    pub offered: u64,
    /// Payments that were answered.
    pub served: u64,
    /// Payments that found no place.
    pub dropped: u64,
    /// Payments that wait at its end.
    pub queued: u64,
    /// Edges that take calls.
    pub edges: u32,
    /// Edges that were asked for, those that start included.
    pub wanted: u32,
    /// Percent of what the edges reach, rounded down.
    pub utilisation_percent: u64,
    /// Edges at least and at most.
    pub bounds: (u32, u32),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Payments that came.
    pub offered: u64,
    /// Payments that were answered.
    pub served: u64,
    /// Payments that found no place.
    pub dropped: u64,
    /// Payments that waited when it ended.
    pub queued: u64,
    /// The most edges that took calls.
    pub edges_peak: u32,
    /// Minutes of edges, those that start included: they are paid for.
    pub edge_minutes: u64,
    /// Percent on average over its minutes, rounded down.
    pub utilisation_percent: u64,
    /// Minutes in which payments were dropped.
    pub minutes_dropping: u64,
}

impl Date {
    /// A day. `None`: there is no such day, or it is outside of the years 1 to 9999.
    pub fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let length = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let valid = (1..=9_999).contains(&year) && (1..=12).contains(&month) && (1..=length).contains(&day);
        // Days since 1970-01-01, counted from March on, so that February's end is the year's.
        let (y, m) = if month > 2 { (i64::from(year), i64::from(month) - 3) } else { (i64::from(year) - 1, i64::from(month) + 9) };
        let of_year = (153 * m + 2) / 5 + i64::from(day) - 1;
        valid.then(|| Self { days: y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + of_year - 719_468 })
    }

    /// The minute so many minutes after its first.
    pub fn moment(self, minutes: u64) -> Moment {
        let (day, minute) = (self.days + i64::try_from(minutes / 1_440).unwrap_or(i64::MAX / 2), minutes % 1_440);
        let days = day + 719_468;
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let small = |value: i64| u32::try_from(value).unwrap_or_default();
        Moment {
            minute: small((minute % 60).cast_signed()),
            hour: small((minute / 60).cast_signed()),
            day: small(of_year - (153 * month + 2) / 5 + 1),
            month: small(if month < 10 { month + 3 } else { month - 9 }),
            // 1970-01-01 was a Thursday.
            weekday: small((day + 4).rem_euclid(7)),
        }
    }
}

/// Plays a trace: payments a second, minute by minute.
///
/// # Errors
/// The trace is empty or too long, a rate is too large, or an edge can do nothing.
pub fn play(play: &Play<'_>, trace: &[u64]) -> Result<Vec<Minute>, Error> {
    let within = |name, value: u64, least: u64, most: u64| {
        let outside = || Error::Bounds { name, value: value.to_string(), least: least.into(), most: most.into(), digits: 0 };
        if (least..=most).contains(&value) { Ok(()) } else { Err(outside()) }
    };
    within("minutes of the trace", trace.len() as u64, 1, MINUTES_MAX as u64)?;
    within("payments a second of an edge", play.edge_tps, 1, TPS_MAX)?;
    for tps in trace {
        within("payments a second", *tps, 0, TPS_MAX)?;
    }
    let mut state = State::new(play);
    Ok(trace.iter().zip(0..).map(|(tps, minute)| state.step(minute, *tps)).collect())
}

/// Adds it up.
pub fn summary(minutes: &[Minute]) -> Summary {
    let sum = |of: fn(&Minute) -> u64| minutes.iter().map(of).sum::<u64>();
    Summary {
        offered: sum(|minute| minute.offered),
        served: sum(|minute| minute.served),
        dropped: sum(|minute| minute.dropped),
        queued: minutes.last().map_or(0, |minute| minute.queued),
        edges_peak: minutes.iter().map(|minute| minute.edges).max().unwrap_or_default(),
        edge_minutes: sum(|minute| u64::from(minute.wanted)),
        utilisation_percent: sum(|minute| minute.utilisation_percent) / (minutes.len() as u64).max(1),
        minutes_dropping: sum(|minute| u64::from(minute.dropped > 0)),
    }
}

/// The bounds of the last entry that began before a day.
fn before(scaling: &Scaling, start: Date) -> Option<(u32, u32)> {
    let minutes_of_day = u64::from(24 * 60_u32);
    let begun = |back: i64| {
        let day = Date { days: start.days - back };
        (0..minutes_of_day).rev().find_map(|minute| {
            let moment = day.moment(minute);
            scaling.scheduled.iter().find(|entry| entry.schedule.begins(&moment)).map(|entry| (entry.min, entry.max))
        })
    };
    if scaling.scheduled.is_empty() { None } else { (1..=LOOK_BACK_DAYS).find_map(begun) }
}

struct State<'a> {
    play: &'a Play<'a>,
    bounds: (u32, u32),
    edges: u32,
    /// Edges that start, with the minute from which on they take calls.
    starting: Vec<(u64, u32)>,
    queued: u64,
    /// For how many seconds each rule's figure has been past its threshold, those that add first.
    past: Vec<u32>,
}

impl<'a> State<'a> {
    fn new(play: &'a Play<'a>) -> Self {
        let autoscaler = &play.scaling.autoscaler;
        let bounds = before(play.scaling, play.start).unwrap_or((autoscaler.min, autoscaler.max));
        let rules = play.scaling.scale_up.len() + play.scaling.scale_down.len();
        Self { play, bounds, edges: bounds.0, starting: Vec::new(), queued: 0, past: vec![0; rules] }
    }

    fn wanted(&self) -> u32 {
        self.edges + self.starting.iter().map(|(_, edges)| edges).sum::<u32>()
    }

    fn step(&mut self, minute: u64, tps: u64) -> Minute {
        let started: u32 = self.starting.iter().filter(|(from, _)| *from <= minute).map(|(_, edges)| edges).sum();
        self.starting.retain(|(from, _)| *from > minute);
        self.edges += started;
        let moment = self.play.start.moment(minute);
        if let Some(entry) = self.play.scaling.scheduled.iter().find(|entry| entry.schedule.begins(&moment)) {
            self.bounds = (entry.min, entry.max);
            self.want(minute, entry.target);
        }

        let reach_tps = u64::from(self.edges) * self.play.edge_tps;
        let reach = reach_tps * u64::from(STEP_SECONDS);
        let offered = tps * u64::from(STEP_SECONDS);
        let served = reach.min(self.queued + offered);
        let left = self.queued + offered - served;
        self.queued = left.min(reach_tps * WAIT_SECONDS_MAX);
        let minute_of = Minute {
            offered,
            served,
            dropped: left - self.queued,
            queued: self.queued,
            edges: self.edges,
            wanted: self.wanted(),
            utilisation_percent: served * 100 / reach.max(1),
            bounds: self.bounds,
        };
        self.react(minute, &minute_of);
        minute_of
    }

    fn react(&mut self, minute: u64, now: &Minute) {
        let figure = |rule: &Reactive| match rule.metric {
            Metric::Cpu => now.utilisation_percent,
            Metric::QueueLength => now.queued,
        };
        let scaling = self.play.scaling;
        let added = scaling.scale_up.iter().map(|rule| (rule, figure(rule) > u64::from(rule.threshold)));
        let taken = scaling.scale_down.iter().map(|rule| (rule, figure(rule) < u64::from(rule.threshold)));
        let rules: Vec<(&Reactive, bool)> = added.chain(taken).collect();
        for (past, (_, is_past)) in self.past.iter_mut().zip(&rules) {
            *past = if *is_past { past.saturating_add(STEP_SECONDS) } else { 0 };
        }
        let due = |state: &Self, index: usize| state.past[index] >= rules[index].0.duration_seconds;
        let ups = scaling.scale_up.len();
        let most = |state: &Self, range: std::ops::Range<usize>| {
            range.filter(|index| due(state, *index)).map(|index| rules[index].0.percent).max()
        };
        let wanted = u64::from(self.wanted());
        let to = if let Some(percent) = most(self, 0..ups) {
            // At least one, and what is added is whole.
            (wanted * (100 + u64::from(percent))).div_ceil(100)
        } else if let Some(percent) = most(self, ups..rules.len()) {
            wanted - (wanted * u64::from(percent) / 100).clamp(1, wanted)
        } else {
            return;
        };
        // One that was acted upon has to be so again for as long.
        for index in 0..rules.len() {
            if due(self, index) {
                self.past[index] = 0;
            }
        }
        self.want(minute, u32::try_from(to).unwrap_or(u32::MAX));
    }

    /// Asks for so many edges, within the bounds: more have to start; of those that start, the last are given up first.
    fn want(&mut self, minute: u64, edges: u32) {
        let edges = edges.clamp(self.bounds.0, self.bounds.1);
        let wanted = self.wanted();
        if edges > wanted {
            let starts = minute + u64::from(self.play.scaling.start_seconds.div_ceil(STEP_SECONDS));
            self.starting.push((starts, edges - wanted));
        }
        let mut surplus = wanted.saturating_sub(edges);
        while let (Some((_, starting)), true) = (self.starting.last_mut(), surplus > 0) {
            let given_up = surplus.min(*starting);
            *starting -= given_up;
            surplus -= given_up;
            if *starting == 0 {
                self.starting.pop();
            }
        }
        self.edges -= surplus;
    }
}

/// Reads a trace: lines of a minute and the payments a second then, after the heading `minute,tps`. Between two lines the rate goes evenly from one to the other;
/// the last line is the end.
///
/// # Errors
/// The first line that is none, by its number.
pub fn read_trace(text: &str) -> Result<Vec<u64>, String> {
    let mut lines =
        text.lines().zip(1..).map(|(line, number)| (line.trim(), number)).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(("minute,tps", _)) => {}
        Some((_, number)) => return Err(format!("line {number}: the first line must be `minute,tps`")),
        None => return Err("there is nothing in it: the first line must be `minute,tps`".to_owned()),
    }
    let mut points: Vec<(u64, u64)> = Vec::new();
    for (line, number) in lines {
        let wrong = |what: &str| format!("line {number}: {what}, not `{}`", line.chars().take(40).collect::<String>());
        let (minute, tps) = line.split_once(',').ok_or_else(|| wrong("must be a minute and a rate such as 60,1200"))?;
        let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        let minute = whole(minute)
            .filter(|minute| *minute < MINUTES_MAX as u64)
            .ok_or_else(|| wrong(&format!("the minute must be 0 to {}", MINUTES_MAX - 1)))?;
        let tps = whole(tps)
            .filter(|tps| *tps <= TPS_MAX)
            .ok_or_else(|| wrong(&format!("the rate must be a whole number of payments a second, 0 to {TPS_MAX}")))?;
        match points.last() {
            None if minute != 0 => return Err(wrong("the first minute must be 0")),
            Some((before, _)) if *before >= minute => return Err(wrong(&format!("the minute must be after {before}"))),
            _ => points.push((minute, tps)),
        }
    }
    let [.., last] = points.as_slice() else { return Err("there is no line after the first".to_owned()) };
    let mut trace = Vec::new();
    for pair in points.windows(2) {
        let ((from, one), (to, other)) = (pair[0], pair[1]);
        for minute in from..to {
            let (gone, whole) = (minute - from, to - from);
            trace.push((one * (whole - gone) + other * gone) / whole);
        }
    }
    trace.push(last.1);
    Ok(trace)
}
