//! gateways.yaml out of its tree: keys known, values of the right kind, names that stand for something, and a gateway for every payment.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf, time::Duration};

use paymesh_cards::Brand;
use paymesh_types::{Currency, Money, ZoneName};

use super::{At, Field, Mapping, Reader};
use crate::{
    BreakerRule, ConnectorKind, Cost, GATEWAYS_MAX, Gateway, Gateways, Preference, RULES_MAX, Retries, RoutingRule, Topology, When,
    ZoneGrant,
    problem::{Problems, quote, suggest},
    tree::{Place, Value},
};

/// Bytes of a gateway's or a rule's name at most.
const NAME_BYTES_MAX: usize = 32;
/// Bytes of any other text at most.
const TEXT_BYTES_MAX: usize = 512;
/// Payments by card of one batch that are in flight at once, where the file does not say.
const BATCH_IN_FLIGHT_DEFAULT: u32 = 100;
/// What all are.
const ANY: &str = "any";

const CONNECTORS: [(&str, ConnectorKind); 2] = [("simulator", ConnectorKind::Simulator), ("stripe", ConnectorKind::Stripe)];
const PREFERENCES: [(&str, Preference); 2] = [("weight", Preference::Weight), ("cost", Preference::Cost)];
const BRANDS: [(&str, Brand); 10] = [
    ("visa", Brand::Visa),
    ("mastercard", Brand::Mastercard),
    ("amex", Brand::Amex),
    ("diners", Brand::Diners),
    ("discover", Brand::Discover),
    ("jcb", Brand::Jcb),
    ("unionpay", Brand::UnionPay),
    ("maestro", Brand::Maestro),
    ("mir", Brand::Mir),
    ("other", Brand::Other),
];

const TIMEOUT_MS: RangeInclusive<u64> = 100..=60_000;
const CALLS_IN_FLIGHT: RangeInclusive<u64> = 1..=10_000;
const FAILURES: RangeInclusive<u64> = 1..=1_000;
const OPEN_SECONDS: RangeInclusive<u64> = 1..=3_600;
const PROBES: RangeInclusive<u64> = 1..=100;
const PERCENT: RangeInclusive<u64> = 0..=100;
const PER_SECOND: RangeInclusive<u64> = 0..=10_000;
const ATTEMPTS: RangeInclusive<u64> = 1..=8;
const BATCH_IN_FLIGHT: RangeInclusive<u64> = 1..=1_024;
const WEIGHT: RangeInclusive<u64> = 1..=1_000_000;
const FIXED_MINOR: RangeInclusive<u64> = 0..=1_000_000;

/// What a gateway has where the file does not say.
#[derive(Clone, Copy)]
struct Defaults {
    timeout: Duration,
    calls_in_flight: u32,
    breaker: BreakerRule,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            calls_in_flight: 256,
            breaker: BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
        }
    }
}

/// Reads the file. What could not be read is left out, and there is a problem for it.
pub(crate) fn read(root: &Value, topology: &Topology, problems: &mut Problems) -> Option<Gateways> {
    let mut reader = GatewaysReader { reader: Reader { problems }, topology };
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let root = reader.reader.mapping(&root, Some(&["defaults", "retries", "batches", "gateways", "rules"]))?;
    let defaults = match root.find("defaults") {
        Some(field) => reader.defaults(field),
        None => Some(Defaults::default()),
    };
    let retries = match root.find("retries") {
        Some(field) => reader.retries(field),
        None => Some(Retries { percent: 20, per_second: 10, attempts: 3 }),
    };
    let batch_in_flight = match root.find("batches") {
        Some(field) => reader.batches(field),
        None => Some(BATCH_IN_FLIGHT_DEFAULT),
    };
    let gateways = reader.reader.required(&root, "gateways").map(|field| reader.gateways(field, defaults.unwrap_or_default()));
    // One that is malformed is still there by its name, so that what refers to it is not wrong as well.
    let known: Vec<String> = gateways.iter().flatten().map(|(name, _)| name.clone()).collect();
    let rules = reader.reader.required(&root, "rules").and_then(|field| reader.rules(field, &known));
    let whole: Option<Vec<Gateway>> = gateways.and_then(|all| all.into_iter().map(|(_, gateway)| gateway).collect());
    if let (Some(gateways), Some(rules)) = (&whole, &rules) {
        reader.check_rules(rules, gateways);
    }
    defaults?;
    Some(Gateways {
        gateways: whole?,
        rules: rules?.into_iter().map(|rule| rule.value).collect(),
        retries: retries?,
        batch_in_flight: batch_in_flight?,
    })
}

