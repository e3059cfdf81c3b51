//! The life of a request, in one direction:
//!
//! ```text
//! connection ─ identity ─ tls ─ exchange ─ policy ─ resolve ─ inject ─ upstream ─ redact ─ audit
//! ```
//!
//! Each stage's output is the next one's only input, so that the compiler refuses short cuts.

mod passthrough;
pub mod record;
mod tunnel;
pub mod wallet;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Log;
use crate::base::name::Environment;
use crate::base::refusal::{Refusal, Slug};
use crate::base::timeouts::Timeouts;
use crate::connection::Accepted;
use crate::connection::ending::Ending;
use crate::connection::room::Place;
use crate::connection::sniff::{Speaks, sniff};
use crate::connection::transparent::reset;
use crate::exchange::body::{Body, limited, patient};
use crate::exchange::incoming;
use crate::exchange::strict::Violation;
use crate::exchange::target::{Claim, Target};
use crate::exchange::{disguise, server, upgrade};
use crate::identity::process::Identifier;
use crate::identity::{Caller, IdentityError};
use crate::inject;
use crate::policy::ask::Ask;
use crate::policy::connection::{Tunnel as Passage, decide_connection};
use crate::policy::decide::decide;
use crate::policy::grant::Decision;
use crate::policy::live::Live;
use crate::redact::Findings;
use crate::tls::leaf::Leaves;
use crate::tls::terminate::{Hello, TerminateError, Terminated};
use crate::upstream::client::Upstream;

use record::Attempt;
use tunnel::Tunnel;
use wallet::Wallets;

/// What the stages share: one per worker thread, its parts shared by all.
pub struct Pipeline {
    /// Who calls.
    pub identifier: Arc<Identifier>,
    /// Our certificates.
    pub leaves: Arc<Leaves>,
    /// The policy in force.
    pub policy: Arc<Live>,
    /// What agents may spend.
    pub wallets: Arc<Wallets>,
    /// The real servers.
    pub upstream: Upstream,
    /// The log.
    pub audit: Arc<Log>,
    /// The environment whose secrets are spent.
    pub environment: Environment,
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// Cancelled when we end.
    pub stop: CancellationToken,
    /// What must be finished before we end.
    pub tasks: TaskTracker,
}

/// A connection whose caller and server are known. Its requests are judged one by one.
struct Session {
    caller: Result<Caller, IdentityError>,
    claim: Claim,
    port: u16,
}

/// What came of a request that left.
enum Answered {
    /// An answer, to be recorded when its body has ended.
    Whole(Response<Body>, Findings),
    /// A WebSocket, to be recorded when it has ended.
    Tunnel(Response<Body>, Findings, Tunnel),
}

/// What a new connection turned out to be.
enum Heard {
    /// TLS that we ended: requests can come.
    Tls(Box<Terminated>),
    /// Plain HTTP: requests can come.
    Plain(TcpStream),
    /// TLS that a rule speaks about and that is not opened.
    Unopened(Box<Hello>, Result<Passage, Refusal>),
}

/// Why a connection never became an exchange.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// It was closed before it said anything, or waited too long to do so.
    #[error("nothing was said")]
    Silent,
    #[error("neither TLS nor HTTP: reset")]
    Unknown,
    #[error("too many connections at once: reset")]
    NoRoom,
    #[error(transparent)]
    Tls(#[from] TerminateError),
}

