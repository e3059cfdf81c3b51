//! `agentsecrets mcp serve` with a model's client.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::raw_client::RawClient;
use super::{
    api_call_arguments, assert_clean, fixture, run_session, run_session_with, stderr_file, variables,
};
use crate::end_to_end::{Fixture, SECRET};
use crate::operator_commands::AgentExecutable;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{run, wait_until};
use crate::support::python::{PYTHON, program};

/// The text of a result, whose `isError` must be `is_error`.
#[track_caller]
fn result_text(result: &Value, is_error: bool) -> String {
    assert_eq!(result["is_error"], is_error, "{result}");
    result["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn real_client_works_with_both_protocol_versions() {
    let fixture = fixture();
    for (mode, version) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        let calls = json!([["list_secrets", {}], api_call_arguments(&fixture, "/echo-raw")]);
        let transcript = run_session_with(&fixture, AGENTSECRETS, &["mcp", "serve"], mode, calls);
        assert_eq!(
            (&transcript["server"], &transcript["version"]),
            (&json!("AgentSecrets"), &json!(version))
        );
        assert!(transcript["instructions"].as_str().unwrap().contains("AS_SECRET_<NAME>"));
        let tools = transcript["tools"].as_array().unwrap();
        assert_eq!((&tools[0]["name"], &tools[1]["name"]), (&json!("list_secrets"), &json!("api_call")));
        assert_eq!(tools[1]["inputSchema"]["required"], json!(["url"]));
        assert_eq!(tools[0]["annotations"]["readOnlyHint"], true);
        assert_eq!(result_text(&transcript["results"][0], false), "API_KEY");
        let answer = result_text(&transcript["results"][1], false);
        assert!(answer.starts_with("HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]\n"), "{answer}");
    }
    let received = fixture.api.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|got| got.header("authorization") == format!("Bearer {SECRET}")));
}

