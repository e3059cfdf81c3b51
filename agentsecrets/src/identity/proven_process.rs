//! The proven facts about a process, and the reasons for which identification fails.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{container, image};

/// The kernel's facts about a process. Behind a service in a container the program may be invisible; path and
/// hash are then empty, which no rule's fact equals.
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
