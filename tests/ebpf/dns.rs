//! DNS is redirected to the resolver; its answers appear to come from the server that was queried.

use std::net::UdpSocket;

use super::fixture::{HookedCgroup, wait_readable};

fn answer_query(resolver: &UdpSocket) -> String {
    wait_readable(resolver);
    let mut question = [0; 512];
    let (length, from) = resolver.recv_from(&mut question).unwrap();
    resolver.send_to(b"answer", from).unwrap();
    String::from_utf8_lossy(&question[..length]).into_owned()
}

const UNCONNECTED: &str = r"
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'question', (sys.argv[1], 53))
data, source = s.recvfrom(100)
print(data.decode(), source[:2])
";

const CONNECTED: &str = r"
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 53))
s.send(b'question')
data, source = s.recvfrom(100)
print(data.decode(), source[:2], s.getpeername()[:2])
";

#[test]
fn dns_query_to_any_server_is_redirected() {
    let fixture = HookedCgroup::new();
    for (server, resolver) in [
        ("8.8.8.8", &fixture.resolver4),
        ("127.0.0.53", &fixture.resolver4),
        ("2001:db8::53", &fixture.resolver6),
        ("::ffff:8.8.8.8", &fixture.resolver4),
    ] {
        let agent = fixture.start(UNCONNECTED, &[server]);
        assert_eq!(answer_query(resolver), "question");
        assert_eq!(agent.read_to_end(), format!("answer ('{server}', 53)"));
        let agent = fixture.start(CONNECTED, &[server]);
        assert_eq!(answer_query(resolver), "question");
        assert_eq!(agent.read_to_end(), format!("answer ('{server}', 53) ('{server}', 53)"));
    }
}

#[test]
fn dns_over_tcp_is_redirected() {
    let fixture = HookedCgroup::new();
    let script = "s = socket.create_connection(('8.8.8.8', 53)); print(s.getpeername())";
    let agent = fixture.start(script, &[]);
    wait_readable(&fixture.resolver_tcp);
    let (_stream, _) = fixture.resolver_tcp.accept().unwrap();
    assert_eq!(agent.read_to_end(), "('8.8.8.8', 53)");
}

#[test]
fn other_udp_is_refused() {
    let fixture = HookedCgroup::new();
    let outsider = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = outsider.local_addr().unwrap().port().to_string();
    let script = r"
for host in ('127.0.0.1', '10.1.2.3', '::1', '2001:db8::5', '::ffff:10.1.2.3'):
    for port in (int(sys.argv[1]), 443):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        s = socket.socket(family, socket.SOCK_DGRAM)
        print(name(lambda: s.sendto(b'x', (host, port))), name(lambda: s.connect((host, port))))
";
    let output = fixture.run(script, &[&port]);
    assert_eq!(output.lines().count(), 10);
    assert!(output.lines().all(|line| line == "EPERM EPERM"), "{output}");
    assert!(super::fixture::is_idle(&outsider));
}
