//! `agentsecrets trust` as a person uses it.

use std::fs;

use serde_json::Value;

use super::Arena;
use crate::support::process::{finish, until};

fn listed(arena: &Arena) -> Vec<Value> {
    let list = finish(&mut arena.world.home.agentsecrets(["trust", "list", "--json"])).json();
    list.as_array().unwrap().clone()
}

#[test]
fn a_program_is_trusted_listed_refused_once_it_changed_and_trusted_again() {
    let arena = Arena::new();
    let tool = arena.at("tool");
    assert!(listed(&arena).is_empty());
    let said = arena.trust(&["add", &tool, "--secrets", "API_KEY,OTHER_KEY"]).stderr;
    assert!(said.contains(&format!("trusted {tool} as ")) && said.contains("API_KEY, OTHER_KEY"), "{said}");
    let before = listed(&arena).remove(0);
    assert_eq!((&before["path"], &before["state"]), (&tool.clone().into(), &"as pinned".into()));
    assert_eq!(before["secrets"], serde_json::json!(["API_KEY", "OTHER_KEY"]));
    assert_eq!(arena.statuses("ask before $tool"), super::expected(&[("before", "200")]));

    let mut bytes = fs::read(&tool).unwrap();
    bytes.push(b'\n');
    fs::write(&tool, bytes).unwrap();
    let told = arena.statuses("ask changed $tool; cat answer");
    let told = format!("{told:?}");
    let changed = listed(&arena).remove(0);
    assert_eq!(changed["state"], "changed");
    let digest = before["sha256"].as_str().unwrap().to_owned();
    for part in ["403", "capability_denied", &digest[..12], "agentsecrets trust update", "bytes of"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let said = arena.trust(&["update", &tool]).stderr;
    assert!(said.contains(&format!("it was trusted as {}", &digest[..12])), "{said}");
    assert_eq!(listed(&arena)[0]["state"], "as pinned");
    assert_eq!(arena.statuses("ask again $tool"), super::expected(&[("again", "200")]));

    let said = arena.trust(&["remove", &tool]).stderr;
    assert!(said.contains("no pin names API_KEY, OTHER_KEY any more"), "{said}");
    assert!(listed(&arena).is_empty());
    assert_eq!(arena.trust(&["remove", &tool]).code, Some(3));
    let acts = finish(&mut arena.world.home.agentsecrets(["audit", "list", "--admin", "--json"])).ok();
    let acts: Vec<Value> = acts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |act: &Value| (act["method"].clone(), act["notes"][0].clone());
    let acted: Vec<_> = acts.iter().filter(|act| act["method"] != "secrets set").map(of).collect();
    let expected = ["trust add", "trust update", "trust remove"].map(|act| (act.into(), tool.clone().into()));
    assert_eq!(acted, expected);
    assert!(acts.iter().all(|act| act["process"]["pid"].is_number()));
}

#[test]
fn a_pinned_program_that_became_a_link_is_told_of_and_can_be_trusted_no_longer() {
    let arena = Arena::new();
    let (tool, other) = (arena.at("tool"), arena.at("other"));
    arena.trust(&["add", &tool, "--secrets", "API_KEY"]).ok();
    fs::rename(&tool, &other).unwrap();
    std::os::unix::fs::symlink(&other, &tool).unwrap();
    assert_eq!(arena.statuses("ask link $tool"), super::expected(&[("link", "403")]));
    let why = listed(&arena)[0]["why"].as_str().unwrap().to_owned();
    let update = arena.trust(&["update", &tool]);
    assert_eq!(update.code, Some(1), "{update:?}");
    for told in [&why, &update.stderr] {
        let (what, fix) =
            (format!("{tool} is a link to {other} now"), format!("agentsecrets trust remove {tool}"));
        assert!(told.contains(&what) && told.contains(&fix), "{told}");
    }
    assert_eq!(arena.trust(&["remove", &other]).code, Some(3), "it is another program");
    arena.trust(&["remove", &tool]).ok();
    arena.trust(&["add", &tool, "--secrets", "API_KEY"]).ok();
    assert_eq!(listed(&arena)[0]["path"], other);
    assert_eq!(arena.statuses("ask link $tool"), super::expected(&[("link", "200")]));
}

#[test]
fn a_package_vouches_for_what_it_brought_and_for_nothing_else() {
    let arena = Arena::new();
    let sort = fs::canonicalize("/usr/bin/sort").unwrap();
    let sort = sort.to_str().unwrap();
    arena.trust(&["add", sort]).ok();
    arena.trust(&["add", &arena.at("tool")]).ok();
    // As if another version had been trusted.
    let file = arena.world.home.path().join("trust.json");
    let digest = listed(&arena)[0]["sha256"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&file).unwrap().replace(&digest, &"0".repeat(64));
    fs::write(&file, text).unwrap();
    let said = arena.trust(&["update", "--from-package"]);
    assert!(said.stderr.contains("coreutils") && said.stderr.contains("(dpkg, MD5) vouches"), "{said:#?}");
    let pin = listed(&arena).remove(0);
    assert!(pin["sha256"] == digest && pin["package"].as_str().unwrap().starts_with("coreutils "), "{pin}");

    let mut bytes = fs::read(arena.path("tool")).unwrap();
    bytes.push(0);
    fs::write(arena.path("tool"), bytes).unwrap();
    let said = arena.trust(&["update", &arena.at("tool"), "--from-package"]);
    assert_eq!(said.code, Some(4), "{said:#?}");
    assert!(said.stderr.contains("nobody vouches"), "{said:#?}");
    assert_eq!(listed(&arena)[1]["state"], "changed");
}

#[test]
fn nothing_is_spent_without_a_pin_where_the_configuration_says_so() {
    let arena = Arena::new();
    arena.world.home.configure("require_trust: true\n");
    let seen = arena.statuses("ask untrusted $tool; curl -sS -o answer -w 'free %{http_code}\n' $url/free");
    assert_eq!(seen, super::expected(&[("untrusted", "403"), ("free", "200")]));
    arena.trust(&["add", &arena.at("tool")]).ok();
    assert_eq!(arena.statuses("ask trusted $tool"), super::expected(&[("trusted", "200")]));
}

#[test]
fn a_pin_bites_in_a_run_that_has_begun() {
    let arena = Arena::new();
    let other = arena.at("other");
    fs::copy(arena.at("tool"), &other).unwrap();
    let script = "ask before $tool; echo > ready
        until [ \"$(ask after $tool)\" = 'after 403' ]; do :; done; echo bitten 403";
    let mut run = arena.world.home.run_agent(["sh", "-c", &arena.script(script)]);
    let child = crate::support::process::start(&mut run);
    until("the run has begun", || arena.path("own/ready").exists());
    arena.trust(&["add", &other, "--secrets", "API_KEY"]).ok();
    let seen = crate::support::process::finish_child(child, "the run".into()).ok();
    assert_eq!(seen, "before 200\nbitten 403\n");
}

#[test]
fn a_mistake_in_the_file_starts_nothing_and_agents_cannot_say_whom_to_trust() {
    let arena = Arena::new();
    let file = arena.world.home.path().join("trust.json");
    fs::write(&file, "{\"version\":1,\"pins\":[],\"pin\":[]}").unwrap();
    let refused = finish(&mut arena.world.home.run_agent(["echo", "started"]));
    assert!(refused.stdout.is_empty() && refused.stderr.contains("unknown field `pin`"), "{refused:#?}");
    assert_eq!(arena.trust(&["list"]).code, Some(1));
    fs::remove_file(file).unwrap();
    let program = arena.at("agentsecrets");
    fs::copy(crate::support::home::AGENTSECRETS, &program).unwrap();
    for words in [&["list"][..], &["add", "/bin/sh"], &["remove", "/bin/sh"], &["update", "--from-package"]] {
        let mut run = arena.world.home.run_agent([&*program, "trust"]);
        assert_eq!(finish(run.args(words)).code, Some(4), "{words:?}");
    }
}

#[test]
fn real_values_are_given_to_trusted_programs_alone() {
    let arena = Arena::new();
    arena.world.home.policy(
        "version: 1
agents:
  - name: coder
    env: true
    allow: [ { host: api.test, secrets: [API_KEY] } ]
",
    );
    let program = arena.at("agentsecrets");
    fs::copy(crate::support::home::AGENTSECRETS, &program).unwrap();
    let given = || finish(arena.world.home.run_agent([&*program, "env", "--", "printenv"]).arg("API_KEY"));
    assert_eq!(given().ok().trim(), crate::spine::SECRET);
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let refused = given();
    assert!(refused.code == Some(4) && refused.stderr.contains("trusted for it"), "{refused:#?}");
    arena.trust(&["add", &program, "--secrets", "API_KEY", "--session"]).ok();
    assert_eq!(given().ok().trim(), crate::spine::SECRET);
}
