//! A program of the person's own user, outside `run`, without the passphrase: each way around the door that
//! we know of, and that it leads nowhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use super::*;

/// Python that speaks the door's protocol by itself.
const PROTOCOL: &str = r#"
import array, json, os, socket, struct, sys
def request(words, **more):
    text = {"version": 1, "arguments": [{"Unix": list(w.encode())} for w in words], "display": [],
            "environment": [], "umask": 18, "acting_for": None, "carried": []}
    text.update(more)
    return json.dumps(text).encode()
def door():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect("/run/agentsecrets/door.sock")
    return s
def send(s, body, fds):
    data = struct.pack(">I", len(body)) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    rest = data[s.sendmsg([data], rights):]
    if rest:  # to send nothing fails once the other side has answered and gone
        s.sendall(rest)
def reply(s):
    line = s.makefile().readline()
    print(line, end="", flush=True)
    return json.loads(line)["exit"] if line else 99
"#;

/// A program that asks for `words` without our client.
pub(super) fn speak(words: &[&str]) -> String {
    format!("{PROTOCOL}\ns = door()\nsend(s, request({words:?}), [0, 1, 2])\nsys.exit(reply(s))")
}

/// What follows on the protocol.
pub(super) fn protocol(script: &str) -> String {
    format!("{PROTOCOL}{script}")
}

/// A machine where alice has a secret and a passphrase.
pub(super) fn guarded() -> Machine {
    let machine = Machine::new();
    machine.presence(ALICE);
    machine.store(ALICE, "API_KEY", SECRET);
    machine.policy(ALICE, "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n");
    machine
}

/// The attempt of a program of alice's that must get nothing, but may fail in any way.
#[track_caller]
fn gets_nothing(machine: &Machine, wanted: &mut Command) -> Outcome {
    let outcome = finish(wanted);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
    let list = finish(&mut machine.for_user(ALICE, &["secrets", "list"])).ok();
    assert!(list.contains("API_KEY") && !list.contains("EVIL"), "{list}");
    outcome
}

