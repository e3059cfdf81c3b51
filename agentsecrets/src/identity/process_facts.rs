//! What is told of a process: in a record, or to the program itself.

use serde::{Deserialize, Serialize};

use super::{Caller, Process};

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
    /// What that was asked to be made from, where its engine was asked and it was a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest by which the engine keeps that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Its pod's uid, where it is in one.
    pub pod: Option<String>,
    /// The SPIFFE identities of its workload that hold, where a service asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spiffe: Vec<String>,
}

impl From<&Caller> for ProcessFacts {
    fn from(caller: &Caller) -> Self {
        let ids = caller.standing.spiffe.iter().flat_map(|known| known.ids());
        Self { spiffe: ids.map(|id| id.to_string()).collect(), ..Self::from(&*caller.process) }
    }
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
            image: process.image.as_ref().and_then(|image| image.name.as_ref()).map(ToString::to_string),
            image_id: process.image.as_ref().map(|image| image.id.clone()),
            pod: container.and_then(|container| container.pod()),
            spiffe: Vec::new(),
        }
    }
}
