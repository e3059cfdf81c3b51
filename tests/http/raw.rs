//! HTTP/1 as it stands on the wire: what is well-formed passes, what could be read in two ways does not.

use super::*;

#[test]
fn every_raw_request_is_answered_as_it_should_be() {
    let world = World::new();
    world.rule("secrets: [API_KEY]\npaths: [\"/good\", \"/good/**\", \"/bad\"]");
    let out = python(&world, "raw.py", &[]).ok();
    assert!(out.starts_with("cases 6"), "{out}");
    let received = world.api.received();
    let bad: Vec<_> = received.iter().filter(|received| !received.path.starts_with("/good")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let audit = world.home.audit();
    let refused =
        audit.iter().filter(|record| record["method"] == "CONNECT" && record["status"] == "BLOCKED");
    assert!(refused.count() > 30, "what is no request is on record too");
    finish(&mut world.home.agentsecrets(["audit", "verify"])).ok();
}
