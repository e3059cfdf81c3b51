//! Packets by ordinary calls in every order and form: the hooks on `connect` and `sendmsg` redirect them, and
//! the egress hook drops the rest.

use super::attack_range::AttackRange;

const TCP4: &[&str] = &["as_connect4", "as_egress"];
const TCP6: &[&str] = &["as_connect6", "as_egress"];
const UDP4: &[&str] = &["as_connect4", "as_sendmsg4", "as_egress"];
const UDP6: &[&str] = &["as_connect6", "as_sendmsg6", "as_egress"];

#[test]
fn plain_tcp_is_blocked() {
    let range = AttackRange::new();
    range.assert_each_blocks("go(tcp(), (there4, 443))", TCP4);
    range.assert_each_blocks("go(tcp(socket.AF_INET6), (there6, 443))", TCP6);
}

#[test]
fn ipv4_mapped_ipv6_socket_is_blocked() {
    let range = AttackRange::new();
    // The hook of one family alone sees it.
    range.assert_each_blocks("go(tcp(socket.AF_INET6), ('::ffff:' + there4, 443))", TCP6);
    range.assert_each_blocks(
        "sent(lambda: udp(socket.AF_INET6).sendto(mark, ('::ffff:' + there4, 443)))",
        // An IPv4 packet counts as IPv4, whatever the socket.
        &["as_sendmsg4", "as_egress"],
    );
}

#[test]
fn tcp_fast_open_is_blocked() {
    let range = AttackRange::new();
    range.assert_each_blocks("sent(lambda: tcp().sendto(mark, socket.MSG_FASTOPEN, (there4, 443)))", TCP4);
    // TCP_FASTOPEN_NO_COOKIE: the data goes with the SYN, as it does once a cookie is cached.
    let cookieless = r"
s = tcp()
s.setsockopt(6, 34, 1)
sent(lambda: s.sendto(mark, socket.MSG_FASTOPEN, (there4, 443)))";
    range.assert_each_blocks(cookieless, TCP4);
    let found = range.attack_without(cookieless, TCP4);
    let with_data = |packet: &crate::support::capture::Packet| packet.payload == range.marker().as_bytes();
    assert!(found.iter().any(with_data), "the data is to go with the SYN: {found:#?}");
}

#[test]
fn tcp_fast_open_connect_is_blocked() {
    let range = AttackRange::new();
    // TCP_FASTOPEN_CONNECT and no cookie: `connect` returns at once, the SYN leaves with the write.
    let attack = "s = tcp(); s.setsockopt(6, 34, 1); s.setsockopt(6, 30, 1); go(s, (there4, 443))";
    range.assert_each_blocks(attack, TCP4);
}

#[test]
fn disconnect_and_reconnect_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
s = tcp()
go(s, ('127.0.0.1', listener_port))
libc.connect(s.fileno(), bytes(16), 16)
go(s, (there4, 443))
libc.connect(s.fileno(), bytes(28), 28)
go(s, (there4, 444))";
    range.assert_each_blocks(attack, TCP4);
    let datagrams = r"
s = udp()
s.connect((there4, 53))
libc.connect(s.fileno(), bytes(16), 16)
go(s, (there4, 443))
sent(lambda: s.sendto(mark, (there4, 443)))
sent(lambda: s.send(mark))";
    range.assert_together_block(datagrams, UDP4);
}

#[test]
fn udp_datagrams_are_blocked() {
    let range = AttackRange::new();
    range.assert_each_blocks(
        "sent(lambda: udp().sendto(mark, (there4, 9999)))",
        &["as_sendmsg4", "as_egress"],
    );
    range.assert_each_blocks("go(udp(), (there4, 9999))", TCP4);
    range.assert_each_blocks(
        "sent(lambda: udp(socket.AF_INET6).sendto(mark, (there6, 9999)))",
        &["as_sendmsg6", "as_egress"],
    );
    range.assert_each_blocks("go(udp(socket.AF_INET6), (there6, 9999))", TCP6);
}

