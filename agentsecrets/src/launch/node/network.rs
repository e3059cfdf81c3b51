//! Finds a pod's network by the processes in its cgroup, and opens listeners in it. A process that is being
//! started in a pod is in the node's network for a moment; that is never taken for the pod's.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::super::sockets::ListenerSockets;
use crate::identity::ancestry::start_of;
use crate::intercept::ebpf::Ports;
use crate::sys;

/// The listeners' ports in every pod's network. They are outside the ephemeral range, so that they are free
/// again after a restart.
pub(super) const POD_PORTS: Ports = Ports { listener: 61_864, dns: 61_865 };
/// A pod's folder holds those of its containers, and some of these hold one of the engine's. Cgroups deeper
/// down belong to the containers' own processes.
const MAX_DEPTH: usize = 2;

/// The node's own network, to tell it from others.
pub(super) struct NodeNetwork {
    node_inode: u64,
}

/// A pod's network.
pub(super) struct PodNetwork {
    file: File,
    /// Unique among the networks that exist now.
    pub(super) inode: u64,
}

impl NodeNetwork {
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        Ok(Self { node_inode: fs::metadata(file)?.ino() })
    }

    /// The network of the pod whose cgroup is at `folder`: that of its oldest process which has left the
    /// node's network. `None` while there is no such process.
    pub(super) fn pod_network(&self, folder: &Path) -> Option<PodNetwork> {
        let mut all: Vec<_> =
            processes(folder).into_iter().filter_map(|(pid, at)| Some((start_of(pid)?, pid, at))).collect();
        all.sort_unstable_by_key(|(started, pid, _)| (*started, *pid));
        all.into_iter().find_map(|(started, pid, at)| {
            let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
            let inode = file.metadata().ok()?.ino();
            // The pid was not reused, and its process is still in the cgroup.
            let same = start_of(pid) == Some(started) && cgroup_procs(&at).contains(&pid);
            (same && inode != self.node_inode).then_some(PodNetwork { file, inode })
        })
    }
}

impl PodNetwork {
    /// Opens the listeners in it; also returns the network's cookie.
    pub(super) fn bind(&self, ports: Ports) -> io::Result<(ListenerSockets, u64)> {
        let bound = thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                let sockets = ListenerSockets::bind_ports(ports)?;
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

/// The processes in and below `folder`, each with its folder.
fn processes(folder: &Path) -> Vec<(u32, PathBuf)> {
    list_processes(folder, MAX_DEPTH)
}

fn list_processes(folder: &Path, deep: usize) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<_> = cgroup_procs(folder).into_iter().map(|pid| (pid, folder.to_path_buf())).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if deep > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(list_processes(&entry.path(), deep - 1));
        }
    }
    found
}

fn cgroup_procs(folder: &Path) -> Vec<u32> {
    let table = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    table.lines().filter_map(|line| line.parse().ok()).collect()
}
