//! Registered agents: the tokens that were issued to each, and which secrets it may spend at most, whatever
//! its rules allow. What is kept of a token proves it and cannot become it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::{ClockReading, Lease};
use super::registry::{self, RegistryContent, RegistryError, VERSION};
use super::token::{Digest, is_id};
use crate::sys::watched_file::FileSource;
use crate::types::name::{AgentName, Environment, Project, SecretName};

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    version: u32,
    /// All of them, in the order in which they were registered.
    pub agents: Vec<Registered>,
}

/// One agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The policy's entry.
    pub name: AgentName,
    /// Since when it is known.
    pub registered: Timestamp,
    /// The only secrets that the agent may spend; absent, its rules decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<SecretName>>,
    /// Secrets that the agent may never spend.
    #[serde(default)]
    pub deny: Vec<SecretName>,
    /// Its tokens.
    #[serde(default)]
    pub tokens: Vec<Issued>,
}

/// A token that was issued.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Its id.
    pub id: String,
    /// The digest of the token.
    pub sha256: Digest,
    /// Since when it is good.
    pub issued: Timestamp,
    /// Until when; none for no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The only project that it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Project>,
    /// The only environment that it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl Default for Agents {
    fn default() -> Self {
        Self { version: VERSION, agents: Vec::new() }
    }
}

impl RegistryContent for Agents {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        for agent in &self.agents {
            if !names.insert(&agent.name) {
                return Err(format!("the agent '{}' stands there twice", agent.name));
            }
            for token in &agent.tokens {
                if !is_id(&token.id) || !ids.insert(&token.id) {
                    return Err(format!("a token of the agent '{}' has no id of its own", agent.name));
                }
            }
        }
        Ok(())
    }
}

impl Agents {
    /// The agent called `name`.
    pub fn agent(&mut self, name: &AgentName) -> Option<&mut Registered> {
        self.agents.iter_mut().find(|agent| agent.name == *name)
    }
}

/// The file as requests are judged by it: each question costs the same, however many agents there are.
#[derive(Default)]
pub(super) struct AgentIndex {
    limits: HashMap<AgentName, Limits>,
    tokens: HashMap<Arc<str>, AgentEntry>,
}

/// Upper bound on the secrets of an agent.
struct Limits {
    allow: Option<HashSet<SecretName>>,
    deny: HashSet<SecretName>,
}

/// A token as it is judged.
pub(super) struct AgentEntry {
    pub(super) id: Arc<str>,
    pub(super) agent: AgentName,
    pub(super) digest: Digest,
    pub(super) lease: Option<Lease>,
    pub(super) project: Option<Project>,
    pub(super) environment: Option<Environment>,
    pub(super) is_revoked: bool,
}

impl AgentIndex {
    pub(super) fn new(agents: Agents, last: Option<&Self>, now: ClockReading) -> Self {
        let mut index = Self::default();
        for agent in agents.agents {
            for token in agent.tokens {
                let id: Arc<str> = token.id.into();
                let before = last.and_then(|last| last.tokens.get(&id)).and_then(|entry| entry.lease);
                let lease = token.expires.map(|end| Lease::begin(token.issued, end, Duration::ZERO, now));
                let entry = AgentEntry {
                    id: id.clone(),
                    agent: agent.name.clone(),
                    digest: token.sha256,
                    lease: lease.map(|lease| before.map_or(lease, |before| lease.within(&before))),
                    project: token.project,
                    environment: token.environment,
                    is_revoked: token.revoked.is_some(),
                };
                index.tokens.insert(id, entry);
            }
            let (allow, deny) = (agent.allow.map(HashSet::from_iter), HashSet::from_iter(agent.deny));
            index.limits.insert(agent.name, Limits { allow, deny });
        }
        index
    }

    /// The token with this id.
    pub(super) fn token(&self, id: &str) -> Option<&AgentEntry> {
        self.tokens.get(id)
    }

    /// Whether what is registered of `agent` lets it spend `secret`.
    pub(super) fn allows(&self, agent: &AgentName, secret: &SecretName) -> bool {
        self.limits.get(agent).is_none_or(|limits| {
            !limits.deny.contains(secret) && limits.allow.as_ref().is_none_or(|allow| allow.contains(secret))
        })
    }
}

/// The file, followed.
pub(super) struct AgentsFile(pub(super) PathBuf);

impl FileSource for AgentsFile {
    type Content = AgentIndex;
    type Error = RegistryError;

    const NAME: &'static str = "agents";

    fn text(&self) -> Result<Option<String>, RegistryError> {
        registry::text(&self.0)
    }

    fn parse(&self, text: Option<&str>, last: Option<&AgentIndex>) -> Result<AgentIndex, RegistryError> {
        let had = last.is_some_and(|last| !last.limits.is_empty());
        Ok(AgentIndex::new(registry::follow(text, &self.0, had)?, last, ClockReading::read()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(text: &str) -> Result<Agents, String> {
        registry::parse(Some(text), Path::new("agents.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn deny_wins_and_unregistered_agent_is_unbounded() {
        let text = r#"{"version":1,"agents":[
            {"name":"both","registered":"2026-01-01T00:00:00Z","allow":["A","B"],"deny":["B"]},
            {"name":"none","registered":"2026-01-01T00:00:00Z","allow":[]},
            {"name":"denied","registered":"2026-01-01T00:00:00Z","deny":["A"]}]}"#;
        let index = AgentIndex::new(parsed(text).unwrap(), None, ClockReading::read());
        let allows = |agent: &str| {
            ["A", "B", "C"].map(|secret| index.allows(&agent.parse().unwrap(), &secret.parse().unwrap()))
        };
        assert_eq!(allows("both"), [true, false, false]);
        assert_eq!(allows("none"), [false; 3]);
        assert_eq!(allows("denied"), [false, true, true]);
        assert_eq!(allows("other"), [true; 3]);
    }

    #[test]
    fn invalid_file_names_line() {
        let agent = |more: &str| {
            format!(
                "{{\"version\":1,\"agents\":[\n{{\"name\":\"a\",\"registered\":\"2026-01-01T00:00:00Z\"{more}}}]}}"
            )
        };
        assert!(parsed(&agent("")).is_ok());
        for (text, line) in [
            (agent(",\"rights\":[]"), 2),
            (agent(",\"deny\":[],\"deny\":[]"), 2),
            (agent(",\"deny\":[\"no name\"]"), 2),
            (agent(",\"tokens\":[{\"id\":\"x\",\"sha256\":\"00\",\"issued\":\"2026-01-01T00:00:00Z\"}]"), 2),
            ("{\"version\":2,\"agents\":[]}".to_owned(), 1),
            ("{\"agents\":[]}".to_owned(), 1),
            (String::new(), 1),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.starts_with(&format!("agents.json:{line}: ")), "{text}: {error}");
        }
        let twice = agent("").replace("]}", ",{\"name\":\"a\",\"registered\":\"2026-01-01T00:00:00Z\"}]}");
        assert!(parsed(&twice).unwrap_err().contains("twice"));
    }
}
