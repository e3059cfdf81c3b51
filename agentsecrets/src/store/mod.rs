//! Secret stores: one trait, one file per kind, several in a configured order. An unreadable store is an
//! error with its fix, never an empty answer.

mod cached;
mod chained;
mod command;
pub mod config;
mod file;
#[cfg_attr(not(target_os = "linux"), path = "helper/elsewhere.rs")]
pub mod helper;
pub mod keychain;
mod lazy_vault;
mod read_only;
pub mod refresh_tokens;
mod timeout;

use std::sync::Arc;

use crate::sys::home::Home;

pub use chained::{ChainedStore, StoreEntry};
pub use config::{StoreConfig, StoreKind};

pub(crate) use crate::types::store::check;
pub use crate::types::store::{Entry, Key, MAX_VALUE_SIZE, Store, StoreError};

/// The stores that a person chose, for a command of theirs. A vault is opened, or made, when it is first
/// needed: nobody is asked for a passphrase that another store makes unnecessary.
pub fn open(choices: &[StoreConfig], home: &Home) -> ChainedStore {
    let place = |choice: &StoreConfig| {
        let store = match &choice.kind {
            StoreKind::Vault => Arc::new(lazy_vault::LazyVault::with_prompt(home.vault())),
            kind => external_store(kind, home),
        };
        StoreEntry { store, optional: choice.optional }
    };
    ChainedStore::new(choices.iter().map(place).collect())
}

/// The stores as a long-lived process sees them. The vault is the one that is there now, or the one that
/// will be; the others are what `elsewhere` makes of their kind. Whether any store can hold a secret now is
/// told beside it.
pub fn follow(
    choices: &[StoreConfig],
    home: &Home,
    mut elsewhere: impl FnMut(&StoreKind) -> Result<Arc<dyn Store>, StoreError>,
) -> Result<(ChainedStore, bool), StoreError> {
    let (mut places, mut exists) = (Vec::new(), false);
    for choice in choices {
        let path = home.vault();
        let store: Arc<dyn Store> = match &choice.kind {
            StoreKind::Vault if crate::vault::exists(&path) => {
                exists = true;
                Arc::new(crate::vault::Vault::open(&path, &crate::vault::unlock(&path)?)?)
            }
            StoreKind::Vault => {
                Arc::new(lazy_vault::LazyVault::new(path, crate::vault::unlock_from_environment()))
            }
            kind => {
                exists = true;
                elsewhere(kind)?
            }
        };
        places.push(StoreEntry { store, optional: choice.optional });
    }
    Ok((ChainedStore::new(places), exists))
}

/// A store that is no file of ours: it may hang, and its answers are kept for a while.
fn external_store(kind: &StoreKind, home: &Home) -> Arc<dyn Store> {
    match kind {
        StoreKind::Keychain(keychain) => {
            let patient = timeout::TimeoutStore::new(
                keychain::Keychain,
                keychain.timeout,
                "unlock it, or look for a window that asks for its password",
            );
            Arc::new(cached::CachedStore::new(patient, keychain.cache).invalidated_by(home.keychain_stamp()))
        }
        StoreKind::Mounted(mounted) => Arc::new(timeout::TimeoutStore::new(
            file::FileStore::new(mounted.clone()),
            config::FILE_READ_TIMEOUT,
            "look whether its file system answers: ls the folder",
        )),
        StoreKind::Command(command) => {
            Arc::new(cached::CachedStore::new(command::CommandStore::new(command.clone()), command.cache))
        }
        StoreKind::Vault => Arc::new(lazy_vault::LazyVault::with_prompt(home.vault())),
    }
}
