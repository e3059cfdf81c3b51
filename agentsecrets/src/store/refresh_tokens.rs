//! Replacements of stored secrets at run time: the refresh token that an endpoint gave in exchange for the
//! one before. The serving process may not write to the stores, so replacements have a folder of their own,
//! one file per secret. Each is sealed under a key derived from the *stored* value: a reader without the
//! store cannot read it, and once the person stores another value it is no longer found.
//!
//! # Format, version 1
//!
//! `agentsecrets-rotated/1`, a newline, a salt of 32 bytes, and the value sealed with AES-256-GCM: nonce of
//! 12 bytes, ciphertext, tag. The key is HKDF-SHA256(salt, the stored value, info `agentsecrets-rotated/1`);
//! associated data are the length (8 bytes, big-endian) and bytes of project, environment and name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::store::Key;
use crate::store::StoreError;
use crate::sys::files;
use crate::types::hex::hex;
use crate::types::secret::Secret;
use crate::vault;

const MAGIC: &[u8] = b"agentsecrets-rotated/1";
const SALT: usize = 32;
/// The largest file, in bytes.
const MAX_FILE_SIZE: u64 = 1 << 20;

/// The folder of what was rotated.
pub struct RefreshTokenStore {
    folder: PathBuf,
}

/// Leave to exchange one secret: nobody else does at the same time. Ends when dropped.
pub struct RotationLock(#[expect(dead_code, reason = "it is held, not read")] File);

impl RefreshTokenStore {
    /// The replacements in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// A turn at `key`; nothing while another process has it.
    pub fn lock(&self, key: &Key) -> Result<Option<RotationLock>, StoreError> {
        let file =
            files::append(&self.path(key).with_extension("lock")).map_err(|error| self.failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RotationLock(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(self.failed(&error)),
        }
    }

    /// The replacement of `stored`, the value of `key`, if there is one.
    pub fn get(&self, key: &Key, stored: &Secret) -> Result<Option<Secret>, StoreError> {
        let mut bytes = Vec::new();
        match File::open(self.path(key)) {
            Ok(file) => {
                file.take(MAX_FILE_SIZE).read_to_end(&mut bytes).map_err(|error| self.failed(&error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        let rest = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(b"\n"));
        let Some((salt, sealed)) = rest.and_then(|rest| rest.split_at_checked(SALT)) else {
            let path = self.path(key);
            return Err(StoreError::Damaged(format!(
                "{} is damaged: remove it, and store '{}' again",
                path.display(),
                key.name
            )));
        };
        Ok(vault::unseal(&vault::derive(salt, stored.expose(), MAGIC)?, &context(key), sealed))
    }

    /// Lets `value` replace `stored`, the value of `key`.
    pub fn set(&self, key: &Key, stored: &Secret, value: &Secret) -> Result<(), StoreError> {
        let salt = vault::random::<SALT>()?;
        let sealed =
            vault::seal(&vault::derive(&salt, stored.expose(), MAGIC)?, &context(key), value.expose())?;
        let bytes = [MAGIC, b"\n", &salt, &sealed].concat();
        files::replace(&self.path(key), &bytes).map_err(|error| self.failed(&error))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(hex(digest(&SHA256, &context(key)).as_ref()))
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Io(format!("what was rotated cannot be kept in {}: {error}", self.folder.display()))
    }
}

fn context(key: &Key) -> Vec<u8> {
    let parts = [key.project.as_str(), key.environment.as_str(), key.name.as_str()];
    parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::name::{Environment, Project};

    fn key(name: &str) -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: name.parse().unwrap() }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn replacement_is_found_by_replaced_value() {
        let folder = tempfile::tempdir().unwrap();
        let rotated = RefreshTokenStore::at(folder.path());
        assert!(rotated.get(&key("A"), &secret("first")).unwrap().is_none());
        rotated.set(&key("A"), &secret("first"), &secret("second-token")).unwrap();
        let found = rotated.get(&key("A"), &secret("first")).unwrap().unwrap();
        assert_eq!(found.expose(), b"second-token");
        assert!(rotated.get(&key("A"), &secret("stored anew")).unwrap().is_none());
        assert!(rotated.get(&key("B"), &secret("first")).unwrap().is_none());
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"second"));
        }
    }

    #[test]
    fn rotation_is_exclusive_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let rotated = RefreshTokenStore::at(folder.path());
        let turn = rotated.lock(&key("A")).unwrap().unwrap();
        assert!(rotated.lock(&key("A")).unwrap().is_none());
        assert!(rotated.lock(&key("B")).unwrap().is_some());
        drop(turn);
        assert!(rotated.lock(&key("A")).unwrap().is_some());
        std::fs::write(rotated.path(&key("A")), b"agentsecrets-rotated/1\nshort").unwrap();
        assert!(matches!(rotated.get(&key("A"), &secret("x")), Err(StoreError::Damaged(_))));
    }
}
