//! Requests that ask a server to act on another method or path, and addresses that no rule may allow.

use crate::end_to_end::Fixture;
use crate::support::process::run;

#[test]
fn method_and_url_override_is_refused() {
    let fixture = Fixture::new();
    fixture.rule("methods: [GET, POST]\npaths: [\"/v1/**\"]\nsecrets: [API_KEY]");
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
            let (code, rejection) = fixture.rejected(&[version, "-H", header], &fixture.url("/v1/x"));
            assert_eq!((code.as_str(), &rejection["error"]), ("403", &"policy_denied".into()), "{header}");
        }
    }
    let (code, rejection) = fixture.rejected(&["-X", "POST"], &fixture.url("/v1/x?_method=DELETE"));
    assert_eq!((code.as_str(), &rejection["error"]), ("403", &"policy_denied".into()));
    assert!(fixture.api.received().is_empty());
    let mut curl = fixture.home.run_agent(["curl", "-sS", "-H", "X-HTTP-Method-Override: GET"]);
    run(curl.arg(fixture.url("/v1/x"))).ok();
    assert!(!fixture.api.only_request().headers.contains_key("x-http-method-override"));
}

#[test]
fn forwarding_headers_are_stripped() {
    let fixture = Fixture::new();
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
    fixture.curl(&arguments, "/echo").ok();
    let received = fixture.api.only_request();
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
fn private_rule_excludes_metadata_and_link_local() {
    let mut fixture = Fixture::new();
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
        fixture.home.add_host(name, address.parse::<std::net::IpAddr>().unwrap());
    }
    let port = fixture.api.port();
    let rules: Vec<(&str, u16, &str)> =
        names.iter().map(|name| (name.as_str(), port, "secrets: [API_KEY]")).collect();
    fixture.rules(&rules);
    for name in &names {
        let (code, rejection) = fixture.rejected(&[], &format!("https://{name}:{port}/"));
        assert_eq!(
            (code.as_str(), &rejection["error"]),
            ("403", &"ssrf_protection_blocked".into()),
            "{name}"
        );
    }
    assert!(fixture.api.received().is_empty());
}

#[test]
fn secret_for_public_suffix_wildcard_is_refused() {
    let fixture = Fixture::new();
    for host in ["*.github.io", "*.co.uk", "*.amazonaws.com"] {
        fixture.home.write_policy(&format!("version: 1\nagents:\n  - name: a\n    allow:\n      - {{ host: \"{host}\", secrets: [API_KEY] }}\n"));
        let outcome = run(&mut fixture.home.agentsecrets(["policy", "check"]));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!((outcome.stdout + &outcome.stderr).contains("policy.yaml:5"), "{host}");
        assert_ne!(run(&mut fixture.home.run_agent(["echo", "started"])).code, Some(0));
    }
}
