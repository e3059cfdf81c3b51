//! Node's clients.

use super::*;

#[test]
fn fetch_https_http2_and_undici_work_unmodified() {
    let world = world();
    let said = finish(&mut node(&world, include_str!("programs/http.js"), &world.url(""))).ok();
    assert_eq!(said, "fetch 200\nhttps 200\nhttp2 200\nundici 200 HTTP/2.0\n");
    spent(&world, 4);
}

#[test]
fn node_with_the_systems_roots_trusts_us_too() {
    let world = world();
    let program = "fetch(process.argv[1] + '/echo', {headers: {authorization: 'Bearer AS_SECRET_API_KEY'}})\
        .then(r => console.log(r.status))";
    let url = world.url("");
    let mut node = world.home.run_agent(["env", "-u", "NODE_EXTRA_CA_CERTS", "/usr/bin/node"]);
    assert_eq!(finish(node.args(["--use-openssl-ca", "-e", program, &url])).ok(), "200\n");
    spent(&world, 1);
}

#[test]
fn ws_opens_a_connection_with_the_secret_and_talks() {
    let (world, mut server) = python::world_of_python(include_str!("programs/websocket_server.py"));
    let said = finish(&mut node(&world, include_str!("programs/websocket.js"), &server.url)).ok();
    assert_eq!(said, "one\ntwo\n");
    assert_eq!(server.line(), format!("Bearer {SECRET}"));
}
