//! Our own listeners: taking over their ports, connecting directly, and passing for another caller.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use agentsecrets::identity::IdentityError;
use agentsecrets::identity::inspector::ProcessInspector;
use agentsecrets::identity::process::Identifier;
use agentsecrets::intercept::Snapshot;

use super::attack_range::{AttackRange, fixture_without};
use crate::ebpf::fixture::HookedCgroup;
use crate::launch::launch;
use crate::support::process::run;

#[test]
fn binding_interceptor_ports_after_death_is_blocked() {
    let attack = r"
made = 0
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')):
    for kind in (TCP, UDP):
        s = socket.socket(family, kind)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT): s.setsockopt(socket.SOL_SOCKET, option, 1)
        try: s.bind((host, listener_port)); made += 1
        except OSError: pass
        s.close()
print(made)";
    let range = AttackRange::new();
    for (without, expected) in [(&[][..], "0"), (&["as_bind4", "as_bind6"], "8")] {
        let mut fixture = fixture_without(without);
        (fixture.listener4, fixture.listener6) = (None, None);
        let ports = (fixture.ports.listener, fixture.ports.dns);
        assert_eq!(range.run(&fixture.cgroup, attack, ports), expected, "without {without:?}");
    }
}

/// `listen` without `bind` makes the kernel choose a port, which no hook sees. A program that gets ours this
/// way cannot respond from it.
#[test]
fn implicit_bind_to_interceptor_port_is_harmless() {
    let attack = r"
s = tcp()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(0, 51, struct.pack('=HH', listener_port, listener_port))
sent(lambda: s.listen())
print(s.getsockname()[1] == listener_port)
try:
    tcp().connect((there4, 443))
    print('connected')
except OSError: print('refused')";
    let range = AttackRange::new();
    for (without, connected) in [(&[][..], "refused"), (&["as_egress"], "connected")] {
        let mut fixture = fixture_without(without);
        (fixture.listener4, fixture.listener6) = (None, None);
        let ports = (fixture.ports.listener, fixture.ports.dns);
        assert_eq!(range.run(&fixture.cgroup, attack, ports), format!("True\n{connected}"), "{without:?}");
    }
}

/// The listener trusts only the kernel's record: these connections have none.
#[test]
fn direct_connection_to_listener_is_refused() {
    let fixture = HookedCgroup::new();
    let port = fixture.ports.listener.to_string();
    let straight = "s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); sys.stdin.readline()";
    let redirected = "s = socket.create_connection(('10.1.2.3', 443)); sys.stdin.readline()";
    let _straight = fixture.start(straight, &[&port]);
    assert_eq!(fixture.accept4().1, None);
    let _outsider = TcpStream::connect(("127.0.0.1", fixture.ports.listener)).unwrap();
    assert_eq!(fixture.accept4().1, None);
    let _led = fixture.start(redirected, &[]);
    assert!(fixture.accept4().1.is_some(), "one that was led here has a record");
}

const REUSE_SOURCE_PORT: &str = r"
import struct
def attempt(address, source):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', source))
    s.connect(address)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    return s, s.getsockname()[1]
s, port = attempt(('10.1.2.3', 80), 0)
s.close()
s, _ = attempt(('127.0.0.1', int(sys.argv[1])), port)
print('connected', flush=True)
sys.stdin.readline()
";

/// A redirected connection leaves a record; a direct one from the same source port must not find it.
#[test]
fn source_port_reuse_finds_no_record() {
    let fixture = HookedCgroup::new();
    let mut agent = fixture.start(REUSE_SOURCE_PORT, &[&fixture.ports.listener.to_string()]);
    assert_eq!(agent.read_line(), "connected");
    let listener = fixture.listener4.as_ref().unwrap();
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let local = stream.local_addr().unwrap();
                assert_eq!(fixture.flows.take_of(&stream, peer, local).unwrap(), None);
                if stream.peer_addr().is_ok() {
                    break;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionAborted),
        }
    }
}

/// Control: without `sockops` nothing is recorded or removed, and a redirected connection is refused too.
/// Without a record the result is a denial.
#[test]
fn missing_sockops_denies_connections() {
    let fixture = fixture_without(&["as_sockops"]);
    let led = "s = socket.create_connection(('10.1.2.3', 443)); sys.stdin.readline()";
    let _led = fixture.start(led, &[]);
    assert_eq!(fixture.accept4().1, None);
}

