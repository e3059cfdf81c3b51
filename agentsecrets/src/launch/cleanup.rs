//! The cleanup process. It removes a run's resources when the launcher ends, even by SIGKILL. It does nothing
//! else, holds nothing else, and no terminal signal reaches it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use caps::Capability;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, setsid};

use crate::launch::run_resources::RunResources;
use crate::sys::capabilities;
use crate::sys::process;

/// Capabilities for cleaning up: remove the agent user's files in its private HOME, and signal its processes.
/// The cgroup and the pins belong to root.
const CLEANUP_CAPABILITIES: &[Capability] =
    &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER, Capability::CAP_KILL];

/// The launcher's handle of the cleanup process.
pub(crate) struct CleanupProcess {
    pid: Pid,
    /// The process starts to clean up when the last copy of this closes.
    launcher_end: OwnedFd,
}

impl CleanupProcess {
    /// Forks the cleanup process for `resources`; it takes over `lock`.
    pub(crate) fn start(resources: &RunResources, lock: File) -> io::Result<Self> {
        let (end, lifeline) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = process::fork(|| match wait_and_clean(resources, &end, &lock) {
            Ok(()) => 0,
            Err(_) => 1,
        })?;
        // The child's copy keeps the lock.
        drop(lock);
        Ok(Self { pid, launcher_end: lifeline })
    }

    /// Has everything cleaned up, and returns an error if something is left.
    pub(crate) fn finish(self) -> io::Result<()> {
        drop(self.launcher_end);
        match waitpid(self.pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(io::Error::other("not everything could be removed; the next run tries again")),
        }
    }
}

fn wait_and_clean(resources: &RunResources, end: &OwnedFd, lock: &File) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    process::close_all_but(&[end.as_fd(), lock.as_fd()])?;
    std::env::set_current_dir("/")?;
    capabilities::keep_only(CLEANUP_CAPABILITIES)?;
    prctl::set_dumpable(false)?;
    // Nobody writes: this returns when the launcher has ended.
    while read(end, &mut [0])? > 0 {}
    resources.remove()
}
