//! The stages of the pipeline and the types between them. Each stage consumes the output of the one before it, so that
//! none can be left out: without a grant there are no credentials, without `apply` nothing to send, and a response
//! comes only together with its redactor.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::agent_credentials::AgentCredentials;
use super::approval::Judged;
use super::context::{ConnectionContext, Pipeline};
use super::record::Attempt;
use super::websocket::WebSocket;
use crate::authz::{Admitted, RevocationGuard};
use crate::credentials::Credentials;
use crate::http::override_headers;
use crate::http::proxy_endpoint;
use crate::http::upgrade::{self, Handshake};
use crate::identity::Caller;
use crate::inject::{self, MessageInjector, Outbound, RequestBody};
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::evaluate::Decision;
use crate::policy::evaluate::Evaluation;
use crate::policy::grant::Grant;
use crate::policy::{Agent, Policy};
use crate::redact::{self, RedactionReport, Redactor};
use crate::types::body::{Body, with_idle_timeout};
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::{Claim, Target};

/// A request of an admitted caller to an agreed target.
pub(super) struct AdmittedRequest {
    pub caller: Caller,
    pub target: Target,
    pub parts: Parts,
    body: Body,
    handshake: Option<Handshake>,
    /// The agent's side of an upgrade.
    upgrade: OnUpgrade,
    /// Ends with the session or token of the caller.
    pub guard: RevocationGuard,
}

/// A request whose agent entry is known, with that agent's credentials.
pub(super) struct IdentifiedRequest<'p> {
    pub caller: Caller,
    pub policy: &'p Arc<Policy>,
    pub agent: &'p Agent,
    pub secrets: Arc<AgentCredentials>,
    pub target: Target,
    pub parts: Parts,
    body: Body,
    handshake: Option<Handshake>,
    upgrade: OnUpgrade,
}

/// A request that may be sent under its grant.
pub(super) struct GrantedRequest {
    caller: Caller,
    secrets: Arc<AgentCredentials>,
    target: Target,
    request: Request<RequestBody>,
    handshake: Option<Handshake>,
    upgrade: OnUpgrade,
    grant: Grant,
}

/// A granted request with the values that its grant spends.
pub(super) struct CredentialedRequest {
    granted: GrantedRequest,
    credentials: Credentials,
    /// The credentials that were obtained at run time.
    obtained: Vec<(SecretName, Arc<Secret>)>,
}

/// A request with its secrets in place, and the redactor of its response.
pub(super) struct AppliedRequest {
    outbound: Outbound,
    redactor: Redactor,
    response: ResponseContext,
}

/// A response that is not redacted yet.
pub(super) struct UpstreamResponse {
    response: Response<Body>,
    redactor: Redactor,
    context: ResponseContext,
}

/// The parts of a request that its response needs.
struct ResponseContext {
    caller: Caller,
    target: Target,
    secrets: Arc<AgentCredentials>,
    grant: Grant,
    obtained: Vec<(SecretName, Arc<Secret>)>,
    handshake: Option<Handshake>,
    upgrade: OnUpgrade,
    messages: Option<MessageInjector>,
}

/// The result of a request that was sent, or that we answered ourselves.
pub(super) enum Outcome {
    /// A response, recorded when its body has ended.
    Response(Response<Body>, RedactionReport),
    /// A WebSocket, recorded when it has ended.
    WebSocket(Response<Body>, RedactionReport, WebSocket),
}

impl Outcome {
    /// A response that we made, which holds nothing to redact.
    pub(super) fn local(response: Response<Body>) -> Self {
        Self::Response(response, RedactionReport::default())
    }
}

