//! The interceptor is killed at random moments under load: nothing of the agents reaches the wire until the
//! run ends, and the next run works normally.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::support::capture::{Capture, Packet};
use crate::support::netns::Netns;

/// The longest time from the first response to the kill, in milliseconds.
const MAX_KILL_DELAY_MS: u64 = 400;

#[test]
fn three_kills_under_load_leak_nothing() {
    kill_repeatedly(3);
}

#[test]
#[ignore = "long: 200 kills, about five minutes"]
fn two_hundred_kills_under_load_leak_nothing() {
    kill_repeatedly(200);
}

fn kill_repeatedly(times: u64) {
    let netns = Netns::new();
    let fixture = Fixture::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).at((netns.peer4(), 0)).in_netns(&netns))
    });
    let (mut busy, mut moments) = (0, BTreeSet::new());
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for round in 0..times {
        let after = Duration::from_millis(next_random(&mut random) % MAX_KILL_DELAY_MS);
        moments.insert(after);
        busy += run_and_kill(&fixture, &netns, after, round);
    }
    let (earliest, latest) = (moments.first().unwrap(), moments.last().unwrap());
    println!("{times} kills, {earliest:?} to {latest:?} after the first answer");
    println!("bytes on the wire before the kills: {busy}; of agents while down: 0");
    assert!(busy > times * 10_000, "the agents put no load on the wire: {busy} bytes");
}

/// One run whose interceptor is killed; returns the bytes on the wire before.
#[track_caller]
fn run_and_kill(fixture: &Fixture, netns: &Netns, after: Duration, round: u64) -> u64 {
    // Two uploads and two clients, one with a connection per request; after the kill also DNS, addresses and
    // UDP, with all of the above going on.
    let script = format!(
        "up() {{ while :; do head -c 16384 /dev/zero || break; done | curl -sS --limit-rate 4M -T - -X POST {0}/upload; }}
         ask() {{ while :; do curl -sS -m 2 $1 {0}/echo {0}/echo -d $(printf 'x%.0s' {{1..2000}}); done; }}
         exec 2>/dev/null
         for work in up up ask 'ask --http1.1'; do $work >/dev/null & done
         until curl -sS -f {0}/echo -o /dev/null; do :; done; echo answered
         read line
         curl -sS -m 1 {0}/echo -d late >/dev/null && echo through
         curl -sS -m 1 --resolve api.test:{1}:{2} {0}/echo -d late >/dev/null && echo through
         echo late > /dev/udp/{2}/53; echo late > /dev/udp/{2}/9999
         (echo late > /dev/tcp/{2}/{1}) && echo connected
         getent hosts late.test && echo resolved
         echo done; exit",
        fixture.url("").trim_end_matches('/'),
        fixture.api.port(),
        netns.peer4(),
    );
    let capture = Capture::start(netns);
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    // A random moment is the point of the test.
    std::thread::sleep(after);
    let ended = agentsecrets::sys::process::pidfd(interceptor).unwrap();
    kill(interceptor, Signal::SIGKILL).unwrap();
    await_end(ended.as_fd());

    // Once a marker has crossed, no earlier packet is in flight.
    let before = capture.packets();
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let output: Vec<String> =
        BufReader::new(agent.child.stdout.as_mut().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(output, ["done"], "round {round}: the agent got something through");
    agent.child.wait().unwrap();

    let packets = capture.packets();
    let late: Vec<&Packet> = packets
        .iter()
        .skip(before.len())
        .filter(|packet| packet.source != netns.peer4() && packet.source != netns.peer6())
        .collect();
    assert!(late.is_empty(), "round {round}, killed after {after:?}: on the wire while down: {late:#?}");
    before.iter().filter(|packet| packet.destination_port == fixture.api.port()).map(payload_length).sum()
}

fn payload_length(packet: &Packet) -> u64 {
    packet.payload.len() as u64
}

/// Waits until the last thread of a process, and with it its sockets, is gone.
fn await_end(process: std::os::fd::BorrowedFd<'_>) {
    let started = Instant::now();
    let ended = poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::from(20_000_u16));
    assert_eq!(ended, Ok(1), "the interceptor lived on for {:?}", started.elapsed());
}

/// Xorshift: the same moments in every run.
fn next_random(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
