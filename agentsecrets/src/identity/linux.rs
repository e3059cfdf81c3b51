//! Linux: the tables of sockets tell the user and the inode of the caller's end, the descriptors of processes
//! who holds that inode.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::{fs, io};

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use tokio::runtime::Handle;

use super::executable::Hashes;
use super::inspector::inspect_by;
use super::peer::{PeerLookup, SocketAddrs};
use super::{IdentityError, Process};
use crate::identity::inspector::{InspectedProcess, ProcessInspector};

pub(super) use super::inspector::look;

/// The user as whom this process runs.
pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// This process looks closer at others itself.
pub fn process_details() -> Option<Arc<dyn crate::identity::process_details::ProcessDetails>> {
    Some(Arc::new(ProcessInspector::Here))
}

/// The process that started this one.
pub fn parent_id() -> std::io::Result<u32> {
    Ok(std::os::unix::process::parent_id())
}

/// Peers on this machine.
pub(super) struct SystemPeers {
    inspector: Arc<ProcessInspector>,
    hashes: Hashes,
    /// Our own program.
    own: fs::Metadata,
}

impl SystemPeers {
    /// Peers that `inspector` inspects.
    pub(super) fn seen_by(inspector: Arc<ProcessInspector>) -> io::Result<Self> {
        Ok(Self { inspector, hashes: Hashes::default(), own: fs::metadata("/proc/self/exe")? })
    }
}

impl PeerLookup for SystemPeers {
    fn process(&self, ends: SocketAddrs) -> Result<Process, IdentityError> {
        let TcpNetEntry { inode, uid, .. } = socket(ends)?;
        // Theirs are not even looked at.
        if uid != nix::unistd::geteuid().as_raw() {
            return Err(IdentityError::OtherUser);
        }
        let pid = self.inspector.socket_owner(inode)?;
        // None of our processes asks the proxy for itself: an interceptor does where a policy opens the proxy's
        // port to an agent, who would then spend what is the person's.
        let is_right = |_: &InspectedProcess, exe: &fs::Metadata| {
            let is_own = (exe.dev(), exe.ino()) == (self.own.dev(), self.own.ino());
            if is_own { Err(IdentityError::Ourselves) } else { Ok(()) }
        };
        let process = Handle::current().block_on(inspect_by(&self.inspector, pid, &self.hashes, is_right))?;
        // Between finding its id and looking at it the process may have ended, and another have got the id.
        self.inspector.owns_socket(pid, inode).map(|()| process)
    }
}

/// The caller's end.
fn socket(ends: SocketAddrs) -> Result<TcpNetEntry, IdentityError> {
    let is_it = |entry: &TcpNetEntry| {
        let same = |one: std::net::SocketAddr, other: std::net::SocketAddr| {
            one.ip().to_canonical() == other.ip().to_canonical() && one.port() == other.port()
        };
        let ends_match = same(entry.local_address, ends.theirs) && same(entry.remote_address, ends.ours);
        ends_match && entry.state == TcpState::Established && entry.inode != 0
    };
    // A client of both families has its sockets in the second table.
    let found = tcp().map_err(unreadable)?.into_iter().find(is_it);
    let found = found
        .map_or_else(|| Ok(tcp6().map_err(unreadable)?.into_iter().find(is_it)), |found| Ok(Some(found)));
    found.and_then(|found| found.ok_or(IdentityError::Nobody))
}

fn unreadable(error: procfs::ProcError) -> IdentityError {
    std::io::Error::other(error).into()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn peer_process_is_found_over_both_families() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends =
                SocketAddrs { theirs: client.local_addr().unwrap(), ours: client.peer_addr().unwrap() };
            assert_eq!(
                ProcessInspector::Here.socket_owner(socket(ends).unwrap().inode).unwrap(),
                std::process::id()
            );
            let process = runtime.block_on(async move {
                tokio::task::spawn_blocking(move || {
                    SystemPeers::seen_by(Arc::new(ProcessInspector::Here)).unwrap().process(ends)
                })
                .await
                .unwrap()
            });
            assert!(matches!(process, Err(IdentityError::Ourselves)));
            drop(client);
            assert!(matches!(socket(ends), Err(IdentityError::Nobody)));
        }
    }
}
