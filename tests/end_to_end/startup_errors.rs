//! Missing or damaged files are named with advice, and nothing starts.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::support::process::{command, run_with_input};

/// Runs an agent that must not start.
#[track_caller]
fn assert_not_started(fixture: &Fixture) -> Outcome {
    let outcome = run(&mut fixture.home.run_agent(["echo", "started"]));
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.stdout.contains("started"), "{outcome:?}");
    outcome
}

#[test]
fn invalid_policy_names_line() {
    let fixture = Fixture::new();
    for (policy, line) in [
        ("version: 1\nagents:\n  - name: coder\n    alow: []\n", ":4"),
        ("version: 1\nagents:\n  - name: coder\n    name: other\n", ":4"),
        ("version: 1\nversion: 1\n", ":2"),
        ("version: 2\nagents: []\n", ":1"),
    ] {
        fixture.home.write_policy(policy);
        let outcome = assert_not_started(&fixture);
        assert!(outcome.stderr.contains(&format!("policy.yaml{line}")), "{outcome:?}");
        assert!(outcome.stderr.contains("policy check"), "{outcome:?}");
        let check = run(&mut fixture.home.agentsecrets(["policy", "check"]));
        assert_eq!(check.code, Some(1));
        assert!((check.stdout + &check.stderr).contains(&format!("policy.yaml{line}")));
    }
}

#[test]
fn invalid_reload_keeps_running_policy() {
    let fixture = Fixture::new();
    let url = fixture.url("/echo");
    let script = format!(
        "curl -sS {url} >/dev/null; echo ready; read line; curl -sS -w '%{{http_code}}' -o /dev/null {url}"
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", &script]));
    fixture.home.write_policy("version: 1\nagents: nonsense\n");
    use std::io::{Read, Write};
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "200");
}

#[test]
fn policy_change_is_reloaded() {
    let fixture = Fixture::new();
    let url = fixture.url("/echo");
    // The response is 200 until the change applies; the agent repeats its request until then.
    let script = format!(
        "echo ready; for i in $(seq 200); do c=$(curl -sS -w '%{{http_code}}' -o /dev/null -X DELETE {url}); \
         [ $c = 403 ] && echo refused && exit; done"
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", &script]));
    fixture.rule("methods: [GET]\nsecrets: [API_KEY]");
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "refused");
}

#[test]
fn damaged_vault_or_wrong_key_is_refused() {
    let fixture = Fixture::new();
    let vault = fixture.home.path().join("vault");
    let whole = std::fs::read(&vault).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&vault, &damaged).unwrap();
    assert_not_started(&fixture);
    std::fs::write(&vault, &whole).unwrap();

    std::fs::write(fixture.home.key(), "another key file of thirty-two bytes or more\n").unwrap();
    let outcome = assert_not_started(&fixture);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert!(outcome.stderr.contains("key"), "{outcome:?}");
}

#[test]
fn readable_key_file_is_refused() {
    let fixture = Fixture::new();
    std::fs::set_permissions(fixture.home.key(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = assert_not_started(&fixture);
    assert!(outcome.stderr.contains("chmod 600"), "{outcome:?}");
    let set = run_with_input(
        &mut fixture.home.agentsecrets(["secrets", "set", "OTHER"]),
        b"a value of some length",
    );
    assert_eq!(set.code, Some(5), "{set:?}");
}

#[test]
fn run_without_root_gives_advice() {
    let fixture = Fixture::new();
    let folder =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let copy = folder.path().join("agentsecrets");
    std::fs::copy(crate::support::home::AGENTSECRETS, &copy).unwrap();
    let mut agent = command("setpriv");
    agent
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .args(["run", "--", "echo", "started"]);
    let outcome = run(agent.env("AGENTSECRETS_HOME", folder.path().join("home")));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(
        outcome.stderr.contains("sudo ") && outcome.stderr.contains("run -- echo started"),
        "{outcome:?}"
    );
    drop(fixture);
}

#[test]
fn missing_cgroup_v2_is_reported() {
    let fixture = Fixture::new();
    let script = "umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup; exec \"$@\"";
    let mut agent = command("unshare");
    agent
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(crate::support::home::AGENTSECRETS);
    agent.args(["run", "--", "echo", "started"]).env("AGENTSECRETS_HOME", fixture.home.path());
    let outcome = run(agent.env("AGENTSECRETS_VAULT_KEY_FILE", fixture.home.key()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("cgroup"), "{outcome:?}");
}

#[test]
fn refused_ebpf_load_starts_nothing() {
    let fixture = Fixture::new();
    // Root without the right to load a program, as on an older or locked-down kernel.
    let mut agent = command("setpriv");
    agent
        .args(["--bounding-set", "-bpf,-perfmon,-sys_admin", "--inh-caps", "-all"])
        .arg(crate::support::home::AGENTSECRETS);
    agent.args(["run", "--", "echo", "started"]).env("AGENTSECRETS_HOME", fixture.home.path());
    let outcome = run(agent.env("AGENTSECRETS_VAULT_KEY_FILE", fixture.home.key()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("CAP_BPF"), "{outcome:?}");
    assert!(!outcome.stdout.contains("started"));
}
