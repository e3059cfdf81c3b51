//! `run` and `env` for people who are not root: the daemon starts them, as who asked and nobody else.

use std::fs;
use std::io::{BufRead, BufReader};

use super::*;
use crate::spine::World;
use crate::support::memory;

/// A machine whose daemon trusts the servers of `world`, and where alice's agents may spend a secret there.
fn with(world: &World) -> Machine {
    let machine =
        Machine::with(&[PROGRAM, "daemon"], &[("AGENTSECRETS_UPSTREAM_CA", "/etc/agentsecrets/roots.pem")]);
    fs::write(machine.inside("etc/agentsecrets/roots.pem"), world.authority.pem()).unwrap();
    fs::write(machine.inside("etc/hosts"), "127.0.0.1 localhost api.test\n").unwrap();
    machine.store(ALICE, "API_KEY", SECRET);
    machine.policy(
        ALICE,
        &format!(
            "version: 1\nagents:\n  - name: coder\n    allow:\n      - {{ host: api.test, ports: [{}], private: true, secrets: [API_KEY] }}\n",
            world.api.port()
        ),
    );
    machine
}

#[test]
fn a_person_without_root_runs_an_agent_that_spends_a_secret_nobody_of_that_user_can_read() {
    let world = World::new();
    let machine = with(&world);
    let script = format!(
        "id -u; id -G; pwd; echo $HOME $MINE; echo $LD_PRELOAD$AGENTSECRETS_HOME$AGENTSECRETS_VAULT_KEY_FILE
         ls /var/lib/agentsecrets/{ALICE} 2>/dev/null | wc -l
         curl -sS -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $API_KEY\" {}
         exit 7",
        world.url("/echo")
    );
    let mut run = machine
        .user(ALICE, &["sh", "-c", "cd ~ && exec \"$@\"", "sh", PROGRAM, "run", "--", "sh", "-c", &script]);
    let outcome = finish(run.env("MINE", "mine").env("AGENTSECRETS_HOME", "/home/alice/x"));
    let said: Vec<&str> = outcome.stdout.lines().collect();
    let id = ALICE.to_string();
    assert_eq!(said, [&id, &id, "/home/alice", "/home/alice mine", "", "0", "200"], "{outcome:?}");
    assert_eq!(outcome.code, Some(7));
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
    let requests = finish(&mut machine.for_user(ALICE, &["audit", "list", "--json"])).ok();
    assert!(requests.contains("\"status\":\"OK\"") && requests.contains("api.test"), "{requests}");
}

