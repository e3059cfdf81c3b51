//! A rule's own roots: for its host, instead of the default ones, reloaded with the file.

use super::*;
use crate::support::certificate::Authority;

#[test]
fn rule_root_is_trusted_for_its_host_only() {
    let mut fixture = Fixture::new();
    let private = Authority::new();
    let build = Upstream::start(Options::https(&private, &["build.test", "other.test"]));
    fixture.home.add_host("build.test", [127, 0, 0, 1]);
    fixture.home.add_host("other.test", [127, 0, 0, 1]);
    fixture.home.write_policy_file("build.pem", &private.pem());
    fixture.rules(&[
        ("api.test", fixture.api.port(), "secrets: [API_KEY]"),
        ("build.test", build.port(), "secrets: [API_KEY]\nroots: build.pem"),
        ("other.test", build.port(), "secrets: [API_KEY]"),
    ]);
    let url = |host: &str| format!("https://{host}:{}/echo", build.port());
    fixture.curl_at(&[], &url("build.test")).ok();
    fixture.curl(&[], "/echo").ok();
    assert_eq!(build.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let (code, rejection) = fixture.rejected(&[], &url("other.test"));
    assert_eq!((code.as_str(), &rejection["error"]), ("502", &"upstream_untrusted".into()));
    // The rule's roots replace the default ones.
    fixture.rule("secrets: [API_KEY]\nroots: build.pem");
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/"));
    assert_eq!((code.as_str(), &rejection["error"]), ("502", &"upstream_untrusted".into()));
    assert_eq!((build.received().len(), fixture.api.received().len()), (1, 1));
}

#[test]
fn invalid_roots_file_names_line() {
    let fixture = Fixture::new();
    fixture.home.write_policy_file("empty.pem", "nothing");
    for (name, why) in [("absent.pem", "No such file"), ("empty.pem", "the file contains none")] {
        fixture.rule(&format!("roots: {name}"));
        let check = run(&mut fixture.home.agentsecrets(["policy", "check"]));
        assert_eq!(check.code, Some(1));
        let output = check.stdout + &check.stderr;
        assert!(
            output.contains("policy.yaml:8: ") && output.contains(name) && output.contains(why),
            "{output}"
        );
    }
}

#[test]
fn replaced_roots_are_reloaded() {
    let fixture = Fixture::new();
    let other = Authority::new();
    fixture.home.write_policy_file("roots.pem", &fixture.authority.pem());
    fixture.rule("secrets: [API_KEY]\nroots: roots.pem");
    let url = fixture.url("/echo");
    let script = format!(
        "curl -sS -w '%{{http_code}}\\n' -o /dev/null {url}; for i in $(seq 500); do \
         c=$(curl -sS -w '%{{http_code}}' -o /dev/null {url}); [ $c = 502 ] && echo refused && exit; done"
    );
    let mut agent =
        crate::end_to_end::WaitingAgent::start_command(fixture.home.run_agent(["sh", "-c", &script]));
    fixture.home.write_policy_file("roots.pem", &other.pem());
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "refused");
}
