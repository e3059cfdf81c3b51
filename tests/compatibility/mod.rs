//! Files that version 0.1.0 wrote must stay readable: the vault, the audit log with its anchor, policy,
//! configuration, agent and session registries, trust pins and the project scope. `home` is a home directory as that
//! version left it, `run` the files of one run, and `expected` its own output for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::home::Home;
use crate::support::process::run;

/// The home directory's path when the files were written.
const WRITTEN_AT: &str = "/tmp/fx/home";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compatibility")
}

/// Copies a folder of fixtures with the modes that the program requires; version control does not keep them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn home_of(folder: &str) -> Home {
    let home = Home::new();
    copy(&fixtures().join(folder), &home.path());
    home
}

/// The program's own output of 0.1.0, with this test's home directory in it.
fn expected(name: &str, home: &Home) -> Vec<Value> {
    let text = fs::read_to_string(fixtures().join("expected").join(format!("{name}.json"))).unwrap();
    values(&text.replace(WRITTEN_AT, home.path().to_str().unwrap()))
}

fn values(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().unwrap()
}

/// Removes fields that depend on the time or on the machine of the test.
fn without(mut values: Vec<Value>, fields: &[&str]) -> Vec<Value> {
    fn remove(value: &mut Value, fields: &[&str]) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| remove(item, fields)),
            Value::Object(map) => fields.iter().for_each(|field| drop(map.remove(*field))),
            _ => {}
        }
    }
    values.iter_mut().for_each(|value| remove(value, fields));
    values
}

#[track_caller]
fn assert_reads_as_before(home: &Home, command: &str, name: &str, varying: &[&str]) {
    let words: Vec<&str> = command.split(' ').chain(["--json"]).collect();
    let output = run(&mut home.agentsecrets(words)).ok();
    assert_eq!(without(values(&output), varying), without(expected(name, home), varying), "{command}");
}

#[test]
fn home_of_0_1_0_is_readable() {
    let home = home_of("home");
    assert_reads_as_before(&home, "secrets list", "secrets_list", &[]);
    assert_reads_as_before(&home, "--project shop secrets list", "shop_secrets_list", &[]);
    assert_reads_as_before(&home, "agent list", "agent_list", &[]);
    assert_reads_as_before(&home, "agent token list --agent coder", "agent_token_list", &[]);
    // One of the sessions ends in 2027.
    assert_reads_as_before(&home, "session list", "session_list", &["state"]);
    // The pinned program is not on this machine.
    assert_reads_as_before(&home, "trust list", "trust_list", &["state"]);
    assert_reads_as_before(&home, "project list", "project_list", &[]);
    assert_reads_as_before(&home, "environment list", "environment_list", &[]);
    assert_reads_as_before(&home, "workspace list", "workspace_list", &[]);
    run(&mut home.agentsecrets(["policy", "check"])).ok();
    assert_reads_as_before(&home, "policy explain GET https://api.example.com/v1/x", "policy_explain", &[]);
}

#[test]
fn vault_of_0_1_0_yields_its_values() {
    let home = home_of("home");
    let value = |words: &[&str]| run(&mut home.agentsecrets(words)).ok();
    assert_eq!(value(&["env", "--", "printenv", "STRIPE_KEY"]), "sk_live_0123456789abcdef\n");
    assert_eq!(value(&["env", "--", "printenv", "API_KEY"]), "fixture-api-key-0987654321\n");
    assert_eq!(value(&["--project", "shop", "env", "--", "printenv", "API_KEY"]), "shop-value-123456\n");
}

#[test]
fn audit_log_of_0_1_0_verifies_and_continues() {
    for (folder, name) in [("home", "audit_list"), ("run", "run_audit_list")] {
        let home = home_of(folder);
        run(&mut home.agentsecrets(["audit", "verify"])).ok();
        assert_reads_as_before(&home, "audit list", name, &[]);
        // A record of this version follows those of 0.1.0 in the same chain.
        home.set_secret("LATER", "a value of this version");
        run(&mut home.agentsecrets(["audit", "verify"])).ok();
        let admin = run(&mut home.agentsecrets(["audit", "list", "--admin", "--json"])).ok();
        let names: Vec<Value> =
            values(&admin).iter().map(|record| record["secret_keys"][0].clone()).collect();
        assert_eq!(names.last().unwrap(), "LATER");
    }
    assert_reads_as_before(&home_of("home"), "audit list --admin", "audit_list_admin", &[]);
}

#[test]
fn changed_audit_log_of_0_1_0_is_detected() {
    let home = home_of("home");
    let log = home.path().join("audit/audit.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("STRIPE_KEY", "OTHER_KEYS", 1)).unwrap();
    assert_ne!(run(&mut home.agentsecrets(["audit", "verify"])).code, Some(0));
}
