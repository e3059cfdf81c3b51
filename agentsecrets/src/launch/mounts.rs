//! Mounting: the few shapes of mount that the agent's view is made of, each failing closed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use procfs::ProcError;
use procfs::process::Process;

/// One mount of the calling process's mount namespace.
#[derive(Debug)]
pub struct Mounted {
    /// Where it is.
    pub point: PathBuf,
    /// Which folder of its file system it shows.
    pub root: String,
    /// The kind of file system, such as `cgroup2`.
    pub kind: String,
}

/// Every mount that the calling process can see.
pub fn table() -> io::Result<Vec<Mounted>> {
    let mounts = Process::myself().and_then(|myself| myself.mountinfo()).map_err(|error| match error {
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    })?;
    let mounted = mounts.into_iter().map(|mount| Mounted {
        point: mount.mount_point,
        root: mount.root,
        kind: mount.fs_type,
    });
    Ok(mounted.collect())
}

/// Where the BPF file system is mounted; mounts it at its usual place if it is nowhere.
pub fn bpffs() -> io::Result<PathBuf> {
    if let Some(mounted) = table()?.into_iter().find(|mount| mount.kind == "bpf" && mount.root == "/") {
        return Ok(mounted.point);
    }
    let usual = PathBuf::from("/sys/fs/bpf");
    fresh("bpf", &usual, MsFlags::MS_NODEV, "mode=0700")?;
    Ok(usual)
}

/// Ends the exchange of mounts with the namespace that we came from.
pub fn detach_from_host() -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Mounts a new file system of `kind` at `point`.
pub fn fresh(kind: &str, point: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(kind), point, Some(kind), flags, Some(options)).map_err(|error| named(error, point))
}

/// Makes `point` a mount of its own, still the same file or folder: it can no longer be renamed or removed.
pub fn pin(point: &Path) -> io::Result<()> {
    show(point, point)
}

/// Shows `what` at `point`, with everything mounted below it.
pub fn show(what: &Path, point: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(what), point, None::<&str>, flags, None::<&str>).map_err(|error| named(error, point))
}

/// Makes `point` read-only, for everybody in this mount namespace.
pub fn protect(point: &Path) -> io::Result<()> {
    pin(point)?;
    read_only(point)
}

/// Makes the mount at `point` read-only; its other restrictions stay.
pub fn read_only(point: &Path) -> io::Result<()> {
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
    mount(None::<&str>, point, None::<&str>, flags, None::<&str>).map_err(|error| named(error, point))
}

/// Covers `path` with nothing: a folder with an empty one, anything else with `/dev/null`. What is not
/// there needs no cover; links are followed, so that what they lead to is covered.
pub fn cover(path: &Path) -> io::Result<()> {
    cover_with(path, &[])
}

/// Covers the folder `path` with a read-only one that holds `files` alone, by their relative paths.
pub fn cover_with(path: &Path, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if !path.is_dir() {
        return show(Path::new("/dev/null"), &path);
    }
    fresh("tmpfs", &path, MsFlags::MS_NODEV, "mode=0755,size=64m")?;
    for (name, bytes) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&path))?;
        fs::write(file, bytes)?;
    }
    read_only(&path)
}

/// The system's words with the path that they are about.
fn named(error: nix::Error, path: &Path) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
