//! A program of the operator's own user, outside `run` and without the passphrase: every known way around the
//! admin socket's checks fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use super::*;

/// A Python client of the socket's protocol.
const PROTOCOL_CLIENT: &str = r#"
import array, json, os, socket, struct, sys
def request(words, **more):
    text = {"version": 1, "arguments": [{"Unix": list(w.encode())} for w in words], "display": [],
            "environment": [], "umask": 18, "acting_for": None, "descriptor_roles": []}
    text.update(more)
    return json.dumps(text).encode()
def door():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect("/run/agentsecrets/frontend.sock")
    return s
def send(s, body, fds):
    data = struct.pack(">I", len(body)) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    rest = data[s.sendmsg([data], rights):]
    if rest:  # to send nothing fails once the other side has answered and gone
        s.sendall(rest)
def reply(s):
    data = s.makefile("rb").read()
    text = data[4:].decode()
    print(text, flush=True)
    return json.loads(text)["exit"] if text else 99
"#;

/// A program that requests `words` without our client.
pub(super) fn protocol_request(words: &[&str]) -> String {
    format!("{PROTOCOL_CLIENT}\ns = door()\nsend(s, request({words:?}), [0, 1, 2])\nsys.exit(reply(s))")
}

/// `script` with the protocol client in front.
pub(super) fn protocol_script(script: &str) -> String {
    format!("{PROTOCOL_CLIENT}{script}")
}

/// A machine where alice has a secret and a passphrase.
pub(super) fn guarded_machine() -> Machine {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    machine.store_secret(ALICE, "API_KEY", SECRET);
    machine.write_policy(ALICE, "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n");
    machine
}

/// Runs an attempt of alice's that must get nothing; it may fail in any way.
#[track_caller]
fn assert_gets_nothing(machine: &Machine, attempt: &mut Command) -> Outcome {
    let outcome = run(attempt);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
    let list = run(&mut machine.root_command_for(ALICE, &["secrets", "list"])).ok();
    assert!(list.contains("API_KEY") && !list.contains("EVIL"), "{list}");
    outcome
}

#[test]
fn own_home_key_and_roots_are_ignored() {
    let machine = guarded_machine();
    let own = machine.host_path("home/alice/own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("config.yaml"), "strict: false\n").unwrap();
    chown(&own, Some(ALICE), Some(ALICE)).unwrap();
    let mut get = machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]);
    get.env("AGENTSECRETS_HOME", "/home/alice/own");
    assert_refused(&assert_gets_nothing(&machine, &mut get));
    let theirs = format!("/var/lib/agentsecrets/{ALICE}");
    for (name, value) in [
        ("AGENTSECRETS_HOME", theirs.clone()),
        ("AGENTSECRETS_VAULT_KEY_FILE", format!("{theirs}/key")),
        ("AGENTSECRETS_UPSTREAM_CA", "/home/alice/own/config.yaml".into()),
        ("AGENTSECRETS_INVOCATION", "0".into()),
        ("PATH", "/home/alice/own".into()),
        ("SUDO_UID", "0".into()),
    ] {
        let list = machine.alice_command(&["secrets", "list"]);
        let inner = format!("{name}={value}");
        let words: Vec<_> = list.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
        let at = words.iter().position(|word| word == PROGRAM).unwrap();
        let mut with = command("nsenter");
        with.args(&words[..at]).args(["env", &inner]).args(&words[at..]);
        assert_refused(&assert_gets_nothing(&machine, &mut with));
    }
}

