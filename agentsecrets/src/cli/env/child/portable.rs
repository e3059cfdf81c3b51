//! Parts that macOS and Windows share: output is not masked, and there is no daemon.

use crate::cli::context::Context;
use crate::types::failure::Failure;
use std::process::Command;

/// Options for the command's output: none on this system.
#[derive(Debug, clap::Args)]
pub(in crate::cli::env) struct OutputArgs {}

impl OutputArgs {
    /// Whether values are masked in the output.
    pub(in crate::cli::env) fn mask(&self) -> bool {
        false
    }
}

/// Does nothing: there is no daemon on this system.
pub(in crate::cli::env) fn run_as_caller(_: &mut Command, _: Option<&Context>) -> Result<(), Failure> {
    Ok(())
}
