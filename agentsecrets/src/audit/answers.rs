//! What a person said of a held request, as an administrative act.

use std::sync::Arc;

use super::record::{ADMINISTRATIVE, IdentityLevel, Opening, Outcome, Status};
use super::{AuditError, Log};
use crate::base::name::{Environment, SecretName};

/// One answer.
#[derive(Debug)]
pub struct Answering<'a> {
    /// The environment that was meant.
    pub environment: &'a Environment,
    /// `APPROVE` or `DENY`.
    pub act: &'a str,
    /// The secrets that the request would spend.
    pub secrets: &'a [SecretName],
    /// Where it would go, as `target_url` makes it.
    pub url: String,
    /// The host.
    pub domain: String,
    /// Which request it was, who answered, and for how long.
    pub note: String,
}

impl Log {
    /// Records an answer. An error means that it must not be given.
    pub fn answering(self: &Arc<Self>, answer: Answering<'_>) -> Result<(), AuditError> {
        let mut pending = self.begin(Opening {
            environment: answer.environment.clone(),
            agent_id: None,
            identity_level: IdentityLevel::Kernel,
            process: None,
            session_id: None,
            token_id: None,
            method: answer.act.into(),
            target_url: answer.url,
            domain: answer.domain,
        });
        pending.secret_keys(answer.secrets);
        pending.rule(ADMINISTRATIVE);
        pending.note(answer.note);
        pending.finish(Outcome { status: Status::Ok, status_code: None, reason: None, redacted: false })
    }
}
