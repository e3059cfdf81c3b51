//! Approving and denying pending requests, and requests that are abandoned or withdrawn.

use super::*;
use crate::end_to_end::SECRET;
use crate::support::process::wait_until;

#[test]
fn approved_request_is_sent_once() {
    let fixture = fixture_with_approval("30s", "");
    let mut person_sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::start(&fixture);
    agent.send(&format!("-d amount=100 '{}'", fixture.url("/v1/charges?card=4242&bare")));
    let question = person_sees.next();
    assert_eq!(question["method"], "POST");
    assert_eq!(question["url"], fixture.url("/v1/charges?card=4242&bare"));
    assert_eq!((&question["body"], &question["body_bytes"]), (&"amount=100".into(), &10.into()));
    assert_eq!(question["secrets"][0]["name"], "API_KEY");
    assert!(question["program"]["exe"].as_str().unwrap().ends_with("curl"), "{question}");
    assert!(question["program"]["cgroup"].as_str().unwrap().contains("agentsecrets"), "{question}");
    let id = question["id"].as_str().unwrap();
    let shown = operator(&fixture.home, &["approvals"]).ok();
    assert!(shown.contains(id) && shown.contains("card=…&…") && !shown.contains("4242"), "{shown}");
    let folder = fixture.home.path().join("approvals");
    for file in folder.read_dir().unwrap() {
        let file = file.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{file:?}");
        assert!(!String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).contains(SECRET));
    }
    assert!(fixture.api.received().is_empty(), "it left before anybody said so");
    assert!(operator(&fixture.home, &["approve", &id[..4]]).ok().contains("approved once: POST"));
    assert_eq!(agent.response().0, 200);
    let received = fixture.api.only_request();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!((&*received.body, &*received.path), ("amount=100", "/v1/charges?card=4242&bare"));
    assert!(pending_approvals(&fixture.home).is_empty());
    let record = &fixture.home.audit()[0];
    let note = record["notes"][0].as_str().unwrap();
    assert!(note.starts_with("approved once by uid 0 (process ") && note.contains(id), "{record}");
    assert_eq!(record["status"], "OK");
    let acts = operator(&fixture.home, &["audit", "list", "--admin", "--json"]).ok();
    let act: Value = serde_json::from_str(acts.lines().last().unwrap()).unwrap();
    assert_eq!((&act["method"], &act["secret_keys"][0]), (&"approve".into(), &"API_KEY".into()));
    let note = act["notes"][0].as_str().unwrap();
    assert!(
        note.contains(id) && note.contains("uid 0") && note.contains(question["digest"].as_str().unwrap())
    );
    assert!(!acts.contains("4242"), "{acts}");
}

#[test]
fn denied_request_is_refused_for_once_or_the_session() {
    let fixture = fixture_with_approval("30s", "");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::start(&fixture);
    for words in [&["deny"][..], &["deny", "--session"]] {
        agent.send(&fixture.url("/pay"));
        let id = sees.next_id();
        operator(&fixture.home, &[words, &[&id]].concat()).ok();
        let (status, body) = agent.response();
        let rejection: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &rejection["error"]), (403, &"policy_approval_denied".into()), "{rejection}");
        assert!(rejection["message"].as_str().unwrap().contains(&id));
    }
    let (_, rejection) = agent.rejected(&fixture.url("/pay?again"));
    assert_eq!(rejection["error"], "policy_approval_denied", "nobody is asked again");
    assert!(fixture.api.received().is_empty());
    let notes = fixture.home.audit()[0]["notes"].to_string();
    assert!(notes.contains("denied by uid 0"), "{notes}");
}

