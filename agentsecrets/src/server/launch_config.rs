//! Messages between the launcher and the interceptor on the control socket, which is the interceptor's
//! standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::identity::ancestry::ProcessStart;
use crate::identity::pod::Pod;
use crate::policy::project_restriction::ProjectRestriction;
use crate::privsep::Limits;
use crate::sys::home::Home;
use crate::types::failure::Failure;
use crate::types::name::{AgentName, Environment, Project};

/// The response to our own health probe.
pub(crate) const SELF_TEST_RESPONSE: &[u8] = b"held\n";

/// Configuration of an interceptor. The launcher sends it before anything else.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaunchConfig {
    pub(crate) home: Home,
    pub(crate) project: Project,
    pub(crate) environment: Environment,
    /// The project file's restriction of the policy.
    #[serde(default)]
    pub(crate) restriction: ProjectRestriction,
    /// The agent entry that `run --agent` named.
    pub(crate) agent: Option<AgentName>,
    /// The process that requested the run, if the launcher does not descend from it.
    #[serde(default)]
    pub(crate) requested_by: Option<ProcessStart>,
    /// The session's id: each run is one session.
    pub(crate) session: String,
    /// The bpffs folder with the pinned maps; `None` if nftables rules redirect connections instead.
    pub(crate) pins: Option<PathBuf>,
    /// The cgroup that holds every process of this run, as a path in the unified hierarchy.
    pub(crate) cgroup: String,
    /// Mount point of the unified hierarchy.
    pub(crate) cgroup_root: PathBuf,
    /// Inherited descriptors of TCP listeners for agents' connections.
    pub(crate) listeners: Vec<i32>,
    /// Inherited descriptors of the resolver's UDP sockets.
    pub(crate) dns_udp: Vec<i32>,
    /// Inherited descriptors of the resolver's TCP listeners.
    pub(crate) dns_tcp: Vec<i32>,
    /// Set if others start the agents, in containers.
    #[serde(default)]
    pub(crate) container: Option<ContainerConfig>,
    /// The owner of the home; the interceptor runs as that user.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Configuration of an interceptor whose agents are in containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerConfig {
    /// Id of our own cgroup, a child of the agents' cgroup.
    pub(crate) own_cgroup: Option<u64>,
    /// Whether agents' processes are in our pid namespace, so that they can be inspected.
    pub(crate) sees_processes: bool,
    /// Socket of the container engine, which knows each container's image.
    #[serde(default)]
    pub(crate) engine_socket: Option<PathBuf>,
    /// Socket of the SPIFFE Workload API, which knows our pod.
    #[serde(default)]
    pub(crate) workload_api_socket: Option<PathBuf>,
    /// Inherited descriptor of the socket for [`PodMessage`]s.
    #[serde(default)]
    pub(crate) pod_socket: Option<i32>,
}

/// Tells the interceptor about a node's pods.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PodMessage {
    /// Serve this pod. Its sockets come with the message: listeners, then the resolver's UDP sockets, then
    /// its TCP listeners, in the numbers that `sockets` gives.
    Add {
        pod: Pod,
        /// Its cgroup, as a path in the unified hierarchy.
        cgroup: String,
        sockets: [usize; 3],
    },
    /// The cluster's details of the pod changed.
    Update(Pod),
    /// Stop serving the pod with this uid.
    Remove(String),
}

/// The interceptor's response: ports on which others may reach the pod.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodInbound {
    pub(crate) uid: String,
    pub(crate) ports: Vec<u16>,
}

/// Notifications after the start, in either direction.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ControlMessage {
    /// Launcher: agents have all that they need to start.
    AgentsReady,
    /// Interceptor: the run's session ended.
    SessionEnded,
}

/// Limits of the control socket's messages.
pub(crate) const CONTROL_LIMITS: Limits = Limits { length: 4 << 20, descriptors: 0 };
/// Limits of [`PodMessage`] and [`PodInbound`].
pub(crate) const POD_LIMITS: Limits = Limits { length: 128 * 1024, descriptors: 16 };

/// The interceptor's response to [`LaunchConfig`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartResponse {
    Ready {
        /// The certificate of this run's authority, in PEM.
        authority: String,
        /// `NAME` → placeholder, for every secret that the agent may use.
        placeholders: BTreeMap<String, String>,
        /// Ports on which others may reach the agent.
        inbound: Vec<u16>,
        /// Folders that hold secrets, which the agent must not see.
        secret_folders: Vec<PathBuf>,
    },
    /// The interceptor cannot serve; the launcher must start nothing.
    Failed { exit: u8, error: String, hint: Option<String> },
}

impl StartResponse {
    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let hint = failure.advice().map(str::to_owned);
        Self::Failed { exit: failure.exit() as u8, error: failure.message().to_owned(), hint }
    }
}
