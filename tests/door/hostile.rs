//! Bytes, descriptors and crowds at the door. Whatever comes, it stays a door, bounded and open to others.

use super::tricks::protocol;
use super::*;

/// That the daemon serves.
#[track_caller]
fn serves(machine: &Machine, uid: u32) {
    finish(&mut machine.user(uid, &[PROGRAM, "status"])).ok();
}

#[test]
fn malformed_requests_are_dropped_or_refused_and_the_next_one_is_served() {
    let machine = Machine::new();
    let script = r#"
import random
def attempt(name, data, fds=(), close=True):
    s = door()
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        if data: s.sendmsg([data], rights)
        if close: s.shutdown(socket.SHUT_WR)
        line = s.recv(65536)
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
attempt("announced, not sent", framed(request(["status"], carried=["terminal"])), (null,) * 3)
attempt("no json", framed(b"hello"), (null,) * 3)
attempt("deep json", framed(b"[" * 100000), (null,) * 3)
attempt("another version", framed(good.replace(b'"version": 1', b'"version": 2')), (null,) * 3)
attempt("unknown keys", framed(good[:-1] + b', "x": 1}'), (null,) * 3)
attempt("a key twice", framed(good[:-1] + b', "version": 1}'), (null,) * 3)
attempt("a zero byte", framed(request(["secrets", "get", "A\0B"])), (null,) * 3)
attempt("a number out of range", framed(request(["status"], acting_for=-1)), (null,) * 3)
attempt("a file that no argument names", framed(request(["status"], carried=[{"file": [9, 9]}])), (null,) * 4)
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
    let outcome = finish(&mut machine.user(ALICE, &["python3", "-c", &protocol(script)]));
    assert_eq!((outcome.code, outcome.stdout.trim()), (Some(0), "done"), "{outcome:?}");
    serves(&machine, ALICE);
    let porter = porter(&machine);
    let open = std::fs::read_dir(format!("/proc/{porter}/fd")).unwrap().count();
    assert!(open < 40, "the porter holds {open} descriptors");
}

#[test]
fn a_thousand_clients_that_say_nothing_keep_nobody_else_out() {
    let machine = Machine::new();
    let script = r#"
held = [door() for _ in range(1000)]
print("ready", flush=True)
sys.stdin.readline()
"#;
    let mut crowd = machine.user(ALICE, &["python3", "-c", &protocol(script)]);
    let mut crowd = crowd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(crowd.stdout.take().unwrap()), &mut said)
        .unwrap();
    assert_eq!(said, "ready\n");
    // Bob is served; and of the crowd only so many are held.
    serves(&machine, BOB);
    finish(&mut machine.root(&[PROGRAM, "status"])).ok();
    let porter = porter(&machine);
    let open = std::fs::read_dir(format!("/proc/{porter}/fd")).unwrap().count();
    assert!(open < 100, "the porter holds {open} descriptors");
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
    serves(&machine, ALICE);
}

#[test]
fn so_many_commands_of_one_person_run_at_a_time_and_anothers_go_on() {
    let machine = Machine::new();
    machine.presence(ALICE);
    let script = r#"
import pty
def ask():
    ours, theirs = pty.openpty()
    s = door()
    send(s, request(["secrets", "list"], carried=["terminal"]), [theirs, theirs, theirs, theirs])
    return s, ours
asked = [ask() for _ in range(40)]
refused = 0
for s, _ in asked[32:]:
    if b"under way" in s.recv(4096): refused += 1
print(refused, flush=True)
sys.stdin.readline()
"#;
    let mut crowd = machine.user(ALICE, &["python3", "-c", &protocol(script)]);
    let mut crowd = crowd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(crowd.stdout.take().unwrap()), &mut said)
        .unwrap();
    assert_eq!(said, "8\n");
    serves(&machine, BOB);
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
}

/// The daemon's process that reads what clients send.
fn porter(machine: &Machine) -> u32 {
    let outcome =
        finish(command("pgrep").args(["-P", &machine.daemon.id().to_string(), "-u", &KEEPER.to_string()]));
    outcome.ok().lines().next().unwrap().parse().unwrap()
}

#[test]
fn the_process_that_reads_what_anybody_sends_has_no_privilege_and_reaches_no_file() {
    let machine = Machine::new();
    // It has become what it is before it serves.
    serves(&machine, ALICE);
    let status = std::fs::read_to_string(format!("/proc/{}/status", porter(&machine))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), vec![KEEPER.to_string(); 4]);
    assert_eq!(field("Gid"), vec![KEEPER.to_string(); 4]);
    assert!(field("Groups").is_empty());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
}
