//! What is told of a process: in a record, or to the program itself.

use serde::{Deserialize, Serialize};

use super::Process;

/// A process, as it is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
    /// Its executable; empty where it could not be proven, as is its hash.
    pub exe: String,
    /// That file's SHA-256.
    pub sha256: String,
    /// Its user.
    pub uid: u32,
    /// Its cgroup.
    pub cgroup: String,
    /// Its container's id, where it is in one.
    pub container: Option<String>,
    /// Its pod's uid, where it is in one.
    pub pod: Option<String>,
}

impl From<&Process> for ProcessFacts {
    fn from(process: &Process) -> Self {
        let container = process.container();
        Self {
            pid: process.pid,
            start_time: process.start_time,
            exe: process.exe.to_string_lossy().into_owned(),
            sha256: process.sha256.clone(),
            uid: process.uid,
            cgroup: process.cgroup.clone(),
            container: container.map(|container| container.id.to_owned()),
            pod: container.and_then(|container| container.pod()),
        }
    }
}
