//! What an entry asks of the pod that a caller is in. Whoever may make pods in a namespace chooses their labels,
//! so that labels by themselves give no secret to anybody; the namespace and the service account are the
//! cluster's to give.

use std::collections::BTreeMap;

use serde_yaml::Spanned;

use crate::identity::Caller;
use crate::identity::pod::Pod;
use crate::types::host::Host;
use crate::types::name::SecretName;

use super::compile::Findings;
use super::matching::Naming;
use super::rules::{Agent, Policy, naming};
use crate::policy::schema;
use crate::types::printable::excerpt;

/// The longest name of a namespace, and the longest of a service account, a label or its value.
const NAMESPACE: usize = 63;
const NAME: usize = 253;

/// What must be true of a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PodFacts {
    namespace: Option<String>,
    service_account: Option<String>,
    labels: BTreeMap<String, String>,
}

impl PodFacts {
    /// Whether they hold for the pod of `caller` now. Where nobody knows of one they do not.
    pub(super) fn hold_for(&self, caller: &Caller) -> bool {
        caller.standing.pod.as_ref().and_then(|known| known.get()).is_some_and(|pod| self.hold(&pod))
    }

    fn hold(&self, pod: &Pod) -> bool {
        self.namespace.as_ref().is_none_or(|name| *name == pod.namespace)
            && self.service_account.as_ref().is_none_or(|name| *name == pod.service_account)
            && self.labels.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
    }
}

impl Policy {
    /// The entries that may be those of a program in `pod`, by what they ask of it.
    pub fn agents_in<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Agent> {
        let facts = |agent: &'a Agent| agent.matches.as_ref().and_then(|matches| matches.pod.as_ref());
        self.agents.iter().filter(move |agent| facts(agent).is_none_or(|facts| facts.hold(pod)))
    }

    /// How the rules of those entries name `host`.
    pub fn naming_in(&self, pod: &Pod, host: &Host) -> Naming {
        naming(self.agents_in(pod), host)
    }
}

impl Findings {
    pub(super) fn pod(&mut self, spanned: &Spanned<schema::Pod>) -> PodFacts {
        let schema::Pod { namespace, service_account, labels } = &spanned.value;
        let asked = labels.as_ref().is_some_and(|labels| !labels.value.is_empty());
        if namespace.is_none() && service_account.is_none() && !asked {
            self.error(spanned, "'pod' names nothing: give namespace, service_account or labels");
        }
        if let (None, Some(account)) = (namespace, service_account) {
            self.warn(account, "a service account is its namespace's: without 'namespace' one of that name in any namespace will do");
        }
        let mut read = BTreeMap::new();
        for (label, value) in labels.iter().flat_map(|labels| &labels.value) {
            let name = self.keep(value, name(label, NAME, "label", "-._/"));
            let text = match value.value.as_str() {
                "" => Some(String::new()),
                text => self.keep(value, self::name(text, NAMESPACE, "label's value", "-._")),
            };
            read.extend(name.zip(text));
        }
        let lower = |text: &String, longest, what, others| {
            let plain = name(text, longest, what, others)?;
            if plain.chars().any(|c| c.is_ascii_uppercase()) { Err(odd(text, what)) } else { Ok(plain) }
        };
        PodFacts {
            namespace: namespace
                .as_ref()
                .and_then(|text| self.keep(text, lower(&text.value, NAMESPACE, "namespace", "-"))),
            service_account: service_account
                .as_ref()
                .and_then(|text| self.keep(text, lower(&text.value, NAME, "service account", "-."))),
            labels: read,
        }
    }

    /// Refuses an entry that would give secrets to pods of any namespace.
    pub(super) fn not_without_namespace(&mut self, spanned: &Spanned<schema::Pod>, secrets: &[SecretName]) {
        let pod = &spanned.value;
        if pod.namespace.is_some() || secrets.is_empty() {
            return;
        }
        self.error(
            spanned,
            "labels are the choice of whoever writes the pod, and a service account's name of whoever rules any \
             namespace: neither is enough for a secret; name 'namespace' too",
        );
    }
}

/// Reads a name of the cluster's: letters and digits, and between them some `others`.
fn name(text: &str, longest: usize, what: &str, others: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= longest && text.chars().all(plain);
    if fits && ends(text.chars().next()) && ends(text.chars().last()) {
        Ok(text.to_owned())
    } else {
        Err(odd(text, what))
    }
}

