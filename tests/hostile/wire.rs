//! Packets toward the wire by the ordinary calls, in every order and form: the hooks on `connect` and
//! `sendmsg` lead them elsewhere, and the drop of everything stands behind.

use super::range::Range;

const TCP4: &[&str] = &["as_connect4", "as_egress"];
const TCP6: &[&str] = &["as_connect6", "as_egress"];
const UDP4: &[&str] = &["as_connect4", "as_sendmsg4", "as_egress"];
const UDP6: &[&str] = &["as_connect6", "as_sendmsg6", "as_egress"];

#[test]
fn plain_tcp_over_both_families() {
    let range = Range::new();
    range.each_stops("go(tcp(), (there4, 443))", TCP4);
    range.each_stops("go(tcp(socket.AF_INET6), (there6, 443))", TCP6);
}

#[test]
fn ipv4_through_an_ipv6_socket() {
    let range = Range::new();
    // The hook of one family alone sees it.
    range.each_stops("go(tcp(socket.AF_INET6), ('::ffff:' + there4, 443))", TCP6);
    range.each_stops(
        "sent(lambda: udp(socket.AF_INET6).sendto(mark, ('::ffff:' + there4, 443)))",
        // An IPv4 packet is IPv4's, whatever the socket.
        &["as_sendmsg4", "as_egress"],
    );
}

#[test]
fn data_with_the_first_packet() {
    let range = Range::new();
    range.each_stops("sent(lambda: tcp().sendto(mark, socket.MSG_FASTOPEN, (there4, 443)))", TCP4);
    // TCP_FASTOPEN_NO_COOKIE: the data goes with the SYN, as it does once a cookie is cached.
    let cookieless = r"
s = tcp()
s.setsockopt(6, 34, 1)
sent(lambda: s.sendto(mark, socket.MSG_FASTOPEN, (there4, 443)))";
    range.each_stops(cookieless, TCP4);
    let found = range.shoot(cookieless, TCP4);
    let with_data = |packet: &crate::support::capture::Packet| packet.payload == range.mark().as_bytes();
    assert!(found.iter().any(with_data), "the data is to go with the SYN: {found:#?}");
}

#[test]
fn a_connection_that_is_opened_by_the_first_write() {
    let range = Range::new();
    // TCP_FASTOPEN_CONNECT and no cookie: `connect` returns at once, the SYN leaves with the write.
    let attack = "s = tcp(); s.setsockopt(6, 34, 1); s.setsockopt(6, 30, 1); go(s, (there4, 443))";
    range.each_stops(attack, TCP4);
}

#[test]
fn a_socket_that_is_disconnected_and_connects_again() {
    let range = Range::new();
    let attack = r"
s = tcp()
go(s, ('127.0.0.1', door))
libc.connect(s.fileno(), bytes(16), 16)
go(s, (there4, 443))
libc.connect(s.fileno(), bytes(28), 28)
go(s, (there4, 444))";
    range.each_stops(attack, TCP4);
    let datagrams = r"
s = udp()
s.connect((there4, 53))
libc.connect(s.fileno(), bytes(16), 16)
go(s, (there4, 443))
sent(lambda: s.sendto(mark, (there4, 443)))
sent(lambda: s.send(mark))";
    range.together_stop(datagrams, UDP4);
}

#[test]
fn datagrams_connected_and_not() {
    let range = Range::new();
    range.each_stops("sent(lambda: udp().sendto(mark, (there4, 9999)))", &["as_sendmsg4", "as_egress"]);
    range.each_stops("go(udp(), (there4, 9999))", TCP4);
    range.each_stops(
        "sent(lambda: udp(socket.AF_INET6).sendto(mark, (there6, 9999)))",
        &["as_sendmsg6", "as_egress"],
    );
    range.each_stops("go(udp(socket.AF_INET6), (there6, 9999))", TCP6);
}

#[test]
fn quic() {
    let range = Range::new();
    // A long header of QUIC version 1, padded as an Initial must be.
    let attack = r"
initial = (b'\xc3\0\0\0\x01\x08' + os.urandom(8) + b'\0\0' + mark).ljust(1200, b'\0')
for family, host in ((socket.AF_INET, there4), (socket.AF_INET6, there6)):
    sent(lambda: udp(family).sendto(initial, (host, 443)))
    go(udp(family), (host, 443), initial)";
    range.together_stop(attack, &["as_connect4", "as_connect6", "as_sendmsg4", "as_sendmsg6", "as_egress"]);
}

#[test]
fn many_messages_in_one_call_and_in_pieces() {
    let range = Range::new();
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
    range.each_stops(attack, &["as_sendmsg4", "as_egress"]);
}

#[test]
fn metadata_services() {
    let range = Range::new();
    let metadata = "169.254.169.254";
    let ip = |words: &[&str]| {
        crate::support::process::finish(crate::support::process::command("ip").args(words)).ok();
    };
    // Toward the other end, for this address alone; gone with the link.
    let there = range.netns.there4().to_string();
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
    let on = range.shoot(attack, &[]);
    let off = range.shoot(attack, UDP4);
    ip(&["rule", "delete", "to", metadata, "oif", link, "lookup", table]);
    assert!(on.is_empty(), "{on:#?}");
    assert!(off.iter().any(|packet| packet.destination.to_string() == metadata), "{off:#?}");
}

#[test]
fn without_an_interceptor_nothing_leaves_either() {
    let range = Range::new();
    let attack =
        "go(tcp(), (there4, 443)); go(tcp(), (there4, 53)); sent(lambda: udp().sendto(mark, (there4, 53)))";
    let mut fixture = super::range::fixture_without(&[]);
    (fixture.listener4, fixture.listener6) = (None, None);
    assert!(range.shoot_at(&fixture, attack).is_empty());
    drop(fixture);
    range.together_stop(attack, UDP4);
}

/// UDP over IPv6 by the old order of calls: connect to a resolver, then send elsewhere.
#[test]
fn a_socket_that_was_led_to_the_resolver_sends_nowhere_else() {
    let range = Range::new();
    let attack = r"
s = udp(socket.AF_INET6)
s.connect((there6, 53))
sent(lambda: s.sendto(mark, (there6, 9999)))
sent(lambda: s.sendto(mark, ('::ffff:' + there4, 9999)))";
    range.together_stop(attack, UDP6);
}
