//! `agentsecrets whoami` shows a program its own identity facts, and nothing else.

use std::fs;

use serde_json::Value;

use super::TrustFixture;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{run, wait_until};

/// The output lines of `whoami --json` in a run of `script`, in which `$who` is the program.
fn whoami(fixture: &TrustFixture, agent: Option<&str>, script: &str) -> Vec<Value> {
    let program = fixture.path_text("agentsecrets");
    fs::copy(AGENTSECRETS, &program).unwrap();
    let script = format!("who='{program} --json whoami'; {}", fixture.script(script));
    let mut words = vec!["run"];
    words.extend(agent.iter().flat_map(|agent| ["--agent", agent]));
    words.extend(["--", "bash", "-c", &script]);
    let printed = run(&mut fixture.base.home.agentsecrets(words)).ok();
    let values = serde_json::Deserializer::from_str(&printed).into_iter();
    values.map(|value| value.unwrap()).collect()
}

#[test]
fn whoami_inside_run_shows_own_facts_only() {
    let fixture = TrustFixture::new();
    let bash = fs::canonicalize("/usr/bin/bash").unwrap();
    let bash = bash.to_str().unwrap();
    fixture.base.home.write_policy(
        "version: 1
agents:
  - name: hidden
    match: { exe: /usr/bin/hidden }
    allow: [ { host: hidden.test, secrets: [HIDDEN_KEY] } ]
  - name: coder
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    fixture.trust(&["add", bash, "--session"]).ok();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "HIDDEN_KEY"]).ok();
    let told = whoami(&fixture, None, "$who; bash -c \"$who; :\"; $who --pid $$; $who --pid 1");
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
fn whoami_names_missing_fact() {
    let fixture = TrustFixture::new();
    fixture.base.home.write_policy(
        "version: 1
agents:
  - name: deployer
    match: { trusted: true }
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    let before = whoami(&fixture, Some("deployer"), "$who; :").remove(0);
    assert_eq!((&before["trusted"], &before["agent"]), (&false.into(), &Value::Null));
    assert!(before["no_agent"].as_str().unwrap().contains("'match.trusted'"), "{before}");
    assert!(before["trust"].as_str().unwrap().contains("no pin"), "{before}");
    fixture.trust(&["add", "bash"]).ok();
    let unbound = whoami(&fixture, Some("deployer"), "$who; :").remove(0);
    assert!(unbound["trust"].as_str().unwrap().contains("it is an interpreter (bash)"), "{unbound}");
    fixture.trust(&["add", "bash", "--session"]).ok();
    let after = whoami(&fixture, Some("deployer"), "$who; :").remove(0);
    assert_eq!((&after["trusted"], &after["agent"]), (&true.into(), &"deployer".into()), "{after}");
}

#[test]
fn whoami_outside_run_shows_parent_only() {
    let fixture = TrustFixture::new();
    let known = run(&mut fixture.base.home.agentsecrets(["whoami", "--json"])).json();
    assert_eq!(known["pid"], std::process::id(), "the test started it: {known}");
    assert_eq!((&known["agent"], &known["session"]), (&"coder".into(), &Value::Null));
    let text = run(&mut fixture.base.home.agentsecrets(["whoami"])).ok();
    assert!(text.contains("trusted") && text.contains("no: there is no pin for its path"), "{text}");
    let mut other = crate::support::process::command("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "sleep", "60"])
        .spawn()
        .unwrap();
    let pid = other.id().to_string();
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    wait_until("it is another user's", || !status().contains("Uid:\t0"));
    let refused = run(&mut fixture.base.home.agentsecrets(["whoami", "--pid", &pid]));
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(run(&mut fixture.base.home.agentsecrets(["whoami", "--pid", &pid])).code, Some(3));
}
