//! The record of one attempt, opened when a request arrives and closed exactly once: when it is
//! refused, when the last byte of its answer went out, or when it broke off before that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::audit::{IdentityLevel, Log, Opening, Outcome, Pending, Status, target_url};
use crate::authz::{Admitted, Refused, RevocationGuard};
use crate::credentials::token_request::TokenRequest;
use crate::http::error_response;
use crate::identity::Caller;
use crate::inject::{Outbound, QuotedPlaceholders};
use crate::intercept::Destination;
use crate::policy::access_request::SecretReference;
use crate::policy::connection::PassthroughPermit;
use crate::policy::grant::Grant;
use crate::policy::minted_credentials::TokenEndpoint;
use crate::redact::RedactionReport;
use crate::types::body::{Body, BodyError, BodyHooks, HookedBody, PolledFrame};
use crate::types::host::Host;
use crate::types::name::{AgentName, Environment, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Target;

/// One attempt, being recorded.
pub struct Attempt {
    pending: Pending,
    /// Placeholders that the body quotes.
    quotes: Option<QuotedPlaceholders>,
    /// Ends with the session or token of the caller.
    held: RevocationGuard,
    /// The reason for a refusal, where its slug does not say enough.
    because: Option<String>,
}

impl Attempt {
    /// Opens the record of `request`.
    pub fn open(
        log: &Arc<Log>,
        environment: &Environment,
        caller: Option<&Caller>,
        request: &Request<Body>,
    ) -> Self {
        let mut opening = opening(environment, caller);
        opening.method = request.method().as_str().to_owned();
        Self::of(log.begin(opening))
    }

    fn of(pending: Pending) -> Self {
        Self { pending, quotes: None, held: RevocationGuard::default(), because: None }
    }

    /// The whole record of a connection that never became an exchange.
    pub fn broken(
        log: &Arc<Log>,
        environment: &Environment,
        caller: Option<&Caller>,
        destination: &Destination,
        reason: &str,
    ) {
        let mut pending = log.begin(opening(environment, caller));
        pending.request("CONNECT", format!("tcp://{destination}"), destination.host().to_string());
        close(pending, Status::Blocked, None, Some(reason.to_owned()), false);
    }

    /// Opens the record of a connection that is not opened.
    pub fn unopened(
        log: &Arc<Log>,
        environment: &Environment,
        caller: &Caller,
        host: &Host,
        port: u16,
    ) -> Self {
        let mut pending = log.begin(opening(environment, Some(caller)));
        pending.request("CONNECT", format!("tcp://{host}:{port}"), host.to_string());
        Self::of(pending)
    }

    /// Opens the record of a question to a token endpoint, which `agent` was the occasion of.
    pub fn question(
        log: &Arc<Log>,
        environment: &Environment,
        caller: &Caller,
        agent: &AgentName,
        question: &TokenRequest,
    ) -> Self {
        let mut pending = log.begin(opening(environment, Some(caller)));
        let derived = &question.derived;
        if let Some(TokenEndpoint { target, path, .. }) = derived.endpoint() {
            pending.request("POST", target_url(target, path), target.host.to_string());
        }
        pending.agent(agent);
        pending.rule(format!("credential {} ({})", derived.name, derived.defined_at));
        pending.exports(&question.spends, derived.method.as_str());
        Self::of(pending)
    }

    /// Notes who is let in, and what ends it.
    pub fn admitted(&mut self, admitted: &Admitted) {
        let caller = &admitted.caller;
        if caller.attributes.is_issued {
            self.pending.issued();
        }
        if let Some(agent) = &caller.agent {
            self.pending.agent(agent);
        }
        if let Some(token) = &caller.attributes.token {
            self.pending.token(token);
        }
        self.pending.session(&caller.session);
        self.held = admitted.held.clone();
    }

    /// The guard that ends with the session or token of the caller.
    pub fn held(&self) -> &RevocationGuard {
        &self.held
    }

    /// Notes why nobody is let in, and yields what the agent is told.
    pub fn not_admitted(&mut self, refused: Refused) -> Rejection {
        let Refused { refusal, token, session } = refused;
        token.iter().for_each(|token| self.pending.token(token));
        session.iter().for_each(|session| self.pending.session(session));
        self.because = Some(refusal.message.clone());
        refusal
    }

    /// Notes that what it was let in for has ended, and yields what the agent is told.
    pub fn over(&mut self, why: String) -> Rejection {
        let refusal = Rejection::new(ErrorCode::CapabilityDenied, why.clone());
        self.because = Some(why);
        refusal
    }

    /// Puts the intent of a question on disk. Without it nothing leaves.
    pub fn intend(&mut self) -> Result<(), Rejection> {
        self.pending.intent().map_err(|error| unrecordable(&error))
    }

    /// Notes under which rule it is passed on.
    pub fn tunnelled(mut self, tunnel: &PassthroughPermit) -> Self {
        self.pending.agent(tunnel.agent());
        self.pending.rule(&**tunnel.rule());
        self
    }

    /// Closes the record of a connection that is not fit to be passed on.
    pub fn broken_off(self, reason: &str) {
        self.close(Status::Blocked, None, Some(reason.to_owned()), false);
    }

    /// Notes where it goes. Query values stay out of the log.
    pub fn target(&mut self, target: &Target, parts: &Parts) {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        self.pending.request(parts.method.as_str(), target_url(target, path), target.host.to_string());
    }

    /// Notes which agent it is.
    pub fn agent(&mut self, agent: &AgentName) {
        self.pending.agent(agent);
    }

    /// Notes which secrets are asked for, granted or not.
    pub fn asks(&mut self, references: &[SecretReference]) {
        self.pending.secret_keys(references.iter().map(|reference| &reference.name));
    }

    /// Notes what was granted.
    pub fn granted(&mut self, grant: &Grant) {
        self.pending.rule(&**grant.rule());
        self.pending.spends(grant.secret_uses().iter().map(|spent| (&spent.name, spent.style.as_str())));
        for reference in grant.quoted() {
            let kind = reference.style.injection_point().map_or("", |point| point.kind.as_str());
            self.pending.note(quoted(&reference.name, kind));
        }
    }

    /// Notes in the end what `quotes` saw in a body that passed by.
    pub fn watching(&mut self, quotes: QuotedPlaceholders) {
        self.quotes = Some(quotes);
    }

    /// Notes under which rule it waits for a person, and with which secrets.
    pub fn on_hold(&mut self, held: &crate::policy::pending_approval::PendingApproval) {
        self.pending.rule(&**held.rule());
        self.pending.spends(held.secret_uses().iter().map(|spent| (&spent.name, spent.style.as_str())));
    }

    /// Notes what a person said of it.
    pub fn note(&mut self, note: String) {
        self.pending.note(note);
    }

    /// Notes what else became of the request on its way out.
    pub fn notes(&mut self, outbound: &Outbound) {
        outbound.notes().iter().for_each(|note| self.pending.note(note.clone()));
    }

    /// Notes which values the agent itself is given, and puts that on disk. Without it none is.
    pub fn handing_over<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a SecretName>,
    ) -> Result<(), Rejection> {
        self.pending.request("ENV", String::new(), String::new());
        self.pending.exports(names, "env_inject");
        self.pending.intent().map_err(|error| unrecordable(&error))
    }

    /// Puts the intent on disk, if a secret is about to leave. Without it nothing leaves; nor does a
    /// request without a secret while the log cannot be written.
    pub fn intent(&mut self, grant: &Grant) -> Result<(), Rejection> {
        let ready = match grant.secret_uses() {
            [] => self.pending.ready(),
            _ => self.pending.intent(),
        };
        ready.map_err(|error| unrecordable(&error))
    }

    /// Closes the record with a rejection, and returns the response to it. The requested host is added here, for
    /// every stage.
    pub fn refused(mut self, refusal: Rejection) -> Response<Body> {
        let refusal = refusal.with_domain(self.pending.domain());
        if let Some(rule) = &refusal.rule {
            self.pending.rule(rule.as_str());
        }
        let status = match refusal.code.status() {
            500.. => Status::Error,
            _ => Status::Blocked,
        };
        let reason = match refusal.code {
            slug if self.because.is_some() => {
                format!("{}: {}", slug.as_str(), self.because.take().unwrap_or_default())
            }
            ErrorCode::BadRequest
            | ErrorCode::SecretMissing
            | ErrorCode::CredentialUnavailable
            | ErrorCode::StoreUnavailable => {
                format!("{}: {}", refusal.code.as_str(), refusal.message)
            }
            _ => refusal.code.as_str().to_owned(),
        };
        self.close(status, Some(refusal.code.status()), Some(reason), false);
        error_response::rejection(&refusal)
    }

    /// Closes the record of what both sides ended, or what broke it off; `status_code` is that of the
    /// answer that began it, if there was one.
    pub fn ended(self, status_code: Option<u16>, redacted: bool, failure: Option<String>) {
        let status = if failure.is_none() { Status::Ok } else { Status::Error };
        self.close(status, status_code, failure, redacted);
    }

    /// Hands the record to the answer's body: it is closed when the body ends.
    pub fn answered(self, response: Response<Body>, findings: RedactionReport) -> Response<Body> {
        let status = response.status().as_u16();
        response.map(|body| {
            let held = self.held.clone();
            let ended = (!held.is_empty()).then(|| Box::pin(async move { held.ended().await }) as Ended);
            let mut recorder = ResponseRecorder { ended, open: Some((self, findings, status)) };
            if body.is_end_stream() {
                recorder.close(None);
            }
            HookedBody::new(body, recorder).boxed_unsync()
        })
    }

    fn close(mut self, status: Status, status_code: Option<u16>, reason: Option<String>, redacted: bool) {
        for name in self.quotes.iter().flat_map(QuotedPlaceholders::names) {
            self.pending.note(quoted(&name, "body"));
        }
        close(self.pending, status, status_code, reason, redacted);
    }
}

