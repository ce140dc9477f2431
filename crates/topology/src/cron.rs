//! Schedules of five fields (crontab(5)): minute, hour, day of month, month, day of week.
//!
//! Of both days one may be said only: crontab takes either of them then, and AWS neither without the other left open. So every schedule means the same in all
//! its forms, which are written anew from what was understood, and not copied.

use std::fmt::Write as _;

/// Days of each month, of the longest year.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// When something begins: every minute that all of its fields have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Bit `n` is minute `n`.
    minutes: u64,
    hours: u64,
    /// 1 to 31.
    days: u64,
    /// 1 to 12.
    months: u64,
    /// 0, Sunday, to 6.
    weekdays: u64,
}

/// A minute, by the clock and the calendar of somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 1 to 31.
    pub day: u32,
    /// 1 to 12.
    pub month: u32,
    /// 0, Sunday, to 6.
    pub weekday: u32,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: &MONTHS },
    // 7 is Sunday too.
    Field { name: "day of week", first: 0, last: 7, names: &DAYS },
];

/// One or two digits.
fn number(text: &str) -> Option<u32> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl Field {
    fn all(&self) -> u64 {
        (self.first..=self.last).fold(0, |bits, value| bits | 1 << value)
    }

    fn value(&self, text: &str) -> Option<u32> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return u32::try_from(index).ok().map(|index| index + u32::from(self.names.len() == MONTHS.len()));
        }
        number(text).filter(|value| (self.first..=self.last).contains(value))
    }

    fn parse(&self, text: &str) -> Result<u64, String> {
        let wrong = |part: &str| {
            format!("the {} `{part}` is none: it is {} to {}, or a list, range or step of these", self.name, self.first, self.last)
        };
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, number(step).filter(|step| (1..=self.last).contains(step)).ok_or_else(|| wrong(part))?),
                None => (part, 1),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last.min(if self.names.len() == DAYS.len() { 6 } else { self.last })),
                Some((first, last)) => (self.value(first).ok_or_else(|| wrong(part))?, self.value(last).ok_or_else(|| wrong(part))?),
                None => {
                    let only = self.value(range).ok_or_else(|| wrong(part))?;
                    // A step from one value on is written with a range.
                    if step != 1 || part.contains('/') {
                        return Err(wrong(part));
                    }
                    (only, only)
                }
            };
            if first > last {
                return Err(format!("the {} `{part}` goes backwards", self.name));
            }
            for value in (first..=last).step_by(step as usize) {
                bits |= 1 << value;
            }
        }
        Ok(bits)
    }
}

