//! A run's resources in the kernel and on disk, and their removal. There is one way to remove them, whether
//! the run ended, was killed, or was found dead by a later one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use crate::intercept::ebpf;

/// The folder of all runs. Inside an agent a small read-only file system is mounted here.
pub(crate) const RUNS_FOLDER: &str = "/run/agentsecrets";

const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that outlives the processes of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunResources {
    /// The run's folder; the cleanup process holds the lock in it.
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: Cgroup,
    /// The folder of pinned programs and maps.
    pub(crate) pins: PathBuf,
    /// The folder that holds a private HOME.
    #[serde(rename = "home")]
    pub(crate) private_home: Option<PathBuf>,
}

impl RunResources {
    /// Creates the run's folder and records in it the resources to remove, before any of them exists; removes
    /// stale runs. The lock lives as long as any copy of its descriptor.
    pub(crate) fn register(self) -> io::Result<(Self, File)> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(RUNS_FOLDER)?;
        // No other launcher looks for stale runs while this one is not yet locked.
        let all = open_lock(&Path::new(RUNS_FOLDER).join("lock"))?;
        all.lock()?;
        remove_stale_runs();
        fs::DirBuilder::new().mode(0o700).create(&self.folder)?;
        let lock = open_lock(&self.folder.join("lock"))?;
        lock.lock()?;
        crate::sys::files::replace(&self.folder.join("leftovers.json"), &serde_json::to_vec(&self)?)?;
        Ok((self, lock))
    }

    /// Kills the run's processes and removes everything. The hooks stay attached until the last process is
    /// gone; if one does not die, everything stays for a later run to remove.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.cgroup.remove(KILL_TIMEOUT, || ebpf::detach(&self.pins).map_err(io::Error::other))?;
        ignore_not_found(fs::remove_dir_all(&self.pins))?;
        if let Some(home) = &self.private_home {
            ignore_not_found(fs::remove_dir_all(home))?;
        }
        ignore_not_found(fs::remove_dir_all(&self.folder))
    }
}

/// Removes the resources of runs whose cleanup process is dead. Failures are retried by the next run.
fn remove_stale_runs() {
    let Ok(runs) = fs::read_dir(RUNS_FOLDER) else { return };
    for run in runs.flatten() {
        let folder = run.path();
        let Ok(Some(_dead)) = try_lock(&folder) else { continue };
        let resources = fs::read(folder.join("leftovers.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<RunResources>(&bytes).ok());
        let _ = match resources {
            Some(resources) => resources.remove(),
            // It died before it created anything else.
            None => fs::remove_dir_all(&folder),
        };
    }
}

/// The lock of a run, if no process holds it.
fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let lock = open_lock(&folder.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open_lock(lock: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)
}

fn ignore_not_found(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
