//! Malformed requests, descriptors and many clients at the admin socket: it stays bounded and available to
//! others.

use super::bypass::protocol_script;
use super::*;

/// Asserts that the daemon serves.
#[track_caller]
fn assert_serving(machine: &Machine, uid: u32) {
    run(&mut machine.user_command(uid, &[PROGRAM, "status"])).ok();
}

#[test]
fn malformed_requests_are_refused() {
    let machine = Machine::new();
    let script = r#"
import random
def attempt(name, data, fds=(), close=True):
    s = door()
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        if data: s.sendmsg([data], rights)
        if close: s.shutdown(socket.SHUT_WR)
        line = s.recv(65536)[4:]
    except (BrokenPipeError, ConnectionResetError):
        line = b""
    # Without an answer, or with one that is a refusal.
    assert not line or json.loads(line)["exit"] != 0, (name, line)
null = os.open("/dev/null", os.O_RDWR)
framed = lambda body: struct.pack(">I", len(body)) + body
good = request(["status"])
attempt("nothing", b"")
attempt("half a length", b"\0\0")
attempt("no body", struct.pack(">I", 0))
attempt("a huge body", struct.pack(">I", 0xffffffff) + b"x" * 1000, (null,) * 3)
attempt("one byte too long", struct.pack(">I", (4 << 20) + 1), (null,) * 3)
attempt("truncated", framed(good)[:-1], (null,) * 3)
attempt("no descriptors", framed(good))
attempt("two descriptors", framed(good), (null,) * 2)
attempt("one too many", framed(good), (null,) * 4)
attempt("a crowd of descriptors", framed(good), (null,) * 200)
attempt("announced, not sent", framed(request(["status"], descriptor_roles=["terminal"])), (null,) * 3)
attempt("no json", framed(b"hello"), (null,) * 3)
attempt("deep json", framed(b"[" * 100000), (null,) * 3)
attempt("another version", framed(good.replace(b'"version": 1', b'"version": 2')), (null,) * 3)
attempt("unknown keys", framed(good[:-1] + b', "x": 1}'), (null,) * 3)
attempt("a key twice", framed(good[:-1] + b', "version": 1}'), (null,) * 3)
attempt("a zero byte", framed(request(["secrets", "get", "A\0B"])), (null,) * 3)
attempt("a number out of range", framed(request(["status"], acting_for=-1)), (null,) * 3)
attempt("a file that no argument names", framed(request(["status"], descriptor_roles=[{"file": [9, 9]}])), (null,) * 4)
attempt("many arguments", framed(request(["x"] * 5000)), (null,) * 3)
door_itself = door()
attempt("the door's own socket", framed(request(["secrets", "list"])), (door_itself.fileno(),) * 3)
random.seed(7)
for _ in range(200):
    body = bytearray(framed(good))
    for _ in range(random.randrange(1, 8)):
        body[random.randrange(4, len(body))] = random.randrange(256)
    s = door()
    s.sendmsg([bytes(body)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (null,) * 3))])
    s.shutdown(socket.SHUT_WR)
    try: s.recv(65536)
    except ConnectionResetError: pass
print("done")
"#;
    let outcome = run(&mut machine.user_command(ALICE, &["python3", "-c", &protocol_script(script)]));
    assert_eq!((outcome.code, outcome.stdout.trim()), (Some(0), "done"), "{outcome:?}");
    assert_serving(&machine, ALICE);
    let frontend_pid = frontend(&machine);
    let open = std::fs::read_dir(format!("/proc/{frontend_pid}/fd")).unwrap().count();
    assert!(open < 40, "the frontend holds {open} descriptors");
}

#[test]
fn idle_clients_do_not_block_others() {
    let machine = Machine::new();
    let script = r#"
held = [door() for _ in range(1000)]
print("ready", flush=True)
sys.stdin.readline()
"#;
    let mut crowd = machine.user_command(ALICE, &["python3", "-c", &protocol_script(script)]);
    let mut crowd = crowd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(crowd.stdout.take().unwrap()), &mut output)
        .unwrap();
    assert_eq!(output, "ready\n");
    // Bob is served, and only a limited number of the other connections stays open.
    assert_serving(&machine, BOB);
    run(&mut machine.root_command(&[PROGRAM, "status"])).ok();
    let frontend_pid = frontend(&machine);
    let open = std::fs::read_dir(format!("/proc/{frontend_pid}/fd")).unwrap().count();
    assert!(open < 100, "the frontend holds {open} descriptors");
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
    assert_serving(&machine, ALICE);
}

#[test]
fn concurrent_commands_are_limited_per_user() {
    let machine = Machine::new();
    machine.set_passphrase(ALICE);
    let script = r#"
import pty
def ask():
    ours, theirs = pty.openpty()
    s = door()
    send(s, request(["secrets", "list"], descriptor_roles=["terminal"]), [theirs, theirs, theirs, theirs])
    return s, ours
asked = [ask() for _ in range(40)]
refused = 0
for s, _ in asked[32:]:
    if b"under way" in s.recv(4096): refused += 1
print(refused, flush=True)
sys.stdin.readline()
"#;
    let mut crowd = machine.user_command(ALICE, &["python3", "-c", &protocol_script(script)]);
    let mut crowd = crowd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(crowd.stdout.take().unwrap()), &mut output)
        .unwrap();
    assert_eq!(output, "8\n");
    assert_serving(&machine, BOB);
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
}

/// The daemon's process that reads client input.
fn frontend(machine: &Machine) -> u32 {
    let outcome =
        run(command("pgrep").args(["-P", &machine.daemon.id().to_string(), "-u", &DAEMON_UID.to_string()]));
    outcome.ok().lines().next().unwrap().parse().unwrap()
}

#[test]
fn frontend_is_unprivileged_and_reaches_no_file() {
    let machine = Machine::new();
    // It has dropped its privileges before it serves.
    assert_serving(&machine, ALICE);
    let status = std::fs::read_to_string(format!("/proc/{}/status", frontend(&machine))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), vec![DAEMON_UID.to_string(); 4]);
    assert_eq!(field("Gid"), vec![DAEMON_UID.to_string(); 4]);
    assert!(field("Groups").is_empty());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
}
