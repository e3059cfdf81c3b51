//! A policy that was read and found sound: what `decide` works on. It can only be made by `load`, so that
//! whoever holds one holds rules that mean what they say.

use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use http::Method;

use crate::identity::{Caller, Process};
use crate::tls::verify::Roots;
use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};

use super::grant::{PrivateAddresses, Spend};
use super::load::Problem;
use super::matching::{HostPattern, Hosts, Match, Naming};
use super::signing::Signing;
use super::spiffe::{is_open, why_missing};
use crate::policy::access_request::{Area, Spot};
use crate::policy::minted_credentials::Derived;
use crate::policy::rate_limit::Limiter;
use crate::policy::referenced_files::Sources;
use crate::policy::response_capture::Taking;

/// All rules that are in force.
#[derive(Debug, Default)]
pub struct Policy {
    pub(super) agents: Vec<Agent>,
    /// What is made from stored secrets.
    pub(super) credentials: Vec<Arc<Derived>>,
    pub(super) warnings: Vec<Problem>,
    /// The file's name, for messages.
    pub(super) file: String,
    /// The other files that it was made from.
    pub(super) sources: Sources,
}

/// One agent entry.
#[derive(Debug)]
pub struct Agent {
    pub(super) name: AgentName,
    pub(super) matches: Option<Match>,
    pub(super) env: bool,
    pub(super) inbound: Vec<u16>,
    pub(super) rules: Vec<Rule>,
    pub(super) hosts: Hosts,
    /// What counts all its requests, and those that spend a secret.
    pub(super) limiter: Option<Arc<Limiter>>,
    pub(super) limits: Vec<(SecretName, Arc<Limiter>)>,
    /// The largest body of any of its requests, in bytes.
    pub(super) max_body: Option<u64>,
    /// Sorted, each once.
    pub(super) secrets: Vec<SecretName>,
    /// Those of them that answers mint.
    pub(super) captured: Vec<SecretName>,
    /// Those of them that are made from others.
    pub(super) derived: Vec<Arc<Derived>>,
    /// Whether it is no agent, but the person.
    pub(super) is_person: bool,
}

/// One entry of `allow`. `None` means that the rule does not limit it.
#[derive(Debug)]
pub(super) struct Rule {
    pub id: Arc<str>,
    pub ports: Option<Vec<u16>>,
    pub methods: Option<Vec<Method>>,
    pub paths: Option<Arc<GlobSet>>,
    /// What they are made of.
    pub patterns: Vec<String>,
    /// Whether a path may hold encoded slashes, where both of its readings are allowed.
    pub encoded_slashes: bool,
    /// Those of `inject` too, but no client certificate: that is never put in a placeholder's place.
    pub secrets: Vec<SecretName>,
    /// Those that it signs with too.
    pub injects: Vec<Spend>,
    pub signing: Option<Arc<Signing>>,
    pub taking: Option<Arc<Taking>>,
    /// Whether endpoints that mint credentials may be asked with a secret.
    pub mint: bool,
    pub places: Vec<Area>,
    /// How long a request waits for a person to approve it.
    pub approve: Option<Duration>,
    pub passthrough: bool,
    pub limiter: Option<Arc<Limiter>>,
    pub max_body: Option<u64>,
    pub private: PrivateAddresses,
    pub roots: Option<Arc<Roots>>,
}

impl Rule {
    /// Whether it allows `port`.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Whether it fills placeholders at `spot`.
    pub(super) fn fills(&self, spot: &Spot) -> bool {
        self.places.iter().any(|area| area.holds(spot))
    }

    /// Whether there is a port that `self` and `other` allow.
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

    /// What is legal in the file, but surely not what was meant.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Whether a rule of `agent` (of any agent, where none is given) names `host`: only such names are
    /// asked of the world.
    pub fn names(&self, agent: Option<&AgentName>, host: &Host) -> bool {
        self.naming(agent, host) != Naming::Nowhere
    }

    /// How the rules of `agent` (of any agent, where none is given) name `host`.
    pub fn naming(&self, agent: Option<&AgentName>, host: &Host) -> Naming {
        naming(self.agents.iter().filter(|entry| agent.is_none_or(|name| entry.name == *name)), host)
    }

    /// The entry that `caller` acts under: the one that `run --agent` named if its `match` holds, else
    /// the first whose `match` holds. The refusal says which fact was missing; its domain is empty.
    pub fn agent_for(&self, caller: &Caller) -> Result<&Agent, Rejection> {
        let denied = |message: String| Rejection::new(ErrorCode::CapabilityDenied, "", message);
        if self.agents.is_empty() {
            let message = format!("{} has no rule at all, so that nothing is allowed", self.file);
            return Err(Rejection::new(ErrorCode::EmptyAllowlist, "", message));
        }
        let Some(name) = &caller.agent else {
            // The first that holds, or may: what is not known must not make another of it.
            let first = self.agents.iter().find_map(|agent| match agent.fails_by(caller) {
                None => Some(Ok(agent)),
                Some(fact) => is_open(fact, caller).then_some(Err(())),
            });
            return first.and_then(Result::ok).ok_or_else(|| {
                let program = program(&caller.process);
                let mut missing = self.agents.iter().filter_map(|agent| agent.fails_by(caller));
                let why = missing.find_map(|fact| why_missing(fact, caller)).unwrap_or_default();
                denied(format!("no agent entry of {} holds for {program}{why}", self.file))
            });
        };
        let Some(agent) = self.agent(name) else {
            return Err(denied(format!("{} has no agent entry '{name}'", self.file)));
        };
        match agent.fails_by(caller) {
            None => Ok(agent),
            Some(fact) => Err(denied(format!(
                "this program is not agent '{name}': 'match.{fact}' of {} does not hold for {}{}",
                self.file,
                program(&caller.process),
                why_missing(fact, caller).unwrap_or_default()
            ))),
        }
    }

