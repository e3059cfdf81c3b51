//! Requests that want a server to act on another one than was judged, and addresses that no rule can mean.

use crate::spine::World;
use crate::support::process::finish;

#[test]
fn a_header_or_parameter_that_asks_for_another_method_or_path_is_refused() {
    let world = World::new();
    world.rule("methods: [GET, POST]\npaths: [\"/v1/**\"]\nsecrets: [API_KEY]");
    for header in [
        "X-HTTP-Method-Override: DELETE",
        "X-Method-Override: PUT",
        "X-HTTP-Method: PATCH",
        "X_HTTP_Method_Override: DELETE",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X_Original_Url: /admin",
    ] {
        for version in ["--http1.1", "--http2"] {
            let (code, refusal) = world.refused(&[version, "-H", header], &world.url("/v1/x"));
            assert_eq!((code.as_str(), &refusal["error"]), ("403", &"policy_denied".into()), "{header}");
        }
    }
    let (code, refusal) = world.refused(&["-X", "POST"], &world.url("/v1/x?_method=DELETE"));
    assert_eq!((code.as_str(), &refusal["error"]), ("403", &"policy_denied".into()));
    assert!(world.api.received().is_empty());
    let mut curl = world.home.run_agent(["curl", "-sS", "-H", "X-HTTP-Method-Override: GET"]);
    finish(curl.arg(world.url("/v1/x"))).ok();
    assert!(!world.api.only().headers.contains_key("x-http-method-override"));
}

#[test]
fn what_an_intermediary_would_have_added_does_not_leave() {
    let world = World::new();
    let headers = [
        "X-Forwarded-Host: evil.test",
        "X-Forwarded-Uri: /admin",
        "X-Forwarded-Prefix: /x",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: host=evil.test",
        "X-Host: evil.test",
        "X_Forwarded_Host: evil.test",
        "X-Kept: yes",
    ];
    let arguments: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    world.curl(&arguments, "/echo").ok();
    let received = world.api.only();
    assert_eq!(received.header("x-kept"), "yes");
    let left: Vec<_> = received
        .headers
        .keys()
        .filter(|name| name.contains("forwarded") || name.contains("x-host"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!received.headers.values().flatten().any(|value| value.contains("evil")));
}

#[test]
fn private_never_means_metadata_link_local_or_ourselves() {
    let mut world = World::new();
    let addresses = [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "198.18.0.1",
    ];
    let names: Vec<String> = (0..addresses.len()).map(|at| format!("name{at}.test")).collect();
    for (name, address) in names.iter().zip(addresses) {
        world.home.host(name, address.parse::<std::net::IpAddr>().unwrap());
    }
    let port = world.api.port();
    let rules: Vec<(&str, u16, &str)> =
        names.iter().map(|name| (name.as_str(), port, "secrets: [API_KEY]")).collect();
    world.rules(&rules);
    for name in &names {
        let (code, refusal) = world.refused(&[], &format!("https://{name}:{port}/"));
        assert_eq!((code.as_str(), &refusal["error"]), ("403", &"ssrf_protection_blocked".into()), "{name}");
    }
    assert!(world.api.received().is_empty());
}

#[test]
fn secrets_for_whoever_registers_a_name_start_nothing() {
    let world = World::new();
    for host in ["*.github.io", "*.co.uk", "*.amazonaws.com"] {
        world.home.policy(&format!("version: 1\nagents:\n  - name: a\n    allow:\n      - {{ host: \"{host}\", secrets: [API_KEY] }}\n"));
        let outcome = finish(&mut world.home.agentsecrets(["policy", "check"]));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!((outcome.stdout + &outcome.stderr).contains("policy.yaml:5"), "{host}");
        assert_ne!(finish(&mut world.home.run_agent(["echo", "started"])).code, Some(0));
    }
}
