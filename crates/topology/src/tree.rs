//! YAML as a tree whose every part knows its place in the file.
//!
//! A derived structure would stop at the first key it does not know; the tree lets the reader find every problem.
//! Booleans are those of YAML 1.2, so `yes` is text and Norway's `NO` is a country. Anchors are refused: Terraform reads the
//! same file, and what it says should stand where a reader looks for it.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Error, Location, MergeKeyPolicy, MessageFormatter as _, Spanned, UserMessageFormatter, budget::BudgetBreach,
};

use crate::problem::quote;

/// Collections within collections at most: the file's own shape needs four.
const DEPTH_MAX: usize = 16;

/// A line and a column, both from 1, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    line: u64,
    column: u64,
}

impl Place {
    pub(crate) const NOWHERE: Self = Self { line: 0, column: 0 };

    pub(crate) fn at(line: u64, column: u64) -> Self {
        Self { line, column }
    }

    pub(crate) fn line(self) -> Option<u64> {
        (self.line > 0).then_some(self.line)
    }

    pub(crate) fn column(self) -> Option<u64> {
        (self.column > 0).then_some(self.column)
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value.
#[derive(Debug)]
pub(crate) enum Value {
    Nothing,
    Flag(bool),
    Whole(i128),
    /// A number that is not whole, as it prints. No key takes one.
    Fraction(String),
    Text(String),
    List(Vec<(Place, Value)>),
    /// In the order of the file; a key may stand twice, which the reader refuses.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value_place: Place,
    pub(crate) value: Value,
}

/// How a value is called in a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(number) => f.write_str(number),
            Self::Text(text) => f.write_str(&quote(text)),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// Reads YAML. The error is the first place where it is not YAML, and why.
pub(crate) fn parse(yaml: &str) -> Result<Value, (Place, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, flow_nesting_limit: DEPTH_MAX, max_anchors: 0, max_aliases: 0 },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        let place = error.location().map_or(Place::NOWHERE, Place::from);
        let message = match &error {
            Error::Budget { breach: BudgetBreach::Anchors { .. }, .. } => "has an anchor: write the value out where it is used".into(),
            other => UserMessageFormatter.format_message(other),
        };
        (place, message.into_owned())
    })
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Value, E> {
        Ok(i128::try_from(number).map_or_else(|_| Value::Fraction(number.to_string()), Value::Whole))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Fraction(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push((item.referenced.into(), item.value));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Value>>()? {
            map.push(Entry { key: key.value, key_place: key.referenced.into(), value_place: value.referenced.into(), value: value.value });
        }
        Ok(Value::Map(map))
    }
}
