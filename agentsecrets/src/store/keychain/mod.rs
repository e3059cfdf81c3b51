//! The operating system's keychain: Secret Service on Linux, Keychain on macOS, Credential Manager on
//! Windows, by the same code. An item is `{project}:{environment}:{NAME}` in the service `AgentSecrets`, as
//! other tools that share them name it; names are listed by the keychain's own search, so that no list of
//! ours can part ways with what is there. Locked, absent and missing are three answers. A value is wiped
//! here when it was used; the buffers of the system's own library are not ours to wipe.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use keyring_core::{Entry as Item, Error, Result as KeyringResult};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(windows)]
use windows as system;

use super::cached::CachedStore;
use super::kinds::{Kind, StoreCheck};
use super::settings::{ReportProblem, SpannedText, duration_or_default, required_value};
use super::timeout::TimeoutStore;
use super::{Entry, Key, Store, StoreError, check};
use crate::sys::home::Home;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;
use crate::types::sync::MutexExt;

/// The service of the items that hold values.
const SERVICE: &str = "AgentSecrets";
/// The service of the items that hold placeholders, which not every keychain can keep beside a value.
const PLACEHOLDERS: &str = "AgentSecrets placeholders";

/// The keychain of the user that this process runs as.
struct Keychain;

/// Whether it was opened, which a process does once.
static OPENED: Mutex<bool> = Mutex::new(false);

/// Time limit for connecting to the keychain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the keychain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeychainConfig {
    /// Time limit for an answer; a person may have to type a password.
    timeout: Duration,
    /// Answers are cached for this time.
    cache: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeychainSettings {
    #[serde(default, deserialize_with = "required_value")]
    timeout: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    cache: Option<SpannedText>,
    #[serde(default)]
    optional: bool,
}

impl Default for KeychainConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), cache: Duration::from_secs(60) }
    }
}

impl Kind for KeychainConfig {
    type Settings = KeychainSettings;

    fn without_settings() -> Result<Self, String> {
        Ok(Self::default())
    }

    fn parse(settings: KeychainSettings, report: ReportProblem<'_>) -> Result<(Self, bool), String> {
        let default = Self::default();
        let timeout = duration_or_default(settings.timeout, default.timeout, report);
        let cache = duration_or_default(settings.cache, default.cache, report);
        Ok((Self { timeout, cache }, settings.optional))
    }

    fn open(&self, home: &Home) -> Arc<dyn Store> {
        let advice = "unlock it, or look for a window that asks for its password";
        let store = TimeoutStore::new(Keychain, self.timeout, advice);
        Arc::new(CachedStore::new(store, self.cache).invalidated_by(home.keychain_stamp()))
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn state(&self, _: &Home) -> String {
        match reachable() {
            Ok(()) => "available, unlocked when it is needed".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// The keychain stays locked: a check must not prompt for a password.
    fn check(&self, _: &Home, _: (&Project, &Environment)) -> StoreCheck {
        StoreCheck::from_result(reachable(), "the keychain can be reached")
    }
}

/// Whether there is a keychain, without unlocking it.
fn reachable() -> Result<(), StoreError> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(connect()));
    receiver.recv_timeout(CONNECT_TIMEOUT).unwrap_or_else(|_| {
        Err(StoreError::Locked(format!("the keychain does not answer: {}", system::TO_RESTART)))
    })
}

fn connect() -> Result<(), StoreError> {
    let mut opened = OPENED.lock_ignoring_poison();
    if !*opened {
        system::open().map_err(|error| absent(&error))?;
        *opened = true;
    }
    Ok(())
}

impl Store for Keychain {
    fn name(&self) -> &'static str {
        "keychain"
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let value = asked(|| found(item(SERVICE, key)?.get_secret()));
        value.map(|value| value.map(Secret::new)).map_err(|error| store_error(error, key))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let entries = asked(|| {
            let mut placeholders = HashMap::new();
            for (name, item) in items(PLACEHOLDERS, project, environment)? {
                placeholders.insert(name, item.get_password()?);
            }
            let mut entries = Vec::new();
            for (name, item) in items(SERVICE, project, environment)? {
                let updated = system::attributes(&item)?
                    .remove(system::UPDATED)
                    .filter(|when| when.parse::<jiff::Timestamp>().is_ok());
                let (placeholder, environment) = (placeholders.remove(&name), environment.clone());
                entries.push(Entry { name, environment, updated, placeholder, store: self.name() });
            }
            Ok(entries)
        });
        let mut entries = entries.map_err(failed)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        Ok(entries)
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        check(key, &value)?;
        let set = asked(|| {
            let item = item(SERVICE, key)?;
            item.set_secret(value.expose())?;
            let now = format!("{:.0}", jiff::Timestamp::now());
            // A note for people: not every keychain keeps one.
            let _ = item.update_attributes(&HashMap::from([(system::UPDATED, now.as_str())]));
            let beside = self::item(PLACEHOLDERS, key)?;
            match placeholder {
                Some(placeholder) => beside.set_password(placeholder),
                None => found(beside.delete_credential()).map(drop),
            }
        });
        set.map_err(|error| store_error(error, key))
    }

