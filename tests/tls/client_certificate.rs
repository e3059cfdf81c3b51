//! Client certificates as credentials: the server receives the certificate, the agent never sees its key.

use super::*;
use crate::end_to_end::WaitingAgent;

/// A fixture whose server asks for certificates, with a valid one stored.
fn fixture(mode: ClientAuth) -> Fixture {
    let fixture = Fixture::with(|authority| {
        Upstream::start(Options::https(authority, &["api.test"]).with_client_auth(mode))
    });
    fixture.home.set_secret("CERT", &fixture.authority.client("an agent"));
    fixture
}

#[test]
fn client_certificate_is_presented_and_recorded() {
    let fixture = fixture(ClientAuth::Required);
    fixture.rule("client_cert: CERT\nsecrets: [API_KEY]");
    for version in ["--http1.1", "--http2"] {
        fixture.curl(&[version], "/echo").ok();
    }
    let received = fixture.api.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|received| received.peer.certificates == 1), "{received:?}");
    let record = fixture.home.audit().pop().unwrap();
    assert_eq!(record["secret_keys"], serde_json::json!(["API_KEY", "CERT"]), "{record}");
    let styles = record["auth_styles"].as_array().unwrap();
    assert!(styles.contains(&"client_certificate".into()), "{record}");
}

#[test]
fn no_client_certificate_without_rule() {
    let fixture = fixture(ClientAuth::Required);
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/"));
    assert_eq!((code.as_str(), &rejection["error"]), ("502", &"upstream_unavailable".into()));
    let message = rejection["message"].as_str().unwrap();
    assert!(message.contains("certificate") && message.contains("client_cert"), "{message}");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn client_certificate_connections_are_not_shared() {
    let fixture = fixture(ClientAuth::Optional);
    let port = fixture.api.port();
    fixture.rules(&[
        ("api.test", port, "paths: [/shown/**]\nclient_cert: CERT"),
        ("api.test", port, "secrets: [API_KEY]"),
    ]);
    let urls = ["/plain", "/shown/a", "/plain", "/shown/b"].map(|path| fixture.url(path));
    let mut curl = fixture.home.run_agent(["curl", "-sS"]);
    run(curl.args(&urls)).ok();
    let shown: Vec<usize> = fixture.api.received().iter().map(|got| got.peer.certificates).collect();
    assert_eq!(shown, [0, 1, 0, 1]);
    assert_eq!(fixture.api.connections(), 2);
}

#[test]
fn client_certificate_is_never_a_placeholder() {
    let fixture = fixture(ClientAuth::Optional);
    fixture.rule("client_cert: CERT\nsecrets: [API_KEY]");
    let curl = |url: &str| {
        let mut curl = fixture.home.run_agent(["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null"]);
        run(curl.args(["-H", "Authorization: AS_SECRET_CERT", url])).ok()
    };
    assert_eq!(curl(&fixture.url("/")), "403");
    assert_eq!(curl(&fixture.url("/").replace("https", "http")), "403");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn invalid_client_certificate_is_named() {
    let fixture = fixture(ClientAuth::Required);
    fixture.home.set_secret("CERT", "a value that is no certificate");
    fixture.rule("client_cert: CERT");
    let curl = run(fixture.home.run_agent(["curl", "-sS"]).arg(fixture.url("/"))).ok();
    assert!(curl.contains("secret 'CERT' is no client certificate: it holds no certificate"), "{curl}");
    assert!(!curl.contains("a value"), "{curl}");
}

#[test]
fn replaced_client_certificate_is_used() {
    use std::io::{Read, Write};
    let fixture = fixture(ClientAuth::Required);
    fixture.rule("client_cert: CERT");
    fixture.home.set_secret("CERT", &crate::support::certificate::Authority::new().client("a stranger"));
    // The agent repeats its request until the new value is loaded.
    let url = fixture.url("/echo");
    let script = format!(
        "curl -sS {url} | grep -o error | head -1; read line; \
         for i in $(seq 200); do curl -sSf {url} >/dev/null 2>&1 && echo good && exit; done"
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", &script]));
    fixture.home.set_secret("CERT", &fixture.authority.client("an agent"));
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest.trim(), "good");
}
