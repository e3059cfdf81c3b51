//! A vault that may come later: a command may not need it, and an agent can be started before anything was
//! stored. Until there is a vault it holds nothing; from then on it is that vault, opened by the key file
//! that the environment names. A passphrase cannot be asked for once the terminal is an agent's, so there a
//! vault that needs one stays locked until the next start; a person's own command asks when it needs it.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::types::name::{Environment, Project};
use crate::types::secret::Secret;

use super::{Entry, Key, Store, StoreError};
use crate::vault::{self, Unlock, Vault};

/// The vault that is, or will be, at a path.
pub(super) struct LazyVault {
    path: PathBuf,
    opened_by: UnlockSource,
    opened: OnceLock<Vault>,
}

/// The source of the passphrase or key.
enum UnlockSource {
    /// The key file, if there is one.
    KeyFile(Option<PathBuf>),
    /// The key file, or the person at the terminal, who may make it, too.
    Asking,
}

impl LazyVault {
    /// The vault at `path`, once there is one, opened by `key_file`.
    pub(super) fn new(path: PathBuf, key_file: Option<PathBuf>) -> Self {
        Self { path, opened_by: UnlockSource::KeyFile(key_file), opened: OnceLock::new() }
    }

    /// The vault at `path` for a person's own command: whoever is at the terminal is asked for its
    /// passphrase when it is needed, and the first value makes it.
    pub(super) fn with_prompt(path: PathBuf) -> Self {
        Self { path, opened_by: UnlockSource::Asking, opened: OnceLock::new() }
    }

    fn vault(&self) -> Result<Option<&Vault>, StoreError> {
        if let Some(vault) = self.opened.get() {
            return Ok(Some(vault));
        }
        if !vault::exists(&self.path) {
            return Ok(None);
        }
        let unlock = match &self.opened_by {
            UnlockSource::Asking => vault::unlock(&self.path)?,
            UnlockSource::KeyFile(Some(key_file)) => Unlock::KeyFile(key_file.clone()),
            UnlockSource::KeyFile(None) => {
                return Err(StoreError::Locked(format!(
                    "the vault at {} was made after this was started, and nobody can be asked for its passphrase \
                 now: start again",
                    self.path.display()
                )));
            }
        };
        let vault = Vault::open(&self.path, &unlock)?;
        Ok(Some(self.opened.get_or_init(|| vault)))
    }

    fn present(&self) -> Result<&Vault, StoreError> {
        if matches!(self.opened_by, UnlockSource::Asking) && self.vault()?.is_none() {
            let made = Vault::open_or_create(&self.path, &vault::unlock(&self.path)?)?;
            return Ok(self.opened.get_or_init(|| made));
        }
        let missing = || StoreError::Locked(format!("there is no vault at {}", self.path.display()));
        self.vault()?.ok_or_else(missing)
    }
}

impl Store for LazyVault {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        self.vault()?.map_or(Ok(None), |vault| vault.get(key))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        self.vault()?.map_or(Ok(Vec::new()), |vault| vault.list(project, environment))
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        self.present()?.set(key, value, placeholder)
    }

    fn version(&self) -> Result<u64, StoreError> {
        // Of a vault it is at least 1.
        self.vault()?.map_or(Ok(0), Store::version)
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        self.present()?.delete(key)
    }

    fn set_all(&self, values: Vec<(Key, Secret)>) -> Result<(), StoreError> {
        self.present()?.set_all(values)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key() -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: "A".parse().unwrap() }
    }

    #[test]
    fn vault_created_later_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key_file) = (folder.path().join("vault"), folder.path().join("key"));
        std::fs::write(&key_file, [7; 40]).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let later = LazyVault::new(path.clone(), Some(key_file.clone()));
        let without_key = LazyVault::new(path.clone(), None);
        assert!(later.get(&key()).unwrap().is_none());
        assert_eq!(later.version().unwrap(), 0);
        assert!(later.set(&key(), Secret::new(b"x".to_vec()), None).is_err());

        let vault = Vault::create(&path, &Unlock::KeyFile(key_file)).unwrap();
        vault.set(&key(), Secret::new(b"a value".to_vec()), None).unwrap();
        assert_ne!(later.version().unwrap(), 0);
        assert_eq!(later.get(&key()).unwrap().unwrap().expose(), b"a value");
        assert!(matches!(without_key.get(&key()), Err(StoreError::Locked(_))));

        std::fs::remove_file(&path).unwrap();
        assert!(later.get(&key()).is_err(), "a vault that is gone is no empty one");
    }
}
