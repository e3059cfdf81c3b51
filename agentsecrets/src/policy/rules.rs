//! A compiled policy. Only `load` creates one, so that every rule in it was checked.

use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use http::Method;

use super::caller_matcher::CallerMatcher;
use super::host_patterns::{HostIndex, HostMatch, HostPattern};
use super::injection::SecretUse;
use super::load_error::Problem;
use super::location::{InjectionPoint, LocationPattern};
use super::minted_credentials::MintedCredential;
use super::private_addresses::PrivateAddresses;
use super::rate_limit::RateLimiter;
use super::referenced_files::ReferencedFiles;
use super::signing::Signing;
use super::spiffe::{is_undetermined, mismatch_detail};
use crate::identity::pod::Pod;
use crate::identity::{Caller, Process};
use crate::tls::verify::CustomRoots;
use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::response_capture::ResponseCapture;

/// All agent entries of a policy file.
#[derive(Debug, Default)]
pub struct Policy {
    pub(super) agents: Vec<Agent>,
    /// Credentials that are made from stored secrets.
    pub(super) credentials: Vec<Arc<MintedCredential>>,
    pub(super) warnings: Vec<Problem>,
    /// For messages.
    pub(super) file_name: String,
    /// The other files that it was compiled from.
    pub(super) referenced_files: ReferencedFiles,
}

/// One agent entry.
#[derive(Debug)]
pub struct Agent {
    pub(super) name: AgentName,
    pub(super) matcher: Option<CallerMatcher>,
    pub(super) allows_env: bool,
    pub(super) inbound_ports: Vec<u16>,
    pub(super) rules: Vec<Rule>,
    pub(super) hosts: HostIndex,
    /// Limits all requests.
    pub(super) limiter: Option<Arc<RateLimiter>>,
    /// Limit the requests that spend a secret.
    pub(super) secret_limits: Vec<(SecretName, Arc<RateLimiter>)>,
    /// The largest request body, in bytes.
    pub(super) max_body: Option<u64>,
    /// Sorted, without duplicates.
    pub(super) secrets: Vec<SecretName>,
    /// The secrets that are captured from responses.
    pub(super) captured: Vec<SecretName>,
    /// The secrets that are made from others.
    pub(super) minted_credentials: Vec<Arc<MintedCredential>>,
    /// Whether it stands for the operator instead of an agent.
    pub(super) is_operator: bool,
}

/// One entry of `allow`. `None` means no limit.
#[derive(Debug)]
pub(super) struct Rule {
    pub id: Arc<str>,
    pub ports: Option<Vec<u16>>,
    pub methods: Option<Vec<Method>>,
    pub paths: Option<Arc<GlobSet>>,
    /// The source text of `paths`.
    pub path_patterns: Vec<String>,
    /// Whether a path may have encoded slashes, if both of its readings are allowed.
    pub allows_encoded_slashes: bool,
    /// Includes those of `inject`, but no client certificate: that never replaces a placeholder.
    pub secrets: Vec<SecretName>,
    /// Includes the secrets of `sign`.
    pub injects: Vec<SecretUse>,
    pub signing: Option<Arc<Signing>>,
    pub response_capture: Option<Arc<ResponseCapture>>,
    /// Whether a secret may be spent at endpoints that mint credentials.
    pub allows_minting: bool,
    pub locations: Vec<LocationPattern>,
    /// The longest time that a request waits for approval, if it needs one.
    pub approval_timeout: Option<Duration>,
    pub is_passthrough: bool,
    pub limiter: Option<Arc<RateLimiter>>,
    pub max_body: Option<u64>,
    pub private: PrivateAddresses,
    pub roots: Option<Arc<CustomRoots>>,
}

impl Rule {
    /// Whether it allows `port`.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Whether it fills placeholders at `point`.
    pub(super) fn fills(&self, point: &InjectionPoint) -> bool {
        self.locations.iter().any(|pattern| pattern.matches(point))
    }

