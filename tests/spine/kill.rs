//! The interceptor is killed at random moments while agents upload and ask: until the run has ended nothing
//! of theirs reaches the wire, and the next run works as if nothing had been.

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

/// The longest time from the first answer to the kill, in milliseconds.
const LATEST: u64 = 400;

#[test]
fn three_kills_under_load_leave_nothing_on_the_wire() {
    kill_again_and_again(3);
}

#[test]
#[ignore = "long: 200 kills, about five minutes"]
fn two_hundred_kills_under_load_leave_nothing_on_the_wire() {
    kill_again_and_again(200);
}

fn kill_again_and_again(times: u64) {
    let netns = Netns::new();
    let world = World::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).at((netns.there4(), 0)).inside(&netns))
    });
    let (mut busy, mut moments) = (0, BTreeSet::new());
    let mut random = 0x9e37_79b9_7f4a_7c15;
    for round in 0..times {
        let after = Duration::from_millis(next(&mut random) % LATEST);
        moments.insert(after);
        busy += one_kill(&world, &netns, after, round);
    }
    let (earliest, latest) = (moments.first().unwrap(), moments.last().unwrap());
    println!("{times} kills, {earliest:?} to {latest:?} after the first answer");
    println!("bytes on the wire before the kills: {busy}; of agents while down: 0");
    assert!(busy > times * 10_000, "the agents put no load on the wire: {busy} bytes");
}

/// One run, killed: how many bytes were on the wire before.
#[track_caller]
fn one_kill(world: &World, netns: &Netns, after: Duration, round: u64) -> u64 {
    // Two uploads and two askers, one with a connection for each question; then, while we are down, what
    // an agent could still try: names, addresses, UDP, and all of the above going on.
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
        world.url("").trim_end_matches('/'),
        world.api.port(),
        netns.there4(),
    );
    let capture = Capture::start(netns);
    let mut agent = Agent::started(world.home.run_agent(["bash", "-c", &script]));
    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    // That is what is being tested: any moment will do.
    std::thread::sleep(after);
    let ended = agentsecrets::sys::process::pidfd(interceptor).unwrap();
    kill(interceptor, Signal::SIGKILL).unwrap();
    await_end(ended.as_fd());

    // Of what the kernel had taken before, nothing is on its way any more once a mark has crossed.
    let before = capture.packets();
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let said: Vec<String> =
        BufReader::new(agent.child.stdout.as_mut().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(said, ["done"], "round {round}: the agent got something through");
    agent.child.wait().unwrap();

    let packets = capture.packets();
    let late: Vec<&Packet> = packets
        .iter()
        .skip(before.len())
        .filter(|packet| packet.source != netns.there4() && packet.source != netns.there6())
        .collect();
    assert!(late.is_empty(), "round {round}, killed after {after:?}: on the wire while down: {late:#?}");
    before.iter().filter(|packet| packet.destination_port == world.api.port()).map(length).sum()
}

fn length(packet: &Packet) -> u64 {
    packet.payload.len() as u64
}

/// Waits until the last thread of a process is gone, and with it its sockets.
fn await_end(process: std::os::fd::BorrowedFd<'_>) {
    let started = Instant::now();
    let ended = poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::from(20_000_u16));
    assert_eq!(ended, Ok(1), "the interceptor lived on for {:?}", started.elapsed());
}

/// Xorshift: the same moments in every run.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
