//! Loopback belongs to the agent's own listeners; other loopback ports are redirected.

use std::net::{SocketAddr, TcpListener};

use agentsecrets::intercept::ebpf::{allow_inbound, original};

use super::fixture::{HookedCgroup, is_idle};

#[test]
fn agent_reaches_own_loopback_listener() {
    let fixture = HookedCgroup::new();
    let script = r"
for bound, asked in (('127.0.0.1', '127.0.0.1'), ('127.0.0.2', '127.0.0.2'), ('0.0.0.0', '127.0.0.7'), ('127.0.0.1', '0.0.0.0'),
                     ('::1', '::1'), ('::', '127.0.0.1'), ('127.0.0.1', '::ffff:127.0.0.1'), ('::', '::')):
    server = socket.create_server((bound, 0), family=socket.AF_INET6 if ':' in bound else socket.AF_INET, dualstack_ipv6=bound == '::')
    client = socket.socket(socket.AF_INET6 if ':' in asked else socket.AF_INET)
    client.settimeout(5)
    server.settimeout(5)
    def talk():
        client.connect((asked, server.getsockname()[1]))
        peer, _ = server.accept()
        peer.settimeout(5)
        client.sendall(b'ping' * 50000)
        client.shutdown(socket.SHUT_WR)
        got = b''
        while chunk := peer.recv(1 << 16): got += chunk
        peer.sendall(b'pong')
        peer.close()
        return len(got), client.recv(100), client.recv(100)
    print(name(talk))
";
    let output = fixture.run(script, &[]);
    assert_eq!(output.lines().count(), 8, "{output}");
    assert!(output.lines().all(|line| line == "(200000, b'pong', b'')"), "{output}");
    // Another program may try a port that was just closed, but leaves no record.
    while !is_idle(fixture.listener4.as_ref().unwrap()) {
        assert_eq!(fixture.accept4().1, None);
    }
}

#[test]
fn aborted_loopback_connection_ends_both_sides() {
    let fixture = HookedCgroup::new();
    let script = r"
import struct
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
peer.settimeout(5)
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
client.close()
print(name(lambda: peer.recv(1)))
";
    assert_eq!(fixture.run(script, &[]), "ECONNRESET");
}

const CONNECT: &str = r"
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print(name(lambda: s.connect((sys.argv[1], int(sys.argv[2])))), flush=True)
sys.stdin.readline()
";

#[test]
fn foreign_loopback_listener_is_redirected() {
    let fixture = HookedCgroup::new();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port();
    for address in ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"] {
        let _agent = fixture.start(CONNECT, &[address, &port.to_string()]);
        let origin = fixture.accept4().1.unwrap();
        let expected = address.trim_start_matches("::ffff:");
        assert_eq!(original(&origin), format!("{expected}:{port}").parse::<SocketAddr>().unwrap());
    }
    assert!(is_idle(&database));
}

#[test]
fn loopback_listener_opens_its_address_only() {
    let fixture = HookedCgroup::new();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port();
    let script = r"
server = socket.create_server(('127.0.0.2', int(sys.argv[1])))
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
print('connected', flush=True)
sys.stdin.readline()
";
    let mut agent = fixture.start(script, &[&port.to_string()]);
    assert_eq!(agent.read_line(), "connected");
    assert!(fixture.accept4().1.is_some());
    assert!(is_idle(&database));
}

#[test]
fn inbound_needs_policy() {
    let fixture = HookedCgroup::new();
    let script = r"
server = socket.create_server(('0.0.0.0', 0))
print(server.getsockname()[1], flush=True)
while True:
    peer, _ = server.accept()
    peer.sendall(b'hello')
    peer.close()
";
    let mut agent = fixture.start(script, &[]);
    let port: u16 = agent.read_line().parse().unwrap();
    let reach = |seconds| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(seconds)).is_ok()
    };
    assert!(!reach(1));
    allow_inbound(&fixture.pins, &[port]).unwrap();
    assert!(reach(10));
    // A port that the policy no longer opens is closed again.
    allow_inbound(&fixture.pins, &[]).unwrap();
    assert!(!reach(1));
}
