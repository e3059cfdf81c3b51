//! The cgroups of a run: an outer one that the kernel programs are attached to, and `agent` inside it
//! where the processes live. It refuses cgroup v1: the hooks follow the unified hierarchy alone.

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
pub struct Cgroup {
    /// Where the unified hierarchy is mounted.
    pub root: PathBuf,
    /// The outer cgroup's path in the hierarchy, such as `/user.slice/agentsecrets-1f2e…`.
    pub path: String,
}

/// Why there is no place for a run's cgroup.
#[derive(Debug, thiserror::Error)]
pub enum NoCgroup {
    /// No unified hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NotMounted,
    /// Our own cgroup is outside what we can see.
    #[error("this process's own cgroup ({0}) is not visible here")]
    Hidden(String),
    /// The kernel's tables could not be read.
    #[error("cannot read this process's cgroup: {0}")]
    Unreadable(#[from] io::Error),
}

impl Cgroup {
    /// The cgroup for the run `id`, inside our own.
    pub fn plan(id: &str) -> Result<Self, NoCgroup> {
        let root = super::mounts::table()?
            .into_iter()
            .find(|mount| mount.kind == "cgroup2" && mount.root == "/")
            .ok_or(NoCgroup::NotMounted)?
            .point;
        let own = own()?;
        if own.starts_with("/..") || !root.join(own.trim_start_matches('/')).is_dir() {
            return Err(NoCgroup::Hidden(own));
        }
        let path = format!("{}/agentsecrets-{id}", own.trim_end_matches('/'));
        Ok(Self { root, path })
    }

    /// The outer folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(self.path.trim_start_matches('/'))
    }

    /// Makes both folders.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir(self.folder())?;
        fs::create_dir(self.agent())
    }

    /// Moves the calling process into `agent`, and proves from the kernel's own table that it is there:
    /// outside the cgroup no hook would see it.
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.agent().join("cgroup.procs"), "0")?;
        let (now, wanted) = (own()?, format!("{}/agent", self.path));
        if now == wanted {
            return Ok(());
        }
        Err(io::Error::other(format!("the kernel says that the process is in {now}, not in {wanted}")))
    }

    /// Asks every process of the agent to end. Its first process does not hear of it.
    pub fn terminate(&self) -> io::Result<()> {
        for pid in processes(&self.agent())? {
            // A process that is gone already needs no signal.
            let _ = kill(pid, Signal::SIGTERM);
        }
        Ok(())
    }

    /// Kills every process of the run.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.folder().join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder().exists() => {
                // Linux before 5.14: the callers repeat this until the cgroup is empty.
                for folder in [self.folder(), self.agent()] {
                    for pid in processes(&folder)? {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Kills every process of the run, waits until the kernel says that none is left, and removes the
    /// folders. The hooks' fate is the caller's: `emptied` runs between the two.
    pub fn remove(&self, within: Duration, emptied: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.folder().exists() {
            self.empty(Instant::now() + within)?;
        }
        emptied()?;
        for folder in [self.agent(), self.folder()] {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn agent(&self) -> PathBuf {
        self.folder().join("agent")
    }

    fn empty(&self, deadline: Instant) -> io::Result<()> {
        let events = fs::File::open(self.folder().join("cgroup.events"))?;
        while fs::read_to_string(self.folder().join("cgroup.events"))?.contains("populated 1") {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of the agent do not die"));
            }
            self.kill()?;
            let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            // The kernel wakes us when the last process is gone; the limit only repeats the kill.
            poll(&mut changed, PollTimeout::from(100u8))?;
        }
        Ok(())
    }
}

/// Whether a process in the cgroup `path` of the unified hierarchy belongs to an agent.
pub fn is_agents(path: &str) -> bool {
    let folders: Vec<&str> = path.split('/').collect();
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut pairs = folders.windows(2);
    pairs.any(|pair| pair[1] == "agent" && pair[0].strip_prefix("agentsecrets-").is_some_and(is_id))
}

/// Our own path in the unified hierarchy.
pub(super) fn own() -> io::Result<String> {
    cgroup_of("self")?.ok_or_else(|| io::Error::other("the process is in no cgroup v2"))
}

fn processes(folder: &Path) -> io::Result<Vec<Pid>> {
    let text = match fs::read_to_string(folder.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    // 0 stands for a process of another pid namespace; as an argument of kill it would mean ourselves.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::is_agents;

    #[test]
    fn an_agents_cgroup_is_known_by_its_name_wherever_it_is() {
        for path in ["/agentsecrets-0123456789abcdef/agent", "/a/agentsecrets-0123456789abcdef/agent/b/c"] {
            assert!(is_agents(path), "{path}");
        }
        for path in [
            "/",
            "/agentsecrets.service",
            "/agentsecrets-0123456789abcdef",
            "/x/agent",
            "/agentsecrets-x/agent",
        ] {
            assert!(!is_agents(path), "{path}");
        }
    }
}
