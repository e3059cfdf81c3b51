//! HTTP/1.1 servers that violate the protocol or disconnect.

use super::*;
use crate::support::process::parse_json_lines;

/// Enough chunks that the body fails after it has begun to arrive.
const MAX_CHUNKS: usize = 60_000;

/// The server's fault, selected by the request path.
fn misbehave(mut peer: Peer) {
    while let Some(head) = peer.request() {
        let path = head.split(' ').nth(1).unwrap_or_default();
        // A short response is buffered before it is forwarded; a long one is in transit when it fails.
        let (path, some) = match path.strip_suffix("-late") {
            Some(path) => (path, "hello".repeat(MAX_CHUNKS)),
            None => (path, "hello".to_owned()),
        };
        let ok = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
        let chunk = format!("{ok}transfer-encoding: chunked\r\n\r\n{:x}\r\n{some}\r\n", some.len());
        match path {
            // Before the head.
            "/close" => return peer.close(),
            "/reset" => return peer.reset(),
            "/hang" => return peer.hang(),
            "/garbage" => {
                peer.send([0, 159, 146, 150, b'\r', b'\n', b'\r', b'\n']);
                return peer.hang();
            }
            "/half-a-head" => {
                peer.send("HTTP/1.1 200 OK\r\ncontent-le");
                return peer.close();
            }
            "/huge-head" => {
                let line = format!("x-filler: {}\r\n", "f".repeat(8000));
                peer.send(ok);
                while peer.send(&line) {}
                return;
            }
            "/informs" => {
                let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
                while peer.send(hint) {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                return;
            }
            "/two-lengths" => {
                peer.send(format!("{ok}content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"));
                return peer.hang();
            }
            // In the body.
            "/short" => {
                peer.send(format!("{ok}content-length: 1000000\r\n\r\n{some}"));
                return peer.close();
            }
            "/short-cut" => {
                peer.send(format!("{ok}content-length: 1000000\r\n\r\n{some}"));
                return peer.cut();
            }
            "/body-hangs" => {
                peer.send(chunk);
                return peer.hang();
            }
            "/chunk-cut" => {
                peer.send(chunk);
                return peer.close();
            }
            "/chunk-reset" => {
                peer.send(chunk);
                return peer.reset();
            }
            "/chunk-garbage" => {
                peer.send(chunk + "zz\r\nhello\r\n0\r\n\r\n");
                return peer.hang();
            }
            "/until-cut" => {
                peer.send(format!("{ok}\r\n{some}"));
                return peer.cut();
            }
            "/until-reset" => {
                peer.send(format!("{ok}\r\n{some}"));
                return peer.reset();
            }
            // Unusual, but complete.
            "/until-close" => {
                peer.send(format!("{ok}\r\n{some}"));
                return peer.close();
            }
            "/long" | "/kept-long" => {
                peer.send(format!(
                    "{ok}content-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
                ));
            }
            _ => {
                peer.send(format!("{ok}content-length: 5\r\n\r\nhello"));
                if path == "/kept-then-close" {
                    // The next request on this connection gets no response.
                    peer.request();
                    return peer.close();
                }
            }
        }
    }
}

#[test]
fn failure_before_response_is_502() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    let paths = ["/close", "/reset", "/garbage", "/half-a-head", "/huge-head", "/two-lengths"];
    let requests: Vec<String> =
        paths.iter().flat_map(|path| [format!("GET {path}"), format!("POST {path}")]).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen = request_all(&fixture, &url, &requests);
    assert_eq!(seen.len(), requests.len());
    for seen in &seen {
        assert_eq!((&seen["status"], &seen["end"]), (&502.into(), &"whole".into()), "{seen}");
        assert_eq!(seen["refused"], "upstream_unavailable", "{seen}");
        let body: Value = serde_json::from_str(seen["text"].as_str().unwrap()).unwrap();
        assert!(body["message"].as_str().unwrap().contains("'faulty.test'"), "{seen}");
        assert_eq!(body["retryable"], true);
    }
    for path in paths {
        assert_eq!(faulty.count(&format!("POST {path}")), 1, "a POST was sent again: {path}");
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), requests.len());
    for record in audit {
        assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), &502.into()), "{record}");
        assert!(record["reason"].as_str().unwrap().contains("upstream_unavailable"), "{record}");
    }
}

