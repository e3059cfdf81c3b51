//! TCP comes to the listener, with a record of where it wanted to go and who asked.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use agentsecrets::intercept::ebpf::{Flow, Origin, original};
use aya::maps::{HashMap, Map, MapData};

use super::agent::{Fixture, Program};

/// Connects, says whom it believes to be connected to, and waits for a word.
const CONNECT: &str = r"
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
s.connect((host, port))
print(s.getpeername()[:2], flush=True)
print(s.recv(100).decode(), flush=True)
";

#[test]
fn ipv4_is_redirected_and_recorded() {
    let fixture = Fixture::new();
    let mut agent = fixture.start(CONNECT, &["10.1.2.3", "8080"]);
    let (mut stream, origin) = fixture.accept4();
    check(&mut agent, &origin.unwrap(), "10.1.2.3:8080", &fixture);
    assert_eq!(agent.line(), "('10.1.2.3', 8080)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.line(), "hello");
}

#[test]
fn ipv6_is_redirected_and_recorded() {
    let fixture = Fixture::new();
    let mut agent = fixture.start(CONNECT, &["2001:db8::5", "443"]);
    let (mut stream, origin) = fixture.accept6();
    check(&mut agent, &origin.unwrap(), "[2001:db8::5]:443", &fixture);
    assert_eq!(agent.line(), "('2001:db8::5', 443)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.line(), "hello");
}

#[test]
fn ipv4_through_an_ipv6_socket_is_redirected_and_recorded() {
    let fixture = Fixture::new();
    let mut agent = fixture.start(CONNECT, &["::ffff:10.1.2.3", "8080"]);
    let (mut stream, origin) = fixture.accept4();
    check(&mut agent, &origin.unwrap(), "10.1.2.3:8080", &fixture);
    assert_eq!(agent.line(), "('::ffff:10.1.2.3', 8080)");
    stream.write_all(b"hello").unwrap();
    assert_eq!(agent.line(), "hello");
}

#[test]
fn a_record_is_taken_once() {
    let fixture = Fixture::new();
    let _agent = fixture.start(CONNECT, &["10.1.2.3", "8080"]);
    let (stream, origin) = fixture.accept4();
    assert!(origin.is_some());
    let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    assert_eq!(fixture.flows.take_of(&stream, peer, local).unwrap(), None);
}

#[test]
fn a_connection_straight_to_the_listener_has_no_record() {
    let fixture = Fixture::new();
    let _agent = fixture.start(CONNECT, &["127.0.0.1", &fixture.ports.listener.to_string()]);
    assert_eq!(fixture.accept4().1, None);
    let _outsider = std::net::TcpStream::connect(("127.0.0.1", fixture.ports.listener)).unwrap();
    assert_eq!(fixture.accept4().1, None);
}

#[test]
fn a_port_used_again_does_not_inherit_a_record() {
    let fixture = Fixture::new();
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
    assert_eq!(agent.line(), "connected");
    // Only the second is still there: the first was reset before it could be accepted.
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
fn connections_that_end_before_they_are_accepted_leave_no_record() {
    let fixture = Fixture::new();
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
fn a_program_that_connects_and_becomes_another_is_recorded_as_it_was() {
    let fixture = Fixture::new();
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
fn a_socket_that_connects_again_is_recorded_anew() {
    let fixture = Fixture::new();
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
    assert_eq!(agent.line(), "('10.9.9.9', 90)");
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
fn data_sent_with_the_first_packet_is_redirected_and_recorded() {
    let fixture = Fixture::new();
    let script = r"
s = socket.socket()
s.sendto(b'early', socket.MSG_FASTOPEN, ('10.1.2.3', 80))
print(s.getpeername(), flush=True)
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[]);
    let (_stream, origin) = fixture.accept4();
    check(&mut agent, &origin.unwrap(), "10.1.2.3:80", &fixture);
    assert_eq!(agent.line(), "('10.1.2.3', 80)");
}

#[test]
fn an_accepted_socket_that_becomes_a_client_is_redirected_and_recorded() {
    let fixture = Fixture::new();
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
    check(&mut agent, &origin, "10.1.2.3:80", &fixture);
}

/// The record says what `/proc` says.
fn check(agent: &mut Program, origin: &Origin, wanted: &str, fixture: &Fixture) {
    assert_eq!(original(origin), wanted.parse::<SocketAddr>().unwrap());
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
