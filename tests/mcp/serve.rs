//! `agentsecrets mcp serve` and a model's client.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::raw::Raw;
use super::transcript::is_clean;
use super::{errors, get, session, session_with, variables, world};
use crate::person::AgentsCopy;
use crate::spine::{SECRET, World};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{finish, until};
use crate::support::python::{PYTHON, program};

/// The text of a result, which must or must not be an error.
#[track_caller]
fn text(result: &Value, is_error: bool) -> String {
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
fn a_real_client_initialises_lists_and_calls_by_both_of_its_protocols() {
    let world = world();
    for (mode, version) in [("legacy", "2025-11-25"), ("auto", "2026-07-28")] {
        let calls = json!([["list_secrets", {}], get(&world, "/echo-raw")]);
        let told = session_with(&world, AGENTSECRETS, &["mcp", "serve"], mode, calls);
        assert_eq!((&told["server"], &told["version"]), (&json!("AgentSecrets"), &json!(version)));
        assert!(told["instructions"].as_str().unwrap().contains("AS_SECRET_<NAME>"));
        let tools = told["tools"].as_array().unwrap();
        assert_eq!((&tools[0]["name"], &tools[1]["name"]), (&json!("list_secrets"), &json!("api_call")));
        assert_eq!(tools[1]["inputSchema"]["required"], json!(["url"]));
        assert_eq!(tools[0]["annotations"]["readOnlyHint"], true);
        assert_eq!(text(&told["results"][0], false), "API_KEY");
        let answer = text(&told["results"][1], false);
        assert!(answer.starts_with("HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]\n"), "{answer}");
    }
    let received = world.api.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|got| got.header("authorization") == format!("Bearer {SECRET}")));
}

#[test]
fn every_style_puts_its_secret_where_it_belongs() {
    let world = world();
    world.home.secret("LOGIN", "user:a-long-password");
    world.rule("secrets: [API_KEY, LOGIN]\nplaces: [auth, header, query, json, form]");
    let url = world.url("/echo");
    let told = session(
        &world,
        &[],
        json!([
            ["api_call", {"url": url, "injections": {"basic": "LOGIN"}}],
            ["api_call", {"url": url, "injections": {"header:X-Api-Key": "API_KEY", "query:apiKey": "API_KEY"}}],
            ["api_call", {"url": url, "method": "POST", "body": {"a": {"b": 1}}, "injections": {"body:a.key": "API_KEY"}}],
            ["api_call", {"url": url, "method": "put", "body": "a=b", "injections": {"form:apiKey": "API_KEY"}}],
            ["api_call", {"url": url, "headers": {"Authorization": "token AS_SECRET_API_KEY", "X-Note": "kept"}}],
        ]),
    );
    let results = told["results"].as_array().unwrap();
    assert!(results.iter().all(|result| text(result, false).starts_with("HTTP 200\n\n")));
    is_clean(&told.to_string(), SECRET);
    let received = world.api.received();
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
fn refusals_and_failures_are_errors_that_say_what_to_do() {
    let world = world();
    world.rule("secrets: [API_KEY, ABSENT]\nmethods: [GET]");
    world.home.secret("OTHER", "another-long-value");
    let nobody = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        world.rules(&[
            ("api.test", world.api.port(), "secrets: [API_KEY, ABSENT]\nmethods: [GET]"),
            ("api.test", free, "secrets: [API_KEY]"),
        ]);
        format!("https://api.test:{free}/")
    };
    let url = world.url("/echo");
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
        (json!({"url": url, "headers": {"X-AS-Agent-Token": "x"}}), "bad_request", "is one of ours"),
    ];
    let calls: Vec<Value> = cases.iter().map(|(arguments, ..)| json!(["api_call", arguments])).collect();
    let mut told = session(&world, &[], json!(calls));
    let results = told["results"].as_array_mut().unwrap();
    for ((arguments, start, part), result) in cases.iter().zip(results.iter()) {
        let text = text(result, true);
        assert!(
            text.starts_with(start) && text.to_lowercase().contains(&part.to_lowercase()),
            "{arguments}: {text}"
        );
    }
    let denied = text(&results[2], true);
    let (_, body) = denied.split_once("\n\n").unwrap();
    let body: Value = serde_json::from_str(body.lines().next().unwrap()).unwrap();
    assert_eq!((&body["error"], &body["retryable"]), (&json!("policy_denied"), &json!(false)));
    assert!(denied.contains("do not repeat it"), "{denied}");
    assert!(!results[7].to_string().contains("by-mistake"));
    assert!(world.api.received().is_empty(), "nothing was sent");
    is_clean(&told.to_string(), "another-long-value");
    let unknown = session(&world, &[], json!([["delete_everything", {}], ["list_secrets", {}]]));
    assert_eq!(unknown["results"][0]["code"], -32602, "{unknown}");
    assert_eq!(text(&unknown["results"][1], false), "ABSENT\nAPI_KEY");
}

