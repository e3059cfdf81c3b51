//! Clients that may not use the proxy, and requests that it must refuse.

use std::io::{Read, Write};

use super::Proxy;
use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{command, free_address, run};

const INJECT_HEADER: [&str; 2] = ["-H", "X-AS-Inject-Bearer: API_KEY"];

#[test]
fn only_health_is_public() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    assert_eq!(
        proxy.request(&[], "/health"),
        ("200".into(), r#"{"project":"default","status":"ok"}"#.into())
    );
    let (code, body) = proxy.request(&[], "/");
    assert!(code == "400" && body.contains("/proxy"), "{body}");
}

#[test]
fn other_user_is_refused() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo"));
    let (endpoint, own) =
        (format!("http://localhost:{}/proxy", proxy.port), format!("http://localhost:{}", proxy.port));
    let elsewhere = fixture.url("/echo");
    for arguments in [
        &["-H", &*target, INJECT_HEADER[0], INJECT_HEADER[1], &*endpoint][..],
        &["-x", &own, "http://api.test/"],
        &["-k", "-x", &own, &elsewhere],
    ] {
        let mut curl = command("setpriv");
        curl.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/curl", "-sS"]);
        let outcome = run(curl.args(arguments));
        let output = outcome.stdout.clone() + &outcome.stderr;
        assert!(output.contains("another user") || output.contains("403"), "{arguments:?}: {outcome:#?}");
    }
    assert!(fixture.api.received().is_empty());
    let records = fixture.home.audit();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!((&record["status"], &record["identity_level"]), (&"BLOCKED".into(), &"anonymous".into()));
    }
}

#[test]
fn web_page_origin_is_refused() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo"));
    for page in ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Origin: null"] {
        let (code, body) =
            proxy.request(&["-H", page, "-H", &target, INJECT_HEADER[0], INJECT_HEADER[1]], "/proxy");
        assert!(
            code == "403" && body.contains("capability_denied") && body.contains("web pages"),
            "{page}: {body}"
        );
        assert_eq!(proxy.request(&["-H", page], "/health").0, "403");
    }
    // A name of the page's site that resolves to loopback.
    for path in ["/proxy", "/health"] {
        let (code, _) = proxy
            .request(&["-H", "Host: evil.test", "-H", &target, INJECT_HEADER[0], INJECT_HEADER[1]], path);
        assert_eq!(code, "421");
    }
    let (code, headers) =
        proxy.request(&["-i", "-X", "OPTIONS", "-H", "Origin: https://evil.test"], "/proxy");
    assert!(code == "403" && !headers.to_lowercase().contains("access-control"), "{headers}");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn declared_identity_is_not_proof() {
    let fixture = Fixture::new();
    fixture.home.write_policy(&format!(
        "version: 1\nagents:\n  - name: other\n    match: {{ exe: /no/such/program }}\n    allow:\n      \
         - {{ host: api.test, ports: [{0}], private: true, secrets: [API_KEY] }}\n",
        fixture.api.port()
    ));
    let proxy = Proxy::start(&fixture);
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo"));
    for claim in [
        "X-AS-Agent-ID: other",
        "X-AS-Agent-Token: ast_1",
        "X-AS-Session-Token: s",
        "X-Forwarded-For: 127.0.0.1",
    ] {
        let (code, body) =
            proxy.request(&["-H", claim, "-H", &target, INJECT_HEADER[0], INJECT_HEADER[1]], "/proxy");
        assert!(code == "403" && body.contains("capability_denied"), "{claim}: {body}");
    }
    assert!(fixture.api.received().is_empty());
}

#[test]
fn incomplete_endpoint_request_is_explained() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo"));
    for (headers, message) in [
        (&INJECT_HEADER[..], "X-AS-Target-URL is missing"),
        (&["-H", &*target], "no secret is asked for"),
        (&["-H", "X-AS-Target-URL: api.test/echo", INJECT_HEADER[0], INJECT_HEADER[1]], "https://"),
        (&["-H", &*target, "-H", "X-AS-Inject-Bearer: sk_live_by_mistake-1"], "name of a secret"),
    ] {
        let (code, body) = proxy.request(headers, "/proxy");
        assert!(
            code == "400" && body.contains(message) && body.starts_with("{\"error\":\""),
            "{headers:?}: {body}"
        );
        assert!(!body.contains("by_mistake"), "{body}");
    }
    fixture.rule("secrets: [API_KEY, NOT_THERE]");
    let missing = ["-H", &*target, "-H", "X-AS-Inject-Bearer: NOT_THERE"];
    let output = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        proxy.request(&missing, "/proxy")
            == ("502".to_owned(), r#"{"error":"secret 'NOT_THERE' not found in keychain"}"#.to_owned())
    });
    assert!(output, "{:?}", proxy.request(&missing, "/proxy"));
}

