//! A certificate as a credential: the server sees that it is shown, and the agent never sees its key.

use super::*;
use crate::spine::Agent;

/// A world whose server asks for certificates, and a stored one that is good.
fn world(asked: Asked) -> World {
    let world =
        World::with(|authority| Upstream::start(Options::https(authority, &["api.test"]).asking(asked)));
    world.home.secret("CERT", &world.authority.client("an agent"));
    world
}

#[test]
fn a_rule_shows_a_certificate_to_a_server_that_asks_and_the_record_says_so() {
    let world = world(Asked::Firmly);
    world.rule("client_cert: CERT\nsecrets: [API_KEY]");
    for version in ["--http1.1", "--http2"] {
        world.curl(&[version], "/echo").ok();
    }
    let received = world.api.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|received| received.peer.certificates == 1), "{received:?}");
    let record = world.home.audit().pop().unwrap();
    assert_eq!(record["secret_keys"], serde_json::json!(["API_KEY", "CERT"]), "{record}");
    let styles = record["auth_styles"].as_array().unwrap();
    assert!(styles.contains(&"client_certificate".into()), "{record}");
}

#[test]
fn without_the_rule_the_server_gets_none_and_the_agent_is_told() {
    let world = world(Asked::Firmly);
    let (code, refusal) = world.refused(&[], &world.url("/"));
    assert_eq!((code.as_str(), &refusal["error"]), ("502", &"upstream_unavailable".into()));
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("certificate") && message.contains("client_cert"), "{message}");
    assert!(world.api.received().is_empty());
}

#[test]
fn requests_with_a_certificate_and_without_share_no_connection() {
    let world = world(Asked::Politely);
    let port = world.api.port();
    world.rules(&[
        ("api.test", port, "paths: [/shown/**]\nclient_cert: CERT"),
        ("api.test", port, "secrets: [API_KEY]"),
    ]);
    let urls = ["/plain", "/shown/a", "/plain", "/shown/b"].map(|path| world.url(path));
    let mut curl = world.home.run_agent(["curl", "-sS"]);
    finish(curl.args(&urls)).ok();
    let shown: Vec<usize> = world.api.received().iter().map(|got| got.peer.certificates).collect();
    assert_eq!(shown, [0, 1, 0, 1]);
    assert_eq!(world.api.connections(), 2);
}

#[test]
fn the_certificate_is_never_filled_in_for_a_placeholder_nor_sent_in_the_clear() {
    let world = world(Asked::Politely);
    world.rule("client_cert: CERT\nsecrets: [API_KEY]");
    let curl = |url: &str| {
        let mut curl = world.home.run_agent(["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null"]);
        finish(curl.args(["-H", "Authorization: AS_SECRET_CERT", url])).ok()
    };
    assert_eq!(curl(&world.url("/")), "403");
    assert_eq!(curl(&world.url("/").replace("https", "http")), "403");
    assert!(world.api.received().is_empty());
}

#[test]
fn a_secret_that_is_no_certificate_with_its_key_is_named_and_not_shown() {
    let world = world(Asked::Firmly);
    world.home.secret("CERT", "a value that is no certificate");
    world.rule("client_cert: CERT");
    let curl = finish(world.home.run_agent(["curl", "-sS"]).arg(world.url("/"))).ok();
    assert!(curl.contains("secret 'CERT' is no client certificate: it holds no certificate"), "{curl}");
    assert!(!curl.contains("a value"), "{curl}");
}

#[test]
fn a_certificate_that_is_replaced_is_used_from_the_next_connection_on() {
    use std::io::{Read, Write};
    let world = world(Asked::Firmly);
    world.rule("client_cert: CERT");
    world.home.secret("CERT", &crate::support::certificate::Authority::new().client("a stranger"));
    // The agent asks for as long as it takes the new value to be read.
    let url = world.url("/echo");
    let script = format!(
        "curl -sS {url} | grep -o error | head -1; read line; \
         for i in $(seq 200); do curl -sSf {url} >/dev/null 2>&1 && echo good && exit; done"
    );
    let mut agent = Agent::started(world.home.run_agent(["sh", "-c", &script]));
    world.home.secret("CERT", &world.authority.client("an agent"));
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "good");
}
