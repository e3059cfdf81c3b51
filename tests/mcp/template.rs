//! The template of a server without credentials, as it is published, below `run`.

use std::path::PathBuf;

use serde_json::json;

use super::transcript::is_clean;
use super::{session_with, world};
use crate::spine::SECRET;
use crate::support::home::AGENTSECRETS;
use crate::support::process::finish;
use crate::support::python::PYTHON;

fn template() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/mcp-server"))
}

#[test]
fn its_tools_call_the_api_with_a_key_that_it_never_holds() {
    let mut world = world();
    world.home.secret("STRIPE_KEY", SECRET);
    world.rule("secrets: [STRIPE_KEY]\nmethods: [GET]\npaths: [\"/v1/balance\", \"/v1/customers/*\"]");
    world.home.show(template(), "/srv");
    let api = format!("API_URL={}", world.url(""));
    let packages = format!("PYTHONPATH={}", super::PACKAGES);
    let run = ["run", "--", "/usr/bin/env", &api, &packages, PYTHON, "/srv/server.py"];
    let calls =
        json!([["balance", {}], ["customer", {"id": "cus_1"}], ["customer", {"id": "../../v1/charges"}]]);
    let told = session_with(&world, AGENTSECRETS, &run, "auto", calls);
    is_clean(&told.to_string(), SECRET);
    assert_eq!(told["server"], "Stripe, without a key");
    for result in [&told["results"][0], &told["results"][1]] {
        assert_eq!(result["is_error"], false, "{told}");
        assert!(result.to_string().contains("Bearer [REDACTED_BY_AGENTSECRETS]"), "{result}");
    }
    assert_eq!(told["results"][2]["is_error"], true);
    let received = world.api.received();
    let paths: Vec<&str> = received.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(paths, ["/v1/balance", "/v1/customers/cus_1"]);
    assert!(received.iter().all(|got| got.header("authorization") == format!("Bearer {SECRET}")));
    world.rule("secrets: [STRIPE_KEY]\nmethods: [GET]\npaths: [\"/v1/customers/*\"]");
    let refused = session_with(&world, AGENTSECRETS, &run, "auto", json!([["balance", {}]]));
    assert!(refused["results"][0].to_string().contains("policy_denied"), "{refused}");
}

#[test]
fn its_policy_is_sound_and_it_will_not_run_with_a_real_key() {
    let world = world();
    let policy = template().join("policy.yaml");
    finish(&mut world.home.agentsecrets(["policy", "check", policy.to_str().unwrap()])).ok();
    let mut server = world.home.beside([PYTHON, template().join("server.py").to_str().unwrap()]);
    let outcome = finish(server.env("PYTHONPATH", super::PACKAGES).env("STRIPE_KEY", SECRET));
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("holds a real key"), "{outcome:#?}");
    is_clean(&format!("{outcome:?}"), SECRET);
}
