//! TCP is redirected to the listener, with a record of the original destination and the caller.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use agentsecrets::intercept::ebpf::{Flow, Origin, original};
use aya::maps::{HashMap, Map, MapData};

use super::fixture::{HookedCgroup, Program};

/// Connects, prints the peer address, and waits for a line.
const CONNECT: &str = r"
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
s.connect((host, port))
print(s.getpeername()[:2], flush=True)
print(s.recv(100).decode(), flush=True)
";

#[test]
fn ipv4_is_redirected_and_recorded() {
    let fixture = HookedCgroup::new();
    let mut agent = fixture.start(CONNECT, &["10.1.2.3", "8080"]);
    let (mut stream, origin) = fixture.accept4();
    assert_origin(&mut agent, &origin.unwrap(), "10.1.2.3:8080", &fixture);
    assert_eq!(agent.read_line(), "('10.1.2.3', 8080)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.read_line(), "hello");
}

#[test]
fn ipv6_is_redirected_and_recorded() {
    let fixture = HookedCgroup::new();
    let mut agent = fixture.start(CONNECT, &["2001:db8::5", "443"]);
    let (mut stream, origin) = fixture.accept6();
    assert_origin(&mut agent, &origin.unwrap(), "[2001:db8::5]:443", &fixture);
    assert_eq!(agent.read_line(), "('2001:db8::5', 443)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.read_line(), "hello");
}

#[test]
fn ipv4_mapped_is_redirected_and_recorded() {
    let fixture = HookedCgroup::new();
    let mut agent = fixture.start(CONNECT, &["::ffff:10.1.2.3", "8080"]);
    let (mut stream, origin) = fixture.accept4();
    assert_origin(&mut agent, &origin.unwrap(), "10.1.2.3:8080", &fixture);
    assert_eq!(agent.read_line(), "('::ffff:10.1.2.3', 8080)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.read_line(), "hello");
}

#[test]
fn connection_record_is_taken_once() {
    let fixture = HookedCgroup::new();
    let _agent = fixture.start(CONNECT, &["10.1.2.3", "8080"]);
    let (stream, origin) = fixture.accept4();
    assert!(origin.is_some());
    let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    assert_eq!(fixture.flows.take_of(&stream, peer, local).unwrap(), None);
}

#[test]
fn direct_connection_has_no_record() {
    let fixture = HookedCgroup::new();
    let _agent = fixture.start(CONNECT, &["127.0.0.1", &fixture.ports.listener.to_string()]);
    assert_eq!(fixture.accept4().1, None);
    let _outsider = std::net::TcpStream::connect(("127.0.0.1", fixture.ports.listener)).unwrap();
    assert_eq!(fixture.accept4().1, None);
}

#[test]
fn reused_port_does_not_inherit_record() {
    let fixture = HookedCgroup::new();
    let script = r"
import struct
def attempt(address, source):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', source))
    s.connect(address)
    port = s.getsockname()[1]
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    return s, port
s, port = attempt(('10.1.2.3', 80), 0)
s.close()
s, _ = attempt(('127.0.0.1', int(sys.argv[1])), port)
print('connected', flush=True)
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[&fixture.ports.listener.to_string()]);
    assert_eq!(agent.read_line(), "connected");
    // Only the second is still connected: the first was reset before it was accepted.
    loop {
        match fixture.listener4.as_ref().unwrap().accept() {
            Ok((stream, peer)) => {
                let local = stream.local_addr().unwrap();
                assert_eq!(fixture.flows.take_of(&stream, peer, local).unwrap(), None);
                if stream.peer_addr().is_ok() {
                    break;
                }
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted),
        }
    }
}

#[test]
fn connection_closed_before_accept_leaves_no_record() {
    let fixture = HookedCgroup::new();
    let script = r"
import struct
for turn in range(600):
    s = socket.socket()
    s.settimeout(0.001 if turn > 100 else 5)
    name(lambda: s.connect(('10.1.2.3', 80)))
    if turn % 2: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()
";
    assert_eq!(fixture.run(script, &[]), "");
    let data = MapData::from_pin(fixture.pins.join("FLOWS")).unwrap();
    let records: HashMap<_, [u8; size_of::<Flow>()], [u8; size_of::<Origin>()]> =
        HashMap::try_from(Map::HashMap(data)).unwrap();
    assert_eq!(records.keys().count(), 0);
}

#[test]
fn exec_after_connect_keeps_recorded_program() {
    let fixture = HookedCgroup::new();
    let script = r"
s = socket.socket()
s.set_inheritable(True)
s.connect(('10.1.2.3', 80))
os.execv('/bin/sleep', ['sleep', '60'])
";
    let agent = fixture.start(script, &[]);
    let origin = fixture.accept4().1.unwrap();
    assert_eq!(origin.snapshot.tgid, agent.pid());
    assert_eq!(origin.snapshot.exe_inode, fs::metadata("/usr/bin/python3").unwrap().ino());
}

#[test]
fn reconnected_socket_gets_new_record() {
    let fixture = HookedCgroup::new();
    let script = r"
import ctypes
libc = ctypes.CDLL(None)
s = socket.socket()
s.connect(('10.1.2.3', 80))
assert libc.connect(s.fileno(), bytes(16), 16) == 0
s.connect(('10.9.9.9', 90))
print(s.getpeername())
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[]);
    assert_eq!(agent.read_line(), "('10.9.9.9', 90)");
    let mut seen = vec![];
    while seen.is_empty() {
        if let Ok((stream, peer)) = fixture.listener4.as_ref().unwrap().accept() {
            let local = stream.local_addr().unwrap();
            seen.extend(fixture.flows.take_of(&stream, peer, local).unwrap().map(|origin| original(&origin)));
        }
    }
    assert_eq!(seen, ["10.9.9.9:90".parse::<SocketAddr>().unwrap()]);
}

#[test]
fn tcp_fast_open_is_redirected_and_recorded() {
    let fixture = HookedCgroup::new();
    let script = r"
s = socket.socket()
s.sendto(b'early', socket.MSG_FASTOPEN, ('10.1.2.3', 80))
print(s.getpeername(), flush=True)
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[]);
    let (_stream, origin) = fixture.accept4();
    assert_origin(&mut agent, &origin.unwrap(), "10.1.2.3:80", &fixture);
    assert_eq!(agent.read_line(), "('10.1.2.3', 80)");
}

#[test]
fn accepted_socket_reused_as_client_is_recorded() {
    let fixture = HookedCgroup::new();
    let script = r"
import ctypes
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
s, _ = server.accept()
assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
s.connect(('10.1.2.3', 80))
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[]);
    let origin = fixture.accept4().1.unwrap();
    assert_origin(&mut agent, &origin, "10.1.2.3:80", &fixture);
}

/// Asserts that the record agrees with `/proc`.
fn assert_origin(agent: &mut Program, origin: &Origin, expected: &str, fixture: &HookedCgroup) {
    assert_eq!(original(origin), expected.parse::<SocketAddr>().unwrap());
    let snapshot = origin.snapshot;
    assert_eq!(snapshot.tgid, agent.pid());
    let exe = fs::metadata(format!("/proc/{}/exe", agent.pid())).unwrap();
    assert_eq!(snapshot.exe_inode, exe.ino());
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let start: u64 = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
    assert_eq!(snapshot.start_boottime / 10_000_000, start);
    assert_eq!(snapshot.cgroup, fs::metadata(&fixture.cgroup).unwrap().ino());
    assert_eq!((snapshot.uid, snapshot.gid), (0, 0));
}
