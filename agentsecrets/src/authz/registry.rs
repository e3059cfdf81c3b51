//! A file of ours that says who was given what: JSON with a version, in which what is unknown, stands twice or
//! is no value of its kind is a mistake. It is changed by one process at a time, and whole or not at all.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::files;
use crate::types::failure::{Exit, Failure};

/// The version of every file.
pub const VERSION: u32 = 1;
/// The largest file that is read or written, in bytes.
const MAX_SIZE: u64 = 16 << 20;
/// Upper bound on waiting for another process to unlock the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The contents of a registry file.
pub trait RegistryContent: Serialize + DeserializeOwned + Default {
    /// The version that it says it has.
    fn version(&self) -> u32;

    /// Why it makes no sense, though it has the form.
    fn check(&self) -> Result<(), String>;
}

/// Why a file was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The system says so.
    #[error("{path} cannot be used: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not what we write.
    #[error("{path}:{line}: {what}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The fault.
        what: String,
    },
    /// Another process is changing it, and does not end.
    #[error("{path} is being changed by another process that does not end", path = .0.display())]
    Busy(PathBuf),
}

impl From<io::Error> for RegistryError {
    fn from(source: io::Error) -> Self {
        Self::Io { path: PathBuf::new(), source }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Failure::new(Exit::Failure, &error)
            .hint("correct the file; while it has a mistake, whatever depends on it is refused")
    }
}

/// The text of the file at `path`; none where there is no file.
pub fn text(path: &Path) -> Result<Option<String>, RegistryError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed(path))?,
    };
    let mut text = String::new();
    let length = file.take(MAX_SIZE + 1).read_to_string(&mut text).map_err(failed(path))?;
    check_size(length, path)?;
    Ok(Some(text))
}

/// Parses `text`, the contents of the file at `path`.
pub fn parse<K: RegistryContent>(text: Option<&str>, path: &Path) -> Result<K, RegistryError> {
    let Some(text) = text else { return Ok(K::default()) };
    let invalid = |line, what: String| RegistryError::Invalid { path: path.to_path_buf(), line, what };
    let kept: K = serde_json::from_str(text).map_err(|error| invalid(error.line(), error.to_string()))?;
    let version = kept.version();
    if version != VERSION {
        return Err(invalid(1, format!("version {version} is not one that this program reads")));
    }
    kept.check().map_err(|what| invalid(1, what))?;
    Ok(kept)
}

/// The same of a file that is followed: `had` is whether it said something before. One that was removed then says
/// nothing any longer of those whom it bounded.
pub fn follow<K: RegistryContent>(text: Option<&str>, path: &Path, had: bool) -> Result<K, RegistryError> {
    if text.is_none() && had {
        let what = "it was removed: put it back, or start anew what serves".to_owned();
        return Err(RegistryError::Invalid { path: path.to_path_buf(), line: 0, what });
    }
    parse(text, path)
}

/// Reads the file at `path`.
pub fn read<K: RegistryContent>(path: &Path) -> Result<K, RegistryError> {
    parse(text(path)?.as_deref(), path)
}

/// Changes the file at `path` by `change`, while no other process does. Where that fails, it stays as it is.
pub fn change<K: RegistryContent, T, E: From<RegistryError>>(
    path: &Path,
    change: impl FnOnce(&mut K) -> Result<T, E>,
) -> Result<T, E> {
    let _lock = lock(path)?;
    let mut kept: K = read(path)?;
    let changed = change(&mut kept)?;
    let mut bytes = serde_json::to_vec_pretty(&kept).map_err(|error| failed(path)(error.into()))?;
    bytes.push(b'\n');
    check_size(bytes.len(), path)?;
    files::replace(path, &bytes).map_err(failed(path))?;
    Ok(changed)
}

/// Held by whoever changes the file at `path`.
fn lock(path: &Path) -> Result<File, RegistryError> {
    let file = files::append(&path.with_extension("lock")).map_err(failed(path))?;
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(path)(source)),
            Err(TryLockError::WouldBlock) if Instant::now() > end => {
                return Err(RegistryError::Busy(path.to_path_buf()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_INTERVAL),
        }
    }
}

/// Refuses more than is read: what were written would be lost to whoever reads it.
fn check_size(bytes: usize, path: &Path) -> Result<(), RegistryError> {
    if bytes as u64 <= MAX_SIZE {
        return Ok(());
    }
    Err(failed(path)(io::Error::other(format!("it has more than {} MiB", MAX_SIZE >> 20))))
}

/// Turns a system error about the file at `path` into a registry error.
fn failed(path: &Path) -> impl Fn(io::Error) -> RegistryError {
    move |source| RegistryError::Io { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Default, Serialize, Deserialize)]
    struct Words(String);

    impl RegistryContent for Words {
        fn version(&self) -> u32 {
            VERSION
        }

        fn check(&self) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn oversized_file_is_neither_written_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.json");
        let fill = |length: usize| {
            change(&path, |words: &mut Words| {
                words.0 = "a".repeat(length);
                Ok::<_, RegistryError>(())
            })
        };
        fill(3).unwrap();
        assert!(fill(MAX_SIZE as usize).unwrap_err().to_string().contains("more than 16 MiB"));
        assert_eq!(read::<Words>(&path).unwrap().0, "aaa");
        File::create(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
        assert!(text(&path).unwrap_err().to_string().contains("more than 16 MiB"));
    }
}
