//! The operator's view of the policy: any stored secret, at any location, for any host that some rule allows.
//! The limits that rules set for agents (methods, paths, rates, approval) do not apply to the operator. Their
//! settings for servers (ports, addresses, roots, client certificate) do.

use std::sync::Arc;

use super::caller_matcher::CallerMatcher;
use super::host_patterns::HostIndex;
use super::injection::InjectionStyle;
use super::private_addresses::PrivateAddresses;
use super::rules::{Agent, Policy, Rule};
use crate::policy::location::LocationPattern;
use crate::policy::referenced_files::ReferencedFiles;
use crate::types::name::{AgentName, SecretName};

impl Policy {
    /// The policy for an operator who may spend `secrets`. It matches any program, so that the caller must
    /// already know that it is no agent.
    pub fn for_operator(&self, name: AgentName, mut secrets: Vec<SecretName>) -> Policy {
        secrets.extend(self.credentials.iter().map(|derived| derived.name.clone()));
        secrets.sort();
        secrets.dedup();
        let mut allowed: Vec<_> = self.agents.iter().flat_map(Agent::patterns_and_rules).collect();
        // The first of several rules for one host decides: prefer the one with most settings for the server.
        allowed.sort_by_key(|(_, rule)| (rule.private == PrivateAddresses::None, rule.roots.is_none()));
        let (mut hosts, mut rules) = (HostIndex::default(), Vec::with_capacity(allowed.len()));
        for (pattern, rule) in allowed {
            hosts.add(pattern, rules.len());
            rules.push(rule.for_operator(&secrets));
        }
        let matches = Some(CallerMatcher::default());
        let (inbound, derived) = (Vec::new(), self.credentials.clone());
        let agent = Agent {
            name,
            matcher: matches,
            allows_env: true,
            inbound_ports: inbound,
            rules,
            hosts,
            limiter: None,
            secret_limits: Vec::new(),
            max_body: None,
            secrets,
            captured: Vec::new(),
            minted_credentials: derived,
            is_operator: true,
        };
        Policy {
            credentials: self.credentials.clone(),
            agents: vec![agent],
            warnings: Vec::new(),
            file_name: self.file_name.clone(),
            referenced_files: ReferencedFiles::default(),
        }
    }
}

impl Rule {
    fn for_operator(&self, secrets: &[SecretName]) -> Rule {
        let certificates =
            self.injects.iter().filter(|spend| spend.style == InjectionStyle::ClientCertificate);
        Rule {
            id: Arc::clone(&self.id),
            ports: self.ports.clone(),
            methods: None,
            paths: None,
            path_patterns: Vec::new(),
            allows_encoded_slashes: true,
            secrets: secrets.to_vec(),
            injects: certificates.cloned().collect(),
            signing: None,
            response_capture: None,
            allows_minting: true,
            locations: LocationPattern::all(),
            approval_timeout: None,
            is_passthrough: false,
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
    use crate::policy::access_request::{AccessRequest, SecretReference};
    use crate::policy::evaluate::Decision;
    use crate::policy::evaluate::decide;
    use crate::policy::grant::Grant;
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
        let policy = policy.for_operator("person".parse().unwrap(), secrets);
        let target = Target { scheme: Scheme::Https, host: host.parse().unwrap(), port };
        let references = [SecretReference { name: name.parse().unwrap(), style: InjectionStyle::Bearer }];
        let ask = AccessRequest {
            target: &target,
            method: &Method::DELETE,
            path: "/x",
            websocket: false,
            references: &references,
        };
        match decide(&policy, &policy.agents[0], &ask, std::time::Instant::now(), |_| None) {
            Decision::Allow(grant) => Ok(grant),
            Decision::NeedsApproval(_) => Err(ErrorCode::PolicyApprovalRequired),
            Decision::Deny(refusal) => Err(refusal.code),
        }
    }

    #[test]
    fn server_settings_apply_and_agent_limits_do_not() {
        for (host, port) in [("api.net", 443), ("x.wild.org", 8443), ("pinned.net", 443)] {
            for _ in 0..2 {
                let grant = decided(host, port, "B").unwrap();
                let spent: Vec<_> =
                    grant.secret_uses().iter().map(|spend| spend.name.as_str().to_owned()).collect();
                assert_eq!(spent, ["B"], "nothing is injected without a reference");
            }
        }
        assert_eq!(*decided("api.net", 443, "A").unwrap().private(), PrivateAddresses::Any);
        assert_eq!(decided("x.wild.org", 443, "B").unwrap_err(), ErrorCode::PolicyDenied);
        assert_eq!(decided("wild.org", 8443, "B").unwrap_err(), ErrorCode::DomainNotInAllowlist);
        assert_eq!(decided("other.net", 443, "B").unwrap_err(), ErrorCode::DomainNotInAllowlist);
    }
}
