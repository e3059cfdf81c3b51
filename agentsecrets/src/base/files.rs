//! Files of ours: 0600 in folders of 0700, written whole or not at all. What root makes in somebody's
//! folder is theirs, or they could not read it the next time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes `folder` and its parents, readable by their owner alone.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        private_folder(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        made => made?,
    }
    #[cfg(unix)]
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        give(&File::open(folder)?, parent)?;
    }
    Ok(())
}

/// Gives a new file or folder to the owner of the folder that it is in, where we are another user and may.
#[cfg(unix)]
fn give(file: &File, folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let (own, theirs) = (file.metadata()?, fs::metadata(folder)?);
    if own.uid() == theirs.uid() {
        return Ok(());
    }
    match fchown(file, Some(theirs.uid()), Some(theirs.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Opens `path` to read. A descriptor that we were given is read as it is, whoever may open its file.
pub fn open(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    if let Some(number) = path.to_str().and_then(|path| path.strip_prefix("/dev/fd/")?.parse().ok()) {
        return super::sys::rights::duplicate(number).map(File::from);
    }
    File::open(path)
}

/// Replaces `path` with `bytes` in one step: another process sees the old file or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    // tempfile makes its files 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    give(file.as_file(), folder)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Replaces a file of somebody else's program at `path`, which may be a link, with `bytes` in one step: whose it
/// is and who may read it stays as it is.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (was, folder) = (fs::metadata(&path)?, path.parent().unwrap_or(Path::new(".")));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (was.uid(), was.gid()) {
            fchown(file.as_file(), Some(was.uid()), Some(was.gid()))?;
        }
    }
    file.as_file().set_permissions(was.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Opens `path` for appending, making it 0600 if it is new.
pub fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        private_folder(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).read(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let new = !path.exists();
    let file = options.open(path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|_| new) {
        give(&file, folder)?;
    }
    Ok(file)
}

/// Fails if anybody but its owner may read or write the open `file`.
#[cfg(unix)]
pub fn check_private(file: &File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = format!(
            "{} can be read or written by others (mode {:04o}); run: chmod 600 {}",
            path.display(),
            mode & 0o7777,
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}
