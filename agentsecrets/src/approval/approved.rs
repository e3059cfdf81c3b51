//! An approval, and the release of the approved request.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::policy::grant::Grant;
use crate::policy::pending_approval::{ApprovalScope, PendingApproval};
use crate::types::rejection::{ErrorCode, Rejection};

/// A person's approval of one request. Not `Clone`; made by the [`ApprovalQueue`] alone.
#[derive(Debug)]
pub struct Approval {
    pub(super) digest: Digest,
    pub(super) scope: ApprovalScope,
    pub(super) id: String,
    pub(super) approver: Approver,
    pub(super) waited: Duration,
    /// Whether it covers the session, so that one use does not consume it.
    pub(super) is_for_session: bool,
}

/// The reason why an approved request is not sent all the same.
pub struct ReleaseError {
    /// The answer to the agent.
    pub rejection: Box<Rejection>,
    /// The approval, if it was not consumed.
    pub unused_approval: Option<Box<Approval>>,
}

/// The process that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Approver {
    /// The user id.
    pub uid: u32,
    /// The process id.
    pub pid: u32,
}

impl Approval {
    /// The grant of `pending` and a note for the audit record, if the approval is for the request with this
    /// `digest`, or for the session and `scope`. An approval is not consumed when a rate limit rejects the request.
    pub fn release(
        self,
        pending: PendingApproval,
        digest: &Digest,
        scope: &ApprovalScope,
        now: Instant,
    ) -> Result<(Grant, String), ReleaseError> {
        let covers = if self.is_for_session { self.scope == *scope } else { self.digest == *digest };
        if !covers {
            let message = "what a person approved is not what would be sent now: the policy or the secrets \
                           changed meanwhile; send the request again";
            let rejection = Rejection::new(ErrorCode::PolicyApprovalRequired, message);
            let rejection = Box::new(rejection.by_rule(&**pending.rule()));
            return Err(ReleaseError { rejection, unused_approval: None });
        }
        match pending.into_grant(now) {
            Ok(grant) => Ok((grant, self.audit_note())),
            Err(rejection) => {
                Err(ReleaseError { rejection: Box::new(rejection), unused_approval: Some(Box::new(self)) })
            }
        }
    }

    fn audit_note(&self) -> String {
        let Approval { id, approver, waited, is_for_session, .. } = self;
        let duration = if *is_for_session { "for the session" } else { "once" };
        format!("approved {duration} by {approver}, approval {id}, after {} ms", waited.as_millis())
    }
}

impl std::fmt::Display for Approver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {} (process {})", self.uid, self.pid)
    }
}
