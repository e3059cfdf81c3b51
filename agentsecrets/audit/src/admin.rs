//! Records of administrative acts, and facts about a caller that become known during its request.

use std::sync::Arc;

use super::log::{Log, Pending};
use crate::record::ADMINISTRATIVE;
use crate::{AuditError, IdentityLevel, Opening, Outcome, Status};
use agentsecrets_types::name::{AgentName, Environment, SecretName};
use agentsecrets_types::process_facts::ProcessFacts;

/// An administrative act, done or refused.
#[derive(Debug)]
pub struct AdminAct<'a> {
    /// The environment that was meant.
    pub environment: &'a Environment,
    /// A verb, such as `secrets set`.
    pub act: &'a str,
    /// The agent that it was done to.
    pub agent: Option<&'a AgentName>,
    /// The secrets that it was done to.
    pub secrets: &'a [SecretName],
    /// The process that asked for it, where it is known.
    pub process: Option<ProcessFacts>,
    /// Whether it was done.
    pub status: Status,
    /// Why not.
    pub reason: Option<String>,
    /// Notes without values.
    pub notes: Vec<String>,
}

impl Log {
    /// Records what a person did to us, such as revealing a secret. An error means that it must not be done.
    pub fn administrative(self: &Arc<Self>, act: AdminAct<'_>) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: act.environment.clone(),
            agent_id: act.agent.cloned(),
            identity_level: IdentityLevel::Kernel,
            process: act.process,
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
    /// The identity was issued: a token proved it, and no process is known.
    pub fn issued(&mut self) {
        self.record.identity_level = IdentityLevel::Issued;
        self.record.process = None;
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