fn quoted(name: &SecretName, place: &str) -> String {
    format!("quoted {name} in {place}")
}

fn opening(environment: &Environment, caller: Option<&Caller>) -> Opening {
    Opening {
        environment: environment.clone(),
        agent_id: caller.and_then(|caller| caller.agent.clone()),
        identity_level: caller.map_or(IdentityLevel::Anonymous, |caller| match caller.attributes.is_issued {
            true => IdentityLevel::Issued,
            false => IdentityLevel::Kernel,
        }),
        process: caller.filter(|caller| !caller.attributes.is_issued).map(Into::into),
        session_id: caller.map(|caller| caller.session.clone()),
        token_id: caller.and_then(|caller| caller.attributes.token.clone()),
        method: String::new(),
        target_url: String::new(),
        domain: String::new(),
    }
}

fn unrecordable(error: &dyn std::fmt::Display) -> Rejection {
    tracing::error!(%error, "the audit log cannot be written");
    Rejection::new(ErrorCode::AuditUnavailable, "the audit log cannot be written, so nothing is sent")
}

fn close(pending: Pending, status: Status, status_code: Option<u16>, reason: Option<String>, redacted: bool) {
    // The log keeps and reports what it cannot write, and nothing more is sent until it can.
    let _ = pending.finish(Outcome { status, status_code, reason, redacted });
}

