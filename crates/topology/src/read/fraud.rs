//! fraud.yaml out of its tree: keys known, values of the right kind, bounds in order, and names that stand for something.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use paymesh_types::{Country, Currency, Score, UserId, ZoneName};
use rust_decimal::Decimal;

use super::{At, Field, Mapping, Reader};
use crate::{
    Fraud, Listed, Rule, Shape, Signal, Topology, TransactionRisk, Unscored, Window, ZonePolicy,
    problem::{Problems, quote, suggest},
    tree::{Place, Value},
};

/// Bytes of the file's own version at most.
const VERSION_BYTES_MAX: usize = 63;
/// Items of a list of users, cards or the like at most: the file's size bounds it anyway.
const LISTED_MAX: usize = 10_000;
/// Digits after the point of a rate at most.
const RATE_DIGITS_MAX: u32 = 9;
/// What one unit of a currency is worth at most, in units of the reference currency.
const RATE_MAX: i64 = 1_000_000;
/// How long a payment may wait for its score.
const DEADLINE_MS: std::ops::RangeInclusive<u64> = 10..=5_000;
/// Days for which payments are counted before any is exempt for its low risk.
const HISTORY_DAYS: std::ops::RangeInclusive<u64> = 0..=366;
/// Amounts and counts: the bound of every amount (AMOUNT_MINOR_MAX), with room for sums.
const MEASURE_MAX: u64 = 1_000_000_000_000_000_000;
/// Payments that a user must have made at most, for a rule to say something.
const AFTER_MAX: u64 = 1_000;
/// Steps of what is done with payments that were not scored at most.
const STEPS_MAX: usize = 16;
/// Bytes of a card's fingerprint and of a device's hash.
const HASH_BYTES: usize = 16;

/// Reads the file. `None`, or less than it says, where there is a problem.
pub(crate) fn read(root: &Value, topology: &Topology, problems: &mut Problems) -> Option<Fraud> {
    let mut reader = FraudReader { reader: Reader { problems }, topology };
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let known = ["version", "reference_currency", "rates", "zones", "rules", "block", "allow"];
    let root = reader.reader.mapping(&root, Some(&known))?;
    let version = reader.reader.required(&root, "version").and_then(|field| reader.version(field));
    let reference = reader.reader.required(&root, "reference_currency").and_then(|field| reader.currency(field));
    let rates = root.find("rates").map_or_else(BTreeMap::new, |field| reader.rates(field, reference));
    let zones = root.find("zones").map_or_else(BTreeMap::new, |field| reader.zones(field));
    let rules = reader.reader.required(&root, "rules").map(|field| reader.rules(field));
    let block = root.find("block").map_or_else(Listed::default, |field| reader.listed(field, &Listed::default()));
    let allow = root.find("allow").map_or_else(Listed::default, |field| reader.listed(field, &block));
    Some(Fraud { version: version?, reference: reference?, rates, zones, rules: rules?, block, allow })
}

struct FraudReader<'p, 'a> {
    reader: Reader<'p>,
    topology: &'a Topology,
}