#[test]
fn the_values_are_in_no_process_of_the_persons() {
    let world = World::new();
    let machine = with(&world);
    let script = format!(
        "curl -sS -H \"Authorization: Bearer $API_KEY\" {} >/dev/null; echo ready; read line; true",
        world.url("/echo")
    );
    let mut run = machine.alice(&["run", "--", "sh", "-c", &script]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let hers: Vec<u32> = processes(&machine, ALICE);
    assert!(hers.len() >= 2, "the client and the agent: {hers:?}");
    assert_eq!(memory::in_processes(&hers, &memory::forms(SECRET)), Vec::<String>::new());
    drop(run.stdin.take());
    assert!(run.wait().unwrap().success());
}

/// The processes of the user `uid` that the machine's daemon or its clients started.
fn processes(machine: &Machine, uid: u32) -> Vec<u32> {
    let listed = finish(command("pgrep").args(["-u", &uid.to_string()])).stdout;
    let own = fs::read_link(format!("/proc/{}/ns/mnt", machine.daemon.id())).unwrap();
    let tree = memory::tree(machine.daemon.id());
    let all = listed.lines().map(|line| line.parse::<u32>().unwrap());
    all.filter(|pid| {
        tree.contains(pid) || fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == Some(own.clone())
    })
    .collect()
}

#[test]
fn nobody_runs_as_somebody_else_or_from_another_ones_store() {
    let world = World::new();
    let machine = with(&world);
    for user in ["root", "bob", "70002", "keeper", "0"] {
        let outcome = finish(&mut machine.alice(&["run", "--user", user, "--", "id", "-u"]));
        assert!(outcome.code == Some(4) && outcome.stdout.is_empty(), "{user}: {outcome:?}");
    }
    let own = finish(&mut machine.alice(&["run", "--user", "alice", "--", "id", "-u"]));
    assert_eq!(own.ok().trim(), ALICE.to_string());
    let mut bob = machine.user(BOB, &[PROGRAM, "run", "--", "sh", "-c", "id -u; echo =$API_KEY"]);
    let said = finish(bob.env("AGENTSECRETS_HOME", format!("/var/lib/agentsecrets/{ALICE}"))).ok();
    assert_eq!(said, format!("{BOB}\n=\n"), "his policy names no secret");
}

#[test]
fn at_a_terminal_the_agent_has_one_of_its_own_and_an_interrupt_reaches_it() {
    let machine = Machine::new();
    let script = "test -t 0 && tty; read name; echo hello $name; trap 'echo caught; exit 42' INT; echo waiting; \
                  while :; do sleep 0.05; done";
    let mut run = Terminal::start(&machine.alice(&["run", "--", "bash", "-c", script]));
    run.until("/dev/pts/0");
    run.enter("alice");
    run.until("hello alice");
    run.until("waiting");
    run.type_in(b"\x03");
    run.until("caught");
    assert_eq!(run.code(), Some(42));
}

#[test]
fn a_signal_to_the_client_is_one_to_the_agent_and_its_death_is_the_agents() {
    let machine = Machine::new();
    let start = || {
        let script = "trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done";
        let mut run = machine.alice(&["run", "--", "bash", "-c", script]);
        let mut run = run.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(run.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (run, output)
    };
    let (mut run, _output) = start();
    let pid = nix::unistd::Pid::from_raw(run.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(43));
    let (mut run, mut output) = start();
    run.kill().unwrap();
    run.wait().unwrap();
    // The agent held the other end of this.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
}

#[test]
fn env_gives_a_command_of_the_persons_own_the_values_once_the_person_is_there() {
    let machine = Machine::new();
    machine.presence(ALICE);
    machine.store(ALICE, "API_KEY", SECRET);
    let script = "cd ~; exec /opt/agentsecrets env -- sh -c 'id -u; id -G; pwd; grep -E \"Cap(Eff|Prm)\" /proc/self/status; \
                  echo $MINE; echo =$API_KEY; exit 9'";
    let mut env = machine.user(ALICE, &["sh", "-c", script]);
    let (code, shown) = machine.present(env.env("MINE", "mine"));
    assert_eq!(code, Some(9), "{shown}");
    let said: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("7000")).collect();
    let id = ALICE.to_string();
    let none = |name: &str| format!("{name}:\t0000000000000000");
    let (permitted, effective) = (none("CapPrm"), none("CapEff"));
    assert_eq!(said, [&id, &id, "/home/alice", &permitted, &effective, "mine", &format!("={SECRET}")]);
    let requests = finish(&mut machine.for_user(ALICE, &["audit", "list", "--json"])).ok();
    assert!(requests.contains("env_inject") && requests.contains("\"uid\":70001"), "{requests}");
}

#[test]
fn the_project_file_of_the_working_folder_narrows_and_chooses_though_only_the_person_can_read_it() {
    let world = World::new();
    let machine = with(&world);
    let place = machine.inside("home/alice/.agentsecrets");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("project.json"), "{\"environment\": \"staging\", \"secrets\": []}").unwrap();
    std::os::unix::fs::chown(place.join("project.json"), Some(ALICE), Some(ALICE)).unwrap();
    let status = ["sh", "-c", "cd ~ && exec /opt/agentsecrets status --json"];
    let status = finish(&mut machine.user(ALICE, &status)).json();
    assert_eq!(status["environment"], "staging");
    let run = ["sh", "-c", "cd ~ && exec /opt/agentsecrets run -- sh -c 'echo =$API_KEY'"];
    assert_eq!(finish(&mut machine.user(ALICE, &run)).ok(), "=\n");
}
