//! Programs that agents run, unmodified, with a placeholder as their credential.

use super::*;
use crate::support::netns::Netns;

#[test]
fn curl_spends_a_secret_that_it_never_holds() {
    let world = World::new();
    for version in ["--http1.1", "--http2"] {
        let echo = world.curl(&[version], "/echo").json();
        assert_eq!(echo["path"], "/echo");
    }
    for received in world.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    }
    let versions: Vec<String> = world.api.received().into_iter().map(|received| received.version).collect();
    assert_eq!(versions.len(), 2);
}

#[test]
fn servers_on_either_loopback_address_and_in_another_network_are_reached() {
    let netns = Netns::new();
    let there: [IpAddr; 2] = [netns.there4().into(), netns.there6().into()];
    for (address, inside) in loopbacks().map(|ip| (ip, false)).into_iter().chain(there.map(|ip| (ip, true))) {
        let world = World::with(|authority| {
            let options = Options::https(authority, &["api.test"]).at((address, 0));
            Upstream::start(if inside { options.inside(&netns) } else { options })
        });
        world.curl(&[], "/echo").ok();
        assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"), "{address}");
    }
}

#[test]
fn python_requests_works_unmodified() {
    let world = World::new();
    let program = "import os, requests, sys\n\
        r = requests.get(sys.argv[1], headers={'Authorization': 'Bearer ' + os.environ['API_KEY']})\n\
        print(r.status_code, os.environ['API_KEY'])";
    let mut python = world.home.run_agent(["/usr/bin/python3", "-c", program]);
    assert_eq!(finish(python.arg(world.url("/echo"))).ok().trim(), "200 AS_SECRET_API_KEY");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn node_fetch_works_unmodified() {
    let world = World::new();
    let program = "fetch(process.argv[1], {headers: {authorization: 'Bearer ' + process.env.API_KEY}})\
        .then(async r => console.log(r.status, process.env.API_KEY))";
    let mut node = world.home.run_agent(["node", "-e", program]);
    assert_eq!(finish(node.arg(world.url("/echo"))).ok().trim(), "200 AS_SECRET_API_KEY");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn a_placeholder_is_filled_in_basic_authentication_and_where_the_rule_lets_it_stand() {
    let world = World::new();
    world.rule("secrets: [API_KEY]\nplaces: [auth, query]");
    let mut curl = world.home.run_agent(["curl", "-sS", "-u", "user:AS_SECRET_API_KEY"]);
    finish(curl.arg(world.url("/echo?key=AS_SECRET_API_KEY"))).ok();
    let received = world.api.only();
    assert_eq!(received.path, format!("/echo?key={SECRET}"));
    // user:SECRET
    assert_eq!(
        received.header("authorization"),
        "Basic dXNlcjpza19saXZlXzRlQzM5SHFMeWpXRGFyanRUMXpkcDdkYw=="
    );
}

#[test]
fn a_placeholder_quoted_elsewhere_stays_text() {
    let world = World::new();
    let mut curl =
        world.home.run_agent(["curl", "-sS", "-H", "X-Note: AS_SECRET_API_KEY", "-d", "AS_SECRET_API_KEY"]);
    finish(curl.arg(world.url("/echo?note=AS_SECRET_API_KEY"))).ok();
    let received = world.api.only();
    assert_eq!(received.path, "/echo?note=AS_SECRET_API_KEY");
    assert_eq!(received.header("x-note"), "AS_SECRET_API_KEY");
    assert_eq!(received.body, "AS_SECRET_API_KEY");
}

#[test]
fn a_rule_puts_a_secret_in_unasked() {
    for (inject, header, value) in [
        ("bearer: API_KEY", "authorization", format!("Bearer {SECRET}")),
        ("header: { X-Api-Key: API_KEY }", "x-api-key", SECRET.to_owned()),
    ] {
        let world = World::new();
        world.rule(&format!("inject: {{ {inject} }}"));
        finish(world.home.run_agent(["curl", "-sS"]).arg(world.url("/echo"))).ok();
        assert_eq!(world.api.only().header(header), value);
    }
    let world = World::new();
    world.rule("inject: { query: { key: API_KEY } }");
    finish(world.home.run_agent(["curl", "-sS"]).arg(world.url("/echo?a=b"))).ok();
    assert_eq!(world.api.only().path, format!("/echo?a=b&key={SECRET}"));

    let world = World::new();
    world.home.secret("LOGIN", "user:a-long-password");
    world.rule("inject: { basic: LOGIN }");
    finish(world.home.run_agent(["curl", "-sS"]).arg(world.url("/echo"))).ok();
    assert_eq!(world.api.only().header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
}

#[test]
fn bodies_stream_both_ways() {
    let world = World::new();
    let outcome = world.curl(&["-o", "/dev/null", "-w", "%{size_download}"], "/stream?n=20000000");
    assert_eq!(outcome.ok(), "20000000");
    let script = format!("head -c 20000000 /dev/zero | curl -sS -T - -X POST {}", world.url("/upload"));
    assert_eq!(finish(&mut world.home.run_agent(["sh", "-c", &script])).ok(), r#"{"bytes":"20000000"}"#);
}