#[test]
fn truncated_body_is_never_complete() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    let broken = [
        "/short",
        "/short-cut",
        "/chunk-cut",
        "/chunk-reset",
        "/chunk-garbage",
        "/until-cut",
        "/until-reset",
    ];
    let requests: Vec<String> =
        broken.iter().flat_map(|path| [format!("GET {path}"), format!("GET {path}-late")]).collect();
    let breaking = requests.len();
    let mut requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    requests.extend(["GET /until-close", "GET /until-close-late", "GET /long", "GET /good"]);
    let url = format!("https://faulty.test:{}", faulty.port());
    let direct = request_all_directly(&fixture, &url, &requests);
    let seen = request_all(&fixture, &url, &requests);
    for (seen, direct) in seen.iter().zip(&direct) {
        // The head of a short response waits for its body, so the client gets an explicit error.
        let is_refused = seen["status"] == 502 && seen["refused"] == "upstream_unavailable";
        if is_refused {
            continue;
        }
        // Python treats the end of TCP as the end of TLS; we do not, and the difference shows.
        let is_cut = seen["request"].as_str().unwrap().starts_with("GET /until-cut");
        let is_whole = |seen: &Value| seen["end"] == "whole";
        assert!(
            is_whole(seen) == is_whole(direct) && !is_cut || !is_whole(seen) && is_cut,
            "with us {seen}, without us {direct}"
        );
        assert_eq!(seen["status"], direct["status"]);
        // A reset discards unread data: the amount is random.
        let is_reset = seen["request"].as_str().unwrap().contains("reset");
        let length = |seen: &Value| seen["length"].as_u64();
        assert!(is_reset || length(seen) <= length(direct), "with us {seen}, without us {direct}");
    }
    let audit = fixture.home.audit();
    for (record, seen) in audit.iter().zip(&seen[..breaking]) {
        let code = &seen["status"];
        let reason = if code == 502 { "upstream_unavailable" } else { "the peer broke off the body" };
        assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), code), "{record}");
        assert_eq!(record["reason"], reason);
    }
    assert!(seen[breaking..].iter().all(|seen| seen["text"].as_str().unwrap().starts_with("hello")));
    assert!(audit[breaking..].iter().all(|record| record["status"] == "OK"), "{audit:#?}");
}

/// An HTTP/1.0 client learns the end of a body only by the end of the connection.
#[test]
fn http10_client_gets_reset_on_truncated_body() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    let plain = FaultyServer::plain(misbehave);
    let rule = "secrets: [API_KEY]";
    fixture.rules(&[("faulty.test", faulty.port(), rule), ("faulty.test", plain.port(), "")]);
    for url in
        [format!("https://faulty.test:{}", faulty.port()), format!("http://faulty.test:{}", plain.port())]
    {
        for (path, is_whole) in [
            ("/good", true),
            ("/until-close-late", true),
            ("/chunk-cut-late", false),
            ("/chunk-reset-late", false),
        ] {
            let outcome = run(fixture
                .home
                // A reset before the first byte is a 502, which `curl -f` treats as a failure.
                .run_agent(["curl", "-sSf", "-o/dev/null", "--no-alpn", "--http1.0"])
                .arg(format!("{url}{path}")));
            assert_eq!(outcome.code == Some(0), is_whole, "{url}{path}: {outcome:?}");
        }
    }
}

#[test]
fn bytes_after_response_are_discarded() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen =
        request_all(&fixture, &url, &["GET /kept-long", "GET /kept-1", "GET /kept-long", "POST /kept-2"]);
    assert!(seen.iter().all(|seen| seen["text"] == "hello"), "{seen:#?}");
}

#[test]
fn stale_connection_retries_get_but_not_post() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen = request_all(
        &fixture,
        &url,
        &["GET /kept-then-close", "GET /kept-get", "GET /kept-then-close", "POST /kept-post"],
    );
    assert_eq!(seen[1]["text"], "hello", "{seen:#?}");
    assert_eq!(faulty.count("GET /kept-get"), 2);
    assert_eq!((&seen[3]["status"], &seen[3]["refused"]), (&502.into(), &"upstream_unavailable".into()));
    assert_eq!(faulty.count("POST /kept-post"), 1);
    let text = serde_json::to_string(&seen).unwrap();
    assert!(!text.contains(SECRET));
}

#[test]
fn hanging_body_ends_with_the_client() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    for (path, code) in [("/body-hangs", "200"), ("/body-hangs-late", "200"), ("/hang", "000")] {
        let mut curl = fixture.home.run_agent(["curl", "-s", "-o/dev/null", "-m", "2", "-w", "%{http_code}"]);
        let outcome = run(curl.arg(format!("https://faulty.test:{}{path}", faulty.port())));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(28), code), "{path}: {outcome:?}");
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 3);
    assert!(audit.iter().all(|record| record["status"] == "ABORTED"), "{audit:#?}");
}

#[test]
fn silent_server_is_504() {
    let (fixture, faulty) = fixture_with_faulty_server("http/1.1", misbehave);
    fixture.home.write_config("timeouts: { answer: 2s }\n");
    let url = format!("https://faulty.test:{}", faulty.port());
    std::thread::scope(|scope| {
        for request in ["GET /hang", "POST /hang", "GET /informs"] {
            let (fixture, url) = (&fixture, &url);
            scope.spawn(move || {
                let mut agent =
                    fixture.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "agent", url, request]);
                let output = agent.output().unwrap();
                let seen: Vec<Value> = parse_json_lines(&String::from_utf8(output.stdout).unwrap());
                assert_eq!(seen[0]["status"], 504, "{seen:?}");
                assert_eq!(seen[0]["refused"], "upstream_timeout", "{seen:?}");
            });
        }
    });
    assert_eq!(faulty.count("POST /hang"), 1);
    assert!(fixture.home.audit().iter().all(|record| record["reason"] == "upstream_timeout"));
}
