//! `agentsecrets completions`: completion scripts, from the one definition of the command line.

use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Context, Failure};

/// Print a shell's completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets completions bash > /etc/bash_completion.d/agentsecrets")]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the verb.
pub(super) fn run(args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "agentsecrets", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
