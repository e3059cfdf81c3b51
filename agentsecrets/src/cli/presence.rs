//! `agentsecrets presence`: the passphrase that confirms a person's presence on a strict machine.

use std::path::Path;
use std::process::ExitCode;

use anstream::eprintln;

use crate::cli::context::Context;
use crate::privsep::confirmation::{MIN_PASSPHRASE_LENGTH, Passphrase};
use crate::sys::prompt::hidden;
use crate::types::failure::{Exit, Failure};

/// Set the passphrase that the daemon asks for before it shows a value or grants a permission. Root sets the
/// first one; a change needs the old one
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
    /// Set or change the passphrase
    #[command(after_help = "Example: sudo agentsecrets presence set")]
    Set,
    /// Remove the passphrase: until a new one is set, only root and trusted programs are allowed
    #[command(after_help = "Example: agentsecrets presence forget")]
    Forget,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if context.invocation.is_none() {
        return Err(Failure::new(
            Exit::Failure,
            "the daemon confirms presence, and this machine has none: any program of your user could change \
             a passphrase that is stored here",
        )
        .hint("sudo agentsecrets daemon install"));
    }
    let presence = Passphrase::in_home(context.home.policy().parent().unwrap_or(Path::new("/")));
    match args.verb {
        Verb::Set => {
            let first = hidden("New passphrase for your presence: ").map_err(Failure::from_error)?;
            if first.len() < MIN_PASSPHRASE_LENGTH {
                let what = format!(
                    "a passphrase needs at least {MIN_PASSPHRASE_LENGTH} characters; nothing was changed"
                );
                return Err(Failure::new(Exit::Usage, what));
            }
            if first != hidden("The same passphrase again: ").map_err(Failure::from_error)? {
                return Err(Failure::new(Exit::Usage, "the two passphrases differ; nothing was changed"));
            }
            presence.set(&first).map_err(Failure::from_error)?;
            eprintln!("the daemon asks for it from now on, once for each act");
        }
        Verb::Forget if presence.remove().map_err(Failure::from_error)? => eprintln!("removed"),
        Verb::Forget => return Err(Failure::new(Exit::NotFound, "no passphrase was set")),
    }
    Ok(ExitCode::SUCCESS)
}