#[test]
fn malformed_connect_does_not_affect_others() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    assert_eq!(proxy.send_raw(b""), "");
    assert_eq!(proxy.send_raw(b"CONNECT api.test:443 HTTP/1.1\r\nHo"), "");
    for bad in
        ["CONNECT api.test HTTP/1.1\r\n\r\n", "CONNECT / HTTP/1.1\r\n\r\n", "CONNECT a:b:c HTTP/1.1\r\n\r\n"]
    {
        let answer = proxy.send_raw(bad.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"error\":"), "{bad:?}: {answer}");
    }
    assert!(proxy.send_raw(b"\x16\x03\x01\x00\x05hello").starts_with("HTTP/1.1 400 "));
    assert!(
        proxy.send_raw(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").starts_with("HTTP/1.1 400 ")
    );
    let idle: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap()).collect();
    assert_eq!(proxy.request(&[], "/health").0, "200");
    drop(idle);
}

#[test]
fn slow_client_is_disconnected() {
    let fixture = Fixture::new();
    fixture.home.write_config("timeouts: { handshake: 1s }\n");
    let proxy = Proxy::start(&fixture);
    for begun in [&b""[..], b"C", b"CONNECT api.test:443 HTTP/1.1\r\nHo"] {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        client.write_all(begun).unwrap();
        // It keeps its own end open.
        match client.read(&mut [0; 16]) {
            Ok(0) => {}
            Ok(more) => panic!("{more} bytes"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{begun:?}"),
        }
    }
    assert!(fixture.home.audit().is_empty());
}

#[test]
fn connect_target_must_match_sni() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let port = fixture.api.port();
    // curl asks the proxy for api.test, and the server for elsewhere.test.
    let to = format!("elsewhere.test:{port}:api.test:{port}");
    let url = format!("https://elsewhere.test:{port}/");
    let outcome = proxy.curl(&["--connect-to", &to, "-H", "Authorization: Bearer AS_SECRET_API_KEY", &url]);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    assert!(fixture.api.received().is_empty());
    assert!(fixture.home.audit()[0]["reason"].as_str().unwrap().starts_with("target_mismatch"));
}

#[test]
fn agent_at_proxy_port_stays_agent() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let (own, url) = (format!("http://127.0.0.1:{}", proxy.port), fixture.url("/echo"));
    let ask = |arguments: &[&str]| {
        let curl = ["curl", "-sS", "-k", "--max-time", "20", "-w", "\n%{http_code}"];
        let outcome = run(&mut fixture.home.run_agent([&curl, arguments].concat()));
        assert!(fixture.api.received().is_empty(), "{outcome:#?}");
        outcome
    };
    let target = format!("X-AS-Target-URL: {url}");
    let ways: [&[&str]; 3] = [
        &[&format!("{own}/proxy")],
        &["-H", &target, INJECT_HEADER[0], INJECT_HEADER[1], &format!("{own}/proxy")],
        &["-x", &own, "-H", "Authorization: Bearer AS_SECRET_API_KEY", &url],
    ];
    let closed = ways.map(&ask);
    assert!(closed[0].stdout.contains("domain_not_in_allowlist"), "{:#?}", closed[0]);
    fixture.rules(&[("127.0.0.1", proxy.port, ""), ("elsewhere.test", 443, "secrets: [API_KEY]")]);
    let open = ways.map(&ask);
    assert!(open[0].stdout.contains("one of our own processes"), "{:#?}", open[0]);
    for outcome in closed.iter().chain(&open) {
        assert!(!outcome.stdout.ends_with("200"), "{outcome:#?}");
    }
}

#[test]
fn proxy_never_connects_to_itself() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let port = free_address().port();
    assert_ne!(port, proxy.port);
    fixture.rules(&[("127.0.0.1", proxy.port, "")]);
    let url = format!("http://127.0.0.1:{}/health", proxy.port);
    let blocked = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        proxy.curl(&["--noproxy", "", &url]).ok().contains("ssrf_protection_blocked")
    });
    assert!(blocked, "{:#?}", proxy.curl(&["--noproxy", "", &url]));
    assert!(!fixture.api.received().iter().any(|received| received.body.contains(SECRET)));
}

#[test]
fn idle_clients_use_little_and_do_not_block() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    assert_eq!(proxy.request(&[], "/health").0, "200");
    let before = crate::http::resident_memory(proxy.child.id());
    let mut idle: Vec<_> = (0..MAX_IDLE_CLIENTS)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap())
        .collect();
    for client in idle.iter_mut().step_by(2) {
        client.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHo").unwrap();
    }
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo-raw"));
    for _ in 0..5 {
        let (code, body) = proxy.request(&["-H", &target, INJECT_HEADER[0], INJECT_HEADER[1]], "/proxy");
        assert_eq!((&*code, &*body), ("200", "Bearer [REDACTED_BY_AGENTSECRETS]"));
    }
    let grown = crate::http::resident_memory(proxy.child.id()).saturating_sub(before);
    assert!(grown < MAX_IDLE_CLIENTS as u64 * 16, "{grown} KiB for {MAX_IDLE_CLIENTS} clients");
    drop(idle);
    assert_eq!(proxy.request(&[], "/health").0, "200");
}

/// As many as the test's own descriptors allow, with a margin.
const MAX_IDLE_CLIENTS: usize = 5000;
