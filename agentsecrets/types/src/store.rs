//! The interface of a secret store: the address of a secret, its value and the errors of a store.

use crate::failure::{Exit, Failure};
use crate::name::{Environment, Project, SecretName};
use crate::secret::Secret;

/// The largest value, in bytes.
pub const MAX_VALUE_SIZE: usize = 1024 * 1024;

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

/// The metadata of a secret.
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
    /// The value cannot be stored: it is empty or too large.
    #[error("{0}")]
    Refused(String),
    /// Its bytes are damaged or forged.
    #[error("{0}")]
    Damaged(String),
    /// It could not be read or written.
    #[error("{0}")]
    Io(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::Absent(_) | StoreError::Locked(_) => Exit::Locked,
            StoreError::Refused(_) => Exit::Usage,
            StoreError::Damaged(_) | StoreError::Io(_) => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

impl StoreError {
    /// The same error, with `before` said first.
    pub fn after(self, before: &str) -> Self {
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

/// A place where secrets rest.
pub trait Store: Send + Sync {
    /// Its name in messages: `vault`, `keychain`.
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
pub fn check(key: &Key, value: &Secret) -> Result<(), StoreError> {
    if value.is_empty() {
        return Err(StoreError::Refused(format!("the value of {} is empty", key.name)));
    }
    if value.len() > MAX_VALUE_SIZE {
        return Err(StoreError::Refused(format!("the value of {} is larger than 1 MiB", key.name)));
    }
    Ok(())
}
