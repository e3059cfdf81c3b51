//! What policy does not allow is refused, with the reason, and nothing of it reaches a server.

use super::*;
use crate::support::process::command;

#[test]
fn an_unlisted_host_method_path_or_port_is_refused_with_its_rule() {
    let mut world = World::new();
    let other = Upstream::start(Options::https(&world.authority, &["api.test", "evil.test"]));
    world.home.host("evil.test", other.address().ip());
    world.rule("methods: [GET]\npaths: [\"/v1/**\"]\nsecrets: [API_KEY]");

    let (code, refusal) = world.refused(&[], &format!("https://evil.test:{}/v1/x", other.port()));
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"domain_not_in_allowlist".into()));
    assert_eq!(refusal["domain"], "evil.test");
    assert!(refusal["message"].as_str().unwrap().contains("'evil.test'"));
    assert_eq!(refusal["retryable"], false);

    for (more, url) in [
        (&["-X", "POST"][..], world.url("/v1/x")),
        (&[], world.url("/v2/x")),
        (&["--path-as-is"], world.url("/v1/../v2")),
        (&["--path-as-is"], world.url("/v1/%2e%2e/v2")),
        (&[], format!("https://api.test:{}/v1/x", other.port())),
    ] {
        let (code, refusal) = world.refused(more, &url);
        assert_eq!((code.as_str(), &refusal["error"]), ("403", &"policy_denied".into()), "{url}");
        assert!(refusal["rule"].as_str().unwrap().contains("policy.yaml:"), "{refusal}");
    }
    assert!(world.api.received().is_empty());
    assert!(other.received().is_empty());

    let audit = world.home.audit();
    assert_eq!(audit.len(), 6);
    assert!(audit.iter().all(|record| record["status"] == "BLOCKED"));
}

#[test]
fn a_name_that_no_server_has_is_refused_and_not_asked_for() {
    let world = World::new();
    let (code, refusal) = world.refused(&[], "https://nowhere.test/");
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"domain_not_in_allowlist".into()));
}

#[test]
fn an_address_or_loopback_port_that_no_rule_covers_is_refused() {
    let world = World::new();
    let plain = Upstream::start(Options::plain());
    for url in [format!("http://{}/", plain.address()), format!("https://{}/", world.api.address())] {
        let (code, refusal) = world.refused(&["-k"], &url);
        assert_eq!((code.as_str(), &refusal["error"]), ("403", &"domain_not_in_allowlist".into()), "{url}");
    }
    assert!(plain.received().is_empty());
}

#[test]
fn a_secret_named_toward_a_host_that_policy_does_not_pair_it_with_is_refused() {
    let mut world = World::new();
    let other = Upstream::start(Options::https(&world.authority, &["other.test"]));
    world.home.host("other.test", other.address().ip());
    world.rules(&[("api.test", world.api.port(), "secrets: [API_KEY]"), ("other.test", other.port(), "")]);
    let url = format!("https://other.test:{}/", other.port());
    let (code, refusal) = world.refused(&[], &url);
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"policy_denied".into()));
    assert!(other.received().is_empty(), "the placeholder was passed on");
    // Without the placeholder the same host is allowed.
    finish(world.home.run_agent(["curl", "-sS"]).arg(url)).ok();
    assert_eq!(other.received().len(), 1);
}

#[test]
fn a_plain_http_server_never_gets_a_secret() {
    let mut world = World::new();
    let plain = Upstream::start(Options::plain());
    world.home.host("plain.test", plain.address().ip());
    world.rules(&[("plain.test", plain.port(), "secrets: [API_KEY]")]);
    let url = format!("http://plain.test:{}/", plain.port());
    let (code, refusal) = world.refused(&[], &url);
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"non_https_blocked".into()));
    assert!(plain.received().is_empty());
    finish(world.home.run_agent(["curl", "-sS"]).arg(url)).ok();
    assert_eq!(plain.received().len(), 1);
}

#[test]
fn a_private_address_is_not_dialled_unless_the_rule_says_so() {
    let world = World::new();
    let rule = format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n        ports: [{}]\n        secrets: [API_KEY]\n",
        world.api.port()
    );
    world.home.policy(&rule);
    let (code, refusal) = world.refused(&[], &world.url("/"));
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"ssrf_protection_blocked".into()));
    assert!(world.api.received().is_empty());
}

#[test]
fn a_secret_that_no_store_holds_is_named() {
    let world = World::new();
    world.rule("secrets: [NOT_THERE]");
    let mut curl = world.home.run_agent([
        "curl",
        "-sS",
        "-w",
        "%{http_code}",
        "-H",
        "Authorization: AS_SECRET_NOT_THERE",
    ]);
    let answer = finish(curl.arg(world.url("/"))).ok();
    assert_eq!(answer, r#"{"error":"secret 'NOT_THERE' not found in keychain"}502"#);
    assert!(world.api.received().is_empty());
}

#[test]
fn nothing_is_allowed_without_a_policy() {
    let world = World::new();
    std::fs::remove_file(world.home.path().join("policy.yaml")).unwrap();
    let (code, refusal) = world.refused(&[], &world.url("/"));
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"empty_allowlist".into()));
}

#[test]
fn what_speaks_neither_tls_nor_http_is_reset() {
    let world = World::new();
    let script = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', {}))\ns.sendall(b'\\x00\\x01hello')\n\
         try: print(s.recv(10))\nexcept ConnectionResetError: print('reset')",
        world.api.port()
    );
    let out = finish(&mut world.home.run_agent(["/usr/bin/python3", "-c", &script])).ok();
    assert_eq!(out.trim(), "reset");
}

#[test]
fn udp_and_raw_sockets_are_refused() {
    let world = World::new();
    let script = "import socket\n\
        def tried(f):\n    try: f(); return 'sent'\n    except OSError as e: return type(e).__name__\n\
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        print(tried(lambda: u.sendto(b'x', ('127.0.0.1', 9))), tried(lambda: u.connect(('127.0.0.1', 443))),\n\
        tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)),\n\
        tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)))";
    let out = finish(&mut world.home.run_agent(["/usr/bin/python3", "-c", script])).ok();
    assert!(!out.contains("sent"), "{out}");
}

#[test]
fn a_connection_that_the_kernel_has_no_record_of_is_refused() {
    let world = World::new();
    let agent = Agent::waiting(&world.home);
    let ours = listening(agent.interceptor());
    assert!(!ours.is_empty(), "the interceptor listens somewhere");
    for port in ours {
        let url = world.url("/");
        let connect = format!("api.test:{}:127.0.0.1:{port}", world.api.port());
        let mut curl = command("curl");
        let outcome = finish(curl.args(["-sSk", "--max-time", "5", "--connect-to", &connect, &url]));
        assert_ne!(outcome.code, Some(0), "port {port} answered: {outcome:?}");
    }
    drop(agent);
    assert!(world.api.received().is_empty());
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
