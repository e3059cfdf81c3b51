//! `agentsecrets completions`: generates shell completion scripts from the command line definition.

use std::process::ExitCode;

use crate::types::failure::Failure;

/// Print a shell completion script
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets completions bash > /etc/bash_completion.d/agentsecrets")]
pub(super) struct Args {
    /// Shell to generate the script for
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args, command: &mut clap::Command) -> Result<ExitCode, Failure> {
    clap_complete::generate(args.shell, command, "agentsecrets", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
