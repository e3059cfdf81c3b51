//! The person's own door as a view on the policy: any stored secret, in any place, toward any host that some
//! rule allows. What rules say of agents (methods, paths, rates, approval) does not bind the person; what
//! they say of a server (ports, addresses, roots, its certificate) does.

use std::sync::Arc;

use super::ask::Area;
use super::grant::{PrivateAddresses, Style};
use super::matching::{Hosts, Match};
use super::rules::{Agent, Policy, Rule};
use super::sources::Sources;
use crate::base::name::{AgentName, SecretName};

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
            encoded_slashes: true,
            secrets: secrets.to_vec(),
            injects: proof.cloned().collect(),
            signing: None,
            taking: None,
            mint: true,
            places: Area::everywhere(),
            approve: false,
            passthrough: false,
            limiter: None,
            max_body: None,
            private: self.private.clone(),
            roots: self.roots.clone(),
        }
    }
}
