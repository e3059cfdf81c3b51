//! `agentsecrets call`: one request of the operator through the normal pipeline.

use serde_json::{Value, json};

use super::AgentExecutable;
use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{Outcome, run};

#[track_caller]
fn call(fixture: &Fixture, arguments: &[&str], path: &str) -> Outcome {
    run(fixture.home.agentsecrets(["call", "--url", &fixture.url(path)]).args(arguments))
}

/// The exit code and the JSON of `--output json`.
#[track_caller]
fn envelope(fixture: &Fixture, arguments: &[&str], url: &str) -> (i32, Value) {
    let mut command = fixture.home.agentsecrets(["call", "--output", "json", "--url", url]);
    let outcome = run(command.args(arguments));
    let value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome:#?}"));
    (outcome.code.unwrap(), value)
}

#[test]
fn text_output_is_status_and_redacted_body() {
    let fixture = Fixture::new();
    let outcome = call(&fixture, &["--bearer", "API_KEY"], "/echo-raw");
    assert_eq!(outcome.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    let received = fixture.api.only_request();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert!(received.header("user-agent").starts_with("agentsecrets/"));
}

#[test]
fn json_output_has_status_headers_and_redacted() {
    let fixture = Fixture::new();
    let (code, answer) = envelope(&fixture, &["--bearer", "API_KEY"], &fixture.url("/echo-raw"));
    assert_eq!((code, &answer["status"], &answer["redacted"]), (0, &json!(200), &json!(true)));
    assert_eq!(answer["body"], "Bearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(answer["headers"]["content-type"], json!(["text/plain"]));
    assert!(answer["duration_ms"].is_u64() && answer.get("error").is_none(), "{answer}");
    let (code, answer) = envelope(&fixture, &[], &fixture.url("/status?code=404"));
    assert_eq!((code, &answer["status"], answer.get("error")), (0, &json!(404), None));
}

#[test]
fn every_style_injects_at_its_location() {
    let fixture = Fixture::new();
    fixture.home.set_secret("LOGIN", "user:a-long-password");
    call(&fixture, &["--basic", "LOGIN"], "/echo").ok();
    call(&fixture, &["--header", "X-Api-Key=API_KEY", "--query", "apiKey=API_KEY"], "/echo?a=b").ok();
    let body = r#"{"grant_type":"client_credentials","auth":{"id":1}}"#;
    let json_body = ["--method", "post", "--body", body, "--body-field", "auth.client-Secret=API_KEY"];
    call(&fixture, &json_body, "/echo").ok();
    call(&fixture, &["--method", "POST", "--body-field", "key=API_KEY"], "/echo").ok();
    call(&fixture, &["--method", "POST", "--body", "a=b", "--form-field", "apiKey=API_KEY"], "/echo").ok();
    let received = fixture.api.received();
    assert_eq!(received[0].header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
    assert_eq!(
        (received[1].header("x-api-key"), &*received[1].path),
        (SECRET, &*format!("/echo?a=b&apiKey={SECRET}"))
    );
    let sent: Value = serde_json::from_str(&received[2].body).unwrap();
    assert_eq!(sent, json!({"grant_type": "client_credentials", "auth": {"id": 1, "client-Secret": SECRET}}));
    assert_eq!(
        (received[2].method.as_str(), received[2].header("content-type")),
        ("POST", "application/json")
    );
    assert_eq!(received[3].body, format!(r#"{{"key":"{SECRET}"}}"#));
    assert_eq!(received[4].body, format!("a=b&apiKey={SECRET}"));
    assert_eq!(received[4].header("content-type"), "application/x-www-form-urlencoded");
}

#[test]
fn operator_may_use_any_secret_for_allowed_host() {
    let fixture = Fixture::new();
    fixture.rule("methods: [GET]\npaths: [\"/v1/**\"]\nsecrets: []\napprove: true\nrate: 1/h");
    fixture.home.set_secret("OTHER", "another-long-value");
    for _ in 0..2 {
        call(&fixture, &["--method", "POST", "--bearer", "OTHER"], "/elsewhere").ok();
    }
    assert_eq!(fixture.api.received()[0].header("authorization"), "Bearer another-long-value");
}

#[test]
fn unlisted_host_is_refused_by_name() {
    let fixture = Fixture::new();
    let url = format!("https://elsewhere.test:{}/", fixture.api.port());
    let (code, answer) = envelope(&fixture, &["--bearer", "API_KEY"], &url);
    assert_eq!((code, &answer["status"]), (4, &json!(403)));
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&body["error"], &body["domain"]),
        (&json!("domain_not_in_allowlist"), &json!("elsewhere.test"))
    );
    assert!(
        answer["error"].as_str().unwrap().starts_with("domain_not_in_allowlist: 'elsewhere.test'"),
        "{answer}"
    );
    let text = run(&mut fixture.home.agentsecrets(["call", "--url", &url, "--bearer", "API_KEY"]));
    assert_eq!(text.code, Some(4));
    assert!(text.stderr.contains("domain_not_in_allowlist: 'elsewhere.test'"), "{text:#?}");
    fixture.home.write_policy("version: 1\nagents: []\n");
    let (code, answer) = envelope(&fixture, &["--bearer", "API_KEY"], &fixture.url("/"));
    assert!(code == 4 && answer["body"].as_str().unwrap().contains("empty_allowlist"), "{answer}");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn missing_secret_is_reported_before_policy() {
    let fixture = Fixture::new();
    let (code, answer) = envelope(&fixture, &["--bearer", "NOT_THERE"], "https://elsewhere.test/");
    assert_eq!((code, &answer["status"]), (3, &json!(502)));
    assert_eq!(answer["error"], "secret 'NOT_THERE' not found in keychain");
    assert_eq!(answer["body"], r#"{"error":"secret 'NOT_THERE' not found in keychain"}"#);
}

#[test]
fn rejections_have_exit_code_and_envelope() {
    let fixture = Fixture::new();
    let nobody = format!("https://api.test:{}/", {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    });
    let plain = format!("http://api.test:{}/", fixture.api.port());
    fixture
        .home
        .write_policy("version: 1\nagents:\n  - name: a\n    allow: [ { host: api.test, private: true } ]\n");
    for (arguments, url, code, message) in [
        (&["--bearer", "API_KEY"][..], &*plain, 4, "non_https_blocked"),
        (&["--bearer", "API_KEY", "--token", "ast_1234"], &*fixture.url("/"), 4, "capability_denied"),
        (&[], &nobody, 1, "upstream"),
        (&[], "https://api.test:99999/", 2, "--url"),
        (&[], "ftp://api.test/", 2, "--url"),
        (&[], "https://bob:pw@api.test/", 2, "`basic`"),
        (
            &["--bearer", "API_KEY", "--header", "Authorization=API_KEY"],
            &fixture.url("/"),
            2,
            "authorization",
        ),
        (&["--header", "Host=API_KEY"], &fixture.url("/"), 2, "cannot carry a secret"),
        (&["--bearer", "not-a-name"], &fixture.url("/"), 2, "the name of a stored secret"),
    ] {
        let (got, answer) = envelope(&fixture, arguments, url);
        assert_eq!(got, code, "{arguments:?} {url}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(message), "{arguments:?} {url}: {answer}");
    }
    let mut locked = fixture.home.agentsecrets(["call", "--output", "json", "--url", &fixture.url("/")]);
    let locked = run(locked.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!(locked.code, Some(5));
    let answer: Value = serde_json::from_str(&locked.stdout).unwrap();
    assert!(answer["status"] == 0 && answer["error"].as_str().unwrap().contains("vault"), "{answer}");
    assert!(fixture.api.received().is_empty());
}

#[test]
fn redirects_are_not_followed_and_quoted_placeholders_stay() {
    let fixture = Fixture::new();
    let (code, answer) = envelope(&fixture, &["--bearer", "API_KEY"], &fixture.url("/redirect?to=/echo"));
    assert_eq!(
        (code, &answer["status"], &answer["headers"]["location"]),
        (0, &json!(302), &json!(["/echo"]))
    );
    let body = r#"{"text":"use AS_SECRET_API_KEY or {{API_KEY}}"}"#;
    call(&fixture, &["--method", "POST", "--bearer", "API_KEY", "--body", body], "/echo?q=AS_SECRET_API_KEY")
        .ok();
    let received = &fixture.api.received()[1];
    assert_eq!((received.body.as_str(), received.path.as_str()), (body, "/echo?q=AS_SECRET_API_KEY"));
}

#[test]
fn other_stored_secrets_are_redacted() {
    let fixture = Fixture::new();
    let answer = call(&fixture, &[], &format!("/echo-raw?value={SECRET}")).ok();
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
}

#[test]
fn call_leaves_one_record_without_values() {
    let fixture = Fixture::new();
    call(&fixture, &["--bearer", "API_KEY"], &format!("/echo?x={SECRET}")).ok();
    envelope(&fixture, &["--bearer", "API_KEY"], "https://elsewhere.test/");
    envelope(&fixture, &["--bearer", "NOT_THERE"], &fixture.url("/"));
    let records = fixture.home.audit();
    let of = |n: usize, key: &str| records[n][key].clone();
    assert_eq!(
        (of(0, "status"), of(0, "secret_keys"), of(0, "auth_styles")),
        ("OK".into(), json!(["API_KEY"]), json!(["bearer"]))
    );
    assert_eq!((of(1, "status"), of(1, "reason")), ("BLOCKED".into(), "domain_not_in_allowlist".into()));
    assert_eq!(of(2, "status"), "ERROR");
    let tests = std::env::current_exe().unwrap();
    for record in &records {
        assert_eq!(record["process"]["exe"], tests.to_str().unwrap());
    }
    assert!(records.len() == 3 && !serde_json::to_string(&records).unwrap().contains(SECRET));
}

#[test]
fn call_inside_run_acts_as_agent() {
    let fixture = Fixture::new();
    let copy = AgentExecutable::new();
    fixture.rule("secrets: [API_KEY]\nplaces: [auth, query]\nmethods: [GET]");
    let inside = |arguments: &[&str], path: &str| {
        let url = fixture.url(path);
        run(fixture.home.run_agent([copy.0.as_str(), "call", "--url", &url]).args(arguments))
    };
    let outcome = inside(&["--bearer", "API_KEY", "--query", "apiKey=API_KEY"], "/echo-raw");
    assert_eq!(outcome.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    let received = fixture.api.only_request();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(received.path, format!("/echo-raw?apiKey={SECRET}"));
    assert!(received.headers.keys().all(|name| !name.starts_with("x-as-")), "{received:#?}");
    for arguments in [&["--bearer", "OTHER"][..], &["--method", "POST"], &["--header", "X-Note=API_KEY"]] {
        let refused = inside(arguments, "/echo");
        assert_eq!(refused.code, Some(4), "{arguments:?}: {refused:#?}");
        assert!(refused.stderr.contains("policy_denied"), "{refused:#?}");
    }
    assert_eq!(fixture.home.audit()[0]["agent_id"], "coder");
}
