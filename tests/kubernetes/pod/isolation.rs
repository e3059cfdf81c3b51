//! Two pods on one node, and changes in their namespace while they run.

use std::collections::BTreeMap;

use super::{Driver, chart_pod};
use crate::containers::testbed::SECRET;
use crate::support::process::wait_until;

const OTHER_SECRET: &str = "sk_test_9dPqR7sT2uVwX4yZ6aBcD8eF";

fn single_file(name: &str, text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), text.to_owned())])
}

/// Both have the same loopback addresses and use the same source port.
#[test]
fn pods_with_same_addresses_are_isolated() {
    let pods = [chart_pod(Driver::Systemd), chart_pod(Driver::Systemd)];
    pods[1].write_files("agentsecrets-secrets", &single_file("STRIPE_KEY", OTHER_SECRET), 0o444);
    // Each may reach both servers; only the caller's identity separates them.
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
    let sandboxes = pods.each_ref().map(|pod| pod.start_sandbox());
    let running = sandboxes.each_ref().map(|sandbox| sandbox.start());
    for ((pod, containers), value) in pods.iter().zip(&running).zip([SECRET, OTHER_SECRET]) {
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
fn config_map_and_secret_changes_are_reloaded() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
    assert_eq!(agent.status(&pod.url("/echo")), "200");
    pod.write_files("agentsecrets-secrets", &single_file("STRIPE_KEY", OTHER_SECRET), 0o444);
    wait_until("the new value is spent", || {
        agent.curl(&[], &pod.url("/echo"));
        pod.api.received().last().unwrap().header("authorization") == format!("Bearer {OTHER_SECRET}")
    });
    // The server now echoes the old value.
    let answer = agent.curl(&["-d", SECRET], &pod.url("/echo")).ok();
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
    let files = [("policy.yaml", "version: 1\nagents: []\n"), ("config.yaml", "{}")];
    let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
    pod.write_files("agentsecrets-policy", &BTreeMap::from(files), 0o644);
    wait_until("the new policy is in force", || agent.status(&pod.url("/echo")) == "403");
    assert!(!sidecar.errors().contains(SECRET) && !sidecar.errors().contains(OTHER_SECRET));
}
