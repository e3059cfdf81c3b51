//! Decides, after the host of a TLS connection is known and before anything else is read, whether a rule
//! passes it through unopened. All other connections are opened, and each of their requests is decided.

use std::sync::Arc;
use std::time::Instant;

use crate::identity::Caller;
use crate::types::host::Host;
use crate::types::name::AgentName;
use crate::types::rejection::Rejection;

use super::private_addresses::PrivateAddresses;
use super::rules::{Agent, Policy, Rule};
use crate::policy::evaluate::candidates;
use crate::policy::rate_limit::charge;

/// Permission to pass one TLS connection through unopened. No secret is sent on it. Not `Clone`; created by
/// `decide_passthrough` alone.
#[derive(Debug)]
pub struct PassthroughPermit {
    agent: AgentName,
    rule: Arc<str>,
    host: Host,
    port: u16,
    private: PrivateAddresses,
}

/// Decides whether a TLS connection of `caller` to `host` is passed through unopened. `None` means that it is
/// opened and its requests are decided. The first rule that names host and port decides, and its `rate` is
/// charged.
pub(crate) fn decide_passthrough(
    policy: &Policy,
    caller: &Caller,
    host: &Host,
    port: u16,
) -> Result<Option<PassthroughPermit>, Rejection> {
    let Ok(agent) = policy.agent_for(caller) else { return Ok(None) };
    let Some(rule) = passthrough_rule(agent, host, port) else { return Ok(None) };
    if let Some(rejection) = charge(agent.limiters(rule, &[]), host, "connections", Instant::now()) {
        return Err(rejection.by_rule(&*rule.id));
    }
    Ok(Some(PassthroughPermit {
        agent: agent.name().clone(),
        rule: Arc::clone(&rule.id),
        host: host.clone(),
        port,
        private: rule.private.clone(),
    }))
}

/// The rule that passes a TLS connection of `agent` through, if there is one.
pub(super) fn passthrough_rule<'a>(agent: &'a Agent, host: &Host, port: u16) -> Option<&'a Rule> {
    let first = candidates(agent, host).into_iter().find(|rule| rule.has_port(port));
    first.filter(|rule| rule.is_passthrough)
}

impl PassthroughPermit {
    /// The caller's agent entry.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// The server's host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The non-public addresses that may be dialled.
    pub fn private(&self) -> &PrivateAddresses {
        &self.private
    }
}
