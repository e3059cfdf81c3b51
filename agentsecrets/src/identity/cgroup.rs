//! The host's tree of cgroups, looked at from wherever it is mounted: which path an id stands for. The id of a
//! cgroup is the inode of its folder, and is given once. What a process says of its own path counts for
//! nothing here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moka::sync::Cache;

const MAX_CACHED: u64 = 4096;
/// Upper bound on the folders that are searched for one id.
const MAX_SEARCHED: usize = 10_000;

/// The part of the tree that is below one cgroup.
#[derive(Clone)]
pub struct CgroupTree {
    root: PathBuf,
    below: String,
    known: Cache<u64, Arc<str>>,
}

impl CgroupTree {
    /// The subtree below the cgroup `below`, a path such as `/agentsecrets.slice`, of the tree at `root`.
    pub fn new(root: PathBuf, below: String) -> Self {
        Self { root, below, known: Cache::new(MAX_CACHED) }
    }

    /// The subtree below the cgroup `below` of the same tree, with the same cache.
    #[must_use]
    pub fn part(&self, below: String) -> Self {
        Self { below, ..self.clone() }
    }

    /// The path of the cgroup with this id, if it is below and exists.
    pub fn path(&self, id: u64) -> io::Result<Option<Arc<str>>> {
        // A known one may be gone, but its id will never be another's.
        if let Some(path) = self.known.get(&id) {
            return Ok(Some(path).filter(|path| is_below(path, &self.below)));
        }
        let found = search(&self.root.join(self.below.trim_start_matches('/')), id)?;
        let path = found.as_deref().and_then(|found| path_in(&self.root, found));
        let path: Option<Arc<str>> = path.map(Into::into);
        if let Some(path) = &path {
            self.known.insert(id, path.clone());
        }
        Ok(path)
    }
}

/// Whether the path `cgroup` is `above` or below it.
pub fn is_below(cgroup: &str, above: &str) -> bool {
    cgroup.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The folder with this inode, `top` or below it.
pub fn search(top: &Path, id: u64) -> io::Result<Option<PathBuf>> {
    if fs::metadata(top)?.ino() == id {
        return Ok(Some(top.to_path_buf()));
    }
    let mut waiting = std::collections::VecDeque::from([top.to_path_buf()]);
    let mut looked_at = 0;
    while let Some(folder) = waiting.pop_front() {
        // Removed since it was listed.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.ino() == id {
                return Ok(Some(entry.path()));
            }
            looked_at += 1;
            if looked_at > MAX_SEARCHED {
                return Err(io::Error::other("there are too many cgroups to look through"));
            }
            waiting.push_back(entry.path());
        }
    }
    Ok(None)
}

/// `folder` as a path of the tree at `root`.
pub fn path_in(root: &Path, folder: &Path) -> Option<String> {
    let inside = folder.strip_prefix(root).ok()?.to_str()?;
    Some(format!("/{inside}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_inode_of_folder_below() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["ours/one", "ours/two/deep", "others/three"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let id = |folder: &str| fs::metadata(root.path().join(folder)).unwrap().ino();
        let tree = CgroupTree::new(root.path().to_path_buf(), "/ours".to_owned());
        for folder in ["ours", "ours/one", "ours/two/deep"] {
            assert_eq!(tree.path(id(folder)).unwrap().as_deref(), Some(&*format!("/{folder}")));
        }
        assert_eq!(tree.path(id("others/three")).unwrap(), None);
        assert_eq!(tree.path(1).unwrap(), None);
        let part = tree.part("/ours/one".to_owned());
        assert_eq!(part.path(id("ours/one")).unwrap().as_deref(), Some("/ours/one"));
        assert_eq!(part.path(id("ours/two/deep")).unwrap(), None, "known to the whole, and not in this part");
    }
}
