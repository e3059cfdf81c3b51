//! An agent's request gets its credential, and the record shows the kernel's facts about the caller.

use super::Engine;
use super::testbed::SECRET;
use crate::support::process::wait_until;

#[test]
fn agent_request_gets_credential_and_redacted_response() {
    let engine = Engine::new();
    let (service, agent) = (engine.start_service(), engine.start_agent());
    let answer = agent.curl(&["-i"], &engine.url("/echo")).ok();
    let received = engine.api.only_request();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");

    let record = service.audit().pop().unwrap();
    assert_eq!((&record["status"], &record["agent_id"]), (&"OK".into(), &"coder".into()), "{record}");
    assert_eq!(record["identity_level"], "kernel");
    let process = &record["process"];
    assert_eq!((&process["container"], &process["uid"]), (&agent.id.as_str().into(), &1000.into()));
    assert!(process["cgroup"].as_str().unwrap().ends_with(&format!(".slice/docker-{}.scope", agent.id)));
    // The service does not see the agent's processes, so it does not know their executables.
    assert_eq!((&process["exe"], &process["sha256"]), (&"".into(), &"".into()), "{record}");
    assert!(!service.errors().contains(SECRET));
}

#[test]
fn exe_match_fails_without_process_visibility() {
    let engine = Engine::new();
    let (_service, agent) = (engine.start_service(), engine.start_agent());
    let curl = std::fs::read("/usr/bin/curl").unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &curl);
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for (fact, holds) in [
        ("exe: /usr/bin/curl".to_owned(), false),
        ("exe: '/**'".to_owned(), false),
        (format!("sha256: {hash}"), false),
        ("session: true".to_owned(), false),
        ("uid: 1000".to_owned(), true),
        ("uid: 1001".to_owned(), false),
        (format!("container: {}", agent.id), true),
        (format!("container: '{}'", &agent.id[..12]), true),
        (format!("container: {}", "0".repeat(64)), false),
        (format!("cgroup: '/{}/*'", engine.compose.services["agent"].cgroup_parent), true),
    ] {
        // First the opposite policy is in force, so that the next result comes from this one.
        for (fact, expected) in [
            (if holds { "uid: 4242" } else { "uid: 1000" }, if holds { "403" } else { "200" }),
            (&*fact, if holds { "200" } else { "403" }),
        ] {
            engine.policy(&format!(
                "  - name: coder\n    match: {{ {fact} }}\n    allow:\n{}",
                engine.allow("secrets: [STRIPE_KEY]")
            ));
            wait_until(fact, || agent.status(&engine.url("/echo")) == expected);
        }
    }
}

#[test]
fn agent_in_shared_pid_namespace_is_matched_by_exe() {
    let engine = Engine::new();
    let mut service = engine.compose.services["agentsecrets"].clone();
    service.command.push("--processes".to_owned());
    service.cap_add.push("SYS_PTRACE".to_owned());
    let service = engine.start_service_unready(&service);
    service.wait_until_healthy();
    engine.policy(&format!(
        "  - name: curl\n    match: {{ exe: /usr/bin/curl }}\n    allow:\n{}",
        engine.allow("secrets: [STRIPE_KEY]")
    ));
    let agent = engine.start_agent_as(&engine.compose.services["agent"], Some(&service));
    wait_until("curl is known", || agent.status(&engine.url("/echo")) == "200");
    let record = service.audit().pop().unwrap();
    assert_eq!(record["process"]["exe"], "/usr/bin/curl", "{record}");
    assert_eq!(record["process"]["container"], agent.id.as_str());
    let script = "import urllib.request as u, ssl; \
        print(u.urlopen(u.Request('URL', headers={'Authorization': 'Bearer AS_SECRET_STRIPE_KEY'})).status)";
    let other = agent.exec(["/usr/bin/python3", "-c", &script.replace("URL", &engine.url("/echo"))]);
    assert!(other.stderr.contains("403"), "{other:?}");
}