    /// Whether both rules allow a common port.
    pub(super) fn shares_port(&self, other: &Rule) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.iter().any(|port| other.has_port(*port)))
    }
}

impl Policy {
    /// The agent entries, in the order of the file.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// The entry called `name`.
    pub fn agent(&self, name: &AgentName) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.name == *name)
    }

    /// Entries that are valid but probably not intended.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Whether a rule of `agent` (of any agent, if `None`) names `host`. Only such names are resolved.
    pub fn names_host(&self, agent: Option<&AgentName>, host: &Host) -> bool {
        self.host_match(agent, host) != HostMatch::None
    }

    /// The way in which the rules of `agent` (of any agent, if `None`) name `host`.
    pub fn host_match(&self, agent: Option<&AgentName>, host: &Host) -> HostMatch {
        host_match_of(self.agents.iter().filter(|entry| agent.is_none_or(|name| entry.name == *name)), host)
    }

    /// The entries whose `match.pod` holds for `pod`, or that have none.
    pub fn agents_for_pod<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Agent> {
        let facts = |agent: &'a Agent| agent.matcher.as_ref().and_then(|matches| matches.pod.as_ref());
        self.agents.iter().filter(move |agent| facts(agent).is_none_or(|facts| facts.matches_pod(pod)))
    }

    /// The way in which the rules of those entries name `host`.
    pub fn host_match_for_pod(&self, pod: &Pod, host: &Host) -> HostMatch {
        host_match_of(self.agents_for_pod(pod), host)
    }

    /// The agent entry of `caller`: the one that `run --agent` named if its `match` holds, else the first
    /// whose `match` holds. The rejection names the fact that does not hold.
    pub fn agent_for(&self, caller: &Caller) -> Result<&Agent, Rejection> {
        let denied = |message: String| Rejection::new(ErrorCode::CapabilityDenied, message);
        if self.agents.is_empty() {
            let message = format!("{} has no rule at all, so that nothing is allowed", self.file_name);
            return Err(Rejection::new(ErrorCode::EmptyAllowlist, message));
        }
        let Some(name) = &caller.agent else {
            // An entry whose match is undetermined must not be skipped: the caller would become another
            // agent.
            let first = self.agents.iter().find_map(|agent| match agent.first_mismatch(caller) {
                None => Some(Ok(agent)),
                Some(fact) => is_undetermined(fact, caller).then_some(Err(())),
            });
            return first.and_then(Result::ok).ok_or_else(|| {
                let program = describe_process(&caller.process);
                let mut missing = self.agents.iter().filter_map(|agent| agent.first_mismatch(caller));
                let reason = missing.find_map(|fact| mismatch_detail(fact, caller)).unwrap_or_default();
                denied(format!("no agent entry of {} holds for {program}{reason}", self.file_name))
            });
        };
        let Some(agent) = self.agent(name) else {
            return Err(denied(format!("{} has no agent entry '{name}'", self.file_name)));
        };
        match agent.first_mismatch(caller) {
            None => Ok(agent),
            Some(fact) => Err(denied(format!(
                "this program is not agent '{name}': 'match.{fact}' of {} does not hold for {}{}",
                self.file_name,
                describe_process(&caller.process),
                mismatch_detail(fact, caller).unwrap_or_default()
            ))),
        }
    }

    /// Continues the rate limiters of `earlier` that have the same agent, rule and rate: saving the file must
    /// not give a new allowance.
    pub(super) fn inherit_rate_limits(&mut self, earlier: &Policy) {
        for agent in &mut self.agents {
            let Some(before) = earlier.agent(&agent.name) else { continue };
            let rules = agent.rules.iter_mut().zip(&before.rules);
            let of_rules = rules.map(|(rule, old)| (&mut rule.limiter, &old.limiter));
            let of_agent = std::iter::once((&mut agent.limiter, &before.limiter));
            for (new, old) in of_rules.chain(of_agent) {
                if let (Some(new), Some(old)) = (new, old)
                    && new.has_same_limit(old)
                {
                    *new = Arc::clone(old);
                }
            }
            for (_, new) in &mut agent.secret_limits {
                if let Some((_, old)) = before.secret_limits.iter().find(|(_, old)| new.has_same_limit(old)) {
                    *new = Arc::clone(old);
                }
            }
        }
    }
}

