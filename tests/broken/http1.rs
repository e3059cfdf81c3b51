//! Servers of HTTP/1.1 that break the protocol or break off.

use super::*;

/// How often a body says hello that breaks off late.
const LATE: usize = 60_000;

/// What a server does wrong, by the path that it is asked for.
fn misbehave(mut peer: Peer) {
    while let Some(head) = peer.request() {
        let path = head.split(' ').nth(1).unwrap_or_default();
        // A short answer is gathered before any of it is passed on; a long one is under way when it breaks.
        let (path, some) = match path.strip_suffix("-late") {
            Some(path) => (path, "hello".repeat(LATE)),
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
            // Strange, but whole.
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
                    // The next request on this connection gets no answer.
                    peer.request();
                    return peer.close();
                }
            }
        }
    }
}

#[test]
fn a_server_that_fails_before_its_answer_is_a_502_that_says_why() {
    let (world, faulty) = world("http/1.1", misbehave);
    let paths = ["/close", "/reset", "/garbage", "/half-a-head", "/huge-head", "/two-lengths"];
    let requests: Vec<String> =
        paths.iter().flat_map(|path| [format!("GET {path}"), format!("POST {path}")]).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen = asked(&world, &url, &requests);
    assert_eq!(seen.len(), requests.len());
    for seen in &seen {
        assert_eq!((&seen["status"], &seen["end"]), (&502.into(), &"whole".into()), "{seen}");
        assert_eq!(seen["refused"], "upstream_unavailable", "{seen}");
        let body: Value = serde_json::from_str(seen["text"].as_str().unwrap()).unwrap();
        assert!(body["message"].as_str().unwrap().contains("'faulty.test'"), "{seen}");
        assert_eq!(body["retryable"], true);
    }
    for path in paths {
        assert_eq!(faulty.times(&format!("POST {path}")), 1, "a POST was sent again: {path}");
    }
    let audit = world.home.audit();
    assert_eq!(audit.len(), requests.len());
    for record in audit {
        assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), &502.into()), "{record}");
        assert!(record["reason"].as_str().unwrap().contains("upstream_unavailable"), "{record}");
    }
}

#[test]
fn a_body_that_breaks_off_is_never_whole() {
    let (world, faulty) = world("http/1.1", misbehave);
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
    let direct = asked_directly(&world, &url, &requests);
    let seen = asked(&world, &url, &requests);
    for (seen, direct) in seen.iter().zip(&direct) {
        // The head of a short answer waits for its body, so that we can say outright what is wrong.
        let is_refused = seen["status"] == 502 && seen["refused"] == "upstream_unavailable";
        if is_refused {
            continue;
        }
        // Python takes the end of the connection for the end of TLS; we do not, and show the difference.
        let is_cut = seen["request"].as_str().unwrap().starts_with("GET /until-cut");
        let is_whole = |seen: &Value| seen["end"] == "whole";
        assert!(
            is_whole(seen) == is_whole(direct) && !is_cut || !is_whole(seen) && is_cut,
            "with us {seen}, without us {direct}"
        );
        assert_eq!(seen["status"], direct["status"]);
        // A reset takes away what the client had not read yet: how much that is, is chance.
        let is_reset = seen["request"].as_str().unwrap().contains("reset");
        let length = |seen: &Value| seen["length"].as_u64();
        assert!(is_reset || length(seen) <= length(direct), "with us {seen}, without us {direct}");
    }
    let audit = world.home.audit();
    for (record, seen) in audit.iter().zip(&seen[..breaking]) {
        let code = &seen["status"];
        let reason = if code == 502 { "upstream_unavailable" } else { "the peer broke off the body" };
        assert_eq!((&record["status"], &record["status_code"]), (&"ERROR".into(), code), "{record}");
        assert_eq!(record["reason"], reason);
    }
    assert!(seen[breaking..].iter().all(|seen| seen["text"].as_str().unwrap().starts_with("hello")));
    assert!(audit[breaking..].iter().all(|record| record["status"] == "OK"), "{audit:#?}");
}

