//! Secret stores: one trait, one file per kind, one list of all kinds (`kinds.rs`), several in a configured order. An unreadable store is an
//! error with its fix, never an empty answer.

mod cached;
mod chained;
mod command;
mod file;
#[cfg_attr(not(target_os = "linux"), path = "helper/elsewhere.rs")]
pub mod helper;
mod keychain;
mod kinds;
mod read_only;
pub mod refresh_tokens;
mod settings;
mod timeout;
mod vault;

use std::sync::Arc;

use crate::sys::home::Home;

pub use chained::{ChainedStore, StoreEntry};
pub(crate) use kinds::StoreSettings;
pub use kinds::{StoreCheck, StoreConfig, StoreKind};
pub(crate) use settings::required_value;

pub(crate) use crate::types::store::check;
pub use crate::types::store::{Entry, Key, MAX_VALUE_SIZE, Store, StoreError};

/// The stores that a person chose, for a command of theirs.
pub fn open(configs: &[StoreConfig], home: &Home) -> ChainedStore {
    let entry =
        |config: &StoreConfig| StoreEntry { store: config.kind.open(home), optional: config.optional };
    ChainedStore::new(configs.iter().map(entry).collect())
}

/// The stores of a long-lived process: those that it opens itself, and for the others what `open_in_helper` gives.
/// Beside them, whether any of them can hold a secret now.
pub fn open_unattended(
    configs: &[StoreConfig],
    home: &Home,
    mut open_in_helper: impl FnMut(&StoreKind) -> Result<Arc<dyn Store>, StoreError>,
) -> Result<(ChainedStore, bool), StoreError> {
    let (mut entries, mut exists) = (Vec::new(), false);
    for config in configs {
        exists |= !config.kind.is_missing(home);
        let opened = config.kind.open_in_process(home);
        let store = opened.unwrap_or_else(|| open_in_helper(&config.kind))?;
        entries.push(StoreEntry { store, optional: config.optional });
    }
    Ok((ChainedStore::new(entries), exists))
}
