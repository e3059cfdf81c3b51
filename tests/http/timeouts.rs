//! Slow peers time out as configured; requests in progress are finished on shutdown.

use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

#[test]
fn slow_peers_time_out() {
    let fixture = Fixture::new();
    fixture.home.write_config(
        "timeouts: { handshake: 1s, head: 1s, idle: 2s, answer: 2s, body_idle: 1s, connect: 1s }\n",
    );
    let out = python(&fixture, "slow.py", &[]).ok();
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
fn invalid_config_starts_nothing() {
    let fixture = Fixture::new();
    fixture.home.write_config("timeouts:\n  heda: 1s\n");
    let outcome = run(&mut fixture.home.run_agent(["true"]));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("config.yaml:2"), "{outcome:?}");
    let doctor = run(&mut fixture.home.agentsecrets(["doctor"]));
    assert!(doctor.stdout.contains("config.yaml:2"), "{doctor:?}");
}

#[test]
fn shutdown_drains_requests() {
    let fixture = Fixture::new();
    fixture.home.write_config("timeouts: { drain: 20s }\n");
    // It takes about two seconds, and has begun when its first bytes arrive.
    let script = format!(
        "curl -sS --limit-rate 2M -o $HOME/got {} & until [ -s $HOME/got ]; do :; done; echo ready; wait $!; \
         echo code $?; wc -c < $HOME/got; curl -sS -m 5 {} >/dev/null 2>&1 || echo offline",
        fixture.url("/stream?n=5000000"),
        fixture.url("/echo"),
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    kill(Pid::from_raw(agent.interceptor().cast_signed()), Signal::SIGTERM).unwrap();
    let mut out = String::new();
    agent.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "code 0\n5000000\noffline\n");
    drop(agent);
    assert_eq!(fixture.home.audit()[0]["status"], "OK");
}
