//! What a person must approve: it is put before them whole, waits, and is judged again when they have answered,
//! since policy, session and secrets may not be what they were.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::Pipeline;
use super::record::Attempt;
use crate::approval::queue::Matter;
use crate::approval::{Held, Seen, Unreleased};
use crate::identity::Caller;
use crate::pipeline::agent_credentials::Wallet;
use crate::policy::access_request::Ask;
use crate::policy::evaluate::evaluate;
use crate::policy::grant::{Decision, Grant};
use crate::types::rejection::{ErrorCode, Rejection};

impl Pipeline {
    /// The grant that a person lets `held` become, and the wallet as it is then.
    pub(super) async fn approved(
        &self,
        held: Held,
        caller: &Caller,
        ask: &Ask<'_>,
        (parts, (body, trailers)): (&Parts, (Option<Bytes>, Option<HeaderMap>)),
        attempt: &mut Attempt,
    ) -> Result<(Grant, Arc<Wallet>), Rejection> {
        let refuse = |slug, message: &str| Rejection::new(slug, &ask.target.host, message);
        let Some(body) = body else {
            let message = "the body must be read before a person can approve it, and was not";
            return Err(refuse(ErrorCode::BodyTooLarge, message).by_rule(&**held.rule()));
        };
        let session = caller.isolation();
        let whole = Seen {
            agent: held.agent(),
            session: &session,
            target: ask.target,
            method: ask.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            websocket: ask.websocket,
            headers: &parts.headers,
            body: &body,
            trailers: trailers.as_ref(),
            spends: held.spends(),
        };
        attempt.on_hold(&held);
        let matter = Matter { held: &held, caller, ask, seen: &whole };
        let answered = tokio::select! {
            answered = self.approvals.ask(&matter) => answered,
            () = self.stop.cancelled() => {
                return Err(refuse(ErrorCode::PolicyApprovalRequired, "we end, and nobody has approved this request"));
            }
        };
        let approval = answered.map_err(|not| {
            not.note.into_iter().for_each(|note| attempt.note(note));
            not.refusal
        })?;
        let policy = self.policy.get();
        let grant = match evaluate(&policy, &*self.capabilities, caller, ask) {
            Decision::Deny(refusal) => return Err(refusal),
            Decision::Allow(grant) => grant,
            Decision::Hold(again) => {
                let digest = Seen { agent: again.agent(), spends: again.spends(), ..whole }.digest();
                let same = again.same(caller, ask);
                let released = again.release(approval, &digest, &same, Instant::now());
                let (grant, note) = released.map_err(|Unreleased { refusal, unused }| {
                    unused.into_iter().for_each(|approval| self.approvals.keep(*approval));
                    *refusal
                })?;
                attempt.note(note);
                grant
            }
        };
        let about = |refusal: Rejection| refusal.about(&ask.target.host);
        let agent = policy.agent_for(caller).map_err(about)?;
        let wallet = self.wallets.of(agent).await.map_err(about)?;
        Ok((grant, wallet))
    }
}
