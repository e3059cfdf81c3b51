//! The policy in force, kept up with its file. A file with a mistake changes nothing: what was in force
//! stays in force, and the mistake is told. A file that is removed takes every permission with it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::load::{LoadError, read};
use super::narrow::Narrow;
use super::rules::Policy;

/// A change is read when the folder has been quiet for so long.
const QUIET: Duration = Duration::from_millis(50);
/// Under constant writing it is read after so long all the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// The file is looked at so often even when the system reports nothing: a link may lead to a folder that is
/// not watched, and a network file system reports none.
const LOOK: Duration = Duration::from_secs(2);

/// The policy in force. Dropping it ends the watching.
pub struct Live {
    state: Arc<State>,
    // Dropping the watcher closes the channel, which ends the thread.
    _watcher: Option<RecommendedWatcher>,
    _wake: Sender<()>,
}

struct State {
    path: PathBuf,
    narrow: Narrow,
    policy: ArcSwap<Policy>,
    error: ArcSwapOption<LoadError>,
    generation: watch::Sender<u64>,
}

impl Live {
    /// Reads the policy at `path` and follows its changes. Fails if the file has mistakes now; where there
    /// is none, everything is denied until there is.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_narrowed(path, Narrow::default())
    }

    /// The same, and of every policy that is put in force only what `narrow` leaves.
    pub fn open_narrowed(path: &Path, narrow: Narrow) -> Result<Self, LoadError> {
        let (wake, woken) = channel();
        // Watched before it is read, so that no change falls between.
        let watcher = watch_folder(path, wake.clone());
        let text = read(path)?;
        let policy = parse(text.as_deref(), path)?.narrowed(&narrow);
        if text.is_none() {
            tracing::warn!(path = %path.display(), "there is no policy: everything is denied");
        }
        let state = Arc::new(State {
            path: path.to_path_buf(),
            narrow,
            policy: ArcSwap::from_pointee(policy),
            error: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
        });
        let weak = Arc::downgrade(&state);
        let unreadable = |source| LoadError::Unreadable { path: path.to_path_buf(), source };
        let thread = std::thread::Builder::new().name("policy".to_owned());
        thread.spawn(move || follow(&weak, &woken, text)).map_err(unreadable)?;
        Ok(Self { state, _watcher: watcher, _wake: wake })
    }

    /// `policy`, which stays in force.
    pub fn fixed(policy: Policy) -> Self {
        let state = Arc::new(State {
            path: PathBuf::new(),
            narrow: Narrow::default(),
            policy: ArcSwap::from_pointee(policy),
            error: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
        });
        Self { state, _watcher: None, _wake: channel().0 }
    }

    /// The policy in force now. A request is judged by one such snapshot from beginning to end.
    pub fn get(&self) -> Arc<Policy> {
        self.state.policy.load_full()
    }

    /// The mistake of the newest file, where it could not be put in force.
    pub fn last_error(&self) -> Option<Arc<LoadError>> {
        self.state.error.load_full()
    }

    /// Reports each change: the number of policies that were put in force after the first.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.state.generation.subscribe()
    }
}

impl State {
    /// Reads the file if it is not what was `seen` last.
    fn refresh(&self, seen: &mut Option<Option<String>>) {
        let read = read(&self.path);
        if let Ok(text) = &read
            && seen.as_ref() == Some(text)
            && !self.policy.load().sources.are_stale()
        {
            return;
        }
        *seen = None;
        let result = read.and_then(|text| {
            let policy = parse(text.as_deref(), &self.path);
            *seen = Some(text);
            policy
        });
        match result {
            Ok(policy) => {
                let mut policy = policy.narrowed(&self.narrow);
                policy.keep_counts_of(&self.policy.load());
                tracing::info!(agents = policy.agents().len(), "a new policy is in force");
                self.policy.store(Arc::new(policy));
                self.error.store(None);
                self.generation.send_modify(|generation| *generation += 1);
            }
            Err(error) => {
                let news =
                    self.error.load().as_ref().is_none_or(|last| last.to_string() != error.to_string());
                if news {
                    tracing::error!(%error, "the policy file is not usable: the one before stays in force");
                }
                self.error.store(Some(Arc::new(error)));
            }
        }
    }
}

fn parse(text: Option<&str>, path: &Path) -> Result<Policy, LoadError> {
    text.map_or_else(|| Ok(Policy::absent(path)), |text| Policy::parse(text, path))
}

/// The folder is watched, not the file: editors and mounted configuration replace the file.
fn watch_folder(path: &Path, wake: Sender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        let kind = event.map(|event| event.kind);
        // Our own reading must not wake us.
        let read =
            matches!(kind, Ok(EventKind::Access(access)) if access != AccessKind::Close(AccessMode::Write));
        if !read {
            let _ = wake.send(());
        }
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(
            |error| tracing::warn!(%error, "the policy's folder cannot be watched: it is looked at instead"),
        )
        .ok()
}

fn follow(state: &Weak<State>, woken: &Receiver<()>, text: Option<String>) {
    let mut seen = Some(text);
    loop {
        match woken.recv_timeout(LOOK) {
            Ok(()) => settle(woken),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(state) = state.upgrade() else { return };
        state.refresh(&mut seen);
    }
}

/// Waits until nothing more is reported.
fn settle(woken: &Receiver<()>) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && woken.recv_timeout(QUIET).is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::files::replace;

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
        let mut seen = Some(fs::read_to_string(&path).ok());
        replace(&path, b"version: 1\nagent: []\n").unwrap();
        live.state.refresh(&mut seen);
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
