//! Every name of a server must be the same one: SNI, Host or `:authority`, URI, certificate.

use super::*;

#[test]
fn a_host_header_that_is_not_the_tls_name_is_refused() {
    let mut world = World::new();
    world.home.host("other.test", [127, 0, 0, 1]);
    world.rules(&[
        ("api.test", world.api.port(), "secrets: [API_KEY]"),
        ("other.test", world.api.port(), "secrets: [API_KEY]"),
    ]);
    for version in ["--http1.1", "--http2"] {
        let host = format!("Host: other.test:{}", world.api.port());
        let (code, refusal) = world.refused(&[version, "-H", &host], &world.url("/"));
        assert_eq!((code.as_str(), &refusal["error"]), ("421", &"target_mismatch".into()), "{version}");
    }
    assert!(world.api.received().is_empty());
}

/// Servers of one certificate share connections, clients of HTTP/2 may think. A secret's host is one name.
#[test]
fn a_connection_of_one_name_carries_no_request_for_another() {
    let mut world =
        World::with(|authority| Upstream::start(Options::https(authority, &["api.test", "other.test"])));
    world.home.host("other.test", [127, 0, 0, 1]);
    let port = world.api.port();
    world.rules(&[("api.test", port, "secrets: [API_KEY]"), ("other.test", port, "secrets: [API_KEY]")]);
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
    let mut python = world.home.run_agent(["/usr/bin/python3", "-c", script]);
    assert_eq!(finish(python.arg(port.to_string())).ok().trim(), "200 421 200");
    assert_eq!(world.api.received().len(), 2);
}

#[test]
fn an_absolute_uri_of_another_server_is_refused() {
    let world = World::new();
    let target = "https://evil.test/";
    let (code, refusal) = world.refused(&["--http1.1", "--request-target", target], &world.url("/"));
    assert_eq!((code.as_str(), &refusal["error"]), ("421", &"target_mismatch".into()));
}

#[test]
fn the_name_decides_and_not_the_address_that_the_agent_dialled() {
    let world = World::new();
    let evil = Upstream::start(
        Options::https(&world.authority, &["api.test"]).at(([127, 0, 0, 2], world.api.port())),
    );
    let resolve = format!("api.test:{}:127.0.0.2", world.api.port());
    world.curl(&["--resolve", &resolve], "/echo").ok();
    assert!(evil.received().is_empty());
    assert_eq!(world.api.received().len(), 1);
}

#[test]
fn a_server_that_proves_another_name_or_none_gets_nothing() {
    let stranger = Authority::new();
    let good = Authority::new();
    let mut expired = Options::https(&good, &["api.test"]);
    expired.tls.as_mut().unwrap().expired = true;
    let servers = [
        Upstream::start(Options::https(&good, &["other.test"])),
        Upstream::start(Options::https(&stranger, &["api.test"])),
        Upstream::start(expired),
    ];
    for server in servers {
        let world = World::with(|_| server);
        world.home.trust(&good.pem());
        let (code, refusal) = world.refused(&[], &world.url("/"));
        assert_eq!((code.as_str(), &refusal["error"]), ("502", &"upstream_untrusted".into()));
        assert!(world.api.received().is_empty());
    }
}
