//! `agentsecrets presence`: the passphrase by which a person proves to be there, on a strict machine.

use std::path::Path;
use std::process::ExitCode;

use anstream::eprintln;

use super::{Context, Exit, Failure};
use crate::privsep::confirmation::{Presence, SHORTEST};
use crate::sys::prompt::hidden;

/// Set the passphrase that the daemon asks for before it shows a value or gives a right. The first one is
/// set by root, since whoever sets it owns the door; a new one takes the old.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sudo agentsecrets presence set     for the person who called sudo
  agentsecrets presence set          a new one; asks for the old one first")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Set it, or set a new one
    #[command(after_help = "Example: sudo agentsecrets presence set")]
    Set,
    /// Forget it: until another is set, only root and trusted programs may
    #[command(after_help = "Example: agentsecrets presence forget")]
    Forget,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if context.ticket.is_none() {
        return Err(Failure::new(
            Exit::Failure,
            "presence is proven to the daemon, and this machine has none: a program of your own user could change \
             whatever is kept here",
        )
        .hint("sudo agentsecrets daemon install"));
    }
    let presence = Presence::in_home(context.home.policy().parent().unwrap_or(Path::new("/")));
    let failed = |error: std::io::Error| Failure::new(Exit::Failure, error);
    match args.verb {
        Verb::Set => {
            let first = hidden("New passphrase for your presence: ").map_err(failed)?;
            if first.len() < SHORTEST {
                let what = format!("a passphrase needs at least {SHORTEST} characters; nothing was changed");
                return Err(Failure::new(Exit::Usage, what));
            }
            if first != hidden("The same passphrase again: ").map_err(failed)? {
                return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was changed"));
            }
            presence.set(&first).map_err(failed)?;
            eprintln!("it is asked for, once for each act, from now on");
        }
        Verb::Forget if presence.forget().map_err(failed)? => eprintln!("forgotten"),
        Verb::Forget => return Err(Failure::new(Exit::NotFound, "no passphrase was set")),
    }
    Ok(ExitCode::SUCCESS)
}
