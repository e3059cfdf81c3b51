//! Every command, run by a program of the operator's own user outside `run` with each known trick: commands
//! that need confirmation are refused, and no stored data is shown or changed. The commands come from clap,
//! so that a new one fails here until its requirement is added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;

use clap::CommandFactory;

use super::bypass::{guarded_machine, protocol_script};
use super::*;

/// A command's requirement.
#[derive(Clone, Copy, PartialEq)]
enum Requirement {
    /// The operator's confirmation.
    Presence,
    /// Not offered over the socket at all.
    Nobody,
    /// None: it shows no value and grants no right, or acts with the caller's own rights.
    Nothing,
}

use Requirement::{Nobody, Nothing, Presence};

/// A command, its arguments, and its requirement.
type Row = (&'static str, &'static [&'static str], Requirement);

const COMMANDS: &[Row] = &[
    ("run", &["--", "true"], Nothing),
    ("call", &["--url", "https://api.test/", "--bearer", "API_KEY"], Presence),
    ("env", &["--", "env"], Presence),
    ("env", &["--only", "API_KEY", "--", "env"], Presence),
    ("exec", &[], Presence),
    // A port on which only root listens: it must not begin to serve here, whichever user it runs as.
    ("proxy start", &["--port", "1"], Nobody),
    ("proxy stop", &[], Nobody),
    ("proxy status", &[], Presence),
    ("proxy logs", &[], Presence),
    ("proxy env", &[], Nobody),
    // In a run of its own.
    ("mcp serve", &[], Nothing),
    ("mcp bridge", &["proxy.call"], Nothing),
    ("mcp bridge", &["status"], Nothing),
    ("mcp install", &["cursor", "--dry-run"], Nothing),
    ("mcp uninstall", &["cursor", "--dry-run"], Nothing),
    ("sidecar", &[], Nothing),
    ("health", &[], Nothing),
    ("secrets set", &["EVIL"], Presence),
    ("secrets set", &["EVIL=a-value-of-some-length"], Presence),
    ("secrets set", &["API_KEY", "--from-file", "/etc/hostname"], Presence),
    ("secrets list", &[], Presence),
    ("secrets get", &["API_KEY"], Presence),
    ("secrets get", &["API_KEY", "--reveal"], Presence),
    ("secrets delete", &["API_KEY"], Presence),
    ("secrets import", &["/etc/hostname"], Presence),
    ("secrets push", &[], Presence),
    ("secrets pull", &[], Presence),
    ("secrets diff", &[], Presence),
    ("secrets vault passphrase", &[], Nobody),
    ("secrets vault key", &["/etc/hostname"], Nobody),
    ("secrets vault backup", &["/tmp/backup"], Nobody),
    ("secrets vault restore", &["/etc/hostname"], Nobody),
    ("environment list", &[], Presence),
    ("environment switch", &["production"], Presence),
    ("environment copy", &["development", "production"], Presence),
    ("environment merge", &["development", "production"], Presence),
    ("project create", &["evil"], Presence),
    ("project list", &[], Presence),
    ("project use", &["default"], Presence),
    ("project update", &["default", "--name", "evil"], Presence),
    ("project delete", &["default", "--force"], Presence),
    ("workspace create", &["evil"], Presence),
    ("workspace list", &[], Presence),
    ("workspace switch", &["evil"], Presence),
    ("workspace members", &[], Presence),
    ("workspace invite", &["evil@api.test"], Presence),
    ("workspace promote", &["evil@api.test"], Presence),
    ("workspace demote", &["evil@api.test"], Presence),
    ("workspace remove", &["evil@api.test"], Presence),
    ("workspace allowlist add", &["evil.test"], Presence),
    ("workspace allowlist remove", &["api.test"], Presence),
    ("workspace allowlist list", &[], Presence),
    ("workspace allowlist log", &[], Presence),
    ("policy check", &[], Nothing),
    ("policy show", &[], Nothing),
    ("policy explain", &["GET", "https://api.test/"], Nothing),
    ("policy set", &["/etc/hostname"], Presence),
    ("agent register", &["coder"], Presence),
    ("agent list", &[], Presence),
    ("agent delete", &["coder"], Presence),
    ("agent token issue", &["--agent", "coder"], Presence),
    ("agent token list", &[], Presence),
    ("agent token revoke", &["--all", "--agent", "coder"], Presence),
    ("agent policy get", &["--agent", "coder"], Presence),
    ("agent policy set", &["--agent", "coder", "--allow", "API_KEY"], Presence),
    ("session start", &["--token"], Presence),
    ("session list", &[], Presence),
    ("session end", &["--all"], Presence),
    ("trust add", &["/usr/bin/env", "--secrets", "API_KEY"], Presence),
    ("trust list", &[], Presence),
    ("trust remove", &["/usr/bin/env"], Presence),
    ("trust update", &["/usr/bin/env"], Presence),
    ("trust update", &["--from-package"], Presence),
    ("whoami", &[], Nothing),
    ("approvals", &[], Presence),
    ("approve", &["k3f7q"], Presence),
    ("approve", &["k3f7q", "--always"], Presence),
    ("deny", &["k3f7q"], Presence),
    ("audit list", &[], Presence),
    ("audit tail", &[], Presence),
    ("audit verify", &[], Presence),
    ("audit export", &[], Presence),
    ("audit export", &["--output", "/tmp/export"], Nobody),
    // Commands that end by themselves even where they are not refused.
    ("audit stream", &["--to", "ftp://127.0.0.1"], Nobody),
    ("audit stream", &["--to", "none", "--metrics", "127.0.0.1:1"], Nobody),
    ("status", &[], Nothing),
    ("doctor", &[], Nothing),
    ("doctor clients", &[], Nothing),
    ("presence set", &[], Presence),
    ("presence forget", &[], Presence),
    ("daemon", &[], Nothing),
    ("daemon install", &[], Nothing),
    ("daemon uninstall", &["--purge"], Nothing),
    ("kubernetes webhook", &["--sidecar", "/etc/hostname"], Nothing),
    ("kubernetes node", &["--node", "x"], Nothing),
    ("kubernetes status", &[], Nothing),
    ("completions", &["bash"], Nothing),
    ("interceptor", &[], Nothing),
];

/// The commands of the command line, including hidden ones.
fn collect_commands(command: &clap::Command, words: &[&str], found: &mut BTreeSet<String>) {
    if !words.is_empty() && (!command.has_subcommands() || !command.is_subcommand_required_set()) {
        found.insert(words.join(" "));
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        collect_commands(below, &[words, &[below.get_name()]].concat(), found);
    }
}

#[test]
fn command_table_is_complete() {
    let mut there = BTreeSet::new();
    collect_commands(&agentsecrets::cli::Cli::command(), &[], &mut there);
    let tried: BTreeSet<String> = COMMANDS.iter().map(|(verb, ..)| (*verb).to_owned()).collect();
    assert_eq!(tried, there, "what is new must be said to take the person, nobody or nothing");
}

/// Runs each line of `lines`; prints its exit code and output.
const RUN_EACH: &str = r#"
import json, os, pty, subprocess, sys, termios
def tried(line, **more):
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    return [done.returncode, done.stdout + done.stderr]
lines = json.loads(sys.argv[1])
"#;

/// Exit code and output of one line.
type Attempt = (i32, String);

/// The results of alice's `script` for each command. They run in batches that stay below the time limit of
/// test programs.
#[track_caller]
fn run_each(machine: &Machine, verbs: &[&Row], script: &str) -> Vec<Attempt> {
    let script = format!("{RUN_EACH}{script}");
    let line = |(verb, more, _): &&Row| verb.split(' ').chain(more.iter().copied()).collect::<Vec<_>>();
    let mut ended: Vec<Attempt> = Vec::new();
    for portion in verbs.chunks(16) {
        let lines = serde_json::to_string(&portion.iter().map(line).collect::<Vec<_>>()).unwrap();
        let output = run(&mut machine.user_command(ALICE, &["python3", "-c", &script, &lines])).ok();
        ended.extend(serde_json::from_str::<Vec<Attempt>>(&output).unwrap());
    }
    assert_eq!(ended.len(), verbs.len());
    ended
}

/// The daemon's stored data for alice, without the records of requests.
fn daemon_state(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut folders = vec![machine.host_path(&format!("var/lib/agentsecrets/{ALICE}"))];
    let mut kept = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            match entry.file_type().unwrap() {
                // The log, its head and its lock.
                _ if entry.file_name().to_string_lossy().starts_with("audit") => {}
                kind if kind.is_dir() => folders.push(path),
                // A run leaves its session, and locks leave a file.
                _ if path.ends_with("capabilities/sessions.json") => {}
                _ => drop(kept.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    kept.retain(|_, content| !content.is_empty());
    kept
}

/// Asserts that `row` showed no stored data.
#[track_caller]
fn assert_shows_nothing((verb, more, _): &Row, (code, output): &Attempt) -> String {
    let tried = format!("{verb} {more:?}: {code}: {output}");
    assert!(!output.contains(SECRET) && !output.contains("AS_SECRET_API_KEY"), "{tried}");
    tried
}

/// Runs every command by `script` and asserts that none had an effect. Those that reach the socket must be
/// refused there explicitly.
#[track_caller]
fn assert_all_refused(machine: &Machine, script: &str, gets_there: bool) {
    let before = daemon_state(machine);
    let verbs: Vec<&Row> = COMMANDS.iter().collect();
    for (row, ended) in verbs.iter().zip(run_each(machine, &verbs, script)) {
        let tried = assert_shows_nothing(row, &ended);
        let what = if row.2 == Presence { "needs your presence" } else { "hint" };
        if gets_there && row.2 != Nothing {
            assert!(ended.0 == 4 && ended.1.contains(what), "{tried}");
        }
    }
    assert_unchanged(machine, &before);
}

/// Asserts that the stored data has not changed.
#[track_caller]
fn assert_unchanged(machine: &Machine, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let now = daemon_state(machine);
    let all: BTreeSet<&PathBuf> = now.keys().chain(before.keys()).collect();
    let changed: Vec<_> = all.into_iter().filter(|path| now.get(*path) != before.get(*path)).collect();
    assert!(before.len() > 3 && changed.is_empty(), "{changed:?}");
}

#[test]
fn plain_client_gets_nothing() {
    let machine = guarded_machine();
    let script = format!("print(json.dumps([tried([{PROGRAM:?}] + l) for l in lines]))");
    assert_all_refused(&machine, &script, true);
}

#[test]
fn own_home_key_and_roots_get_nothing() {
    let machine = guarded_machine();
    let own = machine.host_path("home/alice/own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("config.yaml"), "strict: false\n").unwrap();
    chown(&own, Some(ALICE), Some(ALICE)).unwrap();
    let theirs = format!("/var/lib/agentsecrets/{ALICE}");
    let script = format!(
        "own = dict(os.environ, HOME='/home/alice/own', AGENTSECRETS_HOME='/home/alice/own', AGENTSECRETS_INVOCATION='0',
            SUDO_UID='0', AGENTSECRETS_VAULT_KEY_FILE='{theirs}/key', AGENTSECRETS_UPSTREAM_CA='/etc/hostname')
print(json.dumps([tried([{PROGRAM:?}] + l, env=own) for l in lines]))"
    );
    assert_all_refused(&machine, &script, true);
}

#[test]
fn preloaded_uid_library_gets_nothing() {
    let machine = guarded_machine();
    let code = "#include <unistd.h>\n#include <stdlib.h>\n\
        int isatty(int fd) { return 1; }\n\
        static unsigned who(void) { return atoi(getenv(\"WHO\")); }\n\
        uid_t getuid(void) { return who(); }\nuid_t geteuid(void) { return who(); }\n";
    fs::write(machine.host_path("opt/lib.c"), code).unwrap();
    run(&mut machine.root_command(&["gcc", "-shared", "-fPIC", "-o", "/opt/lib.so", "/opt/lib.c"])).ok();
    for who in [0, DAEMON_UID] {
        let script = format!(
            "own = dict(os.environ, LD_PRELOAD='/opt/lib.so', WHO='{who}')
assert tried(['id', '-u'], env=own)[1] == '{who}\\n', 'the library is at work'
print(json.dumps([tried([{PROGRAM:?}] + l, env=own) for l in lines]))"
        );
        // As the daemon's user the client does not use the socket, and acts on alice's own files.
        assert_all_refused(&machine, &script, who == 0);
    }
}

#[test]
fn raw_protocol_gets_nothing() {
    let machine = guarded_machine();
    let script = protocol_script(
        "
null = os.open('/dev/null', os.O_RDWR)
def ask(line):
    said = os.memfd_create('said')
    s = door()
    send(s, request(line), [null, said, said])
    answer = s.makefile('rb').read()[4:].decode()
    os.lseek(said, 0, 0)
    reply = json.loads(answer)
    return [reply['exit'], os.read(said, 1 << 20).decode() + answer]
print(json.dumps([ask(l) for l in lines]))",
    );
    assert_all_refused(&machine, &script, true);
}

#[test]
fn fake_terminal_gets_nothing() {
    let machine = guarded_machine();
    // At a terminal it is prompted, and does not know the passphrase.
    let script = format!(
        "
def typed(line):
    pid, screen = pty.fork()
    if pid == 0: os.execv({PROGRAM:?}, [{PROGRAM:?}] + line)
    said = ''
    asked = b'Your passphrase for it: '
    while True:
        try: more = os.read(screen, 65536)
        except OSError: break
        if not more: break
        said += more.decode(errors='replace')
        if asked.decode() in said and asked:
            os.write(screen, b'\\x03')
            asked = b''
    os.close(screen)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said]
print(json.dumps([typed(l) for l in lines]))"
    );
    let before = daemon_state(&machine);
    let commands: Vec<&Row> = COMMANDS.iter().filter(|row| row.2 == Presence).collect();
    for (row, ended) in commands.iter().zip(run_each(&machine, &commands, &script)) {
        let tried = assert_shows_nothing(row, &ended);
        // The act is shown above the prompt.
        let is_asked =
            ended.1.contains("AgentSecrets is to do this for you:\r\n  ") && ended.1.contains(row.0);
        assert!(is_asked && ended.0 != 0, "{tried}");
    }
    assert_unchanged(&machine, &before);
}
