//! `agentsecrets daemon`: the process behind the person's door, on a machine where secrets belong to a user of
//! their own.

mod install;

use std::process::ExitCode;

use super::door::VERBS;
use super::{Exit, Failure};
use crate::door::serve::{Part, serve};

/// Serve the person's door. systemd starts this; `daemon install` arranges it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo agentsecrets daemon install
  sudo agentsecrets daemon            without systemd")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only one half of it
    #[arg(long, value_name = "PART", hide = true)]
    part: Option<Half>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make this machine strict: a user, folders, units, and root's word in /etc/agentsecrets
    #[command(after_help = "Example: sudo agentsecrets daemon install")]
    Install,
    /// Undo that
    #[command(after_help = "Example: sudo agentsecrets daemon uninstall")]
    Uninstall {
        /// Remove what is stored, and the user, too
        #[arg(long)]
        purge: bool,
    },
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
pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let part = args.part.map(|half| match half {
        Half::Porter => Part::Porter,
        Half::Starter => Part::Starter,
    });
    match args.verb {
        None => serve(part, &VERBS)?,
        Some(Verb::Install) => install::install()?,
        Some(Verb::Uninstall { purge }) => install::uninstall(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}
