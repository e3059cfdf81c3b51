//! The life of a request, in one direction:
//!
//! ```text
//! connection ─ identity ─ tls ─ exchange ─ policy ─ resolve ─ inject ─ upstream ─ redact ─ audit
//! ```
//!
//! Each stage's output is the next one's only input, so that the compiler refuses short cuts.

pub mod agent_credentials;
mod approval;
mod connection;
mod explicit;
mod passthrough;
pub mod record;
mod token_request;
#[cfg(target_os = "linux")]
mod transparent;
pub mod value_export;
mod websocket;
pub mod whoami;

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approval::Desk;
use crate::audit::Log;
use crate::authz::{Admitted, Capabilities};
use crate::http::override_headers;
use crate::http::proxy_endpoint;
use crate::http::upgrade;
use crate::identity::{Caller, IdentityError};
use crate::inject::{self, Payload};
use crate::policy::access_request::Ask;
use crate::policy::bounds::Bounds;
use crate::policy::evaluate::{evaluate, reading};
use crate::policy::grant::{Decision, Spend};
use crate::policy::watch::Live;
use crate::redact::guess_detector::Alarms;
use crate::redact::{self, Findings};
use crate::types::body::{Body, patient};
use crate::types::name::{Environment, SecretName};
use crate::types::presented::Shown;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Claim, Target};
use crate::types::timeouts::Timeouts;
use crate::upstream::client::Upstream;

pub use connection::Intercept;
pub use explicit::Explicit;

use agent_credentials::Wallets;
use record::Attempt;
use websocket::Tunnel;

/// What the stages share: one per worker thread, its parts shared by all.
pub struct Pipeline {
    /// The policy in force.
    pub policy: Arc<Live>,
    /// What bounds callers beside it.
    pub capabilities: Arc<Capabilities>,
    /// What waits for a person.
    pub approvals: Arc<Desk>,
    /// What agents may spend.
    pub wallets: Arc<Wallets>,
    /// Who may be guessing.
    pub alarms: Arc<Alarms>,
    /// The real servers.
    pub upstream: Arc<Upstream>,
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

/// Who asks, or why nobody knows.
pub type Known = Arc<Result<Caller, IdentityError>>;

/// Whose requests come in, and what their way in says of the server. They are judged one by one.
pub struct Session {
    /// Who asks.
    pub caller: Known,
    /// Of whom.
    pub claim: Claim,
    /// What its connection showed of itself.
    pub shown: Shown,
}

/// What came of a request that left.
enum Answered {
    /// An answer, to be recorded when its body has ended.
    Whole(Response<Body>, Findings),
    /// A WebSocket, to be recorded when it has ended.
    Tunnel(Response<Body>, Findings, Tunnel),
}

impl Pipeline {
    /// Answers one request, and leaves one record of it.
    pub async fn request(&self, session: &Session, request: Request<Body>) -> Response<Body> {
        let mut attempt =
            Attempt::open(&self.audit, &self.environment, session.caller.as_ref().as_ref().ok(), &request);
        match self.exchange(session, request, &mut attempt).await {
            Ok(Answered::Whole(response, findings)) => attempt.answered(response, findings),
            Ok(Answered::Tunnel(response, findings, tunnel)) => {
                let (idle, stop) = (self.timeouts.body_idle, self.stop.clone());
                let held = attempt.held().clone();
                self.tasks.spawn(async move {
                    let ended = tunnel.carry(idle, &stop, &held).await;
                    let failure = ended.err().map(|error| error.to_string()).or_else(|| findings.alarm());
                    attempt.ended(Some(101), findings.redacted(), failure);
                });
                response
            }
            Err(refusal) => attempt.refused(&refusal),
        }
    }

    /// The life of a request, which ends with what its caller was let in for.
    async fn exchange(
        &self,
        session: &Session,
        mut request: Request<Body>,
        attempt: &mut Attempt,
    ) -> Result<Answered, Rejection> {
        let agents_side = hyper::upgrade::on(&mut request);
        let body_idle = self.timeouts.body_idle;
        let (mut parts, body) = request.map(|body| patient(body, body_idle)).into_parts();
        let target = Target::agree(&session.claim, &parts)?;
        attempt.target(&target, &parts);
        override_headers::unmask(&mut parts, &target)?;
        let to_a_proxy = matches!(session.claim, Claim::Absolute);
        let shown = proxy_endpoint::shown(&mut parts.headers, to_a_proxy).and(&session.shown);
        let admitted = self.capabilities.admit(&session.caller, &shown);
        let admitted = admitted.map_err(|refused| attempt.not_admitted(*refused).about(&target.host))?;
        attempt.admitted(&admitted);
        let Admitted { caller, held } = admitted;
        let host = target.host.clone();
        let why = tokio::select! {
            biased;
            why = held.ended() => why,
            done = self.proceed(caller, target, parts, body, agents_side, attempt) => return done,
        };
        Err(attempt.over(why).about(host))
    }

