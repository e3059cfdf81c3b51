//! `agentsecrets mcp bridge`, called by the published plugin and by hand.

use serde_json::{Value, json};

use super::{assert_clean, fixture, python, variables};
use crate::end_to_end::{Fixture, SECRET};
use crate::operator_commands::AgentExecutable;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{run, run_with_input};
use crate::support::python::{PYTHON, program};

/// The plugin's results for `calls`.
#[track_caller]
fn plugin(fixture: &Fixture, calls: Value) -> Vec<Value> {
    let plan = json!({"binary": AGENTSECRETS, "env": variables(fixture), "calls": calls});
    let reply = run(&mut python(fixture, "mcp/plugin.py", &[&plan.to_string()])).json();
    assert_clean(&reply.to_string(), SECRET);
    reply.as_array().unwrap().clone()
}

/// The bridge's output for `request`, and its exit code.
#[track_caller]
fn bridge(fixture: &Fixture, request: &str) -> (i32, Value) {
    let outcome =
        run_with_input(&mut fixture.home.agentsecrets(["mcp", "bridge", "proxy.call"]), request.as_bytes());
    assert_clean(&format!("{outcome:?}"), SECRET);
    (outcome.code.unwrap(), serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}")))
}

#[test]
fn published_plugin_injects_every_style() {
    let fixture = fixture();
    fixture.home.set_secret("LOGIN", "user:a-long-password");
    fixture.rule("secrets: [API_KEY, LOGIN]\nplaces: [auth, header, query, json, form]");
    let url = fixture.url("/echo");
    let reply = plugin(
        &fixture,
        json!([
            {"url": fixture.url("/echo-raw"), "injections": {"bearer": "API_KEY"}, "environment": "development"},
            {"url": url, "injections": {"basic": "LOGIN"}, "headers": {"X-Note": "kept"}, "agent_id": "coder"},
            {"url": url, "injections": {"header:X-Api-Key": "API_KEY", "query:apiKey": "API_KEY"}},
            {"url": url, "method": "POST", "body": "{\"a\": 1}", "injections": {"body:b.c": "API_KEY"}},
            {"url": url, "method": "PUT", "body": "a=b", "injections": {"form:f": "API_KEY"}, "path": "/tmp"},
        ]),
    );
    assert_eq!(reply[0]["status_code"], 200);
    assert_eq!(
        (&reply[0]["body"], &reply[0]["environment"]),
        (&json!("Bearer [REDACTED_BY_AGENTSECRETS]"), &json!("development"))
    );
    assert_eq!(reply[0]["headers"]["content-type"], "text/plain");
    let received = fixture.api.received();
    assert_eq!(received.len(), 5, "{reply:#?}");
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
    let records = fixture.home.audit();
    assert!(
        records.iter().all(|record| record["agent_id"] == "coder" && record["status"] == "OK"),
        "{records:#?}"
    );
}

#[test]
fn plugin_gets_rejection_reason() {
    let fixture = fixture();
    fixture.rule("secrets: [API_KEY, ABSENT]\nmethods: [GET]");
    fixture.home.set_secret("OTHER", "another-long-value");
    let url = fixture.url("/echo");
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
    let reply = plugin(&fixture, json!(calls));
    for ((call, part), reply) in cases.iter().zip(&reply) {
        assert!(reply["raised"].is_string(), "{call}: {reply}");
        assert!(reply["message"].as_str().unwrap().contains(part), "{call}: {reply}");
    }
    assert_clean(&json!(reply).to_string(), "another-long-value");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn bridge_always_prints_one_json() {
    let fixture = fixture();
    let url = fixture.url("/echo");
    for (request, code, part) in [
        ("", 2, "is not valid"),
        ("nonsense", 2, "is not valid"),
        ("{}", 2, "missing field `url`"),
        (&json!({"url": url, "injections": {"bearer": "sk-by-mistake"}}).to_string(), 2, "never a value"),
        (&json!({"url": url, "agent": "x"}).to_string(), 2, "unknown field"),
        (&json!({"url": url, "environment": "staging"}).to_string(), 2, "'development' is active"),
        (
            &json!({"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}}).to_string(),
            4,
            "domain_not",
        ),
        (&" ".repeat(17 << 20), 2, "larger than 16 MiB"),
    ] {
        let (exit, reply) = bridge(&fixture, request);
        assert_eq!((exit, &reply["ok"]), (code, &json!(false)), "{reply}");
        let error = reply["error"].as_str().unwrap();
        assert!(error.contains(part) && !error.contains("by-mistake"), "{error}");
    }
    let status = run_with_input(
        &mut fixture.home.agentsecrets(["mcp", "bridge", "status", "--environment", "staging"]),
        b"{}",
    );
    assert_eq!(status.json(), json!({"ok": true, "data": {"environment": {"active": "staging"}}}));
}

#[test]
fn bridge_uses_project_folder() {
    let fixture = fixture();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".agentsecrets/project.json");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, r#"{"project": "shop"}"#).unwrap();
    let request = json!({
        "url": fixture.url("/echo"), "injections": {"bearer": "API_KEY"}, "path": folder.path(), "agent_id": "plugin",
    });
    // In that project the secret is not stored.
    let (code, reply) = bridge(&fixture, &request.to_string());
    assert_eq!((code, &reply["error"]), (3, &json!("secret 'API_KEY' not found in keychain")));
}

#[test]
fn bridge_inside_run_acts_as_agent() {
    let fixture = fixture();
    let copy = AgentExecutable::new();
    let plan = json!({
        "binary": copy.0, "env": {},
        "calls": [
            {"url": fixture.url("/echo-raw"), "injections": {"bearer": "API_KEY"}},
            {"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}},
        ],
    });
    let mut agent = fixture.home.run_agent([PYTHON, "-c", &program("mcp/plugin.py"), &plan.to_string()]);
    let reply = run(agent.env("PYTHONPATH", super::PACKAGES)).json();
    assert_clean(&reply.to_string(), SECRET);
    assert_eq!(reply[0]["body"], "Bearer [REDACTED_BY_AGENTSECRETS]", "{reply}");
    assert!(
        reply[1]["message"].as_str().unwrap().starts_with("domain_not_in_allowlist: 'elsewhere.test'"),
        "{reply}"
    );
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}
