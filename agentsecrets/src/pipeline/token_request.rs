//! The way to token endpoints: the same guarded one that requests take, each question leaving a record of its
//! own before it leaves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt, Limited};
use zeroize::Zeroizing;

use super::Pipeline;
use super::record::Attempt;
use crate::audit::Log;
use crate::credentials::token_request::{TokenFetch, TokenRequest, TokenResponse};
use crate::identity::Caller;
use crate::inject;
use crate::pipeline::agent_credentials::AgentCredentials;
use crate::policy::grant::Grant;
use crate::types::host::Host;
use crate::types::name::{AgentName, Environment, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::upstream::client::Upstream;

/// The largest answer, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// Time limit of an endpoint, unless the configuration sets a shorter one.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

impl Pipeline {
    /// Finds or makes those secrets of `grant` that are not stored. Answers are searched for them from here on.
    pub(super) async fn obtain_credentials(
        &self,
        grant: &Grant,
        caller: &Caller,
        host: &Host,
        credentials: &AgentCredentials,
    ) -> Result<Vec<(SecretName, Arc<Secret>)>, Rejection> {
        let mut made = Vec::with_capacity(grant.minted_credentials().len() + grant.captured().len());
        let session = caller.isolation();
        for name in grant.captured() {
            let value = credentials.runtime.captured(name, &session, host).ok_or_else(|| {
                let message = format!("nothing was captured as '{name}' from '{host}' in this session yet");
                Rejection::new(ErrorCode::SecretMissing, message)
            })?;
            made.push((name.clone(), value));
        }
        if grant.minted_credentials().is_empty() {
            return Ok(made);
        }
        let fetch: Arc<dyn TokenFetch> = Arc::new(TokenFetcher {
            upstream: self.upstream.clone(),
            audit: self.audit.clone(),
            environment: self.environment.clone(),
            caller: caller.clone(),
            agent: grant.agent().clone(),
            patience: self.timeouts.answer.min(TOKEN_TIMEOUT),
        });
        for derived in grant.minted_credentials() {
            let minted = self.credentials.minter().obtain(derived, &credentials.values, &fetch).await?;
            credentials.runtime.put(&minted)?;
            made.push((derived.name.clone(), minted.value));
        }
        Ok(made)
    }
}

/// Asks token endpoints for one caller.
struct TokenFetcher {
    upstream: Arc<Upstream>,
    audit: Arc<Log>,
    environment: Environment,
    caller: Caller,
    agent: AgentName,
    /// From the question to the end of the answer.
    patience: Duration,
}

impl TokenFetch for TokenFetcher {
    fn ask(&self, question: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, Rejection>> {
        let (upstream, patience, agent) = (self.upstream.clone(), self.patience, self.agent.clone());
        let attempt = Attempt::question(&self.audit, &self.environment, &self.caller, &self.agent, &question);
        async move {
            let mut attempt = attempt;
            attempt.intend()?;
            let host = question
                .derived
                .endpoint()
                .map(|endpoint| endpoint.target.host.to_string())
                .unwrap_or_default();
            let asking = ask(&upstream, question, &agent, &host);
            let asked = tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| {
                let message =
                    format!("'{host}' did not answer within {} seconds", patience.as_secs_f32().ceil());
                Err(Rejection::new(ErrorCode::UpstreamTimeout, message))
            });
            match &asked {
                Ok(reply) => attempt.ended(Some(reply.status), false, None),
                Err(refusal) => attempt.ended(None, false, Some(refusal.code.as_str().to_owned())),
            }
            asked
        }
        .boxed()
    }
}

async fn ask(
    upstream: &Upstream,
    question: TokenRequest,
    agent: &AgentName,
    host: &str,
) -> Result<TokenResponse, Rejection> {
    let answer = upstream.send(inject::outbound_token_request(question, agent)?).await?;
    let unusable = |why: &str| Rejection::new(ErrorCode::UpstreamUnavailable, format!("'{host}' {why}"));
    if answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(unusable("compresses its answer, which it was not asked to"));
    }
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_RESPONSE_BYTES).collect().await;
    let body = body.map_err(|_| unusable("broke off its answer, or made it too large"))?;
    Ok(TokenResponse { status, body: Zeroizing::new(body.to_bytes().to_vec()) })
}
