//! `agentsecrets env`: only the command gets the values.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::AgentExecutable;
use crate::end_to_end::{Fixture, SECRET};
use crate::support::home::{AGENTSECRETS, Home};
use crate::support::process::{Outcome, command, run};
use crate::support::python::{PYTHON, program};

pub(super) fn home() -> Home {
    let home = Home::new();
    home.set_secret("API_KEY", SECRET);
    home.set_secret("DB_PASSWORD", "correct horse battery");
    home
}

#[track_caller]
fn env(home: &Home, arguments: &[&str]) -> Outcome {
    run(home.agentsecrets(["env"]).args(arguments))
}

#[test]
fn command_gets_secrets_and_exit_code_is_forwarded() {
    let home = home();
    let all = env(&home, &["--", "sh", "-c", "echo $API_KEY; echo $DB_PASSWORD; exit 7"]);
    assert_eq!((all.code, &*all.stdout), (Some(7), &*format!("{SECRET}\ncorrect horse battery\n")));
    let one = env(&home, &["--only", "API_KEY", "--", "sh", "-c", "echo $API_KEY; echo ${DB_PASSWORD-none}"]);
    assert_eq!(one.ok(), format!("{SECRET}\nnone\n"));
    let elsewhere = run(&mut home.agentsecrets(["--environment", "production", "env", "--", "env"])).ok();
    assert!(!elsewhere.contains("API_KEY"), "{elsewhere}");
}

#[test]
fn env_file_selects_and_fills_variables() {
    let home = home();
    let file = home.path().join("app.env");
    let lines = "URL=postgres://app:AS_SECRET_DB_PASSWORD@db/app?a={{API_KEY}}\nKEY=agentsecrets://API_KEY\n\
                 PLAIN='just $text'\n";
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let show = ["--", "sh", "-c", "echo $URL; echo $KEY; echo $PLAIN; echo ${API_KEY-none}"];
    let output = env(&home, &[&["--env-file", file], &show[..]].concat()).ok();
    let url = format!("postgres://app:correct horse battery@db/app?a={SECRET}");
    assert_eq!(output, format!("{url}\n{SECRET}\njust $text\nnone\n"));

    std::fs::write(file, "KEY=AS_SECRET_NOT_THERE\n").unwrap();
    let missing = env(&home, &["--env-file", file, "--", "true"]);
    assert_eq!(missing.code, Some(3));
    assert!(
        missing.stderr.contains("variable KEY: secret 'NOT_THERE' not found in keychain"),
        "{missing:#?}"
    );
    std::fs::write(file, "KEY=AS_SECRET_API_KEY\n").unwrap();
    let left_out = env(&home, &["--env-file", file, "--only", "DB_PASSWORD", "--", "true"]);
    assert!(left_out.code == Some(2) && left_out.stderr.contains("--only"), "{left_out:#?}");
    std::fs::write(file, format!("KEY='{SECRET}\n")).unwrap();
    let broken = env(&home, &["--env-file", file, "--", "true"]);
    assert!(broken.code == Some(125) && broken.stderr.contains("line 1"), "{broken:#?}");
    assert!(!broken.stderr.contains(SECRET));
}

