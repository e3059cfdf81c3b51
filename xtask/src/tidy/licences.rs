//! Whose code we ship: the licence of every dependency, on every platform, must be one that asks for
//! no more than its notice. A package without a licence is refused.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// Licences that a binary under MIT may contain.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// The dependencies whose licence is not allowed.
pub(crate) fn check() -> Result<Vec<String>> {
    let output = workspace::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed ({})", output.status);
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not readable")?;
    let refused = metadata.packages.iter().filter_map(|package| {
        let licence = package.license.as_deref().unwrap_or("no licence");
        (!allowed(licence))
            .then(|| format!("{} {}: its licence ({licence}) is not allowed", package.name, package.version))
    });
    Ok(refused.collect())
}

/// Whether an SPDX expression can be met by allowed licences alone. What cannot be read is not allowed.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens };
    parser.either() == Some(true) && parser.tokens.is_empty()
}

struct Parser<'a> {
    tokens: &'a [&'a str],
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((first, rest)) if *first == token => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn either(&mut self) -> Option<bool> {
        let mut met = self.both()?;
        while self.take("OR") {
            met |= self.both()?;
        }
        Some(met)
    }

    fn both(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.either()?;
            return self.take(")").then_some(met);
        }
        let (licence, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        if !self.take("WITH") {
            return Some(ALLOWED.contains(licence));
        }
        let (exception, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_side_of_an_or_is_enough_and_every_side_of_an_and_is_needed() {
        for good in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR LGPL-2.1) AND Unicode-3.0"] {
            assert!(allowed(good), "{good}");
        }
        for bad in
            ["GPL-3.0-only", "MIT AND LGPL-2.1", "(MIT", "", "no licence", "GPL-2.0 WITH LLVM-exception"]
        {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(allowed("Apache-2.0 WITH LLVM-exception OR MIT"));
    }
}