struct GatewaysReader<'p, 'a> {
    reader: Reader<'p>,
    topology: &'a Topology,
}

/// Gateways.
impl GatewaysReader<'_, '_> {
    fn defaults(&mut self, field: &Field<'_>) -> Option<Defaults> {
        let mapping = self.reader.mapping(field, Some(&["timeout_ms", "calls_in_flight", "breaker"]))?;
        self.calls(&mapping, Defaults::default())
    }

    /// What both the defaults and a gateway have.
    fn calls(&mut self, mapping: &Mapping<'_>, defaults: Defaults) -> Option<Defaults> {
        let timeout = self.whole_or(mapping, "timeout_ms", TIMEOUT_MS, u64::try_from(defaults.timeout.as_millis()).unwrap_or(u64::MAX));
        let calls = self.small_or(mapping, "calls_in_flight", CALLS_IN_FLIGHT, defaults.calls_in_flight);
        let breaker = match mapping.find("breaker") {
            Some(field) => self.breaker(field, defaults.breaker),
            None => Some(defaults.breaker),
        };
        Some(Defaults { timeout: Duration::from_millis(timeout?), calls_in_flight: calls?, breaker: breaker? })
    }

    fn breaker(&mut self, field: &Field<'_>, default: BreakerRule) -> Option<BreakerRule> {
        let mapping = self.reader.mapping(field, Some(&["failures", "open_seconds", "probes"]))?;
        let failures = self.small_or(&mapping, "failures", FAILURES, default.failures);
        let open = self.whole_or(&mapping, "open_seconds", OPEN_SECONDS, default.open_for.as_secs());
        let probes = self.small_or(&mapping, "probes", PROBES, default.probes);
        Some(BreakerRule { failures: failures?, open_for: Duration::from_secs(open?), probes: probes? })
    }

    fn retries(&mut self, field: &Field<'_>) -> Option<Retries> {
        let mapping = self.reader.mapping(field, Some(&["percent", "per_second", "attempts"]))?;
        let percent = self.small_or(&mapping, "percent", PERCENT, 20);
        let per_second = self.small_or(&mapping, "per_second", PER_SECOND, 10);
        let attempts = self.small_or(&mapping, "attempts", ATTEMPTS, 3);
        Some(Retries { percent: percent?, per_second: per_second?, attempts: attempts? })
    }

    fn batches(&mut self, field: &Field<'_>) -> Option<u32> {
        let mapping = self.reader.mapping(field, Some(&["in_flight"]))?;
        self.small_or(&mapping, "in_flight", BATCH_IN_FLIGHT, BATCH_IN_FLIGHT_DEFAULT)
    }

    fn gateways(&mut self, field: &Field<'_>, defaults: Defaults) -> Vec<(String, Option<Gateway>)> {
        let Some(mapping) = self.reader.mapping(field, None) else { return Vec::new() };
        if mapping.fields.is_empty() || mapping.fields.len() > GATEWAYS_MAX {
            self.reader.say(field, format!("must have 1 to {GATEWAYS_MAX} gateways, not {}", mapping.fields.len()));
        }
        let mut urls: Vec<At<String>> = Vec::new();
        let mut all = Vec::new();
        for (name, field) in &mapping.fields {
            self.check_name(name, field);
            let gateway = self.gateway(name, field, defaults);
            if let Some((gateway, url)) = &gateway {
                if let Some(first) = urls.iter().find(|first| first.value == gateway.url) {
                    let line = first.place.line().map(|line| format!(" (line {line})")).unwrap_or_default();
                    self.reader.problems.add(
                        url.place,
                        &url.key,
                        format!("is another gateway's too{line}: one that fails would fail as two"),
                    );
                }
                urls.push(url.with(gateway.url.clone()));
            }
            all.push(((*name).to_owned(), gateway.map(|(gateway, _)| gateway)));
        }
        all
    }

