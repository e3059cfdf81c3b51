//! What is missing or damaged is named, with what to do, and nothing is started.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::support::process::{command, finish_with};

/// Runs an agent that must not start.
#[track_caller]
fn not_started(world: &World) -> Outcome {
    let outcome = finish(&mut world.home.run_agent(["echo", "started"]));
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.stdout.contains("started"), "{outcome:?}");
    outcome
}

#[test]
fn a_policy_with_mistakes_starts_nothing_and_names_the_line() {
    let world = World::new();
    for (policy, line) in [
        ("version: 1\nagents:\n  - name: coder\n    alow: []\n", ":4"),
        ("version: 1\nagents:\n  - name: coder\n    name: other\n", ":4"),
        ("version: 1\nversion: 1\n", ":2"),
        ("version: 2\nagents: []\n", ":1"),
    ] {
        world.home.policy(policy);
        let outcome = not_started(&world);
        assert!(outcome.stderr.contains(&format!("policy.yaml{line}")), "{outcome:?}");
        assert!(outcome.stderr.contains("policy check"), "{outcome:?}");
        let check = finish(&mut world.home.agentsecrets(["policy", "check"]));
        assert_eq!(check.code, Some(1));
        assert!((check.stdout + &check.stderr).contains(&format!("policy.yaml{line}")));
    }
}

#[test]
fn a_bad_policy_leaves_the_running_one_in_force() {
    let world = World::new();
    let url = world.url("/echo");
    let script = format!(
        "curl -sS {url} >/dev/null; echo ready; read line; curl -sS -w '%{{http_code}}' -o /dev/null {url}"
    );
    let mut agent = Agent::started(world.home.run_agent(["sh", "-c", &script]));
    world.home.policy("version: 1\nagents: nonsense\n");
    use std::io::{Read, Write};
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "200");
}

#[test]
fn a_changed_policy_comes_into_force() {
    let world = World::new();
    let url = world.url("/echo");
    // Until the change is there, the answer is 200; the agent asks for as long as it takes.
    let script = format!(
        "echo ready; for i in $(seq 200); do c=$(curl -sS -w '%{{http_code}}' -o /dev/null -X DELETE {url}); \
         [ $c = 403 ] && echo refused && exit; done"
    );
    let mut agent = Agent::started(world.home.run_agent(["sh", "-c", &script]));
    world.rule("methods: [GET]\nsecrets: [API_KEY]");
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "refused");
}

#[test]
fn a_damaged_vault_or_a_wrong_key_starts_nothing() {
    let world = World::new();
    let vault = world.home.path().join("vault");
    let whole = std::fs::read(&vault).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&vault, &damaged).unwrap();
    not_started(&world);
    std::fs::write(&vault, &whole).unwrap();

    std::fs::write(world.home.key(), "another key file of thirty-two bytes or more\n").unwrap();
    let outcome = not_started(&world);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert!(outcome.stderr.contains("key"), "{outcome:?}");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let world = World::new();
    std::fs::set_permissions(world.home.key(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = not_started(&world);
    assert!(outcome.stderr.contains("chmod 600"), "{outcome:?}");
    let set =
        finish_with(&mut world.home.agentsecrets(["secrets", "set", "OTHER"]), b"a value of some length");
    assert_eq!(set.code, Some(5), "{set:?}");
}

#[test]
fn without_root_the_person_is_told_the_command_that_helps() {
    let world = World::new();
    let folder =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let copy = folder.path().join("agentsecrets");
    std::fs::copy(crate::support::home::AGENTSECRETS, &copy).unwrap();
    let mut run = command("setpriv");
    run.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .args(["run", "--", "echo", "started"]);
    let outcome = finish(run.env("AGENTSECRETS_HOME", folder.path().join("home")));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(
        outcome.stderr.contains("sudo ") && outcome.stderr.contains("run -- echo started"),
        "{outcome:?}"
    );
    drop(world);
}

#[test]
fn without_cgroup_v2_the_person_is_told_what_is_missing() {
    let world = World::new();
    let script = "umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup; exec \"$@\"";
    let mut run = command("unshare");
    run.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(crate::support::home::AGENTSECRETS);
    run.args(["run", "--", "echo", "started"]).env("AGENTSECRETS_HOME", world.home.path());
    let outcome = finish(run.env("AGENTSECRETS_VAULT_KEY_FILE", world.home.key()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("cgroup"), "{outcome:?}");
}

#[test]
fn a_kernel_that_refuses_the_programs_starts_nothing() {
    let world = World::new();
    // As root, but without the rights to load a program: what an older or locked-down kernel answers.
    let mut run = command("setpriv");
    run.args(["--bounding-set", "-bpf,-perfmon,-sys_admin", "--inh-caps", "-all"])
        .arg(crate::support::home::AGENTSECRETS);
    run.args(["run", "--", "echo", "started"]).env("AGENTSECRETS_HOME", world.home.path());
    let outcome = finish(run.env("AGENTSECRETS_VAULT_KEY_FILE", world.home.key()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("CAP_BPF"), "{outcome:?}");
    assert!(!outcome.stdout.contains("started"));
}
