//! prices.yaml out of its tree: keys known, prices exact and within their bounds, and kinds of instances that have a price.

use paymesh_types::Currency;
use rust_decimal::Decimal;

use super::{At, Field, Mapping, Reader};
use crate::{
    InstanceType, Interruption, PRICE_DIGITS_MAX, PRICE_MAX, PaymentOption, Prices, RESERVED_MAX, Reserved, Spot, Term,
    prices::INSTANCE_TYPES_MAX,
    problem::{Problems, quote, suggest},
    tree::{Place, Value},
};

/// Processors of an instance at most.
const CPU_MAX: u64 = 1_024;
/// GiB of an instance's memory at most.
const MEMORY_GIB_MAX: u32 = 65_536;
/// Digits after the point of a memory at most: an eighth of a GiB is the least that is sold.
const MEMORY_DIGITS_MAX: u32 = 3;
/// Purposes at most, of reservations and of what may be interrupted.
const PURPOSES_MAX: usize = 64;
/// Bytes of a purpose's name at most.
const PURPOSE_BYTES_MAX: usize = 64;

/// Reads the file. `None`, or less than it says, where there is a problem.
pub(crate) fn read(root: &Value, problems: &mut Problems) -> Option<Prices> {
    let mut reader = PricesReader { reader: Reader { problems } };
    let root = if matches!(root, Value::Nothing) { &Value::Map(Vec::new()) } else { root };
    let root = At { value: root, place: Place::NOWHERE, key: String::new() };
    let known = ["currency", "instance_types", "reserved_instances", "spot_instances", "traffic", "storage"];
    let root = reader.reader.mapping(&root, Some(&known))?;
    // All are looked at before any is given up: every mistake is said.
    let currency = reader.reader.required(&root, "currency").and_then(|field| reader.currency(field));
    let instance_types = reader.reader.required(&root, "instance_types").and_then(|field| reader.instance_types(field));
    // Where the kinds could not be read, who names one is not wrong as well.
    let kinds = instance_types.as_deref().unwrap_or_default();
    let reserved = reader.purposes(&root, "reserved_instances", |reader, purpose, field| reader.reserved(purpose, field, kinds));
    let spot = reader.purposes(&root, "spot_instances", |reader, purpose, field| reader.spot(purpose, field, kinds));
    let traffic = reader.only(&root, "traffic", "between_regions_per_gib");
    let storage = reader.only(&root, "storage", "per_gib_month");
    Some(Prices {
        currency: currency?,
        instance_types: instance_types?,
        reserved: reserved?,
        spot: spot?,
        traffic_between_regions_per_gib: traffic?,
        storage_per_gib_month: storage?,
    })
}

struct PricesReader<'p> {
    reader: Reader<'p>,
}

