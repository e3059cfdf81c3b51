//! Compiles `match: { pod: … }`. Whoever may create pods in a namespace chooses their labels, so labels alone
//! give no secret to anybody. The cluster assigns the namespace and the service account.

use std::collections::BTreeMap;

use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema;
use crate::policy::pod::PodMatcher;
use crate::types::name::SecretName;
use crate::types::printable::excerpt;

/// The limits of Kubernetes, in bytes. A label value has the limit of a namespace.
const MAX_NAMESPACE_LEN: usize = 63;
const MAX_NAME_LEN: usize = 253;

impl Diagnostics {
    /// The matcher of a `pod` entry.
    pub(super) fn pod(&mut self, spanned: &Spanned<schema::Pod>) -> PodMatcher {
        let schema::Pod { namespace, service_account, labels } = &spanned.value;
        let has_labels = labels.as_ref().is_some_and(|labels| !labels.value.is_empty());
        if namespace.is_none() && service_account.is_none() && !has_labels {
            self.error(spanned, "'pod' names nothing: give namespace, service_account or labels");
        }
        if let (None, Some(account)) = (namespace, service_account) {
            self.warn(account, "a service account is its namespace's: without 'namespace' one of that name in any namespace will do");
        }
        let mut parsed_labels = BTreeMap::new();
        for (label, value) in labels.iter().flat_map(|labels| &labels.value) {
            let name = self.check(value, parse_kubernetes_name(label, MAX_NAME_LEN, "label", "-._/"));
            let text = match value.value.as_str() {
                "" => Some(String::new()),
                text => {
                    self.check(value, parse_kubernetes_name(text, MAX_NAMESPACE_LEN, "label's value", "-._"))
                }
            };
            parsed_labels.extend(name.zip(text));
        }
        let lower = |text: &String, max_len, kind, others| {
            let plain = parse_kubernetes_name(text, max_len, kind, others)?;
            if plain.chars().any(|c| c.is_ascii_uppercase()) {
                Err(invalid_name(text, kind))
            } else {
                Ok(plain)
            }
        };
        PodMatcher {
            namespace: namespace
                .as_ref()
                .and_then(|text| self.check(text, lower(&text.value, MAX_NAMESPACE_LEN, "namespace", "-"))),
            service_account: service_account
                .as_ref()
                .and_then(|text| self.check(text, lower(&text.value, MAX_NAME_LEN, "service account", "-."))),
            labels: parsed_labels,
        }
    }

    /// Reports an entry that would give secrets to pods of any namespace.
    pub(super) fn require_namespace(&mut self, spanned: &Spanned<schema::Pod>, secrets: &[SecretName]) {
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

/// Parses a Kubernetes name: letters and digits, and between them `others`.
fn parse_kubernetes_name(text: &str, max_len: usize, kind: &str, others: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= max_len && text.chars().all(plain);
    if fits && ends(text.chars().next()) && ends(text.chars().last()) {
        Ok(text.to_owned())
    } else {
        Err(invalid_name(text, kind))
    }
}

fn invalid_name(text: &str, kind: &str) -> String {
    format!("'{}' is no {kind} of Kubernetes", excerpt(text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::identity::Caller;
    use crate::identity::pod::{CurrentPod, Pod};
    use crate::policy::rules::Policy;

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
    fn every_fact_must_hold_now() {
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
            assert!(policy.agent_for(&caller).is_err(), "{facts}: no known pod");
        }
        let known = Arc::new(CurrentPod::new(pod()));
        caller.attributes.pod = Some(known.clone());
        for (policy, facts, holds) in &policies {
            assert_eq!(policy.agent_for(&caller).is_ok(), *holds, "{facts}");
            assert_eq!(policy.agents_for_pod(&pod()).count(), usize::from(*holds), "{facts}");
        }
        let by_label = &policies[2].0;
        known.is(Some(Pod { labels: BTreeMap::new(), ..pod() }));
        assert!(by_label.agent_for(&caller).is_err() && policies[0].0.agent_for(&caller).is_ok());
        known.is(None);
        assert!(policies[0].0.agent_for(&caller).is_err());
    }

    #[test]
    fn secrets_need_a_namespace() {
        for spent in [
            ", secrets: [K]",
            ", inject: { bearer: K }",
            ", sign: { hmac: { key: K, header: X-S, message: x } }",
        ] {
            for facts in
                ["labels: { app: agent }", "service_account: agent", "service_account: a, labels: { b: c }"]
            {
                let refused = read(&entry(facts, spent));
                let Err(error) = refused else { panic!("{facts} with {spent} is taken") };
                assert!(error.contains(":5") && error.contains("enough for a secret"), "{spent}: {error}");
            }
        }
        for with in ["namespace: prod", "namespace: prod, service_account: agent"] {
            let facts = format!("{with}, labels: {{ app: agent }}");
            assert!(read(&entry(&facts, ", secrets: [K]")).is_ok(), "{with}");
        }
        assert!(read(&entry("labels: { app: agent }", "")).is_ok(), "no secret");
        // Other facts that the pod's author chooses do not help.
        let text = entry("labels: { app: agent }", ", secrets: [K]")
            .replace("match:\n", "match:\n      uid: 1000\n");
        assert!(read(&text).is_err());
    }

    #[test]
    fn invalid_names_are_refused_with_their_line() {
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
