//! Who may not use the proxy, and what it cannot be made to do.

use std::io::{Read, Write};

use super::Proxy;
use crate::spine::{SECRET, World};
use crate::support::process::{command, finish, free_address};

const KEY: [&str; 2] = ["-H", "X-AS-Inject-Bearer: API_KEY"];

#[test]
fn anybody_may_ask_whether_it_is_there_and_nothing_else() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    assert_eq!(proxy.ask(&[], "/health"), ("200".into(), r#"{"project":"default","status":"ok"}"#.into()));
    let (code, body) = proxy.ask(&[], "/");
    assert!(code == "400" && body.contains("/proxy"), "{body}");
}

#[test]
fn another_user_is_refused_in_every_way() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let target = format!("X-AS-Target-URL: {}", world.url("/echo"));
    let (endpoint, own) =
        (format!("http://localhost:{}/proxy", proxy.port), format!("http://localhost:{}", proxy.port));
    let elsewhere = world.url("/echo");
    for arguments in [
        &["-H", &*target, KEY[0], KEY[1], &*endpoint][..],
        &["-x", &own, "http://api.test/"],
        &["-k", "-x", &own, &elsewhere],
    ] {
        let mut curl = command("setpriv");
        curl.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/curl", "-sS"]);
        let outcome = finish(curl.args(arguments));
        let told = outcome.stdout.clone() + &outcome.stderr;
        assert!(told.contains("another user") || told.contains("403"), "{arguments:?}: {outcome:#?}");
    }
    assert!(world.api.received().is_empty());
    let records = world.home.audit();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!((&record["status"], &record["identity_level"]), (&"BLOCKED".into(), &"anonymous".into()));
    }
}

#[test]
fn a_web_page_is_refused_however_it_reaches_the_port() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let target = format!("X-AS-Target-URL: {}", world.url("/echo"));
    for page in ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Origin: null"] {
        let (code, body) = proxy.ask(&["-H", page, "-H", &target, KEY[0], KEY[1]], "/proxy");
        assert!(
            code == "403" && body.contains("capability_denied") && body.contains("web pages"),
            "{page}: {body}"
        );
        assert_eq!(proxy.ask(&["-H", page], "/health").0, "403");
    }
    // A name of the page's own that leads to the loopback.
    for path in ["/proxy", "/health"] {
        let (code, _) = proxy.ask(&["-H", "Host: evil.test", "-H", &target, KEY[0], KEY[1]], path);
        assert_eq!(code, "421");
    }
    let (code, headers) = proxy.ask(&["-i", "-X", "OPTIONS", "-H", "Origin: https://evil.test"], "/proxy");
    assert!(code == "403" && !headers.to_lowercase().contains("access-control"), "{headers}");
    assert!(world.api.received().is_empty());
}

#[test]
fn what_the_caller_says_of_itself_is_no_proof() {
    let world = World::new();
    world.home.policy(&format!(
        "version: 1\nagents:\n  - name: other\n    match: {{ exe: /no/such/program }}\n    allow:\n      \
         - {{ host: api.test, ports: [{0}], private: true, secrets: [API_KEY] }}\n",
        world.api.port()
    ));
    let proxy = Proxy::of(&world);
    let target = format!("X-AS-Target-URL: {}", world.url("/echo"));
    for claim in [
        "X-AS-Agent-ID: other",
        "X-AS-Agent-Token: ast_1",
        "X-AS-Session-Token: s",
        "X-Forwarded-For: 127.0.0.1",
    ] {
        let (code, body) = proxy.ask(&["-H", claim, "-H", &target, KEY[0], KEY[1]], "/proxy");
        assert!(code == "403" && body.contains("capability_denied"), "{claim}: {body}");
    }
    assert!(world.api.received().is_empty());
}

#[test]
fn a_request_that_is_not_whole_is_told_what_is_missing() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let target = format!("X-AS-Target-URL: {}", world.url("/echo"));
    for (headers, says) in [
        (&KEY[..], "X-AS-Target-URL is missing"),
        (&["-H", &*target], "no secret is asked for"),
        (&["-H", "X-AS-Target-URL: api.test/echo", KEY[0], KEY[1]], "https://"),
        (&["-H", &*target, "-H", "X-AS-Inject-Bearer: sk_live_by_mistake-1"], "name of a secret"),
    ] {
        let (code, body) = proxy.ask(headers, "/proxy");
        assert!(
            code == "400" && body.contains(says) && body.starts_with("{\"error\":\""),
            "{headers:?}: {body}"
        );
        assert!(!body.contains("by_mistake"), "{body}");
    }
    world.rule("secrets: [API_KEY, NOT_THERE]");
    let missing = ["-H", &*target, "-H", "X-AS-Inject-Bearer: NOT_THERE"];
    let told = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        proxy.ask(&missing, "/proxy")
            == ("502".to_owned(), r#"{"error":"secret 'NOT_THERE' not found in keychain"}"#.to_owned())
    });
    assert!(told, "{:?}", proxy.ask(&missing, "/proxy"));
}

