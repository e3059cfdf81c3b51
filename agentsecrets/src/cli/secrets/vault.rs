//! `agentsecrets secrets vault`: what is done to the vault as a whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;

use crate::cli::Context;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::store::StoreError;
use crate::vault::{self, Unlock, Vault};

/// Change what opens the vault, back it up, put a backup back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets secrets vault passphrase
  agentsecrets secrets vault backup ~/vault-backup")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Have it opened by a new passphrase
    #[command(after_help = "Example: agentsecrets secrets vault passphrase")]
    Passphrase,
    /// Have it opened by another key file
    #[command(after_help = "Example: agentsecrets secrets vault key /etc/agentsecrets/new-key")]
    Key {
        /// The file: at least 32 bytes, readable by its owner alone
        file: PathBuf,
    },
    /// Copy it, encrypted as it is, to a new file
    #[command(after_help = "Example: agentsecrets secrets vault backup ~/vault-backup")]
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Put a backup in its place; what is there is kept beside it
    #[command(after_help = "Example: agentsecrets secrets vault restore ~/vault-backup")]
    Restore {
        /// The backup
        file: PathBuf,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    act(args.verb, context)?;
    Ok(ExitCode::SUCCESS)
}

fn act(verb: Verb, context: &Context) -> Result<(), Failure> {
    let path = context.home.vault();
    let record = |what: &str, file: Option<&Path>| {
        let notes = file.iter().map(|file| file.display().to_string()).collect();
        admin_record::record(context, what, None, &[], notes)
    };
    if let Verb::Restore { file } = &verb {
        let unlock = vault::unlock(file)?;
        // What does not open is not restored, which is known before it is recorded.
        Vault::open(file, &unlock)?;
        record("secrets vault restore", Some(file))?;
        let count = vault::restore(&path, file, &unlock)?;
        eprintln!("the vault holds the {count} secrets of {}", file.display());
        return Ok(());
    }
    if !vault::exists(&path) {
        let what =
            format!("there is no vault at {} yet: `agentsecrets secrets set NAME` makes one", path.display());
        return Err(StoreError::Locked(what).into());
    }
    let vault = Vault::open(&path, &vault::unlock(&path)?)?;
    match verb {
        Verb::Passphrase => {
            let new = vault::new_passphrase(&path)?;
            record("secrets vault passphrase", None)?;
            vault.rekey(&new)?;
            eprintln!(
                "the new passphrase opens the vault from now on; agents that run must be started again"
            );
            if vault::unlock_from_environment().is_some() {
                eprintln!("unset AGENTSECRETS_VAULT_KEY_FILE: a key file opens it no more");
            }
        }
        Verb::Key { file } => {
            record("secrets vault key", Some(&file))?;
            vault.rekey(&Unlock::KeyFile(file.clone()))?;
            eprintln!(
                "the vault is opened by this key file from now on: set AGENTSECRETS_VAULT_KEY_FILE={}; agents \
                 that run must be started again",
                file.display()
            );
        }
        Verb::Backup { file } => {
            record("secrets vault backup", Some(&file))?;
            let count = vault.backup(&file)?;
            eprintln!("{count} secrets are in {}, opened by what opens the vault today", file.display());
        }
        Verb::Restore { .. } => {}
    }
    Ok(())
}
