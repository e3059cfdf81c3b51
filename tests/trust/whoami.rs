//! `agentsecrets whoami`: a program is shown what is known of it, and nothing else.

use std::fs;

use serde_json::Value;

use super::Arena;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{finish, until};

/// What `whoami --json` prints in a run of `script`, in which `$who` is the program; once a line.
fn told(arena: &Arena, agent: Option<&str>, script: &str) -> Vec<Value> {
    let program = arena.at("agentsecrets");
    fs::copy(AGENTSECRETS, &program).unwrap();
    let script = format!("who='{program} --json whoami'; {}", arena.script(script));
    let mut words = vec!["run"];
    words.extend(agent.iter().flat_map(|agent| ["--agent", agent]));
    words.extend(["--", "bash", "-c", &script]);
    let printed = finish(&mut arena.world.home.agentsecrets(words)).ok();
    let values = serde_json::Deserializer::from_str(&printed).into_iter();
    values.map(|value| value.unwrap()).collect()
}

#[test]
fn inside_a_run_a_program_learns_what_the_kernel_says_of_it_and_nothing_of_others() {
    let arena = Arena::new();
    let bash = fs::canonicalize("/usr/bin/bash").unwrap();
    let bash = bash.to_str().unwrap();
    arena.world.home.policy(
        "version: 1
agents:
  - name: hidden
    match: { exe: /usr/bin/hidden }
    allow: [ { host: hidden.test, secrets: [HIDDEN_KEY] } ]
  - name: coder
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    arena.trust(&["add", bash, "--session"]).ok();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "HIDDEN_KEY"]).ok();
    let told = told(&arena, None, "$who; bash -c \"$who; :\"; $who --pid $$; $who --pid 1");
    let (first, nested, named) = (&told[0], &told[1], &told[2]);
    for known in &told[..3] {
        assert_eq!((&known["exe"], &known["uid"]), (&bash.into(), &65534.into()), "{known}");
        assert_eq!((&known["agent"], &known["trusted"]), (&"coder".into(), &true.into()), "{known}");
        assert!(known["session"].is_string() && known["sha256"].as_str().unwrap().len() == 64, "{known}");
        assert!(!known.to_string().to_lowercase().contains("hidden"), "{known}");
    }
    assert_eq!(first["pid"], named["pid"]);
    let above: Vec<&Value> = nested["ancestry"].as_array().unwrap().iter().collect();
    assert_eq!(above[0]["pid"], first["pid"], "{nested}");
    assert_eq!(above.len(), 2, "the shell and the first process of the run, and nobody outside: {nested}");
}

#[test]
fn the_fact_that_is_missing_is_named() {
    let arena = Arena::new();
    arena.world.home.policy(
        "version: 1
agents:
  - name: deployer
    match: { trusted: true }
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    let before = told(&arena, Some("deployer"), "$who; :").remove(0);
    assert_eq!((&before["trusted"], &before["agent"]), (&false.into(), &Value::Null));
    assert!(before["no_agent"].as_str().unwrap().contains("'match.trusted'"), "{before}");
    assert!(before["trust"].as_str().unwrap().contains("no pin"), "{before}");
    arena.trust(&["add", "bash"]).ok();
    let unbound = told(&arena, Some("deployer"), "$who; :").remove(0);
    assert!(unbound["trust"].as_str().unwrap().contains("it is an interpreter (bash)"), "{unbound}");
    arena.trust(&["add", "bash", "--session"]).ok();
    let after = told(&arena, Some("deployer"), "$who; :").remove(0);
    assert_eq!((&after["trusted"], &after["agent"]), (&true.into(), &"deployer".into()), "{after}");
}

#[test]
fn outside_it_speaks_of_its_parent_and_of_no_other_users_process() {
    let arena = Arena::new();
    let known = finish(&mut arena.world.home.agentsecrets(["whoami", "--json"])).json();
    assert_eq!(known["pid"], std::process::id(), "the test started it: {known}");
    assert_eq!((&known["agent"], &known["session"]), (&"coder".into(), &Value::Null));
    let text = finish(&mut arena.world.home.agentsecrets(["whoami"])).ok();
    assert!(text.contains("trusted") && text.contains("no: there is no pin for its path"), "{text}");
    let mut other = crate::support::process::command("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "sleep", "60"])
        .spawn()
        .unwrap();
    let pid = other.id().to_string();
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    until("it is another user's", || !status().contains("Uid:\t0"));
    let refused = finish(&mut arena.world.home.agentsecrets(["whoami", "--pid", &pid]));
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(finish(&mut arena.world.home.agentsecrets(["whoami", "--pid", &pid])).code, Some(3));
}
