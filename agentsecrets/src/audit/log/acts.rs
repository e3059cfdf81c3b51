//! What people do to us, and what is found out of a caller while its request is under way.

use std::sync::Arc;

use super::{Log, Pending};
use crate::audit::record::ADMINISTRATIVE;
use crate::audit::{AuditError, IdentityLevel, Opening, Outcome, Status};
use crate::base::name::{AgentName, Environment, SecretName};
use crate::identity::{Caller, Process};

impl Log {
    /// Records what a person did to us, such as revealing a secret: `act` is a verb, `object` what it
    /// was done to. An error means that it must not be done.
    pub fn administrative(
        self: &Arc<Self>,
        environment: &Environment,
        act: &str,
        object: &SecretName,
    ) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: environment.clone(),
            agent_id: None,
            identity_level: IdentityLevel::Kernel,
            process: None,
            session_id: None,
            token_id: None,
            method: act.into(),
            target_url: String::new(),
            domain: String::new(),
        });
        pending.record.secret_keys = vec![object.to_string()];
        pending.rule(ADMINISTRATIVE);
        pending.finish(Outcome { status: Status::Ok, status_code: None, reason: None, redacted: false })
    }

    /// Records another act of a person's: `who` did it, `what` says to what.
    pub fn act(
        self: &Arc<Self>,
        environment: &Environment,
        who: Option<Arc<Process>>,
        act: &str,
        agent: Option<&AgentName>,
        what: String,
    ) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: environment.clone(),
            agent_id: agent.cloned(),
            identity_level: IdentityLevel::Kernel,
            process: who,
            session_id: None,
            token_id: None,
            method: act.into(),
            target_url: String::new(),
            domain: String::new(),
        });
        pending.note(what);
        pending.rule(ADMINISTRATIVE);
        pending.finish(Outcome { status: Status::Ok, status_code: None, reason: None, redacted: false })
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
