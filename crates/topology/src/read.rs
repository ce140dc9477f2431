//! From the tree to a draft: keys known, values of the right kind and within their bounds.
//!
//! What can be said by looking at one key is said here; what takes two is said by `check`. A part that could not be read is
//! missing from the draft, so that one mistake is reported once.

pub(crate) mod access;
pub(crate) mod cloud;
pub(crate) mod fraud;
pub(crate) mod gateways;
pub(crate) mod prices;
pub(crate) mod scaling;

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf, str::FromStr};

use paymesh_types::{Country, Invalid, RegionName, ZoneName};

use crate::{
    AUDIT_RETENTION_BYTES_MAX, AUDIT_RETENTION_BYTES_MIN, AUDIT_RETENTION_HOURS_MAX, AUDIT_RETENTION_HOURS_MIN, Compliance, DIRECTORY_ZONE,
    Database, Endpoint, Entry as ZoneEntry, JOURNAL_RETENTION_BYTES_MAX, JOURNAL_RETENTION_BYTES_MIN, JOURNAL_RETENTION_HOURS_MAX,
    KeyToken, Limits, Network, OUTCOME_RETENTION_HOURS_DEFAULT, OUTCOME_RETENTION_HOURS_MAX, OUTCOME_RETENTION_HOURS_MIN, Service,
    TOKEN_LABEL_BYTES_MAX, ZONE_SHARDS_MAX, limits,
    problem::{Problems, quote, suggest},
    tree::{Entry, Place, Value},
};

/// Bytes of a mesh's name at most.
const MESH_NAME_BYTES_MAX: usize = 63;
/// Regions, zones and endpoints at most, each.
const BLOCK_NAMES_MAX: usize = 64;
/// Items of a list at most: more than there are countries.
const LIST_ITEMS_MAX: usize = 256;

/// Something read, and where.
#[derive(Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    /// The path to it, such as `zones.eu.shards`.
    pub(crate) key: String,
}

/// What the file says, part by part.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) mesh: Option<String>,
    pub(crate) regions: Option<At<Vec<DraftRegion>>>,
    pub(crate) zones: Option<At<Vec<DraftZone>>>,
    pub(crate) endpoints: Option<At<Vec<DraftEndpoints>>>,
    pub(crate) outcome_retention_hours: Option<u64>,
    /// `None` where it could not be read; without bounds where the file has none.
    pub(crate) journal: Option<DraftRetention>,
    /// The same of audit logs.
    pub(crate) audit: Option<DraftRetention>,
    pub(crate) limits: Option<Limits>,
    /// `None` where the file has none.
    pub(crate) cloud: Option<cloud::DraftCloud>,
}

/// How much is kept of something.
#[derive(Debug, Default)]
pub(crate) struct DraftRetention {
    pub(crate) retention_hours: Option<At<u64>>,
    pub(crate) retention_bytes: Option<u64>,
}

/// A region or a zone that is malformed is still there by its name, so that what refers to it is not wrong as well.
#[derive(Debug)]
pub(crate) struct DraftRegion {
    pub(crate) name: At<String>,
    pub(crate) valid_name: Option<RegionName>,
    pub(crate) primary: Option<At<bool>>,
    pub(crate) services: Option<At<Vec<Service>>>,
    pub(crate) database: Option<At<Database>>,
    pub(crate) compliance: Option<Vec<Compliance>>,
    pub(crate) vault_keys: Option<At<KeyToken>>,
}

/// Regions are named here as they were written: whether there is such a region is for `check` to say.
#[derive(Debug)]
pub(crate) struct DraftZone {
    pub(crate) name: At<String>,
    pub(crate) valid_name: Option<ZoneName>,
    pub(crate) shards: Option<u16>,
    pub(crate) regions: Option<At<Vec<At<String>>>>,
    pub(crate) countries: Option<Vec<At<Country>>>,
    pub(crate) sealed_cards: Option<At<bool>>,
    /// `Some(None)`: the key is there and could not be read.
    pub(crate) leaders: Option<At<Option<Vec<DraftLeader>>>>,
    /// `Some(None)`: the key is there and could not be read.
    pub(crate) aws_regions: Option<Option<Vec<At<String>>>>,
    pub(crate) entry: Option<ZoneEntry>,
}

