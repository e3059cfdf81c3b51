//! The tree of pods' cgroups, as the kubelet makes and removes them, told at once by the kernel. It knows both of
//! the kubelet's drivers: `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice` and
//! `kubepods/burstable/pod<uid>`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use inotify::{EventMask, EventOwned, Inotify, WatchDescriptor, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::identity::container::pod_uid;
use crate::sys::fd_passing;

/// Room for the events of a burst of new pods.
const BUFFER: usize = 64 * 1024;

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The pod with this uid has a cgroup, at this folder.
    Made(String, PathBuf),
    /// It has none any more.
    Removed(String),
    /// Processes came or went.
    Populated(String),
    /// So much that it must be looked at anew.
    Anything,
}

/// The tree, followed.
pub(super) struct Tree {
    inotify: Inotify,
    /// Readable when something happened.
    ready: AsyncFd<OwnedFd>,
    root: PathBuf,
    /// Folders that hold those of pods.
    folders: HashMap<WatchDescriptor, PathBuf>,
    pods: HashMap<WatchDescriptor, String>,
    watched: HashMap<String, WatchDescriptor>,
    buffer: Vec<u8>,
}

impl Tree {
    /// Follows what is made in `root`.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let ready = fd_passing::awaited(inotify.as_fd().try_clone_to_owned()?)?;
        let (folders, pods, watched) = Default::default();
        let mut tree = Self { inotify, ready, root, folders, pods, watched, buffer: vec![0; BUFFER] };
        tree.follow(tree.root.clone())?;
        Ok(tree)
    }

    /// The folder of every pod.
    pub(super) fn all(&mut self) -> io::Result<HashMap<String, PathBuf>> {
        let mut found = HashMap::new();
        self.look(&self.root.clone(), &mut found)?;
        Ok(found)
    }

    /// What happened next.
    pub(super) async fn changes(&mut self) -> io::Result<Vec<Change>> {
        let (inotify, buffer) = (&mut self.inotify, &mut self.buffer);
        let read =
            |_: &OwnedFd| Ok(inotify.read_events(buffer)?.map(|event| event.to_owned()).collect::<Vec<_>>());
        let events: Vec<EventOwned> = self.ready.async_io(Interest::READABLE, read).await?;
        let mut changes = Vec::new();
        for event in events {
            self.understand(event, &mut changes)?;
        }
        Ok(changes)
    }

    /// Tells, from now on, when processes of the pod come or go.
    pub(super) fn watch(&mut self, uid: &str, folder: &Path) -> io::Result<()> {
        if self.watched.contains_key(uid) {
            return Ok(());
        }
        let watch = self.watches().add(folder.join("cgroup.events"), WatchMask::MODIFY)?;
        self.pods.insert(watch.clone(), uid.to_owned());
        self.watched.insert(uid.to_owned(), watch);
        Ok(())
    }

    /// Tells it no longer.
    pub(super) fn unwatch(&mut self, uid: &str) {
        if let Some(watch) = self.watched.remove(uid) {
            self.pods.remove(&watch);
            // It went with its file, most likely.
            let _ = self.watches().remove(watch);
        }
    }

    /// How many folders and files are watched.
    pub(super) fn watching(&self) -> usize {
        self.folders.len() + self.pods.len()
    }

    fn watches(&self) -> inotify::Watches {
        self.inotify.watches()
    }

    fn follow(&mut self, folder: PathBuf) -> io::Result<()> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let watch = self.watches().add(&folder, mask)?;
        self.folders.insert(watch, folder);
        Ok(())
    }

    /// Finds the pods in `folder`, and follows the folders in it that hold more of them.
    fn look(&mut self, folder: &Path, found: &mut HashMap<String, PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            if let Some(uid) = name.to_str().and_then(pod_uid) {
                found.insert(uid, entry.path());
            } else if holds_pods(&name) {
                // Followed first, so that nothing is made unseen.
                self.follow(entry.path())?;
                self.look(&entry.path(), found)?;
            }
        }
        Ok(())
    }

    fn understand(&mut self, event: EventOwned, changes: &mut Vec<Change>) -> io::Result<()> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            changes.push(Change::Anything);
            return Ok(());
        }
        if let Some(uid) = self.pods.get(&event.wd) {
            changes.push(Change::Populated(uid.clone()));
            return Ok(());
        }
        let (Some(folder), Some(name)) = (self.folders.get(&event.wd), event.name) else { return Ok(()) };
        let path = folder.join(&name);
        let is_made = event.mask.contains(EventMask::CREATE);
        match name.to_str().and_then(pod_uid) {
            Some(uid) if is_made => changes.push(Change::Made(uid, path)),
            Some(uid) => changes.push(Change::Removed(uid)),
            None if is_made && holds_pods(&name) => {
                self.follow(path.clone())?;
                let mut found = HashMap::new();
                self.look(&path, &mut found)?;
                changes.extend(found.into_iter().map(|(uid, path)| Change::Made(uid, path)));
            }
            None => {}
        }
        Ok(())
    }
}

/// Whether a folder of this name holds the pods of one quality of service.
fn holds_pods(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let name = name.strip_suffix(".slice").unwrap_or(&name);
    ["burstable", "besteffort"].iter().any(|quality| name.rsplit('-').next() == Some(quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3c1a2b-4d5e-6f70-8192-a3b4c5d6e7f8";
    const OTHER: &str = "1f3c1a2b-4d5e-6f70-8192-a3b4c5d6e7f8";

    #[tokio::test]
    async fn pods_of_either_driver_and_every_quality_are_seen_as_they_come_and_go() {
        for (quality, pod) in [
            ("burstable", format!("burstable/pod{UID}")),
            ("kubepods-besteffort.slice", {
                let uid = UID.replace('-', "_");
                format!("kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice")
            }),
        ] {
            let root = tempfile::tempdir().unwrap();
            let guaranteed = root.path().join(format!("kubepods-pod{}.slice", OTHER.replace('-', "_")));
            fs::create_dir(&guaranteed).unwrap();
            let mut tree = Tree::open(root.path().to_path_buf()).unwrap();
            assert_eq!(tree.all().unwrap(), HashMap::from([(OTHER.to_owned(), guaranteed.clone())]));
            // The folder and the pod in it, before anybody looks.
            fs::create_dir_all(root.path().join(&pod)).unwrap();
            fs::create_dir(root.path().join("init.scope")).unwrap();
            let changes = tree.changes().await.unwrap();
            assert_eq!(changes[0], Change::Made(UID.to_owned(), root.path().join(&pod)), "{changes:?}");
            fs::remove_dir(root.path().join(&pod)).unwrap();
            fs::remove_dir(&guaranteed).unwrap();
            let changes = tree.changes().await.unwrap();
            for uid in [UID, OTHER] {
                assert!(changes.contains(&Change::Removed(uid.to_owned())), "{quality}: {changes:?}");
            }
        }
    }
}