impl Schedule {
    /// Reads a schedule. The error says which field is wrong, and why.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("a schedule has five fields, minute, hour, day of month, month and day of week, not {}", fields.len()));
        };
        let mut bits = [0; 5];
        for ((field, text), bits) in FIELDS.iter().zip([minute, hour, day, month, weekday]).zip(&mut bits) {
            *bits = field.parse(text)?;
        }
        let [minutes, hours, days, months, mut weekdays] = bits;
        if weekdays & 1 << 7 != 0 {
            weekdays = (weekdays | 1) & !(1 << 7);
        }
        let schedule = Self { minutes, hours, days, months, weekdays };
        if schedule.dates().next().is_none() {
            return Err(format!("the day of month `{day}` comes in none of the months `{month}`"));
        }
        // A field that says all of its days one by one says one too: crontab goes by its first character.
        let says = |bits: bool, text: &str| bits || !text.starts_with('*');
        if says(schedule.has_days(), day) && says(schedule.has_weekdays(), weekday) {
            return Err(
                "it says both a day of month and a day of week, which schedulers understand in different ways: leave one of them `*`"
                    .to_owned(),
            );
        }
        Ok(schedule)
    }

    fn has_days(&self) -> bool {
        self.days != FIELDS[2].all()
    }

    fn has_weekdays(&self) -> bool {
        self.weekdays != 0x7f
    }

    /// Whether it begins in this minute.
    pub fn begins(&self, moment: &Moment) -> bool {
        let has = |bits: u64, value: u32| bits & (1 << value) != 0;
        has(self.minutes, moment.minute)
            && has(self.hours, moment.hour)
            && has(self.days, moment.day)
            && has(self.months, moment.month)
            && has(self.weekdays, moment.weekday)
    }

    /// The days of a year on which it may begin: months and days.
    fn dates(&self) -> impl Iterator<Item = (u32, u32)> {
        let (months, days) = (self.months, self.days);
        let of_month =
            move |(month, length): (u32, u32)| (1..=length).filter(move |day| days & (1 << day) != 0).map(move |day| (month, day));
        (1..).zip(MONTH_DAYS).filter(move |(month, _)| months & (1 << month) != 0).flat_map(of_month)
    }

    /// The first time of day at which both may begin on one day. None: they never begin together.
    pub(crate) fn meets(&self, other: &Self) -> Option<(u32, u32)> {
        let both = |one: u64, two: u64| Some((one & two).trailing_zeros()).filter(|first| *first < u64::BITS);
        // Every date is every day of the week in some year.
        self.dates().find(|date| other.dates().any(|others| others == *date))?;
        both(self.weekdays, other.weekdays)?;
        Some((both(self.hours, other.hours)?, both(self.minutes, other.minutes)?))
    }

    fn written(&self) -> [String; 5] {
        let field = |bits: u64, index: usize, names: &[&str]| {
            let all = if index == 4 { 0x7f } else { FIELDS[index].all() };
            if bits == all { "*".to_owned() } else { runs(bits, FIELDS[index].first, names) }
        };
        [
            field(self.minutes, 0, &[]),
            field(self.hours, 1, &[]),
            field(self.days, 2, &[]),
            field(self.months, 3, &[]),
            field(self.weekdays, 4, &DAYS),
        ]
    }

    /// As Kubernetes takes it: five fields.
    pub fn to_crontab(&self) -> String {
        self.written().join(" ")
    }

    /// As Application Auto Scaling takes it: `cron(` minute, hour, day of month, month, day of week and year `)`, one of both days a question mark.
    pub fn to_aws(&self) -> String {
        let [minute, hour, mut day, month, mut weekday] = self.written();
        if self.has_weekdays() {
            day = "?".to_owned();
        } else {
            weekday = "?".to_owned();
        }
        format!("cron({minute} {hour} {day} {month} {weekday} *)")
    }
}

