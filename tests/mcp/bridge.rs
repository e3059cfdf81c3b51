//! `agentsecrets mcp bridge`, as the published plugin calls it and by hand.

use serde_json::{Value, json};

use super::transcript::is_clean;
use super::{python, variables, world};
use crate::person::AgentsCopy;
use crate::spine::{SECRET, World};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{finish, finish_with};
use crate::support::python::{PYTHON, program};

/// What the plugin is told to each of `calls`.
#[track_caller]
fn plugin(world: &World, calls: Value) -> Vec<Value> {
    let plan = json!({"binary": AGENTSECRETS, "env": variables(world), "calls": calls});
    let told = finish(&mut python(world, "mcp/plugin.py", &[&plan.to_string()])).json();
    is_clean(&told.to_string(), SECRET);
    told.as_array().unwrap().clone()
}

/// What the bridge prints to `request`, and its exit code.
#[track_caller]
fn bridge(world: &World, request: &str) -> (i32, Value) {
    let outcome =
        finish_with(&mut world.home.agentsecrets(["mcp", "bridge", "proxy.call"]), request.as_bytes());
    is_clean(&format!("{outcome:?}"), SECRET);
    (outcome.code.unwrap(), serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}")))
}

#[test]
fn the_published_plugin_calls_with_every_style() {
    let world = world();
    world.home.secret("LOGIN", "user:a-long-password");
    world.rule("secrets: [API_KEY, LOGIN]\nplaces: [auth, header, query, json, form]");
    let url = world.url("/echo");
    let told = plugin(
        &world,
        json!([
            {"url": world.url("/echo-raw"), "injections": {"bearer": "API_KEY"}, "environment": "development"},
            {"url": url, "injections": {"basic": "LOGIN"}, "headers": {"X-Note": "kept"}, "agent_id": "coder"},
            {"url": url, "injections": {"header:X-Api-Key": "API_KEY", "query:apiKey": "API_KEY"}},
            {"url": url, "method": "POST", "body": "{\"a\": 1}", "injections": {"body:b.c": "API_KEY"}},
            {"url": url, "method": "PUT", "body": "a=b", "injections": {"form:f": "API_KEY"}, "path": "/tmp"},
        ]),
    );
    assert_eq!(told[0]["status_code"], 200);
    assert_eq!(
        (&told[0]["body"], &told[0]["environment"]),
        (&json!("Bearer [REDACTED_BY_AGENTSECRETS]"), &json!("development"))
    );
    assert_eq!(told[0]["headers"]["content-type"], "text/plain");
    let received = world.api.received();
    assert_eq!(received.len(), 5, "{told:#?}");
    assert_eq!(received[0].header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(received[1].header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
    assert_eq!(received[1].header("x-note"), "kept");
    assert_eq!(
        (received[2].header("x-api-key"), &*received[2].path),
        (SECRET, &*format!("/echo?apiKey={SECRET}"))
    );
    let sent: Value = serde_json::from_str(&received[3].body).unwrap();
    assert_eq!(sent, json!({"a": 1, "b": {"c": SECRET}}));
    assert_eq!(received[4].body, format!("a=b&f={SECRET}"));
    let records = world.home.audit();
    assert!(
        records.iter().all(|record| record["agent_id"] == "coder" && record["status"] == "OK"),
        "{records:#?}"
    );
}

#[test]
fn the_plugin_is_told_why_a_request_was_refused_or_failed() {
    let world = world();
    world.rule("secrets: [API_KEY, ABSENT]\nmethods: [GET]");
    world.home.secret("OTHER", "another-long-value");
    let url = world.url("/echo");
    let elsewhere = "https://elsewhere.test/";
    let cases = [
        (
            json!({"url": elsewhere, "injections": {"bearer": "API_KEY"}}),
            "domain_not_in_allowlist: 'elsewhere.test'",
        ),
        (json!({"url": url, "injections": {"bearer": "ABSENT"}}), "secret 'ABSENT' not found in keychain"),
        (json!({"url": url, "injections": {"bearer": "OTHER"}}), "policy_denied"),
        (json!({"url": url, "method": "DELETE", "injections": {"bearer": "API_KEY"}}), "policy_denied"),
        (
            json!({"url": url, "injections": {"bearer": "API_KEY"}, "environment": "production"}),
            "'development'",
        ),
        (json!({"url": "ftp://api.test", "injections": {"bearer": "API_KEY"}}), "url: "),
    ];
    let calls: Vec<Value> = cases.iter().map(|(call, _)| call.clone()).collect();
    let told = plugin(&world, json!(calls));
    for ((call, part), told) in cases.iter().zip(&told) {
        assert!(told["raised"].is_string(), "{call}: {told}");
        assert!(told["message"].as_str().unwrap().contains(part), "{call}: {told}");
    }
    is_clean(&json!(told).to_string(), "another-long-value");
    assert!(world.api.received().is_empty());
}

#[test]
fn whatever_comes_in_one_json_answer_goes_out() {
    let world = world();
    let url = world.url("/echo");
    for (request, code, part) in [
        ("", 2, "cannot be understood"),
        ("nonsense", 2, "cannot be understood"),
        ("{}", 2, "missing field `url`"),
        (&json!({"url": url, "injections": {"bearer": "sk-by-mistake"}}).to_string(), 2, "never a value"),
        (&json!({"url": url, "agent": "x"}).to_string(), 2, "unknown field"),
        (&json!({"url": url, "environment": "staging"}).to_string(), 2, "'development' is the active one"),
        (
            &json!({"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}}).to_string(),
            4,
            "domain_not",
        ),
        (&" ".repeat(17 << 20), 2, "larger than 16 MiB"),
    ] {
        let (exit, told) = bridge(&world, request);
        assert_eq!((exit, &told["ok"]), (code, &json!(false)), "{told}");
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(part) && !error.contains("by-mistake"), "{error}");
    }
    let status = finish_with(
        &mut world.home.agentsecrets(["mcp", "bridge", "status", "--environment", "staging"]),
        b"{}",
    );
    assert_eq!(status.json(), json!({"ok": true, "data": {"environment": {"active": "staging"}}}));
}

#[test]
fn the_folder_of_a_project_says_which_secrets_are_meant() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".agentsecrets/project.json");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, r#"{"project": "shop"}"#).unwrap();
    let request = json!({
        "url": world.url("/echo"), "injections": {"bearer": "API_KEY"}, "path": folder.path(), "agent_id": "plugin",
    });
    // There the secret is not stored.
    let (code, told) = bridge(&world, &request.to_string());
    assert_eq!((code, &told["error"]), (3, &json!("secret 'API_KEY' not found in keychain")));
}

#[test]
fn inside_run_the_bridge_is_the_agents_own_request() {
    let world = world();
    let copy = AgentsCopy::new();
    let plan = json!({
        "binary": copy.0, "env": {},
        "calls": [
            {"url": world.url("/echo-raw"), "injections": {"bearer": "API_KEY"}},
            {"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}},
        ],
    });
    let mut agent = world.home.run_agent([PYTHON, "-c", &program("mcp/plugin.py"), &plan.to_string()]);
    let told = finish(agent.env("PYTHONPATH", super::PACKAGES)).json();
    is_clean(&told.to_string(), SECRET);
    assert_eq!(told[0]["body"], "Bearer [REDACTED_BY_AGENTSECRETS]", "{told}");
    assert!(
        told[1]["message"].as_str().unwrap().starts_with("domain_not_in_allowlist: 'elsewhere.test'"),
        "{told}"
    );
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
}
