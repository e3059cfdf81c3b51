//! The published template of a server without credentials, run in the sandbox.

use std::path::PathBuf;

use serde_json::json;

use super::{assert_clean, fixture, run_session_with};
use crate::end_to_end::SECRET;
use crate::support::home::AGENTSECRETS;
use crate::support::process::run;
use crate::support::python::PYTHON;

fn template() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/mcp-server"))
}

#[test]
fn template_server_calls_api_without_key() {
    let mut fixture = fixture();
    fixture.home.set_secret("STRIPE_KEY", SECRET);
    fixture.rule("secrets: [STRIPE_KEY]\nmethods: [GET]\npaths: [\"/v1/balance\", \"/v1/customers/*\"]");
    fixture.home.bind_mount(template(), "/srv");
    let api = format!("API_URL={}", fixture.url(""));
    let packages = format!("PYTHONPATH={}", super::PACKAGES);
    let run = ["run", "--", "/usr/bin/env", &api, &packages, PYTHON, "/srv/server.py"];
    let calls =
        json!([["balance", {}], ["customer", {"id": "cus_1"}], ["customer", {"id": "../../v1/charges"}]]);
    let transcript = run_session_with(&fixture, AGENTSECRETS, &run, "auto", calls);
    assert_clean(&transcript.to_string(), SECRET);
    assert_eq!(transcript["server"], "Stripe, without a key");
    for result in [&transcript["results"][0], &transcript["results"][1]] {
        assert_eq!(result["is_error"], false, "{transcript}");
        assert!(result.to_string().contains("Bearer [REDACTED_BY_AGENTSECRETS]"), "{result}");
    }
    assert_eq!(transcript["results"][2]["is_error"], true);
    let received = fixture.api.received();
    let paths: Vec<&str> = received.iter().map(|got| got.path.as_str()).collect();
    assert_eq!(paths, ["/v1/balance", "/v1/customers/cus_1"]);
    assert!(received.iter().all(|got| got.header("authorization") == format!("Bearer {SECRET}")));
    fixture.rule("secrets: [STRIPE_KEY]\nmethods: [GET]\npaths: [\"/v1/customers/*\"]");
    let refused = run_session_with(&fixture, AGENTSECRETS, &run, "auto", json!([["balance", {}]]));
    assert!(refused["results"][0].to_string().contains("policy_denied"), "{refused}");
}

#[test]
fn template_policy_is_valid_and_real_key_is_refused() {
    let fixture = fixture();
    let policy = template().join("policy.yaml");
    run(&mut fixture.home.agentsecrets(["policy", "check", policy.to_str().unwrap()])).ok();
    let mut server = fixture.home.command_outside([PYTHON, template().join("server.py").to_str().unwrap()]);
    let outcome = run(server.env("PYTHONPATH", super::PACKAGES).env("STRIPE_KEY", SECRET));
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("holds a real key"), "{outcome:#?}");
    assert_clean(&format!("{outcome:?}"), SECRET);
}
