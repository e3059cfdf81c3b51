//! Passthrough: connections without interception, whose clients accept only the server's own certificate.

use super::*;
use crate::support::netns::Netns;

/// A fixture with a passthrough rule for its server.
fn passthrough_fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.rule("tls: passthrough");
    fixture
}

/// curl as an agent that trusts only the server's own CA.
fn curl(fixture: &Fixture, more: &[&str], url: &str) -> Outcome {
    let roots = fixture.home.roots();
    fixture.curl_at(&[&["--cacert", roots.to_str().unwrap()], more].concat(), url)
}

#[test]
fn passthrough_is_not_intercepted() {
    let fixture = passthrough_fixture();
    curl(&fixture, &["--http2"], &fixture.url("/echo")).ok();
    let received = fixture.api.only_request();
    assert_eq!(received.header("authorization"), "Bearer AS_SECRET_API_KEY");
    assert_eq!(received.peer.sni.as_deref(), Some("api.test"));
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 1, "{audit:#?}");
    let record = &audit[0];
    assert_eq!((&record["method"], &record["status"]), (&"CONNECT".into(), &"OK".into()), "{record}");
    assert_eq!(record["target_url"], format!("tcp://api.test:{}", fixture.api.port()));
    assert_eq!((&record["domain"], &record["agent_id"]), (&"api.test".into(), &"coder".into()));
    assert_eq!(record["secret_keys"], serde_json::json!([]));
    assert!(record["rule"].as_str().unwrap().starts_with("coder/1"), "{record}");
}

#[test]
fn passthrough_forwards_both_ways() {
    let fixture = passthrough_fixture();
    let roots = fixture.home.roots();
    let script = format!(
        "head -c 5000000 /dev/zero | curl -sS --cacert {roots} -T - -X POST {up}; \
         curl -sS --cacert {roots} {down} | wc -c; curl -sS --tls-max 1.2 --cacert {roots} {down} | wc -c",
        roots = roots.display(),
        up = fixture.url("/upload"),
        down = fixture.url("/stream?n=5000000"),
    );
    let out = run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok();
    assert_eq!(out, "{\"bytes\":\"5000000\"}5000000\n5000000\n");
    assert!(fixture.home.audit().iter().all(|record| record["status"] == "OK"));
}

#[test]
fn passthrough_address_must_belong_to_name() {
    let fixture = passthrough_fixture();
    let evil = Upstream::start(
        Options::https(&fixture.authority, &["api.test"]).at(([127, 0, 0, 2], fixture.api.port())),
    );
    let resolve = format!("api.test:{}:127.0.0.2", fixture.api.port());
    let outcome = curl(&fixture, &["--resolve", &resolve], &fixture.url("/"));
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    assert!(outcome.stderr.contains("access denied"), "{outcome:?}");
    let record = &fixture.home.audit()[0];
    assert_eq!((&record["reason"], &record["status"]), (&"target_mismatch".into(), &"BLOCKED".into()));
    assert_eq!(evil.connections() + fixture.api.connections(), 0);
}

#[test]
fn name_without_passthrough_rule_is_refused() {
    let fixture = passthrough_fixture();
    // The address is right, the name is not: no rule applies.
    let connect = format!("evil.test:443:api.test:{}", fixture.api.port());
    let (code, rejection) = fixture.rejected(&["--connect-to", &connect], "https://evil.test/");
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"domain_not_in_allowlist".into()));
    // Only TLS is passed through.
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/").replace("https", "http"));
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"non_https_blocked".into()));
    assert_eq!(fixture.api.connections(), 0);
}

#[test]
fn ssrf_guard_applies_to_passthrough() {
    let fixture = Fixture::new();
    let port = fixture.api.port();
    fixture.home.write_policy(&format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n        ports: [{port}]\n        tls: passthrough\n"
    ));
    let outcome = curl(&fixture, &[], &fixture.url("/"));
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    assert_eq!(fixture.home.audit()[0]["reason"], "ssrf_protection_blocked");
    assert_eq!(fixture.api.connections(), 0);
}

#[test]
fn passthrough_to_dead_server_is_reset_and_recorded() {
    let mut fixture = passthrough_fixture();
    let netns = Netns::new();
    fixture.home.add_host("gone.test", netns.peer4());
    fixture.rules(&[("gone.test", 443, "tls: passthrough")]);
    let outcome = curl(&fixture, &[], "https://gone.test/");
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    let record = &fixture.home.audit()[0];
    assert_eq!((&record["status"], &record["domain"]), (&"ERROR".into(), &"gone.test".into()), "{record}");
    assert_eq!(record["reason"], "upstream_unavailable");
}

#[test]
fn policy_explain_reports_passthrough() {
    let fixture = passthrough_fixture();
    let explained = run(&mut fixture.home.agentsecrets(["policy", "explain", "GET", &fixture.url("/")])).ok();
    assert!(explained.contains("passed through unopened"), "{explained}");
    fixture.rules(&[("api.test", 443, "tls: passthrough"), ("'*.test'", 443, "secrets: [API_KEY]")]);
    let check = run(&mut fixture.home.agentsecrets(["policy", "check"]));
    assert_eq!(check.code, Some(1), "{check:?}");
}
