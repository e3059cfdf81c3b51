//! An agent at the person's door: it does not see it, and were it to, it would be known by its cgroup and by
//! its namespace of processes. Each measure is tried with the others off.

use std::fs;

use super::tricks::protocol;
use super::*;

/// Asks for something that needs nobody's presence.
const ASK: &str = "s = door(); send(s, request(['status','--json']), [0,1,2]); sys.exit(reply(s))";

#[test]
fn outside_the_question_is_answered() {
    let machine = Machine::new();
    let outcome = finish(&mut machine.user(ALICE, &["python3", "-c", &protocol(ASK)]));
    assert!(outcome.code == Some(0) && outcome.stdout.contains("person_door"), "{outcome:?}");
}

#[test]
fn inside_run_the_door_is_not_there() {
    let machine = Machine::new();
    let look = "import os, socket\n\
        print(os.listdir('/run/agentsecrets'))\n\
        for name in ['door.sock', 'starter.sock']:\n\
        \ts = socket.socket(socket.AF_UNIX)\n\
        \ttry: s.connect('/run/agentsecrets/' + name); print('connected')\n\
        \texcept FileNotFoundError: print('not there')";
    let outcome = finish(&mut machine.alice(&["run", "--", "/usr/bin/python3", "-c", look]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stdout.contains("not there\nnot there") && !outcome.stdout.contains("sock"),
        "{outcome:?}"
    );
    for words in [&["secrets", "list"][..], &["presence", "set"], &["daemon"], &["policy", "show"]] {
        let inside = [&["run", "--", PROGRAM], words].concat();
        let outcome = finish(&mut machine.alice(&inside));
        assert!(
            outcome.code == Some(4) && outcome.stderr.contains("not for agents"),
            "{words:?}: {outcome:?}"
        );
    }
}

#[test]
fn a_process_in_an_agents_cgroup_is_refused_though_it_sees_the_door() {
    let machine = Machine::new();
    let root = agentsecrets::intercept::ebpf::cgroup2_mount().unwrap();
    let outer = root.join(format!("agentsecrets-{:016x}", std::process::id()));
    fs::create_dir(&outer).unwrap();
    fs::create_dir(outer.join("agent")).unwrap();
    let join = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", outer.join("agent").display());
    let user = machine.user(ALICE, &["python3", "-c", &protocol(ASK)]);
    let mut inside = command("sh");
    inside.args(["-c", &join, "sh"]).arg(user.get_program()).args(user.get_args());
    inside.env("PATH", "/usr/bin:/bin");
    let outcome = finish(&mut inside);
    fs::remove_dir(outer.join("agent")).unwrap();
    fs::remove_dir(&outer).unwrap();
    assert!(outcome.code == Some(4) && outcome.stdout.contains("not for agents"), "{outcome:?}");
}

#[test]
fn a_process_of_another_pid_namespace_is_refused_though_its_cgroup_is_the_persons() {
    let machine = Machine::new();
    let id = ALICE.to_string();
    let setpriv = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "python3", "-c"];
    let script = protocol(ASK);
    let words = [&["unshare", "--pid", "--fork", "--kill-child"], &setpriv[..], &[&script]].concat();
    let outcome = finish(&mut machine.root(&words));
    assert!(outcome.code == Some(4) && outcome.stdout.contains("not for agents"), "{outcome:?}");
}