    fn gateway(&mut self, name: &str, field: &Field<'_>, defaults: Defaults) -> Option<(Gateway, At<()>)> {
        let known =
            ["connector", "url", "authorities", "credentials", "return_url", "zones", "cost", "timeout_ms", "calls_in_flight", "breaker"];
        let mapping = self.reader.mapping(field, Some(&known))?;
        let connector = self.reader.required(&mapping, "connector").and_then(|field| self.word(field, &CONNECTORS, "connector"));
        let url = self.reader.required(&mapping, "url").and_then(|field| self.url(field).map(|url| field.with(url)));
        let file = |reader: &mut Self, name: &str| match mapping.find(name) {
            Some(field) => reader.text(field).map(|text| Some(PathBuf::from(text))),
            None => Some(None),
        };
        let (authorities, credentials) = (file(self, "authorities"), file(self, "credentials"));
        let return_url = match mapping.find("return_url") {
            Some(field) => self.text(field).map(Some),
            None => Some(None),
        };
        let zones = self.reader.required(&mapping, "zones").and_then(|field| self.grant(field));
        let cost = match mapping.find("cost") {
            Some(field) => self.cost(field),
            None => Some(Cost::default()),
        };
        let calls = self.calls(&mapping, defaults);
        let (connector, url) = (connector?, url?);
        let (authorities, credentials) = (authorities?, credentials?);
        let secured = url.value.starts_with("https://");
        if secured != authorities.is_some() {
            let message = if secured {
                "needs `authorities` beside it: a file with those that are believed there, as PEM"
            } else {
                "is plain http, where nobody is believed by `authorities`: leave them out, or use https"
            };
            self.reader.problems.add(url.place, &url.key, message);
            return None;
        }
        if (connector == ConnectorKind::Stripe) != credentials.is_some() {
            let message = match connector {
                ConnectorKind::Stripe => "needs `credentials`: a file with the key that it knows us by",
                ConnectorKind::Simulator => "has no use for `credentials`: a simulator believes everybody",
            };
            self.reader.say(field, message);
            return None;
        }
        let calls = calls?;
        let gateway = Gateway {
            name: name.to_owned(),
            connector,
            url: url.value.clone(),
            authorities,
            credentials,
            return_url: return_url?,
            zones: zones?,
            cost: cost?,
            timeout: calls.timeout,
            calls_in_flight: calls.calls_in_flight,
            breaker: calls.breaker,
        };
        Some((gateway, url.with(())))
    }

    /// A scheme, a host and a port, and nothing after it.
    fn url(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let (scheme, rest) = text.split_once("://").unwrap_or(("", ""));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let sound = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
            && (port.is_empty() != rest.contains(':'))
            && (port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0));
        let believed = scheme == "https" || (scheme == "http" && matches!(host, "127.0.0.1" | "localhost"));
        if !sound || !believed {
            let message =
                format!("must be https://HOST, or http://127.0.0.1:PORT on this machine, with nothing after it, not {}", quote(&text));
            self.reader.say(field, message);
            return None;
        }
        // On this machine, a port is somebody's already.
        if matches!(host, "127.0.0.1" | "localhost")
            && let Ok(port) = port.parse::<u16>()
        {
            let taken = self.topology.regions().find(|region| [&region.grpc, &region.http].iter().any(|endpoint| endpoint.port() == port));
            if let Some(region) = taken {
                self.reader.say(field, format!("the node of {} listens on port {port}", region.name));
                return None;
            }
        }
        Some(format!("{scheme}://{rest}"))
    }

    fn grant(&mut self, field: &Field<'_>) -> Option<ZoneGrant> {
        if matches!(field.value, Value::Text(text) if text == ANY) {
            return Some(ZoneGrant::Any);
        }
        if !matches!(field.value, Value::List(_)) {
            self.reader.expected(field, "a list of zones, or `any`");
            return None;
        }
        self.zones(field).map(ZoneGrant::These)
    }

    fn zones(&mut self, field: &Field<'_>) -> Option<BTreeSet<ZoneName>> {
        let topology = self.topology;
        let read = |reader: &mut Reader<'_>, item: &Field<'_>| {
            let text = reader.text(item)?;
            let zone: Option<ZoneName> = text.parse().ok().filter(|zone| topology.zone(zone).is_some());
            if zone.is_none() {
                let known: Vec<&str> = topology.zones().map(|zone| zone.name.as_str()).collect();
                let message = format!("no zone is called {}{}", quote(text), suggest(text, known.iter().copied(), "the zones are"));
                reader.say(item, message);
            }
            zone
        };
        self.set(field, read, "zone")
    }

    fn cost(&mut self, field: &Field<'_>) -> Option<Cost> {
        let mapping = self.reader.mapping(field, Some(&["basis_points", "fixed_minor"]))?;
        let share = match mapping.find("basis_points") {
            Some(field) => {
                let read = match field.value {
                    Value::Text(text) => hundredths(text),
                    Value::Whole(whole) => u32::try_from(*whole).ok().and_then(|whole| whole.checked_mul(100)),
                    _ => None,
                };
                let read = read.filter(|hundredths| *hundredths <= 1_000_000);
                if read.is_none() {
                    self.reader
                        .expected(field, "0 to 10000, with two digits after the point at most and in quotes then, such as \"139.5\"");
                }
                read
            }
            None => Some(0),
        };
        let fixed = match mapping.find("fixed_minor") {
            Some(field) => {
                let mapping = self.reader.mapping(field, None)?;
                let mut whole = Some(std::collections::BTreeMap::new());
                for (code, field) in &mapping.fields {
                    let currency = self.currency(code, field);
                    let fixed = self.reader.whole(field, FIXED_MINOR).and_then(|fixed| u32::try_from(fixed).ok());
                    match (currency, fixed, &mut whole) {
                        (Some(currency), Some(fixed), Some(whole)) => {
                            whole.insert(currency, fixed);
                        }
                        _ => whole = None,
                    }
                }
                whole
            }
            None => Some(std::collections::BTreeMap::new()),
        };
        Some(Cost { millionths: share?, fixed: fixed? })
    }
}

