//! Our own doors: taking them over, coming in by the wrong side, and passing for somebody else.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use agentsecrets::identity::IdentityError;
use agentsecrets::identity::inspector::Witness;
use agentsecrets::identity::process::Identifier;
use agentsecrets::intercept::Snapshot;

use super::range::{Range, fixture_without};
use crate::ebpf::agent::Fixture;
use crate::launch::launch;
use crate::support::process::finish;

#[test]
fn binding_our_ports_when_we_are_gone() {
    let attack = r"
made = 0
for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')):
    for kind in (TCP, UDP):
        s = socket.socket(family, kind)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT): s.setsockopt(socket.SOL_SOCKET, option, 1)
        try: s.bind((host, door)); made += 1
        except OSError: pass
        s.close()
print(made)";
    let range = Range::new();
    for (without, expected) in [(&[][..], "0"), (&["as_bind4", "as_bind6"], "8")] {
        let mut fixture = fixture_without(without);
        (fixture.listener4, fixture.listener6) = (None, None);
        let ports = (fixture.ports.listener, fixture.ports.dns);
        assert_eq!(range.run(&fixture.cgroup, attack, ports), expected, "without {without:?}");
    }
}

/// `listen` without `bind` has the kernel choose a port, which no hook sees. Whoever gets ours that way
/// cannot answer from it.
#[test]
fn being_given_our_port_by_chance() {
    let attack = r"
s = tcp()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(0, 51, struct.pack('=HH', door, door))
sent(lambda: s.listen())
print(s.getsockname()[1] == door)
try:
    tcp().connect((there4, 443))
    print('connected')
except OSError: print('refused')";
    let range = Range::new();
    for (without, connected) in [(&[][..], "refused"), (&["as_egress"], "connected")] {
        let mut fixture = fixture_without(without);
        (fixture.listener4, fixture.listener6) = (None, None);
        let ports = (fixture.ports.listener, fixture.ports.dns);
        assert_eq!(range.run(&fixture.cgroup, attack, ports), format!("True\n{connected}"), "{without:?}");
    }
}

/// The listener believes the kernel's record alone: these connections have none.
#[test]
fn coming_straight_to_our_door() {
    let fixture = Fixture::new();
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

const REUSE: &str = r"
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

/// A connection that was led here leaves a record; one from the same source port, straight to the door,
/// must not find it.
#[test]
fn using_a_source_port_again() {
    let fixture = Fixture::new();
    let mut agent = fixture.start(REUSE, &[&fixture.ports.listener.to_string()]);
    assert_eq!(agent.line(), "connected");
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

/// The measure left out: without `sockops` nothing is recorded and nothing taken back, and a connection
/// that was truly led here is refused too. No record is the closed state.
#[test]
fn nobody_is_recognised_without_the_recorder() {
    let fixture = fixture_without(&["as_sockops"]);
    let led = "s = socket.create_connection(('10.1.2.3', 443)); sys.stdin.readline()";
    let _led = fixture.start(led, &[]);
    assert_eq!(fixture.accept4().1, None);
}

/// In a second network namespace the same four numbers are another connection.
#[test]
fn another_network_with_the_same_addresses() {
    let range = Range::new();
    let fixture = Fixture::new();
    // Somebody listens there at our port, and an agent's process is there too.
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
    assert_eq!(agent.line(), "connected");
    // The near one has the far one's addresses and ports, and no record.
    assert_eq!(fixture.accept4().1, None);
    let (stream, peer) = elsewhere.accept().unwrap();
    let local = stream.local_addr().unwrap();
    let found = fixture.flows.take_of(&stream, peer, local).unwrap();
    assert!(found.is_some(), "the far one's record is under its own network's name");
}

/// Moves into the wire's own network, where the other end is one step away.
#[test]
fn moving_into_another_network() {
    let range = Range::new();
    let attack = format!(
        "here = os.open('/run/netns/{}', os.O_RDONLY)
assert libc.setns(here, 0x40000000) == 0
go(tcp(), (here4, 443))
sent(lambda: udp().sendto(mark, (here4, 9999)))",
        range.netns.name()
    );
    let crossed = |without: &[&str]| {
        // The capture is in that network, and sees its loopback too.
        let mut seen = range.shoot(&attack, without);
        seen.retain(|packet| !packet.destination.is_loopback());
        !seen.is_empty()
    };
    let hooks = ["as_connect4", "as_sendmsg4"];
    assert!(!crossed(&[]) && !crossed(&hooks) && !crossed(&["as_egress"]));
    assert!(crossed(&["as_connect4", "as_sendmsg4", "as_egress"]), "the attack does not bite");
}

#[test]
fn a_new_user_and_network_namespace() {
    let range = Range::new();
    // Inside its own network it may do anything to it; a wire it has none. The hooks hold there as well.
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
    let on = range.run(&Fixture::new().cgroup, attack, (1, 1));
    assert!(on.ends_with("nothing"), "{on}");
    let off = range.run(&fixture_without(&["as_sendmsg4", "as_egress"]).cgroup, attack, (1, 1));
    assert!(off.ends_with(&range.mark()), "{off}");
    let refused = finish(&mut launch(&[], &["unshare", "-Un", "true"]));
    assert_ne!(refused.code, Some(0));
}

/// Who is judged is who was there in `connect`: a program that becomes another does not take its name.
#[tokio::test]
async fn connecting_and_becoming_a_trusted_program() {
    let fixture = Fixture::new();
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
    let identifier = Identifier::new(Witness::Here, String::new(), "session".into(), None);
    assert!(matches!(identifier.identify(&snapshot).await, Err(IdentityError::Changed)));
    // A snapshot of now, as one taken by looking at the process after the fact would be.
    let now = Snapshot { exe_inode: inode("/bin/sleep"), ..snapshot };
    assert!(identifier.identify(&now).await.is_ok(), "it would have passed for the trusted one");
}

/// A process id that was given to another process names nobody.
#[tokio::test]
async fn a_process_id_that_is_used_again() {
    let fixture = Fixture::new();
    let led = "s = socket.create_connection(('10.1.2.3', 443)); sys.stdin.readline()";
    let agent = fixture.start(led, &[]);
    let snapshot = fixture.accept4().1.unwrap().snapshot;
    let identifier = Identifier::new(Witness::Here, String::new(), "session".into(), None);
    assert!(identifier.identify(&snapshot).await.is_ok());
    let earlier = Snapshot { start_boottime: snapshot.start_boottime - 20_000_000, ..snapshot };
    assert!(matches!(identifier.identify(&earlier).await, Err(IdentityError::Gone)));
    drop(agent);
    assert!(matches!(identifier.identify(&snapshot).await, Err(IdentityError::Gone)));
}

fn inode(path: &str) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}