#[test]
fn fake_terminal_does_not_know_passphrase() {
    let machine = guarded_machine();
    let mut get = Terminal::start(&machine.alice_command(&["secrets", "get", "API_KEY", "--reveal"]));
    for _ in 0..3 {
        get.read_until("our passphrase");
        get.read_until(": ");
        get.type_line("a guess of mine");
    }
    let (code, shown) = get.wait();
    assert!(code == Some(4) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn copied_binary_has_no_privilege() {
    let machine = guarded_machine();
    let script = "cp /opt/agentsecrets ~/copy && exec ~/copy secrets get API_KEY --reveal";
    assert_refused(&assert_gets_nothing(&machine, &mut machine.user_command(ALICE, &["sh", "-c", script])));
}

#[test]
fn traced_client_gets_nothing() {
    let machine = guarded_machine();
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
        assert_gets_nothing(&machine, &mut machine.user_command(ALICE, &line));
    }
}

#[test]
fn client_refuses_socket_not_owned_by_root() {
    let machine = guarded_machine();
    // Alice cannot replace the socket.
    let script = "rm -f /run/agentsecrets/frontend.sock; mv /run/agentsecrets/frontend.sock /tmp/; \
                  mkdir /run/agentsecrets/x; test -S /run/agentsecrets/frontend.sock && echo there";
    assert_eq!(run(&mut machine.user_command(ALICE, &["sh", "-c", script])).stdout, "there\n");
    // If she could, our client would refuse it.
    let fake = "import os, socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\ns.bind('/home/alice/door')\ns.listen()\n\
        print('ready', flush=True)\nc, _ = s.accept()\nprint(len(c.recv(100)), flush=True)";
    let mut server = machine.user_command(ALICE, &["python3", "-c", fake]);
    let mut server = server.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let script = "mount --bind /home/alice/door /run/agentsecrets/frontend.sock && exec setpriv --reuid 70001 \
                  --regid 70001 --clear-groups /opt/agentsecrets secrets set X=some-value-1234";
    let outcome = run(&mut machine.root_command(&["unshare", "--mount", "sh", "-c", script]));
    assert!(outcome.code == Some(6) && outcome.stderr.contains("not root's"), "{outcome:?}");
    assert_eq!(lines.next().unwrap().unwrap(), "0", "it was told something");
    server.wait().unwrap();
}

#[test]
fn raw_protocol_client_needs_confirmation() {
    let machine = guarded_machine();
    let run_script =
        |script: &str| run(&mut machine.user_command(ALICE, &["python3", "-c", &protocol_script(script)]));
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
            "f = os.open('/dev/null', 2); s = door(); send(s, request(['secrets','list'], descriptor_roles=['terminal']), [0,1,2,f]); sys.exit(reply(s))",
        ),
        ("the daemon itself", "s = door(); send(s, request(['daemon']), [0,1,2]); sys.exit(reply(s))"),
        ("the interceptor", "s = door(); send(s, request(['interceptor']), [0,1,2]); sys.exit(reply(s))"),
        (
            "the vault's keeping",
            "s = door(); send(s, request(['secrets','vault','backup','/tmp/x']), [0,1,2]); sys.exit(reply(s))",
        ),
        (
            "the monitor's own socket",
            "s = socket.socket(socket.AF_UNIX); print('tried', flush=True); s.connect('/run/agentsecrets/monitor.sock')",
        ),
    ] {
        // It prints a line once it has sent the request.
        let outcome = run_script(&script.replace("sys.exit(", "print('tried', flush=True); sys.exit("));
        assert!(outcome.stdout.contains("tried\n"), "{what}: {outcome:?}");
        assert_ne!(outcome.code, Some(0), "{what}: {outcome:?}");
        assert!(!format!("{outcome:?}").contains("API_KEY"), "{what}: {outcome:?}");
    }
    // Control: the same request works for an authorized user.
    let script =
        "s = door(); send(s, request(['secrets','list'], acting_for=70001), [0,1,2]); sys.exit(reply(s))";
    let outcome = run(&mut machine.root_command(&["python3", "-c", &protocol_script(script)]));
    assert!(outcome.code == Some(0) && outcome.stdout.contains("API_KEY"), "{outcome:?}");
}

#[test]
fn exec_after_connect_keeps_the_caller() {
    let machine = guarded_machine();
    // It becomes root's program, a set-user-id one, or ours: the caller stays the user who connected.
    fs::copy("/bin/sleep", machine.host_path("opt/raised")).unwrap();
    fs::set_permissions(machine.host_path("opt/raised"), fs::Permissions::from_mode(0o4755)).unwrap();
    for program in ["/bin/sleep", "/opt/raised"] {
        let script = format!(
            "s = door(); os.set_inheritable(s.fileno(), True)\n\
             pid = os.fork()\n\
             if pid:\n    send(s, request(['secrets','list']), [0,1,2])\n    os.execv({program:?}, ['sleep', '5'])\n\
             else:\n    code = reply(s)\n    print('code', code, flush=True)\n    os.kill(os.getppid(), 15)\n"
        );
        let outcome = run(&mut machine.user_command(ALICE, &["python3", "-c", &protocol_script(&script)]));
        assert!(!outcome.stdout.contains("API_KEY"), "{program}: {outcome:?}");
        assert!(outcome.stdout.contains("code 4\n"), "{program}: {outcome:?}");
    }
}

#[test]
fn typed_ahead_input_is_discarded() {
    let machine = guarded_machine();
    // A passphrase typed for one act does not answer the next prompt.
    let script = "/opt/agentsecrets secrets get API_KEY; /opt/agentsecrets secrets get API_KEY --reveal";
    let mut both = Terminal::start(&machine.user_command(ALICE, &["sh", "-c", script]));
    both.read_until("Your passphrase for it: ");
    both.type_bytes(format!("{PASSPHRASE}\r{PASSPHRASE}\r").as_bytes());
    both.read_until("get API_KEY --reveal");
    both.read_until("Your passphrase for it: ");
    both.type_bytes(b"\x03");
    let (code, shown) = both.wait();
    assert!(code != Some(0) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn daemon_files_and_processes_are_unreachable() {
    let machine = guarded_machine();
    for path in [format!("/var/lib/agentsecrets/{ALICE}"), format!("/var/lib/agentsecrets/{ALICE}/key")] {
        let outcome = run(&mut machine
            .user_command(ALICE, &["sh", "-c", &format!("cat {path}; ls {path}; echo x > {path}")]));
        assert_eq!((outcome.code == Some(0), &*outcome.stdout), (false, ""), "{outcome:?}");
    }
    let script = format!(
        "for p in {0} $(pgrep -P {0}); do echo tried; cat /proc/$p/environ /proc/$p/mem; ls /proc/$p/fd; kill -9 $p && echo killed; done",
        machine.daemon.id()
    );
    let outcome = run(&mut machine.user_command(ALICE, &["sh", "-c", &script]));
    // At least the daemon's two processes.
    let tried = outcome.stdout.lines().count();
    assert!(tried >= 2 && outcome.stdout == "tried\n".repeat(tried), "{outcome:?}");
    // Nor can she edit the configuration that makes the machine strict.
    let script = "echo 'strict: false' > /etc/agentsecrets/config.yaml; rm -r /etc/agentsecrets; true";
    run(&mut machine.user_command(ALICE, &["sh", "-c", script])).ok();
    assert_refused(&assert_gets_nothing(&machine, &mut machine.alice_command(&["secrets", "list"])));
}
