//! Our entry in clients' configuration files: added to what is there, which stays as it is to the last comment,
//! and taken out again. What a file was before is kept, so that it can be had back to the byte.

mod backup;
mod clients;
mod document;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::sys::files;
use crate::types::failure::{Exit, Failure};

pub use backup::Kept;
pub use clients::{Client, Folders, System};
pub use document::Entry;

use backup::Before;
use document::{Bad, Document};

/// The largest file that is edited, in bytes.
const LARGEST: u64 = 64 << 20;

/// A file of a client's, and where in it servers stand.
#[derive(Debug)]
pub struct Target {
    /// Whose.
    pub client: Client,
    /// The file.
    pub file: PathBuf,
    /// Whether others share it, so that it is readable to them.
    pub is_shared: bool,
}

/// What was, or would be, done to a file.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Whose file.
    pub client: Client,
    /// The file.
    pub file: PathBuf,
    /// What.
    pub done: Done,
    /// Where what it was before is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<PathBuf>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// Our entry was added.
    Added,
    /// Our entry was brought up to date.
    Updated,
    /// There was nothing to do.
    Unchanged,
    /// Our entry was taken out.
    Removed,
    /// The file is what it was before.
    Restored,
}

/// Puts `entry` into the file of `target`; with `dry`, only says what would be done.
pub fn install(target: &Target, entry: &Entry, kept: &Kept, dry: bool) -> Result<Change, Failure> {
    let change = |done, before| Change { client: target.client, file: target.file.clone(), done, before };
    let was = read(&target.file)?;
    let document = Document::parse(was.as_deref().unwrap_or_default());
    let document = document.map_err(|bad| unusable(&target.file, &bad))?;
    let had_one = document.has(target.client.key());
    let edited = document.with(target.client.key(), entry).map_err(|bad| unusable(&target.file, &bad))?;
    if was.as_deref() == Some(edited.text.as_str()) {
        return Ok(change(Done::Unchanged, None));
    }
    let done = if had_one { Done::Updated } else { Done::Added };
    if dry {
        return Ok(change(done, None));
    }
    let failed = |error: io::Error| unwritable(&target.file, &error);
    let made = target.file.parent().filter(|folder| !folder.exists()).map(Path::to_path_buf);
    let before = kept.before(&target.file, was.as_deref(), edited.made_key, made).map_err(failed)?;
    let (before, path) = before;
    if read(&target.file)? != was {
        let what = format!("{} was changed by another program meanwhile", target.file.display());
        return Err(Failure::new(Exit::Failure, what).hint("run this again"));
    }
    let bytes = edited.text.as_bytes();
    match was {
        Some(_) => files::rewrite(&target.file, bytes),
        None if target.is_shared => make_shared(&target.file, bytes),
        None => files::replace(&target.file, bytes),
    }
    .map_err(failed)?;
    kept.after(&target.file, before, bytes).map_err(failed)?;
    Ok(change(done, path))
}

/// Takes our entry out of the file of `target`. Where nothing else was changed since it was put in, the file is
/// again what it was.
pub fn uninstall(target: &Target, kept: &Kept, dry: bool) -> Result<Change, Failure> {
    let change = |done| Change { client: target.client, file: target.file.clone(), done, before: None };
    let failed = |error: io::Error| unwritable(&target.file, &error);
    let Some(was) = read(&target.file)? else { return Ok(change(Done::Unchanged)) };
    let before = kept.of(&target.file).map_err(failed)?;
    if let Some(before) = before.as_ref().filter(|before| before.is_untouched(was.as_bytes())) {
        if !dry {
            restore(&target.file, before).map_err(failed)?;
            kept.forget(&target.file).map_err(failed)?;
        }
        return Ok(change(Done::Restored));
    }
    let document = Document::parse(&was).map_err(|bad| unusable(&target.file, &bad))?;
    let made_key = before.as_ref().is_some_and(|before| before.made_key);
    let edited =
        document.without(target.client.key(), made_key).map_err(|bad| unusable(&target.file, &bad))?;
    let Some(text) = edited else { return Ok(change(Done::Unchanged)) };
    if !dry {
        files::rewrite(&target.file, text.as_bytes()).map_err(failed)?;
        kept.forget(&target.file).map_err(failed)?;
    }
    Ok(change(Done::Removed))
}

/// Whether our entry stands in the file of `target`, or we have a record of it.
pub fn is_installed(target: &Target, kept: &Kept) -> bool {
    let is_kept = kept.of(&target.file).is_ok_and(|before| before.is_some());
    let text = read(&target.file).ok().flatten();
    is_kept || text.and_then(|text| Some(Document::parse(&text).ok()?.has(target.client.key()))) == Some(true)
}

fn restore(file: &Path, before: &Before) -> io::Result<()> {
    if let Some(bytes) = before.bytes()? {
        return files::rewrite(file, &bytes);
    }
    fs::remove_file(file)?;
    if let Some(folder) = &before.made_folder {
        // Not if something else was put there.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Makes a file that others may read, in folders that they may enter.
fn make_shared(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(file).and_then(|mut file| io::Write::write_all(&mut file, bytes))
}

/// The text of `file`; none if it does not exist.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("{} cannot be read: {why}", file.display()))
    };
    match fs::metadata(file) {
        Ok(found) if !found.is_file() => return Err(failed(&"it is no file")),
        Ok(found) if found.len() > LARGEST => {
            return Err(failed(&format!("it is larger than {} MiB", LARGEST >> 20)));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::symlink_metadata(file) {
                Ok(_) => Err(failed(&"it is a link that leads nowhere")),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(failed(&error)),
    }
    let bytes = fs::read(file).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&"it is no UTF-8"))
}

fn unusable(file: &Path, bad: &Bad) -> Failure {
    let what = format!("{}:{}: {}", file.display(), bad.line, bad.why);
    Failure::new(Exit::Failure, what).hint("it was left as it is: correct it, then run this again")
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("{} cannot be changed: {error}", file.display()))
}
