//! `agentsecrets secrets vault`: changes the key of the vault, and backs it up or restores it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;

use crate::cli::context::Context;
use crate::cli::records;
use crate::store::StoreError;
use crate::types::failure::Failure;
use crate::vault::{self, Unlock, Vault};

/// Change the vault's passphrase or key file, and back up or restore it
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
    /// Set a new passphrase
    #[command(after_help = "Example: agentsecrets secrets vault passphrase")]
    Passphrase,
    /// Use another key file
    #[command(after_help = "Example: agentsecrets secrets vault key /etc/agentsecrets/new-key")]
    Key {
        /// Key file: at least 32 bytes, readable only by its owner
        file: PathBuf,
    },
    /// Copy the encrypted vault to a new file
    #[command(after_help = "Example: agentsecrets secrets vault backup ~/vault-backup")]
    Backup {
        /// New file
        file: PathBuf,
    },
    /// Replace the vault by a backup; the old vault is kept next to it
    #[command(after_help = "Example: agentsecrets secrets vault restore ~/vault-backup")]
    Restore {
        /// Backup file
        file: PathBuf,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    execute(args.verb, context)?;
    Ok(ExitCode::SUCCESS)
}

fn execute(verb: Verb, context: &Context) -> Result<(), Failure> {
    let path = context.home.vault();
    let record = |what: &str, file: Option<&Path>| {
        let notes = file.iter().map(|file| file.display().to_string()).collect();
        records::record_act(context, what, None, &[], notes)
    };
    if let Verb::Restore { file } = &verb {
        let unlock = vault::unlock(file)?;
        // A backup that cannot be opened is neither recorded nor restored.
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
            eprintln!(
                "{count} secrets are in {}; the passphrase or key file of the vault opens it",
                file.display()
            );
        }
        Verb::Restore { .. } => {}
    }
    Ok(())
}
