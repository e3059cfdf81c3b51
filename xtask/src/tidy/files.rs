//! Rules for every file: it begins with a module doc, nothing unfinished is left in it, and only known names stand
//! at the top of the workspace. A file above [`MAX_LINES`] is reported, not refused.

use std::path::Path;

use anyhow::{Context, Result};

/// A longer file is a hint that it has two purposes.
const MAX_LINES: usize = 800;

/// The names at the top of the workspace, beside dotfiles.
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

/// Marks of unfinished work. They are split so that this file does not find itself.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
];

/// A Rust file.
pub(crate) struct Source {
    /// Its path from the top of the workspace, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// Every Rust file outside build output and dot folders, by path.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// Unknown names at the top of the workspace.
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

/// The faults of one file.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        findings.push(format!("{path}:1: does not begin with a module doc"));
    }
    for (number, line) in source.text.lines().enumerate() {
        for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
            findings.push(format!("{path}:{}: {mark} is left over", number + 1));
        }
    }
    findings
}

/// Files that are longer than [`MAX_LINES`].
pub(crate) fn long(sources: &[Source]) -> Vec<String> {
    let lines = |source: &Source| source.text.lines().count();
    let long = sources.iter().filter(|source| lines(source) > MAX_LINES);
    long.map(|source| format!("{}: {} lines; has it two purposes?", source.path, lines(source))).collect()
}

/// One line about the sizes of the product's files, and one about the first words of its doc comments.
pub(crate) fn summary(sources: &[Source]) -> String {
    let product = || sources.iter().filter(|source| source.path.contains("src/"));
    let mut sizes: Vec<(usize, &str)> =
        product().map(|source| (source.text.lines().count(), source.path.as_str())).collect();
    sizes.sort_unstable();
    let at = |percent: usize| sizes.get(sizes.len().saturating_sub(1) * percent / 100);
    let lines = |percent: usize| at(percent).map_or(0, |(lines, _)| *lines);
    let (longest, path) = at(100).copied().unwrap_or_default();
    let docs = || product().flat_map(|source| source.text.lines()).filter_map(doc_text);
    let (all, asking) = (docs().count(), docs().filter(|text| opens_with_a_question_word(text)).count());
    format!(
        "{} files, lines: median {}, p90 {}, longest {longest} ({path})\n\
         {all} doc lines, {asking} of them begin with What, Who, Whose, How, Where or Which ({:.1} %)",
        sizes.len(),
        lines(50),
        lines(90),
        100.0 * asking as f64 / all.max(1) as f64
    )
}

fn doc_text(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"))
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

fn opens_with_a_question_word(text: &str) -> bool {
    let first = text.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    ["What", "Who", "Whose", "How", "Where", "Which"].contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "xtask/src/a.rs".into(), text: text.into() }
    }

    #[test]
    fn file_without_a_module_doc_is_found() {
        assert!(check(&source("//! A.\n")).is_empty());
        assert_eq!(check(&source("fn main() {}")).len(), 1);
    }

    #[test]
    fn file_above_the_limit_is_reported() {
        assert!(long(&[source(&"\n".repeat(MAX_LINES))]).is_empty());
        assert_eq!(long(&[source(&"\n".repeat(MAX_LINES + 1))]).len(), 1);
    }

    #[test]
    fn unfinished_work_is_found() {
        for mark in UNFINISHED {
            assert_eq!(check(&source(&format!("//! A.\n// {mark}\n"))).len(), 1, "{mark}");
        }
    }

    #[test]
    fn doc_line_is_counted_by_its_first_word() {
        assert!(opens_with_a_question_word("What a rule says."));
        assert!(!opens_with_a_question_word("Whatever a rule says."));
        assert_eq!(doc_text("    /// Its name."), Some("Its name."));
    }
}
