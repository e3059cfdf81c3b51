//! Who is calling. The principal is what the kernel fixed and the agent cannot change; the hash of the
//! executable only narrows it.

pub mod ancestry;
#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod container;
#[cfg(target_os = "linux")]
pub mod container_engine;
pub mod executable;
pub mod image;
#[cfg(target_os = "linux")]
pub mod inspector;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod parent_process;
pub mod pod;
#[cfg(target_os = "linux")]
pub mod process;
pub mod process_details;
mod process_facts;
pub mod socket;
#[cfg(target_os = "linux")]
mod socket_owner;
#[cfg(target_os = "linux")]
mod socket_user;
pub mod spiffe;
#[cfg(target_os = "linux")]
pub mod spiffe_workload_api;
#[cfg(windows)]
mod windows;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::types::name::AgentName;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(windows)]
use windows as system;

pub use parent_process::{parent_caller, parent_process, parent_process_with};
pub use process_facts::ProcessFacts;
pub use system::{parent_id, process_details};

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
    /// What it was given beside the policy's rules, as far as it was proven.
    pub attributes: CallerAttributes,
}

/// What a caller was given: the live sessions that it is in, and the token that it showed.
#[derive(Debug, Clone, Default)]
pub struct CallerAttributes {
    /// The id of the agent token that it showed, which is good.
    pub token: Option<Arc<str>>,
    /// The ids of the live sessions that hold for it.
    pub sessions: Vec<Arc<str>>,
    /// Whether a pin of the home holds for it. Whoever keeps the pins says so, request by request.
    pub trusted: bool,
    /// Whether a token alone says who it is, since the system cannot.
    pub is_issued: bool,
    /// The pod that it is in, where a cluster tells of it.
    pub pod: Option<Arc<pod::CurrentPod>>,
    /// The SPIFFE identities of the workload that it is part of, where a service asks for them.
    pub spiffe: Option<Arc<spiffe::CurrentIdentities>>,
    /// The process that asked the daemon for the run that it is in.
    pub asked_by: Option<ancestry::ProcessStart>,
    /// Itself and the processes that it descends from, as they were when that was asked for first; then the one
    /// that asked for the run, and those that this one descends from.
    pub lineage: Arc<OnceLock<ancestry::Ancestry>>,
}

impl Caller {
    /// Whom a token alone makes known: no fact of a process is proven.
    pub fn issued() -> Self {
        let process = Process {
            pid: 0,
            start_time: 0,
            exe: PathBuf::new(),
            sha256: String::new(),
            uid: u32::MAX,
            cgroup: String::new(),
            image: None,
            here: false,
        };
        let attributes = CallerAttributes { is_issued: true, ..CallerAttributes::default() };
        Self { process: Arc::new(process), agent: None, session: "".into(), is_ours: true, attributes }
    }

    /// Somebody in a run, for the tests of later stages.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn for_test() -> Self {
        let (process, attributes) = (Arc::new(Process::for_test()), CallerAttributes::default());
        Self { process, agent: None, session: "s".into(), is_ours: true, attributes }
    }

    /// Whose connections to servers it may share: those of its session, or of its process, or of its user where
    /// no more is known.
    pub fn isolation(&self) -> Arc<str> {
        match (&*self.session, &self.attributes.token) {
            ("", Some(token)) if self.attributes.is_issued => token.clone(),
            ("", _) if self.process.pid == 0 => format!("user {}", self.process.uid).into(),
            ("", _) => format!("{}@{}", self.process.pid, self.process.start_time).into(),
            _ => self.session.clone(),
        }
    }
}

/// What the kernel says of a process. Behind a service in a container its program may be out of sight; its
/// path and hash are then empty, which no rule's fact equals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id, on Linux in the initial namespace where the kernel's programs told it.
    pub pid: u32,
    /// Start time: on Linux in clock ticks since boot, as in `/proc/<pid>/stat`; on macOS in microseconds
    /// since 1970; on Windows in units of 100 ns since 1601.
    pub start_time: u64,
    /// The executable that was running when it connected.
    pub exe: PathBuf,
    /// SHA-256 of that file, in lower-case hex.
    pub sha256: String,
    /// Real user id; on Windows the last part of the user's security identifier.
    pub uid: u32,
    /// Path of its cgroup in the unified hierarchy; elsewhere than on Linux it is empty.
    pub cgroup: String,
    /// The image of its container, where an engine was asked and said so.
    #[serde(default)]
    pub image: Option<Arc<image::Image>>,
    /// Whether that executable is the file which lies at its path for us, too. In a mount namespace of its
    /// own a program can have any file at any path.
    pub here: bool,
}

impl Process {
    /// Somebody, for the tests of later stages.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn for_test() -> Self {
        let (exe, sha256) = ("/usr/bin/python3.11".into(), "ab".repeat(32));
        let cgroup = "/agents.slice/run-1".to_owned();
        Self { pid: 7, start_time: 9, exe, sha256, uid: 1000, cgroup, image: None, here: true }
    }

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
    /// It is one of our own processes, which acts for an agent.
    #[error("one of our own processes asks, for an agent that may not ask by itself")]
    Ourselves,
    /// Several programs hold the connection, and any of them may have spoken.
    #[error("several programs hold the connection")]
    Shared,
    /// The system has no way to tell that we know.
    #[error("this system cannot tell which program is at the other end of a connection")]
    Unsupported,
    /// It is not in the cgroup of this run or service.
    #[error("the process is in no cgroup of an agent of ours")]
    Elsewhere,
    /// The engine that was asked for the image of its container does not say.
    #[error("the engine does not say which image its container is of: {0}")]
    Engine(std::io::Error),
    /// The kernel's own files could not be read.
    #[error("the process cannot be examined: {0}")]
    Io(#[from] std::io::Error),
}
