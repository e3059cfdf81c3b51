//! Requests that a person must approve. `decide` holds them; the [`Desk`] puts each before a person and yields
//! an [`Approval`] of what that person saw; only with one does what is held become a grant.

pub mod digest;
pub mod entry;
pub mod queue;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::identity::Caller;
use crate::policy::access_request::Ask;
use crate::policy::grant::{Grant, Spend};
use crate::policy::rate_limit::{Limiter, charge};
use crate::types::host::Host;
use crate::types::name::AgentName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Target;

pub use digest::{Digest, Seen};
pub use queue::Desk;

/// A request that leaves if a person approves it. Not `Clone`; made by `policy::evaluate` alone.
#[derive(Debug)]
pub struct Held {
    pub(super) grant: Grant,
    pub(super) host: Host,
    pub(super) wait: Duration,
    /// The pattern of its rule that its path matches.
    pub(super) pattern: Option<String>,
    /// What is charged when it leaves.
    pub(super) limiters: Vec<Arc<Limiter>>,
}

/// A person's yes to one request. Not `Clone`; made by the [`Desk`] alone.
#[derive(Debug)]
pub struct Approval {
    digest: Digest,
    same: Same,
    id: String,
    by: By,
    waited: Duration,
    /// Whether it stands for the session, so that it is not used up.
    stands: bool,
}

/// Why what was approved does not leave all the same.
pub struct Unreleased {
    /// What the agent is told.
    pub refusal: Box<Rejection>,
    /// The approval, where it was not used up.
    pub unused: Option<Box<Approval>>,
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: u32,
}

/// What two requests must have in common for a yes that stands for the session: the session, the agent
/// entry, the rule as it stands in the file, scheme, host and port, the method, every secret in its place,
/// and the pattern of the rule's `paths` that the path matches; where the rule has no `paths`, the path itself.
/// Query, headers and body may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    session: Arc<str>,
    agent: AgentName,
    rule: Arc<str>,
    target: Target,
    method: String,
    path: String,
    spends: Vec<Spend>,
}

impl Held {
    /// The agent entry that the caller is.
    pub fn agent(&self) -> &AgentName {
        self.grant.agent()
    }

    /// The rule that holds it.
    pub fn rule(&self) -> &Arc<str> {
        self.grant.rule()
    }

    /// The secrets that would be spent.
    pub fn spends(&self) -> &[Spend] {
        self.grant.spends()
    }

    /// How long it waits for a person.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// What it has in common with others for which one yes may stand.
    pub fn same(&self, caller: &Caller, ask: &Ask<'_>) -> Same {
        Same {
            session: caller.isolation(),
            agent: self.agent().clone(),
            rule: self.rule().clone(),
            target: ask.target.clone(),
            method: ask.method.as_str().to_owned(),
            path: self.pattern.clone().unwrap_or_else(|| ask.path.to_owned()),
            spends: self.spends().to_vec(),
        }
    }

    /// What leaves, if `approval` is one of the request that has this `digest`, or of all that are the
    /// `same`. Where there were too many, the approval is not used up.
    pub fn release(
        self,
        approval: Approval,
        digest: &Digest,
        same: &Same,
        now: Instant,
    ) -> Result<(Grant, String), Unreleased> {
        let covers = if approval.stands { approval.same == *same } else { approval.digest == *digest };
        if !covers {
            let message = "what a person approved is not what would be sent now: the policy or the secrets \
                           changed meanwhile; send the request again";
            let refusal = Rejection::new(ErrorCode::PolicyApprovalRequired, &self.host, message);
            return Err(Unreleased { refusal: Box::new(refusal.by_rule(&**self.rule())), unused: None });
        }
        if let Some(refusal) = charge(self.limiters.iter(), &self.host, "requests", now) {
            let refusal = Box::new(refusal.by_rule(&**self.rule()));
            return Err(Unreleased { refusal, unused: Some(Box::new(approval)) });
        }
        Ok((self.grant, approval.note()))
    }
}

impl Approval {
    /// What the record of the request says of it.
    fn note(&self) -> String {
        let Approval { id, by, waited, stands, .. } = self;
        let scope = if *stands { "for the session" } else { "once" };
        format!("approved {scope} by {by}, approval {id}, after {} ms", waited.as_millis())
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {} (process {})", self.uid, self.pid)
    }
}

impl std::fmt::Display for Same {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut secrets: Vec<&str> = self.spends.iter().map(|spend| spend.name.as_str()).collect();
        secrets.dedup();
        let secrets = if secrets.is_empty() { "no secret".to_owned() } else { secrets.join(", ") };
        write!(f, "{} {}{} with {secrets} under {}", self.method, self.target, self.path, self.rule)
    }
}
