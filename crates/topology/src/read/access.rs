//! access.yaml out of its tree: keys known, values of the right kind, and names that stand for something.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use paymesh_types::ZoneName;

use super::{At, Field, Mapping, Reader};
use crate::{
    Access, CallLimits, Issuer, KeySource, Principal, TokenMatch, Topology, UserGrant, ZoneGrant,
    problem::{Problems, quote, suggest},
    tree::{Place, Value},
};

/// Bytes of a principal's or an issuer's name at most, as a certificate has it.
const NAME_BYTES_MAX: usize = 63;
/// Bytes of any other text at most.
const TEXT_BYTES_MAX: usize = 512;
/// Where a file does not say how far clocks may be apart.
const CLOCK_SKEW_SECONDS_DEFAULT: u64 = 30;
/// Past that, a token that has ended would be as good as one that holds.
const CLOCK_SKEW_SECONDS_MAX: u64 = 300;
/// Where a file does not say how long a token may hold: a day.
const LIFETIME_SECONDS_DEFAULT: u64 = 24 * 3600;
/// A token that nobody can take back should not hold longer.
const LIFETIME_SECONDS_MAX: u64 = 31 * 24 * 3600;
/// Calls of a principal at most, where they are bounded.
const CALLS_MAX: u64 = 10_000_000;
/// A principal of whom it is not said has this part of the calls that a node takes at once, at most.
const CALLS_PARTS: usize = 4;
/// All that there are.
const ANY: &str = "any";

/// Reads the file. What could not be read is left out, and there is a problem for it.
pub(crate) fn read(root: &Value, topology: &Topology, scopes: &BTreeSet<&str>, problems: &mut Problems) -> Access {
    let mut reader = AccessReader { reader: Reader { problems }, topology, scopes };
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let Some(root) = reader.reader.mapping(&root, Some(&["issuers", "principals"])) else { return Access::default() };
    let issuers = match root.find("issuers") {
        Some(field) => reader.each(field, AccessReader::issuer),
        None => Vec::new(),
    };
    // One that is malformed is still there by its name, so that what refers to it is not wrong as well.
    let known: Vec<&str> = issuers.iter().map(|(name, _)| name.value.as_str()).collect();
    let principals = match reader.reader.required(&root, "principals") {
        Some(field) => reader.each(field, |reader, name, field| reader.principal(name, field, &known)),
        None => Vec::new(),
    };
    reader.tell_issuers_apart(&issuers);
    reader.tell_apart(&principals);
    Access {
        issuers: issuers.into_iter().filter_map(|(_, issuer)| issuer.map(|issuer| issuer.value)).collect(),
        principals: principals.into_iter().filter_map(|(_, principal)| principal).collect(),
    }
}

struct AccessReader<'p, 'a> {
    reader: Reader<'p>,
    topology: &'a Topology,
    scopes: &'a BTreeSet<&'a str>,
}

