//! Every verb that there is, by a program of the person's own user outside `run`, with each trick that we know:
//! what takes the person is refused, and nothing of what the daemon keeps is shown or changed. The verbs are
//! those of the command line itself: one that is new fails here until somebody says what it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;

use clap::CommandFactory;

use super::tricks::{guarded, protocol};
use super::*;

/// What a verb takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// The person.
    Presence,
    /// It is not offered through the door, to nobody.
    Nobody,
    /// It shows no value and gives no right, or acts with the caller's own rights alone.
    Nothing,
}

use Takes::{Nobody, Nothing, Presence};

/// A verb with what makes it whole, and what it takes.
type Row = (&'static str, &'static [&'static str], Takes);

const VERBS: &[Row] = &[
    ("run", &["--", "true"], Nothing),
    ("call", &["--url", "https://api.test/", "--bearer", "API_KEY"], Presence),
    ("env", &["--", "env"], Presence),
    ("env", &["--only", "API_KEY", "--", "env"], Presence),
    ("exec", &[], Presence),
    // A port that nobody but root listens on: it must not begin to serve here, whoever it takes itself for.
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
    // Of those that end by themselves where they are not refused.
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

/// The verbs of the command line, hidden ones too.
fn verbs(command: &clap::Command, words: &[&str], found: &mut BTreeSet<String>) {
    if !words.is_empty() && (!command.has_subcommands() || !command.is_subcommand_required_set()) {
        found.insert(words.join(" "));
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        verbs(below, &[words, &[below.get_name()]].concat(), found);
    }
}

#[test]
fn every_verb_of_the_command_line_is_tried() {
    let mut there = BTreeSet::new();
    verbs(&agentsecrets::cli::Cli::command(), &[], &mut there);
    let tried: BTreeSet<String> = VERBS.iter().map(|(verb, ..)| (*verb).to_owned()).collect();
    assert_eq!(tried, there, "what is new must be said to take the person, nobody or nothing");
}

/// What runs each of the lines of `lines`, and prints how each ended and what it said.
const TRY: &str = r#"
import json, os, pty, subprocess, sys, termios
def tried(line, **more):
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    return [done.returncode, done.stdout + done.stderr]
lines = json.loads(sys.argv[1])
"#;

/// How one line ended, and what it said.
type Ended = (i32, String);

/// How alice's `script` ends for each of `verbs`. They are tried in portions, none of which may take longer than
/// programs of tests do.
#[track_caller]
fn each(machine: &Machine, verbs: &[&Row], script: &str) -> Vec<Ended> {
    let script = format!("{TRY}{script}");
    let line = |(verb, more, _): &&Row| verb.split(' ').chain(more.iter().copied()).collect::<Vec<_>>();
    let mut ended: Vec<Ended> = Vec::new();
    for portion in verbs.chunks(16) {
        let lines = serde_json::to_string(&portion.iter().map(line).collect::<Vec<_>>()).unwrap();
        let said = finish(&mut machine.user(ALICE, &["python3", "-c", &script, &lines])).ok();
        ended.extend(serde_json::from_str::<Vec<Ended>>(&said).unwrap());
    }
    assert_eq!(ended.len(), verbs.len());
    ended
}

/// What the daemon keeps for alice, but for the records of what was asked.
fn kept(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut folders = vec![machine.inside(&format!("var/lib/agentsecrets/{ALICE}"))];
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

/// Asserts that nothing of what the daemon keeps was shown in trying `row`.
#[track_caller]
fn shows_nothing((verb, more, _): &Row, (code, said): &Ended) -> String {
    let tried = format!("{verb} {more:?}: {code}: {said}");
    assert!(!said.contains(SECRET) && !said.contains("AS_SECRET_API_KEY"), "{tried}");
    tried
}

/// Tries every verb by `script`, and asserts that nothing came of it. One that gets to the door is refused there,
/// in so many words.
#[track_caller]
fn nothing_comes_of(machine: &Machine, script: &str, gets_there: bool) {
    let before = kept(machine);
    let verbs: Vec<&Row> = VERBS.iter().collect();
    for (row, ended) in verbs.iter().zip(each(machine, &verbs, script)) {
        let tried = shows_nothing(row, &ended);
        let what = if row.2 == Presence { "needs your presence" } else { "hint" };
        if gets_there && row.2 != Nothing {
            assert!(ended.0 == 4 && ended.1.contains(what), "{tried}");
        }
    }
    unchanged(machine, &before);
}

/// Asserts that what is kept is what it was.
#[track_caller]
fn unchanged(machine: &Machine, before: &BTreeMap<PathBuf, Vec<u8>>) {
    let now = kept(machine);
    let all: BTreeSet<&PathBuf> = now.keys().chain(before.keys()).collect();
    let changed: Vec<_> = all.into_iter().filter(|path| now.get(*path) != before.get(*path)).collect();
    assert!(before.len() > 3 && changed.is_empty(), "{changed:?}");
}

#[test]
fn by_calling_us() {
    let machine = guarded();
    let script = format!("print(json.dumps([tried([{PROGRAM:?}] + l) for l in lines]))");
    nothing_comes_of(&machine, &script, true);
}

#[test]
fn with_a_home_a_key_and_roots_of_its_own() {
    let machine = guarded();
    let own = machine.inside("home/alice/own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("config.yaml"), "strict: false\n").unwrap();
    chown(&own, Some(ALICE), Some(ALICE)).unwrap();
    let theirs = format!("/var/lib/agentsecrets/{ALICE}");
    let script = format!(
        "own = dict(os.environ, HOME='/home/alice/own', AGENTSECRETS_HOME='/home/alice/own', AGENTSECRETS_DOOR='0',
            SUDO_UID='0', AGENTSECRETS_VAULT_KEY_FILE='{theirs}/key', AGENTSECRETS_UPSTREAM_CA='/etc/hostname')
print(json.dumps([tried([{PROGRAM:?}] + l, env=own) for l in lines]))"
    );
    nothing_comes_of(&machine, &script, true);
}

#[test]
fn by_a_library_in_our_client_that_makes_it_root_or_the_daemons_user() {
    let machine = guarded();
    let code = "#include <unistd.h>\n#include <stdlib.h>\n\
        int isatty(int fd) { return 1; }\n\
        static unsigned who(void) { return atoi(getenv(\"WHO\")); }\n\
        uid_t getuid(void) { return who(); }\nuid_t geteuid(void) { return who(); }\n";
    fs::write(machine.inside("opt/lib.c"), code).unwrap();
    finish(&mut machine.root(&["gcc", "-shared", "-fPIC", "-o", "/opt/lib.so", "/opt/lib.c"])).ok();
    for who in [0, KEEPER] {
        let script = format!(
            "own = dict(os.environ, LD_PRELOAD='/opt/lib.so', WHO='{who}')
assert tried(['id', '-u'], env=own)[1] == '{who}\\n', 'the library is at work'
print(json.dumps([tried([{PROGRAM:?}] + l, env=own) for l in lines]))"
        );
        // As the daemon's user it does not go to the door, and acts on what is alice's own.
        nothing_comes_of(&machine, &script, who == 0);
    }
}

#[test]
fn by_speaking_to_the_door_itself() {
    let machine = guarded();
    let script = protocol(
        "
null = os.open('/dev/null', os.O_RDWR)
def ask(line):
    said = os.memfd_create('said')
    s = door()
    send(s, request(line), [null, said, said])
    answer = s.makefile().readline()
    os.lseek(said, 0, 0)
    reply = json.loads(answer)
    return [reply['exit'], os.read(said, 1 << 20).decode() + answer]
print(json.dumps([ask(l) for l in lines]))",
    );
    nothing_comes_of(&machine, &script, true);
}

#[test]
fn at_a_terminal_that_it_made() {
    let machine = guarded();
    // There it is asked, and does not know the answer.
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
    let before = kept(&machine);
    let asked: Vec<&Row> = VERBS.iter().filter(|row| row.2 == Presence).collect();
    for (row, ended) in asked.iter().zip(each(&machine, &asked, &script)) {
        let tried = shows_nothing(row, &ended);
        // What would be agreed to stands above the question.
        let is_asked =
            ended.1.contains("AgentSecrets is to do this for you:\r\n  ") && ended.1.contains(row.0);
        assert!(is_asked && ended.0 != 0, "{tried}");
    }
    unchanged(&machine, &before);
}
