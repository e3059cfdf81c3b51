//! Other programs on this machine: their loopback ports are closed to the agent.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::attack_range::{AttackRange, fixture_without};
use crate::ebpf::fixture::is_idle;

#[test]
fn loopback_services_of_others_are_blocked() {
    let attack = r"
for host in ('127.0.0.1', '127.1.2.3', '0.0.0.0', here4): go(tcp(), (host, port))
for host in ('::1', '::', '::ffff:127.0.0.1', here6): go(tcp(socket.AF_INET6), (host, port))
for host in ('127.0.0.1', here4): sent(lambda: udp().sendto(mark, (host, port)))
for host in ('::1', here6): sent(lambda: udp(socket.AF_INET6).sendto(mark, (host, port)))";
    let range = AttackRange::new();
    let hooks = ["as_connect4", "as_connect6", "as_sendmsg4", "as_sendmsg6"];
    let bites = [&hooks[..], &["as_egress"]].concat();
    for (without, reached) in [(&[][..], false), (&["as_egress"], false), (&hooks, false), (&bites, true)] {
        let database = TcpListener::bind("[::]:0").unwrap();
        let port = database.local_addr().unwrap().port();
        let datagrams = UdpSocket::bind(("::", port)).unwrap();
        let fixture = fixture_without(without);
        range.run(&fixture.cgroup, &format!("port = {port}\n{attack}"), (1, 1));
        assert_eq!(!is_idle(&database), reached, "TCP without {without:?}");
        assert_eq!(!is_idle(&datagrams), reached, "UDP without {without:?}");
    }
}

/// A service of the same user can share a port with the agent. The listener's owner is checked in `connect`;
/// the kernel chooses the receiving socket later.
#[test]
fn reuseport_with_same_user_service_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
port = int(sys.stdin.readline())
servers = [tcp() for _ in range(2)]
for server in servers:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(('127.0.0.1', port))
    server.listen(100)
    port = server.getsockname()[1]
print(port, flush=True)
sys.stdin.readline()
for _ in range(40):
    s = tcp()
    s.settimeout(0.05)
    go(s, ('127.0.0.1', port))";
    let service = |port: u16| {
        let service = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        service.set_reuse_port(true).unwrap();
        service.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        service.listen(100).unwrap();
        TcpListener::from(service)
    };
    let reaches = |without: &[&str], comes_first: bool| {
        let fixture = fixture_without(without);
        let mut agent = range.start(&fixture.cgroup, attack);
        let first = comes_first.then(|| service(0));
        let known = first.as_ref().map_or(0, |first| first.local_addr().unwrap().port());
        agent.write_line(&known.to_string());
        let port: u16 = agent.read_line().parse().unwrap();
        let service = first.unwrap_or_else(|| service(port));
        agent.read_to_end();
        let mut got = Vec::new();
        while !is_idle(&service) {
            let (mut stream, _) = service.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let _ = stream.read_to_end(&mut got);
        }
        !got.is_empty()
    };
    // The kernel's lookup order differs between boots: the first, second or third listener. So the service is
    // the first once, and the third once.
    assert!([true, false].iter().all(|first| !reaches(&[], *first)));
    assert!([true, false].iter().any(|first| reaches(&["as_egress"], *first)), "the attack does not bite");
}

#[test]
fn inbound_connections_to_agent_are_blocked() {
    let range = AttackRange::new();
    let attack = r"
server = socket.create_server((here4, 0))
server.settimeout(3)
print(server.getsockname()[1], flush=True)
try: server.accept()[0].sendall(mark)
except OSError: pass";
    for (without, reached) in [(&[][..], false), (&["as_egress"], true)] {
        let fixture = fixture_without(without);
        let before = range.packets().len();
        let mut agent = range.start(&fixture.cgroup, attack);
        let port: u16 = agent.read_line().parse().unwrap();
        range.connect_from_peer(port);
        drop(agent);
        let seen = range.packets().split_off(before);
        let here = std::net::IpAddr::from(range.netns.local4());
        let from_here = seen.iter().any(|packet| packet.source == here);
        assert_eq!(from_here, reached, "without {without:?}: {seen:#?}");
    }
}
