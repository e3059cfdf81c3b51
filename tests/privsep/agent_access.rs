//! An agent at the admin socket: it does not see it, and if it did, its cgroup and pid namespace would
//! identify it. Each measure is tried with the others off.

use std::fs;

use super::bypass::protocol_script;
use super::*;

/// Requests a command that needs no confirmation.
const STATUS_REQUEST: &str = "s = door(); send(s, request(['status','--json']), [0,1,2]); sys.exit(reply(s))";

#[test]
fn request_outside_run_is_answered() {
    let machine = Machine::new();
    let outcome = run(&mut machine.user_command(ALICE, &["python3", "-c", &protocol_script(STATUS_REQUEST)]));
    assert!(outcome.code == Some(0) && outcome.stdout.contains("person_door"), "{outcome:?}");
}

#[test]
fn socket_is_absent_inside_run() {
    let machine = Machine::new();
    let look = "import os, socket\n\
        print(os.listdir('/run/agentsecrets'))\n\
        for name in ['frontend.sock', 'monitor.sock']:\n\
        \ts = socket.socket(socket.AF_UNIX)\n\
        \ttry: s.connect('/run/agentsecrets/' + name); print('connected')\n\
        \texcept FileNotFoundError: print('not there')";
    let outcome = run(&mut machine.alice_command(&["run", "--", "/usr/bin/python3", "-c", look]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stdout.contains("not there\nnot there") && !outcome.stdout.contains("sock"),
        "{outcome:?}"
    );
    for words in [&["secrets", "list"][..], &["presence", "set"], &["daemon"], &["policy", "show"]] {
        let inside = [&["run", "--", PROGRAM], words].concat();
        let outcome = run(&mut machine.alice_command(&inside));
        assert!(
            outcome.code == Some(4) && outcome.stderr.contains("not for agents"),
            "{words:?}: {outcome:?}"
        );
    }
}

#[test]
fn process_in_agent_cgroup_is_refused() {
    let machine = Machine::new();
    let root = agentsecrets::intercept::ebpf::cgroup2_mount().unwrap();
    let outer = root.join(format!("agentsecrets-{:016x}", std::process::id()));
    fs::create_dir(&outer).unwrap();
    fs::create_dir(outer.join("agent")).unwrap();
    let join = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", outer.join("agent").display());
    let user = machine.user_command(ALICE, &["python3", "-c", &protocol_script(STATUS_REQUEST)]);
    let mut inside = command("sh");
    inside.args(["-c", &join, "sh"]).arg(user.get_program()).args(user.get_args());
    inside.env("PATH", "/usr/bin:/bin");
    let outcome = run(&mut inside);
    fs::remove_dir(outer.join("agent")).unwrap();
    fs::remove_dir(&outer).unwrap();
    assert!(outcome.code == Some(4) && outcome.stdout.contains("not for agents"), "{outcome:?}");
}

#[test]
fn process_in_other_pid_namespace_is_refused() {
    let machine = Machine::new();
    let id = ALICE.to_string();
    let setpriv = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "python3", "-c"];
    let script = protocol_script(STATUS_REQUEST);
    let words = [&["unshare", "--pid", "--fork", "--kill-child"], &setpriv[..], &[&script]].concat();
    let outcome = run(&mut machine.root_command(&words));
    assert!(outcome.code == Some(4) && outcome.stdout.contains("not for agents"), "{outcome:?}");
}
