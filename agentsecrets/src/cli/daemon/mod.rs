//! `agentsecrets daemon`: the privilege-separated daemon of a strict machine, where secrets belong to a user
//! of their own.

mod install;

use std::process::ExitCode;

use crate::operator::authorizer::CommandPolicy;
use crate::operator::daemon::{DaemonProcess, serve};
use crate::types::failure::Failure;
use install::PresenceMethod;

/// Run the daemon that keeps secrets under a user of its own. `daemon install` sets it up for systemd
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo agentsecrets daemon install
  sudo agentsecrets daemon            without systemd")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Run only one process of the daemon
    #[arg(long, value_name = "PART", hide = true)]
    part: Option<DaemonPart>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make this machine strict: create a user, folders, systemd units and /etc/agentsecrets
    #[command(after_help = "Examples:
  sudo agentsecrets daemon install
  sudo agentsecrets daemon install --presence polkit")]
    Install {
        /// Method to confirm presence: a passphrase, or polkit (asks for the login password)
        #[arg(long, value_enum, value_name = "MEANS")]
        presence: Option<PresenceMethod>,
    },
    /// Undo the installation
    #[command(after_help = "Example: sudo agentsecrets daemon uninstall")]
    Uninstall {
        /// Remove the stored secrets and the user, too
        #[arg(long)]
        purge: bool,
    },
}

/// A process of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DaemonPart {
    /// Reads the requests of clients, without privileges.
    Frontend,
    /// Starts commands, with privileges.
    Monitor,
}

pub(super) fn run(args: Args, policy: &CommandPolicy) -> Result<ExitCode, Failure> {
    let part = args.part.map(|half| match half {
        DaemonPart::Frontend => DaemonProcess::Frontend,
        DaemonPart::Monitor => DaemonProcess::Monitor,
    });
    match args.verb {
        None => serve(part, policy)?,
        Some(Verb::Install { presence }) => install::install(presence)?,
        Some(Verb::Uninstall { purge }) => install::uninstall(purge)?,
    }
    Ok(ExitCode::SUCCESS)
}
