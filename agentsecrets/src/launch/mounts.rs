//! The few kinds of mounts in the agent's sandbox; each fails closed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use procfs::ProcError;
use procfs::process::Process;

/// A mount in the calling process's mount namespace.
#[derive(Debug)]
pub(crate) struct MountPoint {
    pub(crate) path: PathBuf,
    /// The folder of its file system that is mounted.
    pub(crate) root: String,
    /// The type of file system, such as `cgroup2`.
    pub(crate) kind: String,
}

pub(crate) fn mount_table() -> io::Result<Vec<MountPoint>> {
    let mounts = Process::myself().and_then(|myself| myself.mountinfo()).map_err(|error| match error {
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    })?;
    let mounted = mounts.into_iter().map(|mount| MountPoint {
        path: mount.mount_point,
        root: mount.root,
        kind: mount.fs_type,
    });
    Ok(mounted.collect())
}

/// The mount point of the BPF file system; mounts it at its usual place if needed.
pub(crate) fn find_or_mount_bpffs() -> io::Result<PathBuf> {
    if let Some(mounted) = mount_table()?.into_iter().find(|mount| mount.kind == "bpf" && mount.root == "/") {
        return Ok(mounted.path);
    }
    let usual = PathBuf::from("/sys/fs/bpf");
    mount_new("bpf", &usual, MsFlags::MS_NODEV, "mode=0700")?;
    Ok(usual)
}

/// Stops the propagation of mounts to and from the parent namespace.
pub(crate) fn detach_from_host() -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Mounts a new file system of `kind` at `point`.
pub(crate) fn mount_new(kind: &str, point: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(kind), point, Some(kind), flags, Some(options)).map_err(|error| with_path(error, point))
}

/// Makes `point` a mount of its own with the same content: it can no longer be renamed or removed.
pub(crate) fn bind_to_self(point: &Path) -> io::Result<()> {
    bind_mount(point, point)
}

/// Bind-mounts `what` at `point`, with everything mounted below it.
pub(crate) fn bind_mount(what: &Path, point: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(what), point, None::<&str>, flags, None::<&str>).map_err(|error| with_path(error, point))
}

/// Makes `point` read-only for everybody in this mount namespace.
pub(crate) fn bind_read_only(point: &Path) -> io::Result<()> {
    bind_to_self(point)?;
    remount_read_only(point)
}

/// Makes the mount at `point` read-only; its other restrictions stay.
pub(crate) fn remount_read_only(point: &Path) -> io::Result<()> {
    let now = statvfs(point)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (is, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ] {
        flags.set(keep, now.contains(is));
    }
    mount(None::<&str>, point, None::<&str>, flags, None::<&str>).map_err(|error| with_path(error, point))
}

/// Masks `path`: a folder by an empty one, anything else by `/dev/null`. A missing path needs no mask; links
/// are followed, so that their targets are masked.
pub(crate) fn mask_path(path: &Path) -> io::Result<()> {
    mask_folder_with(path, &[])
}

/// Masks the folder `path` by a read-only one that holds only `files`, by their relative paths.
pub(crate) fn mask_folder_with(path: &Path, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if !path.is_dir() {
        return bind_mount(Path::new("/dev/null"), &path);
    }
    mount_new("tmpfs", &path, MsFlags::MS_NODEV, "mode=0755,size=64m")?;
    for (name, bytes) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&path))?;
        fs::write(file, bytes)?;
    }
    remount_read_only(&path)
}

/// Adds the path to the system's error.
fn with_path(error: nix::Error, path: &Path) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
