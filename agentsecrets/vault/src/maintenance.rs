//! Changes to a vault as a whole: another passphrase or key file, a backup, and its restore. Nothing is
//! discarded that was not read and verified first.

use std::ffi::OsString;
use std::path::Path;

use agentsecrets_sys::files;
use agentsecrets_types::store::StoreError;

use crate::envelope::{Envelope, Opening};
use crate::keys::Unlock;
use crate::vault::{State, Vault, exists, lock, read, write};

impl Vault {
    /// Has the vault opened by `unlock` alone from here on. Everything is sealed anew under a new key: who
    /// has an old copy and the old passphrase learns nothing of what comes later. Processes that have the
    /// vault open must be started again, unless the new key file is in the place of theirs.
    pub fn rekey(self, unlock: &Unlock) -> Result<(), StoreError> {
        let _lock = lock(&self.path)?;
        let State { keys, envelope, .. } = {
            let mut state = self.state();
            self.reload(&mut state)?;
            state.clone()
        };
        let (envelope, keys) = envelope.rekeyed(&keys, unlock)?;
        write(&self.path, &envelope, &keys).map(drop)
    }

    /// Copies the vault, once it is proven, to a new file at `to`, which the same passphrase or key file
    /// opens. How many secrets that were.
    pub fn backup(&self, to: &Path) -> Result<usize, StoreError> {
        if exists(to) {
            return Err(StoreError::Refused(format!("{} exists: name a new file", to.display())));
        }
        let State { keys, envelope, .. } = self.current()?;
        files::replace(to, envelope.write(&keys)?.as_bytes()).map_err(|error| unwritable(to, &error))?;
        Ok(envelope.items.len())
    }
}

/// Puts the backup at `from`, once `unlock` has opened and proven it, in the place of the vault at `path`;
/// what is there is kept beside it. How many secrets the vault has then.
pub fn restore(path: &Path, from: &Path, unlock: &Unlock) -> Result<usize, StoreError> {
    let (_, file) = read(from)?;
    let keys = Opening::read(&file)?.keys(unlock)?;
    let mut envelope = Envelope::read(&file, &keys)?;
    let _lock = lock(path)?;
    if let Ok((_, before)) = read(path) {
        let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".before-restore");
        let kept = path.with_file_name(name);
        files::replace(&kept, before.as_bytes()).map_err(|error| unwritable(&kept, &error))?;
        // Not a step back in the eyes of who has it open.
        let opened = Opening::read(&before).and_then(|opening| opening.keys(unlock));
        let current = opened.and_then(|keys| Envelope::read(&before, &keys));
        envelope.generation = envelope.generation.max(current.map_or(0, |current| current.generation));
    }
    envelope.generation = envelope.generation.saturating_add(1);
    write(path, &envelope, &keys)?;
    Ok(envelope.items.len())
}

fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io(format!("{} cannot be written: {error}", path.display()))
}
