//! The SBOM of the program: CycloneDX 1.5 in JSON, by `cargo cyclonedx`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::release::Release;
use crate::tools;
use crate::workspace::run;

/// The SBOM of `release`, whose source is at `source`.
pub(super) fn cyclone_dx(release: &Release, source: &Path) -> Result<Vec<u8>> {
    const NAME: &str = "agentsecrets-sbom";
    let mut command = tools::cargo_cyclonedx()?;
    command
        .args(["--format", "json", "--spec-version", "1.5", "--no-build-deps", "--quiet"])
        .args(["--target", release.arch.triple(), "--override-filename", NAME, "--manifest-path"])
        .arg(source.join("agentsecrets/Cargo.toml"))
        .current_dir(source)
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    run(&mut command)?;
    let path = source.join("agentsecrets").join(format!("{NAME}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::remove_file(&path)?;
    // The tool names packages of the workspace by their path, which must not depend on this machine.
    Ok(text.replace(&source.display().to_string(), "/agentsecrets").into_bytes())
}
