//! Watches the policy file. An invalid file changes nothing: the previous policy stays in force and the
//! mistake is reported. If the file is removed, everything is denied.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::compile::read_file;
use super::load_error::LoadError;
use super::rules::Policy;
use crate::policy::project_restriction::ProjectRestriction;
use crate::sys::watched_file::{FileSource, WatchedFile};

/// The policy in force, reloaded when its file changes. Dropping it stops the watch.
pub struct PolicyWatcher(WatchedFile<PolicyFile>);

/// The policy file and the restriction that applies to each version of it.
struct PolicyFile {
    path: PathBuf,
    restriction: ProjectRestriction,
}

impl PolicyWatcher {
    /// Loads the policy at `path` and watches it. It fails if the file is invalid. If the file is missing,
    /// everything is denied until it exists.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_restricted(path, ProjectRestriction::default())
    }

    /// Like `open`, with `restriction` applied to each version of the policy.
    pub fn open_restricted(path: &Path, restriction: ProjectRestriction) -> Result<Self, LoadError> {
        WatchedFile::open(path, PolicyFile { path: path.to_path_buf(), restriction }).map(Self)
    }

    /// A fixed policy without a file.
    pub fn fixed(policy: Policy) -> Self {
        Self(WatchedFile::fixed(policy))
    }

    /// The policy in force now. A request uses one snapshot from beginning to end.
    pub fn get(&self) -> Arc<Policy> {
        self.0.get()
    }

    /// The error of the newest file, if that is invalid.
    pub fn last_error(&self) -> Option<Arc<LoadError>> {
        self.0.last_error()
    }

    /// Reports each change: the number of policies that came into force after the first.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl FileSource for PolicyFile {
    type Content = Policy;
    type Error = LoadError;

    const NAME: &'static str = "policy";

    fn text(&self) -> Result<Option<String>, LoadError> {
        read_file(&self.path)
    }

    fn parse(&self, text: Option<&str>, last: Option<&Policy>) -> Result<Policy, LoadError> {
        let policy = match text {
            Some(text) => Policy::parse(text, &self.path)?,
            None => Policy::for_missing_file(&self.path),
        };
        let mut policy = policy.restricted_to(&self.restriction);
        match last {
            Some(last) => {
                policy.inherit_rate_limits(last);
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
        policy.referenced_files.are_stale()
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

    fn names(watcher: &PolicyWatcher, host: &str) -> bool {
        watcher.get().names_host(None, &host.parse().unwrap())
    }

    #[tokio::test]
    async fn replaced_written_or_removed_file_takes_effect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        let watcher = PolicyWatcher::open(&path).unwrap();
        let mut changes = watcher.subscribe();
        assert!(watcher.get().agents().is_empty());
        replace(&path, ONE).unwrap();
        next(&mut changes).await;
        assert!(names(&watcher, "one.net"));
        fs::write(&path, TWO).unwrap();
        next(&mut changes).await;
        while !names(&watcher, "two.net") {
            next(&mut changes).await;
        }
        assert!(!names(&watcher, "one.net"));
        fs::remove_file(&path).unwrap();
        next(&mut changes).await;
        assert!(watcher.get().agents().is_empty());
    }

    #[tokio::test]
    async fn invalid_file_changes_nothing_and_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.yaml");
        replace(&path, ONE).unwrap();
        let watcher = PolicyWatcher::open(&path).unwrap();
        replace(&path, b"version: 1\nagent: []\n").unwrap();
        watcher.0.refresh();
        assert!(names(&watcher, "one.net"));
        assert_eq!(watcher.last_error().unwrap().problems()[0].line, 2);
        let mut changes = watcher.subscribe();
        replace(&path, TWO).unwrap();
        next(&mut changes).await;
        assert!(names(&watcher, "two.net") && watcher.last_error().is_none());
        fs::write(&path, b"agents: [").unwrap();
        assert!(PolicyWatcher::open(&path).is_err());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn switched_config_map_link_takes_effect() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", ONE), ("..v2", TWO)] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("policy.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let watcher = PolicyWatcher::open(&at("policy.yaml")).unwrap();
        let mut changes = watcher.subscribe();
        assert!(names(&watcher, "one.net"));
        std::os::unix::fs::symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        next(&mut changes).await;
        assert!(names(&watcher, "two.net"));
    }
}