fn odd(text: &str, what: &str) -> String {
    format!("'{}' is no {what} of Kubernetes", excerpt(text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::identity::pod::Known;

    fn pod() -> Pod {
        Pod {
            uid: "0f3c1a2b-4d5e-6f70-8192-a3b4c5d6e7f8".to_owned(),
            name: "coder-0".to_owned(),
            namespace: "prod".to_owned(),
            service_account: "agent".to_owned(),
            labels: [("app".to_owned(), "agent".to_owned()), ("team/x".to_owned(), String::new())].into(),
        }
    }

    fn entry(pod: &str, rule: &str) -> String {
        format!(
            "version: 1\nagents:\n  - name: a\n    match:\n      pod: {{ {pod} }}\n    allow: [ {{ host: x.net{rule} }} ]\n"
        )
    }

    fn read(text: &str) -> Result<Policy, String> {
        Policy::parse(text, Path::new("policy.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_fact_must_hold_and_a_change_is_seen_at_once() {
        let mut caller = Caller::for_test();
        let policies: Vec<_> = [
            ("namespace: prod", true),
            ("namespace: prod, service_account: agent", true),
            ("namespace: prod, labels: { app: agent }", true),
            ("labels: { app: agent, team/x: '' }", true),
            ("namespace: test", false),
            ("namespace: pro", false),
            ("namespace: prod, service_account: default", false),
            ("namespace: prod, labels: { app: Agent }", false),
            ("namespace: prod, labels: { other: agent }", false),
        ]
        .map(|(facts, holds)| (read(&entry(facts, "")).unwrap(), facts, holds))
        .into();
        for (policy, facts, _) in &policies {
            assert!(policy.agent_for(&caller).is_err(), "{facts}: nobody knows of a pod");
        }
        let known = Arc::new(Known::new(pod()));
        caller.standing.pod = Some(known.clone());
        for (policy, facts, holds) in &policies {
            assert_eq!(policy.agent_for(&caller).is_ok(), *holds, "{facts}");
            assert_eq!(policy.agents_in(&pod()).count(), usize::from(*holds), "{facts}");
        }
        let by_label = &policies[2].0;
        known.is(Some(Pod { labels: BTreeMap::new(), ..pod() }));
        assert!(by_label.agent_for(&caller).is_err() && policies[0].0.agent_for(&caller).is_ok());
        known.is(None);
        assert!(policies[0].0.agent_for(&caller).is_err());
    }

    #[test]
    fn labels_and_accounts_of_any_namespace_are_enough_for_no_secret_however_it_is_spent() {
        for spent in [
            ", secrets: [K]",
            ", inject: { bearer: K }",
            ", sign: { hmac: { key: K, header: X-S, message: x } }",
        ] {
            for facts in
                ["labels: { app: agent }", "service_account: agent", "service_account: a, labels: { b: c }"]
            {
                let refused = read(&entry(facts, spent));
                let Err(refused) = refused else { panic!("{facts} with {spent} is taken") };
                assert!(
                    refused.contains(":5") && refused.contains("enough for a secret"),
                    "{spent}: {refused}"
                );
            }
        }
        for with in ["namespace: prod", "namespace: prod, service_account: agent"] {
            let facts = format!("{with}, labels: {{ app: agent }}");
            assert!(read(&entry(&facts, ", secrets: [K]")).is_ok(), "{with}");
        }
        assert!(read(&entry("labels: { app: agent }", "")).is_ok(), "without a secret they may decide");
        // Other facts that whoever writes the pod chooses make it no better.
        let text = entry("labels: { app: agent }", ", secrets: [K]")
            .replace("match:\n", "match:\n      uid: 1000\n");
        assert!(read(&text).is_err());
    }

    #[test]
    fn names_that_no_cluster_has_are_refused_with_their_line() {
        for facts in [
            "namespace: Prod",
            "namespace: '*'",
            "namespace: ''",
            "namespace: a.b",
            "namespace: prod, service_account: 'a b'",
            "namespace: prod, labels: { 'a b': c }",
            "namespace: prod, labels: { a: 'c d' }",
            "namespace: prod, labels: { '-a': c }",
            "namespace: prod, name: x",
            "labels: {}",
        ] {
            let refused = read(&entry(facts, ""));
            assert!(refused.is_err_and(|error| error.contains(":5")), "{facts}");
        }
        assert_eq!(read(&entry("service_account: agent", "")).unwrap().warnings().len(), 1);
    }
}