/// The way in which the rules of `agents` name `host`.
pub(super) fn host_match_of<'a>(agents: impl Iterator<Item = &'a Agent>, host: &Host) -> HostMatch {
    let mut best = HostMatch::None;
    for entry in agents {
        match entry.hosts.host_match(host) {
            HostMatch::Exact => return HostMatch::Exact,
            below @ HostMatch::Wildcard(_) => best = below,
            HostMatch::None => {}
        }
    }
    best
}

/// The name of a process for messages: its program, or its container if the program is not visible.
fn describe_process(process: &Process) -> String {
    match process.container() {
        Some(container) if process.exe.as_os_str().is_empty() => format!("container {}", container.id),
        _ => process.exe.display().to_string(),
    }
}

impl Agent {
    /// The name of the entry.
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// Every secret that it may spend anywhere, in order of name. Responses are searched for these.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.secrets.iter()
    }

    /// Whether the secret `name` is made from others.
    pub fn is_minted(&self, name: &SecretName) -> bool {
        self.minted_credentials.iter().any(|credential| credential.name == *name)
    }

    /// The stored secrets that it spends or that its minted credentials need, without duplicates.
    pub fn stored_secrets(&self) -> Vec<SecretName> {
        let own = self.secrets.iter().filter(|name| !self.is_minted(name) && !self.captured.contains(name));
        let mut names: Vec<_> = own
            .chain(self.minted_credentials.iter().flat_map(|credential| credential.source_secrets()))
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The ports on which others may reach it.
    pub fn inbound_ports(&self) -> &[u16] {
        &self.inbound_ports
    }

    /// Whether it may call `agentsecrets env`, which gives it real values.
    pub fn allows_env(&self) -> bool {
        self.allows_env
    }

    /// Whether it stands for the operator instead of an agent.
    pub fn is_operator(&self) -> bool {
        self.is_operator
    }

    /// Its rules with their host patterns, in the order of the file.
    pub(super) fn patterns_and_rules(&self) -> Vec<(HostPattern, &Rule)> {
        let mut found: Vec<_> = self
            .hosts
            .patterns()
            .flat_map(|(pattern, rules)| rules.iter().map(move |index| (*index, pattern.clone())))
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().filter_map(|(index, pattern)| Some((pattern, self.rules.get(index)?))).collect()
    }

    /// The limiters of a request under `rule` that spends `secret_uses`.
    pub(super) fn limiters<'a>(
        &'a self,
        rule: &'a Rule,
        secret_uses: &'a [SecretUse],
    ) -> impl Iterator<Item = &'a Arc<RateLimiter>> + Clone {
        let is_spent =
            |(name, _): &&(SecretName, _)| secret_uses.iter().any(|secret_use| secret_use.name == *name);
        let of_secrets = self.secret_limits.iter().filter(is_spent).map(|(_, limiter)| limiter);
        self.limiter.iter().chain(&rule.limiter).chain(of_secrets)
    }

    /// The largest request body under `rule`, in bytes.
    pub(super) fn largest_body(&self, rule: &Rule) -> Option<u64> {
        rule.max_body.into_iter().chain(self.max_body).min()
    }

    /// The number of its rules.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// The first fact that does not hold for `caller`. An entry without `match` holds for programs that `run`
    /// started and, at the explicit proxy, for programs of its user.
    fn first_mismatch(&self, caller: &Caller) -> Option<&'static str> {
        match &self.matcher {
            Some(facts) => facts.first_mismatch(caller),
            None if !caller.is_ours => Some("session"),
            None => None,
        }
    }
}
