//! What people do to us, and what is found out of a caller while its request is under way.

use std::sync::Arc;

use super::{Act, Log, Pending};
use crate::audit::record::ADMINISTRATIVE;
use crate::audit::{AuditError, IdentityLevel, Opening, Outcome};
use crate::identity::Caller;

impl Log {
    /// Records what a person did to us, such as revealing a secret. An error means that it must not be done.
    pub fn administrative(self: &Arc<Self>, act: Act<'_>) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: act.environment.clone(),
            agent_id: None,
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