/// Rules.
impl GatewaysReader<'_, '_> {
    fn rules(&mut self, field: &Field<'_>, known: &[String]) -> Option<Vec<At<RoutingRule>>> {
        let Value::List(items) = field.value else {
            self.reader.expected(field, "a list");
            return None;
        };
        if items.is_empty() || items.len() > RULES_MAX {
            self.reader.say(field, format!("must list 1 to {RULES_MAX} rules, not {}", items.len()));
            return None;
        }
        let mut rules: Vec<At<RoutingRule>> = Vec::new();
        let mut whole = true;
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let Some(rule) = self.rule(&item, known) else {
                whole = false;
                continue;
            };
            if let Some(first) = rules.iter().find(|first| first.value.name == rule.name) {
                let line = first.place.line().unwrap_or_default();
                self.reader.say(&item, format!("another rule is called {} too (line {line})", rule.name));
            }
            rules.push(item.with(rule));
        }
        whole.then_some(rules)
    }

    fn rule(&mut self, field: &Field<'_>, known: &[String]) -> Option<RoutingRule> {
        let mapping = self.reader.mapping(field, Some(&["name", "when", "use", "by", "then"]))?;
        let name = self.reader.required(&mapping, "name").and_then(|field| {
            let text = self.text(field)?;
            self.check_name(&text, field).then_some(text)
        });
        let when = match mapping.find("when") {
            Some(field) => self.when(field),
            None => Some(When::default()),
        };
        let gateways = self.reader.required(&mapping, "use").and_then(|field| {
            let mapping = self.reader.mapping(field, None)?;
            if mapping.fields.is_empty() {
                self.reader.say(field, "must name a gateway and its weight");
                return None;
            }
            let mut all = Some(Vec::new());
            for (name, field) in &mapping.fields {
                let there = self.is_gateway(name, field, known);
                let weight = self.reader.whole(field, WEIGHT).and_then(|weight| u32::try_from(weight).ok());
                match (there, weight, &mut all) {
                    (true, Some(weight), Some(all)) => all.push(((*name).to_owned(), weight)),
                    _ => all = None,
                }
            }
            all
        });
        let by = match mapping.find("by") {
            Some(field) => self.word(field, &PREFERENCES, "preference"),
            None => Some(Preference::Weight),
        };
        let then = match mapping.find("then") {
            Some(field) => {
                let names = self.reader.list(field, Reader::text_of, "gateway")?;
                let mut all = Some(Vec::new());
                for name in names {
                    let twice = gateways.iter().flatten().any(|(used, _): &(String, u32)| *used == name.value);
                    if twice {
                        self.reader.problems.add(name.place, &name.key, format!("{} is in `use` too", name.value));
                    }
                    let item = At { value: field.value, place: name.place, key: name.key.clone() };
                    match (self.is_gateway(&name.value, &item, known) && !twice, &mut all) {
                        (true, Some(all)) => all.push(name.value),
                        _ => all = None,
                    }
                }
                all
            }
            None => Some(Vec::new()),
        };
        Some(RoutingRule { name: name?, when: when?, gateways: gateways?, by: by?, then: then? })
    }

    fn when(&mut self, field: &Field<'_>) -> Option<When> {
        let mapping = self.reader.mapping(field, Some(&["currency", "brand", "country", "zone", "amount"]))?;
        if mapping.fields.is_empty() {
            self.reader.say(field, "must have a key; a rule without `when` is for all payments");
            return None;
        }
        let currencies = mapping.find("currency").map(|field| {
            let read = |reader: &mut Reader<'_>, item: &Field<'_>| {
                let text = reader.text(item)?;
                read_currency(reader, text, item)
            };
            self.set(field, read, "currency")
        });
        let brands = mapping.find("brand").map(|field| {
            let read = |reader: &mut Reader<'_>, item: &Field<'_>| {
                let text = reader.text(item)?;
                read_word(reader, text, item, &BRANDS, "brand")
            };
            self.set(field, read, "brand")
        });
        let countries = mapping.find("country").map(|field| self.set(field, |reader, item| reader.country(item), "country"));
        let zones = mapping.find("zone").map(|field| self.zones(field));
        let currencies = currencies.map_or(Some(None), |currencies| currencies.map(Some));
        let amount = match (mapping.find("amount"), &currencies) {
            (None, _) => Some((None, None)),
            (Some(field), Some(currencies)) => self.amount(field, currencies.as_ref()),
            (Some(_), None) => None,
        };
        let (from_minor, to_minor) = amount?;
        Some(When {
            currencies: currencies?,
            brands: brands.map_or(Some(None), |brands| brands.map(Some))?,
            countries: countries.map_or(Some(None), |countries| countries.map(Some))?,
            zones: zones.map_or(Some(None), |zones| zones.map(Some))?,
            from_minor,
            to_minor,
        })
    }

    fn amount(&mut self, field: &Field<'_>, currencies: Option<&BTreeSet<Currency>>) -> Option<(Option<i64>, Option<i64>)> {
        let mapping = self.reader.mapping(field, Some(&["from", "to"]))?;
        let Some(currency) = currencies.filter(|currencies| currencies.len() == 1).and_then(BTreeSet::first).copied() else {
            self.reader.say(field, "needs a `currency` beside it, and one only: an amount is of one");
            return None;
        };
        let mut bound = |name: &str| match mapping.find(name) {
            Some(field) => {
                let text = match field.value {
                    Value::Text(text) => text.clone(),
                    Value::Whole(whole) => whole.to_string(),
                    _ => {
                        self.reader.expected(field, "an amount, in quotes where it has a point, such as \"12.50\"");
                        return None;
                    }
                };
                match Money::parse(&text, currency) {
                    Ok(amount) => Some(Some(amount.minor())),
                    Err(error) => {
                        self.reader.say(field, error.to_string());
                        None
                    }
                }
            }
            None => Some(None),
        };
        let (from, to) = (bound("from"), bound("to"));
        let (from, to) = (from?, to?);
        if from.is_none() && to.is_none() {
            self.reader.say(field, "must have `from`, `to` or both");
            return None;
        }
        if from.unwrap_or(0) > to.unwrap_or(i64::MAX) {
            self.reader.say(field, "`from` is more than `to`: no amount fits");
            return None;
        }
        Some((from, to))
    }

    /// Every rule can be reached, and every zone has a gateway for whatever no other rule is for.
    fn check_rules(&mut self, rules: &[At<RoutingRule>], gateways: &[Gateway]) {
        for (index, rule) in rules.iter().enumerate() {
            if let Some(wider) = rules[..index].iter().find(|wider| wider.value.when.covers(&rule.value.when)) {
                let line = wider.place.line().unwrap_or_default();
                let message = format!("is never reached: all that it is for, the rule {} takes before it (line {line})", wider.value.name);
                self.reader.problems.add(rule.place, &rule.key, message);
            }
            let zones = rule.value.when.zones.as_ref();
            for zone in self.topology.zones().filter(|zone| zones.is_none_or(|zones| zones.contains(&zone.name))) {
                let named = rule.value.gateways.iter().map(|(name, _)| name).chain(&rule.value.then);
                let serves = |name: &String| gateways.iter().any(|gateway| gateway.name == *name && gateway.zones.has(&zone.name));
                if !named.clone().any(serves) {
                    let message = format!("no gateway of this rule serves the zone {}", zone.name);
                    self.reader.problems.add(rule.place, &rule.key, message);
                }
            }
        }
        if let Some(last) = rules.last()
            && !last.value.when.is_all()
        {
            let message = "the last rule must be without `when`: otherwise there are payments that no rule is for";
            self.reader.problems.add(last.place, &last.key, message);
        }
    }
}

