//! The process at the other end of a socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use agentsecrets_sys::{self as sys, fd_passing};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid};

/// The process that made a connection, held by a pidfd so that its pid cannot be reused.
#[derive(Debug)]
pub struct PeerProcess {
    /// The user when it connected.
    pub uid: Uid,
    /// The group when it connected.
    pub gid: Gid,
    /// Its pid in our namespace.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl PeerProcess {
    /// Asks the kernel. `None`: the process is gone or outside our pid namespace.
    ///
    /// # Errors
    /// If `socket` is no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Option<Self>> {
        let credentials = getsockopt(&socket, sockopt::PeerCredentials)?;
        let Ok(pid @ 1..) = u32::try_from(credentials.pid()) else { return Ok(None) };
        let pidfd = match fd_passing::peer_pidfd(&socket) {
            // Linux before 6.5: the user is certain all the same; the process is the current one.
            Err(error) if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => sys::pidfd_open(pid),
            pidfd => pidfd,
        };
        let Ok(pidfd) = pidfd else { return Ok(None) };
        let (uid, gid) = (Uid::from_raw(credentials.uid()), Gid::from_raw(credentials.gid()));
        Ok(Some(Self { uid, gid, pid, pidfd }))
    }

    /// Whether the process has not ended.
    pub fn is_alive(&self) -> bool {
        sys::pidfd_lives(&self.pidfd)
    }

    /// Whether the process is in another pid namespace, as agents and containers are.
    ///
    /// # Errors
    /// If the process may not be inspected.
    pub fn is_in_other_pid_namespace(&self) -> io::Result<bool> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
        Ok(namespace("self")? != namespace(&self.pid.to_string())?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn connecting_process_is_found() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = PeerProcess::of(&one).unwrap().unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert!(peer.is_alive() && peer.uid == nix::unistd::getuid());
        assert!(!peer.is_in_other_pid_namespace().unwrap());
    }
}