#[test]
fn env_failures_have_exit_codes_and_advice() {
    let home = home();
    let not_executable = home.path().join("text");
    std::fs::write(&not_executable, "#!/bin/true\n").unwrap();
    for (arguments, code, message) in [
        (&["--", "no-such-command-here"][..], 127, "no-such-command-here"),
        (&["--", not_executable.to_str().unwrap()], 126, "ermission denied"),
        (&["--", "/"], 126, "ermission denied"),
        (&["--only", "NOT_THERE", "--", "true"], 3, "secret 'NOT_THERE' not found in keychain"),
        (&["--only", "NOT-A-NAME", "--", "true"], 2, "not a valid secret name"),
        (&["--"], 2, "CMD"),
        (&["--", "sh", "-c", "kill -TERM $$"], 128 + 15, ""),
    ] {
        let outcome = env(&home, arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(message), "{arguments:?}: {outcome:#?}");
    }
    let mut locked = home.agentsecrets(["env", "--", "true"]);
    let locked = run(locked.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert!(locked.code == Some(5) && locked.stderr.contains("AGENTSECRETS_VAULT_KEY_FILE"), "{locked:#?}");
    let none = run(&mut Home::new().agentsecrets(["env", "--", "true"]));
    assert!(none.code == Some(5) && none.stderr.contains("secrets set NAME"), "{none:#?}");
}

#[test]
fn value_with_nul_byte_starts_nothing() {
    let home = home();
    home.set_secret("ZERO", "a\0b-and-more");
    let zero = env(&home, &["--", "echo", "started"]);
    assert_eq!((zero.code, &*zero.stdout), (Some(125), ""));
    assert!(zero.stderr.contains("ZERO holds a zero byte") && zero.stderr.contains("--only"), "{zero:#?}");
    home.set_secret("LARGE", &"x".repeat(200_000));
    let large = env(&home, &["--only", "LARGE", "--", "echo", "started"]);
    assert_eq!((large.code, &*large.stdout), (Some(125), ""));
    assert!(large.stderr.contains("LARGE is larger than the 128 KiB"), "{large:#?}");
    home.set_secret("ODD", "two\nlines $x \u{e9}\t'\"");
    let odd = env(&home, &["--only", "ODD", "--", "sh", "-c", "printf %s \"$ODD\""]);
    assert_eq!(odd.ok(), "two\nlines $x \u{e9}\t'\"");
}

#[test]
fn signals_are_forwarded_to_command() {
    let home = home();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1] {
        let script = "trap 'echo caught; exit 9' INT TERM HUP USR1; echo ready; while :; do sleep 0.05; done";
        let mut started = home.agentsecrets(["env", "--", "sh", "-c", script]);
        let mut child = started.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!((child.wait().unwrap().code(), &*rest), (Some(9), "caught\n"), "{signal}");
    }
}

