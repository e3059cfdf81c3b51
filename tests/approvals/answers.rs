//! A person's answers, and what becomes of what waits for one.

use super::*;
use crate::spine::SECRET;
use crate::support::process::until;

#[test]
fn a_held_request_is_seen_and_leaves_once_a_person_approves_it() {
    let world = holding("30s", "");
    let mut person_sees = Watching::at(&world.home);
    let mut agent = Asking::of(&world);
    agent.ask(&format!("-d amount=100 '{}'", world.url("/v1/charges?card=4242&bare")));
    let question = person_sees.next();
    assert_eq!(question["method"], "POST");
    assert_eq!(question["url"], world.url("/v1/charges?card=4242&bare"));
    assert_eq!((&question["body"], &question["body_bytes"]), (&"amount=100".into(), &10.into()));
    assert_eq!(question["secrets"][0]["name"], "API_KEY");
    assert!(question["program"]["exe"].as_str().unwrap().ends_with("curl"), "{question}");
    assert!(question["program"]["cgroup"].as_str().unwrap().contains("agentsecrets"), "{question}");
    let id = question["id"].as_str().unwrap();
    let shown = person(&world.home, &["approvals"]).ok();
    assert!(shown.contains(id) && shown.contains("card=…&…") && !shown.contains("4242"), "{shown}");
    let folder = world.home.path().join("approvals");
    for file in folder.read_dir().unwrap() {
        let file = file.unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{file:?}");
        assert!(!String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).contains(SECRET));
    }
    assert!(world.api.received().is_empty(), "it left before anybody said so");
    assert!(person(&world.home, &["approve", &id[..4]]).ok().contains("approved once: POST"));
    assert_eq!(agent.told().0, 200);
    let received = world.api.only();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!((&*received.body, &*received.path), ("amount=100", "/v1/charges?card=4242&bare"));
    assert!(waiting(&world.home).is_empty());
    let record = &world.home.audit()[0];
    let note = record["notes"][0].as_str().unwrap();
    assert!(note.starts_with("approved once by uid 0 (process ") && note.contains(id), "{record}");
    assert_eq!(record["status"], "OK");
    let acts = person(&world.home, &["audit", "list", "--admin", "--json"]).ok();
    let act: Value = serde_json::from_str(acts.lines().last().unwrap()).unwrap();
    assert_eq!((&act["method"], &act["secret_keys"][0]), (&"approve".into(), &"API_KEY".into()));
    let note = act["notes"][0].as_str().unwrap();
    assert!(
        note.contains(id) && note.contains("uid 0") && note.contains(question["digest"].as_str().unwrap())
    );
    assert!(!acts.contains("4242"), "{acts}");
}

#[test]
fn a_denied_request_is_refused_and_a_denial_may_stand_for_the_session() {
    let world = holding("30s", "");
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::of(&world);
    for words in [&["deny"][..], &["deny", "--session"]] {
        agent.ask(&world.url("/pay"));
        let id = sees.next_id();
        person(&world.home, &[words, &[&id]].concat()).ok();
        let (status, body) = agent.told();
        let refusal: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &refusal["error"]), (403, &"policy_approval_denied".into()), "{refusal}");
        assert!(refusal["message"].as_str().unwrap().contains(&id));
    }
    let (_, refusal) = agent.refused(&world.url("/pay?again"));
    assert_eq!(refusal["error"], "policy_approval_denied", "nobody is asked again");
    assert!(world.api.received().is_empty());
    let notes = world.home.audit()[0]["notes"].to_string();
    assert!(notes.contains("denied by uid 0"), "{notes}");
}

