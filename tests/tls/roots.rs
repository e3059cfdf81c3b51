//! Roots of a rule's own: for its host, instead of the usual ones, and as fresh as the file.

use super::*;
use crate::support::certificate::Authority;

#[test]
fn a_private_root_is_trusted_for_its_rules_host_and_no_other() {
    let mut world = World::new();
    let private = Authority::new();
    let build = Upstream::start(Options::https(&private, &["build.test", "other.test"]));
    world.home.host("build.test", [127, 0, 0, 1]);
    world.home.host("other.test", [127, 0, 0, 1]);
    world.home.beside_the_policy("build.pem", &private.pem());
    world.rules(&[
        ("api.test", world.api.port(), "secrets: [API_KEY]"),
        ("build.test", build.port(), "secrets: [API_KEY]\nroots: build.pem"),
        ("other.test", build.port(), "secrets: [API_KEY]"),
    ]);
    let url = |host: &str| format!("https://{host}:{}/echo", build.port());
    world.curl_at(&[], &url("build.test")).ok();
    world.curl(&[], "/echo").ok();
    assert_eq!(build.only().header("authorization"), format!("Bearer {SECRET}"));
    let (code, refusal) = world.refused(&[], &url("other.test"));
    assert_eq!((code.as_str(), &refusal["error"]), ("502", &"upstream_untrusted".into()));
    // The rule's roots stand instead of the usual ones.
    world.rule("secrets: [API_KEY]\nroots: build.pem");
    let (code, refusal) = world.refused(&[], &world.url("/"));
    assert_eq!((code.as_str(), &refusal["error"]), ("502", &"upstream_untrusted".into()));
    assert_eq!((build.received().len(), world.api.received().len()), (1, 1));
}

#[test]
fn a_file_of_roots_that_cannot_be_used_is_named_with_the_rules_line() {
    let world = World::new();
    world.home.beside_the_policy("empty.pem", "nothing");
    for (name, why) in [("absent.pem", "No such file"), ("empty.pem", "none in it")] {
        world.rule(&format!("roots: {name}"));
        let check = finish(&mut world.home.agentsecrets(["policy", "check"]));
        assert_eq!(check.code, Some(1));
        let said = check.stdout + &check.stderr;
        assert!(said.contains("policy.yaml:8: ") && said.contains(name) && said.contains(why), "{said}");
    }
}

#[test]
fn roots_that_are_replaced_come_into_force_without_a_change_of_the_policy() {
    let world = World::new();
    let other = Authority::new();
    world.home.beside_the_policy("roots.pem", &world.authority.pem());
    world.rule("secrets: [API_KEY]\nroots: roots.pem");
    let url = world.url("/echo");
    let script = format!(
        "curl -sS -w '%{{http_code}}\\n' -o /dev/null {url}; for i in $(seq 500); do \
         c=$(curl -sS -w '%{{http_code}}' -o /dev/null {url}); [ $c = 502 ] && echo refused && exit; done"
    );
    let mut agent = crate::spine::Agent::started(world.home.run_agent(["sh", "-c", &script]));
    world.home.beside_the_policy("roots.pem", &other.pem());
    let mut rest = String::new();
    std::io::Read::read_to_string(agent.child.stdout.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest.trim(), "refused");
}
