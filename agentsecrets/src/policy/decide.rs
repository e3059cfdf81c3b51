//! The decision. Deny by default; the first rule that allows method, path, port and every secret in its
//! place decides, and where none does, the refusal is that of the rule which came nearest.

use std::sync::Arc;
use std::time::Instant;

use crate::base::host::Host;
use crate::base::refusal::{Refusal, Slug};
use crate::exchange::target::Scheme;
use crate::identity::Caller;

use super::ask::{Ask, Place, Reference};
use super::derived::Derived;
use super::grant::{Decision, Grant, Spend, Style};
use super::path::Path;
use super::rules::{Agent, Policy, Rule};

/// Whether `caller` may do what it asks, and with which secrets. A rule's `rate` is charged for what is
/// allowed.
pub fn decide(policy: &Policy, caller: &Caller, ask: &Ask<'_>) -> Decision {
    match policy.agent_for(caller) {
        Ok(agent) => judge(policy, agent, ask, Instant::now()),
        Err(refusal) => Decision::Deny(Refusal { domain: ask.target.host.to_string(), ..refusal }),
    }
}

/// The decision for an agent that is known.
pub(super) fn judge(policy: &Policy, agent: &Agent, ask: &Ask<'_>, now: Instant) -> Decision {
    let deny = |slug, message: String| Refusal::new(slug, &ask.target.host, message);
    if agent.rules.is_empty() {
        let message =
            format!("agent '{}' has no rule in {}, so that nothing is allowed", agent.name, policy.file);
        return Decision::Deny(deny(Slug::EmptyAllowlist, message));
    }
    let candidates = candidates(agent, &ask.target.host);
    if candidates.is_empty() {
        let message = format!(
            "'{}' is not in the allowlist of agent '{}'; a rule in {} would have to name it",
            ask.target.host, agent.name, policy.file
        );
        return Decision::Deny(deny(Slug::DomainNotInAllowlist, message));
    }
    let plain = ask.target.scheme == Scheme::Http;
    if plain && let Some(rule) = candidates.iter().find(|rule| asks_to_carry(rule, ask)) {
        return Decision::Deny(non_https(rule, ask));
    }
    let path = Path::read(ask.path);
    let mut nearest: Option<(&Rule, Miss)> = None;
    for rule in &candidates {
        match weigh(rule, ask, &path) {
            Ok(spends) => {
                return match settle(rule, ask, &spends, now) {
                    Some(refusal) => Decision::Deny(refusal),
                    None => Decision::Allow(grant(agent, rule, ask, spends)),
                };
            }
            Err(miss) if nearest.as_ref().is_none_or(|(_, other)| miss.rank() > other.rank()) => {
                nearest = Some((rule, miss));
            }
            Err(_) => {}
        }
    }
    if plain && let Some(rule) = candidates.iter().find(|rule| !rule.injects.is_empty()) {
        return Decision::Deny(non_https(rule, ask));
    }
    let refusal = match nearest {
        Some((rule, miss)) => deny(Slug::PolicyDenied, miss.message(agent, ask)).by_rule(&*rule.id),
        None => deny(Slug::PolicyDenied, format!("no rule for '{}' allows this", ask.target.host)),
    };
    Decision::Deny(refusal)
}

/// The rules that name the host, in the order of the file.
pub(super) fn candidates<'a>(agent: &'a Agent, host: &Host) -> Vec<&'a Rule> {
    agent.hosts.rules(host).iter().filter_map(|index| agent.rules.get(*index)).collect()
}

