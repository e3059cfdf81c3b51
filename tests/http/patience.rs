//! Peers that dawdle are given up, as the configuration says; what is under way at our end is finished.

use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

#[test]
fn every_kind_of_dawdling_ends_as_configured() {
    let world = World::new();
    world.home.configure(
        "timeouts: { handshake: 1s, head: 1s, idle: 2s, answer: 2s, body_idle: 1s, connect: 1s }\n",
    );
    let out = python(&world, "slow.py", &[]).ok();
    let expected = [
        "silent | end",
        "half a hello | ",
        "half a head | HTTP/1.1 408 Request Timeout",
        "idle | end",
        "idle after one | HTTP/1.1 200 OK",
        "idle HTTP/2 | ",
        "half a body | HTTP/1.1 400 Bad Request",
        "no answer | HTTP/1.1 504 Gateway Timeout",
        "half an answer | HTTP/1.1 200 OK",
    ];
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{out}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected) && line.ends_with("in time"), "{expected}\n{out}");
    }
}

#[test]
fn a_configuration_with_a_mistake_starts_nothing() {
    let world = World::new();
    world.home.configure("timeouts:\n  heda: 1s\n");
    let outcome = finish(&mut world.home.run_agent(["true"]));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("config.yaml:2"), "{outcome:?}");
    let doctor = finish(&mut world.home.agentsecrets(["doctor"]));
    assert!(doctor.stdout.contains("config.yaml:2"), "{doctor:?}");
}

#[test]
fn what_is_under_way_is_finished_when_the_interceptor_is_told_to_end() {
    let world = World::new();
    world.home.configure("timeouts: { drain: 20s }\n");
    // It takes about two seconds, and has begun when its first bytes are there.
    let script = format!(
        "curl -sS --limit-rate 2M -o $HOME/got {} & until [ -s $HOME/got ]; do :; done; echo ready; wait $!; \
         echo code $?; wc -c < $HOME/got; curl -sS -m 5 {} >/dev/null 2>&1 || echo offline",
        world.url("/stream?n=5000000"),
        world.url("/echo"),
    );
    let mut agent = Agent::started(world.home.run_agent(["bash", "-c", &script]));
    kill(Pid::from_raw(agent.interceptor().cast_signed()), Signal::SIGTERM).unwrap();
    let mut out = String::new();
    agent.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "code 0\n5000000\noffline\n");
    drop(agent);
    assert_eq!(world.home.audit()[0]["status"], "OK");
}
