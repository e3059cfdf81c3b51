//! An agent's call gets its credential, with what the chart grants and no less.

use serde_json::json;

use super::super::SERVES;
use super::{Driver, injected, of_chart};
use crate::containers::site::{IDLE, SECRET, assert_unprivileged};

#[test]
fn an_agents_call_gets_its_credential_under_either_driver_of_cgroups() {
    for driver in [Driver::Systemd, Driver::Cgroupfs] {
        let pod = of_chart(driver);
        let sandbox = pod.sandbox();
        let [sidecar, agent] = sandbox.start().try_into().ok().unwrap();
        let answer = agent.curl(&["-i"], &pod.url("/echo")).ok();
        assert_eq!(pod.api.only().header("authorization"), format!("Bearer {SECRET}"));
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
fn a_pod_that_the_webhook_changed_gets_its_credential_too() {
    let pod = injected(
        &json!({}),
        &json!({ "containers": [
            { "name": "one", "image": "agent", "command": IDLE },
            { "name": "two", "image": "agent", "command": IDLE, "securityContext": { "runAsUser": 2000 } },
        ] }),
    );
    let sandbox = pod.sandbox();
    let [sidecar, one, two] = sandbox.start().try_into().ok().unwrap();
    for agent in [&one, &two] {
        assert_eq!(agent.status(&pod.url("/echo")), "200");
        assert_eq!(pod.api.received().pop().unwrap().header("authorization"), format!("Bearer {SECRET}"));
    }
    let known = sidecar.audit();
    let known: Vec<_> = known.iter().map(|it| (&it["process"]["container"], &it["process"]["uid"])).collect();
    assert_eq!(known, [(&one.id.as_str().into(), &1000.into()), (&two.id.as_str().into(), &2000.into())]);
}

/// After its startup probe has passed, nothing of the sidecar has a privilege or is root.
#[test]
fn what_serves_is_nobody_with_nothing() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let processes = sandbox.sidecar().processes();
    assert!(processes.len() >= 2, "{processes:?}");
    for status in processes {
        assert_unprivileged(&status, SERVES);
    }
}

#[test]
fn the_sidecar_needs_each_capability_that_the_chart_gives_it() {
    let pod = of_chart(Driver::Systemd);
    let sandbox = pod.sandbox();
    let whole = pod.sidecar().clone();
    assert_eq!(whole.security_context.capabilities.add.len(), 5);
    for missing in &whole.security_context.capabilities.add {
        let mut wanted = whole.clone();
        wanted.security_context.capabilities.add.retain(|name| name != missing);
        let errors = sandbox.container(&wanted).end();
        let expected = match missing.as_str() {
            "BPF" | "NET_ADMIN" | "PERFMON" => "cannot intercept",
            _ => "cannot give up privileges",
        };
        assert!(errors.contains(expected), "{missing}: {errors}");
    }
    drop(sandbox.sidecar());
}