/// The kinds of value.
impl GatewaysReader<'_, '_> {
    fn check_name(&mut self, name: &str, field: &Field<'_>) -> bool {
        let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !sound {
            let message = format!("a name is 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _, beginning with a letter, not {}", quote(name));
            self.reader.say(field, message);
        }
        sound
    }

    fn is_gateway(&mut self, name: &str, field: &Field<'_>, known: &[String]) -> bool {
        let there = known.iter().any(|known| known == name);
        if !there {
            let suggestion = match known {
                [] => ": there are none".to_owned(),
                _ => suggest(name, known.iter().map(String::as_str), "the gateways are"),
            };
            self.reader.say(field, format!("no gateway is called {}{suggestion}", quote(name)));
        }
        there
    }

    fn currency(&mut self, code: &str, field: &Field<'_>) -> Option<Currency> {
        read_currency(&mut self.reader, code, field)
    }

    fn word<T: Copy>(&mut self, field: &Field<'_>, known: &[(&'static str, T)], what: &str) -> Option<T> {
        let text = self.reader.text(field)?;
        read_word(&mut self.reader, text, field, known, what)
    }

    fn set<T: Ord>(
        &mut self,
        field: &Field<'_>,
        mut read: impl FnMut(&mut Reader<'_>, &Field<'_>) -> Option<T>,
        what: &str,
    ) -> Option<BTreeSet<T>> {
        let mut whole = true;
        let list = self.reader.list(
            field,
            |reader, item| {
                let value = read(reader, item);
                whole &= value.is_some();
                value
            },
            what,
        )?;
        whole.then(|| list.into_iter().map(|item| item.value).collect())
    }

    fn text(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.reader.text(field)?;
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            self.reader.say(field, format!("must have 1 to {TEXT_BYTES_MAX} bytes, not {}", text.len()));
            return None;
        }
        Some(text.to_owned())
    }

    fn whole_or(&mut self, mapping: &Mapping<'_>, name: &str, bounds: RangeInclusive<u64>, default: u64) -> Option<u64> {
        match mapping.find(name) {
            Some(field) => self.reader.whole(field, bounds),
            None => Some(default),
        }
    }

    fn small_or(&mut self, mapping: &Mapping<'_>, name: &str, bounds: RangeInclusive<u64>, default: u32) -> Option<u32> {
        self.whole_or(mapping, name, bounds, default.into()).and_then(|value| u32::try_from(value).ok())
    }
}

fn read_currency(reader: &mut Reader<'_>, code: &str, field: &Field<'_>) -> Option<Currency> {
    let currency = Currency::from_code(code);
    if let Err(error) = &currency {
        reader.say(field, format!("{error}, not {}", quote(code)));
    }
    currency.ok()
}

fn read_word<T: Copy>(reader: &mut Reader<'_>, text: &str, field: &Field<'_>, known: &[(&'static str, T)], what: &str) -> Option<T> {
    let word = known.iter().find(|(word, _)| *word == text);
    if word.is_none() {
        let suggestion = suggest(text, known.iter().map(|(word, _)| *word), "known are");
        reader.say(field, format!("{} is not a known {what}{suggestion}", quote(text)));
    }
    word.map(|(_, value)| *value)
}

/// Basis points with two digits after the point at most, in hundredths.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 5) || !digits(fraction, 2) {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<2}").parse().ok()?;
    Some(whole.parse::<u32>().ok()? * 100 + fraction)
}
