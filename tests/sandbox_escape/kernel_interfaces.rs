//! Access to other programs and to the kernel without packets: socket families, terminals, buses, and
//! privileged system calls. Each is tried inside the sandbox and outside.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};

use crate::launch::launch;
use crate::support::process::{command, run};

const PRELUDE: &str = r"
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    ctypes.set_errno(0)
    result = libc.syscall(number, *words)
    return 'done' if result >= 0 else errno.errorcode.get(ctypes.get_errno(), '?')
def tried(attempt):
    try: return str(attempt() or 'done')
    except OSError as error: return errno.errorcode[error.errno]
";

fn run_inside(script: &str) -> Vec<String> {
    run(&mut launch(&[], &["/usr/bin/python3", "-c", &format!("{PRELUDE}{script}")])).lines()
}

/// Runs without a sandbox, as root.
fn run_outside(script: &str) -> Vec<String> {
    run(command("/usr/bin/python3").args(["-c", &format!("{PRELUDE}{script}")])).lines()
}

#[test]
fn other_socket_families_are_blocked() {
    // PACKET, VSOCK, ALG, XDP, SMC, TIPC, KCM, RDS, BLUETOOTH, CAN, QIPCRTR, PHONET, X25, LLC, IEEE802154
    let script = r"
for family in (17, 40, 38, 44, 43, 30, 41, 21, 31, 29, 42, 35, 9, 26, 36):
    print(max(call(41, family, kind, 0) for kind in (1, 2, 3, 5)), call(41, family | 1 << 32, 1, 0))";
    for line in run_inside(script) {
        assert_eq!(line, "EPERM EPERM");
    }
    assert!(run_outside(script).iter().any(|line| line.contains("done")));
}

/// The routing table may be read, as `getaddrinfo` does; other netlink families are denied, one of which
/// carries messages between programs.
#[test]
fn netlink_beyond_routing_is_blocked() {
    let script = r"
for protocol in (2, 4, 9, 12, 15, 16, 21): print(tried(lambda: socket.socket(socket.AF_NETLINK, 3, protocol).close()))
print(tried(lambda: socket.getaddrinfo('localhost', 80)) != '')
print(tried(lambda: socket.socket(socket.AF_NETLINK, 3, 0).close()))
print(tried(lambda: socket.if_nameindex()) != '')";
    let output = run_inside(script);
    assert_eq!(output[..7], ["EPERM"; 7], "{output:?}");
    assert_eq!(output[7..], ["True", "done", "True"]);
    assert!(run_outside(script)[..7].iter().filter(|line| *line == "done").count() >= 4);
}

#[test]
fn privileged_system_calls_are_blocked() {
    // bpf, perf_event_open, userfaultfd, keyctl, add_key, request_key, open_by_handle_at, fanotify_init,
    // pidfd_getfd, process_vm_readv, kcmp, init_module, mount, setns, chroot, quotactl, kexec_load
    let script = r"
for number in (321, 298, 323, 250, 248, 249, 304, 300, 438, 310, 312, 175, 165, 308, 161, 179, 246):
    print(call(number, 0, 0, 0, 0, 0))";
    assert_eq!(run_inside(script), ["EPERM"; 17]);
    assert!(run_outside(script).iter().filter(|line| *line != "EPERM").count() > 12);
}

#[test]
fn compat_system_calls_are_blocked() {
    let open = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let program = folder.path().join("compat");
    std::fs::write(folder.path().join("compat.c"), include_str!("compat.c")).unwrap();
    run(command("gcc").args(["-O1", "-o"]).arg(&program).arg(folder.path().join("compat.c"))).ok();
    let program = program.to_str().unwrap();
    // The 32-bit table by `int 0x80` is killed at once; the x32 table does not exist.
    assert_eq!(run(&mut launch(&[], &[program, "i386"])).code, Some(128 + libc::SIGSYS));
    assert_eq!(run(&mut launch(&[], &[program, "x32"])).ok(), "-38\n");
    let outside = run(command(program).arg("i386")).ok();
    assert!(outside.trim().parse::<i32>().unwrap() >= 0, "a packet socket: {outside}");
}

#[test]
fn terminal_input_injection_is_blocked() {
    let script = r"
import fcntl, pty, termios
master, slave = pty.openpty()
os.setsid() if os.getpid() != os.getsid(0) else None
for request in (0x5412, 0x541c, 0x5412 | 1 << 32): print(call(16, slave, ctypes.c_ulong(request), b'x'))
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
print(call(16, slave, ctypes.c_ulong(0x5412), b'x'))";
    let output = run_inside(script);
    assert_eq!((&*output[0], &*output[1], &*output[2]), ("EPERM", "EPERM", "EPERM"));
    assert_eq!(run_outside(script)[0], "done", "root types where it likes");
}

/// Engines, buses and loggers act outside on behalf of any client.
#[test]
fn container_engine_and_bus_sockets_are_blocked() {
    let open = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
    let path = |name: &str| folder.path().join(name);
    let _engine = UnixListener::bind(path("docker.sock")).unwrap();
    let _logger = UnixDatagram::bind(path("log")).unwrap();
    let mut bus = command("dbus-daemon")
        .args(["--session", "--nofork", "--print-address=1", "--address"])
        .arg(format!("unix:path={}", path("bus").display()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(bus.stdout.take().unwrap()), &mut line).unwrap();
    for name in ["docker.sock", "log", "bus"] {
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = format!(
        "
folder = '{}'
for name, kind in (('docker.sock', 1), ('bus', 1), ('log', 2)):
    s = socket.socket(socket.AF_UNIX, kind)
    print(tried(lambda: s.connect(folder + '/' + name)))",
        folder.path().display()
    );
    let (inside, outside) = (run_inside(&script), run_outside(&script));
    bus.kill().unwrap();
    bus.wait().unwrap();
    assert!(inside.iter().all(|line| line != "done"), "{inside:?}");
    assert_eq!(outside, ["done"; 3]);
}

#[test]
fn foreign_shared_memory_and_queues_are_blocked() {
    let key = 0x4153_0000 + std::process::id() % 0xffff;
    let make = format!("print(call(29, {key}, 4096, 0o1666))");
    let find = format!("print(call(29, {key}, 0, 0o666)); print(call(68, {key}, 0o666))");
    assert_eq!(run_outside(&make), ["done"]);
    let found = run_outside(&find);
    let seen = run_inside(&find);
    run_outside(&format!("print(call(31, libc.syscall(29, {key}, 0, 0o666), 0, 0))"));
    assert_eq!(found[0], "done");
    assert_eq!(seen, ["ENOENT", "ENOENT"]);
}
