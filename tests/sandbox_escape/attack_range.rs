//! The attack range: an agent's cgroup on one side of a veth pair, a capture on the other.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::ebpf::fixture::{HookedCgroup, Program, start_in};
use crate::launch::launch;
use crate::support::capture::{Capture, Packet};
use crate::support::netns::Netns;
use crate::support::process::run;

/// Addresses and helpers for every attack: `there4` and `there6` are on the other end of the veth pair,
/// `link` is our end. `go` connects without waiting for a response.
const PRELUDE: &str = r"
import struct, ctypes, time, select, subprocess, tempfile
here4, there4, here6, there6, link, mark, ports = sys.argv[1:8]
mark = mark.encode()
listener_port, dns = map(int, ports.split(','))
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

/// A second network with a capture.
pub(super) struct AttackRange {
    pub(super) netns: Netns,
    capture: Capture,
}

impl AttackRange {
    pub(super) fn new() -> Self {
        let netns = Netns::new();
        let capture = Capture::start(&netns);
        Self { netns, capture }
    }

    /// The packets of an attack in a cgroup without the hooks named in `without`.
    pub(super) fn attack_without(&self, attack: &str, without: &[&str]) -> Vec<Packet> {
        self.attack_from(&fixture_without(without), attack)
    }

    /// The packets of an attack in the cgroup of `fixture`.
    pub(super) fn attack_from(&self, fixture: &HookedCgroup, attack: &str) -> Vec<Packet> {
        let before = self.capture.packets().len();
        self.run(&fixture.cgroup, attack, (fixture.ports.listener, fixture.ports.dns));
        self.packets().split_off(before)
    }

    /// Runs an attack in any cgroup; returns its output.
    pub(super) fn run(&self, cgroup: &Path, attack: &str, ports: (u16, u16)) -> String {
        let script = format!("{PRELUDE}{attack}");
        let words = self.script_arguments(ports);
        start_in(cgroup, &script, &words.each_ref().map(String::as_str)).read_to_end()
    }

    /// Starts an attack in any cgroup.
    pub(super) fn start(&self, cgroup: &Path, attack: &str) -> Program {
        let words = self.script_arguments((1, 1));
        start_in(cgroup, &format!("{PRELUDE}{attack}"), &words.each_ref().map(String::as_str))
    }

    /// Connects from the other end to our `port`; returns whether that succeeded within a second.
    pub(super) fn connect_from_peer(&self, port: u16) -> bool {
        let (handle, here) = (self.netns.handle(), self.netns.local4());
        let attempt = move || {
            handle.enter();
            TcpStream::connect_timeout(&SocketAddr::from((here, port)), Duration::from_secs(1)).is_ok()
        };
        std::thread::spawn(attempt).join().unwrap()
    }

    /// A whole attack as Python arguments, for another launcher.
    pub(super) fn python(&self, attack: &str) -> Vec<String> {
        let script = format!("import socket, os, sys, errno\n{PRELUDE}{attack}");
        let python = ["/usr/bin/python3", "-u", "-c", &script].map(str::to_owned);
        python.into_iter().chain(self.script_arguments((1, 1))).collect()
    }

    pub(super) fn packets(&self) -> Vec<Packet> {
        self.capture.packets()
    }

    /// The marker that attacks try to send.
    pub(super) fn marker(&self) -> String {
        format!("exfiltrated {}", self.netns.peer4())
    }

    /// Asserts that the attack succeeds without `walls`, and fails with any single one of them.
    #[track_caller]
    pub(super) fn assert_each_blocks(&self, attack: &str, walls: &[&str]) {
        let walls: Vec<&[&str]> = walls.chunks(1).collect();
        self.assert_each_group_blocks(attack, &walls);
    }

    /// The same, where each wall is several hooks.
    #[track_caller]
    pub(super) fn assert_each_group_blocks(&self, attack: &str, walls: &[&[&str]]) {
        let all = self.attack_without(attack, &[]);
        assert!(all.is_empty(), "with every hook: {all:#?}");
        for (number, remaining) in walls.iter().enumerate() {
            let others = [&walls[..number], &walls[number + 1..]].concat().concat();
            if !others.is_empty() {
                let seen = self.attack_without(attack, &others);
                assert!(seen.is_empty(), "with {remaining:?} alone: {seen:#?}");
            }
        }
        assert!(
            !self.attack_without(attack, &walls.concat()).is_empty(),
            "the attack does not bite without {walls:?}"
        );
    }

    /// The same, where the walls block different parts of an attack, so that only all of them together hold.
    #[track_caller]
    pub(super) fn assert_together_block(&self, attack: &str, walls: &[&str]) {
        let all = self.attack_without(attack, &[]);
        assert!(all.is_empty(), "with every hook: {all:#?}");
        assert!(!self.attack_without(attack, walls).is_empty(), "the attack does not bite without {walls:?}");
    }

    /// Asserts that the attack succeeds with every hook attached, since no hook sees it, and fails in the
    /// sandbox.
    #[track_caller]
    pub(super) fn assert_sandbox_alone_blocks(&self, attack: &str) {
        assert!(!self.attack_without(attack, &[]).is_empty(), "the attack does not bite");
        let seen = self.attack_from_sandbox(attack);
        assert!(seen.is_empty(), "from the sandbox: {seen:#?}");
    }

    /// The packets of an attack that runs as an agent.
    pub(super) fn attack_from_sandbox(&self, attack: &str) -> Vec<Packet> {
        let before = self.capture.packets().len();
        run(launch(&[], &[]).args(self.python(attack)));
        self.packets().split_off(before)
    }

    fn script_arguments(&self, (listener, dns): (u16, u16)) -> [String; 7] {
        let netns = &self.netns;
        let link = format!("{listener},{dns}");
        [
            netns.local4().to_string(),
            netns.peer4().to_string(),
            netns.local6().to_string(),
            netns.peer6().to_string(),
            netns.link().to_owned(),
            self.marker(),
            link,
        ]
    }
}

/// A cgroup with all hooks except `without`, whose pins are removed.
pub(super) fn fixture_without(without: &[&str]) -> HookedCgroup {
    let fixture = HookedCgroup::new();
    for hook in without {
        fs::remove_file(fixture.pins.join(hook)).unwrap();
    }
    fixture
}
