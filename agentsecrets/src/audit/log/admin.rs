//! What people do to us, and what is found out of a caller while its request is under way.

use std::sync::Arc;

use super::{Log, Pending};
use crate::audit::record::ADMINISTRATIVE;
use crate::audit::{AuditError, IdentityLevel, Opening, Outcome, Status};
use crate::identity::{Caller, Process, ProcessFacts};
use crate::types::name::{AgentName, Environment, SecretName};

/// What a person did, or was kept from doing.
#[derive(Debug)]
pub struct Act<'a> {
    /// The environment that was meant.
    pub environment: &'a Environment,
    /// A verb, such as `secrets set`.
    pub act: &'a str,
    /// The agent that it was done to.
    pub agent: Option<&'a AgentName>,
    /// The secrets that it was done to.
    pub secrets: &'a [SecretName],
    /// The process that asked for it, where it is known.
    pub process: Option<Arc<Process>>,
    /// Whether it was done.
    pub status: Status,
    /// Why not.
    pub reason: Option<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Log {
    /// Records what a person did to us, such as revealing a secret. An error means that it must not be done.
    pub fn administrative(self: &Arc<Self>, act: Act<'_>) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: act.environment.clone(),
            agent_id: act.agent.cloned(),
            identity_level: IdentityLevel::Kernel,
            process: act.process.as_deref().map(ProcessFacts::from),
            session_id: None,
            token_id: None,
            method: act.act.into(),
            target_url: String::new(),
            domain: String::new(),
        });
        pending.secret_keys(act.secrets);
        pending.rule(ADMINISTRATIVE);
        act.notes.into_iter().for_each(|note| pending.note(note));
        pending.finish(Outcome { status: act.status, status_code: None, reason: act.reason, redacted: false })
    }
}

impl Pending {
    /// Who the caller turned out to be, with what it was given.
    pub fn caller(&mut self, caller: &Caller) {
        if caller.standing.is_issued {
            self.record.identity_level = IdentityLevel::Issued;
            self.record.process = None;
        }
        if let Some(agent) = &caller.agent {
            self.agent(agent);
        }
        if let Some(token) = &caller.standing.token {
            self.token(token);
        }
        self.record.session_id = Some(caller.session.to_string());
    }

    /// The agent token that was shown, good or not.
    pub fn token(&mut self, id: &Arc<str>) {
        self.record.token_id = Some(id.to_string());
    }

    /// The session that would have held.
    pub fn session(&mut self, id: &Arc<str>) {
        self.record.session_id = Some(id.to_string());
    }
}
