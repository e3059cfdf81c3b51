//! Unmodified programs with a placeholder as credential.

use super::*;
use crate::support::netns::Netns;

#[test]
fn curl_gets_credential_from_placeholder() {
    let fixture = Fixture::new();
    for version in ["--http1.1", "--http2"] {
        let echo = fixture.curl(&[version], "/echo").json();
        assert_eq!(echo["path"], "/echo");
    }
    for received in fixture.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    }
    let versions: Vec<String> = fixture.api.received().into_iter().map(|received| received.version).collect();
    assert_eq!(versions.len(), 2);
}

#[test]
fn servers_on_ipv4_ipv6_and_network_are_reached() {
    let netns = Netns::new();
    let there: [IpAddr; 2] = [netns.peer4().into(), netns.peer6().into()];
    for (address, inside) in loopbacks().map(|ip| (ip, false)).into_iter().chain(there.map(|ip| (ip, true))) {
        let fixture = Fixture::with(|authority| {
            let options = Options::https(authority, &["api.test"]).at((address, 0));
            Upstream::start(if inside { options.in_netns(&netns) } else { options })
        });
        fixture.curl(&[], "/echo").ok();
        assert_eq!(
            fixture.api.only_request().header("authorization"),
            format!("Bearer {SECRET}"),
            "{address}"
        );
    }
}

#[test]
fn python_requests_works() {
    let fixture = Fixture::new();
    let program = "import os, requests, sys\n\
        r = requests.get(sys.argv[1], headers={'Authorization': 'Bearer ' + os.environ['API_KEY']})\n\
        print(r.status_code, os.environ['API_KEY'])";
    let mut python = fixture.home.run_agent(["/usr/bin/python3", "-c", program]);
    assert_eq!(run(python.arg(fixture.url("/echo"))).ok().trim(), "200 AS_SECRET_API_KEY");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn node_fetch_works() {
    let fixture = Fixture::new();
    let program = "fetch(process.argv[1], {headers: {authorization: 'Bearer ' + process.env.API_KEY}})\
        .then(async r => console.log(r.status, process.env.API_KEY))";
    let mut node = fixture.home.run_agent(["node", "-e", program]);
    assert_eq!(run(node.arg(fixture.url("/echo"))).ok().trim(), "200 AS_SECRET_API_KEY");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn placeholder_is_filled_in_basic_auth_and_allowed_locations() {
    let fixture = Fixture::new();
    fixture.rule("secrets: [API_KEY]\nplaces: [auth, query]");
    let mut curl = fixture.home.run_agent(["curl", "-sS", "-u", "user:AS_SECRET_API_KEY"]);
    run(curl.arg(fixture.url("/echo?key=AS_SECRET_API_KEY"))).ok();
    let received = fixture.api.only_request();
    assert_eq!(received.path, format!("/echo?key={SECRET}"));
    // user:SECRET
    assert_eq!(
        received.header("authorization"),
        "Basic dXNlcjpza19saXZlXzRlQzM5SHFMeWpXRGFyanRUMXpkcDdkYw=="
    );
}

#[test]
fn placeholder_outside_location_stays_text() {
    let fixture = Fixture::new();
    let mut curl =
        fixture.home.run_agent(["curl", "-sS", "-H", "X-Note: AS_SECRET_API_KEY", "-d", "AS_SECRET_API_KEY"]);
    run(curl.arg(fixture.url("/echo?note=AS_SECRET_API_KEY"))).ok();
    let received = fixture.api.only_request();
    assert_eq!(received.path, "/echo?note=AS_SECRET_API_KEY");
    assert_eq!(received.header("x-note"), "AS_SECRET_API_KEY");
    assert_eq!(received.body, "AS_SECRET_API_KEY");
}

#[test]
fn inject_rule_needs_no_placeholder() {
    for (inject, header, value) in [
        ("bearer: API_KEY", "authorization", format!("Bearer {SECRET}")),
        ("header: { X-Api-Key: API_KEY }", "x-api-key", SECRET.to_owned()),
    ] {
        let fixture = Fixture::new();
        fixture.rule(&format!("inject: {{ {inject} }}"));
        run(fixture.home.run_agent(["curl", "-sS"]).arg(fixture.url("/echo"))).ok();
        assert_eq!(fixture.api.only_request().header(header), value);
    }
    let fixture = Fixture::new();
    fixture.rule("inject: { query: { key: API_KEY } }");
    run(fixture.home.run_agent(["curl", "-sS"]).arg(fixture.url("/echo?a=b"))).ok();
    assert_eq!(fixture.api.only_request().path, format!("/echo?a=b&key={SECRET}"));

    let fixture = Fixture::new();
    fixture.home.set_secret("LOGIN", "user:a-long-password");
    fixture.rule("inject: { basic: LOGIN }");
    run(fixture.home.run_agent(["curl", "-sS"]).arg(fixture.url("/echo"))).ok();
    assert_eq!(fixture.api.only_request().header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
}

#[test]
fn bodies_stream_both_ways() {
    let fixture = Fixture::new();
    let outcome = fixture.curl(&["-o", "/dev/null", "-w", "%{size_download}"], "/stream?n=20000000");
    assert_eq!(outcome.ok(), "20000000");
    let script = format!("head -c 20000000 /dev/zero | curl -sS -T - -X POST {}", fixture.url("/upload"));
    assert_eq!(run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok(), r#"{"bytes":"20000000"}"#);
}
