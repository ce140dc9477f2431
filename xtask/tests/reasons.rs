//! Callers program against the reasons of errors: each that the code can answer with is in the contract's comments.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where errors become words.
const SOURCES: [&str; 8] = [
    "crates/access/src",
    "crates/audit/src",
    "crates/contract/src",
    "crates/mesh/src",
    "services/fraud-detection/src",
    "services/payment-processor/src",
    "services/vault/src",
    "services/paymesh/src/node",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

fn texts_in(folder: &Path, ending: &str, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            // Tests make up reasons of their own.
            if path.file_name().is_none_or(|name| name != "tests") {
                texts_in(&path, ending, texts);
            }
        } else if path.extension().is_some_and(|end| end == ending) && path.file_stem().is_none_or(|stem| stem != "tests") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            texts.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
}

/// String literals in capitals that a call which makes a `Fault` begins with, or that stand beside a code.
fn reasons(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices('"') {
        let rest = &text[at + 1..];
        let word: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        let whole = word.len() > 3 && word.contains('_') && rest[word.len()..].starts_with('"');
        let before = text[..at].trim_end();
        let makes_a_fault = before.ends_with("unavailable(") || before.ends_with("not_found(");
        let beside_a_code = before.ends_with(',') && {
            let statement = &before[before.rfind(['(', '{', ';']).map_or(0, |start| start + 1)..];
            statement.contains("Code::")
        };
        if whole && (makes_a_fault || beside_a_code) {
            found.insert(word);
        }
    }
    found
}

#[test]
fn every_reason_is_in_the_contract() {
    let mut contract = Vec::new();
    texts_in(&root().join("proto"), "proto", &mut contract);
    let words: BTreeSet<&str> = contract.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'))).collect();
    let mut sources = Vec::new();
    for folder in SOURCES {
        texts_in(&root().join(folder), "rs", &mut sources);
    }
    let reasons: BTreeSet<String> = sources.iter().flat_map(|text| reasons(text)).collect();
    // So that a change of style does not leave this test with nothing to look at.
    for known in ["INVALID_FIELD", "PEER_UNAVAILABLE", "MESSAGE_TOO_LARGE", "ACCOUNT_CLOSED", "SHARD_OVERLOADED", "USER_NOT_FOUND"] {
        assert!(reasons.contains(known), "this test does not see {known}: {reasons:?}");
    }
    assert!(reasons.len() > 35, "{reasons:?}");
    let missing: Vec<&String> = reasons.iter().filter(|reason| !words.contains(reason.as_str())).collect();
    assert!(missing.is_empty(), "reasons that no comment in proto/ names: {missing:?}");
}
