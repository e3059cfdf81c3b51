//! Adds our entry to the configuration files of MCP clients, and removes it. The rest of a file is unchanged,
//! including comments, and the original is saved so that it can be restored exactly.

mod backup;
mod clients;
mod document;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::sys::files;
use crate::types::failure::{Exit, Failure};

pub(crate) use backup::Backups;
pub(crate) use clients::{Client, ConfigFile, Folders, System};
pub(crate) use document::ServerEntry;

use backup::Backup;
use document::{Document, EditError};

const MAX_FILE_BYTES: u64 = 64 << 20;

/// A change of a file, made or planned.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) client: Client,
    pub(crate) file: PathBuf,
    /// The kind of the change.
    pub(crate) done: Outcome,
    /// The copy of the original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<PathBuf>,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Our entry was added.
    Added,
    /// Our entry was updated.
    Updated,
    /// Nothing was changed.
    Unchanged,
    /// Our entry was removed.
    Removed,
    /// The original file was restored.
    Restored,
}

/// Adds `entry` to the file of `target`; with `dry` it changes nothing.
pub(crate) fn install(
    target: &ConfigFile,
    entry: &ServerEntry,
    backups: &Backups,
    dry: bool,
) -> Result<Change, Failure> {
    let change = |done, before| Change { client: target.client, file: target.file.clone(), done, before };
    let was = read(&target.file)?;
    let document = Document::parse(was.as_deref().unwrap_or_default());
    let document = document.map_err(|bad| unusable(&target.file, &bad))?;
    let had_one = document.has_entry(target.client.key());
    let edited =
        document.with_entry(target.client.key(), entry).map_err(|bad| unusable(&target.file, &bad))?;
    if was.as_deref() == Some(edited.text.as_str()) {
        return Ok(change(Outcome::Unchanged, None));
    }
    let done = if had_one { Outcome::Updated } else { Outcome::Added };
    if dry {
        return Ok(change(done, None));
    }
    let failed = |error: io::Error| unwritable(&target.file, &error);
    let made = target.file.parent().filter(|folder| !folder.exists()).map(Path::to_path_buf);
    let before = backups.save(&target.file, was.as_deref(), edited.made_key, made).map_err(failed)?;
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
    backups.record_edit(&target.file, before, bytes).map_err(failed)?;
    Ok(change(done, path))
}

/// Removes our entry from the file of `target`. If nothing else was changed since the installation, the
/// original is restored.
pub(crate) fn uninstall(target: &ConfigFile, backups: &Backups, dry: bool) -> Result<Change, Failure> {
    let change = |done| Change { client: target.client, file: target.file.clone(), done, before: None };
    let failed = |error: io::Error| unwritable(&target.file, &error);
    let Some(was) = read(&target.file)? else { return Ok(change(Outcome::Unchanged)) };
    let before = backups.load(&target.file).map_err(failed)?;
    if let Some(before) = before.as_ref().filter(|before| before.is_untouched(was.as_bytes())) {
        if !dry {
            restore(&target.file, before).map_err(failed)?;
            backups.forget(&target.file).map_err(failed)?;
        }
        return Ok(change(Outcome::Restored));
    }
    let document = Document::parse(&was).map_err(|bad| unusable(&target.file, &bad))?;
    let made_key = before.as_ref().is_some_and(|before| before.made_key);
    let edited =
        document.without_entry(target.client.key(), made_key).map_err(|bad| unusable(&target.file, &bad))?;
    let Some(text) = edited else { return Ok(change(Outcome::Unchanged)) };
    if !dry {
        files::rewrite(&target.file, text.as_bytes()).map_err(failed)?;
        backups.forget(&target.file).map_err(failed)?;
    }
    Ok(change(Outcome::Removed))
}

/// Whether the file of `target` has our entry, or a backup of it exists.
pub(crate) fn is_installed(target: &ConfigFile, backups: &Backups) -> bool {
    let is_kept = backups.load(&target.file).is_ok_and(|before| before.is_some());
    let text = read(&target.file).ok().flatten();
    is_kept
        || text.and_then(|text| Some(Document::parse(&text).ok()?.has_entry(target.client.key())))
            == Some(true)
}

fn restore(file: &Path, before: &Backup) -> io::Result<()> {
    if let Some(bytes) = before.original_bytes()? {
        return files::rewrite(file, &bytes);
    }
    fs::remove_file(file)?;
    if let Some(folder) = &before.made_folder {
        // Fails if the folder has other files, which is right.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Creates a file that others may read, in folders that they may enter.
fn make_shared(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(file).and_then(|mut file| io::Write::write_all(&mut file, bytes))
}

/// Reads `file`; none if it does not exist.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("{} cannot be read: {reason}", file.display()))
    };
    match fs::metadata(file) {
        Ok(found) if !found.is_file() => return Err(failed(&"it is not a file")),
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            return Err(failed(&format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20)));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::symlink_metadata(file) {
                Ok(_) => Err(failed(&"it is a link without a target")),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(failed(&error)),
    }
    let bytes = fs::read(file).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map(Some).map_err(|_| failed(&"it is not UTF-8"))
}

fn unusable(file: &Path, bad: &EditError) -> Failure {
    let what = format!("{}:{}: {}", file.display(), bad.line, bad.reason);
    Failure::new(Exit::Failure, what).hint("the file is unchanged: correct it, then run this again")
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format!("{} cannot be changed: {error}", file.display()))
}
