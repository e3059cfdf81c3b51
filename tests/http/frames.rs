//! HTTP/2 by the frame: what a hostile client sends ends in an error of its own and disturbs nobody.

use std::io::{BufRead, BufReader, Read, Write};

use super::*;

#[test]
fn hostile_frames_end_in_errors_and_memory_stays_flat() {
    let world = World::new();
    world.rule("secrets: [API_KEY]\npaths: [\"/good\", \"/bad\"]");
    let port = world.api.port().to_string();
    let program = "http/programs/http2.py";
    let mut agent =
        Agent::started(with_program(world.home.run_agent([PYTHON]), program, &[port.as_str(), "attack"]));
    let interceptor = agent.interceptor();
    let before = resident(interceptor);
    let mut out = String::new();
    let mut lines = BufReader::new(agent.child.stdout.take().unwrap());
    lines.read_line(&mut out).unwrap();
    let after = resident(interceptor);
    lines.read_to_string(&mut out).unwrap();
    assert_eq!(out.trim(), "cases 41", "{out}");
    assert!(after < before + 32 * 1024, "{before} KiB became {after} KiB");
    let received = world.api.received();
    assert!(received.iter().all(|received| received.path == "/good"), "{received:#?}");
}

#[test]
fn trailers_go_both_ways() {
    let world = World::new();
    let out = python(&world, "http2.py", &["trailers"]).ok();
    assert!(out.contains("('x-echo', '0')") && out.contains("StreamEnded"), "{out}");
    let received = world.api.only();
    assert_eq!(received.trailers["x-request-trailer"], ["yes"]);
    assert_eq!((received.header("te"), received.header("authorization")), ("trailers", SECRET));
    assert_eq!(received.body, "\0\0\0\0\u{2}hi");
}

#[test]
fn a_stream_that_is_reset_is_broken_off_and_the_next_one_is_served() {
    let world = World::new();
    let port = world.api.port().to_string();
    let program = "http/programs/http2.py";
    let mut agent =
        Agent::started(with_program(world.home.run_agent([PYTHON]), program, &[port.as_str(), "reset"]));
    world.api.wait_for(|received| received.path == "/never");
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut out = String::new();
    agent.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out.trim(), "ended 3");
    drop(agent);
    let statuses: Vec<_> = world.home.audit().iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses, ["ABORTED", "OK"]);
}
