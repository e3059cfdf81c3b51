//! A project file's share in the policy: it can take away and never add. Whatever it leaves of an agent was
//! the policy's before, so that a file which came with somebody's repository opens nothing.

use serde::{Deserialize, Serialize};

use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};

use super::matching::HostPattern;
use super::rules::Policy;

/// What a project file leaves of the policy. `None` leaves all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrow {
    /// The file, for messages.
    pub file: String,
    /// The agent entries that are left.
    pub agents: Option<Vec<AgentName>>,
    /// The secrets that are left.
    pub secrets: Option<Vec<SecretName>>,
    /// The hosts that are left, each as in a rule.
    pub hosts: Option<Vec<String>>,
}

impl Narrow {
    /// Whether it takes nothing away.
    pub fn is_empty(&self) -> bool {
        self.agents.is_none() && self.secrets.is_none() && self.hosts.is_none()
    }

    /// Whether it leaves the secret `name`.
    pub fn leaves(&self, name: &SecretName) -> bool {
        self.secrets.as_ref().is_none_or(|secrets| secrets.contains(name))
    }

    /// Why one of its hosts is none.
    pub fn check(&self) -> Result<(), String> {
        self.hosts.iter().flatten().try_for_each(|host| HostPattern::read(host).map(drop))
    }
}

impl Policy {
    /// What `narrow` leaves of it.
    pub fn narrowed(mut self, narrow: &Narrow) -> Self {
        if narrow.is_empty() {
            return self;
        }
        if let Some(agents) = &narrow.agents {
            self.agents.retain(|agent| agents.contains(&agent.name));
        }
        let hosts = narrow.hosts.as_ref().map(|hosts| {
            // One that cannot be read covers nothing, and so leaves nothing.
            hosts.iter().filter_map(|host| HostPattern::read(host).ok()).collect::<Vec<_>>()
        });
        for agent in &mut self.agents {
            if let Some(secrets) = &narrow.secrets {
                // What a wallet is filled with: whatever else names a secret finds none.
                agent.secrets.retain(|name| secrets.contains(name));
                for rule in &mut agent.rules {
                    rule.secrets.retain(|name| secrets.contains(name));
                    rule.injects.retain(|spend| secrets.contains(&spend.name));
                }
            }
            if let Some(hosts) = &hosts {
                agent.hosts.keep_within(hosts.clone());
            }
        }
        self.file = format!("{} as narrowed by {}", self.file, narrow.file);
        self
    }
}

impl Policy {
    /// What `narrow` leaves of what the person may do themselves: of the agents' rules, and of their own secrets.
    pub fn of_the_person_narrowed(self, name: AgentName, secrets: Vec<SecretName>, narrow: &Narrow) -> Self {
        let of_agents = Narrow { secrets: None, hosts: None, ..narrow.clone() };
        let of_theirs = Narrow { agents: None, ..narrow.clone() };
        self.narrowed(&of_agents).of_the_person(name, secrets).narrowed(&of_theirs)
    }
}

/// Hosts, as rules name them.
#[derive(Debug, Clone)]
pub struct HostList(Vec<HostPattern>);

impl HostList {
    /// Reads them; an error says which is none, and why.
    pub fn read(hosts: &[String]) -> Result<Self, String> {
        hosts.iter().map(|host| HostPattern::read(host)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them covers `host`.
    pub fn covers(&self, host: &Host) -> bool {
        covers(&self.0, host)
    }
}

/// Whether one of `patterns` covers `host`.
pub(super) fn covers(patterns: &[HostPattern], host: &Host) -> bool {
    let exactly = HostPattern::Exact(host.clone());
    patterns.iter().any(|pattern| pattern.meets(&exactly))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const POLICY: &str = "version: 1\nagents:\n  - name: coder\n    allow:\n      - { host: api.stripe.com, ports: [443], \
                          secrets: [STRIPE_KEY], inject: { bearer: OTHER_KEY } }\n      - { host: \"*.example.com\" }\n  \
                          - name: other\n    allow: [{ host: api.stripe.com }]\n";

    fn narrowed(narrow: Narrow) -> Policy {
        Policy::parse(POLICY, Path::new("policy.yaml")).unwrap().narrowed(&narrow)
    }

    fn names(policy: &Policy, host: &str) -> bool {
        policy.names(None, &host.parse().unwrap())
    }

    #[test]
    fn agents_secrets_and_hosts_are_taken_away() {
        let agents = Some(vec!["coder".parse().unwrap()]);
        let secrets = Some(vec!["STRIPE_KEY".parse().unwrap()]);
        let hosts = Some(vec!["api.stripe.com".into(), "a.example.com".into()]);
        let policy = narrowed(Narrow { file: "project.json".into(), agents, secrets, hosts });
        assert_eq!(policy.agents().len(), 1);
        let left: Vec<_> = policy.agents()[0].secrets().map(SecretName::as_str).collect();
        assert_eq!(left, ["STRIPE_KEY"]);
        assert!(policy.agents()[0].rules.iter().all(|rule| rule.injects.is_empty()));
        assert!(names(&policy, "api.stripe.com") && names(&policy, "a.example.com"));
        assert!(!names(&policy, "b.example.com"));
        assert!(policy.file.contains("project.json"));
    }

    #[test]
    fn nothing_that_the_policy_lacks_is_added() {
        let narrow = Narrow {
            file: "project.json".into(),
            agents: Some(vec!["coder".parse().unwrap(), "mallory".parse().unwrap()]),
            secrets: Some(vec!["AWS_KEY".parse().unwrap()]),
            hosts: Some(vec!["evil.net".into(), "*.stripe.com".into()]),
        };
        let policy = narrowed(narrow);
        assert_eq!(policy.agents().len(), 1);
        assert_eq!(policy.agents()[0].secrets().count(), 0);
        assert!(
            !names(&policy, "evil.net")
                && !names(&policy, "b.stripe.com")
                && !names(&policy, "a.example.com")
        );
        assert!(names(&policy, "api.stripe.com"));
    }

    #[test]
    fn an_empty_list_leaves_nothing_and_no_list_leaves_all() {
        let nothing = Narrow { hosts: Some(Vec::new()), ..Narrow::default() };
        assert!(!names(&narrowed(nothing), "api.stripe.com"));
        assert_eq!(narrowed(Narrow { agents: Some(Vec::new()), ..Narrow::default() }).agents().len(), 0);
        assert!(names(&narrowed(Narrow::default()), "api.stripe.com"));
        assert!(Narrow { hosts: Some(vec!["https://x".into()]), ..Narrow::default() }.check().is_err());
    }
}
