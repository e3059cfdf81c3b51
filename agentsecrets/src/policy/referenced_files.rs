//! The files that a policy names: read with it, and watched with it, so that a root that is replaced is
//! trusted no longer than a rule that is deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::tls::verify::{Roots, TlsError};

/// Files and the state in which they were read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    folder: PathBuf,
    read: Vec<(PathBuf, State)>,
}

/// Tells one state of a file from another; its length too, as clocks are coarse.
type State = Option<(SystemTime, u64)>;

impl Sources {
    /// For the policy at `path`; the files that it names are looked for beside it.
    pub(super) fn beside(path: &Path) -> Self {
        Self { folder: path.parent().unwrap_or(Path::new("")).to_path_buf(), read: Vec::new() }
    }

    /// The roots in the PEM file that a rule calls `name`.
    pub(super) fn roots(&mut self, name: &str) -> Result<Arc<Roots>, TlsError> {
        let path = self.folder.join(name);
        // The state before reading: a change that falls between is seen as one.
        let state = state(&path);
        let roots = Roots::read(&path)?;
        self.read.push((path, state));
        Ok(Arc::new(roots))
    }

    /// Whether one of them changed since.
    pub(super) fn are_stale(&self) -> bool {
        self.read.iter().any(|(path, then)| state(path) != *then)
    }
}

fn state(path: &Path) -> State {
    std::fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok()
}
