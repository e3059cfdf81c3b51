//! The SBOM of the program: CycloneDX 1.5 in JSON, by `cargo cyclonedx`.

use std::fs;
use std::path::{Path, PathBuf};

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
    // The tool writes one file per member of the workspace.
    let mut own = None;
    for folder in members(source)? {
        let path = folder.join(format!("{NAME}.json"));
        let Ok(text) = fs::read_to_string(&path) else { continue };
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        if folder.ends_with("agentsecrets") {
            own = Some(text);
        }
    }
    let text = own.context("cargo cyclonedx wrote no SBOM for the program")?;
    // The tool names packages of the workspace by their path, which must not depend on this machine.
    Ok(text.replace(&source.display().to_string(), "/agentsecrets").into_bytes())
}

/// The folders that can be members of the workspace: those at its top, and those of the program.
fn members(source: &Path) -> Result<Vec<PathBuf>> {
    let program = source.join("agentsecrets");
    let mut found = Vec::new();
    for folder in [source, &program] {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.join("Cargo.toml").is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}
