//! `run` and `env` for people who are not root: the daemon starts them, as who asked and nobody else.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use serde_json::json;

use super::*;
use crate::spine::World;
use crate::support::memory;
use crate::support::process::until;

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

#[test]
fn what_speaks_for_a_model_outside_run_is_started_as_an_agent() {
    let world = World::new();
    let machine = with(&world);
    let asked = json!({"url": world.url("/bridge"), "method": "GET", "injections": {"bearer": "API_KEY"}});
    let bridge = &mut machine.alice(&["mcp", "bridge", "proxy.call"]);
    let told = finish_with(bridge, asked.to_string().as_bytes()).json();
    assert_eq!(told["data"]["status_code"], 200, "{told}");
    let status = finish_with(&mut machine.alice(&["mcp", "bridge", "status"]), b"{}").json();
    assert_eq!(status["data"]["environment"]["active"], "development", "{status}");

    let mut serve = machine.alice(&["mcp", "serve", "--agent", "coder"]);
    let mut serve = serve.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut says, mut hears) = (serve.stdin.take().unwrap(), BufReader::new(serve.stdout.take().unwrap()));
    let mut ask = |id: u32, method: &str, params: serde_json::Value| {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(says, "{line}").unwrap();
        let mut answer = String::new();
        hears.read_line(&mut answer).unwrap();
        answer
    };
    let client = json!({"name": "test", "version": "1"});
    ask(1, "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}));
    let call = json!({"url": world.url("/serve"), "injections": {"bearer": "API_KEY"}});
    let answer = ask(2, "tools/call", json!({"name": "api_call", "arguments": call}));
    assert!(answer.contains("HTTP 200") && !answer.contains(SECRET), "{answer}");
    drop(says);
    assert!(serve.wait().unwrap().success());

    let paths: Vec<String> = world.api.received().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/bridge", "/serve"]);
    // Each in a run, which is a session.
    let requests = finish(&mut machine.for_user(ALICE, &["audit", "list", "--json"])).ok();
    let of_runs = requests.lines().filter(|line| line.contains("\"session_id\":\"")).count();
    assert_eq!((of_runs, requests.lines().count()), (2, 2), "{requests}");
}

/// A shell's script in which `ask` is an agent's request with the secret, whose status is printed.
fn shell(machine: &Machine, world: &World, script: &str) -> Command {
    let ask = format!(
        "ask() {{ {PROGRAM} run -- curl -sS -o /dev/null -w '%{{http_code}} ' \
         -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; }}",
        world.url("/echo")
    );
    machine.user(ALICE, &["sh", "-c", &format!("{ask}; {script}")])
}

#[test]
fn a_session_of_the_persons_shell_bounds_what_is_run_from_it() {
    let world = World::new();
    let machine = with(&world);
    machine.presence(ALICE);
    let free = finish(&mut shell(&machine, &world, "ask"));
    assert_eq!(free.stdout, "200 ", "{free:?}");
    let start = format!("{PROGRAM} session start --secrets OTHER >/dev/null && ask; echo end");
    let (_, shown) = machine.present(&shell(&machine, &world, &start));
    assert!(shown.contains("403 end"), "{shown}");
    let elsewhere = finish(&mut shell(&machine, &world, "ask"));
    assert_eq!(elsewhere.stdout, "200 ", "{elsewhere:?}");
}

#[test]
fn a_request_that_is_held_is_approved_by_the_person_and_by_nobody_else() {
    let world = World::new();
    let machine = with(&world);
    machine.presence(ALICE);
    machine.policy(
        ALICE,
        &format!(
            "version: 1\nagents:\n  - name: coder\n    allow:\n      - {{ host: api.test, ports: [{}], private: true, \
             secrets: [API_KEY], approve: {{ wait: 60s }} }}\n",
            world.api.port()
        ),
    );
    let mut asking = shell(&machine, &world, "ask").stdout(Stdio::piped()).spawn().unwrap();
    let mut id = String::new();
    until("it is held", || {
        let held = finish(&mut machine.for_user(ALICE, &["approvals", "--json"])).json();
        id = held[0]["id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    assert_refused(&finish(&mut machine.alice(&["approve", &id])));
    assert!(world.api.received().is_empty());
    let (code, shown) = machine.present(&machine.alice(&["approve", &id]));
    assert_eq!(code, Some(0), "{shown}");
    let mut status = String::new();
    std::io::Read::read_to_string(asking.stdout.as_mut().unwrap(), &mut status).unwrap();
    asking.wait().unwrap();
    assert_eq!(status, "200 ");
}
