//! The policy in force, kept up with its file. A file with a mistake changes nothing: what was in force
//! stays in force, and the mistake is told. A file that is removed takes every permission with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::load::{LoadError, read};
use super::rules::Policy;
use crate::policy::project_restriction::Narrow;
use crate::sys::watched_file::{Followed, Reading};

/// The policy in force. Dropping it ends the watching.
pub struct Live(Followed<File>);

/// The file, and what of it is put in force.
struct File {
    path: PathBuf,
    narrow: Narrow,
}

impl Live {
    /// Reads the policy at `path` and follows its changes. Fails if the file has mistakes now; where there
    /// is none, everything is denied until there is.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_narrowed(path, Narrow::default())
    }

    /// The same, and of every policy that is put in force only what `narrow` leaves.
    pub fn open_narrowed(path: &Path, narrow: Narrow) -> Result<Self, LoadError> {
        Followed::open(path, File { path: path.to_path_buf(), narrow }).map(Self)
    }

    /// `policy`, which stays in force.
    pub fn fixed(policy: Policy) -> Self {
        Self(Followed::fixed(policy))
    }

    /// The policy in force now. A request is judged by one such snapshot from beginning to end.
    pub fn get(&self) -> Arc<Policy> {
        self.0.get()
    }

    /// The mistake of the newest file, where it could not be put in force.
    pub fn last_error(&self) -> Option<Arc<LoadError>> {
        self.0.last_error()
    }

    /// Reports each change: the number of policies that were put in force after the first.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Reading for File {
    type Content = Policy;
    type Error = LoadError;

    const WHAT: &'static str = "policy";

    fn text(&self) -> Result<Option<String>, LoadError> {
        read(&self.path)
    }

    fn understand(&self, text: Option<&str>, last: Option<&Policy>) -> Result<Policy, LoadError> {
        let policy = match text {
            Some(text) => Policy::parse(text, &self.path)?,
            None => Policy::absent(&self.path),
        };
        let mut policy = policy.narrowed(&self.narrow);
        match last {
            Some(last) => {
                policy.keep_counts_of(last);
                tracing::info!(agents = policy.agents().len(), "a new policy is in force");
            }
            None if text.is_none() => {
                tracing::warn!(path = %self.path.display(), "there is no policy: everything is denied");
            }
            None => {}
        }
        Ok(policy)
    }

    fn is_stale(&self, policy: &Policy) -> bool {
        policy.sources.are_stale()
    }
}

impl From<io::Error> for LoadError {
    fn from(source: io::Error) -> Self {
        LoadError::Unreadable { path: PathBuf::new(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::sys::files::replace;

    const ONE: &[u8] = b"version: 1\nagents:\n  - name: a\n    allow: [ { host: one.net } ]\n";
    const TWO: &[u8] = b"version: 1\nagents:\n  - name: a\n    allow: [ { host: two.net } ]\n";

    async fn next(changes: &mut watch::Receiver<u64>) {
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    }

    fn names(live: &Live, host: &str) -> bool {
        live.get().names(None, &host.parse().unwrap())
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_written_or_removed_takes_effect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        let live = Live::open(&path).unwrap();
        let mut changes = live.subscribe();
        assert!(live.get().agents().is_empty());
        replace(&path, ONE).unwrap();
        next(&mut changes).await;
        assert!(names(&live, "one.net"));
        fs::write(&path, TWO).unwrap();
        next(&mut changes).await;
        while !names(&live, "two.net") {
            next(&mut changes).await;
        }
        assert!(!names(&live, "one.net"));
        fs::remove_file(&path).unwrap();
        next(&mut changes).await;
        assert!(live.get().agents().is_empty());
    }

    #[tokio::test]
    async fn a_file_with_a_mistake_changes_nothing_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        replace(&path, ONE).unwrap();
        let live = Live::open(&path).unwrap();
        replace(&path, b"version: 1\nagent: []\n").unwrap();
        live.0.refresh();
        assert!(names(&live, "one.net"));
        assert_eq!(live.last_error().unwrap().problems()[0].line, 2);
        let mut changes = live.subscribe();
        replace(&path, TWO).unwrap();
        next(&mut changes).await;
        assert!(names(&live, "two.net") && live.last_error().is_none());
        fs::write(&path, b"agents: [").unwrap();
        assert!(Live::open(&path).is_err());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn mounted_configuration_whose_link_is_switched_takes_effect() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", ONE), ("..v2", TWO)] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("policy.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let live = Live::open(&at("policy.yaml")).unwrap();
        let mut changes = live.subscribe();
        assert!(names(&live, "one.net"));
        std::os::unix::fs::symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        next(&mut changes).await;
        assert!(names(&live, "two.net"));
    }
}
