//! Node clients.

use super::*;

#[test]
fn node_http_clients_work() {
    let fixture = fixture();
    let output = run(&mut node(&fixture, include_str!("programs/http.js"), &fixture.url(""))).ok();
    assert_eq!(output, "fetch 200\nhttps 200\nhttp2 200\nundici 200 HTTP/2.0\n");
    assert_secret_received(&fixture, 4);
}

#[test]
fn node_with_system_roots_trusts_ca() {
    let fixture = fixture();
    let program = "fetch(process.argv[1] + '/echo', {headers: {authorization: 'Bearer AS_SECRET_API_KEY'}})\
        .then(r => console.log(r.status))";
    let url = fixture.url("");
    let mut node = fixture.home.run_agent(["env", "-u", "NODE_EXTRA_CA_CERTS", "/usr/bin/node"]);
    assert_eq!(run(node.args(["--use-openssl-ca", "-e", program, &url])).ok(), "200\n");
    assert_secret_received(&fixture, 1);
}

#[test]
fn node_websocket_authenticates() {
    let (fixture, mut server) = python::python_server_fixture(include_str!("programs/websocket_server.py"));
    let output = run(&mut node(&fixture, include_str!("programs/websocket.js"), &server.url)).ok();
    assert_eq!(output, "one\ntwo\n");
    assert_eq!(server.read_line(), format!("Bearer {SECRET}"));
}
