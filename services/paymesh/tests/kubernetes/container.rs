//! The container file. It is read here and not built, which takes an engine.

use std::fs;

use crate::built::root;

/// Instructions with their words; lines that go on are one.
fn instructions() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("deploy/kubernetes/Containerfile")).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = kept.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|words: &Vec<String>| !words.is_empty())
        .collect()
}

#[test]
fn every_path_that_is_copied_is_there_and_the_workspace_is_whole() {
    let mut copied = Vec::new();
    for words in instructions().iter().filter(|words| words[0] == "COPY" && !words[1].starts_with("--from")) {
        for path in &words[1..words.len() - 1] {
            assert!(root().join(path).exists(), "COPY {path}");
            copied.push(path.trim_end_matches('/').to_owned());
        }
    }
    // cargo reads the manifest of every member, and the binary has some of these files in it.
    for needed in
        ["Cargo.toml", "Cargo.lock", "bench", "crates", "examples", "fuzz", "proto", "region-config", "services", "xtask", ".cargo"]
    {
        assert!(copied.iter().any(|path| path == needed), "{needed} is not copied");
    }
}

#[test]
fn the_compiler_is_the_projects_and_the_process_is_nobody() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"')).unwrap();
    let instructions = instructions();
    let stages: Vec<&Vec<String>> = instructions.iter().filter(|words| words[0] == "FROM").collect();
    assert_eq!(stages.len(), 2);
    assert!(stages[0][1].ends_with(&format!("rust:{channel}-bookworm")), "{:?}", stages[0]);
    assert!(
        stages[1][1].contains("distroless/cc-debian12"),
        "of the same Debian, whose libc the binary was linked with, and without a shell"
    );
    let build = instructions.iter().find(|words| words[0] == "RUN" && words.contains(&"build".to_owned())).unwrap();
    assert!(build.contains(&"--locked".to_owned()) && build.contains(&"--release".to_owned()), "{build:?}");
    let user = instructions.iter().rev().find(|words| words[0] == "USER").unwrap();
    assert_eq!(user[1], "65532:65532", "by number, so that runAsNonRoot can be held against it");
    assert_eq!(instructions.last().unwrap()[..2], ["ENTRYPOINT".to_owned(), "[\"/usr/bin/paymesh\"]".to_owned()]);
}
