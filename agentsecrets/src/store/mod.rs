//! Where secrets rest: one trait, one file a kind, several in an order that the person chose. A store that
//! cannot be read is an error with its fix, never an empty answer.

mod cached;
mod chained;
mod command;
pub mod config;
mod file;
#[cfg_attr(not(target_os = "linux"), path = "helper/elsewhere.rs")]
pub mod helper;
pub mod keychain;
mod lazy_vault;
pub mod refresh_tokens;
mod timeout;

use std::sync::Arc;

use crate::sys::home::Home;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;

pub use chained::{Place, Stores};
pub use config::{Choice, Kind};

pub(crate) use crate::types::store::check;
pub use crate::types::store::{Entry, Key, LARGEST_VALUE, Store, StoreError};

/// The stores that a person chose, for a command of theirs. A vault is opened, or made, when it is first
/// needed: nobody is asked for a passphrase that another store makes unnecessary.
pub fn open(choices: &[Choice], home: &Home) -> Stores {
    let place = |choice: &Choice| {
        let store = match &choice.kind {
            Kind::Vault => Arc::new(lazy_vault::Later::asking(home.vault())),
            kind => kept(kind, home),
        };
        Place { store, optional: choice.optional }
    };
    Stores::new(choices.iter().map(place).collect())
}

/// The stores as a long-lived process sees them. The vault is the one that is there now, or the one that
/// will be; the others are what `elsewhere` makes of their kind. Whether any store can hold a secret now is
/// told beside it.
pub fn follow(
    choices: &[Choice],
    home: &Home,
    mut elsewhere: impl FnMut(&Kind) -> Result<Arc<dyn Store>, StoreError>,
) -> Result<(Stores, bool), StoreError> {
    let (mut places, mut exists) = (Vec::new(), false);
    for choice in choices {
        let path = home.vault();
        let store: Arc<dyn Store> = match &choice.kind {
            Kind::Vault if crate::vault::exists(&path) => {
                exists = true;
                Arc::new(crate::vault::Vault::open(&path, &crate::vault::unlock(&path)?)?)
            }
            Kind::Vault => Arc::new(lazy_vault::Later::new(path, crate::vault::unlock_from_environment())),
            kind => {
                exists = true;
                elsewhere(kind)?
            }
        };
        places.push(Place { store, optional: choice.optional });
    }
    Ok((Stores::new(places), exists))
}

/// A store that is no file of ours: it may hang, and its answers are kept for a while.
fn kept(kind: &Kind, home: &Home) -> Arc<dyn Store> {
    match kind {
        Kind::Keychain(keychain) => {
            let patient = timeout::Patient::new(
                keychain::Keychain,
                keychain.timeout,
                "unlock it, or look for a window that asks for its password",
            );
            Arc::new(cached::Cached::new(patient, keychain.cache).told_by(home.keychain_stamp()))
        }
        Kind::Mounted(mounted) => Arc::new(timeout::Patient::new(
            file::MountedFolder::new(mounted.clone()),
            file::PATIENCE,
            "look whether its file system answers: ls the folder",
        )),
        Kind::Command(command) => {
            Arc::new(cached::Cached::new(command::Commands::new(command.clone()), command.cache))
        }
        Kind::Vault => Arc::new(lazy_vault::Later::asking(home.vault())),
    }
}

/// The answer of a store that is only read.
fn read_only<T>(store: &str) -> Result<T, StoreError> {
    Err(StoreError::Refused(format!("the {store} store is only read: change the secret where it comes from")))
}