#[derive(Debug)]
pub(crate) struct DraftLeader {
    pub(crate) region: At<String>,
    pub(crate) shards: Option<At<Vec<RangeInclusive<u16>>>>,
}

#[derive(Debug)]
pub(crate) struct DraftEndpoints {
    pub(crate) region: At<String>,
    pub(crate) grpc: Option<At<Endpoint>>,
    pub(crate) http: Option<At<Endpoint>>,
}

type Field<'a> = At<&'a Value>;

/// A mapping whose keys each stand once.
struct Mapping<'a> {
    place: Place,
    key: String,
    fields: Vec<(&'a str, Field<'a>)>,
}

/// Reads the draft out of the tree.
pub(crate) fn read(root: &Value, problems: &mut Problems) -> Draft {
    let mut reader = Reader { problems };
    // An empty file lacks every key, which says more than that it is no mapping.
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let Some(root) =
        reader.mapping(&root, Some(&["mesh", "regions", "zones", "endpoints", "outcomes", "journal", "audit", "limits", "cloud"]))
    else {
        return Draft::default();
    };
    Draft {
        mesh: reader.required(&root, "mesh").and_then(|field| reader.mesh(field)),
        regions: reader.each(&root, "regions", Reader::region),
        zones: reader.each(&root, "zones", Reader::zone),
        endpoints: reader.each(&root, "endpoints", Reader::endpoints),
        outcome_retention_hours: match root.find("outcomes") {
            Some(field) => reader.outcomes(field),
            None => Some(OUTCOME_RETENTION_HOURS_DEFAULT),
        },
        journal: match root.find("journal") {
            Some(field) => reader.journal(field),
            None => Some(DraftRetention::default()),
        },
        audit: match root.find("audit") {
            Some(field) => reader.audit(field),
            None => Some(DraftRetention::default()),
        },
        limits: match root.find("limits") {
            Some(field) => reader.limits(field),
            None => Some(Limits::default()),
        },
        cloud: root.find("cloud").map(|field| reader.cloud(field)),
    }
}

/// Directories among the mesh's credentials that are no node's: who runs the mesh, and who issues tokens for development.
const CREDENTIALS_OF_OTHERS: [&str; 2] = ["operator", "issuer"];

struct Reader<'p> {
    problems: &'p mut Problems,
}

