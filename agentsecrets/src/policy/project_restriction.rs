//! The restriction that a project file puts on the policy. It only removes permissions, so that a file from
//! somebody else's repository allows nothing new.

use serde::{Deserialize, Serialize};

use crate::types::name::{AgentName, SecretName};

use super::host_patterns::HostPattern;
use super::rules::Policy;

/// The remaining parts of the policy. `None` keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectRestriction {
    /// The file, for messages.
    pub file: String,
    /// The remaining agent entries.
    pub agents: Option<Vec<AgentName>>,
    /// The remaining secrets.
    pub secrets: Option<Vec<SecretName>>,
    /// Patterns of the remaining hosts.
    pub hosts: Option<Vec<String>>,
}

impl ProjectRestriction {
    /// Whether it restricts nothing.
    pub fn is_empty(&self) -> bool {
        self.agents.is_none() && self.secrets.is_none() && self.hosts.is_none()
    }

    /// Whether the secret `name` remains.
    pub fn allows_secret(&self, name: &SecretName) -> bool {
        self.secrets.as_ref().is_none_or(|secrets| secrets.contains(name))
    }

    /// Checks its host patterns.
    pub fn validate(&self) -> Result<(), String> {
        self.hosts.iter().flatten().try_for_each(|host| HostPattern::parse(host).map(drop))
    }
}

impl Policy {
    /// The policy restricted by `restriction`.
    pub fn restricted_to(mut self, restriction: &ProjectRestriction) -> Self {
        if restriction.is_empty() {
            return self;
        }
        if let Some(agents) = &restriction.agents {
            self.agents.retain(|agent| agents.contains(&agent.name));
        }
        let hosts = restriction.hosts.as_ref().map(|hosts| {
            // An invalid pattern matches nothing, which is the safe side.
            hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect::<Vec<_>>()
        });
        for agent in &mut self.agents {
            if let Some(secrets) = &restriction.secrets {
                // Values are loaded only for `agent.secrets`; other references find none.
                agent.secrets.retain(|name| secrets.contains(name));
                for rule in &mut agent.rules {
                    rule.secrets.retain(|name| secrets.contains(name));
                    rule.injects.retain(|spend| secrets.contains(&spend.name));
                }
            }
            if let Some(hosts) = &hosts {
                agent.hosts.restrict_to(hosts.clone());
            }
        }
        self.file_name = format!("{} as restricted by {}", self.file_name, restriction.file);
        self
    }

    /// The operator's policy under `restriction`: its agents restrict the rules, its secrets and hosts the
    /// operator.
    pub fn for_operator_restricted(
        self,
        name: AgentName,
        secrets: Vec<SecretName>,
        restriction: &ProjectRestriction,
    ) -> Self {
        let for_agents = ProjectRestriction { secrets: None, hosts: None, ..restriction.clone() };
        let for_the_operator = ProjectRestriction { agents: None, ..restriction.clone() };
        self.restricted_to(&for_agents).for_operator(name, secrets).restricted_to(&for_the_operator)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const POLICY: &str = "version: 1\nagents:\n  - name: coder\n    allow:\n      - { host: api.stripe.com, ports: [443], \
                          secrets: [STRIPE_KEY], inject: { bearer: OTHER_KEY } }\n      - { host: \"*.example.com\" }\n  \
                          - name: other\n    allow: [{ host: api.stripe.com }]\n";

    fn restricted(restriction: ProjectRestriction) -> Policy {
        Policy::parse(POLICY, Path::new("policy.yaml")).unwrap().restricted_to(&restriction)
    }

    fn names(policy: &Policy, host: &str) -> bool {
        policy.names_host(None, &host.parse().unwrap())
    }

    #[test]
    fn agents_secrets_and_hosts_are_removed() {
        let agents = Some(vec!["coder".parse().unwrap()]);
        let secrets = Some(vec!["STRIPE_KEY".parse().unwrap()]);
        let hosts = Some(vec!["api.stripe.com".into(), "a.example.com".into()]);
        let policy = restricted(ProjectRestriction { file: "project.json".into(), agents, secrets, hosts });
        assert_eq!(policy.agents().len(), 1);
        let left: Vec<_> = policy.agents()[0].secrets().map(SecretName::as_str).collect();
        assert_eq!(left, ["STRIPE_KEY"]);
        assert!(policy.agents()[0].rules.iter().all(|rule| rule.injects.is_empty()));
        assert!(names(&policy, "api.stripe.com") && names(&policy, "a.example.com"));
        assert!(!names(&policy, "b.example.com"));
        assert!(policy.file_name.contains("project.json"));
    }

    #[test]
    fn restriction_adds_nothing() {
        let restriction = ProjectRestriction {
            file: "project.json".into(),
            agents: Some(vec!["coder".parse().unwrap(), "mallory".parse().unwrap()]),
            secrets: Some(vec!["AWS_KEY".parse().unwrap()]),
            hosts: Some(vec!["evil.net".into(), "*.stripe.com".into()]),
        };
        let policy = restricted(restriction);
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
    fn empty_list_keeps_nothing_and_no_list_keeps_all() {
        let nothing = ProjectRestriction { hosts: Some(Vec::new()), ..ProjectRestriction::default() };
        assert!(!names(&restricted(nothing), "api.stripe.com"));
        assert_eq!(
            restricted(ProjectRestriction { agents: Some(Vec::new()), ..ProjectRestriction::default() })
                .agents()
                .len(),
            0
        );
        assert!(names(&restricted(ProjectRestriction::default()), "api.stripe.com"));
        assert!(
            ProjectRestriction { hosts: Some(vec!["https://x".into()]), ..ProjectRestriction::default() }
                .validate()
                .is_err()
        );
    }
}
