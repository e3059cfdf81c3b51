//! Who is calling. The principal is what the kernel fixed and the agent cannot change; the hash of the
//! executable only narrows it.

pub mod executable;
#[cfg(target_os = "linux")]
pub mod process;
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
    /// The session it runs in: one `run` is one session.
    pub session: Arc<str>,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Process id in the initial namespace.
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

/// Why a caller could not be proven. Each is a denial.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The process ended, or its id belongs to another one now.
    #[error("the process that connected is gone")]
    Gone,
    /// It runs another program than the one that connected.
    #[error("the process runs another program than when it connected")]
    Changed,
    /// It is not in the cgroup of this run.
    #[error("the process is not in this run's cgroup")]
    Elsewhere,
    /// It shows an agent's token, which nothing here can verify.
    #[error("agent tokens cannot be verified yet: ask without one")]
    Token,
    /// The kernel's own files could not be read.
    #[error("the process cannot be examined: {0}")]
    Io(#[from] std::io::Error),
}