impl FraudReader<'_, '_> {
    fn version(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.reader.text(field)?;
        let valid = (1..=VERSION_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !valid {
            let message = format!("must be 1 to {VERSION_BYTES_MAX} letters, digits, dots, - and _, not {}", quote(text));
            self.reader.say(field, message);
        }
        valid.then(|| text.to_owned())
    }

    fn currency(&mut self, field: &Field<'_>) -> Option<Currency> {
        let text = self.reader.text(field)?;
        let currency = Currency::from_code(text);
        if let Err(error) = &currency {
            self.reader.say(field, format!("{error}, not {}", quote(text)));
        }
        currency.ok()
    }

    fn rates(&mut self, field: &Field<'_>, reference: Option<Currency>) -> BTreeMap<Currency, Decimal> {
        let Some(mapping) = self.reader.mapping(field, None) else { return BTreeMap::new() };
        let mut rates = BTreeMap::new();
        for (code, field) in &mapping.fields {
            let currency = match Currency::from_code(code) {
                Ok(currency) if Some(currency) == reference => {
                    self.reader.say(field, "is the reference currency itself, whose rate is 1: leave it out");
                    continue;
                }
                Ok(currency) => currency,
                Err(error) => {
                    self.reader.say(field, error.to_string());
                    continue;
                }
            };
            if let Some(rate) = self.rate(field) {
                rates.insert(currency, rate);
            }
        }
        rates
    }

    fn rate(&mut self, field: &Field<'_>) -> Option<Decimal> {
        let rate = number(field.value).and_then(|text| Decimal::from_str_exact(&text).ok());
        let rate = rate.filter(|rate| *rate > Decimal::ZERO && *rate <= Decimal::from(RATE_MAX) && rate.scale() <= RATE_DIGITS_MAX);
        if rate.is_none() {
            let what = format!("a number above 0 and up to {RATE_MAX}, with at most {RATE_DIGITS_MAX} digits after the point");
            self.reader.expected(field, &what);
        }
        rate
    }

    fn score(&mut self, field: &Field<'_>) -> Option<Score> {
        let score = number(field.value).and_then(|text| text.parse().ok());
        if score.is_none() {
            self.reader.expected(field, "a number from 0 to 1 with at most four digits after the point");
        }
        score
    }

    fn zones(&mut self, field: &Field<'_>) -> BTreeMap<ZoneName, ZonePolicy> {
        let Some(mapping) = self.reader.mapping(field, None) else { return BTreeMap::new() };
        let mut zones = BTreeMap::new();
        for (name, field) in &mapping.fields {
            let topology = self.topology;
            let zone: Option<ZoneName> = name.parse().ok().filter(|zone| topology.zone(zone).is_some());
            if zone.is_none() {
                let known: Vec<&str> = topology.zones().map(|zone| zone.name.as_str()).collect();
                let message = format!("no zone is called {}{}", quote(name), suggest(name, known.iter().copied(), "the zones are"));
                self.reader.say(field, message);
            }
            let policy = self.policy(field, zone.as_ref());
            if let (Some(zone), Some(policy)) = (zone, policy) {
                zones.insert(zone, policy);
            }
        }
        zones
    }

    fn policy(&mut self, field: &Field<'_>, zone: Option<&ZoneName>) -> Option<ZonePolicy> {
        let known = ["decline_above", "review_above", "deadline_ms", "when_unavailable", "transaction_risk_analysis"];
        let mapping = self.reader.mapping(field, Some(&known))?;
        let mut policy = ZonePolicy::default();
        if let Some(found) = mapping.find("decline_above") {
            policy.decline_above = self.score(found)?;
            if policy.decline_above == Score::ONE || policy.decline_above == Score::ZERO {
                self.reader.say(found, "must be more than 0 and less than 1: nothing scores above 1, not even what is blocked");
            }
        }
        if let Some(found) = mapping.find("review_above") {
            policy.review_above = self.score(found)?;
        }
        if policy.review_above >= policy.decline_above {
            let place = mapping.find("review_above").unwrap_or(field);
            let message = format!("must be less than decline_above, which is {}", policy.decline_above);
            self.reader.say(place, message);
        }
        if let Some(found) = mapping.find("deadline_ms") {
            policy.deadline = Duration::from_millis(self.reader.whole(found, DEADLINE_MS)?);
        }
        if let Some(found) = mapping.find("when_unavailable") {
            self.steps(found, &mut policy)?;
        }
        if let Some(found) = mapping.find("transaction_risk_analysis") {
            policy.transaction_risk = self.transaction_risk(found, zone)?;
        }
        Some(policy)
    }

    fn transaction_risk(&mut self, field: &Field<'_>, zone: Option<&ZoneName>) -> Option<TransactionRisk> {
        let mapping = self.reader.mapping(field, Some(&["exempt_up_to_eur", "history_days", "score_max"]))?;
        let mut analysis = TransactionRisk::default();
        if let Some(found) = mapping.find("exempt_up_to_eur") {
            let up_to = self.reader.whole(found, 0..=u64::from(u16::MAX))?;
            let threshold = TransactionRisk::THRESHOLDS_EUR.into_iter().find(|threshold| u64::from(*threshold) == up_to);
            if threshold.is_none() {
                self.reader.say(found, format!("must be 0, 100, 250 or 500, the thresholds of the regulation, not {up_to}"));
            }
            analysis.exempt_up_to_eur = threshold?;
            if let Some(zone) = zone.filter(|zone| up_to > 0 && !self.topology.is_under_psd2(zone)) {
                self.reader
                    .say(found, format!("no region of zone `{zone}` is under PSD2, so that its payments owe nothing to be exempt from"));
            }
        }
        if let Some(found) = mapping.find("history_days") {
            analysis.history_days = u32::try_from(self.reader.whole(found, HISTORY_DAYS)?).ok()?;
        }
        if let Some(found) = mapping.find("score_max") {
            analysis.score_max = self.score(found)?;
        }
        Some(analysis)
    }

    /// What is done with payments that were not scored: by amount, the smallest first, and at last with all others.
    fn steps(&mut self, field: &Field<'_>, policy: &mut ZonePolicy) -> Option<()> {
        let Value::List(items) = field.value else {
            self.reader.expected(field, "a list of {up_to, then}, the last without up_to");
            return None;
        };
        if items.is_empty() || items.len() > STEPS_MAX {
            self.reader.say(field, format!("must list 1 to {STEPS_MAX}, not {}", items.len()));
            return None;
        }
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let mapping = self.reader.mapping(&item, Some(&["up_to", "then"]))?;
            let then = self.reader.required(&mapping, "then");
            let then = then.and_then(|field| self.reader.word(field, Unscored::WORDS, Unscored::from_word, "policy"));
            let is_last = index + 1 == items.len();
            match mapping.find("up_to") {
                Some(found) if is_last => {
                    self.reader.say(found, "the last says what is done with all other payments, and has no up_to");
                }
                Some(found) => {
                    let up_to = self.reader.whole(found, 1..=MEASURE_MAX)?;
                    if policy.when_unavailable.last().is_some_and(|(before, _)| *before >= up_to) {
                        self.reader.say(found, "must be more than the one before");
                    }
                    policy.when_unavailable.push((up_to, then?));
                }
                None if is_last => policy.otherwise = then?,
                None => self.reader.say(&item, "only the last is without up_to: what comes after it would never be reached"),
            }
        }
        Some(())
    }