/// Why a rule does not allow a request.
#[derive(Debug)]
pub(super) enum Miss {
    /// Another port.
    Port,
    /// It is for connections that nobody opens.
    Unopened,
    /// Another method.
    Method,
    /// The path can be read in two ways.
    Ambiguous(&'static str),
    /// Another path.
    Path,
    /// A secret that may not be spent there.
    Secret(Reference),
}

/// What `rule` spends on the request, or why it does not allow it.
pub(super) fn weigh(rule: &Rule, ask: &Ask<'_>, path: &Path<'_>) -> Result<Vec<Spend>, Miss> {
    if !rule.has_port(ask.target.port) {
        return Err(Miss::Port);
    }
    if rule.passthrough {
        return Err(Miss::Unopened);
    }
    if rule.methods.as_ref().is_some_and(|methods| !methods.contains(ask.method)) {
        return Err(Miss::Method);
    }
    if !path.allowed(rule.paths.as_ref(), rule.encoded_slashes).map_err(Miss::Ambiguous)? {
        return Err(Miss::Path);
    }
    let mut spends = Vec::new();
    for reference in ask.references.iter().filter(|reference| rule.fills(reference)) {
        if !rule.secrets.contains(&reference.name) {
            return Err(Miss::Secret(reference.clone()));
        }
        let spend = Spend { name: reference.name.clone(), style: Style::Placeholder(reference.place) };
        if !spends.contains(&spend) {
            spends.push(spend);
        }
    }
    // What messages will say is not known yet: all that may stand there is granted.
    if ask.websocket && rule.places.contains(&Place::WebSocket) {
        let style = Style::Placeholder(Place::WebSocket);
        spends.extend(rule.secrets.iter().map(|name| Spend { name: name.clone(), style: style.clone() }));
    }
    let referenced = spends.len();
    for inject in &rule.injects {
        if !spends.iter().take(referenced).any(|spend| covers(spend, inject)) {
            spends.push(inject.clone());
        }
    }
    Ok(spends)
}

/// What stands in the way of a request that its rule allows.
pub(super) fn settle(rule: &Rule, ask: &Ask<'_>, spends: &[Spend], now: Instant) -> Option<Refusal> {
    let deny = |slug, message: String| Some(Refusal::new(slug, &ask.target.host, message).by_rule(&*rule.id));
    let host = &ask.target.host;
    if ask.target.scheme == Scheme::Http && !spends.is_empty() {
        return Some(non_https(rule, ask));
    }
    if rule.approve {
        let message = format!("a person must approve requests to '{host}', and nobody can be asked yet");
        return deny(Slug::PolicyApprovalRequired, message);
    }
    too_many(rule, host, "requests", now)
}

/// Charges the rule's rate for one of `what`, or says that there were too many.
pub(super) fn too_many(rule: &Rule, host: &Host, what: &str, now: Instant) -> Option<Refusal> {
    let limiter = rule.limiter.as_ref()?;
    let wait = limiter.take(now).err()?.as_secs().saturating_add(1);
    let rate = limiter.rate();
    let message = format!(
        "more than {} {what} in {} seconds to '{host}'; try again in {wait} seconds",
        rate.count,
        rate.period.as_secs()
    );
    Some(Refusal::new(Slug::RateLimited, host, message).by_rule(&*rule.id))
}

fn grant(agent: &Agent, rule: &Rule, ask: &Ask<'_>, spends: Vec<Spend>) -> Grant {
    let quoted = ask.references.iter().filter(|reference| !rule.places.contains(&reference.place));
    let is_spent = |derived: &&Arc<Derived>| spends.iter().any(|spend| spend.name == derived.name);
    Grant {
        derived: agent.derived.iter().filter(is_spent).cloned().collect(),
        agent: agent.name.clone(),
        rule: Arc::clone(&rule.id),
        spends,
        quoted: quoted.cloned().collect(),
        private: rule.private.clone(),
        max_body: rule.max_body,
        roots: rule.roots.clone(),
        signing: rule.signing.clone(),
    }
}

/// Whether the request names a secret where `rule` would fill it in, allowed or not.
fn asks_to_carry(rule: &Rule, ask: &Ask<'_>) -> bool {
    ask.references.iter().any(|reference| rule.places.contains(&reference.place))
}

/// Whether a placeholder already puts in what `inject` would. Of a placeholder only the kind of its place
/// is known: in an authentication header it is taken to be in `Authorization`, and elsewhere it covers the
/// injection of the same secret.
fn covers(spend: &Spend, inject: &Spend) -> bool {
    let Style::Placeholder(place) = spend.style else { return false };
    match inject.style {
        Style::Bearer | Style::Basic => place == Place::Auth,
        Style::Header(_) => matches!(place, Place::Auth | Place::Header) && spend.name == inject.name,
        Style::Query(_) => place == Place::Query && spend.name == inject.name,
        Style::Placeholder(_) | Style::ClientCertificate | Style::AwsSignature | Style::HmacSignature => {
            false
        }
    }
}

fn non_https(rule: &Rule, ask: &Ask<'_>) -> Refusal {
    let host = &ask.target.host;
    let message = format!("plain HTTP to '{host}' would carry a secret in the clear; use https://");
    Refusal::new(Slug::NonHttpsBlocked, host, message).by_rule(&*rule.id)
}

impl Miss {
    /// How far the request came: the higher, the nearer it was to being allowed.
    fn rank(&self) -> u8 {
        match self {
            Miss::Port => 0,
            Miss::Unopened => 1,
            Miss::Method => 2,
            Miss::Ambiguous(_) => 3,
            Miss::Path => 4,
            Miss::Secret(_) => 5,
        }
    }

    /// What to tell the agent.
    pub(super) fn message(&self, agent: &Agent, ask: &Ask<'_>) -> String {
        let (host, agent) = (&ask.target.host, &agent.name);
        match self {
            Miss::Port => format!("agent '{agent}' may not use port {} of '{host}'", ask.target.port),
            Miss::Unopened => {
                format!("'{host}' is 'tls: passthrough': only TLS goes there, and we do not open it")
            }
            Miss::Method => format!("agent '{agent}' may not use {} at '{host}'", ask.method),
            Miss::Ambiguous(why) => format!("the path of the request to '{host}' is ambiguous: {why}"),
            Miss::Path => format!("agent '{agent}' may not use this path at '{host}'"),
            Miss::Secret(Reference { name, place }) => {
                format!(
                    "agent '{agent}' may not spend '{name}' at '{host}' (placeholder in {})",
                    place.as_str()
                )
            }
        }
    }
}