#[test]
fn a_home_a_key_and_roots_of_its_own_change_nothing() {
    let machine = guarded();
    let own = machine.inside("home/alice/own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("config.yaml"), "strict: false\n").unwrap();
    chown(&own, Some(ALICE), Some(ALICE)).unwrap();
    let mut get = machine.alice(&["secrets", "get", "API_KEY", "--reveal"]);
    get.env("AGENTSECRETS_HOME", "/home/alice/own");
    assert_refused(&gets_nothing(&machine, &mut get));
    let theirs = format!("/var/lib/agentsecrets/{ALICE}");
    for (name, value) in [
        ("AGENTSECRETS_HOME", theirs.clone()),
        ("AGENTSECRETS_VAULT_KEY_FILE", format!("{theirs}/key")),
        ("AGENTSECRETS_UPSTREAM_CA", "/home/alice/own/config.yaml".into()),
        ("AGENTSECRETS_DOOR", "0".into()),
        ("PATH", "/home/alice/own".into()),
        ("SUDO_UID", "0".into()),
    ] {
        let list = machine.alice(&["secrets", "list"]);
        let inner = format!("{name}={value}");
        let words: Vec<_> = list.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
        let at = words.iter().position(|word| word == PROGRAM).unwrap();
        let mut with = command("nsenter");
        with.args(&words[..at]).args(["env", &inner]).args(&words[at..]);
        assert_refused(&gets_nothing(&machine, &mut with));
    }
}

#[test]
fn a_terminal_of_its_own_does_not_know_the_passphrase() {
    let machine = guarded();
    let mut get = Terminal::start(&machine.alice(&["secrets", "get", "API_KEY", "--reveal"]));
    for _ in 0..3 {
        get.until("our passphrase");
        get.until(": ");
        get.enter("a guess of mine");
    }
    let (code, shown) = get.end();
    assert!(code == Some(4) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn a_copy_of_our_program_is_no_more_than_any_other() {
    let machine = guarded();
    let script = "cp /opt/agentsecrets ~/copy && exec ~/copy secrets get API_KEY --reveal";
    assert_refused(&gets_nothing(&machine, &mut machine.user(ALICE, &["sh", "-c", script])));
}

#[test]
fn a_traced_client_lies_in_vain() {
    let machine = guarded();
    for who in ["0", "70000"] {
        let inject = format!("inject=getuid,geteuid:retval={who}");
        let line = [
            "env",
            "SUDO_UID=70001",
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &inject,
            PROGRAM,
            "secrets",
            "list",
        ];
        gets_nothing(&machine, &mut machine.user(ALICE, &line));
    }
}

#[test]
fn a_door_that_is_not_roots_is_told_nothing() {
    let machine = guarded();
    // Alice cannot put one in its place.
    let script = "rm -f /run/agentsecrets/door.sock; mv /run/agentsecrets/door.sock /tmp/; \
                  mkdir /run/agentsecrets/x; test -S /run/agentsecrets/door.sock && echo there";
    assert_eq!(finish(&mut machine.user(ALICE, &["sh", "-c", script])).stdout, "there\n");
    // Were one there, our client would not speak to it.
    let fake = "import os, socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\ns.bind('/home/alice/door')\ns.listen()\n\
        print('ready', flush=True)\nc, _ = s.accept()\nprint(len(c.recv(100)), flush=True)";
    let mut server = machine.user(ALICE, &["python3", "-c", fake]);
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let script = "mount --bind /home/alice/door /run/agentsecrets/door.sock && exec setpriv --reuid 70001 \
                  --regid 70001 --clear-groups /opt/agentsecrets secrets set X=some-value-1234";
    let outcome = finish(&mut machine.root(&["unshare", "--mount", "sh", "-c", script]));
    assert!(outcome.code == Some(6) && outcome.stderr.contains("not root's"), "{outcome:?}");
    assert_eq!(lines.next().unwrap().unwrap(), "0", "it was told something");
    server.wait().unwrap();
}

#[test]
fn speaking_the_protocol_itself_it_is_asked_like_everybody() {
    let machine = guarded();
    let run = |script: &str| finish(&mut machine.user(ALICE, &["python3", "-c", &protocol(script)]));
    for (what, script) in [
        (
            "the plain request",
            "s = door(); send(s, request(['secrets','list']), [0,1,2]); sys.exit(reply(s))",
        ),
        (
            "for somebody else",
            "s = door(); send(s, request(['secrets','list'], acting_for=0), [0,1,2]); sys.exit(reply(s))",
        ),
        (
            "variables of its own",
            "s = door(); send(s, request(['secrets','list'], display=[['LD_PRELOAD','/tmp/x']]), [0,1,2]); sys.exit(reply(s))",
        ),
        (
            "a terminal that is none",
            "f = os.open('/dev/null', 2); s = door(); send(s, request(['secrets','list'], carried=['terminal']), [0,1,2,f]); sys.exit(reply(s))",
        ),
        ("the daemon itself", "s = door(); send(s, request(['daemon']), [0,1,2]); sys.exit(reply(s))"),
        ("the interceptor", "s = door(); send(s, request(['interceptor']), [0,1,2]); sys.exit(reply(s))"),
        (
            "the vault's keeping",
            "s = door(); send(s, request(['secrets','vault','backup','/tmp/x']), [0,1,2]); sys.exit(reply(s))",
        ),
        (
            "the starter's own socket",
            "s = socket.socket(socket.AF_UNIX); print('tried', flush=True); s.connect('/run/agentsecrets/starter.sock')",
        ),
    ] {
        // It says so once it has asked.
        let outcome = run(&script.replace("sys.exit(", "print('tried', flush=True); sys.exit("));
        assert!(outcome.stdout.contains("tried\n"), "{what}: {outcome:?}");
        assert_ne!(outcome.code, Some(0), "{what}: {outcome:?}");
        assert!(!format!("{outcome:?}").contains("API_KEY"), "{what}: {outcome:?}");
    }
    // The same words work for who may, so that it is not the protocol that failed.
    let script =
        "s = door(); send(s, request(['secrets','list'], acting_for=70001), [0,1,2]); sys.exit(reply(s))";
    let outcome = finish(&mut machine.root(&["python3", "-c", &protocol(script)]));
    assert!(outcome.code == Some(0) && outcome.stdout.contains("API_KEY"), "{outcome:?}");
}

#[test]
fn to_connect_and_become_another_program_is_no_way_in() {
    let machine = guarded();
    // What it becomes is root's own, set-user-id, or ours: it stays the user who connected.
    fs::copy("/bin/sleep", machine.inside("opt/raised")).unwrap();
    fs::set_permissions(machine.inside("opt/raised"), fs::Permissions::from_mode(0o4755)).unwrap();
    for program in ["/bin/sleep", "/opt/raised"] {
        let script = format!(
            "s = door(); os.set_inheritable(s.fileno(), True)\n\
             pid = os.fork()\n\
             if pid:\n    send(s, request(['secrets','list']), [0,1,2])\n    os.execv({program:?}, ['sleep', '5'])\n\
             else:\n    code = reply(s)\n    print('code', code, flush=True)\n    os.kill(os.getppid(), 15)\n"
        );
        let outcome = finish(&mut machine.user(ALICE, &["python3", "-c", &protocol(&script)]));
        assert!(!outcome.stdout.contains("API_KEY"), "{program}: {outcome:?}");
        assert!(outcome.stdout.contains("code 4\n"), "{program}: {outcome:?}");
    }
}

#[test]
fn what_is_typed_ahead_is_no_passphrase() {
    let machine = guarded();
    // A person's passphrase for one act does not answer the next question.
    let script = "/opt/agentsecrets secrets get API_KEY; /opt/agentsecrets secrets get API_KEY --reveal";
    let mut both = Terminal::start(&machine.user(ALICE, &["sh", "-c", script]));
    both.until("Your passphrase for it: ");
    both.type_in(format!("{PASSPHRASE}\r{PASSPHRASE}\r").as_bytes());
    both.until("get API_KEY --reveal");
    both.until("Your passphrase for it: ");
    both.type_in(b"\x03");
    let (code, shown) = both.end();
    assert!(code != Some(0) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn the_files_and_the_processes_of_the_door_are_out_of_reach() {
    let machine = guarded();
    for path in [format!("/var/lib/agentsecrets/{ALICE}"), format!("/var/lib/agentsecrets/{ALICE}/key")] {
        let outcome = finish(
            &mut machine.user(ALICE, &["sh", "-c", &format!("cat {path}; ls {path}; echo x > {path}")]),
        );
        assert_eq!((outcome.code == Some(0), &*outcome.stdout), (false, ""), "{outcome:?}");
    }
    let script = format!(
        "for p in {0} $(pgrep -P {0}); do echo tried; cat /proc/$p/environ /proc/$p/mem; ls /proc/$p/fd; kill -9 $p && echo killed; done",
        machine.daemon.id()
    );
    let outcome = finish(&mut machine.user(ALICE, &["sh", "-c", &script]));
    // The daemon's two processes at least.
    let tried = outcome.stdout.lines().count();
    assert!(tried >= 2 && outcome.stdout == "tried\n".repeat(tried), "{outcome:?}");
    // And who edits what makes the machine strict?
    let script = "echo 'strict: false' > /etc/agentsecrets/config.yaml; rm -r /etc/agentsecrets; true";
    finish(&mut machine.user(ALICE, &["sh", "-c", script])).ok();
    assert_refused(&gets_nothing(&machine, &mut machine.alice(&["secrets", "list"])));
}