#[test]
fn late_approval_applies_to_the_repeated_request_once() {
    let fixture = fixture_with_approval("1s", "");
    let mut agent = RequestingAgent::start(&fixture);
    let ask = format!("-d amount=100 {}", fixture.url("/pay"));
    let (status, rejection) = agent.rejected(&ask);
    assert_eq!((status, &rejection["error"]), (403, &"policy_approval_required".into()));
    let id = approval_id(&rejection);
    // A repeated request keeps the id of the pending one.
    assert_eq!(approval_id(&agent.rejected(&ask).1), id);
    let shown = operator(&fixture.home, &["approvals"]).ok();
    assert!(shown.contains("timed out"), "{shown}");
    operator(&fixture.home, &["approve", &id]).ok();
    let again = operator(&fixture.home, &["approve", &id]);
    assert_eq!(again.code, Some(3), "{again:?}");
    agent.send(&ask);
    assert_eq!(agent.response().0, 200);
    let (_, rejection) = agent.rejected(&ask);
    assert_ne!(approval_id(&rejection), id, "once is once");
    assert_eq!(fixture.api.received().len(), 1);
}

#[test]
fn session_approval_covers_matching_requests_only() {
    let fixture = fixture_with_approval("1s", "paths: [\"/pay/*\", \"/**\"]");
    let mut agent = RequestingAgent::start(&fixture);
    let id = approval_id(&agent.rejected(&format!("-d one {}", fixture.url("/pay/1"))).1);
    let output = operator(&fixture.home, &["approve", "--session", &id]).ok();
    assert!(output.contains("/pay/*") && output.contains("API_KEY"), "{output}");
    for ask in
        [format!("-d one {}", fixture.url("/pay/1")), format!("-d two '{}'", fixture.url("/pay/2?x=y"))]
    {
        agent.send(&ask);
        assert_eq!(agent.response().0, 200, "{ask}");
    }
    for other in [
        format!("-d one {}", fixture.url("/else")),
        fixture.url("/pay/1"),
        format!("-H 'X-Api-Key: AS_SECRET_API_KEY' -d one {}", fixture.url("/pay/1")),
    ] {
        assert_eq!(agent.rejected(&other).0, 403, "{other}");
    }
    let mut another = RequestingAgent::start(&fixture);
    assert_eq!(another.rejected(&format!("-d one {}", fixture.url("/pay/1"))).0, 403, "another session");
    assert_eq!(fixture.api.received().len(), 2);
}

#[test]
fn always_approval_adds_a_rule_to_the_policy() {
    let fixture = fixture_with_approval("1s", "# what a person wrote\nplaces: [auth]");
    let mut agent = RequestingAgent::start(&fixture);
    let before = std::fs::read_to_string(fixture.home.path().join("policy.yaml")).unwrap();
    let id = approval_id(&agent.rejected(&fixture.url("/pay")).1);
    operator(&fixture.home, &["approve", "--always", &id]).ok();
    let after = std::fs::read_to_string(fixture.home.path().join("policy.yaml")).unwrap();
    let added: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert_eq!(added.len(), 1, "{after}");
    assert!(added[0].contains("\"/pay\"") && !added[0].contains("approve:"), "{added:?}");
    assert!(before.lines().all(|line| after.contains(line)));
    operator(&fixture.home, &["policy", "check"]).ok();
    for _ in 0..2 {
        agent.send(&fixture.url("/pay"));
        assert_eq!(agent.response().0, 200);
    }
    assert_eq!(agent.rejected(&fixture.url("/pay/more")).0, 403);
    assert_eq!(agent.rejected(&format!("-X PUT {}", fixture.url("/pay"))).0, 403);
}

