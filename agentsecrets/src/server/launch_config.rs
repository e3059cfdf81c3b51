//! What the launcher tells the interceptor, and what it hears back: one JSON line each way on the
//! control socket, which is the interceptor's standard input.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::identity::ancestry::Born;
use crate::identity::pod::Pod;
use crate::policy::project_restriction::Narrow;
use crate::sys::home::Home;
use crate::types::failure::Failure;
use crate::types::name::{AgentName, Environment, Project};

/// What is answered to ourselves when we ask what becomes of an agent's connection.
pub const HELD: &[u8] = b"held\n";

/// The launcher's order: everything the interceptor needs to know before it gives up its privileges.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Where our files are.
    pub home: Home,
    /// Whose secrets.
    pub project: Project,
    /// Which secrets.
    pub environment: Environment,
    /// What a project file leaves of the policy.
    #[serde(default)]
    pub narrow: Narrow,
    /// The agent entry that `run --agent` named.
    pub agent: Option<AgentName>,
    /// The process that asked for the run, where that is not one that the launcher descends from.
    #[serde(default)]
    pub asked_by: Option<Born>,
    /// The session's id: one run is one session.
    pub session: String,
    /// The bpffs folder with the pinned maps; none where rules lead connections to us, and not programs.
    pub pins: Option<PathBuf>,
    /// The cgroup that holds every process of this run, as a path in the unified hierarchy.
    pub cgroup: String,
    /// Where the unified hierarchy is mounted.
    pub cgroup_root: PathBuf,
    /// Listening TCP sockets that the kernel sends agents' connections to, as inherited descriptors.
    pub listeners: Vec<i32>,
    /// UDP sockets of our resolver, as inherited descriptors.
    pub dns_udp: Vec<i32>,
    /// Listening TCP sockets of our resolver, as inherited descriptors.
    pub dns_tcp: Vec<i32>,
    /// What is different where the agents are in containers that others start.
    #[serde(default)]
    pub service: Option<Service>,
    /// The user that owns the home, as whom the interceptor runs.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Of agents in containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The id of the cgroup that holds our own processes, directly below that of the agents', if they are there.
    pub ours: Option<u64>,
    /// Whether agents' processes can be looked at: they are in our pid namespace.
    pub processes: bool,
    /// The socket of the engine that says which images their containers are of.
    #[serde(default)]
    pub engine: Option<PathBuf>,
    /// The socket of the SPIFFE Workload API that says who we are, and so our pod.
    #[serde(default)]
    pub spiffe: Option<PathBuf>,
    /// A packet socket, as an inherited descriptor, on which we hear of a node's pods.
    #[serde(default)]
    pub pods: Option<i32>,
}

/// What is said of a node's pods.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// This pod is to be served. Its sockets come with the word: listeners, then the resolver's datagram sockets,
    /// then its listeners, as many of each as `sockets` says.
    Serve {
        /// What the cluster says of it.
        pod: Pod,
        /// Its cgroup, as a path in the unified hierarchy.
        cgroup: String,
        /// How many sockets there are of each kind.
        sockets: [usize; 3],
    },
    /// The cluster says something else of it now.
    Known(Pod),
    /// The pod with this uid is served no longer.
    Gone(String),
}

/// What is answered: the ports on which others may reach the pod with this uid.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Which pod.
    pub uid: String,
    /// Its ports.
    pub inbound: Vec<u16>,
}

/// The longest word, in bytes: a packet socket takes it whole.
pub const LONGEST_WORD: usize = 128 * 1024;

/// The interceptor's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It serves.
    Ready {
        /// The certificate of this run's authority, in PEM.
        authority: String,
        /// `NAME` → placeholder, for every secret that the agent may spend.
        placeholders: BTreeMap<String, String>,
        /// Ports on which others may reach the agent.
        inbound: Vec<u16>,
        /// Folders that hold secrets, which the agent must not see.
        hidden: Vec<PathBuf>,
    },
    /// It cannot serve: nothing must be started.
    Failed {
        /// The exit code.
        exit: u8,
        /// What happened.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl Answer {
    /// That it cannot serve, and why.
    pub fn failed(failure: &Failure) -> Self {
        let hint = failure.advice().map(str::to_owned);
        Self::Failed { exit: failure.exit() as u8, what: failure.what().to_owned(), hint }
    }

    /// Says it to the launcher.
    ///
    /// # Errors
    /// When the launcher does not listen.
    pub fn tell(&self, mut launcher: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        launcher.write_all(&line)
    }
}