    fn rules(&mut self, field: &Field<'_>) -> BTreeMap<Signal, Vec<Rule>> {
        let Some(mapping) = self.reader.mapping(field, Some(Signal::WORDS)) else { return BTreeMap::new() };
        if matches!(field.value, Value::Map(entries) if entries.is_empty()) {
            self.reader.say(field, "must not be empty");
        }
        let mut rules = BTreeMap::new();
        for (name, field) in &mapping.fields {
            let Some(signal) = Signal::from_word(name) else { continue };
            let of_signal = match signal.shape() {
                Shape::Windowed => self.windowed(signal, field),
                Shape::Ramp | Shape::Flag => self.rule(signal, field).into_iter().collect(),
            };
            rules.insert(signal, of_signal);
        }
        rules
    }

    fn windowed(&mut self, signal: Signal, field: &Field<'_>) -> Vec<Rule> {
        let Value::List(items) = field.value else {
            self.reader.expected(field, "a list of {per, from, full, weight}, one for each window");
            return Vec::new();
        };
        if items.is_empty() {
            self.reader.say(field, "must list at least one rule: leave the signal out where it is to count nothing");
        }
        let mut rules: Vec<Rule> = Vec::new();
        // More than there are windows cannot pass, so the list is bounded.
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let Some(rule) = self.rule(signal, &item) else { continue };
            if rules.iter().any(|other| other.per == rule.per) {
                self.reader.say(&item, "the window has a rule already");
            } else {
                rules.push(rule);
            }
        }
        rules.sort_by_key(|rule| rule.per);
        rules
    }

    fn rule(&mut self, signal: Signal, field: &Field<'_>) -> Option<Rule> {
        let mut known = vec!["weight"];
        match signal.shape() {
            Shape::Windowed => known.extend(["per", "from", "full"]),
            Shape::Ramp => known.extend(["from", "full"]),
            Shape::Flag => {}
        }
        if signal.is_about_habits() {
            known.push("after");
        }
        let mapping = self.reader.mapping(field, Some(&known))?;
        let per = match signal.shape() {
            Shape::Windowed => {
                let found = self.reader.required(&mapping, "per");
                found.and_then(|field| self.reader.word(field, Window::WORDS, Window::from_word, "window")).map(Some)
            }
            Shape::Ramp | Shape::Flag => Some(None),
        };
        let bounds = if signal.shape() == Shape::Flag { Some((0, 1)) } else { self.bounds(&mapping) };
        let weight = self.reader.required(&mapping, "weight").and_then(|field| self.score(field));
        let after = if signal.is_about_habits() {
            let found = self.reader.required(&mapping, "after");
            found.and_then(|field| self.reader.whole(field, 1..=AFTER_MAX)).and_then(|after| u32::try_from(after).ok())
        } else {
            Some(0)
        };
        let (from, full) = bounds?;
        Some(Rule { per: per?, from, full, weight: weight?, after: after? })
    }

    fn bounds(&mut self, mapping: &Mapping<'_>) -> Option<(u64, u64)> {
        let from = self.reader.required(mapping, "from").and_then(|field| self.reader.whole(field, 0..=MEASURE_MAX));
        let full_field = self.reader.required(mapping, "full");
        let full = full_field.and_then(|field| self.reader.whole(field, 1..=MEASURE_MAX));
        let (from, full) = (from?, full?);
        if let Some(field) = full_field.filter(|_| full <= from) {
            self.reader.say(field, format!("must be more than from, which is {from}"));
            return None;
        }
        Some((from, full))
    }

    /// A list of who is believed or refused; `other` is what the file has listed before.
    fn listed(&mut self, field: &Field<'_>, other: &Listed) -> Listed {
        let mut listed = Listed::default();
        let Some(mapping) = self.reader.mapping(field, Some(&["users", "cards", "devices", "bins", "countries"])) else { return listed };
        if let Some(field) = mapping.find("users") {
            listed.users = self.set(field, &other.users, |reader, field| {
                let number = reader.whole(field, 1..=u64::MAX)?;
                UserId::try_from(number).map_err(|error| reader.say(field, error.to_string())).ok()
            });
        }
        if let Some(field) = mapping.find("cards") {
            listed.cards = self.set(field, &other.cards, hash);
        }
        if let Some(field) = mapping.find("devices") {
            listed.devices = self.set(field, &other.devices, hash);
        }
        if let Some(field) = mapping.find("bins") {
            listed.bins = self.set(field, &other.bins, bin);
        }
        if let Some(field) = mapping.find("countries") {
            listed.countries = self.set(field, &other.countries, |reader, field| reader.country(field) as Option<Country>);
        }
        listed
    }

    fn set<T: Ord>(
        &mut self,
        field: &Field<'_>,
        other: &BTreeSet<T>,
        read: impl Fn(&mut Reader<'_>, &Field<'_>) -> Option<T>,
    ) -> BTreeSet<T> {
        let mut set = BTreeSet::new();
        let Value::List(items) = field.value else {
            self.reader.expected(field, "a list");
            return set;
        };
        if items.len() > LISTED_MAX {
            self.reader.say(field, format!("must list at most {LISTED_MAX}, not {}", items.len()));
            return set;
        }
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let Some(read) = read(&mut self.reader, &item) else { continue };
            if other.contains(&read) {
                self.reader.say(&item, "is blocked too: it can be on one of the lists");
            } else if !set.insert(read) {
                self.reader.say(&item, "is listed twice");
            }
        }
        set
    }
}

