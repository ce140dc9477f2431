//! YAML as it is read and written again: a tree that keeps the order of its keys, and documents as text.
//!
//! The order of regions means something, so a map is a list of pairs. Comments are not kept. What is written is read again before it is handed out: a name that a reader
//! would take for something else is an error here and not there.

use std::fmt;

use anyhow::{Context as _, ensure};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
};

/// Columns from which on plain text would be folded over lines: never, which is as far as it can be said.
const FOLD_NEVER: usize = 1 << 20;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Nothing,
    Flag(bool),
    Whole(i128),
    Text(String),
    List(Vec<Tree>),
    /// In the order of the file.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads a text. Numbers that are not whole are refused, as region-config's reader does.
    pub(super) fn parse(yaml: &str) -> anyhow::Result<Self> {
        Ok(serde_saphyr::from_str_with_options(yaml, serde_saphyr::options! { strict_booleans: true })?)
    }

    /// A map's value.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// A map's entries, to change them. None: it is no map.
    pub(super) fn entries_mut(&mut self) -> Option<&mut Vec<(String, Self)>> {
        if let Self::Map(entries) = self { Some(entries) } else { None }
    }

    /// A list's items, to change them. None: it is no list.
    pub(super) fn items_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// A map's value, to change it.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.entries_mut()?.iter_mut().find_map(|(name, value)| (name == key).then_some(value))
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A map of these entries.
pub(super) fn map<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A document under a comment.
pub(super) fn document<T: Serialize + DeserializeOwned + PartialEq>(comment: &str, value: &T) -> anyhow::Result<String> {
    documents(comment, std::slice::from_ref(value))
}

/// Documents one after the other, under one comment.
pub(super) fn documents<T: Serialize + DeserializeOwned + PartialEq>(comment: &str, values: &[T]) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { compact_list_indent: false, folded_wrap_chars: FOLD_NEVER, prefer_block_scalars: false };
    let text = serde_saphyr::to_string_multiple_with_options(values, options).context("writing YAML")?;
    let read: Vec<T> = serde_saphyr::from_multiple(&text).context("reading what was written")?;
    ensure!(read == values, "what was written does not read as what was meant:\n{text}");
    let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
    Ok(comment + &text)
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing => serializer.serialize_unit(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Whole(number) => serializer.serialize_i128(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list, text, a whole number, true or false")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(number.into()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Tree, E> {
        Ok(Tree::Whole(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_what_was_meant_and_in_its_order() {
        let texts = [
            "NO",
            "yes",
            "true",
            "null",
            "~",
            "0-1",
            "080",
            "1_000",
            "1e3",
            "0x10",
            "12:30:00",
            "2026-11-27",
            "a: b",
            "- a",
            "#",
            "",
            " a",
            "a\nb",
            "€",
            "*a",
            "&a",
            "!a",
            "|",
            "%",
        ];
        let list = Tree::List(texts.into_iter().map(Tree::from).collect());
        let keys = Tree::Map(texts.into_iter().map(|text| (text.to_owned(), Tree::Whole(-1))).collect());
        let tree = map([("zulu", list), ("alpha", Tree::Flag(true)), ("mike", keys), ("none", Tree::Nothing), ("empty", map([]))]);
        let text = document("Two\nlines", &tree).expect("it can be written");
        assert!(text.starts_with("# Two\n# lines\nzulu:\n"), "{text}");
        assert_eq!(Tree::parse(&text).expect("it is YAML"), tree, "{text}");
    }

    #[test]
    fn norway_is_text_and_a_fraction_is_refused() {
        assert_eq!(Tree::parse("a: [NO, yes]").expect("YAML").get("a"), Some(&Tree::List(vec![Tree::from("NO"), Tree::from("yes")])));
        Tree::parse("a: 1.5").expect_err("no key of regions.yaml takes one");
    }
}
