//! Where secrets rest: one trait, one file a kind, several in an order that the person chose. A store that
//! cannot be read is an error with its fix, never an empty answer.

mod cached;
mod chained;
mod command;
pub mod config;
mod file;
#[cfg_attr(not(target_os = "linux"), path = "keeper/elsewhere.rs")]
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

/// The largest value, in bytes.
pub const LARGEST_VALUE: usize = 1024 * 1024;

/// The address of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// When it was last set, in RFC 3339, where the store knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<String>,
    /// Its own placeholder, where the person fixed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The store that holds it.
    pub store: &'static str,
}

/// Why a store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is not on this machine, or cannot be reached from here.
    #[error("{0}")]
    Absent(String),
    /// It is there and cannot be unlocked, or does not answer.
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

impl StoreError {
    /// The same error, with `before` said first.
    fn after(self, before: &str) -> Self {
        let after = |text: String| format!("{before}{text}");
        match self {
            StoreError::Absent(text) => StoreError::Absent(after(text)),
            StoreError::Locked(text) => StoreError::Locked(after(text)),
            StoreError::Refused(text) => StoreError::Refused(after(text)),
            StoreError::Damaged(text) => StoreError::Damaged(after(text)),
            StoreError::Io(text) => StoreError::Io(after(text)),
        }
    }
}

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

    /// Whether it can be written to at all.
    fn is_writable(&self) -> bool {
        true
    }

    /// Stores several values, with the placeholders that they had. A store that can does so in one change;
    /// elsewhere those before a failure stay.
    fn set_all(&self, values: Vec<(Key, Secret)>) -> Result<(), StoreError> {
        let all = values.len();
        for (stored, (key, value)) in values.into_iter().enumerate() {
            let before = self.list(&key.project, &key.environment)?;
            let placeholder = before.into_iter().find(|entry| entry.name == key.name);
            self.set(&key, value, placeholder.and_then(|entry| entry.placeholder).as_deref()).map_err(
                |error| error.after(&format!("{stored} of {all} values were stored; {}: ", key.name)),
            )?;
        }
        Ok(())
    }
}

/// Refuses what no store takes.
pub(crate) fn check(key: &Key, value: &Secret) -> Result<(), StoreError> {
    if value.is_empty() {
        return Err(StoreError::Refused(format!("the value of {} is empty", key.name)));
    }
    if value.len() > LARGEST_VALUE {
        return Err(StoreError::Refused(format!("the value of {} is larger than 1 MiB", key.name)));
    }
    Ok(())
}

/// The answer of a store that is only read.
fn read_only<T>(store: &str) -> Result<T, StoreError> {
    Err(StoreError::Refused(format!("the {store} store is only read: change the secret where it comes from")))
}
