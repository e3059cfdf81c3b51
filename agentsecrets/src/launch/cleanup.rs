//! The janitor: a process of its own that cleans up when the launcher ends, however it ends, SIGKILL
//! included. It does nothing else, holds nothing else, and no signal from a terminal reaches it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use caps::Capability;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, setsid};

use crate::launch::run_resources::Leftovers;
use crate::sys::capabilities;
use crate::sys::process;

/// What cleaning up takes: to remove the files of the agent's user in its private HOME, and to signal its
/// processes. The cgroup and the pins are root's own.
const KEPT: &[Capability] = &[Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER, Capability::CAP_KILL];

/// The launcher's hold on the janitor.
pub struct Janitor {
    pid: Pid,
    /// The janitor starts to clean when the last copy of this closes.
    lifeline: OwnedFd,
}

impl Janitor {
    /// Forks the janitor of what `leftovers` names; the `lock` becomes its own.
    pub fn start(leftovers: &Leftovers, lock: File) -> io::Result<Self> {
        let (end, lifeline) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = process::fork(|| match wait_and_clean(leftovers, &end, &lock) {
            Ok(()) => 0,
            Err(_) => 1,
        })?;
        // Closing our copy leaves the lock with the janitor's.
        drop(lock);
        Ok(Self { pid, lifeline })
    }

    /// Has everything cleaned up, and says whether it was.
    pub fn finish(self) -> io::Result<()> {
        drop(self.lifeline);
        match waitpid(self.pid, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(io::Error::other("not everything could be removed; the next run tries again")),
        }
    }
}

fn wait_and_clean(leftovers: &Leftovers, end: &OwnedFd, lock: &File) -> io::Result<()> {
    SigSet::all().thread_block()?;
    setsid()?;
    process::close_all_but(&[end.as_fd(), lock.as_fd()])?;
    std::env::set_current_dir("/")?;
    capabilities::keep_only(KEPT)?;
    prctl::set_dumpable(false)?;
    // Nobody writes: this returns when the launcher has ended.
    while read(end, &mut [0])? > 0 {}
    leftovers.remove()
}