impl Pipeline {
    /// Agrees the target, and admits the caller with the credentials that connection and request present.
    pub(super) fn admit(
        &self,
        connection: &ConnectionContext,
        mut request: Request<Body>,
        record: &mut Attempt,
    ) -> Result<AdmittedRequest, Rejection> {
        let upgrade = hyper::upgrade::on(&mut request);
        let body_idle = self.timeouts.body_idle;
        let (mut parts, body) = request.map(|body| with_idle_timeout(body, body_idle)).into_parts();
        let target = Target::agree(&connection.claim, &parts)?;
        record.target(&target, &parts);
        override_headers::strip_overrides(&mut parts)?;
        let is_to_proxy = matches!(connection.claim, Claim::Absolute);
        let presented =
            proxy_endpoint::presented_credentials(&mut parts.headers, is_to_proxy).and(&connection.shown);
        let admitted = self.capabilities.admit(&connection.caller, &presented);
        let admitted = admitted.map_err(|refused| record.not_admitted(*refused))?;
        record.admitted(&admitted);
        let Admitted { caller, held: guard } = admitted;
        let handshake = upgrade::websocket_handshake(&parts)?;
        if let Some(handshake) = &handshake {
            parts.extensions.insert(handshake.clone());
        }
        Ok(AdmittedRequest { caller, target, parts, body, handshake, upgrade, guard })
    }

