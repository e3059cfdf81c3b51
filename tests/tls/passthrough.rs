//! Connections that are not opened: their clients accept no certificate but the server's own.

use super::*;
use crate::support::netns::Netns;

/// A world whose server is passed through to.
fn pinned() -> World {
    let world = World::new();
    world.rule("tls: passthrough");
    world
}

/// curl as an agent, which trusts the server's own authority and not ours.
fn curl(world: &World, more: &[&str], url: &str) -> Outcome {
    let roots = world.home.roots();
    world.curl_at(&[&["--cacert", roots.to_str().unwrap()], more].concat(), url)
}

#[test]
fn a_pinned_client_reaches_its_server_unopened_and_without_a_secret() {
    let world = pinned();
    curl(&world, &["--http2"], &world.url("/echo")).ok();
    let received = world.api.only();
    assert_eq!(received.header("authorization"), "Bearer AS_SECRET_API_KEY");
    assert_eq!(received.peer.sni.as_deref(), Some("api.test"));
    let audit = world.home.audit();
    assert_eq!(audit.len(), 1, "{audit:#?}");
    let record = &audit[0];
    assert_eq!((&record["method"], &record["status"]), (&"CONNECT".into(), &"OK".into()), "{record}");
    assert_eq!(record["target_url"], format!("tcp://api.test:{}", world.api.port()));
    assert_eq!((&record["domain"], &record["agent_id"]), (&"api.test".into(), &"coder".into()));
    assert_eq!(record["secret_keys"], serde_json::json!([]));
    assert!(record["rule"].as_str().unwrap().starts_with("coder/1"), "{record}");
}

#[test]
fn whatever_follows_is_passed_on_both_ways() {
    let world = pinned();
    let roots = world.home.roots();
    let script = format!(
        "head -c 5000000 /dev/zero | curl -sS --cacert {roots} -T - -X POST {up}; \
         curl -sS --cacert {roots} {down} | wc -c; curl -sS --tls-max 1.2 --cacert {roots} {down} | wc -c",
        roots = roots.display(),
        up = world.url("/upload"),
        down = world.url("/stream?n=5000000"),
    );
    let out = finish(&mut world.home.run_agent(["sh", "-c", &script])).ok();
    assert_eq!(out, "{\"bytes\":\"5000000\"}5000000\n5000000\n");
    assert!(world.home.audit().iter().all(|record| record["status"] == "OK"));
}

#[test]
fn the_address_that_was_dialled_must_be_one_of_the_name() {
    let world = pinned();
    let evil = Upstream::start(
        Options::https(&world.authority, &["api.test"]).at(([127, 0, 0, 2], world.api.port())),
    );
    let resolve = format!("api.test:{}:127.0.0.2", world.api.port());
    let outcome = curl(&world, &["--resolve", &resolve], &world.url("/"));
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    assert!(outcome.stderr.contains("access denied"), "{outcome:?}");
    let record = &world.home.audit()[0];
    assert_eq!((&record["reason"], &record["status"]), (&"target_mismatch".into(), &"BLOCKED".into()));
    assert_eq!(evil.connections() + world.api.connections(), 0);
}

#[test]
fn a_name_of_no_passthrough_rule_is_opened_and_refused() {
    let world = pinned();
    // The address is right, the name is not: nobody's rule stands for it.
    let connect = format!("evil.test:443:api.test:{}", world.api.port());
    let (code, refusal) = world.refused(&["--connect-to", &connect], "https://evil.test/");
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"domain_not_in_allowlist".into()));
    // Nor is anything but TLS passed on.
    let (code, refusal) = world.refused(&[], &world.url("/").replace("https", "http"));
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"non_https_blocked".into()));
    assert_eq!(world.api.connections(), 0);
}

#[test]
fn the_guard_holds_for_connections_that_are_not_opened() {
    let world = World::new();
    let port = world.api.port();
    world.home.policy(&format!(
        "version: 1\nagents:\n  - name: coder\n    allow:\n      - host: api.test\n        ports: [{port}]\n        tls: passthrough\n"
    ));
    let outcome = curl(&world, &[], &world.url("/"));
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    assert_eq!(world.home.audit()[0]["reason"], "ssrf_protection_blocked");
    assert_eq!(world.api.connections(), 0);
}

#[test]
fn a_server_that_is_not_there_ends_in_a_reset_and_its_record_says_why() {
    let mut world = pinned();
    let netns = Netns::new();
    world.home.host("gone.test", netns.there4());
    world.rules(&[("gone.test", 443, "tls: passthrough")]);
    let outcome = curl(&world, &[], "https://gone.test/");
    assert_eq!(outcome.code, Some(35), "{outcome:?}");
    let record = &world.home.audit()[0];
    assert_eq!((&record["status"], &record["domain"]), (&"ERROR".into(), &"gone.test".into()), "{record}");
    assert_eq!(record["reason"], "upstream_unavailable");
}

#[test]
fn a_policy_says_of_a_url_that_it_is_not_opened() {
    let world = pinned();
    let explained = finish(&mut world.home.agentsecrets(["policy", "explain", "GET", &world.url("/")])).ok();
    assert!(explained.contains("passed on unopened"), "{explained}");
    world.rules(&[("api.test", 443, "tls: passthrough"), ("'*.test'", 443, "secrets: [API_KEY]")]);
    let check = finish(&mut world.home.agentsecrets(["policy", "check"]));
    assert_eq!(check.code, Some(1), "{check:?}");
}