#[test]
fn half_a_connect_nonsense_and_silence_end_and_disturb_nobody() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    assert_eq!(proxy.say(b""), "");
    assert_eq!(proxy.say(b"CONNECT api.test:443 HTTP/1.1\r\nHo"), "");
    for bad in
        ["CONNECT api.test HTTP/1.1\r\n\r\n", "CONNECT / HTTP/1.1\r\n\r\n", "CONNECT a:b:c HTTP/1.1\r\n\r\n"]
    {
        let answer = proxy.say(bad.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"error\":"), "{bad:?}: {answer}");
    }
    assert!(proxy.say(b"\x16\x03\x01\x00\x05hello").starts_with("HTTP/1.1 400 "));
    assert!(proxy.say(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let idle: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap()).collect();
    assert_eq!(proxy.ask(&[], "/health").0, "200");
    drop(idle);
}

#[test]
fn a_client_that_never_comes_to_the_point_is_let_go() {
    let world = World::new();
    world.home.configure("timeouts: { handshake: 1s }\n");
    let proxy = Proxy::of(&world);
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
    assert!(world.home.audit().is_empty());
}

#[test]
fn the_server_that_the_tunnel_was_asked_for_is_the_one_that_tls_names() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let port = world.api.port();
    // curl asks the proxy for api.test, and the server for elsewhere.test.
    let to = format!("elsewhere.test:{port}:api.test:{port}");
    let url = format!("https://elsewhere.test:{port}/");
    let outcome = proxy.curl(&["--connect-to", &to, "-H", "Authorization: Bearer AS_SECRET_API_KEY", &url]);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    assert!(world.api.received().is_empty());
    assert!(world.home.audit()[0]["reason"].as_str().unwrap().starts_with("target_mismatch"));
}

#[test]
fn an_agent_whose_policy_opens_the_port_does_not_become_the_person() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let (own, url) = (format!("http://127.0.0.1:{}", proxy.port), world.url("/echo"));
    let ask = |arguments: &[&str]| {
        let curl = ["curl", "-sS", "-k", "--max-time", "20", "-w", "\n%{http_code}"];
        let outcome = finish(&mut world.home.run_agent([&curl, arguments].concat()));
        assert!(world.api.received().is_empty(), "{outcome:#?}");
        outcome
    };
    let target = format!("X-AS-Target-URL: {url}");
    let ways: [&[&str]; 3] = [
        &[&format!("{own}/proxy")],
        &["-H", &target, KEY[0], KEY[1], &format!("{own}/proxy")],
        &["-x", &own, "-H", "Authorization: Bearer AS_SECRET_API_KEY", &url],
    ];
    let closed = ways.map(&ask);
    assert!(closed[0].stdout.contains("domain_not_in_allowlist"), "{:#?}", closed[0]);
    world.rules(&[("127.0.0.1", proxy.port, ""), ("elsewhere.test", 443, "secrets: [API_KEY]")]);
    let open = ways.map(&ask);
    assert!(open[0].stdout.contains("one of our own processes"), "{:#?}", open[0]);
    for outcome in closed.iter().chain(&open) {
        assert!(!outcome.stdout.ends_with("200"), "{outcome:#?}");
    }
}

#[test]
fn it_never_leads_to_itself() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let port = free_address().port();
    assert_ne!(port, proxy.port);
    world.rules(&[("127.0.0.1", proxy.port, "")]);
    let url = format!("http://127.0.0.1:{}/health", proxy.port);
    let blocked = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        proxy.curl(&["--noproxy", "", &url]).ok().contains("ssrf_protection_blocked")
    });
    assert!(blocked, "{:#?}", proxy.curl(&["--noproxy", "", &url]));
    assert!(!world.api.received().iter().any(|received| received.body.contains(SECRET)));
}

#[test]
fn thousands_of_idle_clients_cost_little_and_keep_nobody_from_being_heard() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    assert_eq!(proxy.ask(&[], "/health").0, "200");
    let before = crate::http::resident(proxy.child.id());
    let mut idle: Vec<_> =
        (0..IDLE).map(|_| std::net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap()).collect();
    for client in idle.iter_mut().step_by(2) {
        client.write_all(b"CONNECT api.test:443 HTTP/1.1\r\nHo").unwrap();
    }
    let target = format!("X-AS-Target-URL: {}", world.url("/echo-raw"));
    for _ in 0..5 {
        let (code, body) = proxy.ask(&["-H", &target, KEY[0], KEY[1]], "/proxy");
        assert_eq!((&*code, &*body), ("200", "Bearer [REDACTED_BY_AGENTSECRETS]"));
    }
    let grown = crate::http::resident(proxy.child.id()).saturating_sub(before);
    assert!(grown < IDLE as u64 * 16, "{grown} KiB for {IDLE} clients");
    drop(idle);
    assert_eq!(proxy.ask(&[], "/health").0, "200");
}

/// As many as the test's own descriptors allow, with room to spare.
const IDLE: usize = 5000;
