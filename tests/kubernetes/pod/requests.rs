//! An agent's request gets its credential with the chart's privileges and no less.

use serde_json::json;

use super::super::SERVICE_UID;
use super::{Driver, chart_pod, injected_pod};
use crate::containers::testbed::{IDLE_COMMAND, SECRET, assert_unprivileged};

#[test]
fn request_gets_credential_under_both_cgroup_drivers() {
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let pod = chart_pod(driver);
        let sandbox = pod.start_sandbox();
        let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
        let answer = agent.curl(&["-i"], &pod.url("/echo")).ok();
        assert_eq!(pod.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
        assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
        assert_eq!(agent.exec(["/bin/sh", "-c", "echo $STRIPE_KEY"]).ok(), "AS_SECRET_STRIPE_KEY\n");

        let record = sidecar.audit().pop().unwrap();
        assert_eq!((&record["status"], &record["agent_id"]), (&"OK".into(), &"coder".into()), "{record}");
        assert_eq!(record["identity_level"], "kernel");
        let process = &record["process"];
        assert_eq!((&process["container"], &process["uid"]), (&agent.id.as_str().into(), &1000.into()));
        assert_eq!(process["pod"], pod.uid.as_str(), "{record}");
        assert!(process["cgroup"].as_str().unwrap().starts_with(&format!("{}/", pod.cgroup)), "{record}");
        assert!(!sidecar.errors().contains(SECRET));
    }
}

#[test]
fn injected_pod_gets_credential() {
    let pod = injected_pod(
        &json!({}),
        &json!({ "containers": [
            { "name": "one", "image": "agent", "command": IDLE_COMMAND },
            { "name": "two", "image": "agent", "command": IDLE_COMMAND, "securityContext": { "runAsUser": 2000 } },
        ] }),
    );
    let sandbox = pod.start_sandbox();
    let [sidecar, one, two] = sandbox.start().try_into().ok().unwrap();
    for agent in [&one, &two] {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        assert_eq!(pod.api.received().pop().unwrap().header("authorization"), format!("Bearer {SECRET}"));
    }
    let known = sidecar.audit();
    let known: Vec<_> = known.iter().map(|it| (&it["process"]["container"], &it["process"]["uid"])).collect();
    assert_eq!(known, [(&one.id.as_str().into(), &1000.into()), (&two.id.as_str().into(), &2000.into())]);
}

/// After its startup probe has passed, no process of the sidecar has privileges or is root.
#[test]
fn serving_process_is_unprivileged() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let processes = sandbox.sidecar().processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for status in processes {
        assert_unprivileged(&status, SERVICE_UID);
    }
}

#[test]
fn sidecar_needs_each_granted_capability() {
    let pod = chart_pod(Driver::Systemd);
    let sandbox = pod.start_sandbox();
    let whole = pod.sidecar().clone();
    assert_eq!(whole.security_context.capabilities.add.len(), 5);
    for missing in &whole.security_context.capabilities.add {
        let mut reduced = whole.clone();
        reduced.security_context.capabilities.add.retain(|name| name != missing);
        let errors = sandbox.container(&reduced).wait_for_failure();
        let expected = match missing.as_str() {
            "BPF" | "NET_ADMIN" | "PERFMON" => "cannot intercept",
            _ => "cannot give up privileges",
        };
        assert!(errors.contains(expected), "{missing}: {errors}");
    }
    drop(sandbox.sidecar());
}
