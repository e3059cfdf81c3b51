//! Two pods on one node, and what changes in their namespace while they run.

use std::collections::BTreeMap;

use super::{Driver, of_chart};
use crate::containers::site::SECRET;
use crate::support::process::until;

const OTHER: &str = "sk_test_9dPqR7sT2uVwX4yZ6aBcD8eF";

fn one(name: &str, text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), text.to_owned())])
}

/// Both have the same loopback addresses, and their agents call from the same port.
#[test]
fn two_pods_with_the_same_addresses_are_not_taken_for_one_another() {
    let pods = [of_chart(Driver::Systemd), of_chart(Driver::Systemd)];
    pods[1].write_files("agentsecrets-secrets", &one("STRIPE_KEY", OTHER), 0o444);
    // To both, either's server is allowed and within reach: what parts them is whose agent asks.
    let ports = pods.each_ref().map(|pod| pod.api.port());
    let policy = format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n        ports: {ports:?}\n        private: true\n        secrets: [STRIPE_KEY]\n"
    );
    let config = "stores:\n  - mounted: { path: /run/secrets }\n";
    for pod in &pods {
        let files = [("policy.yaml", policy.as_str()), ("config.yaml", config)];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
        pod.write_files("agentsecrets-policy", &BTreeMap::from(files), 0o644);
    }
    let sandboxes = pods.each_ref().map(|pod| pod.sandbox());
    let running = sandboxes.each_ref().map(|sandbox| sandbox.start());
    for ((pod, containers), value) in pods.iter().zip(&running).zip([SECRET, OTHER]) {
        for _ in 0..3 {
            containers[1].curl(&["--local-port", "40321"], &pod.url("/echo")).ok();
            let received = pod.api.received();
            assert_eq!(received.last().unwrap().header("authorization"), format!("Bearer {value}"));
        }
    }
    for (pod, containers) in pods.iter().zip(&running) {
        let records = containers[0].audit();
        assert_eq!(records.len(), 3);
        for record in records {
            assert_eq!(record["process"]["container"], containers[1].id.as_str());
            assert_eq!(record["process"]["pod"], pod.uid.as_str());
        }
    }
}

#[test]
fn a_config_map_and_a_secret_that_change_are_taken_up_without_a_restart() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    pod.write_files("agentsecrets-secrets", &one("STRIPE_KEY", OTHER), 0o444);
    until("the new value is spent", || {
        agent.curl(&[], &pod.url("/echo"));
        pod.api.received().last().unwrap().header("authorization") == format!("Bearer {OTHER}")
    });
    // Whoever remembers the old value says it now.
    let answer = agent.curl(&["-d", SECRET], &pod.url("/echo")).ok();
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
    let files = [("policy.yaml", "version: 1\nagents: []\n"), ("config.yaml", "{}")];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    pod.write_files("agentsecrets-policy", &BTreeMap::from(files), 0o644);
    until("the new policy is in force", || agent.status(&pod.url("/echo")) == "403");
    assert!(!sidecar.errors().contains(SECRET) && !sidecar.errors().contains(OTHER));
}