/// The parts of the file.
impl Reader<'_> {
    fn mesh(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let valid = text.len() <= MESH_NAME_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
        if !valid {
            let message = format!("must be 1 to {MESH_NAME_BYTES_MAX} of a-z, 0-9, - and _, beginning with a letter, not {}", quote(text));
            self.say(field, message);
        }
        valid.then(|| text.to_owned())
    }

    fn region(&mut self, name: &str, field: &Field<'_>) -> DraftRegion {
        let valid_name = self.name(name, field);
        if CREDENTIALS_OF_OTHERS.contains(&name) {
            self.say(field, "the name is that of another's directory among the mesh's credentials: choose another");
        }
        let mut draft = DraftRegion {
            name: field.with(name.to_owned()),
            valid_name,
            primary: None,
            services: None,
            database: None,
            compliance: None,
            vault_keys: None,
        };
        let Some(region) = self.mapping(field, Some(&["primary", "services", "database", "compliance", "vault_keys"])) else {
            return draft;
        };
        draft.primary = self.required(&region, "primary").and_then(|field| self.flag(field));
        draft.services =
            self.required(&region, "services").and_then(|field| self.words(field, Service::WORDS, Service::from_word, "service"));
        draft.database = self.required(&region, "database").and_then(|field| {
            let database = self.word(field, Database::WORDS, Database::from_word, "kind of database")?;
            Some(field.with(database))
        });
        draft.compliance = match region.find("compliance") {
            Some(field) => self.words(field, Compliance::WORDS, Compliance::from_word, "regime").map(|regimes| regimes.value),
            None => Some(Vec::new()),
        };
        draft.vault_keys = region.find("vault_keys").and_then(|field| self.vault_keys(field));
        draft
    }

    fn vault_keys(&mut self, field: &Field<'_>) -> Option<At<KeyToken>> {
        let keys = self.mapping(field, Some(&["pkcs11"]))?;
        let token = self.required(&keys, "pkcs11").and_then(|token| self.mapping(token, Some(&["module", "token"])))?;
        let module = self.required(&token, "module").and_then(|field| {
            let module = PathBuf::from(self.text(field)?);
            if !module.is_absolute() {
                self.say(field, format!("must be an absolute path, not {}", field.value));
            }
            module.is_absolute().then_some(module)
        });
        let label = self.required(&token, "token").and_then(|field| {
            let label = self.text(field)?;
            let fits = (1..=TOKEN_LABEL_BYTES_MAX).contains(&label.len());
            if !fits {
                self.say(field, format!("must be the token's label, 1 to {TOKEN_LABEL_BYTES_MAX} bytes, not {}", quote(label)));
            }
            fits.then(|| label.to_owned())
        });
        Some(field.with(KeyToken { module: module?, label: label? }))
    }

    fn zone(&mut self, name: &str, field: &Field<'_>) -> DraftZone {
        let valid_name = self.name(name, field);
        if name == DIRECTORY_ZONE {
            self.say(field, "the name is the directory's own: choose another");
        }
        let mut draft = DraftZone {
            name: field.with(name.to_owned()),
            valid_name,
            shards: None,
            regions: None,
            countries: None,
            sealed_cards: None,
            leaders: None,
            aws_regions: None,
            entry: None,
        };
        let known = ["shards", "regions", "countries", "sealed_cards", "leaders", "aws_regions", "entry"];
        let Some(zone) = self.mapping(field, Some(&known)) else { return draft };
        draft.shards = self.required(&zone, "shards").and_then(|field| {
            let shards = self.whole(field, 1..=u64::from(ZONE_SHARDS_MAX))?;
            u16::try_from(shards).ok()
        });
        draft.regions = self.required(&zone, "regions").and_then(|field| {
            let regions = self.list(field, Self::text_of, "region")?;
            Some(field.with(regions))
        });
        draft.countries = self.required(&zone, "countries").and_then(|field| self.list(field, Self::country, "country"));
        draft.sealed_cards = zone.find("sealed_cards").and_then(|field| self.flag(field));
        draft.leaders = zone.find("leaders").map(|field| {
            let leaders = self.mapping(field, None).map(|leaders| {
                let leader = |(region, field): &(&str, Field<'_>)| DraftLeader {
                    region: field.with((*region).to_owned()),
                    shards: self.ranges(field),
                };
                leaders.fields.iter().map(leader).collect()
            });
            field.with(leaders)
        });
        draft.aws_regions = zone
            .find("aws_regions")
            .map(|field| self.list(field, |reader, item| reader.aws_region(item).map(|(_, name)| name), "AWS region"));
        draft.entry = match zone.find("entry") {
            Some(field) => self.word(field, ZoneEntry::WORDS, ZoneEntry::from_word, "way in"),
            None => Some(ZoneEntry::Any),
        };
        draft
    }

    fn endpoints(&mut self, region: &str, field: &Field<'_>) -> DraftEndpoints {
        let mut draft = DraftEndpoints { region: field.with(region.to_owned()), grpc: None, http: None };
        let Some(endpoints) = self.mapping(field, Some(&["grpc", "http"])) else { return draft };
        draft.grpc = self.required(&endpoints, "grpc").and_then(|field| self.endpoint(field));
        draft.http = self.required(&endpoints, "http").and_then(|field| self.endpoint(field));
        draft
    }

    fn endpoint(&mut self, field: &Field<'_>) -> Option<At<Endpoint>> {
        let text = self.text(field)?;
        match text.parse() {
            Ok(endpoint) => Some(field.with(endpoint)),
            Err(error) => {
                self.say(field, format!("{error}, not {}", quote(text)));
                None
            }
        }
    }

    fn outcomes(&mut self, field: &Field<'_>) -> Option<u64> {
        let outcomes = self.mapping(field, Some(&["retention_hours"]))?;
        let hours = self.required(&outcomes, "retention_hours")?;
        self.whole(hours, OUTCOME_RETENTION_HOURS_MIN..=OUTCOME_RETENTION_HOURS_MAX)
    }

    fn journal(&mut self, field: &Field<'_>) -> Option<DraftRetention> {
        let hours = OUTCOME_RETENTION_HOURS_MIN..=JOURNAL_RETENTION_HOURS_MAX;
        let bytes = JOURNAL_RETENTION_BYTES_MIN..=JOURNAL_RETENTION_BYTES_MAX;
        self.retention(field, hours, bytes, "without `journal` everything is kept")
    }

    fn audit(&mut self, field: &Field<'_>) -> Option<DraftRetention> {
        let hours = AUDIT_RETENTION_HOURS_MIN..=AUDIT_RETENTION_HOURS_MAX;
        let bytes = AUDIT_RETENTION_BYTES_MIN..=AUDIT_RETENTION_BYTES_MAX;
        self.retention(field, hours, bytes, "without `audit` there are bounds too")
    }

    fn retention(
        &mut self,
        field: &Field<'_>,
        hours: RangeInclusive<u64>,
        bytes: RangeInclusive<u64>,
        without: &str,
    ) -> Option<DraftRetention> {
        let bounds = self.mapping(field, Some(&["retention_hours", "retention_bytes"]))?;
        if matches!(field.value, Value::Map(entries) if entries.is_empty()) {
            self.say(field, format!("must have retention_hours, retention_bytes or both; {without}"));
            return None;
        }
        // Both are looked at before either is given up: every mistake is said.
        let hours = bounds.find("retention_hours").map(|found| self.whole(found, hours).map(|whole| found.with(whole)));
        let bytes = bounds.find("retention_bytes").map(|found| self.whole(found, bytes));
        let retention_hours = hours.map_or(Some(None), |hours| hours.map(Some))?;
        let retention_bytes = bytes.map_or(Some(None), |bytes| bytes.map(Some))?;
        Some(DraftRetention { retention_hours, retention_bytes })
    }

    fn limits(&mut self, field: &Field<'_>) -> Option<Limits> {
        let known: Vec<&str> = limits::KEYS.iter().map(|key| key.name).chain([limits::TRUSTED_NETWORKS]).collect();
        let mapping = self.mapping(field, Some(&known))?;
        if mapping.fields.is_empty() {
            if matches!(field.value, Value::Map(entries) if entries.is_empty()) {
                self.say(field, "must have a key; without `limits` all are the defaults");
            }
            return None;
        }
        let (mut limits, mut sound) = (Limits::default(), true);
        for key in &limits::KEYS {
            if let Some(found) = mapping.find(key.name) {
                match self.whole(found, key.min..=key.max) {
                    Some(value) => (key.set)(&mut limits, value),
                    None => sound = false,
                }
            }
        }
        if let Some(found) = mapping.find(limits::TRUSTED_NETWORKS) {
            match self.list(found, Self::network, "network") {
                Some(networks) => limits.trusted_networks = networks.into_iter().map(|network| network.value).collect(),
                None => sound = false,
            }
        }
        sound.then_some(limits)
    }

    fn network(&mut self, field: &Field<'_>) -> Option<Network> {
        let text = self.text(field)?;
        match text.parse() {
            Ok(network) => Some(network),
            Err(error) => {
                self.say(field, format!("{error}, not {}", quote(text)));
                None
            }
        }
    }

    fn country(&mut self, field: &Field<'_>) -> Option<Country> {
        let text = self.text(field)?;
        let country = text.parse().ok();
        if country.is_none() {
            self.say(field, format!("must be an ISO 3166-1 alpha-2 code such as DE, not {}", quote(text)));
        }
        country
    }

    /// Shard numbers: `0-1`, `3`, or several of them with commas between.
    fn ranges(&mut self, field: &Field<'_>) -> Option<At<Vec<RangeInclusive<u16>>>> {
        let number = |text: &str| -> Option<u16> {
            let text = text.trim();
            if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
        };
        let range = |text: &str| -> Option<RangeInclusive<u16>> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        let ranges = match field.value {
            Value::Text(text) => text.split(',').map(range).collect::<Option<Vec<_>>>(),
            Value::Whole(one) => u16::try_from(*one).ok().map(|one| vec![one..=one]),
            _ => None,
        };
        if ranges.is_none() {
            self.say(field, format!("must be shard numbers such as \"0-1\" or \"0-1, 3\", not {}", field.value));
        }
        ranges.map(|ranges| field.with(ranges))
    }
}