#[test]
fn command_dies_with_env() {
    let home = home();
    let mut started = home.agentsecrets(["env", "--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let mut child = started.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // The pipe ends when its last holder is gone.
    assert_eq!(output.read_to_string(&mut line).unwrap(), 0);
}

#[test]
fn only_command_holds_values() {
    let home = home();
    let mut started = home.agentsecrets(["env", "--", "sh", "-c", "echo $$; read line"]);
    let mut child = started.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let read = |pid: &str, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    let own = child.id().to_string();
    assert_ne!(own, line.trim());
    assert!(!holds(&read(&own, "environ")) && !holds(&read(&own, "cmdline")));
    assert!(holds(&read(line.trim(), "environ")) && !holds(&read(line.trim(), "cmdline")));
    assert!(!run(command("ps").args(["axww", "-o", "args"])).ok().contains(SECRET));
    // `wait` would close its input and thereby end it.
    let _input = child.stdin.take();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn env_writes_only_audit_record() {
    let home = home();
    let trace = home.path().join("trace");
    let mut strace = command("strace");
    strace.args(["-f", "-s", "1000000", "-e", "trace=%file,write,writev,pwrite64,sendto,sendmsg", "-o"]);
    strace.arg(&trace);
    let words = home.agentsecrets(["env", "--", "true"]);
    for (name, value) in words.get_envs() {
        value.map(|value| strace.env(name, value));
    }
    run(strace.args([AGENTSECRETS, "env", "--", "/bin/true"])).ok();
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(
        trace.contains("execve(\"/bin/true\"") && trace.contains("\\\"method\\\":\\\"ENV\\\""),
        "{trace}"
    );
    assert!(!trace.contains(SECRET));
    let audit = home.path().join("audit");
    let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "rename", " link", "symlink", "mkdir", "truncate"];
    let of_the_record = |line: &str| line.contains(audit.to_str().unwrap());
    let made_beside_it = format!("{}/.tmp", home.path().display());
    for line in trace.lines().filter(|line| writes.iter().any(|write| line.contains(write))) {
        let known = of_the_record(line) || line.contains(&made_beside_it) || line.contains("/dev/");
        assert!(known || line.contains("= -1 "), "{line}");
    }
}

#[test]
fn env_record_names_program_and_secrets() {
    let home = home();
    env(&home, &["--only", "API_KEY", "--", "sh", "-c", "exit 3", SECRET]);
    env(&home, &["--only", "NOT_THERE", "--", "true"]);
    env(&home, &["--", "no-such-command-here"]);
    let records = home.audit();
    let of = |n: usize, key: &str| records[n][key].clone();
    assert_eq!(
        (of(0, "method"), of(0, "status"), of(0, "target_url")),
        ("ENV".into(), "OK".into(), "sh".into())
    );
    assert_eq!(of(0, "secret_keys"), serde_json::json!(["API_KEY"]));
    assert_eq!(of(0, "auth_styles"), serde_json::json!(["env_inject"]));
    assert_eq!(of(0, "identity_level"), "kernel");
    let tests = std::env::current_exe().unwrap();
    assert_eq!(of(0, "process")["exe"], tests.to_str().unwrap());
    assert_eq!((of(1, "status"), of(2, "status")), ("ERROR".into(), "ERROR".into()));
    assert_eq!(records.len(), 3);
    let text = serde_json::to_string(&records).unwrap();
    assert!(!text.contains(SECRET) && !text.contains("correct horse"), "{text}");
}

#[test]
fn command_keeps_terminal() {
    let home = home();
    for masked in [&[][..], &["--mask"]] {
        let started = home.agentsecrets(["env"]);
        // The program starts us at a new terminal and types.
        let mut python = command(PYTHON);
        for (name, value) in started.get_envs() {
            value.map(|value| python.env(name, value));
        }
        python.args(["-c", &program("operator_commands/terminal.py"), AGENTSECRETS, "env"]).args(masked);
        let outcome = run(&mut python);
        assert_eq!(outcome.code, Some(0), "{masked:?}: {outcome:#?}");
    }
}

#[test]
fn agent_gets_no_real_values() {
    let fixture = Fixture::new();
    let copy = AgentExecutable::new();
    let inside = run(&mut fixture.home.run_agent([copy.0.as_str(), "env", "--", "env"]));
    assert_eq!(inside.code, Some(4), "{inside:#?}");
    assert!(inside.stderr.contains("no 'env: true'") && !inside.stdout.contains(SECRET), "{inside:#?}");
    let rejected =
        run(&mut fixture.home.run_agent(["curl", "-sS", "https://agentsecrets.invalid/env"])).json();
    assert_eq!(rejected["error"], "policy_denied");
    // An agent's `call` does not get around the terminal that `--reveal` needs.
    let by_call = ["call", "--url", "https://agentsecrets.invalid/env"];
    let by_call = run(&mut fixture.home.agentsecrets(by_call));
    assert!(by_call.code == Some(4) && by_call.stderr.contains("domain_not_in_allowlist"), "{by_call:#?}");
}

#[test]
fn agent_with_env_true_gets_own_secrets() {
    let fixture = Fixture::new();
    fixture.home.set_secret("OTHER", "another-long-value");
    fixture.home.write_policy(
        "version: 1\nagents:\n  - name: coder\n    env: true\n    allow:\n      \
         - { host: api.test, secrets: [API_KEY, NOT_THERE] }\n",
    );
    let copy = AgentExecutable::new();
    let inside = |arguments: &[&str]| run(fixture.home.run_agent([copy.0.as_str(), "env"]).args(arguments));
    let output = inside(&["--", "sh", "-c", "echo $API_KEY ${OTHER-none}; exit 3"]);
    assert_eq!((output.code, output.stdout.trim()), (Some(3), &*format!("{SECRET} none")), "{output:#?}");
    let masked = inside(&["--mask", "--only", "API_KEY", "--", "sh", "-c", "echo $API_KEY"]);
    assert_eq!(masked.ok(), "[REDACTED_BY_AGENTSECRETS]\n");
    for (only, code) in [("OTHER", 4), ("NOT_THERE", 3)] {
        let refused = inside(&["--only", only, "--", "true"]);
        assert_eq!(refused.code, Some(code), "{refused:#?}");
    }
    let records = fixture.home.audit();
    assert_eq!(records.len(), 4);
    assert_eq!((&records[0]["method"], &records[0]["agent_id"]), (&"ENV".into(), &"coder".into()));
    assert_eq!(records[0]["secret_keys"], serde_json::json!(["API_KEY"]));
    assert_eq!(
        (&records[0]["auth_styles"], &records[0]["status"]),
        (&serde_json::json!(["env_inject"]), &"OK".into())
    );
    assert!(!serde_json::to_string(&records).unwrap().contains(SECRET));
}