type Ended = Pin<Box<dyn Future<Output = String> + Send>>;

/// An answer's body that closes the record when it ends.
struct ResponseRecorder {
    /// Ends it, and says why.
    ended: Option<Ended>,
    open: Option<(Attempt, RedactionReport, u16)>,
}

impl ResponseRecorder {
    fn close(&mut self, failure: Option<&BodyError>) {
        let Some((attempt, findings, code)) = self.open.take() else { return };
        let (status, reason) = match failure {
            None => (Status::Ok, findings.alarm()),
            Some(error) => (Status::Error, Some(error.to_string())),
        };
        attempt.close(status, Some(code), reason, findings.redacted());
    }
}

impl Drop for ResponseRecorder {
    /// A client that reads nothing of a response is not polled, so the end of its session is seen here.
    fn drop(&mut self) {
        let over = self.open.as_ref().and_then(|(attempt, _, _)| attempt.held.reason().map(str::to_owned));
        if let Some(why) = over {
            self.close(Some(&BodyError::Revoked(why)));
        }
    }
}

impl BodyHooks for ResponseRecorder {
    fn poll_abort(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(ended) = &mut self.ended else { return Poll::Pending };
        let error = BodyError::Revoked(ready!(ended.as_mut().poll(cx)));
        self.ended = None;
        self.close(Some(&error));
        Poll::Ready(error)
    }

    fn on_frame(&mut self, frame: PolledFrame, is_end: bool) -> PolledFrame {
        match &frame {
            None => self.close(None),
            Some(Err(error)) => self.close(Some(error)),
            // hyper does not poll a body again after its trailers, nor a sized one after its last byte.
            Some(Ok(frame)) if frame.is_trailers() || is_end => self.close(None),
            Some(Ok(_)) => {}
        }
        frame
    }
}
