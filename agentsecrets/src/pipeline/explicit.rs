//! The way in for clients that know us for a proxy: `CONNECT`, absolute-form requests, and the endpoint
//! `/proxy`. Each becomes a connection or a request like any other; who calls is what the system says.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Arrived;
use super::record::Attempt;
use super::{Intercept, Known, Session};
use crate::base::name::{AgentName, Project};
use crate::base::refusal::{Refusal, Slug};
use crate::connection::Destination;
use crate::connection::ending::Ending;
use crate::connection::explicit::{Opening, opening};
use crate::connection::room::Place;
use crate::exchange::body::{Body, full};
use crate::exchange::strict::Violation;
use crate::exchange::target::Claim;
use crate::exchange::{endpoint, reply, server};
use crate::identity::socket::{Ends, Neighbours};
use crate::identity::{Caller, IdentityError};

/// What opens a tunnel.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// How long, and how many bytes, a client that was refused may go on sending before it is cut off: a
/// connection that is closed on unread bytes is reset, and the refusal is lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// The explicit proxy.
pub struct Explicit {
    /// Where what it lets in goes on.
    pub intercept: Arc<Intercept>,
    /// Who calls.
    pub neighbours: Neighbours,
    /// Whose secrets it spends; shown to whoever asks whether it is there.
    pub project: Project,
}

impl Explicit {
    /// Serves one connection until it ends.
    pub async fn connection(self: Arc<Self>, mut stream: TcpStream, ends: Ends, mut place: Place) {
        let _ = stream.set_nodelay(true);
        let patience = self.intercept.pipeline.timeouts.handshake;
        let begun = place.unless_given_up(opening(&mut stream, patience)).await;
        // Who says nothing is not asked for.
        let Some(Ok(begun)) = begun else { return };
        let caller = self.neighbours.identify(ends).await;
        match begun {
            Opening::Requests => Box::pin(self.requests(stream, ends, caller)).await,
            Opening::Tunnel(host, port) => {
                let destination = Destination::Named(host, port);
                if let Err(error) = &caller {
                    let refusal = unproven(error).about(destination.host());
                    return self.turn_away(stream, None, &destination, &refusal).await;
                }
                if stream.write_all(ESTABLISHED).await.is_ok() {
                    let arrived = Arrived { destination, caller };
                    Box::pin(self.intercept.clone().tunnel(stream, arrived)).await;
                }
            }
            Opening::Nonsense(why) => {
                let refusal = Refusal::new(Slug::BadRequest, "", why);
                self.turn_away(stream, caller.ok().as_ref(), &Destination::Address(ends.ours), &refusal)
                    .await;
            }
        }
    }

    /// Refuses a connection that is no exchange.
    async fn turn_away(
        &self,
        mut stream: TcpStream,
        caller: Option<&Caller>,
        destination: &Destination,
        refusal: &Refusal,
    ) {
        let reason = format!("{}: {}", refusal.slug.as_str(), refusal.message);
        self.intercept.record_broken(caller, destination, &reason);
        let told = async {
            stream.write_all(&reply::on_the_wire(refusal)).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = tokio::time::timeout(LINGER, told).await;
    }

    async fn requests(self: Arc<Self>, stream: TcpStream, ends: Ends, caller: Result<Caller, IdentityError>) {
        let caller = Arc::new(caller);
        let answer = |request| {
            let (explicit, caller) = (self.clone(), caller.clone());
            async move { explicit.answer(caller, request).await }
        };
        let violated = {
            let (explicit, caller) = (self.clone(), caller.clone());
            move |violation: Violation| {
                let (caller, us) = (caller.as_ref().as_ref().ok(), Destination::Address(ends.ours));
                explicit.intercept.record_broken(caller, &us, violation.message);
            }
        };
        let pipeline = &self.intercept.pipeline;
        let io = Ending::new(stream, |tcp| tcp);
        if let Err(error) =
            server::serve(io, false, &pipeline.timeouts, &pipeline.stop, answer, violated).await
        {
            tracing::debug!(%error, "a client's connection broke off");
        }
    }

    async fn answer(&self, caller: Known, request: Request<Body>) -> Response<Body> {
        let pipeline = &self.intercept.pipeline;
        if request.uri().scheme().is_some() {
            return pipeline.request(&Session { caller, claim: Claim::Absolute }, request).await;
        }
        let (mut parts, body) = request.into_parts();
        let asked = match endpoint::no_web_page(&parts) {
            Ok(()) if parts.uri.path() == "/health" && matches!(parts.method, Method::GET | Method::HEAD) => {
                return self.health();
            }
            Ok(()) => match (&*caller, parts.uri.path()) {
                (Err(error), _) => Err(unproven(error)),
                (Ok(_), "/proxy") => endpoint::unfold(&mut parts),
                (Ok(_), _) => Err(Refusal::new(
                    Slug::BadRequest,
                    "",
                    "there is nothing at this path: ask /proxy, or use this address as HTTPS_PROXY",
                )),
            },
            Err(refusal) => Err(refusal),
        };
        let request = Request::from_parts(parts, body);
        match asked {
            Ok(said) => {
                let session = Session { caller: self.speaking(caller, said), claim: Claim::Absolute };
                pipeline.request(&session, request).await
            }
            Err(refusal) => {
                let caller = caller.as_ref().as_ref().ok();
                Attempt::open(&pipeline.audit, &pipeline.environment, caller, &request).refused(&refusal)
            }
        }
    }

    /// The caller as which it speaks: of the agent entries that hold for it, the one it names. A token is a
    /// claim that nothing here can verify.
    fn speaking(&self, caller: Known, said: endpoint::Said) -> Known {
        if said.has_token {
            return Arc::new(Err(IdentityError::Unsupported));
        }
        let named: Option<AgentName> = said.agent.and_then(|agent| agent.parse().ok());
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

fn unproven(error: &IdentityError) -> Refusal {
    Refusal::new(Slug::CapabilityDenied, "", format!("the caller cannot be proven: {error}"))
}