/// In a second network namespace the same 4-tuple is another connection.
#[test]
fn same_addresses_in_another_netns_find_no_record() {
    let range = AttackRange::new();
    let fixture = HookedCgroup::new();
    // A program listens there at our port, and an agent's process is there too.
    let handle = range.netns.handle();
    let port = fixture.ports.listener;
    let elsewhere = std::thread::spawn(move || {
        handle.enter();
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap()
    });
    let elsewhere = elsewhere.join().unwrap();
    let script = r"
import ctypes
libc = ctypes.CDLL(None)
here = os.open('/proc/self/ns/net', os.O_RDONLY)
assert libc.setns(os.open('/run/netns/' + sys.argv[1], os.O_RDONLY), 0x40000000) == 0
far = socket.socket()
far.bind(('127.0.0.1', 0))
far.connect(('10.1.2.3', 443))
source = far.getsockname()[1]
assert libc.setns(here, 0x40000000) == 0
near = socket.socket()
near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
near.bind(('127.0.0.1', source))
near.connect(('127.0.0.1', int(sys.argv[2])))
print('connected', flush=True)
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[range.netns.name(), &port.to_string()]);
    assert_eq!(agent.read_line(), "connected");
    // Our connection has the same addresses and ports as the other one, and no record.
    assert_eq!(fixture.accept4().1, None);
    let (stream, peer) = elsewhere.accept().unwrap();
    let local = stream.local_addr().unwrap();
    let found = fixture.flows.take_of(&stream, peer, local).unwrap();
    assert!(found.is_some(), "the far one's record is under its own network's name");
}

/// Enters the network namespace at the other end of the veth pair.
#[test]
fn entering_another_netns_is_blocked() {
    let range = AttackRange::new();
    let attack = format!(
        "here = os.open('/run/netns/{}', os.O_RDONLY)
assert libc.setns(here, 0x40000000) == 0
go(tcp(), (here4, 443))
sent(lambda: udp().sendto(mark, (here4, 9999)))",
        range.netns.name()
    );
    let crossed = |without: &[&str]| {
        // The capture is in that namespace and sees its loopback too.
        let mut seen = range.attack_without(&attack, without);
        seen.retain(|packet| !packet.destination.is_loopback());
        !seen.is_empty()
    };
    let hooks = ["as_connect4", "as_sendmsg4"];
    assert!(!crossed(&[]) && !crossed(&hooks) && !crossed(&["as_egress"]));
    assert!(crossed(&["as_connect4", "as_sendmsg4", "as_egress"]), "the attack does not bite");
}

#[test]
fn new_user_and_network_namespace_is_blocked() {
    let range = AttackRange::new();
    // In its own network namespace the agent has all rights but no device. The hooks apply there as well.
    let attack = r"
assert libc.unshare(0x50000000) == 0
open('/proc/self/uid_map', 'w').write('0 0 1')
subprocess.run(['ip', 'link', 'set', 'lo', 'up'])
subprocess.run(['ip', 'address', 'add', there4, 'dev', 'lo'])
server = socket.create_server(('127.0.0.1', 9999))
other = udp()
other.bind((there4, 9999))
other.settimeout(0.3)
sent(lambda: udp().sendto(mark, (there4, 9999)))
try: print(other.recv(100).decode())
except OSError: print('nothing')";
    let on = range.run(&HookedCgroup::new().cgroup, attack, (1, 1));
    assert!(on.ends_with("nothing"), "{on}");
    let off = range.run(&fixture_without(&["as_sendmsg4", "as_egress"]).cgroup, attack, (1, 1));
    assert!(off.ends_with(&range.marker()), "{off}");
    let refused = run(&mut launch(&[], &["unshare", "-Un", "true"]));
    assert_ne!(refused.code, Some(0));
}

/// The process at the time of `connect` is authorized: a program executed later does not lend its identity.
#[tokio::test]
async fn exec_trusted_program_after_connect_is_detected() {
    let fixture = HookedCgroup::new();
    let attack = r"
s = socket.socket()
s.set_inheritable(True)
s.connect(('10.1.2.3', 443))
os.execv('/bin/sleep', ['sleep', '60'])";
    let agent = fixture.start(attack, &[]);
    let snapshot = fixture.accept4().1.unwrap().snapshot;
    assert_eq!(snapshot.exe_inode, inode("/usr/bin/python3"));
    let exe = format!("/proc/{}/exe", agent.pid());
    while inode(&exe) != inode("/bin/sleep") {
        std::thread::yield_now();
    }
    let identifier = Identifier::new(ProcessInspector::Here, String::new(), "session".into(), None);
    assert!(matches!(identifier.identify(&snapshot).await, Err(IdentityError::Changed)));
    // A snapshot taken now, as by inspecting the process after the fact.
    let now = Snapshot { exe_inode: inode("/bin/sleep"), ..snapshot };
    assert!(identifier.identify(&now).await.is_ok(), "it would have passed for the trusted one");
}

/// A reused process id identifies nobody.
#[tokio::test]
async fn pid_reuse_is_detected() {
    let fixture = HookedCgroup::new();
    let led = "s = socket.create_connection(('10.1.2.3', 443)); sys.stdin.readline()";
    let agent = fixture.start(led, &[]);
    let snapshot = fixture.accept4().1.unwrap().snapshot;
    let identifier = Identifier::new(ProcessInspector::Here, String::new(), "session".into(), None);
    assert!(identifier.identify(&snapshot).await.is_ok());
    let earlier = Snapshot { start_boottime: snapshot.start_boottime - 20_000_000, ..snapshot };
    assert!(matches!(identifier.identify(&earlier).await, Err(IdentityError::Gone)));
    drop(agent);
    assert!(matches!(identifier.identify(&snapshot).await, Err(IdentityError::Gone)));
}

fn inode(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}
