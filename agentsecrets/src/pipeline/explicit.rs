//! The way in for clients that know us for a proxy: `CONNECT`, absolute-form requests, and the endpoint
//! `/proxy`. Each becomes a connection or a request like any other; who calls is what the system says.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::{IncomingConnection, until_revoked};
use super::record::Attempt;
use super::{CallerResult, ConnectionContext, Interceptor};
use crate::http::error_response;
use crate::http::framing::Violation;
use crate::http::proxy_endpoint;
use crate::http::server;
use crate::identity::socket::{LocalPeers, SocketAddrs};
use crate::identity::{Caller, IdentityError};
use crate::intercept::Destination;
use crate::intercept::connection_limit::ConnectionPermit;
use crate::intercept::explicit::{ProxyRequest, opening};
use crate::intercept::reset_on_drop::ResetOnDrop;
use crate::types::body::{Body, full};
use crate::types::name::{AgentName, Project};
use crate::types::presented::PresentedCredentials;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Claim;

/// The response that opens a tunnel.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// Time limit for a refused client that goes on sending. A connection that is closed with unread bytes is
/// reset, and the response is lost with it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 256 * 1024;

/// The explicit proxy.
pub struct ExplicitProxy {
    /// The interceptor of admitted connections.
    pub intercept: Arc<Interceptor>,
    /// Identifies the caller.
    pub neighbours: LocalPeers,
    /// The project whose secrets are spent; `/health` shows it.
    pub project: Project,
}

impl ExplicitProxy {
    /// Serves one connection until it ends.
    pub async fn connection(
        self: Arc<Self>,
        mut stream: TcpStream,
        ends: SocketAddrs,
        mut place: ConnectionPermit,
    ) {
        let _ = stream.set_nodelay(true);
        let patience = self.intercept.pipeline.timeouts.handshake;
        let begun = place.unless_given_up(opening(&mut stream, patience)).await;
        // Who says nothing is not asked for.
        let Some(Ok(begun)) = begun else { return };
        let caller: CallerResult = Arc::new(self.neighbours.identify(ends).await);
        let capabilities = self.intercept.pipeline.capabilities.clone();
        match begun {
            ProxyRequest::Requests => {
                // What requests show, each shows for itself.
                let admitted = capabilities.admit(&caller, &PresentedCredentials::default());
                let held = admitted.map(|admitted| admitted.held).unwrap_or_default();
                until_revoked(&held, Box::pin(self.requests(stream, ends, caller))).await;
            }
            ProxyRequest::Tunnel(host, port, shown) => {
                let destination = Destination::Named(host, port);
                let admitted = match capabilities.admit(&caller, &shown) {
                    Ok(admitted) => admitted,
                    Err(refused) => {
                        // Nobody else is helped by a token.
                        let is_unseen =
                            matches!(*caller, Err(IdentityError::Nobody | IdentityError::Unsupported));
                        let asked = shown.is_empty() && is_unseen;
                        let mut caller = caller.as_ref().as_ref().ok().cloned();
                        if let Some(caller) = &mut caller {
                            caller.attributes.token = refused.token;
                        }
                        let refusal = refused.refusal;
                        return self.reject(stream, caller.as_ref(), &destination, refusal, asked).await;
                    }
                };
                if stream.write_all(ESTABLISHED).await.is_ok() {
                    let arrived = IncomingConnection { destination, caller, shown };
                    until_revoked(
                        &admitted.held,
                        Box::pin(self.intercept.clone().serve_tunnel(stream, arrived)),
                    )
                    .await;
                }
            }
            ProxyRequest::Nonsense(why) => {
                let refusal = Rejection::new(ErrorCode::BadRequest, why);
                let caller = caller.as_ref().as_ref().ok();
                self.reject(stream, caller, &Destination::Address(ends.ours), refusal, false).await;
            }
        }
    }

