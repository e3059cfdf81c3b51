//! What macOS and Windows have in common: the command's output is its own, and there is no door.

use std::process::Command;

use crate::cli::{Context, Failure};

/// What `env` can do to the command's output here: nothing.
#[derive(Debug, clap::Args)]
pub(in crate::cli::env) struct Flags {}

impl Flags {
    /// Whether values are taken out of it.
    pub(in crate::cli::env) fn mask(&self) -> bool {
        false
    }
}

/// Nobody asks at a door here.
pub(in crate::cli::env) fn as_who_asked(_: &mut Command, _: Option<&Context>) -> Result<(), Failure> {
    Ok(())
}