impl Pipeline {
    /// Serves one connection until it ends.
    pub async fn connection(self: Arc<Self>, accepted: Accepted, mut place: Place) {
        let Accepted { stream, destination, snapshot, .. } = accepted;
        let caller = self.identifier.identify(&snapshot).await;
        let hearing = self.hear(stream, destination, caller.as_ref().ok());
        let heard = place.unless_given_up(hearing).await.unwrap_or(Err(Broken::NoRoom));
        // What follows is boxed: a connection that has said nothing yet must not cost what an exchange does.
        let session = |caller, claim| Arc::new(Session { caller, claim, port: destination.port() });
        let (session, ended) = match heard {
            Ok(Heard::Tls(tls)) => {
                let session = session(caller, Claim::Tls(tls.host));
                let io = Ending::new(tls.stream, |tls| tls.get_ref().0.tcp());
                (session.clone(), Box::pin(self.serve(io, tls.http2, session, destination)).await)
            }
            Ok(Heard::Plain(stream)) => {
                let session = session(caller, Claim::Plain);
                let io = Ending::new(stream, |tcp| tcp);
                (session.clone(), Box::pin(self.serve(io, false, session, destination)).await)
            }
            Ok(Heard::Unopened(hello, passage)) => {
                let Ok(caller) = &caller else { return };
                return Box::pin(self.leave_unopened(*hello, passage, caller, destination)).await;
            }
            Err(Broken::Silent) => return,
            Err(broken) => {
                let session = session(caller, Claim::Plain);
                return self.record_broken(&session, destination, &broken.to_string());
            }
        };
        match ended {
            Err(error) if error.is_parse() => self.record_broken(&session, destination, &error.to_string()),
            Err(error) => tracing::debug!(%error, "an agent's connection broke off"),
            Ok(()) => {}
        }
    }

    /// Resets a connection for which there is no room.
    pub fn no_room(self: &Arc<Self>, accepted: Accepted) {
        let (pipeline, destination) = (self.clone(), accepted.destination);
        reset(accepted.stream);
        tokio::spawn(async move {
            let caller = pipeline.identifier.identify(&accepted.snapshot).await;
            let session = Session { caller, claim: Claim::Plain, port: destination.port() };
            pipeline.record_broken(&session, destination, &Broken::NoRoom.to_string());
        });
    }

    /// Finds out what a new connection speaks, and answers its ClientHello unless a rule leaves it unopened.
    async fn hear(
        &self,
        stream: TcpStream,
        destination: SocketAddr,
        caller: Option<&Caller>,
    ) -> Result<Heard, Broken> {
        match sniff(&stream, self.timeouts.handshake).await.map_err(|_| Broken::Silent)? {
            Speaks::Tls => {}
            Speaks::Http => return Ok(Heard::Plain(stream)),
            Speaks::Unknown => {
                reset(stream);
                return Err(Broken::Unknown);
            }
        }
        let hello = Hello::read(stream, destination.ip(), self.timeouts.handshake).await?;
        let decided = caller.map_or(Ok(None), |caller| {
            decide_connection(&self.policy.get(), caller, hello.host(), destination.port())
        });
        match decided.transpose() {
            Some(passage) => Ok(Heard::Unopened(Box::new(hello), passage)),
            None => Ok(Heard::Tls(Box::new(Box::pin(hello.terminate(&self.leaves)).await?))),
        }
    }

    /// Passes a connection on as it is, or refuses it, where a rule says so.
    async fn leave_unopened(
        &self,
        hello: Hello,
        passage: Result<Passage, Refusal>,
        caller: &Caller,
        destination: SocketAddr,
    ) {
        match passage {
            Ok(passage) => self.pass_through(hello, &passage, caller, destination).await,
            Err(refusal) => {
                let (log, port) = (&self.audit, destination.port());
                let attempt = Attempt::unopened(log, &self.environment, caller, hello.host(), port);
                passthrough::turn_away(hello, attempt, &refusal).await;
            }
        }
    }

