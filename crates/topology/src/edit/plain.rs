//! What a YAML text says, without where it says it: two texts that say the same are equal here.

use crate::tree::Value;

/// A value without its place. Keys are in the order of the text, which an edit keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plain {
    Nothing,
    Flag(bool),
    Whole(i128),
    Fraction(String),
    Text(String),
    List(Vec<Plain>),
    Map(Vec<(String, Plain)>),
}

impl Plain {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        Self::List(texts.map(Self::text).collect())
    }

    pub(super) fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// The value at a path of keys.
    pub(super) fn at(&mut self, path: &[&str]) -> Option<&mut Self> {
        let Some((key, rest)) = path.split_first() else { return Some(self) };
        let Self::Map(entries) = self else { return None };
        entries.iter_mut().find(|(name, _)| name == key)?.1.at(rest)
    }

    /// Adds a key at the end. False: it is no mapping, or has the key.
    pub(super) fn add(&mut self, key: &str, value: Self) -> bool {
        let Self::Map(entries) = self else { return false };
        let new = entries.iter().all(|(name, _)| name != key);
        if new {
            entries.push((key.to_owned(), value));
        }
        new
    }

    /// Removes a key. False: it is not there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Self::Map(entries) = self else { return false };
        let before = entries.len();
        entries.retain(|(name, _)| name != key);
        entries.len() + 1 == before
    }

    /// Adds an item at the end.
    pub(super) fn push(&mut self, item: &str) -> bool {
        let Self::List(items) = self else { return false };
        items.push(Self::text(item));
        true
    }

    /// Removes an item. False: it is not there once.
    pub(super) fn drop(&mut self, item: &str) -> bool {
        let Self::List(items) = self else { return false };
        let before = items.len();
        items.retain(|other| *other != Self::text(item));
        items.len() + 1 == before
    }
}

impl From<&Value> for Plain {
    fn from(value: &Value) -> Self {
        match value {
            Value::Nothing => Self::Nothing,
            Value::Flag(flag) => Self::Flag(*flag),
            Value::Whole(number) => Self::Whole(*number),
            Value::Fraction(number) => Self::Fraction(number.clone()),
            Value::Text(text) => Self::Text(text.clone()),
            Value::List(items) => Self::List(items.iter().map(|(_, item)| Self::from(item)).collect()),
            Value::Map(entries) => Self::Map(entries.iter().map(|entry| (entry.key.clone(), Self::from(&entry.value))).collect()),
        }
    }
}
