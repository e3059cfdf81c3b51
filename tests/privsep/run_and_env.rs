//! `run` and `env` for users other than root: the daemon starts them as the caller.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use serde_json::json;

use super::*;
use crate::end_to_end::Fixture;
use crate::support::process::wait_until;
use crate::support::value_search;

/// A machine whose daemon trusts the servers of `fixture`, and where alice's agents may use a secret there.
fn machine_for(fixture: &Fixture) -> Machine {
    let machine = Machine::start_with(
        &[PROGRAM, "daemon"],
        &[("AGENTSECRETS_UPSTREAM_CA", "/etc/agentsecrets/roots.pem")],
    );
    fs::write(machine.host_path("etc/agentsecrets/roots.pem"), fixture.authority.pem()).unwrap();
    fs::write(machine.host_path("etc/hosts"), "127.0.0.1 localhost api.test\n").unwrap();
    machine.store_secret(ALICE, "API_KEY", SECRET);
    machine.write_policy(
        ALICE,
        &format!(
            "version: 1\nagents:\n  - name: coder\n    allow:\n      - {{ host: api.test, ports: [{}], private: true, secrets: [API_KEY] }}\n",
            fixture.api.port()
        ),
    );
    machine
}

#[test]
fn unprivileged_user_runs_agent_with_unreadable_secret() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    let script = format!(
        "id -u; id -G; pwd; echo $HOME $MINE; echo $LD_PRELOAD$AGENTSECRETS_HOME$AGENTSECRETS_VAULT_KEY_FILE
         ls /var/lib/agentsecrets/{ALICE} 2>/dev/null | wc -l
         curl -sS -o /dev/null -w '%{{http_code}}\\n' -H \"Authorization: Bearer $API_KEY\" {}
         exit 7",
        fixture.url("/echo")
    );
    let mut agent = machine.user_command(
        ALICE,
        &["sh", "-c", "cd ~ && exec \"$@\"", "sh", PROGRAM, "run", "--", "sh", "-c", &script],
    );
    let outcome = run(agent.env("MINE", "mine").env("AGENTSECRETS_HOME", "/home/alice/x"));
    let output: Vec<&str> = outcome.stdout.lines().collect();
    let id = ALICE.to_string();
    assert_eq!(output, [&id, &id, "/home/alice", "/home/alice mine", "", "0", "200"], "{outcome:?}");
    assert_eq!(outcome.code, Some(7));
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let requests = run(&mut machine.root_command_for(ALICE, &["audit", "list", "--json"])).ok();
    assert!(requests.contains("\"status\":\"OK\"") && requests.contains("api.test"), "{requests}");
}

#[test]
fn user_processes_hold_no_values() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    let script = format!(
        "curl -sS -H \"Authorization: Bearer $API_KEY\" {} >/dev/null; echo ready; read line; true",
        fixture.url("/echo")
    );
    let mut agent_run = machine.alice_command(&["run", "--", "sh", "-c", &script]);
    let mut agent_run = agent_run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(agent_run.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let hers: Vec<u32> = processes_of(&machine, ALICE);
    assert!(hers.len() >= 2, "the client and the agent: {hers:?}");
    assert_eq!(value_search::in_processes(&hers, &value_search::encodings(SECRET)), Vec::<String>::new());
    drop(agent_run.stdin.take());
    assert!(agent_run.wait().unwrap().success());
}

/// The processes of the user `uid` that belong to the machine.
fn processes_of(machine: &Machine, uid: u32) -> Vec<u32> {
    let listed = run(command("pgrep").args(["-u", &uid.to_string()])).stdout;
    let own = fs::read_link(format!("/proc/{}/ns/mnt", machine.daemon.id())).unwrap();
    let tree = value_search::process_tree(machine.daemon.id());
    let all = listed.lines().map(|line| line.parse::<u32>().unwrap());
    all.filter(|pid| {
        tree.contains(pid) || fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == Some(own.clone())
    })
    .collect()
}

