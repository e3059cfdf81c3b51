//! Decides requests. Everything is denied by default. The first rule that allows method, path, port and every
//! secret at its location decides. If no rule does, the rejection is that of the rule that came nearest.

use std::sync::Arc;
use std::time::Instant;

use crate::identity::Caller;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Scheme;

use super::capability_check::CapabilityCheck;
use super::grant::Grant;
use super::injection::{InjectionStyle, SecretUse};
use super::path::RequestPath;
use super::pending_approval::PendingApproval;
use super::rules::{Agent, Policy, Rule};
use crate::policy::access_request::{AccessRequest, SecretReference};
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::policy::minted_credentials::MintedCredential;
use crate::policy::minting_endpoints;
use crate::policy::rate_limit::charge;

/// The decision on a request.
#[derive(Debug)]
pub enum Decision {
    /// The request does not leave.
    Deny(Rejection),
    /// The request leaves with the secrets of the grant, if any.
    Allow(Grant),
    /// The request leaves if a person approves it.
    NeedsApproval(PendingApproval),
}

/// Decides `request`, all of which is known, for `caller`: matches its agent entry, then the agent's rules. A
/// rule must allow the request and none of `capabilities` reject it. An allowed request is charged to the
/// rate limits; one that waits for a person is charged when it leaves.
pub fn evaluate(
    policy: &Policy,
    capabilities: &dyn CapabilityCheck,
    caller: &Caller,
    request: &AccessRequest<'_>,
) -> Decision {
    match policy.agent_for(caller) {
        Ok(agent) => {
            let capability_rejection =
                |secret_uses: &[SecretUse]| capabilities.rejection(caller, request, secret_uses);
            decide(policy, agent, request, Instant::now(), capability_rejection)
        }
        Err(rejection) => Decision::Deny(rejection),
    }
}

/// Decides `request` for an agent that is matched already.
pub(super) fn decide(
    policy: &Policy,
    agent: &Agent,
    request: &AccessRequest<'_>,
    now: Instant,
    capability_rejection: impl FnOnce(&[SecretUse]) -> Option<Rejection>,
) -> Decision {
    Evaluation::from_head(policy, agent, request, request.references).decide(
        request.references,
        now,
        capability_rejection,
    )
}

/// The evaluation of one request of one agent, in two steps. The head selects the rule. The body is read only
/// if that rule needs it, and can only name more secrets: these are checked against the same rule, and
/// against later ones if it does not allow them.
pub struct Evaluation<'a> {
    policy: &'a Policy,
    agent: &'a Agent,
    /// Without references, as those of the body are not known yet.
    request: AccessRequest<'a>,
    path: RequestPath<'a>,
    /// The number of references in the head.
    head_references: usize,
    candidates: Vec<&'a Rule>,
    /// The position of the first candidate that allows the request, and the secrets that it spends.
    matched: Option<(usize, Vec<SecretUse>)>,
    /// The candidate that came nearest, of those that do not allow the request.
    nearest: Option<(&'a Rule, Mismatch)>,
}

impl<'a> Evaluation<'a> {
    /// Matches the rules of `agent` against the head of `request`, which refers to the secrets in
    /// `references`.
    pub fn from_head(
        policy: &'a Policy,
        agent: &'a Agent,
        request: &AccessRequest<'a>,
        references: &[SecretReference],
    ) -> Self {
        let mut evaluation = Self {
            policy,
            agent,
            request: AccessRequest { references: &[], ..*request },
            path: RequestPath::parse(request.path),
            head_references: references.len(),
            candidates: candidates(agent, &request.target.host),
            matched: None,
            nearest: None,
        };
        evaluation.match_from(0, references);
        evaluation
    }

    /// The parts of the body that must be read before the decision.
    pub fn body_requirements(&self) -> Option<BodyRequirements> {
        let (index, _) = self.matched.as_ref()?;
        let rule = self.candidates.get(*index)?;
        let carries = |kind| {
            let mut injects = rule.injects.iter().filter_map(|inject| inject.style.injection_point());
            rule.locations.iter().any(|pattern| pattern.kind() == kind)
                || injects.any(|point| point.kind == kind)
        };
        let (json, form) = (carries(LocationKind::Json), carries(LocationKind::Form));
        let (max_bytes, any_type) =
            (self.agent.largest_body(rule).unwrap_or(DEFAULT_MAX_BODY), rule.approval_timeout.is_some());
        (json || form || any_type).then_some(BodyRequirements { max_bytes, json, form, any_type })
    }

