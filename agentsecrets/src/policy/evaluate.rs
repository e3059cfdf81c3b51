//! The decision. Deny by default; the first rule that allows method, path, port and every secret in its
//! place decides, and where none does, the refusal is that of the rule which came nearest.

use std::sync::Arc;
use std::time::Instant;

use crate::identity::Caller;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::Scheme;

use super::bounds::Bounds;
use super::grant::{Decision, Grant, Spend, Style};
use super::path::Path;
use super::rules::{Agent, Policy, Rule};
use crate::approval::Held;
use crate::policy::access_request::{Ask, Place, Reference, Spot};
use crate::policy::minted_credentials::Derived;
use crate::policy::minting_endpoints;
use crate::policy::rate_limit::charge;

/// Whether `caller` may do what it asks, and with which secrets: what a rule allows and none of `bounds`
/// refuses. Rates are charged for what is allowed, and for what is held when it leaves.
pub fn evaluate(policy: &Policy, bounds: &dyn Bounds, caller: &Caller, ask: &Ask<'_>) -> Decision {
    match policy.agent_for(caller) {
        Ok(agent) => {
            let bounded = |spends: &[Spend]| bounds.refusal(caller, ask, spends);
            judge(policy, agent, ask, Instant::now(), bounded)
        }
        Err(refusal) => Decision::Deny(Rejection { domain: ask.target.host.to_string(), ..refusal }),
    }
}

/// The decision for an agent that is known; `bounded` says what stands in the way of spending beside the rules.
pub(super) fn judge(
    policy: &Policy,
    agent: &Agent,
    ask: &Ask<'_>,
    now: Instant,
    bounded: impl FnOnce(&[Spend]) -> Option<Rejection>,
) -> Decision {
    let deny = |slug, message: String| Rejection::new(slug, &ask.target.host, message);
    if agent.rules.is_empty() {
        let message =
            format!("agent '{}' has no rule in {}, so that nothing is allowed", agent.name, policy.file);
        return Decision::Deny(deny(ErrorCode::EmptyAllowlist, message));
    }
    let candidates = candidates(agent, &ask.target.host);
    if candidates.is_empty() {
        let message = format!(
            "'{}' is not in the allowlist of agent '{}'; a rule in {} would have to name it",
            ask.target.host, agent.name, policy.file
        );
        return Decision::Deny(deny(ErrorCode::DomainNotInAllowlist, message));
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
                if let Some(refusal) = bounded(&spends).or_else(|| settle(rule, ask, &spends)) {
                    return Decision::Deny(refusal.about(&ask.target.host));
                }
                return granted(agent, rule, ask, &path, spends, now);
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
        Some((rule, miss)) => deny(ErrorCode::PolicyDenied, miss.message(agent, ask)).by_rule(&*rule.id),
        None => deny(ErrorCode::PolicyDenied, format!("no rule for '{}' allows this", ask.target.host)),
    };
    Decision::Deny(refusal)
}

/// The rules that name the host, in the order of the file.
pub(super) fn candidates<'a>(agent: &'a Agent, host: &Host) -> Vec<&'a Rule> {
    agent.hosts.rules(host).iter().filter_map(|index| agent.rules.get(*index)).collect()
}

/// Which bodies must be read before the decision, and how much of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The largest body that is read, in bytes.
    pub most: u64,
    /// Whether JSON may carry a secret.
    pub json: bool,
    /// Whether forms may.
    pub form: bool,
    /// Whether bodies of any kind are read: a person is asked about them.
    pub all: bool,
}

/// The largest body that is read where the rule sets no limit, in bytes.
const MOST_READ: u64 = 10 << 20;

