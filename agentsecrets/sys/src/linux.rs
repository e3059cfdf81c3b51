//! Linux: descriptors of processes and namespaces, and what protects this process.

use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::memory;

/// As many as the hard limit says.
pub(super) const MAX_DESCRIPTORS: Option<u64> = None;

/// No core dumps, no reading of our memory by others, and no swapping of it where the system lets us:
/// before the first secret is read.
pub fn conceal() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    if let Err(error) = memory::lock_everything() {
        // Secrets themselves lie on pages that are locked one by one.
        tracing::debug!(%error, "not all memory can be locked");
    }
    Ok(())
}

/// A descriptor that names one process for good, whoever gets its id later.
pub fn pidfd_open(pid: u32) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = i32::try_from(fd).map_err(std::io::Error::other)?;
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Whether the process of a pidfd has not ended yet.
pub fn pidfd_lives(pidfd: &std::os::fd::OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    // A pidfd becomes readable when its process ends.
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

/// Takes over a descriptor that the program which started us left open for us.
pub fn inherited(fd: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD reads a flag of whatever descriptor this is, or fails.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and by agreement with the program that started us it is ours alone.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// The cookie of a socket's network namespace, which the kernel never gives twice.
///
/// # Errors
/// When the descriptor is no socket, or the kernel is older than 5.14.
pub fn netns_cookie(fd: std::os::fd::BorrowedFd<'_>) -> std::io::Result<u64> {
    use std::os::fd::AsRawFd;

    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `cookie`.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(std::io::Error::last_os_error()) }
}

/// The command that lists listeners.
pub const LISTENERS: &str = "ss -ltnp";

/// This program, even where its file was replaced since it started.
pub fn own_program() -> io::Result<std::path::PathBuf> {
    Ok("/proc/self/exe".into())
}

/// No reading of our memory by other programs of the same user: for a command, which the person may stop and
/// limit as they like.
pub fn protect_memory() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}
