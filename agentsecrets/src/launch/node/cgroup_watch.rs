//! Watches the cgroups of pods with inotify. It knows both cgroup drivers of the kubelet:
//! `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice` and
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

/// Enough for a burst of new pods.
const EVENT_BUFFER_LENGTH: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum CgroupChange {
    /// The pod with this uid has a cgroup, at this folder.
    Created(String, PathBuf),
    /// The pod's cgroup is gone.
    Removed(String),
    /// Processes of the pod started or ended.
    Populated(String),
    /// The event queue overflowed.
    RescanNeeded,
}

/// A watch on the hierarchy of pods' cgroups.
pub(super) struct CgroupWatch {
    inotify: Inotify,
    /// Readable when there are events.
    readiness: AsyncFd<OwnedFd>,
    root: PathBuf,
    /// Folders that hold those of pods.
    parent_watches: HashMap<WatchDescriptor, PathBuf>,
    pod_watches: HashMap<WatchDescriptor, String>,
    watches_by_pod: HashMap<String, WatchDescriptor>,
    buffer: Vec<u8>,
}

impl CgroupWatch {
    /// Watches the hierarchy at `root`.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let ready = fd_passing::async_fd(inotify.as_fd().try_clone_to_owned()?)?;
        let (folders, pods, watched) = Default::default();
        let mut tree = Self {
            inotify,
            readiness: ready,
            root,
            parent_watches: folders,
            pod_watches: pods,
            watches_by_pod: watched,
            buffer: vec![0; EVENT_BUFFER_LENGTH],
        };
        tree.watch_folder(tree.root.clone())?;
        Ok(tree)
    }

    /// The folder of every pod.
    pub(super) fn scan(&mut self) -> io::Result<HashMap<String, PathBuf>> {
        let mut found = HashMap::new();
        self.scan_folder(&self.root.clone(), &mut found)?;
        Ok(found)
    }

    pub(super) async fn next_changes(&mut self) -> io::Result<Vec<CgroupChange>> {
        let (inotify, buffer) = (&mut self.inotify, &mut self.buffer);
        let read =
            |_: &OwnedFd| Ok(inotify.read_events(buffer)?.map(|event| event.to_owned()).collect::<Vec<_>>());
        let events: Vec<EventOwned> = self.readiness.async_io(Interest::READABLE, read).await?;
        let mut changes = Vec::new();
        for event in events {
            self.handle_event(event, &mut changes)?;
        }
        Ok(changes)
    }

    /// Reports [`CgroupChange::Populated`] for the pod from now on.
    pub(super) fn watch(&mut self, uid: &str, folder: &Path) -> io::Result<()> {
        if self.watches_by_pod.contains_key(uid) {
            return Ok(());
        }
        let watch = self.watches().add(folder.join("cgroup.events"), WatchMask::MODIFY)?;
        self.pod_watches.insert(watch.clone(), uid.to_owned());
        self.watches_by_pod.insert(uid.to_owned(), watch);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, uid: &str) {
        if let Some(watch) = self.watches_by_pod.remove(uid) {
            self.pod_watches.remove(&watch);
            // Most likely the watch went with its file.
            let _ = self.watches().remove(watch);
        }
    }

    pub(super) fn watch_count(&self) -> usize {
        self.parent_watches.len() + self.pod_watches.len()
    }

    fn watches(&self) -> inotify::Watches {
        self.inotify.watches()
    }

    fn watch_folder(&mut self, folder: PathBuf) -> io::Result<()> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        let watch = self.watches().add(&folder, mask)?;
        self.parent_watches.insert(watch, folder);
        Ok(())
    }

    /// Finds the pods in `folder`, and watches its subfolders that hold pods.
    fn scan_folder(&mut self, folder: &Path, found: &mut HashMap<String, PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            if let Some(uid) = name.to_str().and_then(pod_uid) {
                found.insert(uid, entry.path());
            } else if is_qos_folder(&name) {
                // Watch before scanning, so that no pod is missed.
                self.watch_folder(entry.path())?;
                self.scan_folder(&entry.path(), found)?;
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, event: EventOwned, changes: &mut Vec<CgroupChange>) -> io::Result<()> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            changes.push(CgroupChange::RescanNeeded);
            return Ok(());
        }
        if let Some(uid) = self.pod_watches.get(&event.wd) {
            changes.push(CgroupChange::Populated(uid.clone()));
            return Ok(());
        }
        let (Some(folder), Some(name)) = (self.parent_watches.get(&event.wd), event.name) else {
            return Ok(());
        };
        let path = folder.join(&name);
        let is_made = event.mask.contains(EventMask::CREATE);
        match name.to_str().and_then(pod_uid) {
            Some(uid) if is_made => changes.push(CgroupChange::Created(uid, path)),
            Some(uid) => changes.push(CgroupChange::Removed(uid)),
            None if is_made && is_qos_folder(&name) => {
                self.watch_folder(path.clone())?;
                let mut found = HashMap::new();
                self.scan_folder(&path, &mut found)?;
                changes.extend(found.into_iter().map(|(uid, path)| CgroupChange::Created(uid, path)));
            }
            None => {}
        }
        Ok(())
    }
}

/// Whether a folder of this name holds the pods of one quality-of-service class.
fn is_qos_folder(name: &OsStr) -> bool {
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
    async fn created_and_removed_pods_are_reported() {
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
            let mut tree = CgroupWatch::open(root.path().to_path_buf()).unwrap();
            assert_eq!(tree.scan().unwrap(), HashMap::from([(OTHER.to_owned(), guaranteed.clone())]));
            // The folder and the pod in it, before the first scan.
            fs::create_dir_all(root.path().join(&pod)).unwrap();
            fs::create_dir(root.path().join("init.scope")).unwrap();
            let changes = tree.next_changes().await.unwrap();
            assert_eq!(
                changes[0],
                CgroupChange::Created(UID.to_owned(), root.path().join(&pod)),
                "{changes:?}"
            );
            fs::remove_dir(root.path().join(&pod)).unwrap();
            fs::remove_dir(&guaranteed).unwrap();
            let changes = tree.next_changes().await.unwrap();
            for uid in [UID, OTHER] {
                assert!(changes.contains(&CgroupChange::Removed(uid.to_owned())), "{quality}: {changes:?}");
            }
        }
    }
}
