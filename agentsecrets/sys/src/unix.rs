//! Functions that Linux and macOS share: file modes, signals, leaving the terminal.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, setsid};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::file_version::Version;
#[cfg(target_os = "linux")]
use crate::linux::MAX_DESCRIPTORS;
#[cfg(target_os = "macos")]
use crate::macos::MAX_DESCRIPTORS;

impl Version {
    /// Of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            file: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The program to start for this name: the system finds it.
pub fn runnable(program: &OsStr) -> &OsStr {
    program
}

/// The file of names that the system knows by itself.
pub fn hosts_file() -> PathBuf {
    "/etc/hosts".into()
}

/// The command that makes a shell's programs use the proxy.
pub const USE_PROXY: &str = "eval \"$(agentsecrets proxy env)\"";

/// When a file last changed, by a clock that nobody sets but root.
pub fn last_change(metadata: &Metadata) -> Option<SystemTime> {
    let changed = u64::try_from(metadata.ctime()).map(Duration::from_secs).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(changed)
}

/// Whether what `metadata` is of is root's, and nobody else may write to it.
pub fn is_roots_alone(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}

/// Our standard output, without the buffer before it.
pub fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Makes a folder that is its owner's alone.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Opens `path` for appending; a new file is its owner's alone.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(path)
}

/// Listens at `address`, which nobody else can then.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// Locks a file that others read meanwhile.
pub fn try_lock(file: &File) -> Result<(), TryLockError> {
    file.try_lock()
}

/// Gives up that lock.
pub fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

/// Nothing: a new file of ours is its owner's alone from the start.
pub fn make_private(_file: &Path) -> io::Result<()> {
    Ok(())
}

/// Gives a new file or folder to the owner of the folder that it is in, where we are another user and may.
pub fn give(new: &File, folder: &Path) -> io::Result<()> {
    let (own, theirs) = (new.metadata()?, fs::metadata(folder)?);
    if own.uid() == theirs.uid() {
        return Ok(());
    }
    match fchown(new, Some(theirs.uid()), Some(theirs.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Gives a new file to the owner and the group of what it replaces.
pub fn give_as(new: &File, was: &Metadata) -> io::Result<()> {
    let own = new.metadata()?;
    if (own.uid(), own.gid()) == (was.uid(), was.gid()) {
        return Ok(());
    }
    fchown(new, Some(was.uid()), Some(was.gid()))
}

/// The same for a new folder.
pub fn give_folder(new: &Path, folder: &Path) -> io::Result<()> {
    give(&File::open(new)?, folder)
}

/// Brings what was renamed in `folder` to the disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Fails if anybody but its owner may read or write the open `file`.
pub fn check_private(file: &File, path: &Path) -> io::Result<()> {
    check_mode(file.metadata()?.permissions().mode(), path, "chmod 600")
}

/// Fails if anybody but its owner may look into the folder at `path`.
pub fn check_private_folder(path: &Path) -> io::Result<()> {
    check_mode(fs::metadata(path)?.permissions().mode(), path, "chmod 700")
}

fn check_mode(mode: u32, path: &Path, fix: &str) -> io::Result<()> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let (shown, mode) = (path.display(), mode & 0o7777);
    let message = format!("{shown} can be read or written by others (mode {mode:04o}); run: {fix} {shown}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Allows ourselves as many descriptors as the system lets us have, and says how many that are.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = MAX_DESCRIPTORS.map_or(most, |limit| most.min(limit));
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// Being asked to end, by a signal.
pub struct ShutdownListener {
    terminated: Signals,
    interrupted: Signals,
}

impl ShutdownListener {
    /// Listens from here on, in the runtime that runs.
    pub fn listen() -> io::Result<Self> {
        let (terminated, interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminated, interrupted })
    }

    /// Returns when it was asked for.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
    }
}

/// Asks a process that listens by `Ending` to end.
pub fn request_shutdown(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(kill(Pid::from_raw(pid), Signal::SIGTERM)?)
}

/// Blocks until nobody is left to read our standard output.
pub fn wait_until_nobody_reads() -> io::Result<()> {
    let stdout = io::stdout();
    // Nothing is asked for: what is told is an error, or that the other side hung up.
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    while let Ok(0) | Err(Errno::EINTR) = poll(&mut watched, PollTimeout::NONE) {}
    Ok(())
}

/// The command that ends a process that does not end.
pub const KILL: &str = "kill -9";

/// Bytes as the system takes text: as they are.
pub fn os_text(bytes: &[u8]) -> Option<&OsStr> {
    Some(OsStr::from_bytes(bytes))
}

/// Prepares the start of a process that will leave our terminal.
pub fn prepare_to_leave(_command: &mut Command) -> io::Result<()> {
    Ok(())
}

/// Leaves the terminal: what is said from here on goes to `log`.
pub fn leave_terminal(log: &File) -> io::Result<()> {
    std::env::set_current_dir("/")?;
    setsid()?;
    io::stdout().flush()?;
    dup2_stdout(log.as_fd())?;
    dup2_stderr(log.as_fd())?;
    Ok(())
}
