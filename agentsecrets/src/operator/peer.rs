//! Identifies a client by the kernel: the process that made its connection, its program, and whether it is an
//! agent's.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Gid, Uid};

use crate::identity::ancestry;
use crate::identity::inspector::ProcessInspector;
use crate::identity::inspector::inspect_now;
use crate::identity::{IdentityError, Process};
use crate::launch::cgroup::is_agent_cgroup;
use crate::privsep::PeerProcess;

#[derive(Debug)]
pub(crate) struct Peer {
    /// The user when it connected, for whom the request is made.
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The process that connected.
    pub(crate) process: Process,
    /// The parent of that process, if the process is our own program and both run as the same user: any other
    /// program acts on its own.
    pub(crate) parent: Option<Process>,
    /// Whether it belongs to an agent, by its cgroup or its pid namespace.
    pub(crate) is_agent: bool,
}

impl Peer {
    /// Asks the kernel. Reading another user's process takes the privilege to.
    pub(crate) fn identify(connection: impl AsFd) -> Result<Self, IdentityError> {
        let peer = PeerProcess::of(&connection)?.ok_or(IdentityError::Gone)?;
        let process = inspect_now(&ProcessInspector::Here, peer.pid)?;
        let is_agent = is_agent_cgroup(&process.cgroup) || peer.is_in_other_pid_namespace()?;
        let parent = parent_of_own_program(peer.pid, peer.uid);
        if !peer.is_alive() {
            return Err(IdentityError::Gone);
        }
        // A process that changed its user since is not the one that connected.
        if process.uid != peer.uid.as_raw() {
            return Err(IdentityError::Changed);
        }
        Ok(Self { uid: peer.uid, gid: peer.gid, process, parent, is_agent })
    }
}

/// The parent of the process `pid`, if that runs our own program for the user `uid`.
fn parent_of_own_program(pid: u32, uid: Uid) -> Option<Process> {
    let program = |pid: &str| std::fs::metadata(format!("/proc/{pid}/exe")).map(|exe| (exe.dev(), exe.ino()));
    let parent = || ancestry::parent_of(pid).filter(|parent| *parent > 1);
    if program(&pid.to_string()).ok()? != program("self").ok()? {
        return None;
    }
    let found = parent()?;
    let process = inspect_now(&ProcessInspector::Here, found).ok()?;
    // If it still is the parent, it was while we read it.
    (parent() == Some(found) && process.uid == uid.as_raw()).then_some(process)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn connecting_process_is_identified() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::identify(&one).unwrap();
        assert_eq!(peer.process.pid, std::process::id());
        assert_eq!(peer.process.exe, std::env::current_exe().unwrap());
        assert_eq!(peer.process.sha256.len(), 64);
        assert!(!peer.is_agent && peer.uid == nix::unistd::getuid());
    }
}
