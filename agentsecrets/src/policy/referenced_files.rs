//! The files that a policy names. They are read with the policy and watched with it, so that a replaced root
//! certificate is trusted no longer than a deleted rule is in force.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files, each with its version when it was read.
#[derive(Debug, Default)]
pub(super) struct ReferencedFiles(Vec<(PathBuf, Option<FileVersion>)>);

/// Modification time and length: the time alone is too coarse on some file systems.
type FileVersion = (SystemTime, u64);

impl ReferencedFiles {
    /// Reads the file at `path` with `read` and remembers its version.
    pub(super) fn read<T, E>(
        &mut self,
        path: PathBuf,
        read: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        // Taken before reading, so that a change in between counts as one.
        let version = file_version(&path);
        let value = read(&path)?;
        self.0.push((path, version));
        Ok(value)
    }

    /// Whether a file changed since it was read.
    pub(super) fn are_stale(&self) -> bool {
        self.0.iter().any(|(path, version)| file_version(path) != *version)
    }
}

fn file_version(path: &Path) -> Option<FileVersion> {
    std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok()
}
