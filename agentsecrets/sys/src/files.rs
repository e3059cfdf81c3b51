//! Files of ours, their owner's alone (0600 in folders of 0700 where there are modes), written whole or not
//! at all. What root makes in somebody's folder is theirs, or they could not read it the next time.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub use crate::check_private;

/// Makes `folder` and its parents, readable by their owner alone.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        private_folder(parent)?;
    }
    match crate::create_private_folder(folder) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        made => made?,
    }
    parent.map_or(Ok(()), |parent| crate::give_folder(folder, parent))
}

/// Opens `path` to read. A descriptor that we were given is read as it is, whoever may open its file.
pub fn open(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    if let Some(number) = path.to_str().and_then(|path| path.strip_prefix("/dev/fd/")?.parse().ok()) {
        return crate::fd_passing::duplicate(number).map(File::from);
    }
    File::open(path)
}

/// Replaces `path` with `bytes` in one step: another process sees the old file or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    // tempfile makes its files 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    crate::make_private(file.path())?;
    file.write_all(bytes)?;
    crate::give(file.as_file(), folder)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    crate::sync_folder(folder)
}

/// Replaces a file of somebody else's program at `path`, which may be a link, with `bytes` in one step: whose it
/// is and who may read it stays as it is.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (was, folder) = (fs::metadata(&path)?, path.parent().unwrap_or(Path::new(".")));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    crate::give_as(file.as_file(), &was)?;
    file.as_file().set_permissions(was.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    crate::sync_folder(folder)
}

/// Opens `path` for appending, making it its owner's alone if it is new.
pub fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        private_folder(folder)?;
    }
    let new = !path.exists();
    let file = crate::append(path)?;
    if new {
        crate::make_private(path)?;
    }
    if let Some(folder) = path.parent().filter(|_| new) {
        crate::give(&file, folder)?;
    }
    Ok(file)
}

/// Whether `program` can be seen at all. A folder in PATH that a user may not enter makes the system say
/// "permission denied" of every program that is nowhere else.
pub fn is_visible(program: &OsStr) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 || path.is_absolute() {
        return path.symlink_metadata().is_ok();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(path).is_file())
}
