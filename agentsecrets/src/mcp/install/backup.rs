//! What files were before we edited them: in our own home, where nobody else reads it, since other servers'
//! entries may hold credentials.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::sys::files;

/// The folder of what was.
pub struct Kept(PathBuf);

/// What one file was before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Before {
    file: PathBuf,
    /// Where its former bytes are; nowhere, if there was no file.
    former: Option<PathBuf>,
    /// Whether the key of servers is ours.
    pub(super) made_key: bool,
    /// The folder that was made for it.
    pub(super) made_folder: Option<PathBuf>,
    /// The hash of what it was when we had edited it; nothing, if that is not the former with our edit.
    after: Option<String>,
}

impl Kept {
    /// What is kept in `folder`.
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Keeps what `file` `was`, before it is edited for the first time; says where the bytes are too.
    pub(super) fn before(
        &self,
        file: &Path,
        was: Option<&str>,
        made_key: bool,
        made_folder: Option<PathBuf>,
    ) -> io::Result<(Before, Option<PathBuf>)> {
        if let Some(mut before) = self.of(file)? {
            // It was edited by us already: what it was before that is what counts, if it can be had back.
            if !before.is_untouched(was.unwrap_or_default().as_bytes()) {
                before.after = None;
                before.made_key |= made_key;
                let newest = self.keep(file, "newest", was)?;
                return Ok((before, newest));
            }
            let former = before.former.clone();
            return Ok((before, former));
        }
        let former = self.keep(file, "former", was)?;
        let (file, after) = (file.to_path_buf(), Some(String::new()));
        Ok((Before { file, former: former.clone(), made_key, made_folder, after }, former))
    }

    /// Notes that `file` is `bytes` now.
    pub(super) fn after(&self, file: &Path, mut before: Before, bytes: &[u8]) -> io::Result<()> {
        before.after = before.after.map(|_| hash(bytes));
        files::replace(&self.path(file, "json"), &serde_json::to_vec(&before)?)
    }

    /// What `file` was before, if we edited it.
    pub(super) fn of(&self, file: &Path) -> io::Result<Option<Before>> {
        match fs::read(self.path(file, "json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map(Some)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets what `file` was.
    pub(super) fn forget(&self, file: &Path) -> io::Result<()> {
        for kind in ["json", "former", "newest"] {
            match fs::remove_file(self.path(file, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn keep(&self, file: &Path, kind: &str, was: Option<&str>) -> io::Result<Option<PathBuf>> {
        let Some(was) = was else { return Ok(None) };
        let path = self.path(file, kind);
        files::replace(&path, was.as_bytes())?;
        Ok(Some(path))
    }

    fn path(&self, file: &Path, kind: &str) -> PathBuf {
        self.0.join(format!("{}.{kind}", hash(file.as_os_str().as_encoded_bytes())))
    }
}

impl Before {
    /// Whether the file, which is `bytes`, is as we left it, and so can be what it was.
    pub(super) fn is_untouched(&self, bytes: &[u8]) -> bool {
        self.after.as_ref().is_some_and(|after| *after == hash(bytes))
    }

    /// What it was; nothing, if there was no file.
    pub(super) fn bytes(&self) -> io::Result<Option<Vec<u8>>> {
        self.former.as_ref().map(fs::read).transpose()
    }
}

fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}
