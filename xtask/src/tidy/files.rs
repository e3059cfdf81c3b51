//! What holds for every file: its size, its module doc, no leftovers, `unsafe` only where it is
//! allowed and explained, and a top level that a newcomer can take in at a glance.

use std::path::Path;

use anyhow::Result;

use super::source::Source;

/// No Rust file is longer.
const LONGEST: usize = 500;

/// What may lie at the top, beside dotfiles.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "agentsecrets",
    "agentsecrets-ebpf",
    "deploy",
    "helm",
    "target",
    "tests",
    "xtask",
];

/// Words that mark what is not finished. Written in halves, lest this file find itself.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
];

/// Strangers at the top of the workspace.
pub(crate) fn top_level(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for entry in root.read_dir()? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP.contains(&name.as_str()) {
            findings.push(format!("{name}: does not belong at the top of the workspace"));
        }
    }
    Ok(findings)
}

/// What is wrong with one file.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let path = &source.path;
    let lines = source.text.lines().count();
    if lines > LONGEST {
        findings
            .push(format!("{path}:{LONGEST}: {lines} lines; a file of more than {LONGEST} is two thoughts"));
    }
    if !source.text.starts_with("//!") {
        findings.push(format!("{path}:1: does not begin with a module doc that says why it exists"));
    }
    for (number, line) in source.text.lines().enumerate() {
        for word in LEFTOVERS.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{path}:{}: {word} is left over", number + 1));
        }
    }
    findings.extend(unsafe_code(source));
    findings
}

/// `unsafe` outside the doors, or without its reason.
fn unsafe_code(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let door = path.starts_with("agentsecrets/src/base/sys")
        || path.starts_with("agentsecrets/src/connection/ebpf")
        || path.starts_with("agentsecrets-ebpf/");
    let lines: Vec<&str> = source.text.lines().collect();
    let mut findings = Vec::new();
    for (number, code) in source.code.lines().enumerate() {
        for (offset, _) in code.match_indices("unsafe") {
            let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let rest = code.get(offset + "unsafe".len()..).unwrap_or_default();
            if part_of_word(code.get(..offset).and_then(|text| text.chars().next_back()))
                || part_of_word(rest.chars().next())
            {
                continue;
            }
            if !door {
                findings.push(format!(
                    "{path}:{}: unsafe code belongs in base/sys or connection/ebpf",
                    number + 1
                ));
            } else if rest.trim_start().starts_with('{') && !explained(&lines, number) {
                findings.push(format!("{path}:{}: an unsafe block without `// SAFETY:`", number + 1));
            }
        }
    }
    findings
}

/// Whether a `SAFETY:` comment stands on the line or within the few above it.
fn explained(lines: &[&str], number: usize) -> bool {
    lines.iter().take(number + 1).rev().take(8).any(|line| line.contains("SAFETY:"))
}

/// One line about the sizes of the product's files.
pub(crate) fn sizes(sources: &[Source]) -> String {
    let mut counted: Vec<(usize, &str)> = sources
        .iter()
        .filter(|source| source.path.contains("src/"))
        .map(|source| (source.text.lines().count(), source.path.as_str()))
        .collect();
    counted.sort_unstable();
    let at = |percent: usize| counted.get(counted.len().saturating_sub(1) * percent / 100);
    let lines = |percent: usize| at(percent).map_or(0, |(lines, _)| *lines);
    let (longest, path) = at(100).copied().unwrap_or_default();
    format!(
        "{} files, lines: median {}, p90 {}, longest {longest} ({path})",
        counted.len(),
        lines(50),
        lines(90)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
    }

    #[test]
    fn a_file_of_501_lines_or_without_a_doc_is_found() {
        assert!(findings("xtask/src/a.rs", &format!("//! A.\n{}", "\n".repeat(499))).is_empty());
        assert_eq!(findings("xtask/src/a.rs", &format!("//! A.\n{}", "\n".repeat(500))).len(), 1);
        assert_eq!(findings("xtask/src/a.rs", "fn main() {}").len(), 1);
    }

    #[test]
    fn leftovers_are_found() {
        for word in LEFTOVERS {
            assert_eq!(findings("tests/a.rs", &format!("//! A.\n// {word}\n")).len(), 1, "{word}");
        }
    }

    #[test]
    fn unsafe_stays_behind_its_doors_and_says_why() {
        let bare = "//! A.\nlet x = unsafe { f() };\n";
        let explained = "//! A.\n// SAFETY: f has no preconditions.\nlet x = unsafe { f() };\n";
        assert_eq!(findings("agentsecrets/src/policy/decide.rs", explained).len(), 1);
        assert_eq!(findings("tests/support/netns.rs", explained).len(), 1);
        assert_eq!(findings("agentsecrets/src/base/sys.rs", bare).len(), 1);
        assert!(findings("agentsecrets/src/base/sys.rs", explained).is_empty());
        assert!(findings("agentsecrets/src/policy/mod.rs", "//! A.\n#![forbid(unsafe_code)]\n").is_empty());
    }
}