#[test]
fn an_approval_that_comes_late_lets_the_same_request_pass_once_when_it_comes_again() {
    let world = holding("1s", "");
    let mut agent = Asking::of(&world);
    let ask = format!("-d amount=100 {}", world.url("/pay"));
    let (status, refusal) = agent.refused(&ask);
    assert_eq!((status, &refusal["error"]), (403, &"policy_approval_required".into()));
    let id = id_in(&refusal);
    // Asked again meanwhile, it is the same question.
    assert_eq!(id_in(&agent.refused(&ask).1), id);
    let shown = person(&world.home, &["approvals"]).ok();
    assert!(shown.contains("come again"), "{shown}");
    person(&world.home, &["approve", &id]).ok();
    let again = person(&world.home, &["approve", &id]);
    assert_eq!(again.code, Some(3), "{again:?}");
    agent.ask(&ask);
    assert_eq!(agent.told().0, 200);
    let (_, refusal) = agent.refused(&ask);
    assert_ne!(id_in(&refusal), id, "once is once");
    assert_eq!(world.api.received().len(), 1);
}

#[test]
fn an_approval_for_the_session_covers_what_is_the_same_and_nothing_else() {
    let world = holding("1s", "paths: [\"/pay/*\", \"/**\"]");
    let mut agent = Asking::of(&world);
    let id = id_in(&agent.refused(&format!("-d one {}", world.url("/pay/1"))).1);
    let said = person(&world.home, &["approve", "--session", &id]).ok();
    assert!(said.contains("/pay/*") && said.contains("API_KEY"), "{said}");
    for ask in [format!("-d one {}", world.url("/pay/1")), format!("-d two '{}'", world.url("/pay/2?x=y"))] {
        agent.ask(&ask);
        assert_eq!(agent.told().0, 200, "{ask}");
    }
    for other in [
        format!("-d one {}", world.url("/else")),
        world.url("/pay/1"),
        format!("-H 'X-Api-Key: AS_SECRET_API_KEY' -d one {}", world.url("/pay/1")),
    ] {
        assert_eq!(agent.refused(&other).0, 403, "{other}");
    }
    let mut another = Asking::of(&world);
    assert_eq!(another.refused(&format!("-d one {}", world.url("/pay/1"))).0, 403, "another session");
    assert_eq!(world.api.received().len(), 2);
}

#[test]
fn always_writes_a_rule_before_the_one_that_holds() {
    let world = holding("1s", "# what a person wrote\nplaces: [auth]");
    let mut agent = Asking::of(&world);
    let before = std::fs::read_to_string(world.home.path().join("policy.yaml")).unwrap();
    let id = id_in(&agent.refused(&world.url("/pay")).1);
    person(&world.home, &["approve", "--always", &id]).ok();
    let after = std::fs::read_to_string(world.home.path().join("policy.yaml")).unwrap();
    let added: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert_eq!(added.len(), 1, "{after}");
    assert!(added[0].contains("\"/pay\"") && !added[0].contains("approve:"), "{added:?}");
    assert!(before.lines().all(|line| after.contains(line)));
    person(&world.home, &["policy", "check"]).ok();
    for _ in 0..2 {
        agent.ask(&world.url("/pay"));
        assert_eq!(agent.told().0, 200);
    }
    assert_eq!(agent.refused(&world.url("/pay/more")).0, 403);
    assert_eq!(agent.refused(&format!("-X PUT {}", world.url("/pay"))).0, 403);
}

