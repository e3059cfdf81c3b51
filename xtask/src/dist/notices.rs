//! `THIRD-PARTY.md`: every crate that is linked into the program, and the texts of their licences. A text that several
//! crates share stands there once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::digest::sha256;
use crate::workspace::cargo;

/// The linked crates of one target.
pub(super) struct Notices {
    /// The version of the program.
    pub(super) version: String,
    crates: Vec<LinkedCrate>,
}

struct LinkedCrate {
    package: Package,
    /// The licence files of the crate.
    texts: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
    source: Option<String>,
    manifest_path: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Notices {
    /// The crates that are linked into the program for `triple`, and those of its macros.
    pub(super) fn collect(triple: &str) -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", triple])
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo metadata")?;
        ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cargo metadata is not readable")?;
        let own = metadata
            .packages
            .iter()
            .find(|package| package.name == "agentsecrets" && package.source.is_none());
        let own = own.context("the workspace has no agentsecrets")?;
        let (version, wanted) = (own.version.clone(), linked(&metadata.resolve, &own.id));
        let mut crates = Vec::new();
        for package in metadata.packages {
            if wanted.contains(&package.id) && package.source.is_some() {
                let texts = texts(&package)?;
                crates.push(LinkedCrate { package, texts });
            }
        }
        crates.sort_by(|a, b| {
            (&a.package.name, &a.package.version).cmp(&(&b.package.name, &b.package.version))
        });
        Ok(Self { version, crates })
    }

    /// The text of `THIRD-PARTY.md`.
    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "# Third-party notices\n\nAgentSecrets is under the MIT licence. Linked into it are these, under theirs:\n\n",
        );
        let mut shared: BTreeMap<String, (&str, Vec<&str>)> = BTreeMap::new();
        for linked in &self.crates {
            let Package { name, version, license, repository, authors, .. } = &linked.package;
            let licence = license.as_deref().unwrap_or_default();
            let _ = write!(text, "- {name} {version}: {licence}");
            // A crate without a licence text is named with its authors and repository.
            if linked.texts.is_empty() {
                let _ = write!(
                    text,
                    ", by {} ({})",
                    authors.join(", "),
                    repository.as_deref().unwrap_or("no repository")
                );
            }
            text.push('\n');
            for licence in &linked.texts {
                shared.entry(sha256(licence.as_bytes())).or_insert((licence, Vec::new())).1.push(name);
            }
        }
        for (licence, mut names) in shared.into_values() {
            names.dedup();
            let _ = write!(text, "\n## {}\n\n```text\n{licence}\n```\n", names.join(", "));
        }
        text
    }
}

/// The packages that `own` depends on, without dependencies of tests and build scripts.
fn linked(resolve: &Resolve, own: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Node> = resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let (mut found, mut waiting) = (BTreeSet::new(), vec![own]);
    while let Some(id) = waiting.pop() {
        if !found.insert(id.to_owned()) {
            continue;
        }
        let deps = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        waiting.extend(
            deps.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()))
                .map(|dep| dep.pkg.as_str()),
        );
    }
    found
}

/// The files of a crate that are its licences and notices.
fn texts(package: &Package) -> Result<Vec<String>> {
    let folder = Path::new(&package.manifest_path).parent().context("a manifest lies in a folder")?;
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if is_licence.iter().any(|start| name.starts_with(start)) && path.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path)?).replace("\r\n", "\n");
            texts.insert(name, text.trim().to_owned());
        }
    }
    Ok(texts.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linked_crates_are_named_and_test_crates_are_not() {
        let notices = Notices::collect("x86_64-unknown-linux-gnu").unwrap();
        let names: BTreeSet<&str> = notices.crates.iter().map(|part| part.package.name.as_str()).collect();
        for linked in ["rustls", "aya", "hyper", "aws-lc-rs"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["proptest", "assert_cmd", "windows-sys", "agentsecrets"] {
            assert!(!names.contains(other), "{other}");
        }
        let text = notices.text();
        assert!(text.contains("- rustls ") && text.contains("Permission is hereby granted"));
    }
}
