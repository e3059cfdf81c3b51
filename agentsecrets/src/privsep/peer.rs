//! Who is at the door, as the kernel says: the credentials of the connection, and the process that made it,
//! held by a descriptor so that nobody takes over its id.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Uid};

use crate::identity::ancestry;
use crate::identity::inspector::Witness;
use crate::identity::process::look_now;
use crate::identity::{IdentityError, Process};
use crate::launch::cgroup::is_agents;
use crate::sys;
use crate::sys::fd_passing;

/// A client of the door.
#[derive(Debug)]
pub struct Peer {
    /// Its user when it connected, which is who is asked for.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// The process that connected.
    pub process: Process,
    /// The process of the same user that started that one, where that is our own program: what any other does
    /// is its own doing.
    pub started_by: Option<Process>,
    /// Whether it belongs to an agent, by its cgroup or by its namespace of processes.
    pub is_agent: bool,
    pidfd: OwnedFd,
}

impl Peer {
    /// Asks the kernel. Looking at another user's program takes the privilege to.
    pub fn identify(connection: impl AsFd) -> Result<Self, IdentityError> {
        let credentials = getsockopt(&connection, sockopt::PeerCredentials).map_err(io::Error::from)?;
        let pid = u32::try_from(credentials.pid()).map_err(|_| IdentityError::Nobody)?;
        let pidfd = match fd_passing::peer_pidfd(&connection) {
            Ok(pidfd) => pidfd,
            // Linux before 6.5. Its user is certain all the same; what it runs is as of now.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                sys::pidfd_open(pid).map_err(|_| IdentityError::Gone)?
            }
            Err(_) => return Err(IdentityError::Gone),
        };
        let process = look_now(&Witness::Here, pid)?;
        let is_agent = is_agents(&process.cgroup) || is_elsewhere(pid)?;
        let uid = Uid::from_raw(credentials.uid());
        let started_by = started_by(pid, uid);
        let peer = Self { uid, gid: Gid::from_raw(credentials.gid()), process, started_by, is_agent, pidfd };
        if !peer.lives() {
            return Err(IdentityError::Gone);
        }
        // A program that changed its user since is not the one that asked.
        if peer.process.uid != uid.as_raw() {
            return Err(IdentityError::Changed);
        }
        Ok(peer)
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        sys::pidfd_lives(&self.pidfd)
    }
}

/// Who started our own program, the process `pid`, for the user `uid`.
fn started_by(pid: u32, uid: Uid) -> Option<Process> {
    let program = |who: &str| std::fs::metadata(format!("/proc/{who}/exe")).map(|exe| (exe.dev(), exe.ino()));
    let parent = || ancestry::parent_of(pid).filter(|parent| *parent > 1);
    if program(&pid.to_string()).ok()? != program("self").ok()? {
        return None;
    }
    let found = parent()?;
    let process = look_now(&Witness::Here, found).ok()?;
    // If it is its parent still, then it was while we looked at it.
    (parent() == Some(found) && process.uid == uid.as_raw()).then_some(process)
}

/// Whether the process lives in another namespace of processes than we do: agents do, and containers.
fn is_elsewhere(pid: u32) -> io::Result<bool> {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/pid"));
    Ok(namespace("self")? != namespace(&pid.to_string())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_process_that_connected_is_identified() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::identify(&one).unwrap();
        assert_eq!(peer.process.pid, std::process::id());
        assert_eq!(peer.process.exe, std::env::current_exe().unwrap());
        assert_eq!(peer.process.sha256.len(), 64);
        assert!(!peer.is_agent && peer.uid == nix::unistd::getuid());
    }
}