/// What of the body is to be read before `ask`, which knows nothing of it yet, is decided. What a body
/// names can only make a rule deny that allowed, so that one rule counts: the first that allows so far.
pub fn reading(policy: &Policy, caller: &Caller, ask: &Ask<'_>) -> Option<Reading> {
    let agent = policy.agent_for(caller).ok()?;
    let carries = |rule: &Rule, place| {
        let mut injects = rule.injects.iter().filter_map(|inject| inject.style.spot());
        rule.places.iter().any(|area| area.place() == place) || injects.any(|spot| spot.place == place)
    };
    let kinds = |rule: &Rule| (carries(rule, Place::Json), carries(rule, Place::Form));
    let candidates = candidates(agent, &ask.target.host);
    // Most rules put nothing into bodies, and need no second judgement.
    candidates.iter().find(|rule| kinds(rule) != (false, false) || rule.approve.is_some())?;
    let path = Path::read(ask.path);
    let rule = candidates.into_iter().find(|rule| weigh(rule, ask, &path).is_ok())?;
    let (json, form) = kinds(rule);
    let (most, all) = (agent.largest_body(rule).unwrap_or(MOST_READ), rule.approve.is_some());
    (json || form || all).then_some(Reading { most, json, form, all })
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
    /// It would mint credentials at this service.
    Mints(&'static str),
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
    if !path.allowed(rule.paths.as_deref(), rule.encoded_slashes).map_err(Miss::Ambiguous)? {
        return Err(Miss::Path);
    }
    let mut spends = Vec::new();
    for reference in ask.references {
        if rule.signing.as_ref().is_some_and(|signing| signing.replaces(reference)) {
            continue;
        }
        // What is asked for without a placeholder cannot stay text: it is spent or refused.
        let Some(spot) = reference.style.spot().filter(|spot| rule.fills(spot) || !reference.is_text())
        else {
            continue;
        };
        if !rule.fills(&spot) || !rule.secrets.contains(&reference.name) {
            return Err(Miss::Secret(reference.clone()));
        }
        let spend = Spend { name: reference.name.clone(), style: reference.style.clone() };
        if !spends.contains(&spend) {
            spends.push(spend);
        }
    }
    // What messages will say is not known yet: all that may stand there is granted.
    let messages = Spot::new(Place::WebSocket, "");
    if ask.websocket && rule.fills(&messages) {
        let style = Style::Placeholder(messages);
        spends.extend(rule.secrets.iter().map(|name| Spend { name: name.clone(), style: style.clone() }));
    }
    let referenced = spends.len();
    for inject in &rule.injects {
        if !spends.iter().take(referenced).any(|spend| covers(spend, inject)) {
            spends.push(inject.clone());
        }
    }
    match minting_endpoints::mints(&ask.target.host, ask.path) {
        Some(whose) if !rule.mint && !spends.is_empty() => Err(Miss::Mints(whose)),
        _ => Ok(spends),
    }
}

/// What stands in the way of a request that its rule allows.
fn settle(rule: &Rule, ask: &Ask<'_>, spends: &[Spend]) -> Option<Rejection> {
    (ask.target.scheme == Scheme::Http && !spends.is_empty()).then(|| non_https(rule, ask))
}

/// What becomes of a request that nothing stands in the way of, unless there were too many. What a person must
/// approve is charged when it leaves.
fn granted(
    agent: &Agent,
    rule: &Rule,
    ask: &Ask<'_>,
    path: &Path<'_>,
    spends: Vec<Spend>,
    now: Instant,
) -> Decision {
    let host = &ask.target.host;
    if let Some(wait) = rule.approve {
        let limiters = agent.limiters(rule, &spends).cloned().collect();
        let matched = rule.paths.as_ref().and_then(|globs| path.first_match(globs));
        let pattern = matched.and_then(|index| rule.patterns.get(index)).cloned();
        let grant = grant(agent, rule, ask, spends);
        return Decision::Hold(Held { grant, host: host.clone(), wait, pattern, limiters });
    }
    match charge(agent.limiters(rule, &spends), host, "requests", now) {
        Some(refusal) => Decision::Deny(refusal.by_rule(&*rule.id)),
        None => Decision::Allow(grant(agent, rule, ask, spends)),
    }
}

fn grant(agent: &Agent, rule: &Rule, ask: &Ask<'_>, mut spends: Vec<Spend>) -> Grant {
    // What an answer minted may not be there yet, and is not filled in messages.
    let messages = Style::Placeholder(Spot::new(Place::WebSocket, ""));
    spends.retain(|spend| spend.style != messages || !agent.captured.contains(&spend.name));
    let is_spent = |derived: &&Arc<Derived>| spends.iter().any(|spend| spend.name == derived.name);
    let stays = |reference: &&Reference| !reference.style.spot().is_some_and(|spot| rule.fills(&spot));
    let quoted = ask.references.iter().filter(stays);
    let is_captured = |spend: &&Spend| agent.captured.contains(&spend.name);
    Grant {
        captured: spends.iter().filter(is_captured).map(|spend| spend.name.clone()).collect(),
        taking: rule.taking.clone(),
        derived: agent.derived.iter().filter(is_spent).cloned().collect(),
        agent: agent.name.clone(),
        rule: Arc::clone(&rule.id),
        spends,
        quoted: quoted.cloned().collect(),
        private: rule.private.clone(),
        max_body: agent.largest_body(rule),
        roots: rule.roots.clone(),
        signing: rule.signing.clone(),
        paths: rule.paths.clone(),
        encoded_slashes: rule.encoded_slashes,
    }
}

/// Whether the request names a secret where `rule` would fill it in, allowed or not.
fn asks_to_carry(rule: &Rule, ask: &Ask<'_>) -> bool {
    ask.references.iter().filter_map(|reference| reference.style.spot()).any(|spot| rule.fills(&spot))
}

/// Whether what the request asks for itself already puts in what `inject` would: something at the same
/// spot, or the same secret where its server looks for it as well.
fn covers(spend: &Spend, inject: &Spend) -> bool {
    let (Some(spot), Some(other)) = (spend.style.spot(), inject.style.spot()) else { return false };
    let is_header = |place| matches!(place, Place::Auth | Place::Header);
    let same_kind = is_header(spot.place) && is_header(other.place)
        || spot.place == other.place && matches!(spot.place, Place::Query | Place::Path);
    spot == other && spot.place != Place::Path || same_kind && spend.name == inject.name
}

fn non_https(rule: &Rule, ask: &Ask<'_>) -> Rejection {
    let host = &ask.target.host;
    let message = format!("plain HTTP to '{host}' would carry a secret in the clear; use https://");
    Rejection::new(ErrorCode::NonHttpsBlocked, host, message).by_rule(&*rule.id)
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
            Miss::Mints(_) => 6,
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
            Miss::Secret(reference) => {
                let place = reference.style.spot().map_or("", |spot| spot.place.as_str());
                let how = if reference.is_text() { "placeholder" } else { "X-AS-Inject" };
                format!("agent '{agent}' may not spend '{}' at '{host}' ({how} in {place})", reference.name)
            }
            Miss::Mints(whose) => format!(
                "this endpoint of '{host}' mints credentials ({whose}), which nobody would know to keep from agent \
                 '{agent}': the rule must say what it captures, or 'mint: allow'"
            ),
        }
    }
}
