//! The shooting range: an agent's cgroup on one side of a wire, a capture on the other.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::ebpf::agent::{Fixture, Program, start_in};
use crate::launch::launch;
use crate::support::capture::{Capture, Packet};
use crate::support::netns::Netns;
use crate::support::process::finish;

/// Addresses and helpers that every attack finds: `there4` and `there6` are on the other end of the wire,
/// `link` is ours. `go` is a connection attempt that does not wait for an answer that never comes.
const PRELUDE: &str = r"
import struct, ctypes, time, select, subprocess, tempfile
here4, there4, here6, there6, link, mark, doors = sys.argv[1:8]
mark = mark.encode()
door, dns = map(int, doors.split(','))
libc = ctypes.CDLL(None, use_errno=True)
index = socket.if_nametoindex(link)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
def tcp(family=socket.AF_INET):
    s = socket.socket(family)
    s.settimeout(0.3)
    return s
def udp(family=socket.AF_INET): return socket.socket(family, UDP)
def go(s, address, data=mark):
    try:
        s.connect(address)
        s.sendall(data)
    except OSError: pass
    return s
def sent(call):
    try: call()
    except OSError as error: print(error)
";

/// A second network, and what crosses the wire to it.
pub(super) struct Range {
    pub(super) netns: Netns,
    capture: Capture,
}

impl Range {
    pub(super) fn new() -> Self {
        let netns = Netns::new();
        let capture = Capture::start(&netns);
        Self { netns, capture }
    }

    /// The packets of an attack that runs in a cgroup without the hooks called `without`.
    pub(super) fn shoot(&self, attack: &str, without: &[&str]) -> Vec<Packet> {
        self.shoot_at(&fixture_without(without), attack)
    }

    /// The packets of an attack that runs in the cgroup of `fixture`.
    pub(super) fn shoot_at(&self, fixture: &Fixture, attack: &str) -> Vec<Packet> {
        let before = self.capture.packets().len();
        self.run(&fixture.cgroup, attack, (fixture.ports.listener, fixture.ports.dns));
        self.packets().split_off(before)
    }

    /// Runs an attack in any cgroup; gives what it printed.
    pub(super) fn run(&self, cgroup: &Path, attack: &str, doors: (u16, u16)) -> String {
        let script = format!("{PRELUDE}{attack}");
        let words = self.words(doors);
        start_in(cgroup, &script, &words.each_ref().map(String::as_str)).rest()
    }

    /// Starts an attack in any cgroup.
    pub(super) fn start(&self, cgroup: &Path, attack: &str) -> Program {
        let words = self.words((1, 1));
        start_in(cgroup, &format!("{PRELUDE}{attack}"), &words.each_ref().map(String::as_str))
    }

    /// Connects from the other end of the wire to `port` of ours; whether that came about within a second.
    pub(super) fn connect_from_there(&self, port: u16) -> bool {
        let (handle, here) = (self.netns.handle(), self.netns.here4());
        let attempt = move || {
            handle.enter();
            TcpStream::connect_timeout(&SocketAddr::from((here, port)), Duration::from_secs(1)).is_ok()
        };
        std::thread::spawn(attempt).join().unwrap()
    }

    /// A whole attack as arguments of Python, to be started any other way.
    pub(super) fn python(&self, attack: &str) -> Vec<String> {
        let script = format!("import socket, os, sys, errno\n{PRELUDE}{attack}");
        let python = ["/usr/bin/python3", "-u", "-c", &script].map(str::to_owned);
        python.into_iter().chain(self.words((1, 1))).collect()
    }

    /// Every packet so far.
    pub(super) fn packets(&self) -> Vec<Packet> {
        self.capture.packets()
    }

    /// The mark that attacks try to get across.
    pub(super) fn mark(&self) -> String {
        format!("exfiltrated {}", self.netns.there4())
    }

    /// The attack gets across without `walls`, and not at all with any one of them.
    #[track_caller]
    pub(super) fn each_stops(&self, attack: &str, walls: &[&str]) {
        let walls: Vec<&[&str]> = walls.chunks(1).collect();
        self.each_stops_of(attack, &walls);
    }

    /// The same with walls that are several hooks each.
    #[track_caller]
    pub(super) fn each_stops_of(&self, attack: &str, walls: &[&[&str]]) {
        let all = self.shoot(attack, &[]);
        assert!(all.is_empty(), "with every hook: {all:#?}");
        for (number, kept) in walls.iter().enumerate() {
            let others = [&walls[..number], &walls[number + 1..]].concat().concat();
            if !others.is_empty() {
                let seen = self.shoot(attack, &others);
                assert!(seen.is_empty(), "with {kept:?} alone: {seen:#?}");
            }
        }
        assert!(
            !self.shoot(attack, &walls.concat()).is_empty(),
            "the attack does not bite without {walls:?}"
        );
    }

    /// The same where the walls stop different parts of an attack, so that only all of them together hold.
    #[track_caller]
    pub(super) fn together_stop(&self, attack: &str, walls: &[&str]) {
        let all = self.shoot(attack, &[]);
        assert!(all.is_empty(), "with every hook: {all:#?}");
        assert!(!self.shoot(attack, walls).is_empty(), "the attack does not bite without {walls:?}");
    }

    /// The attack gets across from a cgroup with every hook, since no hook sees it, and not from the sandbox.
    #[track_caller]
    pub(super) fn sandbox_alone_stops(&self, attack: &str) {
        assert!(!self.shoot(attack, &[]).is_empty(), "the attack does not bite");
        let seen = self.shoot_from_sandbox(attack);
        assert!(seen.is_empty(), "from the sandbox: {seen:#?}");
    }

    /// The packets of an attack that is an agent.
    pub(super) fn shoot_from_sandbox(&self, attack: &str) -> Vec<Packet> {
        let before = self.capture.packets().len();
        finish(launch(&[], &[]).args(self.python(attack)));
        self.packets().split_off(before)
    }

    fn words(&self, (listener, dns): (u16, u16)) -> [String; 7] {
        let netns = &self.netns;
        let link = format!("{listener},{dns}");
        [
            netns.here4().to_string(),
            netns.there4().to_string(),
            netns.here6().to_string(),
            netns.there6().to_string(),
            netns.link().to_owned(),
            self.mark(),
            link,
        ]
    }
}

/// A cgroup whose hooks are real, but for those called `without`: their pins are removed.
pub(super) fn fixture_without(without: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    for hook in without {
        fs::remove_file(fixture.pins.join(hook)).unwrap();
    }
    fixture
}
