//! Cgroups of a run: an outer one to which the kernel programs are attached, and `agent` inside it, which
//! holds the processes. It refuses cgroup v1, because the hooks follow the unified hierarchy alone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::identity::container::cgroup_of;

/// The cgroup of one run, which need not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// Mount point of the unified hierarchy.
    pub(crate) root: PathBuf,
    /// The outer cgroup's path in the hierarchy, such as `/user.slice/agentsecrets-1f2e…`.
    pub(crate) path: String,
}

/// Reasons that there is no cgroup for a run.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No unified hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NotMounted,
    /// Our own cgroup is outside the visible hierarchy.
    #[error("this process's own cgroup ({0}) is not visible here")]
    Hidden(String),
    /// The kernel's table could not be read.
    #[error("cannot read this process's cgroup: {0}")]
    Unreadable(#[from] io::Error),
}

impl Cgroup {
    /// The cgroup for the run `id`, inside our own. It is not created yet.
    pub(crate) fn plan(id: &str) -> Result<Self, CgroupError> {
        let root = super::mounts::mount_table()?
            .into_iter()
            .find(|mount| mount.kind == "cgroup2" && mount.root == "/")
            .ok_or(CgroupError::NotMounted)?
            .path;
        let own = own_path()?;
        if own.starts_with("/..") || !root.join(own.trim_start_matches('/')).is_dir() {
            return Err(CgroupError::Hidden(own));
        }
        let path = format!("{}/agentsecrets-{id}", own.trim_end_matches('/'));
        Ok(Self { root, path })
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join(self.path.trim_start_matches('/'))
    }

    /// Creates both cgroups.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir(self.folder())?;
        fs::create_dir(self.agent_folder())
    }

    /// Moves the calling process into `agent` and verifies that from the kernel's table: no hook sees a
    /// process outside the cgroup.
    pub(crate) fn join(&self) -> io::Result<()> {
        fs::write(self.agent_folder().join("cgroup.procs"), "0")?;
        let (now, expected) = (own_path()?, format!("{}/agent", self.path));
        if now == expected {
            return Ok(());
        }
        Err(io::Error::other(format!("the kernel says that the process is in {now}, not in {expected}")))
    }

    /// Sends SIGTERM to every process of the agent. The init process ignores it.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        for pid in list_processes(&self.agent_folder())? {
            // A process that is gone already needs no signal.
            let _ = kill(pid, Signal::SIGTERM);
        }
        Ok(())
    }

    /// Kills every process of the run.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match fs::write(self.folder().join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder().exists() => {
                // Linux before 5.14: callers repeat this until the cgroup is empty.
                for folder in [self.folder(), self.agent_folder()] {
                    for pid in list_processes(&folder)? {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Kills every process of the run, waits until the cgroup is empty, calls `emptied` (which detaches the
    /// hooks), and removes the cgroups.
    pub(crate) fn remove(
        &self,
        within: Duration,
        emptied: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.folder().exists() {
            self.kill_all(Instant::now() + within)?;
        }
        emptied()?;
        for folder in [self.agent_folder(), self.folder()] {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn agent_folder(&self) -> PathBuf {
        self.folder().join("agent")
    }

    fn kill_all(&self, deadline: Instant) -> io::Result<()> {
        let events = fs::File::open(self.folder().join("cgroup.events"))?;
        while fs::read_to_string(self.folder().join("cgroup.events"))?.contains("populated 1") {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of the agent do not die"));
            }
            self.kill()?;
            let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            // The kernel wakes us when the last process is gone; the timeout only repeats the kill.
            poll(&mut changed, PollTimeout::from(100u8))?;
        }
        Ok(())
    }
}

/// Whether the cgroup `path` of the unified hierarchy is an agent's.
pub(crate) fn is_agent_cgroup(path: &str) -> bool {
    let folders: Vec<&str> = path.split('/').collect();
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut pairs = folders.windows(2);
    pairs.any(|pair| pair[1] == "agent" && pair[0].strip_prefix("agentsecrets-").is_some_and(is_id))
}

/// Our own path in the unified hierarchy.
pub(super) fn own_path() -> io::Result<String> {
    cgroup_of("self")?.ok_or_else(|| io::Error::other("the process is in no cgroup v2"))
}

fn list_processes(folder: &Path) -> io::Result<Vec<Pid>> {
    let text = match fs::read_to_string(folder.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    // 0 is a process of another pid namespace; as an argument of `kill` it would mean our own group.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::is_agent_cgroup;

    #[test]
    fn agent_cgroup_is_recognised_by_name() {
        for path in ["/agentsecrets-0123456789abcdef/agent", "/a/agentsecrets-0123456789abcdef/agent/b/c"] {
            assert!(is_agent_cgroup(path), "{path}");
        }
        for path in [
            "/",
            "/agentsecrets.service",
            "/agentsecrets-0123456789abcdef",
            "/x/agent",
            "/agentsecrets-x/agent",
        ] {
            assert!(!is_agent_cgroup(path), "{path}");
        }
    }
}
