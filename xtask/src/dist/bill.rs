//! What is inside: every crate that is linked into the program for its target, as a CycloneDX bill of materials, and
//! as the notices that their licences ask for, each licence's text once for all who share it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::sha256;
use crate::workspace::cargo;

/// The crates of one target.
pub(super) struct Bill {
    /// Our own version.
    pub(super) version: String,
    parts: Vec<Part>,
}

struct Part {
    package: Package,
    /// The texts of its licences, as it brings them.
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

/// What is linked into the program for `triple`, and what its macros come from.
pub(super) fn of(triple: &str) -> Result<Bill> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", triple])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not readable")?;
    let own =
        metadata.packages.iter().find(|package| package.name == "agentsecrets" && package.source.is_none());
    let own = own.context("the workspace has no agentsecrets")?;
    let (version, wanted) = (own.version.clone(), linked(&metadata.resolve, &own.id));
    let mut parts = Vec::new();
    for package in metadata.packages {
        if wanted.contains(&package.id) && package.source.is_some() {
            let texts = texts(&package)?;
            parts.push(Part { package, texts });
        }
    }
    parts.sort_by(|a, b| (&a.package.name, &a.package.version).cmp(&(&b.package.name, &b.package.version)));
    Ok(Bill { version, parts })
}

/// Whatever `own` reaches by dependencies that are neither for tests nor for build scripts.
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

impl Bill {
    /// The bill of materials, as CycloneDX 1.5 in JSON.
    pub(super) fn cyclone_dx(&self, epoch: u64) -> Result<Vec<u8>> {
        let component = |part: &Part| {
            let Package { name, version, license, .. } = &part.package;
            let purl = format!("pkg:cargo/{name}@{version}");
            let licence = license.as_deref().unwrap_or_default().replace('/', " OR ");
            json!({
                "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                "licenses": [{ "expression": licence }],
            })
        };
        let own = format!("pkg:cargo/agentsecrets@{}", self.version);
        let bill = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": time(epoch),
                "component": {
                    "type": "application", "bom-ref": own, "name": "agentsecrets", "version": self.version,
                    "purl": own, "licenses": [{ "expression": "MIT" }],
                },
            },
            "components": self.parts.iter().map(component).collect::<Vec<_>>(),
        });
        let mut bytes = serde_json::to_vec_pretty(&bill)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The notices.
    pub(super) fn notices(&self) -> String {
        let mut text = String::from(
            "# Third-party notices\n\nAgentSecrets is under the MIT licence. Linked into it are these, under theirs:\n\n",
        );
        let mut shared: BTreeMap<String, (&str, Vec<&str>)> = BTreeMap::new();
        for part in &self.parts {
            let Package { name, version, license, repository, authors, .. } = &part.package;
            let licence = license.as_deref().unwrap_or_default();
            let _ = write!(text, "- {name} {version}: {licence}");
            // Where a crate brings no text, who made it and where is what there is to say.
            if part.texts.is_empty() {
                let _ = write!(
                    text,
                    ", by {} ({})",
                    authors.join(", "),
                    repository.as_deref().unwrap_or("crates.io")
                );
            }
            text.push('\n');
            for licence in &part.texts {
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

/// Seconds since 1970 as RFC 3339 writes them.
pub(super) fn time(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    // Of 400 years each, which have 146,097 days; a year begins in March.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (epoch, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(epoch), shown);
        }
    }

    #[test]
    fn the_bill_names_what_is_linked_and_not_what_only_tests_need() {
        let bill = of("x86_64-unknown-linux-gnu").unwrap();
        let names: BTreeSet<&str> = bill.parts.iter().map(|part| part.package.name.as_str()).collect();
        for linked in ["rustls", "aya", "hyper", "aws-lc-rs"] {
            assert!(names.contains(linked), "{linked}");
        }
        for other in ["proptest", "assert_cmd", "windows-sys", "agentsecrets"] {
            assert!(!names.contains(other), "{other}");
        }
        let notices = bill.notices();
        assert!(notices.contains("- rustls ") && notices.contains("Permission is hereby granted"));
    }
}
