//! The vault as a store. It may come later: a command may not need it, and an agent can be started before anything was
//! stored. Until there is a vault it holds nothing; from then on it is that vault, opened by the key file
//! that the environment names. A passphrase cannot be asked for once the terminal is an agent's, so there a
//! vault that needs one stays locked until the next start; a person's own command asks when it needs it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;

use super::kinds::{FILE_READ_TIMEOUT, Kind, StoreCheck};
use super::settings::ReportProblem;
use super::{Entry, Key, Store, StoreError};
use crate::sys::files;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};
use crate::types::secret::Secret;
use crate::vault::{self, Unlock, Vault};

/// The vault of the home; it has no settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultSettings {
    #[serde(default)]
    optional: bool,
}

impl Kind for VaultConfig {
    type Settings = VaultSettings;

    fn without_settings() -> Result<Self, String> {
        Ok(Self)
    }

    fn parse(settings: VaultSettings, _: ReportProblem<'_>) -> Result<(Self, bool), String> {
        Ok((Self, settings.optional))
    }

    fn is_in_process(&self) -> bool {
        true
    }

    /// The vault is opened, or made, when it is first needed: nobody is asked for a passphrase that another
    /// store makes unnecessary.
    fn open(&self, home: &Home) -> Arc<dyn Store> {
        Arc::new(LazyVault::with_prompt(home.vault()))
    }

    /// The vault that exists now, or the one that will be created.
    fn open_unattended(&self, home: &Home) -> Result<Arc<dyn Store>, StoreError> {
        let path = home.vault();
        if self.is_missing(home) {
            return Ok(Arc::new(LazyVault::new(path, vault::unlock_from_environment())));
        }
        Ok(Arc::new(Vault::open(&path, &vault::unlock(&path)?)?))
    }

    fn timeout(&self) -> Duration {
        FILE_READ_TIMEOUT
    }

    fn is_missing(&self, home: &Home) -> bool {
        !vault::exists(&home.vault())
    }

    fn needs_terminal(&self, home: &Home) -> bool {
        !self.is_missing(home) && vault::unlock_from_environment().is_none()
    }

    fn state(&self, home: &Home) -> String {
        let state = match (self.is_missing(home), self.needs_terminal(home)) {
            (true, _) => "none yet: `agentsecrets secrets set NAME` creates it",
            (false, false) => "encrypted, opened by a key file",
            (false, true) => "encrypted, opened by a passphrase",
        };
        state.to_owned()
    }

    fn check(&self, home: &Home, _: (&Project, &Environment)) -> StoreCheck {
        let path = home.vault();
        if !path.exists() {
            let fix = "agentsecrets secrets set NAME".to_owned();
            return StoreCheck::Warning { what: "no secret is stored in the vault yet".to_owned(), fix };
        }
        let Some(key) = vault::unlock_from_environment() else {
            let shown = path.display();
            return StoreCheck::Good(format!("the vault is there and asks for its passphrase ({shown})"));
        };
        let checked = std::fs::File::open(&key).and_then(|file| files::check_private(&file, &key));
        if let Err(error) = checked {
            let what = "the key file cannot be used".to_owned();
            return StoreCheck::Bad { what, fix: error.to_string() };
        }
        match Vault::open(&path, &Unlock::KeyFile(key)) {
            Ok(_) => StoreCheck::Good("the vault opens with its key file".to_owned()),
            Err(error) => {
                let fix = "use the key file that made it, or restore it from a backup".to_owned();
                StoreCheck::Bad { what: error.to_string(), fix }
            }
        }
    }
}

/// The vault that is, or will be, at a path.
struct LazyVault {
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
    fn new(path: PathBuf, key_file: Option<PathBuf>) -> Self {
        Self { path, opened_by: UnlockSource::KeyFile(key_file), opened: OnceLock::new() }
    }

    /// The vault at `path` for a person's own command: whoever is at the terminal is asked for its
    /// passphrase when it is needed, and the first value makes it.
    fn with_prompt(path: PathBuf) -> Self {
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