#[test]
fn approval_flood_is_refused_and_withdrawn() {
    let fixture = fixture_with_approval("60s", "");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let script = format!(
        "echo ready; for i in $(seq 20); do curl -sS -o /dev/null -w '%{{http_code}}\\n' {}/$i & done; wait; echo end",
        fixture.url("")
    );
    let mut agent = RequestingAgent::start_program(fixture.home.run_agent(["sh", "-c", &script]));
    for _ in 0..4 {
        let mut line = String::new();
        agent.output.read_line(&mut line).unwrap();
        assert_eq!(line, "403\n");
    }
    let ids: std::collections::BTreeSet<String> = (0..16).map(|_| sees.next_id()).collect();
    assert_eq!(ids.len(), 16);
    assert_eq!(pending_approvals(&fixture.home).len(), 16);
    // The operator stops the agent.
    let pid = nix::unistd::Pid::from_raw(agent.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.child.wait().unwrap();
    assert!(pending_approvals(&fixture.home).is_empty());
    let left = fixture.home.path().join("approvals").read_dir().unwrap().count();
    assert_eq!(left, 0, "files are left");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn abandoned_request_is_withdrawn() {
    let fixture = fixture_with_approval("60s", "");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::start(&fixture);
    agent.send(&format!("--max-time 2 {}", fixture.url("/pay")));
    let id = sees.next_id();
    assert_eq!(agent.response().0, 0);
    wait_until("it is withdrawn", || pending_approvals(&fixture.home).is_empty());
    assert_eq!(operator(&fixture.home, &["approve", &id]).code, Some(3));
    assert_eq!(fixture.home.audit()[0]["status"], "ABORTED");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn approval_does_not_override_a_changed_policy() {
    let fixture = Fixture::new();
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::with_pending_request(&fixture);
    let id = sees.next_id();
    assert_eq!(agent.request_free_path(), "200");
    fixture.rule("secrets: [API_KEY]\nmethods: [DELETE]");
    wait_until("the new policy is in force", || agent.request_free_path() != "200");
    operator(&fixture.home, &["approve", &id]).ok();
    assert_eq!(agent.read_line(), "403");
    let record =
        fixture.home.audit().into_iter().find(|record| record["target_url"] == fixture.url("/pay")).unwrap();
    assert_eq!(record["reason"], "policy_denied");
    assert!(fixture.api.received().iter().all(|request| request.path == "/other"));
}

#[test]
fn ambiguous_approval_id_is_refused() {
    let fixture = fixture_with_approval("30s", "");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::start(&fixture);
    agent.send(&fixture.url("/pay"));
    let id = sees.next_id();
    // A second approval with a longer id, in the form that the serving process writes.
    let folder = fixture.home.path().join("approvals");
    let text = std::fs::read_to_string(folder.join(&id).with_extension("json")).unwrap();
    let twin = folder.join(format!("{id}x")).with_extension("json");
    std::fs::write(&twin, text.replace(&format!("\"{id}\""), &format!("\"{id}x\""))).unwrap();
    std::fs::set_permissions(&twin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let outcome = operator(&fixture.home, &["approve", &id]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(operator(&fixture.home, &["deny", "nothere"]).code, Some(3));
    std::fs::remove_file(twin).unwrap();
    operator(&fixture.home, &["deny", &id]).ok();
    assert_eq!(agent.response().0, 403);
}

#[test]
fn explicit_proxy_holds_requests() {
    let fixture = fixture_with_approval("30s", "");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let proxy = crate::proxy::Proxy::start(&fixture);
    let mut curl = proxy.client("/usr/bin/curl");
    curl.args(["-sS", "-w", "%{http_code}", "-H", "Authorization: Bearer AS_SECRET_API_KEY", "-d", "x"]);
    let child = curl.arg(fixture.url("/echo")).stdout(Stdio::piped()).spawn().unwrap();
    let question = sees.next();
    assert_eq!(question["body"], "x");
    operator(&fixture.home, &["approve", question["id"].as_str().unwrap()]).ok();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("200"), "{output:?}");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn agent_call_waits_for_approval() {
    let fixture = fixture_with_approval("30s", "");
    let copy = crate::operator_commands::AgentExecutable::new();
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let (program, url) = (copy.path(), fixture.url("/echo"));
    let mut call = fixture.home.run_agent([program, "call", "--url", &url, "--bearer", "API_KEY"]);
    let child = call.stdout(Stdio::piped()).spawn().unwrap();
    let id = sees.next_id();
    operator(&fixture.home, &["approve", &id]).ok();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP 200"), "{output:?}");
}
