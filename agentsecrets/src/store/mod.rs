//! Where secrets rest: one trait, one file a kind. A store that cannot be read is an error with its
//! fix, never an empty answer.

mod later;
pub mod rotated;
pub mod vault;

use std::path::Path;
use std::sync::Arc;

use crate::base::name::{Environment, Project, SecretName};
use crate::base::secret::Secret;

/// The address of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its project.
    pub project: Project,
    /// Its environment.
    pub environment: Environment,
    /// Its name.
    pub name: SecretName,
}

/// What may be known of a secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Its name.
    pub name: SecretName,
    /// Its environment.
    pub environment: Environment,
    /// When it was last set, in RFC 3339.
    pub updated: String,
    /// Its own placeholder, where the person fixed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
}

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or cannot be unlocked.
    #[error("{0}")]
    Locked(String),
    /// What was asked cannot be stored: the value is empty, say, or too large.
    #[error("{0}")]
    Refused(String),
    /// Its bytes are damaged or forged.
    #[error("{0}")]
    Damaged(String),
    /// It could not be read or written.
    #[error("{0}")]
    Io(String),
}

/// Opens the store of an installation whose vault would be at `vault`: `None` where nothing was ever stored.
pub fn open(vault: &Path) -> Result<Option<Arc<dyn Store>>, StoreError> {
    if !vault::exists(vault) {
        return Ok(None);
    }
    let unlock = vault::unlock(vault)?;
    Ok(Some(Arc::new(vault::Vault::open(vault, &unlock)?)))
}

/// The store of an installation as a long-lived process sees it: the one that is there now, or the one that
/// will be, which holds nothing until then. Whether there is one now is told beside it.
pub fn follow(vault: &Path) -> Result<(Arc<dyn Store>, bool), StoreError> {
    Ok(match open(vault)? {
        Some(store) => (store, true),
        None => (Arc::new(later::Later::new(vault.to_owned(), vault::unlock_from_environment())), false),
    })
}

/// A place where secrets rest.
pub trait Store: Send + Sync {
    /// What to call it in messages: `vault`, `keychain`.
    fn name(&self) -> &'static str;
    /// The value at `key`, or `None` if the store is sound and does not hold it.
    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError>;
    /// Every secret of a project and environment, without values.
    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError>;
    /// Stores or replaces a value.
    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError>;
    /// Its generation: what was read is good only as long as this stays the same.
    fn version(&self) -> Result<u64, StoreError>;
    /// Removes a value; whether there was one.
    fn delete(&self, key: &Key) -> Result<bool, StoreError>;
}