/// The kinds of value.
impl Reader<'_> {
    fn say(&mut self, field: &Field<'_>, message: impl AsRef<str>) {
        self.problems.add(field.place, &field.key, message);
    }

    fn expected(&mut self, field: &Field<'_>, what: &str) {
        self.say(field, format!("must be {what}, not {}", field.value));
    }

    /// A mapping; `known` are the keys it may have, or it has names of the operator's own.
    fn mapping<'a>(&mut self, field: &Field<'a>, known: Option<&[&str]>) -> Option<Mapping<'a>> {
        let Value::Map(entries) = field.value else {
            self.expected(field, "a mapping");
            return None;
        };
        let mut fields: Vec<(&str, Field<'a>)> = Vec::new();
        let mut first_places: BTreeMap<&str, Place> = BTreeMap::new();
        for entry in entries {
            let child = field.child(entry);
            if let Some(first) = first_places.get(entry.key.as_str()) {
                let line = first.line().unwrap_or_default();
                self.problems.add(entry.key_place, &child.key, format!("the key stands twice; the first is on line {line}"));
                continue;
            }
            first_places.insert(&entry.key, entry.key_place);
            match known {
                Some(known) if !known.contains(&entry.key.as_str()) => {
                    let suggestion = suggest(&entry.key, known.iter().copied(), "known here");
                    self.problems.add(entry.key_place, &child.key, format!("unknown key{suggestion}"));
                }
                _ => fields.push((&entry.key, child)),
            }
        }
        Some(Mapping { place: field.place, key: field.key.clone(), fields })
    }

    /// A key that must be there.
    fn required<'m, 'a>(&mut self, mapping: &'m Mapping<'a>, name: &str) -> Option<&'m Field<'a>> {
        let found = mapping.find(name);
        if found.is_none() {
            self.problems.add(mapping.place, &join(&mapping.key, name), "is missing");
        }
        found
    }

    /// A required mapping with names of the operator's own, at least one, each read by itself.
    fn each<'a, T>(
        &mut self,
        root: &Mapping<'a>,
        name: &str,
        mut read: impl FnMut(&mut Self, &str, &Field<'a>) -> T,
    ) -> Option<At<Vec<T>>> {
        let field = self.required(root, name)?;
        let mapping = self.mapping(field, None)?;
        if mapping.fields.is_empty() {
            self.say(field, "must not be empty");
            return None;
        }
        if mapping.fields.len() > BLOCK_NAMES_MAX {
            self.say(field, format!("must have at most {BLOCK_NAMES_MAX} entries, not {}", mapping.fields.len()));
            return None;
        }
        Some(field.with(mapping.fields.iter().map(|(name, field)| read(self, name, field)).collect()))
    }

    /// A list of at least one, whose items each stand once.
    fn list<T: PartialEq>(
        &mut self,
        field: &Field<'_>,
        mut read: impl FnMut(&mut Self, &Field<'_>) -> Option<T>,
        what: &str,
    ) -> Option<Vec<At<T>>> {
        let Value::List(items) = field.value else {
            self.expected(field, "a list");
            return None;
        };
        if items.is_empty() {
            self.say(field, format!("must list at least one {what}"));
            return None;
        }
        if items.len() > LIST_ITEMS_MAX {
            self.say(field, format!("must list at most {LIST_ITEMS_MAX}, not {}", items.len()));
            return None;
        }
        let mut list: Vec<At<T>> = Vec::new();
        for (index, (place, value)) in items.iter().enumerate() {
            let item = At { value, place: *place, key: format!("{}[{index}]", field.key) };
            let Some(read) = read(self, &item) else { continue };
            if list.iter().any(|other| other.value == read) {
                self.say(&item, format!("{value} is listed twice"));
            } else {
                list.push(item.with(read));
            }
        }
        Some(list)
    }

    fn words<T: PartialEq>(
        &mut self,
        field: &Field<'_>,
        known: &'static [&'static str],
        read: fn(&str) -> Option<T>,
        what: &str,
    ) -> Option<At<Vec<T>>> {
        let words = self.list(field, |reader, item| reader.word(item, known, read, what), what)?;
        Some(field.with(words.into_iter().map(|word| word.value).collect()))
    }

    fn word<T>(&mut self, field: &Field<'_>, known: &'static [&'static str], read: fn(&str) -> Option<T>, what: &str) -> Option<T> {
        let text = self.text(field)?;
        let word = read(text);
        if word.is_none() {
            self.say(field, format!("{} is not a known {what}{}", quote(text), suggest(text, known.iter().copied(), "known are")));
        }
        word
    }

    /// The name of a region or a zone, which is a key.
    fn name<T: FromStr<Err = Invalid>>(&mut self, name: &str, field: &Field<'_>) -> Option<T> {
        match name.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.say(field, error.to_string());
                None
            }
        }
    }

    fn text<'a>(&mut self, field: &Field<'a>) -> Option<&'a str> {
        let Value::Text(text) = field.value else {
            self.expected(field, "text");
            return None;
        };
        Some(text)
    }

    fn text_of(&mut self, field: &Field<'_>) -> Option<String> {
        self.text(field).map(str::to_owned)
    }

    fn flag(&mut self, field: &Field<'_>) -> Option<At<bool>> {
        let Value::Flag(flag) = field.value else {
            self.expected(field, "true or false");
            return None;
        };
        Some(field.with(*flag))
    }

    fn whole(&mut self, field: &Field<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
        let number = match field.value {
            Value::Whole(number) => u64::try_from(*number).ok().filter(|number| bounds.contains(number)),
            _ => None,
        };
        if number.is_none() {
            let must = format!("must be {} to {}", bounds.start(), bounds.end());
            self.say(
                field,
                match (field.value, digits_of(field.value)) {
                    (Value::Text(text), Some(digits)) if digits == *text => {
                        format!("{must}, not text {}: write it without quotes", field.value)
                    }
                    (_, Some(digits)) => format!("{must}, not text {}: write it as {digits}", field.value),
                    (value, None) => format!("{must}, not {value}"),
                },
            );
        }
        number
    }
}

/// The digits of a text that a reader takes for a number.
fn digits_of(value: &Value) -> Option<String> {
    let Value::Text(text) = value else { return None };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let others = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ',' | '.' | '\'' | ' '));
    (others && !digits.is_empty()).then_some(digits)
}

impl<T> At<T> {
    /// Another value at the same place.
    pub(crate) fn with<U>(&self, value: U) -> At<U> {
        At { value, place: self.place, key: self.key.clone() }
    }
}

impl At<&Value> {
    /// A scalar's place is its own; a collection's, or a missing value's, is its key's, where a reader looks for it.
    fn child<'a>(&self, entry: &'a Entry) -> Field<'a> {
        let place = match entry.value {
            Value::Nothing | Value::List(_) | Value::Map(_) => entry.key_place,
            _ => entry.value_place,
        };
        At { value: &entry.value, place, key: join(&self.key, &entry.key) }
    }
}

impl<'a> Mapping<'a> {
    fn find(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, field)| field)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
