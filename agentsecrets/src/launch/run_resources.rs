//! What a run leaves in the kernel and on disk, and its removal. There is one way to remove it, whether
//! a run ended well, was killed, or was found dead by a later one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use crate::intercept::ebpf;

/// Where runs are known. Inside an agent a small read-only file system stands here instead.
pub const RUNS: &str = "/run/agentsecrets";

/// How long killed processes may take to die.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that outlives the processes of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leftovers {
    /// The run's folder, with the lock that says that its janitor lives.
    pub folder: PathBuf,
    /// The cgroup.
    pub cgroup: Cgroup,
    /// The folder of pinned programs and maps.
    pub pins: PathBuf,
    /// The folder that holds a private HOME.
    pub home: Option<PathBuf>,
}

impl Leftovers {
    /// Makes the run's folder and writes down in it what must be removed, before any of it exists.
    /// The lock lives as long as any copy of its descriptor; removes what dead runs left.
    pub fn register(self) -> io::Result<(Self, File)> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(RUNS)?;
        // Nobody looks for dead runs while this one is not yet recognisable as alive.
        let all = open(&Path::new(RUNS).join("lock"))?;
        all.lock()?;
        collect();
        fs::DirBuilder::new().mode(0o700).create(&self.folder)?;
        let lock = open(&self.folder.join("lock"))?;
        lock.lock()?;
        crate::sys::files::replace(&self.folder.join("leftovers.json"), &serde_json::to_vec(&self)?)?;
        Ok((self, lock))
    }

    /// Kills the run's processes and removes everything. The hooks stay in force until the last process is
    /// gone; if one does not die, so does all else, for a later run to remove.
    pub fn remove(&self) -> io::Result<()> {
        self.cgroup.remove(PATIENCE, || ebpf::detach(&self.pins).map_err(io::Error::other))?;
        gone(fs::remove_dir_all(&self.pins))?;
        if let Some(home) = &self.home {
            gone(fs::remove_dir_all(home))?;
        }
        gone(fs::remove_dir_all(&self.folder))
    }
}

/// Removes what runs left whose janitor is dead. What cannot be removed now is tried again next time.
fn collect() {
    let Ok(runs) = fs::read_dir(RUNS) else { return };
    for run in runs.flatten() {
        let folder = run.path();
        let Ok(Some(_dead)) = try_lock(&folder) else { continue };
        let leftovers = fs::read(folder.join("leftovers.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Leftovers>(&bytes).ok());
        let _ = match leftovers {
            Some(leftovers) => leftovers.remove(),
            // It died before it made anything else.
            None => fs::remove_dir_all(&folder),
        };
    }
}

/// The lock of a run, if nobody else holds it.
fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let lock = open(&folder.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(lock: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
