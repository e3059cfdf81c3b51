//! An open vault: its secrets, read and changed under the lock of its file.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use agentsecrets_sys::files;
use agentsecrets_types::name::{Environment, Project};
use agentsecrets_types::secret::Secret;
use agentsecrets_types::store::{Entry, Key, Store, StoreError, check};
use agentsecrets_types::sync::MutexExt;

use crate::envelope::{Envelope, Opening, damaged};
use crate::keys::{Keys, Unlock};

/// Time limit for another process that changes the vault.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest vault, in bytes.
const MAX_FILE_SIZE: u64 = 512 * 1024 * 1024;

/// An open vault. It follows its file: what another process stores is seen by the next call.
pub struct Vault {
    pub(crate) path: PathBuf,
    /// Opens the vault again if another one takes its place. A passphrase is not kept for that.
    key_file: Option<PathBuf>,
    state: Mutex<State>,
}

/// The vault as of its last reading.
#[derive(Clone)]
pub(crate) struct State {
    stamp: Stamp,
    pub(crate) keys: Arc<Keys>,
    pub(crate) envelope: Arc<Envelope>,
    /// Counts other vaults that took this one's place.
    replaced: u64,
}

/// Changes whenever the file is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

/// Whether there is a vault at `path`, readable or not.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

impl Vault {
    /// Opens the vault at `path`; `Locked` if there is none or `unlock` does not open it.
    pub fn open(path: &Path, unlock: &Unlock) -> Result<Self, StoreError> {
        let (stamp, file) = read(path)?;
        let keys = Opening::read(&file)?.keys(unlock)?;
        let envelope = Envelope::read(&file, &keys)?;
        Ok(Self::with(path, unlock, stamp, keys, envelope))
    }

    /// Makes an empty vault at `path`; `Refused` if there is one.
    pub fn create(path: &Path, unlock: &Unlock) -> Result<Self, StoreError> {
        let _lock = lock(path)?;
        if exists(path) {
            return Err(StoreError::Refused(format!("there is a vault at {} already", path.display())));
        }
        let (envelope, keys) = Envelope::new(unlock)?;
        let stamp = write(path, &envelope, &keys)?;
        Ok(Self::with(path, unlock, stamp, keys, envelope))
    }

    /// Opens the vault at `path`, making it first if there is none.
    pub fn open_or_create(path: &Path, unlock: &Unlock) -> Result<Self, StoreError> {
        if !exists(path) {
            match Self::create(path, unlock) {
                // Another process was faster: its vault is the one.
                Err(StoreError::Refused(_)) => {}
                made => return made,
            }
        }
        Self::open(path, unlock)
    }