#[test]
fn quic_is_blocked() {
    let range = AttackRange::new();
    // A long header of QUIC version 1, padded as an Initial must be.
    let attack = r"
initial = (b'\xc3\0\0\0\x01\x08' + os.urandom(8) + b'\0\0' + mark).ljust(1200, b'\0')
for family, host in ((socket.AF_INET, there4), (socket.AF_INET6, there6)):
    sent(lambda: udp(family).sendto(initial, (host, 443)))
    go(udp(family), (host, 443), initial)";
    range.assert_together_block(
        attack,
        &["as_connect4", "as_connect6", "as_sendmsg4", "as_sendmsg6", "as_egress"],
    );
}

#[test]
fn sendmmsg_and_fragments_are_blocked() {
    let range = AttackRange::new();
    // sendmmsg, MSG_MORE, and one too large for a packet, which leaves in fragments.
    let attack = r"
u = udp()
where = struct.pack('=HH4s8x', 2, socket.htons(9999), socket.inet_aton(there4))
name, data = ctypes.create_string_buffer(where, 16), ctypes.create_string_buffer(mark)
vector = ctypes.create_string_buffer(struct.pack('PN', ctypes.addressof(data), len(mark)), 16)
message = struct.pack('PIxxxxPNPNiI', ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
messages = ctypes.create_string_buffer((message + bytes(4)) * 2)
libc.sendmmsg(u.fileno(), messages, 2, 0)
sent(lambda: u.sendto(mark, socket.MSG_MORE, (there4, 9999)))
sent(lambda: u.sendto(mark, (there4, 9999)))
sent(lambda: udp().sendto(mark.ljust(9000, b'x'), (there4, 9999)))";
    range.assert_each_blocks(attack, &["as_sendmsg4", "as_egress"]);
}

#[test]
fn metadata_service_is_blocked() {
    let range = AttackRange::new();
    let metadata = "169.254.169.254";
    let ip = |words: &[&str]| {
        crate::support::process::run(crate::support::process::command("ip").args(words)).ok();
    };
    // Toward the other end, for this address alone; removed with the link.
    let there = range.netns.peer4().to_string();
    let link = range.netns.link();
    let table = "253";
    ip(&["route", "add", metadata, "via", &there, "dev", link, "table", table]);
    ip(&["rule", "add", "to", metadata, "oif", link, "lookup", table]);
    let attack = r"
for port in (80, 443):
    s = tcp()
    s.setsockopt(socket.SOL_SOCKET, 25, link.encode())
    go(s, ('169.254.169.254', port))
s = udp()
s.setsockopt(socket.SOL_SOCKET, 25, link.encode())
sent(lambda: s.sendto(mark, ('169.254.169.254', 80)))";
    let on = range.attack_without(attack, &[]);
    let off = range.attack_without(attack, UDP4);
    ip(&["rule", "delete", "to", metadata, "oif", link, "lookup", table]);
    assert!(on.is_empty(), "{on:#?}");
    assert!(off.iter().any(|packet| packet.destination.to_string() == metadata), "{off:#?}");
}

#[test]
fn egress_without_interceptor_is_blocked() {
    let range = AttackRange::new();
    let attack =
        "go(tcp(), (there4, 443)); go(tcp(), (there4, 53)); sent(lambda: udp().sendto(mark, (there4, 53)))";
    let mut fixture = super::attack_range::fixture_without(&[]);
    (fixture.listener4, fixture.listener6) = (None, None);
    assert!(range.attack_from(&fixture, attack).is_empty());
    drop(fixture);
    range.assert_together_block(attack, UDP4);
}

/// UDP over IPv6: connect to a resolver, then send elsewhere.
#[test]
fn udp_socket_connected_to_resolver_sends_nowhere_else() {
    let range = AttackRange::new();
    let attack = r"
s = udp(socket.AF_INET6)
s.connect((there6, 53))
sent(lambda: s.sendto(mark, (there6, 9999)))
sent(lambda: s.sendto(mark, ('::ffff:' + there4, 9999)))";
    range.assert_together_block(attack, UDP6);
}