    /// Decides the request, which names `references`: those of the head, then those of the body.
    /// `capability_rejection` returns the rejection of a bound other than the rules.
    pub fn decide(
        mut self,
        references: &[SecretReference],
        now: Instant,
        capability_rejection: impl FnOnce(&[SecretUse]) -> Option<Rejection>,
    ) -> Decision {
        let (policy, agent) = (self.policy, self.agent);
        let request = AccessRequest { references, ..self.request };
        if agent.rules.is_empty() {
            let message = format!(
                "agent '{}' has no rule in {}, so that nothing is allowed",
                agent.name, policy.file_name
            );
            return Decision::Deny(Rejection::new(ErrorCode::EmptyAllowlist, message));
        }
        if self.candidates.is_empty() {
            let message = format!(
                "'{}' is not in the allowlist of agent '{}'; a rule in {} would have to name it",
                request.target.host, agent.name, policy.file_name
            );
            return Decision::Deny(Rejection::new(ErrorCode::DomainNotInAllowlist, message));
        }
        let plain = request.target.scheme == Scheme::Http;
        if plain && let Some(rule) = self.candidates.iter().find(|rule| refers_to_secret(rule, &request)) {
            return Decision::Deny(non_https_rejection(rule, &request));
        }
        if references.len() > self.head_references {
            self.add_references(&request);
        }
        if let Some((index, secret_uses)) = self.matched
            && let Some(rule) = self.candidates.get(index)
        {
            if let Some(rejection) =
                capability_rejection(&secret_uses).or_else(|| check_transport(rule, &request, &secret_uses))
            {
                return Decision::Deny(rejection);
            }
            return decide_matched(agent, rule, &request, &self.path, secret_uses, now);
        }
        if plain && let Some(rule) = self.candidates.iter().find(|rule| !rule.injects.is_empty()) {
            return Decision::Deny(non_https_rejection(rule, &request));
        }
        let denied = |message| Rejection::new(ErrorCode::PolicyDenied, message);
        Decision::Deny(match &self.nearest {
            Some((rule, mismatch)) => denied(mismatch.message(agent, &request)).by_rule(&*rule.id),
            None => denied(format!("no rule for '{}' allows this", request.target.host)),
        })
    }

    /// Checks the secrets that the body names against the matched rule, and against those after it if that
    /// one does not allow them. The rules before it stay mismatched: more secrets make no rule allow more.
    fn add_references(&mut self, request: &AccessRequest<'_>) {
        let Some((index, _)) = self.matched.take() else { return };
        let Some(rule) = self.candidates.get(index).copied() else { return };
        match secret_uses(rule, request) {
            Ok(secret_uses) => self.matched = Some((index, secret_uses)),
            Err(mismatch) => {
                self.record_mismatch(rule, mismatch);
                self.match_from(index + 1, request.references);
            }
        }
    }

    /// Sets `matched` to the first candidate from `first` on that allows the request with these `references`.
    fn match_from(&mut self, first: usize, references: &[SecretReference]) {
        let request = AccessRequest { references, ..self.request };
        for index in first..self.candidates.len() {
            let Some(rule) = self.candidates.get(index).copied() else { return };
            match match_rule(rule, &request, &self.path) {
                Ok(secret_uses) => {
                    self.matched = Some((index, secret_uses));
                    return;
                }
                Err(mismatch) => self.record_mismatch(rule, mismatch),
            }
        }
    }

    fn record_mismatch(&mut self, rule: &'a Rule, mismatch: Mismatch) {
        if self.nearest.as_ref().is_none_or(|(_, other)| mismatch.rank() > other.rank()) {
            self.nearest = Some((rule, mismatch));
        }
    }
}

/// The rules that name the host, in the order of the file.
pub(super) fn candidates<'a>(agent: &'a Agent, host: &Host) -> Vec<&'a Rule> {
    agent.hosts.rules(host).iter().filter_map(|index| agent.rules.get(*index)).collect()
}

/// The bodies that must be read before the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRequirements {
    /// The largest body that is read, in bytes.
    pub max_bytes: u64,
    /// Whether JSON bodies are read, as they may refer to a secret.
    pub json: bool,
    /// Whether forms are read.
    pub form: bool,
    /// Whether bodies of any type are read, as a person must approve them.
    pub any_type: bool,
}

/// The largest body that is read if the rule has no limit, in bytes.
const DEFAULT_MAX_BODY: u64 = 10 << 20;

