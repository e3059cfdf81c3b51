//! Waits for a person's approval, and judges the request again afterwards: policy, session and secrets may have
//! changed meanwhile.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::context::Pipeline;
use super::record::Attempt;
use crate::approval::queue::ApprovalRequest;
use crate::approval::{BoundRequest, ReleaseError};
use crate::identity::Caller;
use crate::pipeline::agent_credentials::AgentCredentials;
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::evaluate::Decision;
use crate::policy::evaluate::evaluate;
use crate::policy::grant::Grant;
use crate::policy::pending_approval::PendingApproval;
use crate::policy::{Agent, Policy};
use crate::types::rejection::{ErrorCode, Rejection};

/// The agent entry and the policy under which a request was evaluated.
pub(super) struct Judged<'p> {
    pub policy: &'p Arc<Policy>,
    pub agent: &'p Agent,
}

impl Pipeline {
    /// Shows `pending` to a person. Returns the grant if it is approved, and the agent's credentials as they are then.
    pub(super) async fn await_approval(
        &self,
        pending: PendingApproval,
        judged: Judged<'_>,
        caller: &Caller,
        ask: &AccessRequest<'_>,
        (parts, (body, trailers)): (&Parts, (Option<Bytes>, Option<HeaderMap>)),
        record: &mut Attempt,
    ) -> Result<(Grant, Arc<AgentCredentials>), Rejection> {
        let Some(body) = body else {
            let message = "the body must be read before a person can approve it, and was not";
            return Err(Rejection::new(ErrorCode::BodyTooLarge, message).by_rule(&**pending.rule()));
        };
        let (session, agent_name, uses) =
            (caller.isolation(), pending.agent().clone(), pending.secret_uses().to_vec());
        let bound = BoundRequest {
            agent: &agent_name,
            session: &session,
            target: ask.target,
            method: ask.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            websocket: ask.websocket,
            headers: &parts.headers,
            body: &body,
            trailers: trailers.as_ref(),
            secret_uses: &uses,
        };
        record.on_hold(&pending);
        let request = ApprovalRequest { pending: &pending, caller, access: ask, bound: &bound };
        let answer = tokio::select! {
            answer = self.approvals.wait_for_answer(&request) => answer,
            () = self.stop.cancelled() => {
                let message = "we end, and nobody has approved this request";
                return Err(Rejection::new(ErrorCode::PolicyApprovalRequired, message));
            }
        };
        let approval = answer.map_err(|not_approved| {
            not_approved.note.into_iter().for_each(|note| record.note(note));
            not_approved.rejection
        })?;
        // The request is judged again, as it may have waited for minutes. Under the same policy the matched agent and
        // rule would decide the same, so that only the bounds beside the policy are checked: a session may have ended.
        // A changed policy decides anew, as rules of the old one allow nothing any more.
        let policy = self.policy.get();
        let (decision, agent) = if Arc::ptr_eq(&policy, judged.policy) {
            let refused = self.capabilities.rejection(caller, ask, pending.secret_uses());
            (refused.map_or(Decision::NeedsApproval(pending), Decision::Deny), judged.agent)
        } else {
            (evaluate(&policy, &*self.capabilities, caller, ask), policy.agent_for(caller)?)
        };
        let grant = match decision {
            Decision::Deny(rejection) => return Err(rejection),
            Decision::Allow(grant) => grant,
            Decision::NeedsApproval(pending) => {
                let digest =
                    BoundRequest { agent: pending.agent(), secret_uses: pending.secret_uses(), ..bound }
                        .digest();
                let scope = pending.scope(caller, ask);
                let released = approval.release(pending, &digest, &scope, Instant::now());
                let (grant, note) = released.map_err(|ReleaseError { rejection, unused_approval }| {
                    unused_approval.into_iter().for_each(|approval| self.approvals.return_unused(*approval));
                    *rejection
                })?;
                record.note(note);
                grant
            }
        };
        // The store may have changed as well.
        let secrets = self.credentials.get(agent).await?;
        Ok((grant, secrets))
    }
}