#[test]
fn run_as_other_user_or_store_is_refused() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    for user in ["root", "bob", "70002", "keeper", "0"] {
        let outcome = run(&mut machine.alice_command(&["run", "--user", user, "--", "id", "-u"]));
        assert!(outcome.code == Some(4) && outcome.stdout.is_empty(), "{user}: {outcome:?}");
    }
    let own = run(&mut machine.alice_command(&["run", "--user", "alice", "--", "id", "-u"]));
    assert_eq!(own.ok().trim(), ALICE.to_string());
    let mut bob = machine.user_command(BOB, &[PROGRAM, "run", "--", "sh", "-c", "id -u; echo =$API_KEY"]);
    let output = run(bob.env("AGENTSECRETS_HOME", format!("/var/lib/agentsecrets/{ALICE}"))).ok();
    assert_eq!(output, format!("{BOB}\n=\n"), "his policy names no secret");
}

#[test]
fn agent_gets_own_terminal_and_interrupts() {
    let machine = Machine::new();
    let script = "test -t 0 && tty; read name; echo hello $name; trap 'echo caught; exit 42' INT; echo waiting; \
                  while :; do sleep 0.05; done";
    let mut agent = Terminal::start(&machine.alice_command(&["run", "--", "bash", "-c", script]));
    agent.read_until("/dev/pts/0");
    agent.type_line("alice");
    agent.read_until("hello alice");
    agent.read_until("waiting");
    agent.type_bytes(b"\x03");
    agent.read_until("caught");
    assert_eq!(agent.code(), Some(42));
}

#[test]
fn client_signals_and_death_reach_agent() {
    let machine = Machine::new();
    let start = || {
        let script = "trap 'exit 43' TERM; echo ready; while :; do sleep 0.05; done";
        let mut agent = machine.alice_command(&["run", "--", "bash", "-c", script]);
        let mut agent = agent.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(agent.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (agent, output)
    };
    let (mut agent, _output) = start();
    let pid = nix::unistd::Pid::from_raw(agent.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(43));
    let (mut agent, mut output) = start();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // The agent held the other end of this pipe.
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
}

#[test]
fn env_gives_values_after_confirmation() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    machine.store_secret(ALICE, "API_KEY", SECRET);
    let script = "cd ~; exec /opt/agentsecrets env -- sh -c 'id -u; id -G; pwd; grep -E \"Cap(Eff|Prm)\" /proc/self/status; \
                  echo $MINE; echo =$API_KEY; exit 9'";
    let mut env = machine.user_command(ALICE, &["sh", "-c", script]);
    let (code, shown) = machine.run_with_passphrase(env.env("MINE", "mine"));
    assert_eq!(code, Some(9), "{shown}");
    let output: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("7000")).collect();
    let id = ALICE.to_string();
    let none = |name: &str| format!("{name}:\t0000000000000000");
    let (permitted, effective) = (none("CapPrm"), none("CapEff"));
    assert_eq!(output, [&id, &id, "/home/alice", &permitted, &effective, "mine", &format!("={SECRET}")]);
    let requests = run(&mut machine.root_command_for(ALICE, &["audit", "list", "--json"])).ok();
    assert!(requests.contains("env_inject") && requests.contains("\"uid\":70001"), "{requests}");
}

#[test]
fn project_file_readable_by_user_only_applies() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    let place = machine.host_path("home/alice/.agentsecrets");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("project.json"), "{\"environment\": \"staging\", \"secrets\": []}").unwrap();
    std::os::unix::fs::chown(place.join("project.json"), Some(ALICE), Some(ALICE)).unwrap();
    let status = ["sh", "-c", "cd ~ && exec /opt/agentsecrets status --json"];
    let status = run(&mut machine.user_command(ALICE, &status)).json();
    assert_eq!(status["environment"], "staging");
    let agent = ["sh", "-c", "cd ~ && exec /opt/agentsecrets run -- sh -c 'echo =$API_KEY'"];
    assert_eq!(run(&mut machine.user_command(ALICE, &agent)).ok(), "=\n");
}

