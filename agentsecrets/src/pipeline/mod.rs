//! The life of a request, on one page:
//!
//! ```text
//! admit → identify → evaluate → credentials → apply → send → redact → record
//! ```
//!
//! `stages` holds the stages. Each takes the output of the one before it as its only input, so that the compiler
//! rejects short cuts. Per request a caller is admitted once, its agent matched once and its rule evaluated once.

pub mod agent_credentials;
mod approval;
mod connection;
mod context;
mod explicit;
mod passthrough;
pub mod record;
mod stages;
mod token_request;
#[cfg(target_os = "linux")]
mod transparent;
pub mod value_export;
mod websocket;
pub mod whoami;

use http::{Request, Response};

use crate::types::body::Body;
use crate::types::rejection::Rejection;

pub use connection::Interceptor;
pub use context::{CallerResult, ConnectionContext, Pipeline};
pub use explicit::ExplicitProxy;

use record::Attempt;
use stages::{AdmittedRequest, Outcome};

impl Pipeline {
    /// Answers one request, and writes one audit record of it.
    pub async fn request(&self, connection: &ConnectionContext, request: Request<Body>) -> Response<Body> {
        let caller = connection.caller.as_ref().as_ref().ok();
        let mut record = Attempt::open(&self.audit, &self.environment, caller, &request);
        match self.process(connection, request, &mut record).await {
            Ok(Outcome::Response(response, findings)) => record.answered(response, findings),
            Ok(Outcome::WebSocket(response, findings, websocket)) => {
                let (idle, stop) = (self.timeouts.body_idle, self.stop.clone());
                let guard = record.held().clone();
                self.tasks.spawn(async move {
                    let ended = websocket.relay(idle, &stop, &guard).await;
                    let failure = ended.err().map(|error| error.to_string()).or_else(|| findings.alarm());
                    record.ended(Some(101), findings.redacted(), failure);
                });
                response
            }
            Err(rejection) => record.refused(rejection),
        }
    }

    /// Admits the caller, and processes the request until the session or token that admitted it ends.
    async fn process(
        &self,
        connection: &ConnectionContext,
        request: Request<Body>,
        record: &mut Attempt,
    ) -> Result<Outcome, Rejection> {
        let admitted = self.admit(connection, request, record)?;
        let guard = admitted.guard.clone();
        let reason = tokio::select! {
            biased;
            reason = guard.ended() => reason,
            outcome = self.proceed(admitted, record) => return outcome,
        };
        Err(record.over(reason))
    }

    /// The stages. The record accompanies them: each notes there what the log must say.
    async fn proceed(&self, admitted: AdmittedRequest, record: &mut Attempt) -> Result<Outcome, Rejection> {
        let policy = self.policy.get();
        if value_export::is_own_endpoint(&admitted.target) && admitted.parts.uri.path() == whoami::PATH {
            return self.whoami(admitted, policy).await.map(Outcome::local);
        }
        let identified = self.identify(admitted, &policy, record).await?;
        if value_export::is_own_endpoint(&identified.target) && !identified.agent.is_operator() {
            return self.export(identified, record).await.map(Outcome::local);
        }
        let granted = self.evaluate(identified, record).await?;
        let credentialed = self.credentials(granted).await?;
        let applied = self.apply(credentialed, record).await?;
        let response = self.send(applied, record).await?;
        self.redact(response).await
    }
}
