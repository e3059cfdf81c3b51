//! What is decided of a connection before anything is read from it but whom it is for: whether we open it
//! and judge its requests one by one, or a rule says that it is passed on as it is.

use std::sync::Arc;
use std::time::Instant;

use crate::identity::Caller;
use crate::types::host::Host;
use crate::types::name::AgentName;
use crate::types::rejection::Rejection;

use super::grant::PrivateAddresses;
use super::rules::{Agent, Policy, Rule};
use crate::policy::evaluate::candidates;
use crate::policy::rate_limit::charge;

/// Leave for one TLS connection to be passed on unopened. No secret goes with it. Not `Clone`; made by
/// `decide_connection` alone.
#[derive(Debug)]
pub struct Tunnel {
    agent: AgentName,
    rule: Arc<str>,
    host: Host,
    port: u16,
    private: PrivateAddresses,
}

/// Whether a TLS connection of `caller` to `host` is passed on unopened. `None` means that it is opened:
/// what is not allowed then is refused request by request. The first rule that names host and port decides,
/// and its `rate` is charged.
pub fn decide_connection(
    policy: &Policy,
    caller: &Caller,
    host: &Host,
    port: u16,
) -> Result<Option<Tunnel>, Rejection> {
    let Ok(agent) = policy.agent_for(caller) else { return Ok(None) };
    let Some(rule) = passes(agent, host, port) else { return Ok(None) };
    if let Some(refusal) = charge(agent.limiters(rule, &[]), host, "connections", Instant::now()) {
        return Err(refusal.by_rule(&*rule.id));
    }
    Ok(Some(Tunnel {
        agent: agent.name().clone(),
        rule: Arc::clone(&rule.id),
        host: host.clone(),
        port,
        private: rule.private.clone(),
    }))
}

/// The rule under which a TLS connection of `agent` is passed on unopened.
pub(super) fn passes<'a>(agent: &'a Agent, host: &Host, port: u16) -> Option<&'a Rule> {
    let first = candidates(agent, host).into_iter().find(|rule| rule.has_port(port));
    first.filter(|rule| rule.passthrough)
}

impl Tunnel {
    /// The agent entry that the caller is.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// The server.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which non-public addresses may be dialled for it.
    pub fn private(&self) -> &PrivateAddresses {
        &self.private
    }
}
