//! A proven caller: its process and its attributes.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::proven_process::Process;
use super::{ancestry, pod, spiffe};
use crate::types::name::AgentName;

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
    /// The proven attributes of the caller beside the policy's rules.
    pub attributes: CallerAttributes,
}

/// Attributes of a caller: its live sessions, and the token that it presented.
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

    /// The key of the upstream connections that the caller may share: its session, else its process, else its
    /// user.
    pub fn isolation(&self) -> Arc<str> {
        match (&*self.session, &self.attributes.token) {
            ("", Some(token)) if self.attributes.is_issued => token.clone(),
            ("", _) if self.process.pid == 0 => format!("user {}", self.process.uid).into(),
            ("", _) => format!("{}@{}", self.process.pid, self.process.start_time).into(),
            _ => self.session.clone(),
        }
    }
}