impl AccessReader<'_, '_> {
    fn each<T>(
        &mut self,
        field: &Field<'_>,
        mut read: impl FnMut(&mut Self, &str, &Field<'_>) -> Option<T>,
    ) -> Vec<(At<String>, Option<T>)> {
        let Some(mapping) = self.reader.mapping(field, None) else { return Vec::new() };
        if mapping.fields.is_empty() {
            self.reader.say(field, "must not be empty");
        }
        let mut all = Vec::new();
        for (name, field) in &mapping.fields {
            if !is_name(name) {
                let message = format!("a name is 1 to {NAME_BYTES_MAX} of a-z, 0-9, - and _, beginning with a letter, not {}", quote(name));
                self.reader.say(field, message);
            }
            let read = read(self, name, field);
            all.push((field.with((*name).to_owned()), read));
        }
        all
    }

    /// An issuer, at the place of its `iss`.
    fn issuer(&mut self, name: &str, field: &Field<'_>) -> Option<At<Issuer>> {
        let known = ["issuer", "audience", "keys", "clock_skew_seconds", "token_lifetime_seconds_max"];
        let mapping = self.reader.mapping(field, Some(&known))?;
        let issuer = self.reader.required(&mapping, "issuer").and_then(|field| self.text(field).map(|text| field.with(text)));
        let audience = self.required_text(&mapping, "audience");
        let keys = self.reader.required(&mapping, "keys").and_then(|field| self.keys(field));
        let skew = self.whole_or(&mapping, "clock_skew_seconds", 0..=CLOCK_SKEW_SECONDS_MAX, CLOCK_SKEW_SECONDS_DEFAULT);
        let lifetime = self.whole_or(&mapping, "token_lifetime_seconds_max", 60..=LIFETIME_SECONDS_MAX, LIFETIME_SECONDS_DEFAULT);
        let issuer = issuer?;
        Some(issuer.with(Issuer {
            name: name.to_owned(),
            issuer: issuer.value.clone(),
            audience: audience?,
            keys: keys?,
            clock_skew: Duration::from_secs(skew?),
            lifetime_max: Duration::from_secs(lifetime?),
        }))
    }

    fn keys(&mut self, field: &Field<'_>) -> Option<KeySource> {
        let mapping = self.reader.mapping(field, Some(&["file", "url", "authorities"]))?;
        let authorities = mapping.find("authorities").map(|field| self.text(field));
        match (mapping.find("file"), mapping.find("url")) {
            (Some(file), None) => {
                if authorities.is_some() {
                    self.reader.say(field, "authorities are believed at a url; a file is read as it is");
                    return None;
                }
                self.text(file).map(|file| KeySource::File(file.into()))
            }
            (None, Some(url)) => {
                let text = self.text(url)?;
                let authorities = authorities.map_or(Some(None), |authorities| authorities.map(|file| Some(file.into())))?;
                let plain = text.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
                match (plain, &authorities) {
                    (None, Some(_)) if text.starts_with("https://") => {}
                    (None, None) if text.starts_with("https://") => {
                        self.reader.say(url, "needs `authorities` beside it: a file with those that are believed there, as PEM");
                        return None;
                    }
                    (Some("127.0.0.1" | "localhost"), None) => {}
                    (Some("127.0.0.1" | "localhost"), Some(_)) => {
                        self.reader.say(url, "is plain http, where nobody is believed by `authorities`: leave them out, or use https");
                        return None;
                    }
                    _ => {
                        self.reader.say(url, format!("must begin with https://, or with http:// on this machine, not {}", quote(&text)));
                        return None;
                    }
                }
                Some(KeySource::Url { url: text, authorities })
            }
            _ => {
                self.reader.say(field, "must have `file` or `url`, one of them");
                None
            }
        }
    }

    fn principal(&mut self, name: &str, field: &Field<'_>, issuers: &[&str]) -> Option<Principal> {
        let known = ["tokens", "certificate", "scopes", "zones", "pays", "users", "limits"];
        let mapping = self.reader.mapping(field, Some(&known))?;
        let tokens = mapping.find("tokens").map(|field| self.tokens(field, issuers));
        let certificate = mapping.find("certificate").map(|field| self.reader.flag(field).map(|flag| flag.value));
        if tokens.is_none() && certificate.unwrap_or(Some(false)) == Some(false) {
            self.reader.say(field, "nobody can be this principal: give it `tokens`, or `certificate: true`");
            return None;
        }
        let scopes = self.reader.required(&mapping, "scopes").and_then(|field| {
            let scopes = self.reader.list(field, Reader::text_of, "scope")?;
            scopes.into_iter().map(|scope| self.scope(scope)).collect::<Option<BTreeSet<String>>>()
        });
        let zones = self.reader.required(&mapping, "zones").and_then(|field| self.zones(field));
        // Not more than it acts for, unless the file says so.
        let pays = mapping.find("pays").map_or_else(|| zones.clone(), |field| self.zones(field));
        let users = self.reader.required(&mapping, "users").and_then(|field| self.users(field));
        let limits = match mapping.find("limits") {
            Some(field) => self.limits(field),
            None => Some(CallLimits { calls_per_second: None, calls_in_progress: self.share() }),
        };
        let tokens = tokens.map_or(Some(None), |tokens| tokens.map(Some))?;
        let (users, certificate) = (users?, certificate.unwrap_or(Some(false))?);
        if certificate && users != UserGrant::Any {
            self.reader.say(field, "a certificate has no claims: one who acts for `own` users, or for those of a claim, shows tokens only");
            return None;
        }
        Some(Principal { name: name.to_owned(), tokens, certificate, scopes: scopes?, zones: zones?, pays: pays?, users, limits: limits? })
    }

    fn tokens(&mut self, field: &Field<'_>, issuers: &[&str]) -> Option<TokenMatch> {
        let mapping = self.reader.mapping(field, Some(&["issuer", "claims"]))?;
        let issuer = self.reader.required(&mapping, "issuer").and_then(|field| {
            let text = self.text(field)?;
            if issuers.contains(&text.as_str()) {
                return Some(text);
            }
            let suggestion = match issuers {
                [] => ": there are none".to_owned(),
                _ => suggest(&text, issuers.iter().copied(), "the issuers are"),
            };
            let message = format!("no issuer is called {}{suggestion}", quote(&text));
            self.reader.say(field, message);
            None
        });
        let claims = self.reader.required(&mapping, "claims").and_then(|field| {
            let claims = self.reader.mapping(field, None)?;
            if claims.fields.is_empty() {
                self.reader.say(field, "must name a claim, such as sub: every token of the issuer would be this principal's");
                return None;
            }
            claims.fields.iter().map(|(name, field)| Some(((*name).to_owned(), self.text(field)?))).collect::<Option<BTreeMap<_, _>>>()
        });
        Some(TokenMatch { issuer: issuer?, claims: claims? })
    }

    fn scope(&mut self, scope: At<String>) -> Option<String> {
        if self.scopes.contains(scope.value.as_str()) {
            return Some(scope.value);
        }
        let suggestion = suggest(&scope.value, self.scopes.iter().copied(), "the contract's scopes for callers are");
        let message = format!("no method of the contract asks callers for the scope {}{suggestion}", quote(&scope.value));
        self.reader.problems.add(scope.place, &scope.key, message);
        None
    }

    fn zones(&mut self, field: &Field<'_>) -> Option<ZoneGrant> {
        if matches!(field.value, Value::Text(text) if text == ANY) {
            return Some(ZoneGrant::Any);
        }
        if !matches!(field.value, Value::List(_)) {
            self.reader.expected(field, "a list of zones, or `any`");
            return None;
        }
        let names = self.reader.list(field, Reader::text_of, "zone")?;
        let topology = self.topology;
        let mut zones = BTreeSet::new();
        for name in names {
            let zone: Option<ZoneName> = name.value.parse().ok().filter(|zone| topology.zone(zone).is_some());
            match zone {
                Some(zone) => {
                    zones.insert(zone);
                }
                None => {
                    let known = topology.zones().map(|zone| zone.name.as_str());
                    let known: Vec<&str> = known.collect();
                    let message =
                        format!("no zone is called {}{}", quote(&name.value), suggest(&name.value, known.iter().copied(), "the zones are"));
                    self.reader.problems.add(name.place, &name.key, message);
                }
            }
        }
        Some(ZoneGrant::These(zones))
    }

    fn users(&mut self, field: &Field<'_>) -> Option<UserGrant> {
        match field.value {
            Value::Text(text) if text == ANY => Some(UserGrant::Any),
            Value::Text(text) if text == "own" => Some(UserGrant::Own),
            Value::Map(_) => {
                let mapping = self.reader.mapping(field, Some(&["claim"]))?;
                let claim = self.reader.required(&mapping, "claim")?;
                self.text(claim).map(UserGrant::Claim)
            }
            _ => {
                self.reader.expected(field, "`any`, `own` (the token's sub), or `{claim: NAME}`");
                None
            }
        }
    }

    fn limits(&mut self, field: &Field<'_>) -> Option<CallLimits> {
        let mapping = self.reader.mapping(field, Some(&["calls_per_second", "calls_in_progress"]))?;
        let mut bound = |name: &str| match mapping.find(name) {
            Some(field) => self.reader.whole(field, 1..=CALLS_MAX).map(|bound| u32::try_from(bound).ok()),
            None => Some(None),
        };
        let (calls_per_second, calls_in_progress) = (bound("calls_per_second"), bound("calls_in_progress"));
        let calls_in_progress = calls_in_progress?.unwrap_or_else(|| self.share());
        Some(CallLimits { calls_per_second: calls_per_second?, calls_in_progress })
    }

    /// The calls in progress of a principal of whom the file does not say how many they may be.
    fn share(&self) -> u32 {
        u32::try_from(self.topology.limits().calls / CALLS_PARTS).unwrap_or(u32::MAX).max(1)
    }

    /// No token can be of two issuers.
    fn tell_issuers_apart(&mut self, issuers: &[(At<String>, Option<At<Issuer>>)]) {
        for (index, (_, issuer)) in issuers.iter().enumerate() {
            let Some(issuer) = issuer else { continue };
            let same =
                |other: &&(At<String>, Option<At<Issuer>>)| other.1.as_ref().is_some_and(|other| other.value.issuer == issuer.value.issuer);
            if let Some((other, Some(first))) = issuers[..index].iter().find(same) {
                let line = first.place.line().map(|line| format!(" (line {line})")).unwrap_or_default();
                let message = format!("is the `iss` of {} too{line}: a token would be of both", other.value);
                self.reader.problems.add(issuer.place, &issuer.key, message);
            }
        }
    }

    /// No token can be two principals'.
    fn tell_apart(&mut self, principals: &[(At<String>, Option<Principal>)]) {
        for (index, (name, principal)) in principals.iter().enumerate() {
            let Some(tokens) = principal.as_ref().and_then(|principal| principal.tokens.as_ref()) else { continue };
            let same = |other: &&(At<String>, Option<Principal>)| {
                let other = other.1.as_ref().and_then(|principal| principal.tokens.as_ref());
                other.is_some_and(|other| {
                    let differ = other.claims.iter().any(|(claim, value)| tokens.claims.get(claim).is_some_and(|own| own != value));
                    other.issuer == tokens.issuer && !differ
                })
            };
            if let Some((other, _)) = principals[..index].iter().find(same) {
                let message = format!(
                    "one token could be of {} too{}: have both ask for the same claim, with different values",
                    other.value,
                    other.place.line().map(|line| format!(" (line {line})")).unwrap_or_default()
                );
                self.reader.problems.add(name.place, &name.key, message);
            }
        }
    }

    fn required_text(&mut self, mapping: &Mapping<'_>, name: &str) -> Option<String> {
        let field = self.reader.required(mapping, name)?;
        self.text(field)
    }

    fn text(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.reader.text(field)?;
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            self.reader.say(field, format!("must have 1 to {TEXT_BYTES_MAX} bytes, not {}", text.len()));
            return None;
        }
        Some(text.to_owned())
    }

    fn whole_or(&mut self, mapping: &Mapping<'_>, name: &str, bounds: std::ops::RangeInclusive<u64>, default: u64) -> Option<u64> {
        match mapping.find(name) {
            Some(field) => self.reader.whole(field, bounds),
            None => Some(default),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
}
