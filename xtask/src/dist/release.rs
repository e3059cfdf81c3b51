//! The release that the packages are made of: the program of one version for one architecture.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::notices::Notices;
use crate::workspace::root;

/// A target architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// The architecture of this machine.
    pub(super) fn here() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name of Docker and Debian.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The target triple of rustc.
    pub(super) fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The C compiler of Debian's cross packages.
    pub(super) fn gcc(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// The output folder.
    pub(super) fn folder(self) -> PathBuf {
        let name = if self == Self::here() { "dist".to_owned() } else { format!("dist-{}", self.name()) };
        root().join("target").join(name)
    }
}

/// One version for one architecture.
pub(super) struct Release {
    pub(super) version: String,
    pub(super) arch: Arch,
    /// The timestamp of every file: the time of the last commit, in seconds since 1970.
    pub(super) epoch: u64,
    /// The executable.
    pub(super) program: Vec<u8>,
    pub(super) notices: Notices,
}

impl Release {
    /// The timestamp as RFC 3339 writes it.
    pub(super) fn time(&self) -> Result<String> {
        Ok(jiff::Timestamp::from_second(self.epoch.try_into()?)?.to_string())
    }
}

/// The time of the last commit, or `SOURCE_DATE_EPOCH`.
pub(super) fn epoch() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let output = Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]).output()?;
    if !output.status.success() {
        bail!("not a git repository: set SOURCE_DATE_EPOCH to the release's time, in seconds since 1970");
    }
    String::from_utf8(output.stdout)?.trim().parse().context("git gives no time")
}