#[test]
fn mcp_outside_run_starts_as_agent() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    let bridge_request =
        json!({"url": fixture.url("/bridge"), "method": "GET", "injections": {"bearer": "API_KEY"}});
    let bridge = &mut machine.alice_command(&["mcp", "bridge", "proxy.call"]);
    let reply = run_with_input(bridge, bridge_request.to_string().as_bytes()).json();
    assert_eq!(reply["data"]["status_code"], 200, "{reply}");
    let status = run_with_input(&mut machine.alice_command(&["mcp", "bridge", "status"]), b"{}").json();
    assert_eq!(status["data"]["environment"]["active"], "development", "{status}");

    let mut serve = machine.alice_command(&["mcp", "serve", "--agent", "coder"]);
    let mut serve = serve.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (serve.stdin.take().unwrap(), BufReader::new(serve.stdout.take().unwrap()));
    let mut ask = |id: u32, method: &str, params: serde_json::Value| {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        answer
    };
    let client = json!({"name": "test", "version": "1"});
    ask(1, "initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}));
    let call = json!({"url": fixture.url("/serve"), "injections": {"bearer": "API_KEY"}});
    let answer = ask(2, "tools/call", json!({"name": "api_call", "arguments": call}));
    assert!(answer.contains("HTTP 200") && !answer.contains(SECRET), "{answer}");
    drop(input);
    assert!(serve.wait().unwrap().success());

    let paths: Vec<String> = fixture.api.received().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/bridge", "/serve"]);
    // Each runs in its own session.
    let requests = run(&mut machine.root_command_for(ALICE, &["audit", "list", "--json"])).ok();
    let of_runs = requests.lines().filter(|line| line.contains("\"session_id\":\"")).count();
    assert_eq!((of_runs, requests.lines().count()), (2, 2), "{requests}");
}

/// A shell script in which `ask` is an agent's request with the secret; it prints the status.
fn shell_script(machine: &Machine, fixture: &Fixture, script: &str) -> Command {
    let ask = format!(
        "ask() {{ {PROGRAM} run -- curl -sS -o /dev/null -w '%{{http_code}} ' \
         -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; }}",
        fixture.url("/echo")
    );
    machine.user_command(ALICE, &["sh", "-c", &format!("{ask}; {script}")])
}

#[test]
fn shell_session_limits_its_runs() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    machine.set_passphrase(ALICE);
    let free = run(&mut shell_script(&machine, &fixture, "ask"));
    assert_eq!(free.stdout, "200 ", "{free:?}");
    let start = format!("{PROGRAM} session start --secrets OTHER >/dev/null && ask; echo end");
    let (_, shown) = machine.run_with_passphrase(&shell_script(&machine, &fixture, &start));
    assert!(shown.contains("403 end"), "{shown}");
    let elsewhere = run(&mut shell_script(&machine, &fixture, "ask"));
    assert_eq!(elsewhere.stdout, "200 ", "{elsewhere:?}");
}

#[test]
fn pending_request_is_approved_by_its_user_only() {
    let fixture = Fixture::new();
    let machine = machine_for(&fixture);
    machine.set_passphrase(ALICE);
    machine.write_policy(
        ALICE,
        &format!(
            "version: 1\nagents:\n  - name: coder\n    allow:\n      - {{ host: api.test, ports: [{}], private: true, \
             secrets: [API_KEY], approve: {{ wait: 60s }} }}\n",
            fixture.api.port()
        ),
    );
    let mut asking = shell_script(&machine, &fixture, "ask").stdout(Stdio::piped()).spawn().unwrap();
    let mut id = String::new();
    wait_until("it is held", || {
        let pending = run(&mut machine.root_command_for(ALICE, &["approvals", "--json"])).json();
        id = pending[0]["id"].as_str().unwrap_or_default().to_owned();
        !id.is_empty()
    });
    assert_refused(&run(&mut machine.alice_command(&["approve", &id])));
    assert!(fixture.api.received().is_empty());
    let (code, shown) = machine.run_with_passphrase(&machine.alice_command(&["approve", &id]));
    assert_eq!(code, Some(0), "{shown}");
    let mut status = String::new();
    std::io::Read::read_to_string(asking.stdout.as_mut().unwrap(), &mut status).unwrap();
    asking.wait().unwrap();
    assert_eq!(status, "200 ");
}