#[test]
fn every_style_injects_at_its_location() {
    let fixture = fixture();
    fixture.home.set_secret("LOGIN", "user:a-long-password");
    fixture.rule("secrets: [API_KEY, LOGIN]\nplaces: [auth, header, query, json, form]");
    let url = fixture.url("/echo");
    let transcript = run_session(
        &fixture,
        &[],
        json!([
            ["api_call", {"url": url, "injections": {"basic": "LOGIN"}}],
            ["api_call", {"url": url, "injections": {"header:X-Api-Key": "API_KEY", "query:apiKey": "API_KEY"}}],
            ["api_call", {"url": url, "method": "POST", "body": {"a": {"b": 1}}, "injections": {"body:a.key": "API_KEY"}}],
            ["api_call", {"url": url, "method": "put", "body": "a=b", "injections": {"form:apiKey": "API_KEY"}}],
            ["api_call", {"url": url, "headers": {"Authorization": "token AS_SECRET_API_KEY", "X-Note": "kept"}}],
        ]),
    );
    let results = transcript["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result_text(result, false).starts_with("HTTP 200\n\n")));
    assert_clean(&transcript.to_string(), SECRET);
    let received = fixture.api.received();
    assert_eq!(received[0].header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
    assert_eq!(received[1].header("x-api-key"), SECRET);
    assert_eq!(received[1].path, format!("/echo?apiKey={SECRET}"));
    let sent: Value = serde_json::from_str(&received[2].body).unwrap();
    assert_eq!(sent, json!({"a": {"b": 1, "key": SECRET}}));
    assert_eq!((&*received[3].method, &*received[3].body), ("PUT", &*format!("a=b&apiKey={SECRET}")));
    assert_eq!(received[4].header("authorization"), format!("token {SECRET}"));
    assert_eq!(received[4].header("x-note"), "kept");
}

#[test]
fn tool_errors_say_what_to_do() {
    let fixture = fixture();
    fixture.rule("secrets: [API_KEY, ABSENT]\nmethods: [GET]");
    fixture.home.set_secret("OTHER", "another-long-value");
    let nobody = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fixture.rules(&[
            ("api.test", fixture.api.port(), "secrets: [API_KEY, ABSENT]\nmethods: [GET]"),
            ("api.test", free, "secrets: [API_KEY]"),
        ]);
        format!("https://api.test:{free}/")
    };
    let url = fixture.url("/echo");
    let elsewhere = "https://elsewhere.test/";
    let bearer = |name: &str| json!({"bearer": name});
    let cases = [
        (
            json!({"url": url, "injections": bearer("ABSENT")}),
            "HTTP 502",
            "secret 'ABSENT' not found in keychain",
        ),
        (json!({"url": elsewhere, "injections": bearer("API_KEY")}), "HTTP 403", "domain_not_in_allowlist"),
        (json!({"url": url, "injections": bearer("OTHER")}), "HTTP 403", "policy_denied"),
        (json!({"url": url, "method": "DELETE"}), "HTTP 403", "policy_denied"),
        (json!({"url": nobody, "injections": bearer("API_KEY")}), "HTTP 502", "may succeed later"),
        (
            json!({"url": "http://api.test/", "injections": bearer("API_KEY")}),
            "HTTP 403",
            "non_https_blocked",
        ),
        (json!({"url": "nonsense"}), "bad_request", "url: "),
        (json!({"url": url, "injections": bearer("sk-by-mistake")}), "bad_request", "never a value"),
        (json!({"url": url, "injections": {"bearer": "API_KEY", "basic": "API_KEY"}}), "", "Authorization"),
        (json!({"url": url, "bearer": "API_KEY"}), "bad_request", "unknown field `bearer`"),
        (json!({"url": url, "headers": {"X-AS-Agent-Token": "x"}}), "bad_request", "is reserved"),
    ];
    let calls: Vec<Value> = cases.iter().map(|(arguments, ..)| json!(["api_call", arguments])).collect();
    let mut transcript = run_session(&fixture, &[], json!(calls));
    let results = transcript["results"].as_array_mut().unwrap();
    for ((arguments, start, part), result) in cases.iter().zip(results.iter()) {
        let text = result_text(result, true);
        assert!(
            text.starts_with(start) && text.to_lowercase().contains(&part.to_lowercase()),
            "{arguments}: {text}"
        );
    }
    let denied = result_text(&results[2], true);
    let (_, body) = denied.split_once("\n\n").unwrap();
    let body: Value = serde_json::from_str(body.lines().next().unwrap()).unwrap();
    assert_eq!((&body["error"], &body["retryable"]), (&json!("policy_denied"), &json!(false)));
    assert!(denied.contains("do not repeat it"), "{denied}");
    assert!(!results[7].to_string().contains("by-mistake"));
    assert!(fixture.api.received().is_empty(), "nothing was sent");
    assert_clean(&transcript.to_string(), "another-long-value");
    let unknown = run_session(&fixture, &[], json!([["delete_everything", {}], ["list_secrets", {}]]));
    assert_eq!(unknown["results"][0]["code"], -32602, "{unknown}");
    assert_eq!(result_text(&unknown["results"][1], false), "ABSENT\nAPI_KEY");
}

#[test]
fn echoing_server_leaks_no_value_into_transcript() {
    let fixture = fixture();
    fixture.rule("secrets: [API_KEY]\nplaces: [auth, header, query, json, form]");
    let folder = fixture.home.path();
    let (output, heard) = (folder.join("said"), folder.join("heard"));
    let paths = ["/echo", "/echo-raw", "/echo-gzip", "/trailers", "/redirect?to=https://api.test/"];
    let mut calls: Vec<Value> = paths.iter().map(|path| api_call_arguments(&fixture, path)).collect();
    calls.push(json!(["api_call", {"url": fixture.url("/echo"), "method": "POST", "injections": {"body:k": "API_KEY"}}]));
    calls.push(
        json!(["api_call", {"url": fixture.url("/status?code=500"), "injections": {"query:k": "API_KEY"}}]),
    );
    calls.push(json!(["api_call", {"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}}]));
    calls.push(json!(["list_secrets", {}]));
    let script = format!("tee {} | {AGENTSECRETS} mcp serve | tee {}", output.display(), heard.display());
    let transcript = run_session_with(&fixture, "/bin/sh", &["-c", &script], "auto", json!(calls));
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (output, heard, errors) = (read(output), read(heard), read(stderr_file(&fixture)));
    assert!(output.contains("api_call") && heard.matches("HTTP ").count() >= calls.len() - 1, "{heard}");
    assert!(heard.contains("[REDACTED_BY_AGENTSECRETS]"));
    for text in [output, heard, errors, transcript.to_string()] {
        assert_clean(&text, SECRET);
    }
    assert!(!variables(&fixture).to_string().contains(SECRET));
}

#[test]
fn server_acts_as_agent_of_its_parent() {
    let fixture = fixture();
    let rule =
        format!("{{ host: api.test, ports: [{}], private: true, secrets: [API_KEY] }}", fixture.api.port());
    let python = std::fs::canonicalize(PYTHON).unwrap().display().to_string();
    fixture.home.write_policy(&format!(
        "version: 1\nagents:\n  - name: editor\n    match: {{ exe: /usr/bin/some-editor }}\n    allow: [{rule}]\n  \
         - name: scripts\n    match: {{ exe: {python} }}\n    allow: [{rule}]\n"
    ));
    let call = json!([api_call_arguments(&fixture, "/echo")]);
    assert!(
        result_text(&run_session(&fixture, &[], call.clone())["results"][0], false).starts_with("HTTP 200")
    );
    assert!(
        result_text(&run_session(&fixture, &["--agent", "scripts"], call.clone())["results"][0], false)
            .starts_with("HTTP 200")
    );
    for other in ["editor", "nobody"] {
        let refused = run_session(&fixture, &["--agent", other], call.clone());
        assert!(result_text(&refused["results"][0], true).contains("capability_denied"), "{refused}");
    }
    let records = fixture.home.audit();
    assert_eq!((&records[0]["agent_id"], &records[0]["status"]), (&json!("scripts"), &json!("OK")));
    assert_eq!(
        (&records[0]["process"]["exe"], &records[0]["identity_level"]),
        (&json!(python), &json!("kernel"))
    );
    assert_eq!(records[0]["secret_keys"], json!(["API_KEY"]));
    assert_eq!((records.len(), &records[2]["status"]), (4, &json!("BLOCKED")));
    assert_eq!(fixture.api.received().len(), 2);
}

#[test]
fn server_inside_run_acts_as_agent() {
    let fixture = fixture();
    let copy = AgentExecutable::new();
    let other = format!("https://elsewhere.test:{}/", fixture.api.port());
    let plan = json!({
        "command": copy.0, "args": ["mcp", "serve"], "env": {}, "errors": "/dev/null", "mode": "auto",
        "calls": [
            ["list_secrets", {}],
            api_call_arguments(&fixture, "/echo-raw"),
            ["api_call", {"url": other, "injections": {"bearer": "API_KEY"}}],
        ],
    });
    let mut agent = fixture.home.run_agent([PYTHON, "-c", &program("mcp/session.py"), &plan.to_string()]);
    let transcript = run(agent.env("PYTHONPATH", super::PACKAGES)).json();
    assert_eq!(result_text(&transcript["results"][0], false), "API_KEY");
    assert!(
        result_text(&transcript["results"][1], false)
            .starts_with("HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]")
    );
    let refused = result_text(&transcript["results"][2], true);
    assert!(refused.starts_with("HTTP 403") && refused.contains("do not repeat it"), "{refused}");
    assert_clean(&transcript.to_string(), SECRET);
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    assert_ne!(fixture.home.audit()[1]["session_id"], json!(""), "it is recorded as the run's");
}

/// Waits until the log has a record of `path` with this status.
#[track_caller]
fn wait_for_record(fixture: &Fixture, path: &str, status: &str) {
    let is_it =
        |record: &Value| record["target_url"].as_str().unwrap().ends_with(path) && record["status"] == status;
    wait_until(&format!("{path} is recorded as {status}"), || fixture.home.audit().iter().any(is_it));
}

#[test]
fn client_exit_cancels_call() {
    let fixture = fixture();
    let mut raw = RawClient::initialized(&fixture);
    let arguments = json!({"url": fixture.url("/never"), "injections": {"bearer": "API_KEY"}});
    raw.send_tool_call(1, "api_call", arguments);
    fixture.api.wait_for(|got| got.path == "/never");
    // The request ends when no client is left to read the response.
    raw.close_output();
    assert_eq!(raw.wait_for_exit(), Some(0));
    wait_for_record(&fixture, "/never", "ABORTED");
}

#[test]
fn cancelled_call_keeps_session() {
    let fixture = fixture();
    let mut raw = RawClient::initialized(&fixture);
    raw.send_tool_call(
        1,
        "api_call",
        json!({"url": fixture.url("/never"), "injections": {"bearer": "API_KEY"}}),
    );
    fixture.api.wait_for(|got| got.path == "/never");
    let cancelled = json!({"requestId": 1, "reason": "enough"});
    raw.send_line(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}).to_string(),
    );
    wait_for_record(&fixture, "/never", "ABORTED");
    raw.send_tool_call(2, "list_secrets", json!({}));
    assert_eq!(raw.recv()["id"], 2);
    raw.close_input();
    assert_eq!(raw.wait_for_exit(), Some(0));
}

#[test]
fn sigterm_cancels_calls() {
    let fixture = fixture();
    let mut raw = RawClient::initialized(&fixture);
    raw.send_tool_call(
        1,
        "api_call",
        json!({"url": fixture.url("/never"), "injections": {"bearer": "API_KEY"}}),
    );
    fixture.api.wait_for(|got| got.path == "/never");
    kill(Pid::from_raw(raw.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(raw.wait_for_exit(), Some(0));
    wait_for_record(&fixture, "/never", "ABORTED");
}

#[test]
fn closed_input_is_answered_first() {
    let fixture = fixture();
    let mut raw = RawClient::initialized(&fixture);
    raw.send_tool_call(
        1,
        "api_call",
        json!({"url": fixture.url("/echo-raw"), "injections": {"bearer": "API_KEY"}}),
    );
    raw.close_input();
    assert!(raw.recv()["result"]["content"][0]["text"].as_str().unwrap().starts_with("HTTP 200"));
    assert_eq!(raw.wait_for_exit(), Some(0));
    let mut silent = RawClient::start(&fixture);
    silent.close_input();
    assert_eq!(silent.wait_for_exit(), Some(0), "who never says a word");
}

#[test]
fn malformed_and_oversized_messages_keep_session() {
    let fixture = fixture();
    let mut raw = RawClient::initialized(&fixture);
    for line in ["", "{", "\u{0}", "nonsense", r#"{"jsonrpc":"2.0","id":"#] {
        raw.send_line(line);
    }
    raw.send_line("[1,2,3]");
    assert_eq!(raw.recv()["error"]["code"], -32600);
    let transcript = raw.request(5, "tools/call", json!({"name": 5}));
    assert!(transcript["error"]["code"].is_i64(), "{transcript}");
    let transcript = raw.request(6, "no/such/method", json!({}));
    assert_eq!((&transcript["id"], &transcript["error"]["code"]), (&json!(6), &json!(-32601)));
    raw.send_tool_call(
        7,
        "api_call",
        json!({"url": fixture.url("/echo"), "method": "POST", "body": "x".repeat(9 << 20)}),
    );
    let transcript = raw.recv();
    assert_eq!((&transcript["id"], &transcript["result"]["isError"]), (&json!(7), &json!(true)));
    assert!(transcript["result"]["content"][0]["text"].as_str().unwrap().contains("larger than 8 MiB"));
    // Longer than the message limit: dropped without a response.
    raw.send_tool_call(
        8,
        "api_call",
        json!({"url": fixture.url("/echo"), "method": "POST", "body": "x".repeat(33 << 20)}),
    );
    raw.send_tool_call(9, "list_secrets", json!({}));
    assert_eq!(raw.recv()["id"], 9);
    assert!(fixture.api.received().is_empty());
}

#[test]
fn large_response_is_truncated() {
    let fixture = fixture();
    let transcript = run_session(&fixture, &[], json!([api_call_arguments(&fixture, "/stream?n=3000000")]));
    let text = result_text(&transcript["results"][0], false);
    assert!(text.contains("cut off after 1048576 bytes"), "{}", &text[text.len() - 300..]);
    assert!(text.len() < 1_050_000);
}

#[test]
fn policy_change_applies_to_next_call() {
    let fixture = fixture();
    fixture.rule("secrets: []");
    let mut raw = RawClient::initialized(&fixture);
    let arguments = json!({"url": fixture.url("/echo-raw"), "injections": {"bearer": "API_KEY"}});
    raw.send_tool_call(1, "api_call", arguments.clone());
    assert_eq!(raw.recv()["result"]["isError"], true);
    fixture.rule("secrets: [API_KEY]");
    let mut id = 1;
    wait_until("the new policy is in force", || {
        id += 1;
        raw.send_tool_call(id, "api_call", arguments.clone());
        raw.recv()["result"]["isError"] == false
    });
}

#[test]
fn locked_vault_is_an_error_without_prompt() {
    let fixture = fixture();
    let mut command = fixture.home.agentsecrets(["mcp", "serve"]);
    let outcome = run(command.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(5), ""), "{outcome:#?}");
    assert!(outcome.stderr.contains("AGENTSECRETS_VAULT_KEY_FILE"), "{outcome:#?}");
}
