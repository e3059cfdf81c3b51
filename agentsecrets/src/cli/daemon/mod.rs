//! `agentsecrets daemon`: the process behind the person's door, on a machine where secrets belong to a user of
//! their own.

mod install;

use std::process::ExitCode;

use super::{Exit, Failure};
use crate::cli::privsep::VERBS;
use crate::privsep::daemon::{Part, serve};

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
    #[command(after_help = "Examples:
  sudo agentsecrets daemon install
  sudo agentsecrets daemon install --presence polkit")]
    Install {
        /// How people prove to be there: polkit asks in their desktop, or at the terminal, for their login
        #[arg(long, value_enum, value_name = "MEANS")]
        presence: Option<Asked>,
    },
    /// Undo that
    #[command(after_help = "Example: sudo agentsecrets daemon uninstall")]
    Uninstall {
        /// Remove what is stored, and the user, too
        #[arg(long)]
        purge: bool,
    },
}

/// How people prove to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Asked {
    /// By a passphrase of its own, at the terminal.
    Passphrase,
    /// By polkit.
    Polkit,
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
        Some(Verb::Install { presence }) => install::install(presence)?,
        Some(Verb::Uninstall { purge }) => install::uninstall(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}