impl PricesReader<'_> {
    fn currency(&mut self, field: &Field<'_>) -> Option<Currency> {
        let text = self.reader.text(field)?;
        let currency = Currency::from_code(text);
        if let Err(error) = &currency {
            self.reader.say(field, format!("{error}, not {}", quote(text)));
        }
        currency.ok()
    }

    fn instance_types(&mut self, field: &Field<'_>) -> Option<Vec<InstanceType>> {
        let mapping = self.entries(field, INSTANCE_TYPES_MAX)?;
        if mapping.fields.is_empty() {
            self.reader.say(field, "must not be empty");
            return None;
        }
        let kinds: Vec<_> = mapping.fields.iter().map(|(name, field)| self.instance_type(name, field)).collect();
        kinds.into_iter().collect()
    }

    fn instance_type(&mut self, name: &str, field: &Field<'_>) -> Option<InstanceType> {
        let text = Value::Text(name.to_owned());
        let name = self.reader.machine_name(&At { value: &text, place: field.place, key: field.key.clone() });
        let kind = self.reader.mapping(field, Some(&["cpu", "memory_gib", "per_hour"]))?;
        let cpu = self.reader.required(&kind, "cpu").and_then(|field| self.reader.whole(field, 1..=CPU_MAX));
        let memory_gib = self.reader.required(&kind, "memory_gib").and_then(|field| self.decimal(field, MEMORY_GIB_MAX, MEMORY_DIGITS_MAX));
        let per_hour = self.reader.required(&kind, "per_hour").and_then(|field| self.price(field));
        Some(InstanceType { name: name?, cpu: u32::try_from(cpu?).ok()?, memory_gib: memory_gib?, per_hour: per_hour? })
    }

    /// A mapping of purposes, which may be left out.
    fn purposes<'a, T>(
        &mut self,
        root: &Mapping<'a>,
        name: &str,
        mut read: impl FnMut(&mut Self, String, &Field<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(field) = root.find(name) else { return Some(Vec::new()) };
        let mapping = self.entries(field, PURPOSES_MAX)?;
        let mut all = Vec::new();
        for (purpose, field) in &mapping.fields {
            let valid = (1..=PURPOSE_BYTES_MAX).contains(&purpose.len())
                && purpose.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-');
            if !valid {
                self.reader.say(field, format!("a purpose is 1 to {PURPOSE_BYTES_MAX} of a-z, 0-9, - and _"));
            }
            all.push(read(self, (*purpose).to_owned(), field));
        }
        all.into_iter().collect()
    }

    fn reserved(&mut self, purpose: String, field: &Field<'_>, kinds: &[InstanceType]) -> Option<Reserved> {
        let known = ["instance_type", "count", "term", "payment_option", "savings_percent"];
        let mapping = self.reader.mapping(field, Some(&known))?;
        let kind = self.kind(&mapping, kinds);
        let count = self.reader.required(&mapping, "count").and_then(|field| self.reader.whole(field, 1..=RESERVED_MAX));
        let term = self.reader.required(&mapping, "term");
        let term = term.and_then(|field| self.reader.word(field, Term::WORDS, Term::from_word, "term"));
        let option = self.reader.required(&mapping, "payment_option");
        let option = option.and_then(|field| self.reader.word(field, PaymentOption::WORDS, PaymentOption::from_word, "payment option"));
        let savings = self.reader.required(&mapping, "savings_percent").and_then(|field| self.reader.whole(field, 1..=99));
        Some(Reserved {
            purpose,
            instance_type: kind?.0,
            count: count?,
            term: term?,
            payment_option: option?,
            savings_percent: u32::try_from(savings?).ok()?,
        })
    }

    fn spot(&mut self, purpose: String, field: &Field<'_>, kinds: &[InstanceType]) -> Option<Spot> {
        let mapping = self.reader.mapping(field, Some(&["instance_type", "max_price", "interruption_handling"]))?;
        let kind = self.kind(&mapping, kinds);
        let max_price = self.reader.required(&mapping, "max_price").and_then(|field| {
            let price = self.price(field)?;
            let on_demand = kind.as_ref().and_then(|(_, per_hour)| *per_hour);
            let on_demand = on_demand.filter(|on_demand| price >= *on_demand);
            if let Some(on_demand) = on_demand {
                self.reader.say(field, format!("must be less than an hour on demand, which is {on_demand}: it would save nothing"));
            }
            on_demand.is_none().then_some(price)
        });
        let handling = self.reader.required(&mapping, "interruption_handling");
        let handling = handling.and_then(|field| self.reader.word(field, Interruption::WORDS, Interruption::from_word, "way to handle it"));
        Some(Spot { purpose, instance_type: kind?.0, max_price: max_price?, interruption_handling: handling? })
    }

    /// The kind of instance that an entry names, and its price on demand.
    fn kind(&mut self, mapping: &Mapping<'_>, kinds: &[InstanceType]) -> Option<(String, Option<Decimal>)> {
        let field = self.reader.required(mapping, "instance_type")?;
        let name = self.reader.machine_name(field)?;
        let kind = kinds.iter().find(|kind| kind.name == name);
        if kind.is_none() && !kinds.is_empty() {
            let known = kinds.iter().map(|kind| kind.name.as_str());
            self.reader.say(field, format!("instance_types has no price of {}{}", quote(&name), suggest(&name, known, "it has")));
            return None;
        }
        Some((name, kind.map(|kind| kind.per_hour)))
    }

    /// A block of one price.
    fn only(&mut self, root: &Mapping<'_>, block: &str, key: &str) -> Option<Decimal> {
        let field = self.reader.required(root, block)?;
        let mapping = self.reader.mapping(field, Some(&[key]))?;
        let field = self.reader.required(&mapping, key)?;
        self.price(field)
    }

    fn entries<'a>(&mut self, field: &Field<'a>, most: usize) -> Option<Mapping<'a>> {
        let mapping = self.reader.mapping(field, None)?;
        if mapping.fields.len() > most {
            self.reader.say(field, format!("must have at most {most} entries, not {}", mapping.fields.len()));
            return None;
        }
        Some(mapping)
    }

    fn price(&mut self, field: &Field<'_>) -> Option<Decimal> {
        self.decimal(field, PRICE_MAX, PRICE_DIGITS_MAX)
    }

    /// A decimal above 0. In quotes it is taken digit by digit. Without, YAML makes a float of it, whose shortest text is the one in the file for up to
    /// fifteen digits: all that these bounds allow.
    fn decimal(&mut self, field: &Field<'_>, most: u32, digits: u32) -> Option<Decimal> {
        let text = match field.value {
            Value::Whole(whole) => Some(whole.to_string()),
            Value::Fraction(text) | Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        let plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let read = text.filter(plain).and_then(|text| Decimal::from_str_exact(&text).ok());
        let read = read.filter(|read| *read > Decimal::ZERO && *read <= Decimal::from(most) && read.scale() <= digits);
        if read.is_none() {
            let what = format!("a decimal above 0 and up to {most}, with at most {digits} digits after the point and nothing else");
            self.reader.expected(field, &what);
        }
        read
    }
}