    async fn serve<IO>(
        self: &Arc<Self>,
        io: IO,
        http2: bool,
        session: Arc<Session>,
        destination: SocketAddr,
    ) -> hyper::Result<()>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |request| {
            let (pipeline, session) = (self.clone(), session.clone());
            async move { pipeline.request(&session, request).await }
        };
        let violated = {
            let (pipeline, session) = (self.clone(), session.clone());
            move |violation: Violation| {
                pipeline.record_broken(&session, destination, violation.message);
            }
        };
        server::serve(io, http2, &self.timeouts, &self.stop, answer, violated).await
    }

    /// Answers one request, and leaves one record of it.
    async fn request(&self, session: &Session, request: Request<Incoming>) -> Response<Body> {
        let mut attempt =
            Attempt::open(&self.audit, &self.environment, session.caller.as_ref().ok(), &request);
        match self.exchange(session, request, &mut attempt).await {
            Ok(Answered::Whole(response, findings)) => attempt.answered(response, findings),
            Ok(Answered::Tunnel(response, findings, tunnel)) => {
                let (idle, stop) = (self.timeouts.body_idle, self.stop.clone());
                self.tasks.spawn(async move {
                    let ended = tunnel.carry(idle, &stop).await;
                    let failure = ended.err().map(|error| error.to_string());
                    attempt.ended(Some(101), findings.redacted(), failure);
                });
                response
            }
            Err(refusal) => attempt.refused(&refusal),
        }
    }

    /// The life of a request.
    async fn exchange(
        &self,
        session: &Session,
        mut request: Request<Incoming>,
        attempt: &mut Attempt,
    ) -> Result<Answered, Refusal> {
        let agents_side = hyper::upgrade::on(&mut request);
        let (version, body_idle) = (request.version(), self.timeouts.body_idle);
        let request = request.map(|body| patient(incoming::of_request(body, version), body_idle));
        let (mut parts, body) = request.into_parts();
        let target = Target::agree(&session.claim, session.port, &parts)?;
        attempt.target(&target, &parts);
        disguise::unmask(&mut parts, &target)?;
        let caller = session.caller.as_ref().map_err(|error| {
            Refusal::new(
                Slug::CapabilityDenied,
                &target.host,
                format!("the caller cannot be proven: {error}"),
            )
        })?;

        let handshake = upgrade::asked(&parts).map_err(|refusal| refusal.about(&target.host))?;
        if let Some(handshake) = &handshake {
            parts.extensions.insert(handshake.clone());
        }
        let policy = self.policy.get();
        let agent = policy.agent_for(caller).map_err(|refusal| refusal.about(&target.host))?;
        attempt.agent(agent.name());
        let wallet = self.wallets.of(agent).await.map_err(|refusal| refusal.about(&target.host))?;
        let references = inject::references(&parts, &wallet.vocabulary);
        let path = parts.uri.path();
        let (method, websocket) = (&parts.method, handshake.is_some());
        let ask = Ask { target: &target, method, path, websocket, references: &references };
        let grant = match decide(&policy, caller, &ask) {
            Decision::Deny(refusal) => return Err(refusal),
            Decision::Allow(grant) => grant,
        };
        attempt.granted(&grant);

        let credentials = wallet.values.resolve(&grant).map_err(|refusal| refusal.about(&target.host))?;
        let body = match grant.max_body() {
            Some(most) if body.size_hint().lower() > most => return Err(too_large(&target, most)),
            Some(most) => limited(body, most),
            None => body,
        };
        let request = Request::from_parts(parts, body);
        let messages = inject::Messages::granted(&grant, &credentials, &target.host);
        let host = target.host.clone();
        let (outbound, redactor) = inject::apply(
            request,
            target,
            &grant,
            &credentials,
            &wallet.vocabulary,
            caller.session.clone(),
            wallet.patterns.clone(),
        )?;
        let (outbound, redactor) = inject::sign(outbound, redactor, &grant, &credentials).await?;
        attempt.intent(&grant)?;
        let mut response = self.upstream.send(outbound).await?.map(|body| patient(body, body_idle));
        let agreed = match &handshake {
            Some(handshake) => handshake.agreed(&response).map_err(|why| {
                Refusal::new(Slug::UpstreamUnavailable, &host, format!("'{host}' did not answer: {why}"))
            })?,
            None => false,
        };
        if !agreed {
            let (response, findings) = redactor.answer(response).await?;
            return Ok(Answered::Whole(response, findings));
        }
        let server = hyper::upgrade::on(&mut response);
        let conversation = redactor.conversation();
        let (response, findings) = redactor.answer(response).await?;
        let conversation = conversation(findings.clone());
        let tunnel = Tunnel { agent: agents_side, server, conversation, messages, wallet };
        Ok(Answered::Tunnel(response, findings, tunnel))
    }

    /// A connection that never became an exchange leaves a record too.
    fn record_broken(&self, session: &Session, destination: SocketAddr, reason: &str) {
        Attempt::broken(&self.audit, &self.environment, session.caller.as_ref().ok(), destination, reason);
    }
}

fn too_large(target: &Target, most: u64) -> Refusal {
    let message = format!("the body is larger than the {most} bytes that the rule allows");
    Refusal::new(Slug::BodyTooLarge, &target.host, message)
}