    /// Takes over what `earlier` had counted, where agent, rule and rate are the same: writing the file
    /// anew must not hand out a new allowance.
    pub(super) fn keep_counts_of(&mut self, earlier: &Policy) {
        for agent in &mut self.agents {
            let Some(before) = earlier.agent(&agent.name) else { continue };
            let rules = agent.rules.iter_mut().zip(&before.rules);
            let of_rules = rules.map(|(rule, old)| (&mut rule.limiter, &old.limiter));
            let of_agent = std::iter::once((&mut agent.limiter, &before.limiter));
            for (new, old) in of_rules.chain(of_agent) {
                if let (Some(new), Some(old)) = (new, old)
                    && new.is_as(old)
                {
                    *new = Arc::clone(old);
                }
            }
            for (_, new) in &mut agent.limits {
                if let Some((_, old)) = before.limits.iter().find(|(_, old)| new.is_as(old)) {
                    *new = Arc::clone(old);
                }
            }
        }
    }
}

/// How the rules of `agents` name `host`.
pub(super) fn naming<'a>(agents: impl Iterator<Item = &'a Agent>, host: &Host) -> Naming {
    let mut best = Naming::Nowhere;
    for entry in agents {
        match entry.hosts.naming(host) {
            Naming::Exactly => return Naming::Exactly,
            below @ Naming::Below(_) => best = below,
            Naming::Nowhere => {}
        }
    }
    best
}

/// What a refusal calls a process: its program, unless that is out of sight.
fn program(process: &Process) -> String {
    match process.container() {
        Some(container) if process.exe.as_os_str().is_empty() => format!("container {}", container.id),
        _ => process.exe.display().to_string(),
    }
}

impl Agent {
    /// Its name.
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// Every secret that it may spend anywhere, in order of name: what answers to it are searched for.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.secrets.iter()
    }

    /// Whether `name` is made from others for it.
    pub fn makes(&self, name: &SecretName) -> bool {
        self.derived.iter().any(|derived| derived.name == *name)
    }

    /// The stored secrets that it spends, or that what it spends is made from: each once.
    pub fn stored(&self) -> Vec<SecretName> {
        let own = self.secrets.iter().filter(|name| !self.makes(name) && !self.captured.contains(name));
        let mut names: Vec<_> =
            own.chain(self.derived.iter().flat_map(|derived| derived.sources())).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Ports on which others may reach it.
    pub fn inbound(&self) -> &[u16] {
        &self.inbound
    }

    /// Whether it may call `agentsecrets env`, which shows real values.
    pub fn env(&self) -> bool {
        self.env
    }

    /// Whether it is no agent, but the person.
    pub fn is_the_person(&self) -> bool {
        self.is_person
    }

    /// Its rules with the hosts that they name, in the order of the file.
    pub(super) fn patterns_and_rules(&self) -> Vec<(HostPattern, &Rule)> {
        let mut found: Vec<_> = self
            .hosts
            .patterns()
            .flat_map(|(pattern, rules)| rules.iter().map(move |index| (*index, pattern.clone())))
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().filter_map(|(index, pattern)| Some((pattern, self.rules.get(index)?))).collect()
    }

    /// What counts a request under `rule` that spends `spends`.
    pub(super) fn limiters<'a>(
        &'a self,
        rule: &'a Rule,
        spends: &'a [Spend],
    ) -> impl Iterator<Item = &'a Arc<Limiter>> + Clone {
        let is_spent = |(name, _): &&(SecretName, _)| spends.iter().any(|spend| spend.name == *name);
        let of_secrets = self.limits.iter().filter(is_spent).map(|(_, limiter)| limiter);
        self.limiter.iter().chain(&rule.limiter).chain(of_secrets)
    }

    /// The largest body that may leave under `rule`, in bytes.
    pub(super) fn largest_body(&self, rule: &Rule) -> Option<u64> {
        rule.max_body.into_iter().chain(self.max_body).min()
    }

    /// How many rules it has.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// The fact for which `caller` is not this agent. An entry without `match` holds for what `run`
    /// started, and at the explicit proxy for what belongs to its user.
    fn fails_by(&self, caller: &Caller) -> Option<&'static str> {
        match &self.matches {
            Some(facts) => facts.fails_by(caller),
            None if !caller.is_ours => Some("session"),
            None => None,
        }
    }
}
