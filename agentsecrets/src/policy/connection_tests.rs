//! Passthrough of connections, and referenced root certificates.

use std::path::Path;

use super::Policy;
use super::connection::{PassthroughPermit, decide_passthrough};
use crate::identity::Caller;
use crate::types::rejection::ErrorCode;

const POLICY: &str = r#"version: 1
agents:
  - name: coder
    allow:
      - host: pinned.net
        ports: [443]
        tls: passthrough
        private: true
      - host: pinned.net
        ports: [8443]
        secrets: [KEY]
      - host: "*.first.net"
        methods: [GET]
      - host: api.first.net
        tls: passthrough
      - host: slow.net
        tls: passthrough
        rate: 1/h
"#;

fn caller(session: &str) -> Caller {
    Caller { session: session.into(), is_ours: !session.is_empty(), ..Caller::for_test() }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text, Path::new("policy.yaml")).unwrap()
}

fn decide(host: &str, port: u16) -> Option<PassthroughPermit> {
    decide_passthrough(&policy(POLICY), &caller("s"), &host.parse().unwrap(), port).unwrap()
}

#[test]
fn passthrough_needs_host_port_and_agent() {
    let permit = decide("pinned.net", 443).unwrap();
    assert_eq!(&**permit.rule(), "coder/1 (policy.yaml:5)");
    assert_eq!((permit.host().to_string(), permit.port()), ("pinned.net".to_owned(), 443));
    for (host, port) in [("pinned.net", 8443), ("pinned.net", 80), ("other.net", 443), ("a.pinned.net", 443)]
    {
        assert!(decide(host, port).is_none(), "{host}:{port}");
    }
    let stranger = decide_passthrough(&policy(POLICY), &caller(""), &"pinned.net".parse().unwrap(), 443);
    assert!(stranger.unwrap().is_none());
}

#[test]
fn first_rule_for_host_and_port_decides() {
    assert!(decide("api.first.net", 443).is_none());
}

#[test]
fn rate_counts_connections() {
    let policy = policy(POLICY);
    let ask = || decide_passthrough(&policy, &caller("s"), &"slow.net".parse().unwrap(), 443);
    assert!(ask().unwrap().is_some());
    let rejection = ask().unwrap_err();
    assert_eq!(rejection.code, ErrorCode::RateLimited);
    assert!(rejection.message.contains("1 connections in"), "{rejection}");
}

#[test]
fn changed_roots_make_the_policy_stale() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    let pem = || {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem()
    };
    let text =
        "version: 1\nagents:\n  - name: a\n    allow:\n      - host: x.com\n        roots: roots.pem\n";
    std::fs::write(folder.path().join("roots.pem"), pem()).unwrap();
    let policy = Policy::parse(text, &path).unwrap();
    assert!(policy.agents()[0].rules[0].roots.is_some());
    assert!(!policy.referenced_files.are_stale());
    std::fs::write(folder.path().join("roots.pem"), pem() + &pem()).unwrap();
    assert!(policy.referenced_files.are_stale());
    std::fs::write(folder.path().join("roots.pem"), "no certificate").unwrap();
    let error = Policy::parse(text, &path).unwrap_err().to_string();
    assert!(error.contains("policy.yaml:6: ") && error.contains("roots.pem"), "{error}");
}

#[test]
fn client_certificate_fills_no_placeholder() {
    let text = "version: 1\nagents:\n  - name: a\n    allow:\n      - { host: x.com, client_cert: CERT, secrets: [KEY] }\n";
    let policy = policy(text);
    let agent = &policy.agents()[0];
    assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["CERT", "KEY"]);
    assert_eq!(agent.rules[0].secrets.len(), 1);
}

#[test]
fn passthrough_host_gets_no_secret_from_another_rule() {
    for (one, two, line, other) in [
        ("{ host: a.x.com, tls: passthrough }", "{ host: '*.x.com', secrets: [A] }", 5, "a/2"),
        ("{ host: a.x.com, client_cert: A }", "{ host: '*.x.com', tls: passthrough }", 6, "a/1"),
        ("{ host: x.com, inject: { bearer: A } }", "{ host: X.com, tls: passthrough }", 6, "a/1"),
    ] {
        let text = format!("version: 1\nagents:\n  - name: a\n    allow:\n      - {one}\n      - {two}\n");
        let error = Policy::parse(&text, Path::new("policy.yaml")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("policy.yaml:{line}: ")) && error.contains(other), "{error}");
        assert!(error.contains("spends secrets there"), "{error}");
    }
}
