//! Sockets other than plain TCP and UDP.

use super::attack_range::AttackRange;

#[test]
fn multipath_tcp_is_blocked() {
    let range = AttackRange::new();
    let attack = "go(socket.socket(socket.AF_INET, TCP, 262), (there4, 443))";
    range.assert_together_block(attack, &["as_sock_create", "as_connect4", "as_egress"]);
    // Its subflows are TCP, which the other walls see: each of the three is enough.
    for hook in
        [["as_connect4", "as_egress"], ["as_sock_create", "as_egress"], ["as_sock_create", "as_connect4"]]
    {
        let seen = range
            .attack_without(&attack.replace("go(", "sent(lambda: go(").replace("443))", "443)))"), &hook);
        assert!(seen.is_empty(), "without {hook:?}: {seen:#?}");
    }
}

#[test]
fn raw_packets_are_blocked() {
    let range = AttackRange::new();
    let attack = r"
def checked(header):
    total = sum(struct.unpack('!10H', header))
    total = (total >> 16) + (total & 0xffff)
    return header[:10] + struct.pack('!H', ~(total + (total >> 16)) & 0xffff) + header[12:]
datagram = struct.pack('!HHHH', 5353, 9999, 8 + len(mark), 0) + mark
header = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(datagram), 1, 0, 64, 17, 0, socket.inet_aton(here4), socket.inet_aton(there4))
sent(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).sendto(checked(header) + datagram, (there4, 0)))
for protocol in (1, 47, 50, 253):
    sent(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).sendto(mark, (there4, 0)))
sent(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253).sendto(mark, (there6, 0)))";
    range.assert_each_blocks(attack, &["as_sock_create", "as_egress"]);
}

#[test]
fn ping_sockets_are_blocked() {
    let range = AttackRange::new();
    let attack = r"
echo = struct.pack('!BBHHH', 8, 0, 0, 0, 1) + mark
sent(lambda: socket.socket(socket.AF_INET, UDP, 1).sendto(echo, (there4, 0)))
echo6 = struct.pack('!BBHHH', 128, 0, 0, 0, 1) + mark
sent(lambda: socket.socket(socket.AF_INET6, UDP, 58).sendto(echo6, (there6, 0)))";
    let groups = "/proc/sys/net/ipv4/ping_group_range";
    let before = std::fs::read_to_string(groups).unwrap();
    // Where the system allows them for everybody, as most do.
    std::fs::write(groups, "0 2147483647").unwrap();
    let on = range.attack_without(attack, &[]);
    let created = range.attack_without(attack, &["as_egress"]);
    let dropped = range.attack_without(attack, &["as_sock_create"]);
    let off = range.attack_without(attack, &["as_sock_create", "as_connect4", "as_egress"]);
    std::fs::write(groups, before).unwrap();
    assert!(on.is_empty() && created.is_empty() && dropped.is_empty(), "{on:#?} {created:#?} {dropped:#?}");
    assert!(!off.is_empty());
}

#[test]
fn other_transports_are_blocked() {
    let range = AttackRange::new();
    // UDP-Lite; SCTP, DCCP and SMC where the kernel has them.
    let attack = r"
for kind, protocol in ((UDP, 136), (TCP, 132), (socket.SOCK_SEQPACKET, 132), (6, 33), (TCP, 256)):
    try:
        s = socket.socket(socket.AF_INET, kind, protocol)
        s.settimeout(0.3)
        go(s, (there4, 9999))
    except OSError: pass";
    range.assert_together_block(attack, &["as_sock_create", "as_connect4", "as_egress"]);
}

/// No hook sees a packet socket: the sandbox denies the right to create one in two ways.
#[test]
fn packet_sockets_are_blocked_by_sandbox_alone() {
    let range = AttackRange::new();
    let attack = r"
frame = bytes.fromhex('ffffffffffff020000000001 88b5') + mark.ljust(64, b' ')
udp4 = struct.pack('!BBHHHBBH4s4s', 69, 0, 28 + len(mark), 1, 0, 64, 17, 0, socket.inet_aton(here4), socket.inet_aton(there4))
udp4 += struct.pack('!HHHH', 5353, 9999, 8 + len(mark), 0) + mark
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sent(lambda: s.sendto(bytes.fromhex('ffffffffffff020000000001 0800') + udp4, (link, 0x0800)))";
    range.assert_sandbox_alone_blocks(attack);
}
