//! Backups of configuration files from before our edit. They are in our own home, which others cannot read,
//! since entries of other servers may hold credentials.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::sys::files;

/// The folder of backups.
pub(crate) struct Backups(PathBuf);

/// The backup of one file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Backup {
    file: PathBuf,
    /// The copy of the original; none if there was no file.
    #[serde(rename = "former")]
    original: Option<PathBuf>,
    /// Whether we created the key of servers.
    pub(super) made_key: bool,
    /// The folder that we created for the file.
    pub(super) made_folder: Option<PathBuf>,
    /// The hash of the file after our edit; none if that is not just the original with our edit.
    #[serde(rename = "after")]
    edited_hash: Option<String>,
}

impl Backups {
    /// The backups in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Saves the content `was` of `file` before its first edit, and returns the path of the copy too.
    pub(super) fn save(
        &self,
        file: &Path,
        was: Option<&str>,
        made_key: bool,
        made_folder: Option<PathBuf>,
    ) -> io::Result<(Backup, Option<PathBuf>)> {
        if let Some(mut before) = self.load(file)? {
            // A file that we edited before keeps its original, unless others changed it since.
            if !before.is_untouched(was.unwrap_or_default().as_bytes()) {
                before.edited_hash = None;
                before.made_key |= made_key;
                let newest = self.write_copy(file, "newest", was)?;
                return Ok((before, newest));
            }
            let original = before.original.clone();
            return Ok((before, original));
        }
        let original = self.write_copy(file, "former", was)?;
        let (file, edited_hash) = (file.to_path_buf(), Some(String::new()));
        Ok((Backup { file, original: original.clone(), made_key, made_folder, edited_hash }, original))
    }

    /// Records the content of `file` after our edit.
    pub(super) fn record_edit(&self, file: &Path, mut before: Backup, bytes: &[u8]) -> io::Result<()> {
        before.edited_hash = before.edited_hash.map(|_| hash(bytes));
        files::replace(&self.path(file, "json"), &serde_json::to_vec(&before)?)
    }

    /// The backup of `file`, if we edited it.
    pub(super) fn load(&self, file: &Path) -> io::Result<Option<Backup>> {
        match fs::read(self.path(file, "json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map(Some)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the backup of `file`.
    pub(super) fn forget(&self, file: &Path) -> io::Result<()> {
        for kind in ["json", "former", "newest"] {
            match fs::remove_file(self.path(file, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_copy(&self, file: &Path, kind: &str, was: Option<&str>) -> io::Result<Option<PathBuf>> {
        let Some(was) = was else { return Ok(None) };
        let path = self.path(file, kind);
        files::replace(&path, was.as_bytes())?;
        Ok(Some(path))
    }

    fn path(&self, file: &Path, kind: &str) -> PathBuf {
        self.0.join(format!("{}.{kind}", hash(file.as_os_str().as_encoded_bytes())))
    }
}

impl Backup {
    /// Whether the content `bytes` of the file is unchanged since our edit, so that the original can be
    /// restored.
    pub(super) fn is_untouched(&self, bytes: &[u8]) -> bool {
        self.edited_hash.as_ref().is_some_and(|edited| *edited == hash(bytes))
    }

    /// The original; none if there was no file.
    pub(super) fn original_bytes(&self) -> io::Result<Option<Vec<u8>>> {
        self.original.as_ref().map(fs::read).transpose()
    }
}

fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}
