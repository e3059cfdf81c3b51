//! Reproducible tar archives: entries sorted by name, one timestamp, numeric owners, and no user or host names.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// The entries of an archive, by path.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, Entry>);

struct Entry {
    /// A file's content; none for a folder.
    bytes: Option<Vec<u8>>,
    mode: u32,
    owner: u64,
}

impl Tree {
    /// Adds a file that root owns, and the folders above it.
    pub(super) fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry { bytes: Some(bytes.into()), mode, owner: 0 });
    }

    /// Adds a folder, and those above it.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u64) {
        self.parents(path);
        self.0.insert(format!("{path}/"), Entry { bytes: None, mode, owner });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let folder = Entry { bytes: None, mode: 0o755, owner: 0 };
            self.0.entry(path.get(..=at).unwrap_or_default().to_owned()).or_insert(folder);
        }
    }

    /// The archive, with `epoch` as the timestamp of every entry.
    pub(super) fn tar(&self, epoch: u64) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = Header::new_ustar();
            let bytes = entry.bytes.as_deref().unwrap_or_default();
            header.set_path(path)?;
            header.set_entry_type(if entry.bytes.is_some() {
                EntryType::Regular
            } else {
                EntryType::Directory
            });
            header.set_size(bytes.len() as u64);
            header.set_mode(entry.mode);
            header.set_uid(entry.owner);
            header.set_gid(entry.owner);
            header.set_mtime(epoch);
            header.set_cksum();
            builder.append(&header, bytes)?;
        }
        Ok(builder.into_inner()?)
    }
}

/// Compresses `bytes` with a gzip header that has neither time nor system.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_does_not_depend_on_insertion_order() {
        let fill = |turned: bool| {
            let mut tree = Tree::default();
            let mut steps: Vec<fn(&mut Tree)> = vec![
                |tree| tree.file("usr/bin/a", b"a".to_vec(), 0o755),
                |tree| tree.folder("var/lib/a", 0o700, 65532),
                |tree| tree.file("etc/b", b"b".to_vec(), 0o644),
            ];
            if turned {
                steps.reverse();
            }
            steps.into_iter().for_each(|step| step(&mut tree));
            gzip(&tree.tar(1_700_000_000).unwrap()).unwrap()
        };
        assert_eq!(fill(false), fill(true));
    }

    #[test]
    fn folder_precedes_its_files() {
        let mut tree = Tree::default();
        tree.file("a/b/c", b"x".to_vec(), 0o600);
        tree.folder("a/b", 0o711, 7);
        let tar = tree.tar(5).unwrap();
        let mut archive = tar::Archive::new(&*tar);
        let seen: Vec<(String, u32, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        assert_eq!(seen, [("a/".into(), 0o755, 0), ("a/b/".into(), 0o711, 7), ("a/b/c".into(), 0o600, 0)]);
    }
}