/// An old client learns of a body's end by the connection's alone.
#[test]
fn a_client_of_http_1_0_sees_a_reset_where_a_body_breaks_off() {
    let (world, faulty) = world("http/1.1", misbehave);
    let plain = Faulty::plain(misbehave);
    let rule = "secrets: [API_KEY]";
    world.rules(&[("faulty.test", faulty.port(), rule), ("faulty.test", plain.port(), "")]);
    for url in
        [format!("https://faulty.test:{}", faulty.port()), format!("http://faulty.test:{}", plain.port())]
    {
        for (path, is_whole) in [
            ("/good", true),
            ("/until-close-late", true),
            ("/chunk-cut-late", false),
            ("/chunk-reset-late", false),
        ] {
            let outcome = finish(
                world
                    .home
                    // A reset that comes before the first byte was read is a 502, which -f takes for a failure.
                    .run_agent(["curl", "-sSf", "-o/dev/null", "--no-alpn", "--http1.0"])
                    .arg(format!("{url}{path}")),
            );
            assert_eq!(outcome.code == Some(0), is_whole, "{url}{path}: {outcome:?}");
        }
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    let (world, faulty) = world("http/1.1", misbehave);
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen = asked(&world, &url, &["GET /kept-long", "GET /kept-1", "GET /kept-long", "POST /kept-2"]);
    assert!(seen.iter().all(|seen| seen["text"] == "hello"), "{seen:#?}");
}

#[test]
fn a_get_is_repeated_where_a_kept_connection_was_closed_and_a_post_never() {
    let (world, faulty) = world("http/1.1", misbehave);
    let url = format!("https://faulty.test:{}", faulty.port());
    let seen = asked(
        &world,
        &url,
        &["GET /kept-then-close", "GET /kept-get", "GET /kept-then-close", "POST /kept-post"],
    );
    assert_eq!(seen[1]["text"], "hello", "{seen:#?}");
    assert_eq!(faulty.times("GET /kept-get"), 2);
    assert_eq!((&seen[3]["status"], &seen[3]["refused"]), (&502.into(), &"upstream_unavailable".into()));
    assert_eq!(faulty.times("POST /kept-post"), 1);
    let text = serde_json::to_string(&seen).unwrap();
    assert!(!text.contains(SECRET));
}

#[test]
fn a_body_that_hangs_ends_when_the_agent_has_had_enough() {
    let (world, faulty) = world("http/1.1", misbehave);
    for (path, code) in [("/body-hangs", "200"), ("/body-hangs-late", "200"), ("/hang", "000")] {
        let mut curl = world.home.run_agent(["curl", "-s", "-o/dev/null", "-m", "2", "-w", "%{http_code}"]);
        let outcome = finish(curl.arg(format!("https://faulty.test:{}{path}", faulty.port())));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(28), code), "{path}: {outcome:?}");
    }
    let audit = world.home.audit();
    assert_eq!(audit.len(), 3);
    assert!(audit.iter().all(|record| record["status"] == "ABORTED"), "{audit:#?}");
}

#[test]
fn a_server_that_never_answers_is_a_504() {
    let (world, faulty) = world("http/1.1", misbehave);
    world.home.configure("timeouts: { answer: 2s }\n");
    let url = format!("https://faulty.test:{}", faulty.port());
    std::thread::scope(|scope| {
        for request in ["GET /hang", "POST /hang", "GET /informs"] {
            let (world, url) = (&world, &url);
            scope.spawn(move || {
                let mut agent =
                    world.home.run_agent(["/usr/bin/python3", "-c", CLIENT, "agent", url, request]);
                let output = agent.output().unwrap();
                let seen = lines(&String::from_utf8(output.stdout).unwrap());
                assert_eq!(seen[0]["status"], 504, "{seen:?}");
                assert_eq!(seen[0]["refused"], "upstream_timeout", "{seen:?}");
            });
        }
    });
    assert_eq!(faulty.times("POST /hang"), 1);
    assert!(world.home.audit().iter().all(|record| record["reason"] == "upstream_timeout"));
}
