//! The facts of a process as audit records and `whoami` give them.

use serde::{Deserialize, Serialize};

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
    /// The image that the container was created from, if its engine was asked and it was a name.
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
