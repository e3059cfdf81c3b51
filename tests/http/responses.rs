//! Responses: timing, early hints, wrong lengths.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// curl's outcome with a plain server that gives `answer` to its first request and closes.
fn curl(answer: &'static str) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut fixture = Fixture::new();
    fixture.home.add_host("plain.test", [127, 0, 0, 1]);
    fixture.rules(&[("plain.test", port, "")]);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let url = format!("http://plain.test:{port}/");
    let outcome = run(fixture.home.run_agent(["curl", "-sS", "-i", "-m", "10"]).arg(url));
    server.join().unwrap();
    outcome
}

#[test]
fn server_sent_event_arrives_immediately() {
    let fixture = Fixture::new();
    for version in ["--http1.1", "--http2"] {
        let outcome = fixture.curl(&["-N", version, "-m", "2"], "/held");
        assert_eq!(outcome.stdout, "data: one\n\n", "{version} {outcome:?}");
    }
}

#[test]
fn early_hints_are_skipped() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let seen = curl(answer).ok();
    assert!(seen.contains("200 OK") && seen.ends_with("ok"), "{seen}");
}

#[test]
fn wrong_content_length_is_an_error() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nonly this";
    let outcome = curl(short);
    assert!(outcome.code != Some(0) || outcome.stdout.contains("502"), "{outcome:?}");
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let outcome = curl(chunk);
    assert!(outcome.code != Some(0) || outcome.stdout.contains("502"), "{outcome:?}");
}

#[test]
fn non_http_response_is_502() {
    for answer in [
        "garbage\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
    ] {
        let seen = curl(answer).ok();
        assert!(seen.contains("502") && seen.contains("upstream_unavailable"), "{answer:?} gives {seen}");
    }
}

#[test]
fn bodiless_responses_keep_connection() {
    let fixture = Fixture::new();
    for version in ["--http1.1", "--http2"] {
        for (path, more) in [("/status?code=204", "-i"), ("/status?code=304", "-i"), ("/echo", "--head")] {
            let next = fixture.url(path);
            let seen =
                fixture.curl(&[version, more, "-m", "10", "-w", "<%{num_connects}>", &next], path).ok();
            assert!(seen.contains("<1>") && seen.ends_with("<0>"), "{version} {path}: {seen}");
        }
    }
}
