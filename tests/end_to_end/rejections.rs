//! Requests that policy does not allow are rejected with the reason, and nothing reaches a server.

use super::*;
use crate::support::process::command;

#[test]
fn unlisted_host_method_path_or_port_is_refused() {
    let mut fixture = Fixture::new();
    let other = Upstream::start(Options::https(&fixture.authority, &["api.test", "evil.test"]));
    fixture.home.add_host("evil.test", other.address().ip());
    fixture.rule("methods: [GET]\npaths: [\"/v1/**\"]\nsecrets: [API_KEY]");

    let (code, rejection) = fixture.rejected(&[], &format!("https://evil.test:{}/v1/x", other.port()));
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"domain_not_in_allowlist".into()));
    assert_eq!(rejection["domain"], "evil.test");
    assert!(rejection["message"].as_str().unwrap().contains("'evil.test'"));
    assert_eq!(rejection["retryable"], false);

    for (more, url) in [
        (&["-X", "POST"][..], fixture.url("/v1/x")),
        (&[], fixture.url("/v2/x")),
        (&["--path-as-is"], fixture.url("/v1/../v2")),
        (&["--path-as-is"], fixture.url("/v1/%2e%2e/v2")),
        (&[], format!("https://api.test:{}/v1/x", other.port())),
    ] {
        let (code, rejection) = fixture.rejected(more, &url);
        assert_eq!((code.as_str(), &rejection["error"]), ("403", &"policy_denied".into()), "{url}");
        assert!(rejection["rule"].as_str().unwrap().contains("policy.yaml:"), "{rejection}");
    }
    assert!(fixture.api.received().is_empty());
    assert!(other.received().is_empty());

    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 6);
    assert!(audit.iter().all(|record| record["status"] == "BLOCKED"));
}

#[test]
fn unlisted_name_is_refused_without_dns_query() {
    let fixture = Fixture::new();
    let (code, rejection) = fixture.rejected(&[], "https://nowhere.test/");
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"domain_not_in_allowlist".into()));
}

#[test]
fn unlisted_address_is_refused() {
    let fixture = Fixture::new();
    let plain = Upstream::start(Options::plain());
    for url in [format!("http://{}/", plain.address()), format!("https://{}/", fixture.api.address())] {
        let (code, rejection) = fixture.rejected(&["-k"], &url);
        assert_eq!((code.as_str(), &rejection["error"]), ("403", &"domain_not_in_allowlist".into()), "{url}");
    }
    assert!(plain.received().is_empty());
}

#[test]
fn secret_for_other_host_is_refused() {
    let mut fixture = Fixture::new();
    let other = Upstream::start(Options::https(&fixture.authority, &["other.test"]));
    fixture.home.add_host("other.test", other.address().ip());
    fixture
        .rules(&[("api.test", fixture.api.port(), "secrets: [API_KEY]"), ("other.test", other.port(), "")]);
    let url = format!("https://other.test:{}/", other.port());
    let (code, rejection) = fixture.rejected(&[], &url);
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"policy_denied".into()));
    assert!(other.received().is_empty(), "the placeholder was passed on");
    // Without the placeholder the same host is allowed.
    run(fixture.home.run_agent(["curl", "-sS"]).arg(url)).ok();
    assert_eq!(other.received().len(), 1);
}

#[test]
fn plain_http_server_gets_no_secret() {
    let mut fixture = Fixture::new();
    let plain = Upstream::start(Options::plain());
    fixture.home.add_host("plain.test", plain.address().ip());
    fixture.rules(&[("plain.test", plain.port(), "secrets: [API_KEY]")]);
    let url = format!("http://plain.test:{}/", plain.port());
    let (code, rejection) = fixture.rejected(&[], &url);
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"non_https_blocked".into()));
    assert!(plain.received().is_empty());
    run(fixture.home.run_agent(["curl", "-sS"]).arg(url)).ok();
    assert_eq!(plain.received().len(), 1);
}

#[test]
fn private_address_needs_rule() {
    let fixture = Fixture::new();
    let rule = format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n        ports: [{}]\n        secrets: [API_KEY]\n",
        fixture.api.port()
    );
    fixture.home.write_policy(&rule);
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/"));
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"ssrf_protection_blocked".into()));
    assert!(fixture.api.received().is_empty());
}

#[test]
fn missing_secret_is_named() {
    let fixture = Fixture::new();
    fixture.rule("secrets: [NOT_THERE]");
    let mut curl = fixture.home.run_agent([
        "curl",
        "-sS",
        "-w",
        "%{http_code}",
        "-H",
        "Authorization: AS_SECRET_NOT_THERE",
    ]);
    let answer = run(curl.arg(fixture.url("/"))).ok();
    assert_eq!(answer, r#"{"error":"secret 'NOT_THERE' not found in keychain"}502"#);
    assert!(fixture.api.received().is_empty());
}

#[test]
fn missing_policy_denies_all() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.home.path().join("policy.yaml")).unwrap();
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/"));
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"empty_allowlist".into()));
}

#[test]
fn unknown_protocol_is_reset() {
    let fixture = Fixture::new();
    let script = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', {}))\ns.sendall(b'\\x00\\x01hello')\n\
         try: print(s.recv(10))\nexcept ConnectionResetError: print('reset')",
        fixture.api.port()
    );
    let out = run(&mut fixture.home.run_agent(["/usr/bin/python3", "-c", &script])).ok();
    assert_eq!(out.trim(), "reset");
}

#[test]
fn udp_and_raw_sockets_are_refused() {
    let fixture = Fixture::new();
    let script = "import socket\n\
        def tried(f):\n    try: f(); return 'sent'\n    except OSError as e: return type(e).__name__\n\
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        print(tried(lambda: u.sendto(b'x', ('127.0.0.1', 9))), tried(lambda: u.connect(('127.0.0.1', 443))),\n\
        tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)),\n\
        tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))";
    let out = run(&mut fixture.home.run_agent(["/usr/bin/python3", "-c", script])).ok();
    assert!(!out.contains("sent"), "{out}");
}

#[test]
fn connection_without_kernel_record_is_refused() {
    let fixture = Fixture::new();
    let agent = WaitingAgent::start(&fixture.home);
    let ours = listening(agent.interceptor());
    assert!(!ours.is_empty(), "the interceptor listens somewhere");
    for port in ours {
        let url = fixture.url("/");
        let connect = format!("api.test:{}:127.0.0.1:{port}", fixture.api.port());
        let mut curl = command("curl");
        let outcome = run(curl.args(["-sSk", "--max-time", "5", "--connect-to", &connect, &url]));
        assert_ne!(outcome.code, Some(0), "port {port} answered: {outcome:?}");
    }
    drop(agent);
    assert!(fixture.api.received().is_empty());
}

/// The ports of 127.0.0.1 on which `process` listens.
fn listening(process: u32) -> Vec<u16> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let links: Vec<_> = links.map(|link| link.display().to_string()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields[1].strip_prefix("0100007F:")?;
        let is_theirs = links.contains(&format!("socket:[{}]", fields[9]));
        (fields[3] == "0A" && is_theirs).then(|| u16::from_str_radix(port, 16).unwrap())
    };
    table.lines().skip(1).filter_map(row).collect()
}
