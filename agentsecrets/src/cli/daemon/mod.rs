//! `agentsecrets daemon`: the process behind the person's door, on a machine where secrets belong to a user of
//! their own.

use std::process::ExitCode;

use super::door::VERBS;
use super::{Context, Exit, Failure};
use crate::door::serve::{Part, serve};

/// Serve the person's door. systemd starts this; `daemon install` arranges it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo agentsecrets daemon install
  sudo agentsecrets daemon            without systemd")]
pub(super) struct Args {
    /// Only one half of it
    #[arg(long, value_name = "PART", hide = true)]
    part: Option<Half>,
}

/// One half of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    /// What reads what clients send.
    Porter,
    /// What starts commands.
    Starter,
}

/// Runs the verb.
pub(super) fn run(args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    let part = args.part.map(|half| match half {
        Half::Porter => Part::Porter,
        Half::Starter => Part::Starter,
    });
    serve(part, &VERBS)?;
    let _ = Exit::Failure;
    Ok(ExitCode::SUCCESS)
}