#[test]
fn no_value_is_anywhere_in_the_transcript_of_a_server_that_repeats_everything() {
    let world = world();
    world.rule("secrets: [API_KEY]\nplaces: [auth, header, query, json, form]");
    let folder = world.home.path();
    let (said, heard) = (folder.join("said"), folder.join("heard"));
    let paths = ["/echo", "/echo-raw", "/echo-gzip", "/trailers", "/redirect?to=https://api.test/"];
    let mut calls: Vec<Value> = paths.iter().map(|path| get(&world, path)).collect();
    calls.push(json!(["api_call", {"url": world.url("/echo"), "method": "POST", "injections": {"body:k": "API_KEY"}}]));
    calls.push(
        json!(["api_call", {"url": world.url("/status?code=500"), "injections": {"query:k": "API_KEY"}}]),
    );
    calls.push(json!(["api_call", {"url": "https://elsewhere.test/", "injections": {"bearer": "API_KEY"}}]));
    calls.push(json!(["list_secrets", {}]));
    let script = format!("tee {} | {AGENTSECRETS} mcp serve | tee {}", said.display(), heard.display());
    let told = session_with(&world, "/bin/sh", &["-c", &script], "auto", json!(calls));
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (said, heard, errors) = (read(said), read(heard), read(errors(&world)));
    assert!(said.contains("api_call") && heard.matches("HTTP ").count() >= calls.len() - 1, "{heard}");
    assert!(heard.contains("[REDACTED_BY_AGENTSECRETS]"));
    for text in [said, heard, errors, told.to_string()] {
        is_clean(&text, SECRET);
    }
    assert!(!variables(&world).to_string().contains(SECRET));
}

#[test]
fn it_is_judged_as_the_agent_that_the_program_which_started_it_is() {
    let world = world();
    let rule =
        format!("{{ host: api.test, ports: [{}], private: true, secrets: [API_KEY] }}", world.api.port());
    let python = std::fs::canonicalize(PYTHON).unwrap().display().to_string();
    world.home.policy(&format!(
        "version: 1\nagents:\n  - name: editor\n    match: {{ exe: /usr/bin/some-editor }}\n    allow: [{rule}]\n  \
         - name: scripts\n    match: {{ exe: {python} }}\n    allow: [{rule}]\n"
    ));
    let call = json!([get(&world, "/echo")]);
    assert!(text(&session(&world, &[], call.clone())["results"][0], false).starts_with("HTTP 200"));
    assert!(
        text(&session(&world, &["--agent", "scripts"], call.clone())["results"][0], false)
            .starts_with("HTTP 200")
    );
    for other in ["editor", "nobody"] {
        let refused = session(&world, &["--agent", other], call.clone());
        assert!(text(&refused["results"][0], true).contains("capability_denied"), "{refused}");
    }
    let records = world.home.audit();
    assert_eq!((&records[0]["agent_id"], &records[0]["status"]), (&json!("scripts"), &json!("OK")));
    assert_eq!(
        (&records[0]["process"]["exe"], &records[0]["identity_level"]),
        (&json!(python), &json!("kernel"))
    );
    assert_eq!(records[0]["secret_keys"], json!(["API_KEY"]));
    assert_eq!((records.len(), &records[2]["status"]), (4, &json!("BLOCKED")));
    assert_eq!(world.api.received().len(), 2);
}

#[test]
fn inside_run_its_requests_are_the_agents_own() {
    let world = world();
    let copy = AgentsCopy::new();
    let other = format!("https://elsewhere.test:{}/", world.api.port());
    let plan = json!({
        "command": copy.0, "args": ["mcp", "serve"], "env": {}, "errors": "/dev/null", "mode": "auto",
        "calls": [
            ["list_secrets", {}],
            get(&world, "/echo-raw"),
            ["api_call", {"url": other, "injections": {"bearer": "API_KEY"}}],
        ],
    });
    let mut agent = world.home.run_agent([PYTHON, "-c", &program("mcp/session.py"), &plan.to_string()]);
    let told = finish(agent.env("PYTHONPATH", super::PACKAGES)).json();
    assert_eq!(text(&told["results"][0], false), "API_KEY");
    assert!(text(&told["results"][1], false).starts_with("HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]"));
    let refused = text(&told["results"][2], true);
    assert!(refused.starts_with("HTTP 403") && refused.contains("do not repeat it"), "{refused}");
    is_clean(&told.to_string(), SECRET);
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
    assert_ne!(world.home.audit()[1]["session_id"], json!(""), "it is recorded as the run's");
}

/// Waits until the log has a record of `path` that ended as `status` says.
#[track_caller]
fn recorded(world: &World, path: &str, status: &str) {
    let is_it =
        |record: &Value| record["target_url"].as_str().unwrap().ends_with(path) && record["status"] == status;
    until(&format!("{path} is recorded as {status}"), || world.home.audit().iter().any(is_it));
}

