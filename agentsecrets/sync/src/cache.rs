//! Commits on this machine, as the store gave them, and the last one that was verified. Offline commands read them;
//! a fetch asks only for later ones. A damaged commit is fetched again; the pin says what it must be.

use std::path::{Path, PathBuf};

use agentsecrets_sys::files;
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, Hash};
use crate::error::Error;

/// A commit that this machine has seen: no history without it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Number of the commit.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// The length of its head, in bytes.
    pub head_len: usize,
}

impl Pin {
    /// The pin of a commit.
    pub fn of(commit: &Commit) -> Self {
        Self { seq: commit.seq(), hash: commit.hash(), head_len: commit.head_len() }
    }
}

/// The folder of one workspace.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// The commits from `first` on, as far as they are there and whole.
    pub(crate) fn commits(&self, first: u64) -> Vec<Commit> {
        let read = |seq: u64| Commit::parse(seq, std::fs::read(self.path(seq)).ok()?).ok();
        (first..).map_while(read).collect()
    }

    /// The last verified commit.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn pin(&self) -> Result<Option<Pin>, Error> {
        let path = self.folder.join("pin.json");
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::Local(format!("{} cannot be read: {error}", path.display()))
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Keeps a pin.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_pin(&self, pin: Pin) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&pin).map_err(|_| Error::Crypto("the pin cannot be written"))?;
        files::replace(&self.folder.join("pin.json"), &bytes).map_err(|error| self.unwritable(&error))
    }

    /// Keeps verified commits, then the pin of the last one.
    pub(crate) fn keep(&self, commits: &[Commit]) -> Result<(), Error> {
        let Some(last) = commits.last() else { return Ok(()) };
        files::private_folder(&self.folder.join("log")).map_err(|error| self.unwritable(&error))?;
        for commit in commits {
            // Not synced: a torn file is noticed by its hash, and fetched again.
            std::fs::write(self.path(commit.seq()), commit.bytes())
                .map_err(|error| self.unwritable(&error))?;
        }
        self.set_pin(Pin::of(last))
    }

    fn path(&self, seq: u64) -> PathBuf {
        self.folder.join("log").join(format!("{seq:010}"))
    }

    fn unwritable(&self, error: &std::io::Error) -> Error {
        Error::Local(format!("{} cannot be written: {error}; nothing is lost", self.folder.display()))
    }
}
