//! When the interceptor dies the agent is offline, and what it had taken is not sent on.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::support::capture::Capture;
use crate::support::netns::Netns;
use crate::support::process::until;

#[test]
fn an_interceptor_that_is_killed_leaves_the_agent_offline() {
    let netns = Netns::new();
    let world = World::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).at((netns.there4(), 0)).inside(&netns))
    });
    // An upload that goes on for as long as the agent lives, and new connections all the while.
    let script = format!(
        "(while :; do head -c 65536 /dev/zero; done | curl -sS --limit-rate 1M -T - -X POST {0} >/dev/null 2>&1) & \
         until [ -s $HOME/first ]; do curl -sS {0} -d x -o $HOME/first; done; echo ready; \
         read line; for i in 1 2 3 4 5; do curl -sS -m 2 {0} -d x >/dev/null 2>&1 && echo answered; done; \
         echo done; kill %1",
        world.url("/upload")
    );
    let mut agent = Agent::started(world.home.run_agent(["bash", "-c", &script]));
    let capture = Capture::start(&netns);
    let before = capture.sent_to(world.api.port());
    // The upload is under way: the wire is busy.
    until("bytes flow", || capture.sent_to(world.api.port()) > before + 200_000);

    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    kill(interceptor, Signal::SIGKILL).unwrap();
    until("it is dead", || is_dead(interceptor));
    // What the kernel was sending at that moment may still arrive; then there is a reset, and silence.
    let quiet = settle(&capture, world.api.port());

    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "done", "the agent was answered");
    assert_eq!(capture.sent_to(world.api.port()), quiet, "something of the agent's reached the wire");
}

/// The server takes the beginning of an upload and then reads no more, so that all the buffers on the way
/// fill up; once the interceptor is dead it reads on.
#[test]
fn what_was_taken_but_not_forwarded_is_not_sent_after_death() {
    let netns = Netns::new();
    let (handle, address) = (netns.handle(), (netns.there4(), 8080));
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        handle.enter();
        let listener = std::net::TcpListener::bind(address).unwrap();
        tell.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read_exact(&mut stream, &mut vec![0; 65536]).unwrap();
        resumed.recv().unwrap();
        // Until the reset.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    told.recv().unwrap();
    let mut world = World::new();
    world.home.host("plain.test", netns.there4());
    world.rules(&[("plain.test", 8080, "")]);
    let capture = Capture::start(&netns);
    let script = "echo ready; head -c 30000000 /dev/zero | curl -sS -T - -X POST http://plain.test:8080/; echo; read line";
    let agent = Agent::started(world.home.run_agent(["bash", "-c", script]));
    until("bytes flow", || capture.sent_to(8080) > 65536);
    settle(&capture, 8080);

    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    kill(interceptor, Signal::SIGKILL).unwrap();
    until("it is dead", || is_dead(interceptor));
    let at_death = capture.sent_to(8080);
    resume.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(settle(&capture, 8080), at_death, "buffered bytes were flushed after death");
}

/// Whether a process has ended so far that its sockets are closed: its memory is gone earlier.
fn is_dead(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    threads == 0 || (threads == 1 && stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// The bytes sent once nothing more has been sent for half a second.
fn settle(capture: &Capture, port: u16) -> u64 {
    let mut last = capture.sent_to(port);
    let mut since = std::time::Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(20));
        let now = capture.sent_to(port);
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
    }
    last
}