#[test]
fn a_client_that_goes_away_in_mid_call_breaks_its_request_off() {
    let world = world();
    let mut raw = Raw::greeted(&world);
    let arguments = json!({"url": world.url("/never"), "injections": {"bearer": "API_KEY"}});
    raw.call(1, "api_call", arguments);
    world.api.wait_for(|got| got.path == "/never");
    // It is gone when nobody is left to read the answer.
    raw.close_output();
    assert_eq!(raw.ended(), Some(0));
    recorded(&world, "/never", "ABORTED");
}

#[test]
fn a_cancelled_call_is_broken_off_and_the_session_goes_on() {
    let world = world();
    let mut raw = Raw::greeted(&world);
    raw.call(1, "api_call", json!({"url": world.url("/never"), "injections": {"bearer": "API_KEY"}}));
    world.api.wait_for(|got| got.path == "/never");
    let cancelled = json!({"requestId": 1, "reason": "enough"});
    raw.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}).to_string());
    recorded(&world, "/never", "ABORTED");
    raw.call(2, "list_secrets", json!({}));
    assert_eq!(raw.hear()["id"], 2);
    raw.close_input();
    assert_eq!(raw.ended(), Some(0));
}

#[test]
fn told_to_end_it_ends_and_what_was_under_way_is_broken_off() {
    let world = world();
    let mut raw = Raw::greeted(&world);
    raw.call(1, "api_call", json!({"url": world.url("/never"), "injections": {"bearer": "API_KEY"}}));
    world.api.wait_for(|got| got.path == "/never");
    kill(Pid::from_raw(raw.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(raw.ended(), Some(0));
    recorded(&world, "/never", "ABORTED");
}

#[test]
fn input_that_closes_is_answered_first() {
    let world = world();
    let mut raw = Raw::greeted(&world);
    raw.call(1, "api_call", json!({"url": world.url("/echo-raw"), "injections": {"bearer": "API_KEY"}}));
    raw.close_input();
    assert!(raw.hear()["result"]["content"][0]["text"].as_str().unwrap().starts_with("HTTP 200"));
    assert_eq!(raw.ended(), Some(0));
    let mut silent = Raw::started(&world);
    silent.close_input();
    assert_eq!(silent.ended(), Some(0), "who never says a word");
}

#[test]
fn nonsense_and_what_is_too_large_leave_the_session_usable() {
    let world = world();
    let mut raw = Raw::greeted(&world);
    for line in ["", "{", "\u{0}", "nonsense", r#"{"jsonrpc":"2.0","id":"#] {
        raw.say(line);
    }
    raw.say("[1,2,3]");
    assert_eq!(raw.hear()["error"]["code"], -32600);
    let told = raw.ask(5, "tools/call", json!({"name": 5}));
    assert!(told["error"]["code"].is_i64(), "{told}");
    let told = raw.ask(6, "no/such/method", json!({}));
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(6), &json!(-32601)));
    raw.call(
        7,
        "api_call",
        json!({"url": world.url("/echo"), "method": "POST", "body": "x".repeat(9 << 20)}),
    );
    let told = raw.hear();
    assert_eq!((&told["id"], &told["result"]["isError"]), (&json!(7), &json!(true)));
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().contains("larger than 8 MiB"));
    // Longer than any message may be: dropped without an answer.
    raw.call(
        8,
        "api_call",
        json!({"url": world.url("/echo"), "method": "POST", "body": "x".repeat(33 << 20)}),
    );
    raw.call(9, "list_secrets", json!({}));
    assert_eq!(raw.hear()["id"], 9);
    assert!(world.api.received().is_empty());
}

#[test]
fn of_a_large_answer_a_model_gets_the_beginning() {
    let world = world();
    let told = session(&world, &[], json!([get(&world, "/stream?n=3000000")]));
    let text = text(&told["results"][0], false);
    assert!(text.contains("broken off after 1048576 bytes"), "{}", &text[text.len() - 300..]);
    assert!(text.len() < 1_050_000);
}

#[test]
fn a_policy_that_changes_is_in_force_for_the_next_call() {
    let world = world();
    world.rule("secrets: []");
    let mut raw = Raw::greeted(&world);
    let arguments = json!({"url": world.url("/echo-raw"), "injections": {"bearer": "API_KEY"}});
    raw.call(1, "api_call", arguments.clone());
    assert_eq!(raw.hear()["result"]["isError"], true);
    world.rule("secrets: [API_KEY]");
    let mut id = 1;
    until("the new policy is in force", || {
        id += 1;
        raw.call(id, "api_call", arguments.clone());
        raw.hear()["result"]["isError"] == false
    });
}

#[test]
fn a_vault_that_needs_a_passphrase_is_an_error_that_names_the_way_and_no_prompt() {
    let world = world();
    let mut command = world.home.agentsecrets(["mcp", "serve"]);
    let outcome = finish(command.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(5), ""), "{outcome:#?}");
    assert!(outcome.stderr.contains("AGENTSECRETS_VAULT_KEY_FILE"), "{outcome:#?}");
}