/// The values of a field: lists of values and ranges.
fn runs(bits: u64, first: u32, names: &[&str]) -> String {
    let name = |value: u32| names.get((value - first) as usize).map_or_else(|| value.to_string(), |name| (*name).to_owned());
    let mut text = String::new();
    let mut value = first;
    while value < u64::BITS {
        if bits & (1 << value) == 0 {
            value += 1;
            continue;
        }
        let mut last = value;
        while last + 1 < u64::BITS && bits & (1 << (last + 1)) != 0 {
            last += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&name(value));
        if last > value {
            let separator = if last == value + 1 { ',' } else { '-' };
            let _ = write!(text, "{separator}{}", name(last));
        }
        value = last + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_source_documents_schedules_are_the_same_in_every_form() {
        for (text, crontab, aws) in [
            ("0 8 * * MON-FRI", "0 8 * * MON-FRI", "cron(0 8 ? * MON-FRI *)"),
            ("0 18 * * *", "0 18 * * *", "cron(0 18 * * ? *)"),
            ("0 2 * * SAT,SUN", "0 2 * * SUN,SAT", "cron(0 2 ? * SUN,SAT *)"),
            ("*/15 9-17 * * 1-5", "0,15,30,45 9-17 * * MON-FRI", "cron(0,15,30,45 9-17 ? * MON-FRI *)"),
            ("30 0 1,15 jan-mar *", "30 0 1,15 1-3 *", "cron(30 0 1,15 1-3 ? *)"),
            ("0 0 * * 7", "0 0 * * SUN", "cron(0 0 ? * SUN *)"),
            ("0 0 * * 5-7", "0 0 * * SUN,FRI,SAT", "cron(0 0 ? * SUN,FRI,SAT *)"),
        ] {
            assert_eq!((schedule(text).to_crontab(), schedule(text).to_aws()), (crontab.to_owned(), aws.to_owned()), "{text}");
            assert_eq!(schedule(crontab), schedule(text), "{text}: what is written is what was read");
        }
    }

    #[test]
    fn a_schedule_begins_in_the_minutes_that_it_says() {
        let moment = |hour, minute, weekday| Moment { minute, hour, day: 27, month: 11, weekday };
        let morning = schedule("0 8 * * MON-FRI");
        assert!(morning.begins(&moment(8, 0, 5)) && morning.begins(&moment(8, 0, 1)));
        assert!(
            !morning.begins(&moment(8, 1, 5))
                && !morning.begins(&moment(9, 0, 5))
                && !morning.begins(&moment(8, 0, 6))
                && !morning.begins(&moment(8, 0, 0))
        );
        assert!(schedule("0 8 27 11 *").begins(&moment(8, 0, 5)) && !schedule("0 8 26 11 *").begins(&moment(8, 0, 5)));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_what_was_read(minutes in 1_u64..1 << 60, hours in 1_u64..1 << 24, days in 1_u64..1 << 31, months in 1_u64..1 << 12, weekdays in 1_u64..1 << 7, by_weekday: bool) {
            let list = |bits: u64, first: u32| {
                let values = (0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit: u32| (bit + first).to_string());
                values.collect::<Vec<_>>().join(",")
            };
            let (day, weekday) = if by_weekday { ("*".to_owned(), list(weekdays, 0)) } else { (list(days, 1), "*".to_owned()) };
            let text = format!("{} {} {day} {} {weekday}", list(minutes, 0), list(hours, 0), list(months, 1));
            let Ok(read) = Schedule::parse(&text) else {
                // The one thing that may be wrong with it.
                proptest::prop_assert!(!by_weekday && (1..).zip(MONTH_DAYS).all(|(month, length)| months & (1 << (month - 1)) == 0 || days & ((1 << length) - 1) == 0));
                return Ok(());
            };
            proptest::prop_assert_eq!(schedule(&read.to_crontab()), read);
            // And AWS' form is the same but for the day that it leaves open.
            let aws = read.to_aws();
            let fields: Vec<&str> = aws.trim_start_matches("cron(").trim_end_matches(" *)").split(' ').collect();
            proptest::prop_assert_eq!(fields.iter().filter(|field| **field == "?").count(), 1);
            proptest::prop_assert_eq!(schedule(&fields.join(" ").replace('?', "*")), read);
        }
    }

    #[test]
    fn two_that_may_begin_together_are_known() {
        for (one, other, meets) in [
            ("0 8 * * MON-FRI", "0 18 * * *", None),
            ("0 8 * * MON-FRI", "0 8 * * SAT", None),
            ("0 8 * * MON-FRI", "0 8 1 * *", Some((8, 0))),
            ("*/10 8 * * *", "20-25 6-9 * * *", Some((8, 20))),
            ("0 8 * 1 *", "0 8 * 2 *", None),
            ("0 8 31 * *", "0 8 * 4 *", None),
            ("0 8 29 * *", "0 8 * 2 *", Some((8, 0))),
        ] {
            assert_eq!(schedule(one).meets(&schedule(other)), meets, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_its_field() {
        for (text, why) in [
            ("", "five fields"),
            ("0 8 * *", "not 4"),
            ("0 8 * * MON FRI", "not 6"),
            ("60 8 * * *", "the minute `60`"),
            ("000 8 * * *", "the minute `000`"),
            ("0 24 * * *", "the hour `24`"),
            ("0 8 0 * *", "the day of month `0`"),
            ("0 8 * 13 *", "the month `13`"),
            ("0 8 * * 8", "the day of week `8`"),
            ("0 8 * * MONDAY", "the day of week `MONDAY`"),
            ("0 17-9 * * *", "goes backwards"),
            ("*/0 * * * *", "the minute `*/0`"),
            ("*/+5 * * * *", "the minute `*/+5`"),
            ("0 0 30 2 *", "the day of month `30` comes in none of the months `2`"),
            ("0 0 31 APR,JUN *", "comes in none of the months `APR,JUN`"),
            ("5/10 * * * *", "the minute `5/10`"),
            ("-1 * * * *", "the minute `-1`"),
            ("+1 * * * *", "the minute `+1`"),
            ("0 8, * * *", "the hour ``"),
            ("@daily", "not 1"),
            ("0 8 1-31 * MON", "both a day of month and a day of week"),
            ("0 8 1 * 0-6", "both a day of month and a day of week"),
            ("0 8 1 * MON", "both a day of month and a day of week"),
        ] {
            let error = Schedule::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