    /// Matches the agent entry of the caller, once, and loads that agent's credentials.
    pub(super) async fn identify<'p>(
        &self,
        admitted: AdmittedRequest,
        policy: &'p Arc<Policy>,
        record: &mut Attempt,
    ) -> Result<IdentifiedRequest<'p>, Rejection> {
        let AdmittedRequest { mut caller, target, parts, body, handshake, upgrade, guard: _ } = admitted;
        let agent = policy.agent_for(&caller)?;
        record.agent(agent.name());
        caller.agent = Some(agent.name().clone());
        let secrets = self.credentials.get(agent).await?;
        Ok(IdentifiedRequest { caller, policy, agent, secrets, target, parts, body, handshake, upgrade })
    }

    /// Evaluates the agent's rules, once, and waits for a person where the rule demands it. The body is read only if
    /// the rule that allows the head needs it.
    pub(super) async fn evaluate(
        &self,
        identified: IdentifiedRequest<'_>,
        record: &mut Attempt,
    ) -> Result<GrantedRequest, Rejection> {
        let IdentifiedRequest { caller, policy, agent, secrets, target, parts, body, handshake, upgrade } =
            identified;
        let mut references = inject::References::from_head(&parts, &secrets.vocabulary)?;
        if agent.is_operator() {
            // The operator may know which secrets exist.
            secrets.values.hold(references.as_slice(), |name| agent.is_minted(name))?;
        }
        let (method, path, websocket) = (&parts.method, parts.uri.path(), handshake.is_some());
        let ask = AccessRequest { target: &target, method, path, websocket, references: &[] };
        let evaluation = Evaluation::from_head(policy, agent, &ask, references.as_slice());
        let reading = evaluation.body_requirements();
        let body = RequestBody::read(&parts, body, reading.as_ref(), &secrets.room).await?;
        body.collect_references(&secrets.vocabulary, &mut references)?;
        record.asks(references.as_slice());
        let ask = AccessRequest { references: references.as_slice(), ..ask };
        let bounded = |spends: &[_]| self.capabilities.rejection(&caller, &ask, spends);
        let (grant, secrets) = match evaluation.decide(ask.references, Instant::now(), bounded) {
            Decision::Deny(rejection) => return Err(rejection),
            Decision::Allow(grant) => (grant, secrets),
            Decision::NeedsApproval(pending) => {
                let body = (body.bytes().cloned(), body.trailers().cloned());
                let judged = Judged { policy, agent };
                self.await_approval(pending, judged, &caller, &ask, (&parts, body), record).await?
            }
        };
        record.granted(&grant);
        self.guess_detector.check(grant.agent(), &target.host)?;
        if !grant.secret_uses().is_empty() {
            self.capabilities.charge(&caller).await?;
        }
        let request = Request::from_parts(parts, body);
        Ok(GrantedRequest { caller, secrets, target, request, handshake, upgrade, grant })
    }

    /// Obtains the values that the grant spends.
    pub(super) async fn credentials(
        &self,
        granted: GrantedRequest,
    ) -> Result<CredentialedRequest, Rejection> {
        let GrantedRequest { grant, caller, target, secrets, .. } = &granted;
        let obtained = self.obtain_credentials(grant, caller, &target.host, secrets).await?;
        let credentials = secrets.values.resolve(grant, &obtained)?;
        Ok(CredentialedRequest { granted, credentials, obtained })
    }

    /// Puts the values into the request, and signs it. A placeholder in the path changes the path; `inject` checks that
    /// the granted rule allows the filled one too.
    pub(super) async fn apply(
        &self,
        credentialed: CredentialedRequest,
        record: &mut Attempt,
    ) -> Result<AppliedRequest, Rejection> {
        let CredentialedRequest { granted, credentials, obtained } = credentialed;
        let GrantedRequest { caller, secrets, target, request, handshake, upgrade, grant } = granted;
        let (parts, body) = request.into_parts();
        let (body, quoted) = body.limit(grant.max_body())?.observed(&secrets.vocabulary);
        record.watching(quoted);
        let messages = MessageInjector::from_grant(&grant, &credentials, &target.host);
        let (outbound, redactor) = inject::apply(
            Request::from_parts(parts, body),
            target.clone(),
            &grant,
            &credentials,
            &secrets.vocabulary,
            caller.isolation(),
            secrets.patterns.clone(),
        )?;
        let (outbound, redactor) =
            inject::sign(outbound, redactor, &grant, &credentials, &secrets.room).await?;
        record.notes(&outbound);
        let redactor = redactor.counted_by(self.guess_detector.counter(grant.agent(), &target.host));
        let response =
            ResponseContext { caller, target, secrets, grant, obtained, handshake, upgrade, messages };
        Ok(AppliedRequest { outbound, redactor, response })
    }

    /// Writes the intent to the audit log, then sends the request.
    pub(super) async fn send(
        &self,
        applied: AppliedRequest,
        record: &mut Attempt,
    ) -> Result<UpstreamResponse, Rejection> {
        let AppliedRequest { outbound, redactor, response: context } = applied;
        record.intent(&context.grant)?;
        let body_idle = self.timeouts.body_idle;
        let response = self.upstream.send(outbound).await?.map(|body| with_idle_timeout(body, body_idle));
        if response.status() == StatusCode::UNAUTHORIZED {
            self.credentials.minter().invalidate(&context.grant, &context.obtained);
        }
        Ok(UpstreamResponse { response, redactor, context })
    }

    /// Captures the credentials that the response mints, and removes every secret from it.
    pub(super) async fn redact(&self, upstream: UpstreamResponse) -> Result<Outcome, Rejection> {
        let UpstreamResponse { mut response, redactor, context } = upstream;
        let host = &context.target.host;
        let is_upgraded = match &context.handshake {
            Some(handshake) => handshake.is_accepted_by(&response).map_err(|why| {
                Rejection::new(ErrorCode::UpstreamUnavailable, format!("'{host}' did not answer: {why}"))
            })?,
            None => false,
        };
        if let Some(taking) = context.grant.response_capture() {
            let (session, runtime) = (context.caller.isolation(), &context.secrets.runtime);
            let keep = |name: &SecretName, value| runtime.capture(name, &session, host, value);
            response = redact::capture(response, taking, host, keep).await?;
        }
        if !is_upgraded {
            let (response, findings) = redactor.redact(response).await?;
            return Ok(Outcome::Response(response, findings));
        }
        let server = hyper::upgrade::on(&mut response);
        let conversation = redactor.conversation();
        let (response, findings) = redactor.redact(response).await?;
        let conversation = conversation(findings.clone());
        let ResponseContext { upgrade: agent, messages, secrets, .. } = context;
        let websocket = WebSocket { agent, server, conversation, messages, secrets };
        Ok(Outcome::WebSocket(response, findings, websocket))
    }
}
