//! The person's own door as a view on the policy: any stored secret, in any place, toward any host that some
//! rule allows. What rules say of agents (methods, paths, rates, approval) does not bind the person; what
//! they say of a server (ports, addresses, roots, its certificate) does.

use std::sync::Arc;

use super::grant::{PrivateAddresses, Style};
use super::matching::{Hosts, Match};
use super::rules::{Agent, Policy, Rule};
use crate::policy::access_request::Area;
use crate::policy::referenced_files::Sources;
use crate::types::name::{AgentName, SecretName};

impl Policy {
    /// The policy for a person who may spend `secrets`. It holds for whoever asks: the caller must have made
    /// sure that no agent does.
    pub fn of_the_person(&self, name: AgentName, mut secrets: Vec<SecretName>) -> Policy {
        secrets.extend(self.credentials.iter().map(|derived| derived.name.clone()));
        secrets.sort();
        secrets.dedup();
        let mut allowed: Vec<_> = self.agents.iter().flat_map(Agent::patterns_and_rules).collect();
        // Of several rules for one host the first counts: let it be one that says most of the server.
        allowed.sort_by_key(|(_, rule)| (rule.private == PrivateAddresses::None, rule.roots.is_none()));
        let (mut hosts, mut rules) = (Hosts::default(), Vec::with_capacity(allowed.len()));
        for (pattern, rule) in allowed {
            hosts.add(pattern, rules.len());
            rules.push(rule.for_the_person(&secrets));
        }
        let matches = Some(Match::default());
        let (inbound, derived) = (Vec::new(), self.credentials.clone());
        let agent = Agent {
            name,
            matches,
            env: true,
            inbound,
            rules,
            hosts,
            limiter: None,
            limits: Vec::new(),
            max_body: None,
            secrets,
            captured: Vec::new(),
            derived,
            is_person: true,
        };
        Policy {
            credentials: self.credentials.clone(),
            agents: vec![agent],
            warnings: Vec::new(),
            file: self.file.clone(),
            sources: Sources::default(),
        }
    }
}

impl Rule {
    fn for_the_person(&self, secrets: &[SecretName]) -> Rule {
        let proof = self.injects.iter().filter(|spend| spend.style == Style::ClientCertificate);
        Rule {
            id: Arc::clone(&self.id),
            ports: self.ports.clone(),
            methods: None,
            paths: None,
            patterns: Vec::new(),
            encoded_slashes: true,
            secrets: secrets.to_vec(),
            injects: proof.cloned().collect(),
            signing: None,
            taking: None,
            mint: true,
            places: Area::everywhere(),
            approve: None,
            passthrough: false,
            limiter: None,
            max_body: None,
            private: self.private.clone(),
            roots: self.roots.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Method;

    use super::*;
    use crate::policy::access_request::{Ask, Reference};
    use crate::policy::evaluate::judge;
    use crate::policy::grant::{Decision, Grant};
    use crate::types::rejection::ErrorCode;
    use crate::types::target::{Scheme, Target};

    const POLICY: &str = "version: 1
agents:
  - name: a
    allow:
      - { host: api.net, methods: [GET], paths: [/v1/**], secrets: [A], approve: true, rate: 1/h }
      - { host: \"*.wild.org\", ports: [8443], inject: { bearer: A } }
  - name: b
    match: { uid: 4 }
    allow:
      - { host: api.net, private: true }
      - { host: pinned.net, tls: passthrough }
";

    fn decided(host: &str, port: u16, name: &str) -> Result<Grant, ErrorCode> {
        let secrets = vec!["A".parse().unwrap(), "B".parse().unwrap()];
        let policy = Policy::parse(POLICY, Path::new("policy.yaml")).unwrap();
        let policy = policy.of_the_person("person".parse().unwrap(), secrets);
        let target = Target { scheme: Scheme::Https, host: host.parse().unwrap(), port };
        let references = [Reference { name: name.parse().unwrap(), style: Style::Bearer }];
        let ask = Ask {
            target: &target,
            method: &Method::DELETE,
            path: "/x",
            websocket: false,
            references: &references,
        };
        match judge(&policy, &policy.agents[0], &ask, std::time::Instant::now(), |_| None) {
            Decision::Allow(grant) => Ok(grant),
            Decision::Hold(_) => Err(ErrorCode::PolicyApprovalRequired),
            Decision::Deny(refusal) => Err(refusal.code),
        }
    }

    #[test]
    fn what_binds_agents_does_not_bind_the_person_and_what_is_said_of_servers_does() {
        for (host, port) in [("api.net", 443), ("x.wild.org", 8443), ("pinned.net", 443)] {
            for _ in 0..2 {
                let grant = decided(host, port, "B").unwrap();
                let spent: Vec<_> =
                    grant.spends().iter().map(|spend| spend.name.as_str().to_owned()).collect();
                assert_eq!(spent, ["B"], "nothing is put in that was not asked for");
            }
        }
        assert_eq!(*decided("api.net", 443, "A").unwrap().private(), PrivateAddresses::Any);
        assert_eq!(decided("x.wild.org", 443, "B").unwrap_err(), ErrorCode::PolicyDenied);
        assert_eq!(decided("wild.org", 8443, "B").unwrap_err(), ErrorCode::DomainNotInAllowlist);
        assert_eq!(decided("other.net", 443, "B").unwrap_err(), ErrorCode::DomainNotInAllowlist);
    }
}
