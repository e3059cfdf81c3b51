//! The network of a pod, found by the processes in its cgroup, and the doors in it. A process that is on its way
//! into a pod is in the node's network for a moment: that is never taken for the pod's.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::super::sockets::Sockets;
use crate::identity::ancestry::start_of;
use crate::intercept::ebpf::Ports;
use crate::sys;

/// Below a pod's folder are its containers', and in some of those one of the engine's. What a container makes
/// deeper down is no place to look for what came before it.
const DEEPEST: usize = 2;

/// What tells the node's own network from others.
pub(super) struct Networks {
    nodes: u64,
}

/// A pod's network.
pub(super) struct Network {
    file: File,
    /// What tells it from others that exist now.
    pub(super) inode: u64,
}

impl Networks {
    /// Looks at the node's own.
    pub(super) fn of_node(file: &Path) -> io::Result<Self> {
        Ok(Self { nodes: fs::metadata(file)?.ino() })
    }

    /// The network of the pod whose cgroup is at `folder`: that of the process which was there first and has left
    /// the node's. None while there is no such process.
    pub(super) fn of(&self, folder: &Path) -> Option<Network> {
        let mut all: Vec<_> =
            processes(folder).into_iter().filter_map(|(pid, at)| Some((start_of(pid)?, pid, at))).collect();
        all.sort_unstable_by_key(|(started, pid, _)| (*started, *pid));
        all.into_iter().find_map(|(started, pid, at)| {
            let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
            let inode = file.metadata().ok()?.ino();
            // Whoever had this number before has it still, and is still there.
            let same = start_of(pid) == Some(started) && listed(&at).contains(&pid);
            (same && inode != self.nodes).then_some(Network { file, inode })
        })
    }
}

impl Network {
    /// Makes the doors in it, and says by which cookie the kernel knows it.
    pub(super) fn bind(&self, ports: Ports) -> io::Result<(Sockets, u64)> {
        let bound = thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                let sockets = Sockets::bind_again(ports)?;
                let first = sockets.listeners.first().ok_or(io::ErrorKind::NotFound)?;
                let cookie = sys::netns_cookie(first.as_fd())?;
                Ok((sockets, cookie))
            };
            thread::Builder::new()
                .name("pod".to_owned())
                .spawn_scoped(scope, inside)
                .map(|thread| thread.join())
        });
        bound?.map_err(|_| io::Error::other("a thread failed"))?
    }
}

/// Whether any process is in the cgroup at `folder` or below.
pub(super) fn is_populated(folder: &Path) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// The processes in and below `folder`, each with the folder that it is in.
fn processes(folder: &Path) -> Vec<(u32, PathBuf)> {
    below(folder, DEEPEST)
}

fn below(folder: &Path, deep: usize) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<_> = listed(folder).into_iter().map(|pid| (pid, folder.to_path_buf())).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if deep > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path(), deep - 1));
        }
    }
    found
}

fn listed(folder: &Path) -> Vec<u32> {
    let table = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    table.lines().filter_map(|line| line.parse().ok()).collect()
}