    fn with(path: &Path, unlock: &Unlock, stamp: Stamp, keys: Keys, envelope: Envelope) -> Self {
        let key_file = match unlock {
            Unlock::KeyFile(path) => Some(path.clone()),
            Unlock::Passphrase(_) => None,
        };
        let state = State { stamp, keys: Arc::new(keys), envelope: Arc::new(envelope), replaced: 0 };
        Self { path: path.to_path_buf(), key_file, state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot have left it half changed: it is replaced whole.
        self.state.lock_ignoring_poison()
    }

    /// The vault as its file is now.
    pub(crate) fn current(&self) -> Result<State, StoreError> {
        let metadata = fs::metadata(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        let mut state = self.state();
        if state.stamp != Stamp::of(&metadata) {
            self.reload(&mut state)?;
        }
        Ok(state.clone())
    }

    pub(crate) fn reload(&self, state: &mut State) -> Result<(), StoreError> {
        let (stamp, file) = read(&self.path)?;
        let opening = Opening::read(&file)?;
        let same = opening == *state.envelope.opening();
        let keys = match &self.key_file {
            _ if same => state.keys.clone(),
            Some(key_file) => Arc::new(opening.keys(&Unlock::KeyFile(key_file.clone()))?),
            None => {
                return Err(StoreError::Locked(format!(
                    "another vault has taken the place of {}: restart, and type its passphrase",
                    self.path.display()
                )));
            }
        };
        let envelope = Envelope::read(&file, &keys)?;
        if same && envelope.generation < state.envelope.generation {
            return Err(damaged("it was rolled back to an older state while in use"));
        }
        let replaced = state.replaced + u64::from(!same);
        *state = State { stamp, keys, envelope: Arc::new(envelope), replaced };
        Ok(())
    }

    /// Changes the vault as its file is now, under the lock; `change` says whether there is a change.
    fn update(
        &self,
        change: impl FnOnce(&mut Envelope, &Keys) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let _lock = lock(&self.path)?;
        let State { keys, envelope, replaced, .. } = {
            let mut state = self.state();
            self.reload(&mut state)?;
            state.clone()
        };
        let mut envelope = envelope.next();
        if !change(&mut envelope, &keys)? {
            return Ok(false);
        }
        // Without holding the state: our own readers do not wait for the disk.
        let stamp = write(&self.path, &envelope, &keys)?;
        *self.state() = State { stamp, keys, envelope: Arc::new(envelope), replaced };
        Ok(true)
    }
}

/// A vault's file with this content and a last line that proves it, if `unlock` opens it: what the fuzzer
/// calls to get past the proof.
#[cfg(any(test, feature = "fuzzing"))]
pub fn resealed(content: &str, unlock: &Unlock) -> Option<String> {
    Some(crate::envelope::proven(content, &Opening::read(content).ok()?.keys(unlock).ok()?))
}

impl Store for Vault {
    fn version(&self) -> Result<u64, StoreError> {
        // It rises with every change by anybody; another vault may have come as far.
        let State { envelope, replaced, .. } = self.current()?;
        Ok((replaced << 48).wrapping_add(envelope.generation))
    }

    fn name(&self) -> &'static str {
        "vault"
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let state = self.current()?;
        state.envelope.value(&state.keys, key)
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let state = self.current()?;
        let here = state.envelope.items.iter();
        let here = here.filter(|(key, _)| key.project == *project && key.environment == *environment);
        Ok(here
            .map(|(key, item)| Entry {
                name: key.name.clone(),
                environment: key.environment.clone(),
                updated: Some(item.updated.clone()),
                placeholder: item.placeholder.clone(),
                store: self.name(),
            })
            .collect())
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        check(key, &value)?;
        self.update(|envelope, keys| envelope.put(keys, key, &value, placeholder).map(|()| true)).map(|_| ())
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        self.update(|envelope, _| Ok(envelope.items.remove(key).is_some()))
    }

    /// All of them or none.
    fn set_all(&self, values: Vec<(Key, Secret)>) -> Result<(), StoreError> {
        for (key, value) in &values {
            check(key, value)?;
        }
        let changed = self.update(|envelope, keys| {
            for (key, value) in &values {
                let placeholder = envelope.items.get(key).and_then(|item| item.placeholder.clone());
                envelope.put(keys, key, value, placeholder.as_deref())?;
            }
            Ok(!values.is_empty())
        });
        changed.map(|_| ())
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self { modified, size: metadata.len(), inode }
    }
}

/// Waits until no other process is changing the vault, and keeps others waiting while it lives.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    lock_within(path, LOCK_TIMEOUT)
}

fn lock_within(path: &Path, timeout: Duration) -> Result<File, StoreError> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".lock");
    let beside = path.with_file_name(name);
    let failed = |error: io::Error| {
        StoreError::Io(format!("the vault at {} cannot be locked: {error}", path.display()))
    };
    let file = files::append(&beside).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {}
    }
    // The system queues those who wait for the lock. A thread waits, so that this one can stop waiting.
    let (sender, receiver) = channel();
    let waiting = std::thread::Builder::new().name("vault".to_owned());
    let waiting = waiting.spawn(move || drop(sender.send(file.lock().map(|()| file)))).map_err(failed)?;
    let locked = receiver.recv_timeout(timeout).map_err(|_| {
        StoreError::Locked(format!(
            "another process is changing the vault and does not end: find it with `fuser {}`",
            beside.display()
        ))
    })?;
    let _ = waiting.join();
    locked.map_err(failed)
}

pub(crate) fn read(path: &Path) -> Result<(Stamp, String), StoreError> {
    let opened = || -> io::Result<(Stamp, Vec<u8>)> {
        let file = File::open(path)?;
        // Of the open file, so that stamp and bytes belong together.
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
        Ok((Stamp::of(&metadata), bytes))
    };
    let (stamp, bytes) = opened().map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(damaged("it is larger than a vault can be"));
    }
    let file = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    Ok((stamp, file))
}

pub(crate) fn write(path: &Path, envelope: &Envelope, keys: &Keys) -> Result<Stamp, StoreError> {
    let file = envelope.write(keys)?;
    if file.len() as u64 > MAX_FILE_SIZE {
        return Err(StoreError::Refused("the vault would grow beyond 512 MiB".into()));
    }
    let written = files::replace(path, file.as_bytes()).and_then(|()| fs::metadata(path));
    let metadata = written.map_err(|error| {
        StoreError::Io(format!("the vault at {} cannot be written: {error}", path.display()))
    })?;
    Ok(Stamp::of(&metadata))
}

fn unreadable(path: &Path, error: &io::Error) -> StoreError {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Locked(format!(
            "there is no vault at {shown}: `agentsecrets secrets set NAME` makes one, \
             under the key file that AGENTSECRETS_VAULT_KEY_FILE names or a passphrase"
        )),
        io::ErrorKind::PermissionDenied => StoreError::Locked(format!(
            "the vault at {shown} may not be read by this user: run as its owner, or set AGENTSECRETS_HOME"
        )),
        _ => StoreError::Io(format!("the vault at {shown} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;
