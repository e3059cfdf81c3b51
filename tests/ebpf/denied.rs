//! Sockets, options and ports that are denied to agents.

use super::fixture::HookedCgroup;

#[test]
fn only_tcp_and_udp_sockets_are_allowed() {
    let fixture = HookedCgroup::new();
    let script = r"
inet, inet6 = socket.AF_INET, socket.AF_INET6
stream, dgram, raw = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
for family in (inet, inet6):
    for kind, protocol in ((raw, 255), (raw, 1), (raw, 6), (stream, 262), (dgram, 1 if family == inet else 58), (dgram, 136)):
        print(name(lambda: socket.socket(family, kind, protocol).close()))
for family in (inet, inet6):
    for kind, protocol in ((stream, 0), (stream, 6), (dgram, 0), (dgram, 17)):
        print(name(lambda: socket.socket(family, kind, protocol).close()))
print(name(lambda: socket.socket(socket.AF_UNIX).close()))
";
    let output = fixture.run(script, &[]);
    let (refused, made): (Vec<_>, Vec<_>) = output.lines().partition(|line| *line != "done");
    // A kernel without MPTCP or UDP-Lite returns its own error.
    assert!(refused.iter().all(|line| ["EPERM", "EPROTONOSUPPORT", "EACCES"].contains(line)), "{output}");
    assert_eq!((refused.len(), made.len()), (12, 9), "{output}");
    assert!(output.starts_with("EPERM"), "{output}");
}

#[test]
fn reserved_ports_cannot_be_bound() {
    let fixture = HookedCgroup::new();
    let script = r"
for port in sys.argv[1:]:
    for host in ('127.0.0.1', '0.0.0.0', '127.0.0.9', '::1', '::', '::ffff:127.0.0.9'):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            print(name(lambda: s.bind((host, int(port)))))
print(name(lambda: socket.socket().bind(('127.0.0.1', 0))))
";
    let ports = [fixture.ports.listener.to_string(), fixture.ports.dns.to_string()];
    let output = fixture.run(script, &[&ports[0], &ports[1]]);
    let mut lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.pop(), Some("done"));
    assert_eq!(lines.len(), 24);
    assert!(lines.iter().all(|line| *line == "EPERM"), "{output}");
}

#[test]
fn routing_socket_options_are_refused() {
    let fixture = HookedCgroup::new();
    let script = r"
four, six = socket.socket(), socket.socket(socket.AF_INET6)
route = bytes([131, 7, 4, 10, 1, 2, 3, 0])
for s, level, options in ((four, 0, (4, 19)), (four, 6, (19,)), (six, 41, (3, 4, 5, 6, 54, 55, 57, 59, 75)), (six, 0, (4,))):
    for option in options:
        print(name(lambda: s.setsockopt(level, option, route)))
";
    let output = fixture.run(script, &[]);
    assert_eq!(output.lines().count(), 13);
    assert!(output.lines().all(|line| line == "EPERM"), "{output}");
}

#[test]
fn other_socket_options_are_allowed() {
    let fixture = HookedCgroup::new();
    let script = r"
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, (1 << 16).to_bytes(4, 'little') + bytes(9000))
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 1 << 17)
s.setsockopt(socket.IPPROTO_TCP, 30, 1)
print(s.getsockopt(socket.IPPROTO_TCP, 30))
";
    assert_eq!(fixture.run(script, &[]), "1\nTrue\n0");
}