    /// What becomes of the request of a caller that is known.
    async fn proceed(
        &self,
        mut caller: Caller,
        target: Target,
        mut parts: Parts,
        body: Body,
        agents_side: hyper::upgrade::OnUpgrade,
        attempt: &mut Attempt,
    ) -> Result<Answered, Rejection> {
        let body_idle = self.timeouts.body_idle;
        let handshake = upgrade::asked(&parts).map_err(|refusal| refusal.about(&target.host))?;
        if let Some(handshake) = &handshake {
            parts.extensions.insert(handshake.clone());
        }
        let policy = self.policy.get();
        if value_export::is_for_us(&target) && parts.uri.path() == whoami::PATH {
            let response = self.tell_who(&caller, policy, &parts).await?;
            return Ok(Answered::Whole(response, Findings::default()));
        }
        let agent = policy.agent_for(&caller).map_err(|refusal| refusal.about(&target.host))?;
        attempt.agent(agent.name());
        caller.agent = Some(agent.name().clone());
        let caller = &caller;
        let wallet = self.wallets.of(agent).await.map_err(|refusal| refusal.about(&target.host))?;
        let about = |refusal: Rejection| refusal.about(&target.host);
        let bounded = |spends: &[Spend]| {
            let (method, path) = (&parts.method, parts.uri.path());
            let ask = Ask { target: &target, method, path, websocket: false, references: &[] };
            self.capabilities.refusal(caller, &ask, spends).map_or(Ok(()), Err)
        };
        if value_export::is_for_us(&target) && !agent.is_the_person() {
            let response = match value_export::asked(agent, &parts).map_err(about)? {
                value_export::Question::Names => value_export::names(agent),
                value_export::Question::Values(values) => {
                    bounded(&value_export::spends(&values))?;
                    self.capabilities.charge(caller).await.map_err(about)?;
                    value_export::hand_over(&values, &wallet, attempt).map_err(about)?
                }
            };
            return Ok(Answered::Whole(response, Findings::default()));
        }
        let mut references = inject::References::of_head(&parts, &wallet.vocabulary).map_err(about)?;
        if agent.is_the_person() {
            // A person may know which secrets there are.
            wallet.values.hold(references.all(), |name| agent.makes(name)).map_err(about)?;
        }
        let (method, path, websocket) = (&parts.method, parts.uri.path(), handshake.is_some());
        let ask = Ask { target: &target, method, path, websocket, references: &[] };
        let reading = reading(&policy, caller, &Ask { references: references.all(), ..ask });
        let body = Payload::read(&parts, body, reading.as_ref(), &wallet.room).await.map_err(about)?;
        references.and_of_body(&body, &wallet.vocabulary).map_err(about)?;
        attempt.asks(references.all());
        let ask = Ask { references: references.all(), ..ask };
        let (grant, wallet) = match evaluate(&policy, &*self.capabilities, caller, &ask) {
            Decision::Deny(refusal) => return Err(refusal),
            Decision::Allow(grant) => (grant, wallet),
            Decision::Hold(held) => {
                let body = (body.bytes().cloned(), body.trailers().cloned());
                self.approved(held, caller, &ask, (&parts, body), attempt).await?
            }
        };
        attempt.granted(&grant);
        self.alarms.check(agent.name(), &target.host)?;
        if !grant.spends().is_empty() {
            self.capabilities.charge(caller).await.map_err(about)?;
        }

        let made = self.make(&grant, caller, &target.host, &wallet).await.map_err(about)?;
        let credentials = wallet.values.resolve(&grant, &made).map_err(about)?;
        let (body, quotes) = body.within(grant.max_body()).map_err(about)?.watched(&wallet.vocabulary);
        attempt.watching(quotes);
        let request = Request::from_parts(parts, body);
        let messages = inject::Messages::granted(&grant, &credentials, &target.host);
        let host = target.host.clone();
        let (outbound, redactor) = inject::apply(
            request,
            target,
            &grant,
            &credentials,
            &wallet.vocabulary,
            caller.isolation(),
            wallet.patterns.clone(),
        )?;
        let (outbound, redactor) =
            inject::sign(outbound, redactor, &grant, &credentials, &wallet.room).await?;
        attempt.notes(&outbound);
        let redactor = redactor.watched(self.alarms.watch(agent.name(), &host));
        attempt.intent(&grant)?;
        let mut response = self.upstream.send(outbound).await?.map(|body| patient(body, body_idle));
        if response.status() == StatusCode::UNAUTHORIZED {
            self.wallets.minter().doubt(&grant, &made);
        }
        let agreed = match &handshake {
            Some(handshake) => handshake.agreed(&response).map_err(|why| {
                Rejection::new(
                    ErrorCode::UpstreamUnavailable,
                    &host,
                    format!("'{host}' did not answer: {why}"),
                )
            })?,
            None => false,
        };
        if let Some(taking) = grant.taking() {
            let (session, purse) = (caller.isolation(), &wallet.purse);
            let keep = |name: &SecretName, value| purse.capture(name, &session, &host, value);
            response = redact::capture(response, taking, &host, keep).await?;
        }
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
}