/// The reason why a rule does not allow a request.
#[derive(Debug)]
pub(super) enum Mismatch {
    /// The port is not allowed.
    Port,
    /// The rule is for passthrough connections.
    Passthrough,
    /// The method is not allowed.
    Method,
    /// The path is ambiguous.
    Ambiguous(&'static str),
    /// The path is not allowed.
    Path,
    /// The secret is not allowed at its location.
    Secret(SecretReference),
    /// The request would mint credentials at this service.
    Mints(&'static str),
}

/// The secrets that `rule` spends on the request, or the mismatch.
pub(super) fn match_rule(
    rule: &Rule,
    request: &AccessRequest<'_>,
    path: &RequestPath<'_>,
) -> Result<Vec<SecretUse>, Mismatch> {
    if !rule.has_port(request.target.port) {
        return Err(Mismatch::Port);
    }
    if rule.is_passthrough {
        return Err(Mismatch::Passthrough);
    }
    if rule.methods.as_ref().is_some_and(|methods| !methods.contains(request.method)) {
        return Err(Mismatch::Method);
    }
    if !path.is_allowed(rule.paths.as_deref(), rule.allows_encoded_slashes).map_err(Mismatch::Ambiguous)? {
        return Err(Mismatch::Path);
    }
    secret_uses(rule, request)
}

/// The secrets that `rule`, which allows the head of the request, spends on it. A reference that it does not
/// allow is a mismatch.
fn secret_uses(rule: &Rule, request: &AccessRequest<'_>) -> Result<Vec<SecretUse>, Mismatch> {
    let mut secret_uses = Vec::new();
    for reference in request.references {
        if rule.signing.as_ref().is_some_and(|signing| signing.replaces(reference)) {
            continue;
        }
        // A reference in an injection header cannot stay literal text: it is spent or refused.
        let Some(point) = reference
            .style
            .injection_point()
            .filter(|point| rule.fills(point) || !reference.is_placeholder())
        else {
            continue;
        };
        if !rule.fills(&point) || !rule.secrets.contains(&reference.name) {
            return Err(Mismatch::Secret(reference.clone()));
        }
        let secret_use = SecretUse { name: reference.name.clone(), style: reference.style.clone() };
        if !secret_uses.contains(&secret_use) {
            secret_uses.push(secret_use);
        }
    }
    // The messages are not known yet: every secret of the rule is granted for them.
    let messages = InjectionPoint::new(LocationKind::WebSocket, "");
    if request.websocket && rule.fills(&messages) {
        let style = InjectionStyle::Placeholder(messages);
        secret_uses
            .extend(rule.secrets.iter().map(|name| SecretUse { name: name.clone(), style: style.clone() }));
    }
    let referenced = secret_uses.len();
    for inject in &rule.injects {
        if !secret_uses.iter().take(referenced).any(|secret_use| replaces_injection(secret_use, inject)) {
            secret_uses.push(inject.clone());
        }
    }
    match minting_endpoints::minting_service(&request.target.host, request.path) {
        Some(service) if !rule.allows_minting && !secret_uses.is_empty() => Err(Mismatch::Mints(service)),
        _ => Ok(secret_uses),
    }
}

/// Rejects plain HTTP with secrets.
fn check_transport(rule: &Rule, request: &AccessRequest<'_>, secret_uses: &[SecretUse]) -> Option<Rejection> {
    (request.target.scheme == Scheme::Http && !secret_uses.is_empty())
        .then(|| non_https_rejection(rule, request))
}

/// The decision on a request that `rule` allows. Rate limits are charged now, or when the request leaves
/// after approval.
fn decide_matched(
    agent: &Agent,
    rule: &Rule,
    request: &AccessRequest<'_>,
    path: &RequestPath<'_>,
    secret_uses: Vec<SecretUse>,
    now: Instant,
) -> Decision {
    let host = &request.target.host;
    if let Some(timeout) = rule.approval_timeout {
        let limiters = agent.limiters(rule, &secret_uses).cloned().collect();
        let matched = rule.paths.as_ref().and_then(|globs| path.first_match(globs));
        let path_pattern = matched.and_then(|index| rule.path_patterns.get(index)).cloned();
        let grant = grant(agent, rule, request, secret_uses);
        return Decision::NeedsApproval(PendingApproval {
            grant,
            host: host.clone(),
            timeout,
            path_pattern,
            limiters,
        });
    }
    match charge(agent.limiters(rule, &secret_uses), host, "requests", now) {
        Some(rejection) => Decision::Deny(rejection.by_rule(&*rule.id)),
        None => Decision::Allow(grant(agent, rule, request, secret_uses)),
    }
}

fn grant(agent: &Agent, rule: &Rule, request: &AccessRequest<'_>, mut secret_uses: Vec<SecretUse>) -> Grant {
    // A captured secret may not exist yet, and is not filled in messages.
    let messages = InjectionStyle::Placeholder(InjectionPoint::new(LocationKind::WebSocket, ""));
    secret_uses
        .retain(|secret_use| secret_use.style != messages || !agent.captured.contains(&secret_use.name));
    let is_spent = |credential: &&Arc<MintedCredential>| {
        secret_uses.iter().any(|secret_use| secret_use.name == credential.name)
    };
    let is_literal = |reference: &&SecretReference| {
        !reference.style.injection_point().is_some_and(|point| rule.fills(&point))
    };
    let quoted = request.references.iter().filter(is_literal);
    let is_captured = |secret_use: &&SecretUse| agent.captured.contains(&secret_use.name);
    Grant {
        captured: secret_uses.iter().filter(is_captured).map(|secret_use| secret_use.name.clone()).collect(),
        response_capture: rule.response_capture.clone(),
        minted_credentials: agent.minted_credentials.iter().filter(is_spent).cloned().collect(),
        agent: agent.name.clone(),
        rule: Arc::clone(&rule.id),
        secret_uses,
        quoted: quoted.cloned().collect(),
        private: rule.private.clone(),
        max_body: agent.largest_body(rule),
        roots: rule.roots.clone(),
        signing: rule.signing.clone(),
        paths: rule.paths.clone(),
        allows_encoded_slashes: rule.allows_encoded_slashes,
    }
}

/// Whether the request refers to a secret, allowed or not, at a location that `rule` fills.
fn refers_to_secret(rule: &Rule, request: &AccessRequest<'_>) -> bool {
    request
        .references
        .iter()
        .filter_map(|reference| reference.style.injection_point())
        .any(|point| rule.fills(&point))
}

/// Whether the request itself already has the secret of `inject`: something at the same location, or the same
/// secret at another location where the server accepts it.
fn replaces_injection(secret_use: &SecretUse, inject: &SecretUse) -> bool {
    let (Some(point), Some(other)) = (secret_use.style.injection_point(), inject.style.injection_point())
    else {
        return false;
    };
    let is_header = |kind| matches!(kind, LocationKind::Auth | LocationKind::Header);
    let same_kind = is_header(point.kind) && is_header(other.kind)
        || point.kind == other.kind && matches!(point.kind, LocationKind::Query | LocationKind::Path);
    point == other && point.kind != LocationKind::Path || same_kind && secret_use.name == inject.name
}

fn non_https_rejection(rule: &Rule, request: &AccessRequest<'_>) -> Rejection {
    let host = &request.target.host;
    let message = format!("plain HTTP to '{host}' would carry a secret in the clear; use https://");
    Rejection::new(ErrorCode::NonHttpsBlocked, message).by_rule(&*rule.id)
}

impl Mismatch {
    /// The order of the checks: a higher rank is nearer to being allowed.
    fn rank(&self) -> u8 {
        match self {
            Mismatch::Port => 0,
            Mismatch::Passthrough => 1,
            Mismatch::Method => 2,
            Mismatch::Ambiguous(_) => 3,
            Mismatch::Path => 4,
            Mismatch::Secret(_) => 5,
            Mismatch::Mints(_) => 6,
        }
    }

    /// The message for the agent.
    pub(super) fn message(&self, agent: &Agent, request: &AccessRequest<'_>) -> String {
        let (host, agent) = (&request.target.host, &agent.name);
        match self {
            Mismatch::Port => format!("agent '{agent}' may not use port {} of '{host}'", request.target.port),
            Mismatch::Passthrough => {
                format!("'{host}' is 'tls: passthrough': it allows only TLS, which is not opened")
            }
            Mismatch::Method => format!("agent '{agent}' may not use {} at '{host}'", request.method),
            Mismatch::Ambiguous(reason) => {
                format!("the path of the request to '{host}' is ambiguous: {reason}")
            }
            Mismatch::Path => format!("agent '{agent}' may not use this path at '{host}'"),
            Mismatch::Secret(reference) => {
                let location = reference.style.injection_point().map_or("", |point| point.kind.as_str());
                let source = if reference.is_placeholder() { "placeholder" } else { "X-AS-Inject" };
                format!(
                    "agent '{agent}' may not spend '{}' at '{host}' ({source} in {location})",
                    reference.name
                )
            }
            Mismatch::Mints(service) => format!(
                "this endpoint of '{host}' mints credentials ({service}), and redaction cannot hide them from agent \
                 '{agent}': the rule must capture them or have 'mint: allow'"
            ),
        }
    }
}
