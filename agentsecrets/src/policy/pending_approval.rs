//! A request that a rule allows only with a person's approval, and the scope that an approval for the session
//! covers. The `approval` module obtains the answer; policy knows only what waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::Caller;
use crate::types::host::Host;
use crate::types::name::AgentName;
use crate::types::rejection::Rejection;
use crate::types::target::Target;

use super::access_request::AccessRequest;
use super::grant::Grant;
use super::injection::SecretUse;
use super::rate_limit::{RateLimiter, charge};

/// A request that leaves if a person approves it. Not `Clone`; made by `policy::evaluate` alone.
#[derive(Debug)]
pub struct PendingApproval {
    pub(super) grant: Grant,
    pub(super) host: Host,
    pub(super) timeout: Duration,
    /// The entry of the rule's `paths` that matches the request's path.
    pub(super) path_pattern: Option<String>,
    /// Charged when the request leaves.
    pub(super) limiters: Vec<Arc<RateLimiter>>,
}

/// The properties that two requests share if one approval for the session covers both: the session, the agent
/// entry, the rule as it stands in the file, scheme, host and port, the method, every secret with its
/// location, and the pattern of the rule's `paths` that the path matches. Without `paths` in the rule, the
/// path itself counts. Query, headers and body may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalScope {
    session: Arc<str>,
    agent: AgentName,
    rule: Arc<str>,
    target: Target,
    method: String,
    path: String,
    secret_uses: Vec<SecretUse>,
}

impl PendingApproval {
    /// The caller's agent entry.
    pub fn agent(&self) -> &AgentName {
        self.grant.agent()
    }

    /// The rule that requires the approval.
    pub fn rule(&self) -> &Arc<str> {
        self.grant.rule()
    }

    /// The requested host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The secrets that the request would spend.
    pub fn secret_uses(&self) -> &[SecretUse] {
        self.grant.secret_uses()
    }

    /// The longest time that the request waits for a person.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The scope that an approval for the session would have.
    pub fn scope(&self, caller: &Caller, ask: &AccessRequest<'_>) -> ApprovalScope {
        ApprovalScope {
            session: caller.isolation(),
            agent: self.agent().clone(),
            rule: self.rule().clone(),
            target: ask.target.clone(),
            method: ask.method.as_str().to_owned(),
            path: self.path_pattern.clone().unwrap_or_else(|| ask.path.to_owned()),
            secret_uses: self.secret_uses().to_vec(),
        }
    }

    /// Charges the rate limits and yields the grant. Only `approval::Approval::release` may call this, which
    /// has checked that the approval covers the request.
    pub(crate) fn into_grant(self, now: Instant) -> Result<Grant, Rejection> {
        match charge(self.limiters.iter(), &self.host, "requests", now) {
            Some(rejection) => Err(rejection.by_rule(&**self.rule())),
            None => Ok(self.grant),
        }
    }
}

impl ApprovalScope {
    /// The agent entry.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }
}

impl std::fmt::Display for ApprovalScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut secrets: Vec<&str> = self.secret_uses.iter().map(|spend| spend.name.as_str()).collect();
        secrets.dedup();
        let secrets = if secrets.is_empty() { "no secret".to_owned() } else { secrets.join(", ") };
        write!(f, "{} {}{} with {secrets} under {}", self.method, self.target, self.path, self.rule)
    }
}