#[test]
fn a_flood_is_refused_at_once_and_withdrawn_when_nobody_waits_any_longer() {
    let world = holding("60s", "");
    let mut sees = Watching::at(&world.home);
    let script = format!(
        "echo ready; for i in $(seq 20); do curl -sS -o /dev/null -w '%{{http_code}}\\n' {}/$i & done; wait; echo end",
        world.url("")
    );
    let mut agent = Asking::as_program(world.home.run_agent(["sh", "-c", &script]));
    for _ in 0..4 {
        let mut line = String::new();
        agent.says.read_line(&mut line).unwrap();
        assert_eq!(line, "403\n");
    }
    let ids: std::collections::BTreeSet<String> = (0..16).map(|_| sees.next_id()).collect();
    assert_eq!(ids.len(), 16);
    assert_eq!(waiting(&world.home).len(), 16);
    // The person stops the agent.
    let pid = nix::unistd::Pid::from_raw(agent.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    agent.child.wait().unwrap();
    assert!(waiting(&world.home).is_empty());
    let left = world.home.path().join("approvals").read_dir().unwrap().count();
    assert_eq!(left, 0, "files are left");
    assert!(world.api.received().is_empty());
}

#[test]
fn what_nobody_waits_for_any_longer_is_withdrawn() {
    let world = holding("60s", "");
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::of(&world);
    agent.ask(&format!("--max-time 2 {}", world.url("/pay")));
    let id = sees.next_id();
    assert_eq!(agent.told().0, 0);
    until("it is withdrawn", || waiting(&world.home).is_empty());
    assert_eq!(person(&world.home, &["approve", &id]).code, Some(3));
    assert_eq!(world.home.audit()[0]["status"], "ABORTED");
    assert!(world.api.received().is_empty());
}

#[test]
fn what_the_policy_takes_away_meanwhile_stays_away() {
    let world = World::new();
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::beside(&world);
    let id = sees.next_id();
    assert_eq!(agent.other(), "200");
    world.rule("secrets: [API_KEY]\nmethods: [DELETE]");
    until("the new policy is in force", || agent.other() != "200");
    person(&world.home, &["approve", &id]).ok();
    assert_eq!(agent.line(), "403");
    let record =
        world.home.audit().into_iter().find(|record| record["target_url"] == world.url("/pay")).unwrap();
    assert_eq!(record["reason"], "policy_denied");
    assert!(world.api.received().iter().all(|request| request.path == "/other"));
}

#[test]
fn an_id_that_begins_like_two_is_refused() {
    let world = holding("30s", "");
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::of(&world);
    agent.ask(&world.url("/pay"));
    let id = sees.next_id();
    // A second one whose id is longer, as the serving process would write it.
    let folder = world.home.path().join("approvals");
    let text = std::fs::read_to_string(folder.join(&id).with_extension("json")).unwrap();
    let twin = folder.join(format!("{id}x")).with_extension("json");
    std::fs::write(&twin, text.replace(&format!("\"{id}\""), &format!("\"{id}x\""))).unwrap();
    std::fs::set_permissions(&twin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let outcome = person(&world.home, &["approve", &id]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(person(&world.home, &["deny", "nothere"]).code, Some(3));
    std::fs::remove_file(twin).unwrap();
    person(&world.home, &["deny", &id]).ok();
    assert_eq!(agent.told().0, 403);
}

#[test]
fn at_the_explicit_proxy_requests_are_held_too() {
    let world = holding("30s", "");
    let mut sees = Watching::at(&world.home);
    let proxy = crate::proxy::Proxy::of(&world);
    let mut curl = proxy.client("/usr/bin/curl");
    curl.args(["-sS", "-w", "%{http_code}", "-H", "Authorization: Bearer AS_SECRET_API_KEY", "-d", "x"]);
    let child = curl.arg(world.url("/echo")).stdout(Stdio::piped()).spawn().unwrap();
    let question = sees.next();
    assert_eq!(question["body"], "x");
    person(&world.home, &["approve", question["id"].as_str().unwrap()]).ok();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("200"), "{output:?}");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn a_call_of_an_agent_waits_like_any_request_of_its() {
    let world = holding("30s", "");
    let copy = crate::person::AgentsCopy::new();
    let mut sees = Watching::at(&world.home);
    let (program, url) = (copy.path(), world.url("/echo"));
    let mut call = world.home.run_agent([program, "call", "--url", &url, "--bearer", "API_KEY"]);
    let child = call.stdout(Stdio::piped()).spawn().unwrap();
    let id = sees.next_id();
    person(&world.home, &["approve", &id]).ok();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP 200"), "{output:?}");
}
