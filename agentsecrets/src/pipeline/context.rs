//! The state that the stages share, and the context of a connection.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent_credentials::CredentialCache;
use crate::approval::ApprovalQueue;
use crate::audit::Log;
use crate::authz::Capabilities;
use crate::identity::{Caller, IdentityError};
use crate::policy::watch::PolicyWatcher;
use crate::redact::guess_detector::GuessDetector;
use crate::types::name::Environment;
use crate::types::presented::PresentedCredentials;
use crate::types::target::Claim;
use crate::types::timeouts::Timeouts;
use crate::upstream::client::Upstream;

/// The shared state of all requests: one per worker thread, its parts shared by all.
pub struct Pipeline {
    /// The policy in force, which can change.
    pub policy: Arc<PolicyWatcher>,
    /// Sessions, tokens and trust, which bound callers beside the policy.
    pub capabilities: Arc<Capabilities>,
    /// Requests that wait for a person.
    pub approvals: Arc<ApprovalQueue>,
    /// The credentials of each agent.
    pub credentials: Arc<CredentialCache>,
    /// Counts responses that repeat pieces of secrets.
    pub guess_detector: Arc<GuessDetector>,
    /// The client for upstream servers.
    pub upstream: Arc<Upstream>,
    /// The audit log.
    pub audit: Arc<Log>,
    /// The environment of the secrets.
    pub environment: Environment,
    /// The time limits for peers.
    pub timeouts: Timeouts,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
    /// Tasks that must finish before shutdown.
    pub tasks: TaskTracker,
}

/// The identified caller of a connection, or the reason why it is unknown.
pub type CallerResult = Arc<Result<Caller, IdentityError>>;

/// The properties that the requests of one connection share. Each request is judged on its own.
pub struct ConnectionContext {
    /// The caller, as the kernel identifies it.
    pub caller: CallerResult,
    /// The server, as the connection states it.
    pub claim: Claim,
    /// The credentials that the connection presented.
    pub shown: PresentedCredentials,
}