/// A number as it is written, whole or not.
fn number(value: &Value) -> Option<String> {
    match value {
        Value::Whole(whole) => Some(whole.to_string()),
        Value::Fraction(fraction) => Some(fraction.clone()),
        _ => None,
    }
}

/// Not quoted where it is wrong: somebody may have written a card's number.
fn hash(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<[u8; HASH_BYTES]> {
    let Value::Text(text) = field.value else {
        reader.say(field, format!("must be {} hexadecimal digits, as text in quotes", 2 * HASH_BYTES));
        return None;
    };
    let mut bytes = [0; HASH_BYTES];
    let valid = text.len() == 2 * HASH_BYTES && text.is_ascii();
    let whole = valid
        && bytes.iter_mut().zip(text.as_bytes().chunks(2)).all(|(byte, digits)| {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let both = digit(digits[0]).zip(digit(digits[1]));
            *byte = both.map_or(0, |(high, low)| high << 4 | low);
            both.is_some()
        });
    if !whole {
        reader.say(field, format!("must be {} hexadecimal digits", 2 * HASH_BYTES));
    }
    whole.then_some(bytes)
}

fn bin(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let valid = |text: &&String| matches!(text.len(), 6 | 8) && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = match field.value {
        Value::Text(text) => Some(text).filter(valid).cloned(),
        _ => None,
    };
    if text.is_none() {
        reader.say(field, "must be the first six or eight digits of a card's number, as text in quotes");
    }
    text
}