    /// Refuses a connection that is no exchange, or asks for a token first.
    async fn reject(
        &self,
        mut stream: TcpStream,
        caller: Option<&Caller>,
        destination: &Destination,
        refusal: Rejection,
        asked: bool,
    ) {
        let reason = format!("{}: {}", refusal.code.as_str(), refusal.message);
        self.intercept.record_failure(caller, destination, &reason);
        let told = async {
            stream
                .write_all(&error_response::rejection_bytes(&refusal.with_domain(destination.host()), asked))
                .await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER_TIMEOUT, told).await;
    }

    async fn requests(self: Arc<Self>, stream: TcpStream, ends: SocketAddrs, caller: CallerResult) {
        let answer = |request| {
            let (explicit, caller) = (self.clone(), caller.clone());
            async move { explicit.answer(caller, request).await }
        };
        let violated = {
            let (explicit, caller) = (self.clone(), caller.clone());
            move |violation: Violation| {
                let (caller, us) = (caller.as_ref().as_ref().ok(), Destination::Address(ends.ours));
                explicit.intercept.record_failure(caller, &us, violation.message);
            }
        };
        let pipeline = &self.intercept.pipeline;
        let io = ResetOnDrop::new(stream, |tcp| tcp);
        if let Err(error) =
            server::serve(io, false, &pipeline.timeouts, &pipeline.stop, answer, violated).await
        {
            tracing::debug!(%error, "a client's connection broke off");
        }
    }

    async fn answer(&self, caller: CallerResult, request: Request<Body>) -> Response<Body> {
        let pipeline = &self.intercept.pipeline;
        if request.uri().scheme().is_some() {
            let session =
                ConnectionContext { caller, claim: Claim::Absolute, shown: PresentedCredentials::default() };
            return pipeline.request(&session, request).await;
        }
        let (mut parts, body) = request.into_parts();
        let asked = match proxy_endpoint::reject_web_pages(&parts) {
            Ok(()) if parts.uri.path() == "/health" && matches!(parts.method, Method::GET | Method::HEAD) => {
                return self.health();
            }
            Ok(()) => match (&*caller, parts.uri.path()) {
                // Who shows something is let in, or not, by that.
                (Err(error), _)
                    if proxy_endpoint::presented_credentials(&mut parts.headers.clone(), true).is_empty() =>
                {
                    Err(caller_unknown(error))
                }
                (_, "/proxy") => proxy_endpoint::rewrite_to_target(&mut parts),
                (_, _) => Err(Rejection::new(
                    ErrorCode::BadRequest,
                    "there is nothing at this path: ask /proxy, or use this address as HTTPS_PROXY",
                )),
            },
            Err(refusal) => Err(refusal),
        };
        let request = Request::from_parts(parts, body);
        match asked {
            Ok(said) => {
                let caller = self.with_named_agent(caller, said);
                let session = ConnectionContext {
                    caller,
                    claim: Claim::Absolute,
                    shown: PresentedCredentials::default(),
                };
                pipeline.request(&session, request).await
            }
            Err(refusal) => {
                let caller = caller.as_ref().as_ref().ok();
                Attempt::open(&pipeline.audit, &pipeline.environment, caller, &request).refused(refusal)
            }
        }
    }

    /// The caller as which it speaks: of the agent entries that hold for it, the one it names.
    fn with_named_agent(&self, caller: CallerResult, named: Option<String>) -> CallerResult {
        let named: Option<AgentName> = named.and_then(|agent| agent.parse().ok());
        let known = named.filter(|name| self.intercept.pipeline.policy.get().agent(name).is_some());
        match (&*caller, known) {
            (Ok(caller), Some(agent)) => Arc::new(Ok(Caller { agent: Some(agent), ..caller.clone() })),
            _ => caller,
        }
    }

    fn health(&self) -> Response<Body> {
        let text = json!({ "status": "ok", "project": self.project.as_str() }).to_string();
        let mut response = Response::new(full(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn caller_unknown(error: &IdentityError) -> Rejection {
    Rejection::new(ErrorCode::CapabilityDenied, format!("the caller cannot be proven: {error}"))
}
