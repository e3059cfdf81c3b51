//! When the interceptor dies, the agent is offline and buffered data is not sent on.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::support::capture::Capture;
use crate::support::netns::Netns;
use crate::support::process::wait_until;

#[test]
fn killed_interceptor_leaves_agent_offline() {
    let netns = Netns::new();
    let fixture = Fixture::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).at((netns.peer4(), 0)).in_netns(&netns))
    });
    // An upload that lasts as long as the agent, and new connections at the same time.
    let script = format!(
        "(while :; do head -c 65536 /dev/zero; done | curl -sS --limit-rate 1M -T - -X POST {0} >/dev/null 2>&1) & \
         until [ -s $HOME/first ]; do curl -sS {0} -d x -o $HOME/first; done; echo ready; \
         read line; for i in 1 2 3 4 5; do curl -sS -m 2 {0} -d x >/dev/null 2>&1 && echo answered; done; \
         echo done; kill %1",
        fixture.url("/upload")
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    let capture = Capture::start(&netns);
    let before = capture.sent_to(fixture.api.port());
    // The upload is in progress: packets cross the wire.
    wait_until("bytes flow", || capture.sent_to(fixture.api.port()) > before + 200_000);

    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    kill(interceptor, Signal::SIGKILL).unwrap();
    wait_until("it is dead", || is_dead(interceptor));
    // Data that the kernel was sending may still arrive; then there is a reset and silence.
    let quiet = settled_bytes(&capture, fixture.api.port());

    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "done", "the agent was answered");
    assert_eq!(capture.sent_to(fixture.api.port()), quiet, "something of the agent's reached the wire");
}

/// The server reads the start of an upload and stops, so that all buffers fill; it resumes once the
/// interceptor is dead.
#[test]
fn buffered_upload_is_not_sent_after_death() {
    let netns = Netns::new();
    let (handle, address) = (netns.handle(), (netns.peer4(), 8080));
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        handle.enter();
        let listener = std::net::TcpListener::bind(address).unwrap();
        sender.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Read::read_exact(&mut stream, &mut vec![0; 65536]).unwrap();
        resumed.recv().unwrap();
        // Until the reset.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    receiver.recv().unwrap();
    let mut fixture = Fixture::new();
    fixture.home.add_host("plain.test", netns.peer4());
    fixture.rules(&[("plain.test", 8080, "")]);
    let capture = Capture::start(&netns);
    let script = "echo ready; head -c 30000000 /dev/zero | curl -sS -T - -X POST http://plain.test:8080/; echo; read line";
    let agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", script]));
    wait_until("bytes flow", || capture.sent_to(8080) > 65536);
    settled_bytes(&capture, 8080);

    let interceptor = Pid::from_raw(agent.interceptor().cast_signed());
    kill(interceptor, Signal::SIGKILL).unwrap();
    wait_until("it is dead", || is_dead(interceptor));
    let at_death = capture.sent_to(8080);
    resume.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(settled_bytes(&capture, 8080), at_death, "buffered bytes were flushed after death");
}

/// Whether a process's sockets are closed; its memory is released earlier.
fn is_dead(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    threads == 0 || (threads == 1 && stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}

/// The bytes sent, once nothing more was sent for half a second.
fn settled_bytes(capture: &Capture, port: u16) -> u64 {
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
