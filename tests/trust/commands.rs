//! `agentsecrets trust` as an operator uses it.

use std::fs;

use serde_json::Value;

use super::TrustFixture;
use crate::support::process::{run, wait_until};

fn list_pins(fixture: &TrustFixture) -> Vec<Value> {
    let list = run(&mut fixture.base.home.agentsecrets(["trust", "list", "--json"])).json();
    list.as_array().unwrap().clone()
}

#[test]
fn changed_program_needs_new_trust() {
    let fixture = TrustFixture::new();
    let tool = fixture.path_text("tool");
    assert!(list_pins(&fixture).is_empty());
    let output = fixture.trust(&["add", &tool, "--secrets", "API_KEY,OTHER_KEY"]).stderr;
    assert!(
        output.contains(&format!("trusted {tool} as ")) && output.contains("API_KEY, OTHER_KEY"),
        "{output}"
    );
    let before = list_pins(&fixture).remove(0);
    assert_eq!((&before["path"], &before["state"]), (&tool.clone().into(), &"as pinned".into()));
    assert_eq!(before["secrets"], serde_json::json!(["API_KEY", "OTHER_KEY"]));
    assert_eq!(fixture.statuses("ask before $tool"), super::expected_statuses(&[("before", "200")]));

    let mut bytes = fs::read(&tool).unwrap();
    bytes.push(b'\n');
    fs::write(&tool, bytes).unwrap();
    let text = fixture.statuses("ask changed $tool; cat answer");
    let text = format!("{text:?}");
    let changed = list_pins(&fixture).remove(0);
    assert_eq!(changed["state"], "changed");
    let digest = before["sha256"].as_str().unwrap().to_owned();
    for part in ["403", "capability_denied", &digest[..12], "agentsecrets trust update", "bytes of"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = fixture.trust(&["update", &tool]).stderr;
    assert!(output.contains(&format!("it was trusted as {}", &digest[..12])), "{output}");
    assert_eq!(list_pins(&fixture)[0]["state"], "as pinned");
    assert_eq!(fixture.statuses("ask again $tool"), super::expected_statuses(&[("again", "200")]));

    let output = fixture.trust(&["remove", &tool]).stderr;
    assert!(output.contains("no pin names API_KEY, OTHER_KEY any more"), "{output}");
    assert!(list_pins(&fixture).is_empty());
    assert_eq!(fixture.trust(&["remove", &tool]).code, Some(3));
    let acts: Vec<Value> =
        run(&mut fixture.base.home.agentsecrets(["audit", "list", "--admin", "--json"])).json_lines();
    let of = |act: &Value| (act["method"].clone(), act["notes"][0].clone());
    let acted: Vec<_> = acts.iter().filter(|act| act["method"] != "secrets set").map(of).collect();
    let expected = ["trust add", "trust update", "trust remove"].map(|act| (act.into(), tool.clone().into()));
    assert_eq!(acted, expected);
    assert!(acts.iter().all(|act| act["process"]["pid"].is_number()));
}

#[test]
fn pinned_program_replaced_by_link_is_reported() {
    let fixture = TrustFixture::new();
    let (tool, other) = (fixture.path_text("tool"), fixture.path_text("other"));
    fixture.trust(&["add", &tool, "--secrets", "API_KEY"]).ok();
    fs::rename(&tool, &other).unwrap();
    std::os::unix::fs::symlink(&other, &tool).unwrap();
    assert_eq!(fixture.statuses("ask link $tool"), super::expected_statuses(&[("link", "403")]));
    let why = list_pins(&fixture)[0]["why"].as_str().unwrap().to_owned();
    let update = fixture.trust(&["update", &tool]);
    assert_eq!(update.code, Some(1), "{update:?}");
    for text in [&why, &update.stderr] {
        let (what, fix) =
            (format!("{tool} is now a link to {other}"), format!("agentsecrets trust remove {tool}"));
        assert!(text.contains(&what) && text.contains(&fix), "{text}");
    }
    assert_eq!(fixture.trust(&["remove", &other]).code, Some(3), "it is another program");
    fixture.trust(&["remove", &tool]).ok();
    fixture.trust(&["add", &tool, "--secrets", "API_KEY"]).ok();
    assert_eq!(list_pins(&fixture)[0]["path"], other);
    assert_eq!(fixture.statuses("ask link $tool"), super::expected_statuses(&[("link", "200")]));
}

#[test]
fn package_manager_vouches_for_own_files_only() {
    let fixture = TrustFixture::new();
    let sort = fs::canonicalize("/usr/bin/sort").unwrap();
    let sort = sort.to_str().unwrap();
    fixture.trust(&["add", sort]).ok();
    fixture.trust(&["add", &fixture.path_text("tool")]).ok();
    // As if another version had been trusted.
    let file = fixture.base.home.path().join("trust.json");
    let digest = list_pins(&fixture)[0]["sha256"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&file).unwrap().replace(&digest, &"0".repeat(64));
    fs::write(&file, text).unwrap();
    let output = fixture.trust(&["update", "--from-package"]);
    assert!(
        output.stderr.contains("coreutils") && output.stderr.contains("(dpkg, MD5) vouches"),
        "{output:#?}"
    );
    let pin = list_pins(&fixture).remove(0);
    assert!(pin["sha256"] == digest && pin["package"].as_str().unwrap().starts_with("coreutils "), "{pin}");

    let mut bytes = fs::read(fixture.path("tool")).unwrap();
    bytes.push(0);
    fs::write(fixture.path("tool"), bytes).unwrap();
    let output = fixture.trust(&["update", &fixture.path_text("tool"), "--from-package"]);
    assert_eq!(output.code, Some(4), "{output:#?}");
    assert!(output.stderr.contains("no package vouches"), "{output:#?}");
    assert_eq!(list_pins(&fixture)[1]["state"], "changed");
}

#[test]
fn required_pin_denies_unpinned() {
    let fixture = TrustFixture::new();
    fixture.base.home.write_config("require_trust: true\n");
    let seen = fixture.statuses("ask untrusted $tool; curl -sS -o answer -w 'free %{http_code}\n' $url/free");
    assert_eq!(seen, super::expected_statuses(&[("untrusted", "403"), ("free", "200")]));
    fixture.trust(&["add", &fixture.path_text("tool")]).ok();
    assert_eq!(fixture.statuses("ask trusted $tool"), super::expected_statuses(&[("trusted", "200")]));
}

#[test]
fn pin_applies_to_running_session() {
    let fixture = TrustFixture::new();
    let other = fixture.path_text("other");
    fs::copy(fixture.path_text("tool"), &other).unwrap();
    let script = "ask before $tool; echo > ready
        until [ \"$(ask after $tool)\" = 'after 403' ]; do :; done; echo bitten 403";
    let mut run = fixture.base.home.run_agent(["sh", "-c", &fixture.script(script)]);
    let child = crate::support::process::start(&mut run);
    wait_until("the run has begun", || fixture.path("own/ready").exists());
    fixture.trust(&["add", &other, "--secrets", "API_KEY"]).ok();
    let seen = crate::support::process::wait_with_output(child, "the run".into()).ok();
    assert_eq!(seen, "before 200\nbitten 403\n");
}

#[test]
fn invalid_trust_file_is_refused_and_agent_cannot_trust() {
    let fixture = TrustFixture::new();
    let file = fixture.base.home.path().join("trust.json");
    fs::write(&file, "{\"version\":1,\"pins\":[],\"pin\":[]}").unwrap();
    let refused = run(&mut fixture.base.home.run_agent(["echo", "started"]));
    assert!(refused.stdout.is_empty() && refused.stderr.contains("unknown field `pin`"), "{refused:#?}");
    assert_eq!(fixture.trust(&["list"]).code, Some(1));
    fs::remove_file(file).unwrap();
    let program = fixture.path_text("agentsecrets");
    fs::copy(crate::support::home::AGENTSECRETS, &program).unwrap();
    for words in [&["list"][..], &["add", "/bin/sh"], &["remove", "/bin/sh"], &["update", "--from-package"]] {
        let mut agent = fixture.base.home.run_agent([&*program, "trust"]);
        assert_eq!(run(agent.args(words)).code, Some(4), "{words:?}");
    }
}

#[test]
fn env_gives_values_to_trusted_programs_only() {
    let fixture = TrustFixture::new();
    fixture.base.home.write_policy(
        "version: 1
agents:
  - name: coder
    env: true
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    let program = fixture.path_text("agentsecrets");
    fs::copy(crate::support::home::AGENTSECRETS, &program).unwrap();
    let env = || run(fixture.base.home.run_agent([&*program, "env", "--", "printenv"]).arg("API_KEY"));
    assert_eq!(env().ok().trim(), crate::end_to_end::SECRET);
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let refused = env();
    assert!(refused.code == Some(4) && refused.stderr.contains("trusted for it"), "{refused:#?}");
    fixture.trust(&["add", &program, "--secrets", "API_KEY", "--session"]).ok();
    assert_eq!(env().ok().trim(), crate::end_to_end::SECRET);
}
