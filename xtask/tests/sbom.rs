//! `cargo xtask sbom` names what the binary is made of, in the form that CycloneDX asks for, and the same each time.

#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

fn made(output: &Path) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("sbom").arg("--output").arg(output).output().expect("it can be started");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read_to_string(output).expect("it was written")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("{value} has no {key}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{value} has no list {key}"))
}

#[test]
fn the_bill_of_materials_is_cyclonedx_names_what_is_linked_and_is_the_same_each_time() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let written = made(&folder.join("once.cdx.json"));
    assert_eq!(written, made(&folder.join("again.cdx.json")), "the same sources make the same bytes");
    assert!(!written.contains(env!("CARGO_MANIFEST_DIR").trim_end_matches("xtask")), "no path of this machine is in it");

    // What the JSON schema of CycloneDX 1.5 requires, and what makes it useful.
    let document: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!((text(&document, "bomFormat"), text(&document, "specVersion"), &document["version"]), ("CycloneDX", "1.5", &Value::from(1)));
    let own = &document["metadata"]["component"];
    assert_eq!((text(own, "type"), text(own, "name")), ("application", "paymesh"));
    let mut scopes = BTreeMap::new();
    let mut references = BTreeSet::from([text(own, "bom-ref")]);
    for component in list(&document, "components") {
        assert_eq!(text(component, "type"), "library", "{component}");
        assert!(references.insert(text(component, "bom-ref")), "{component} is there twice");
        let (name, version, purl) = (text(component, "name"), text(component, "version"), text(component, "purl"));
        let ours = purl.starts_with("pkg:generic/");
        let expected = format!("pkg:{}/{name}@{}", if ours { "generic" } else { "cargo" }, version.replace('+', "%2B"));
        assert_eq!(purl, expected);
        assert_eq!(ours, name.starts_with("paymesh"), "{name}");
        assert!(!text(&list(component, "licenses")[0], "expression").contains('/'), "{component}");
        if !ours {
            let hash = &list(component, "hashes")[0];
            let sum = text(hash, "content");
            assert!(text(hash, "alg") == "SHA-256" && sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
        }
        scopes.insert(name, text(component, "scope"));
    }
    let mut from = BTreeSet::new();
    for line in list(&document, "dependencies") {
        assert!(references.contains(text(line, "ref")) && from.insert(text(line, "ref")), "{line}");
        for on in list(line, "dependsOn") {
            assert!(on.as_str().is_some_and(|on| references.contains(on)), "{line} needs {on}, which is no component");
        }
    }
    assert_eq!(from, references, "of each it is said what it needs");

    // Linked; needed to build; neither, though other packages of the workspace have them.
    for (name, scope) in [("rustls", "required"), ("aws-lc-sys", "required"), ("paymesh-ledger", "required"), ("cc", "excluded")] {
        assert_eq!(scopes.get(name), Some(&scope), "{name}");
    }
    for name in ["sqlx-postgres", "proptest", "bench", "xtask"] {
        assert_eq!(scopes.get(name), None, "{name} is no part of the binary");
    }
}