    fn version(&self) -> Result<u64, StoreError> {
        // Looking would ask the person to unlock it, again and again: `Cached` says how long to believe it.
        Ok(0)
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        let deleted = asked(|| {
            let deleted = found(item(SERVICE, key)?.delete_credential())?.is_some();
            found(item(PLACEHOLDERS, key)?.delete_credential())?;
            Ok(deleted)
        });
        deleted.map_err(|error| store_error(error, key))
    }
}

/// Asks the keychain, and again by a new connection where the one that was open has failed: its daemon may
/// have been restarted since.
fn asked<T>(question: impl Fn() -> KeyringResult<T>) -> Result<T, Failed> {
    connect().map_err(Failed::ToOpen)?;
    match question() {
        Err(Error::PlatformFailure(_)) => {
            *OPENED.lock_ignoring_poison() = false;
            connect().map_err(Failed::ToOpen)?;
            question().map_err(Failed::ToAnswer)
        }
        answer => answer.map_err(Failed::ToAnswer),
    }
}

/// Why there is no answer.
enum Failed {
    ToOpen(StoreError),
    ToAnswer(Error),
}

fn item(service: &str, key: &Key) -> KeyringResult<Item> {
    Item::new(service, &format!("{}:{}:{}", key.project, key.environment, key.name))
}

/// The items of a service for a project and environment, by the names in theirs. Other items are not ours.
fn items(
    service: &str,
    project: &Project,
    environment: &Environment,
) -> KeyringResult<Vec<(SecretName, Item)>> {
    let start = format!("{project}:{environment}:");
    let asked = system::search(service, &start);
    let asked = HashMap::from([(asked.0, asked.1.as_str())]);
    let mut items = Vec::new();
    for item in Item::search(&asked)? {
        // Asked for by itself first: what is below takes a failure for a foreign item.
        system::attributes(&item)?;
        let Some((theirs, user)) = item.get_specifiers() else { continue };
        let name = user.strip_prefix(&start).and_then(|name| name.parse().ok());
        items.extend(name.filter(|_| theirs == service).map(|name| (name, item)));
    }
    Ok(items)
}

/// Turns "not found" into `None`.
fn found<T>(result: KeyringResult<T>) -> KeyringResult<Option<T>> {
    match result {
        Err(Error::NoEntry) => Ok(None),
        result => result.map(Some),
    }
}

fn store_error(error: Failed, key: &Key) -> StoreError {
    match error {
        Failed::ToAnswer(Error::Ambiguous(items)) => StoreError::Damaged(format!(
            "the keychain holds {} items for {}: delete all but one there, in the service '{SERVICE}'",
            items.len(),
            key.name
        )),
        Failed::ToAnswer(Error::TooLong(_, most)) => StoreError::Refused(format!(
            "the system's keychain takes no value longer than {most} bytes for {}: put `vault` first in \
             config.yaml's `stores`",
            key.name
        )),
        other => failed(other),
    }
}

/// Its errors carry no values.
fn failed(error: Failed) -> StoreError {
    let error = match error {
        Failed::ToOpen(error) => return error,
        Failed::ToAnswer(error) => error,
    };
    match error {
        Error::NoStorageAccess(reason) => locked(&*reason),
        Error::PlatformFailure(reason) if system::is_locked(&*reason) => locked(&*reason),
        // They hold what was read.
        Error::BadEncoding(_) | Error::BadDataFormat(..) => {
            StoreError::Damaged("the keychain holds an item that cannot be understood: set it again".into())
        }
        Error::PlatformFailure(reason) => StoreError::Io(format!("the keychain failed: {reason}")),
        other => StoreError::Io(format!("the keychain failed: {other}")),
    }
}

fn absent(error: &Error) -> StoreError {
    let reason = match error {
        Error::PlatformFailure(reason) | Error::NoStorageAccess(reason) => reason.to_string(),
        other => other.to_string(),
    };
    StoreError::Absent(format!(
        "there is no keychain here ({reason}): {}, or use the vault (`stores: [vault]` in config.yaml)",
        system::TO_START
    ))
}

fn locked(reason: &(dyn std::error::Error + Send + Sync + 'static)) -> StoreError {
    StoreError::Locked(format!(
        "the keychain is locked, and was not unlocked ({reason}): {}, or use the vault (`stores: [vault]` in \
         config.yaml)",
        system::TO_UNLOCK
    ))
}
