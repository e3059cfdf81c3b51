//! Forking, and what a forked child must shed. It refuses to fork a process that has threads, because
//! only then may the child run ordinary code.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, Gid, Pid, Uid, getpid, getppid, setgroups, setresgid, setresuid, setsid};

use super::terminal;

/// The exit code of a forked child that panicked.
const PANICKED: u8 = 125;

/// Forks a child that runs `child`, ends with the code it returns, and never returns here. Fails if the
/// process has more than one thread.
pub fn fork(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with threads must not fork"));
    }
    // SAFETY: there is one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: ends the process without running what the parent registered to run at its own end.
            unsafe { libc::_exit(code.into()) }
        }
    }
}

/// Closes every descriptor but `keep`. For a forked child before it uses descriptors of its own: values
/// inherited from the parent that own other descriptors must not be used or dropped afterwards.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| std::os::fd::AsRawFd::as_raw_fd(fd).try_into().ok()).collect();
    keep.sort_unstable();
    let mut next = 0;
    for kept in keep {
        if kept > next {
            close_range(next, kept - 1, 0)?;
        }
        next = kept + 1;
    }
    close_range(next, u32::MAX, 0)
}

/// Has every descriptor from `first` on closed when the process executes another program.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: takes no pointers; `close_all_but` says what its callers owe.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of the process `pid`, a child that has not been waited for; it is readable once the
/// process has ended.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    super::pidfd_open(pid.as_raw().cast_unsigned())
}

/// Forgets the variable `name`. Fails if the process has more than one thread.
pub fn forget_variable(name: &str) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with threads must not change its environment"));
    }
    // SAFETY: there is one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Ok(())
}

/// Makes `variables` the environment of this process. Fails if it has more than one thread.
pub fn take_environment<'a>(variables: impl Iterator<Item = (&'a OsStr, &'a OsStr)>) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with threads must not change its environment"));
    }
    let before: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    let sound = |name: &OsStr, value: &OsStr| {
        let name = name.as_bytes();
        !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.as_bytes().contains(&0)
    };
    // SAFETY: there is one thread, so nobody reads the environment meanwhile.
    unsafe {
        before.iter().for_each(|name| std::env::remove_var(name));
        for (name, value) in variables.filter(|(name, value)| sound(name, value)) {
            std::env::set_var(name, value);
        }
    }
    Ok(())
}

/// Gives SIGPIPE its default back, which Rust's runtime ignores and a program executed would inherit.
pub fn default_broken_pipe() -> io::Result<()> {
    // SAFETY: installs no handler.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

/// Gives `signals` their defaults back, which whoever started us may have had ignored.
pub fn default_signals(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: installs no handler.
        unsafe { nix::sys::signal::signal(*signal, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// As whom a command is started.
pub struct ProcessUser {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// Every group.
    pub groups: Vec<Gid>,
}

/// Has `command` start with the signals of `blocked` blocked and no others, and be killed when the thread
/// that starts it ends. With a `terminal` it starts in a session of its own, which that terminal controls;
/// with a `person` it is that person's, and has none of our capabilities.
pub fn prepare_child(
    command: &mut Command,
    blocked: SigSet,
    terminal: Option<OwnedFd>,
    person: Option<ProcessUser>,
) {
    let parent = getpid();
    let child = move || {
        if let Some(terminal) = &terminal {
            setsid()?;
            terminal::control(terminal)?;
        }
        if let Some(person) = &person {
            switch_user(person)?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(blocked.thread_set_mask()?)
    };
    // SAFETY: between `fork` and `exec` it makes system calls alone; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(child) };
}

/// Becomes `person` for good. Whatever is executed next has no capability, since no set is left to give it any.
fn switch_user(person: &ProcessUser) -> io::Result<()> {
    setgroups(&person.groups)?;
    setresgid(person.gid, person.gid, person.gid)?;
    setresuid(person.uid, person.uid, person.uid)?;
    // SAFETY: takes no pointer.
    let cleared = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if cleared == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes over a descriptor that the kernel has just made for this process, such as one received in a
/// message.
pub(super) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the callers in this module got the descriptor from the kernel and own it alone.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_with_threads_does_not_fork() {
        // The test harness always has a thread for the test and one that waits for it.
        assert!(fork(|| 0).is_err());
    }
}
