//! HTTP on the wire. HTTP/1: well-formed requests pass, ambiguous ones are rejected. HTTP/2: a hostile client gets
//! errors and does not affect others.

use std::io::{BufRead, BufReader, Read, Write};

use super::*;

#[test]
fn hostile_http2_frames_are_errors() {
    let fixture = Fixture::new();
    fixture.rule("secrets: [API_KEY]\npaths: [\"/good\", \"/bad\"]");
    let port = fixture.api.port().to_string();
    let program = "http/programs/http2.py";
    let mut agent = WaitingAgent::start_command(with_program(
        fixture.home.run_agent([PYTHON]),
        program,
        &[port.as_str(), "attack"],
    ));
    let interceptor = agent.interceptor();
    let before = resident_memory(interceptor);
    let mut out = String::new();
    let mut lines = BufReader::new(agent.child.stdout.take().unwrap());
    lines.read_line(&mut out).unwrap();
    let after = resident_memory(interceptor);
    lines.read_to_string(&mut out).unwrap();
    assert_eq!(out.trim(), "cases 41", "{out}");
    assert!(after < before + 32 * 1024, "{before} KiB became {after} KiB");
    let received = fixture.api.received();
    assert!(received.iter().all(|received| received.path == "/good"), "{received:#?}");
}

#[test]
fn trailers_are_forwarded_both_ways() {
    let fixture = Fixture::new();
    let out = python(&fixture, "http2.py", &["trailers"]).ok();
    assert!(out.contains("('x-echo', '0')") && out.contains("StreamEnded"), "{out}");
    let received = fixture.api.only_request();
    assert_eq!(received.trailers["x-request-trailer"], ["yes"]);
    assert_eq!((received.header("te"), received.header("authorization")), ("trailers", SECRET));
    assert_eq!(received.body, "\0\0\0\0\u{2}hi");
}

#[test]
fn reset_stream_is_cancelled() {
    let fixture = Fixture::new();
    let port = fixture.api.port().to_string();
    let program = "http/programs/http2.py";
    let mut agent = WaitingAgent::start_command(with_program(
        fixture.home.run_agent([PYTHON]),
        program,
        &[port.as_str(), "reset"],
    ));
    fixture.api.wait_for(|received| received.path == "/never");
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut out = String::new();
    agent.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out.trim(), "ended 3");
    drop(agent);
    let statuses: Vec<_> = fixture.home.audit().iter().map(|record| record["status"].clone()).collect();
    assert_eq!(statuses, ["ABORTED", "OK"]);
}

#[test]
fn raw_http1_requests_get_expected_responses() {
    let fixture = Fixture::new();
    fixture.rule("secrets: [API_KEY]\npaths: [\"/good\", \"/good/**\", \"/bad\"]");
    let out = python(&fixture, "raw.py", &[]).ok();
    assert!(out.starts_with("cases 6"), "{out}");
    let received = fixture.api.received();
    let bad: Vec<_> = received.iter().filter(|received| !received.path.starts_with("/good")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let audit = fixture.home.audit();
    let refused =
        audit.iter().filter(|record| record["method"] == "CONNECT" && record["status"] == "BLOCKED");
    assert!(refused.count() > 30, "what is no request is on record too");
    run(&mut fixture.home.agentsecrets(["audit", "verify"])).ok();
}
