//! Linux: the tables of sockets tell the user and the inode of the caller's end, the descriptors of processes
//! who holds that inode.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};

use super::executable::Hashes;
use super::socket::{Ends, Neighbourhood};
use super::{IdentityError, Process};

pub(super) use super::process::look;

/// The user as whom this process runs.
pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// This process looks closer at others itself.
pub fn look_closer() -> Option<std::sync::Arc<dyn super::closer::Look>> {
    Some(std::sync::Arc::new(super::witness::Witness::Here))
}

/// The process that started this one.
pub(super) fn parent_id() -> std::io::Result<u32> {
    Ok(std::os::unix::process::parent_id())
}

/// This machine, as far as this process may see it.
#[derive(Default)]
pub(super) struct System {
    hashes: Hashes,
}

impl Neighbourhood for System {
    fn process(&self, ends: Ends) -> Result<Process, IdentityError> {
        let TcpNetEntry { inode, uid, .. } = socket(ends)?;
        let pid = holder(inode).map_err(|error| match error {
            // It is not out of sight because nobody can see it, but because it is another's.
            IdentityError::Nobody if uid != nix::unistd::geteuid().as_raw() => IdentityError::OtherUser,
            error => error,
        })?;
        let runtime = tokio::runtime::Handle::current();
        let process = runtime.block_on(look(pid, &self.hashes))?;
        // Between finding its id and looking at it the process may have ended, and another have got the id.
        if holds(pid, inode) { Ok(process) } else { Err(IdentityError::Gone) }
    }
}

/// The caller's end.
fn socket(ends: Ends) -> Result<TcpNetEntry, IdentityError> {
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

/// The process that holds the socket: of several that run one program the oldest. Where they run different
/// ones, nobody knows who speaks.
fn holder(inode: u64) -> Result<u32, IdentityError> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let holders: Vec<u32> = pids.filter(|pid| holds(*pid, inode)).collect();
    let program = |pid: &u32| {
        let exe = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let process = fs::metadata(format!("/proc/{pid}")).ok()?;
        Some((exe.dev(), exe.ino(), process.uid()))
    };
    let first = holders.first().ok_or(IdentityError::Nobody)?;
    if holders.iter().any(|other| program(other).is_none() || program(other) != program(first)) {
        return Err(IdentityError::Shared);
    }
    let started =
        |pid: &u32| procfs::process::Process::new(*pid as i32).and_then(|p| p.stat()).map(|s| s.starttime);
    holders
        .iter()
        .copied()
        .min_by_key(|pid| (started(pid).unwrap_or(u64::MAX), *pid))
        .ok_or(IdentityError::Nobody)
}

/// Whether the process `pid` holds the socket. What may not be seen is not held by a program of our user.
fn holds(pid: u32, inode: u64) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&socket)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_process_at_the_other_end_is_found_over_either_family() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends = Ends { theirs: client.local_addr().unwrap(), ours: client.peer_addr().unwrap() };
            let process = runtime.block_on(async move {
                tokio::task::spawn_blocking(move || System::default().process(ends)).await.unwrap()
            });
            assert_eq!(process.unwrap().pid, std::process::id());
            drop(client);
            assert!(matches!(socket(ends), Err(IdentityError::Nobody)));
        }
    }
}
