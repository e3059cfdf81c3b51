//! All names of a server must agree: SNI, Host or `:authority`, URI, certificate.

use super::*;

#[test]
fn host_header_must_match_sni() {
    let mut fixture = Fixture::new();
    fixture.home.add_host("other.test", [127, 0, 0, 1]);
    fixture.rules(&[
        ("api.test", fixture.api.port(), "secrets: [API_KEY]"),
        ("other.test", fixture.api.port(), "secrets: [API_KEY]"),
    ]);
    for version in ["--http1.1", "--http2"] {
        let host = format!("Host: other.test:{}", fixture.api.port());
        let (code, rejection) = fixture.rejected(&[version, "-H", &host], &fixture.url("/"));
        assert_eq!((code.as_str(), &rejection["error"]), ("421", &"target_mismatch".into()), "{version}");
    }
    assert!(fixture.api.received().is_empty());
}

/// HTTP/2 clients may coalesce connections to servers with one certificate; a secret is bound to one host.
#[test]
fn coalesced_connection_is_421() {
    let mut fixture =
        Fixture::with(|authority| Upstream::start(Options::https(authority, &["api.test", "other.test"])));
    fixture.home.add_host("other.test", [127, 0, 0, 1]);
    let port = fixture.api.port();
    fixture.rules(&[("api.test", port, "secrets: [API_KEY]"), ("other.test", port, "secrets: [API_KEY]")]);
    let script = r#"
import h2.config, h2.connection, h2.events, socket, ssl, sys
port = int(sys.argv[1])
context = ssl.create_default_context()
context.set_alpn_protocols(["h2"])
stream = context.wrap_socket(socket.create_connection(("api.test", port)), server_hostname="api.test")
http2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
http2.initiate_connection()
hosts = {1: "api.test", 3: "other.test", 5: "api.test"}
for number, host in hosts.items():
    http2.send_headers(number, [(":method", "GET"), (":scheme", "https"), (":authority", f"{host}:{port}"),
        (":path", "/"), ("authorization", "Bearer AS_SECRET_API_KEY")], end_stream=True)
stream.sendall(http2.data_to_send())
seen = {}
while len(seen) < len(hosts):
    for event in http2.receive_data(stream.recv(65536)):
        if isinstance(event, h2.events.ResponseReceived):
            seen[event.stream_id] = dict(event.headers)[":status"]
    stream.sendall(http2.data_to_send())
print(*(seen[number] for number in hosts))
"#;
    let mut python = fixture.home.run_agent(["/usr/bin/python3", "-c", script]);
    assert_eq!(run(python.arg(port.to_string())).ok().trim(), "200 421 200");
    assert_eq!(fixture.api.received().len(), 2);
}

#[test]
fn absolute_uri_of_other_host_is_refused() {
    let fixture = Fixture::new();
    let target = "https://evil.test/";
    let (code, rejection) = fixture.rejected(&["--http1.1", "--request-target", target], &fixture.url("/"));
    assert_eq!((code.as_str(), &rejection["error"]), ("421", &"target_mismatch".into()));
}

#[test]
fn name_decides_not_dialled_address() {
    let fixture = Fixture::new();
    let evil = Upstream::start(
        Options::https(&fixture.authority, &["api.test"]).at(([127, 0, 0, 2], fixture.api.port())),
    );
    let resolve = format!("api.test:{}:127.0.0.2", fixture.api.port());
    fixture.curl(&["--resolve", &resolve], "/echo").ok();
    assert!(evil.received().is_empty());
    assert_eq!(fixture.api.received().len(), 1);
}

#[test]
fn wrong_server_certificate_gets_nothing() {
    let stranger = Authority::new();
    let good = Authority::new();
    let mut expired = Options::https(&good, &["api.test"]);
    expired.tls.as_mut().unwrap().is_expired = true;
    let servers = [
        Upstream::start(Options::https(&good, &["other.test"])),
        Upstream::start(Options::https(&stranger, &["api.test"])),
        Upstream::start(expired),
    ];
    for server in servers {
        let fixture = Fixture::with(|_| server);
        fixture.home.trust(&good.pem());
        let (code, rejection) = fixture.rejected(&[], &fixture.url("/"));
        assert_eq!((code.as_str(), &rejection["error"]), ("502", &"upstream_untrusted".into()));
        assert!(fixture.api.received().is_empty());
    }
}
