//! Who is calling. The principal is what the kernel fixed and the agent cannot change; the hash of the
//! executable only narrows it.

pub mod container;
pub mod executable;
#[cfg(target_os = "linux")]
pub mod hierarchy;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub mod process;
pub mod socket;
#[cfg(target_os = "linux")]
pub mod witness;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::base::name::AgentName;

/// A proven caller. Made by `identify` alone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The process that opened the connection.
    pub process: Arc<Process>,
    /// The agent entry that `run --agent` named, if it did.
    pub agent: Option<AgentName>,
    /// The session it runs in: one `run` is one session. Outside of one it is empty.
    pub session: Arc<str>,
    /// Whether an agent entry without `match` holds for it: `run` started it, or it is a program of the
    /// explicit proxy's own user.
    pub is_ours: bool,
}

impl Caller {
    /// Whose connections to servers it may share: those of its session, or of its process.
    pub fn isolation(&self) -> Arc<str> {
        match &*self.session {
            "" => format!("{}@{}", self.process.pid, self.process.start_time).into(),
            _ => self.session.clone(),
        }
    }
}

/// What the kernel says of a process. Behind a service in a container its program may be out of sight; its
/// path and hash are then empty, which no rule's fact equals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Process id, in the initial namespace where the kernel's programs told it.
    pub pid: u32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_time: u64,
    /// The executable that was running when it connected.
    pub exe: PathBuf,
    /// SHA-256 of that file, in lower-case hex.
    pub sha256: String,
    /// Real user id.
    pub uid: u32,
    /// Path of its cgroup in the unified hierarchy.
    pub cgroup: String,
}

impl Process {
    /// The container that it is in.
    pub fn container(&self) -> Option<container::Container<'_>> {
        container::Container::of(&self.cgroup)
    }
}

/// Why a caller could not be proven. Each is a denial.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The process ended, or its id belongs to another one now.
    #[error("the process that connected is gone")]
    Gone,
    /// It runs another program than the one that connected.
    #[error("the process runs another program than when it connected")]
    Changed,
    /// Nobody can be seen at the other end of the connection.
    #[error("no program of this machine can be seen at the other end of the connection")]
    Nobody,
    /// It is another user's.
    #[error("the program belongs to another user than the proxy")]
    OtherUser,
    /// Several programs hold the connection, and any of them may have spoken.
    #[error("several programs hold the connection")]
    Shared,
    /// The system has no way to tell that we know.
    #[error("this system cannot tell which program is at the other end of a connection")]
    Unsupported,
    /// It is not in the cgroup of this run or service.
    #[error("the process is in no cgroup of an agent of ours")]
    Elsewhere,
    /// It shows an agent's token, which nothing here can verify.
    #[error("agent tokens cannot be verified yet: ask without one")]
    Token,
    /// The kernel's own files could not be read.
    #[error("the process cannot be examined: {0}")]
    Io(#[from] std::io::Error),
}
