//! `agentsecrets call`: one request of the person's own, through the stages that every request goes through.

use serde_json::{Value, json};

use super::AgentsCopy;
use crate::spine::{SECRET, World};
use crate::support::process::{Outcome, finish};

#[track_caller]
fn call(world: &World, arguments: &[&str], path: &str) -> Outcome {
    finish(world.home.agentsecrets(["call", "--url", &world.url(path)]).args(arguments))
}

/// The exit code and the envelope of `--output json`.
#[track_caller]
fn envelope(world: &World, arguments: &[&str], url: &str) -> (i32, Value) {
    let mut command = world.home.agentsecrets(["call", "--output", "json", "--url", url]);
    let outcome = finish(command.args(arguments));
    let value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error} in {outcome:#?}"));
    (outcome.code.unwrap(), value)
}

#[test]
fn the_text_form_is_the_status_an_empty_line_and_the_redacted_body() {
    let world = World::new();
    let outcome = call(&world, &["--bearer", "API_KEY"], "/echo-raw");
    assert_eq!(outcome.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    let received = world.api.only();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert!(received.header("user-agent").starts_with("agentsecrets/"));
}

#[test]
fn the_json_form_has_headers_status_and_whether_anything_was_taken_out() {
    let world = World::new();
    let (code, answer) = envelope(&world, &["--bearer", "API_KEY"], &world.url("/echo-raw"));
    assert_eq!((code, &answer["status"], &answer["redacted"]), (0, &json!(200), &json!(true)));
    assert_eq!(answer["body"], "Bearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(answer["headers"]["content-type"], json!(["text/plain"]));
    assert!(answer["duration_ms"].is_u64() && answer.get("error").is_none(), "{answer}");
    let (code, answer) = envelope(&world, &[], &world.url("/status?code=404"));
    assert_eq!((code, &answer["status"], answer.get("error")), (0, &json!(404), None));
}

#[test]
fn every_style_puts_its_secret_where_it_belongs() {
    let world = World::new();
    world.home.secret("LOGIN", "user:a-long-password");
    call(&world, &["--basic", "LOGIN"], "/echo").ok();
    call(&world, &["--header", "X-Api-Key=API_KEY", "--query", "apiKey=API_KEY"], "/echo?a=b").ok();
    let body = r#"{"grant_type":"client_credentials","auth":{"id":1}}"#;
    let json_body = ["--method", "post", "--body", body, "--body-field", "auth.client-Secret=API_KEY"];
    call(&world, &json_body, "/echo").ok();
    call(&world, &["--method", "POST", "--body-field", "key=API_KEY"], "/echo").ok();
    call(&world, &["--method", "POST", "--body", "a=b", "--form-field", "apiKey=API_KEY"], "/echo").ok();
    let received = world.api.received();
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
fn a_person_may_spend_any_stored_secret_toward_any_host_that_a_rule_allows() {
    let world = World::new();
    world.rule("methods: [GET]\npaths: [\"/v1/**\"]\nsecrets: []\napprove: true\nrate: 1/h");
    world.home.secret("OTHER", "another-long-value");
    for _ in 0..2 {
        call(&world, &["--method", "POST", "--bearer", "OTHER"], "/elsewhere").ok();
    }
    assert_eq!(world.api.received()[0].header("authorization"), "Bearer another-long-value");
}

#[test]
fn a_host_that_no_rule_allows_is_refused_by_name_and_nothing_leaves() {
    let world = World::new();
    let url = format!("https://elsewhere.test:{}/", world.api.port());
    let (code, answer) = envelope(&world, &["--bearer", "API_KEY"], &url);
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
    let text = finish(&mut world.home.agentsecrets(["call", "--url", &url, "--bearer", "API_KEY"]));
    assert_eq!(text.code, Some(4));
    assert!(text.stderr.contains("domain_not_in_allowlist: 'elsewhere.test'"), "{text:#?}");
    world.home.policy("version: 1\nagents: []\n");
    let (code, answer) = envelope(&world, &["--bearer", "API_KEY"], &world.url("/"));
    assert!(code == 4 && answer["body"].as_str().unwrap().contains("empty_allowlist"), "{answer}");
    assert!(world.api.received().is_empty());
}

#[test]
fn a_secret_that_is_not_there_is_reported_before_the_policy_is_asked() {
    let world = World::new();
    let (code, answer) = envelope(&world, &["--bearer", "NOT_THERE"], "https://elsewhere.test/");
    assert_eq!((code, &answer["status"]), (3, &json!(502)));
    assert_eq!(answer["error"], "secret 'NOT_THERE' not found in keychain");
    assert_eq!(answer["body"], r#"{"error":"secret 'NOT_THERE' not found in keychain"}"#);
}

#[test]
fn each_refusal_and_failure_has_its_exit_code_and_an_envelope() {
    let world = World::new();
    let nobody = format!("https://api.test:{}/", {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    });
    let plain = format!("http://api.test:{}/", world.api.port());
    world.home.policy("version: 1\nagents:\n  - name: a\n    allow: [ { host: api.test, private: true } ]\n");
    for (arguments, url, code, says) in [
        (&["--bearer", "API_KEY"][..], &*plain, 4, "non_https_blocked"),
        (&["--bearer", "API_KEY", "--token", "ast_1234"], &*world.url("/"), 4, "capability_denied"),
        (&[], &nobody, 1, "upstream"),
        (&[], "https://api.test:99999/", 2, "--url"),
        (&[], "ftp://api.test/", 2, "--url"),
        (&[], "https://bob:pw@api.test/", 2, "`basic`"),
        (&["--bearer", "API_KEY", "--header", "Authorization=API_KEY"], &world.url("/"), 2, "authorization"),
        (&["--header", "Host=API_KEY"], &world.url("/"), 2, "cannot carry a secret"),
        (&["--bearer", "not-a-name"], &world.url("/"), 2, "the name of a stored secret"),
    ] {
        let (got, answer) = envelope(&world, arguments, url);
        assert_eq!(got, code, "{arguments:?} {url}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{arguments:?} {url}: {answer}");
    }
    let mut locked = world.home.agentsecrets(["call", "--output", "json", "--url", &world.url("/")]);
    let locked = finish(locked.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!(locked.code, Some(5));
    let answer: Value = serde_json::from_str(&locked.stdout).unwrap();
    assert!(answer["status"] == 0 && answer["error"].as_str().unwrap().contains("vault"), "{answer}");
    assert!(world.api.received().is_empty());
}

#[test]
fn redirects_are_answers_and_quoted_placeholders_are_text() {
    let world = World::new();
    let (code, answer) = envelope(&world, &["--bearer", "API_KEY"], &world.url("/redirect?to=/echo"));
    assert_eq!(
        (code, &answer["status"], &answer["headers"]["location"]),
        (0, &json!(302), &json!(["/echo"]))
    );
    let body = r#"{"text":"use AS_SECRET_API_KEY or {{API_KEY}}"}"#;
    call(&world, &["--method", "POST", "--bearer", "API_KEY", "--body", body], "/echo?q=AS_SECRET_API_KEY")
        .ok();
    let received = &world.api.received()[1];
    assert_eq!((received.body.as_str(), received.path.as_str()), (body, "/echo?q=AS_SECRET_API_KEY"));
}

#[test]
fn an_answer_that_repeats_another_stored_secret_is_redacted_too() {
    let world = World::new();
    let answer = call(&world, &[], &format!("/echo-raw?value={SECRET}")).ok();
    assert!(answer.contains("[REDACTED_BY_AGENTSECRETS]") && !answer.contains(SECRET), "{answer}");
}

#[test]
fn every_call_leaves_one_record_of_who_asked_and_no_value() {
    let world = World::new();
    call(&world, &["--bearer", "API_KEY"], &format!("/echo?x={SECRET}")).ok();
    envelope(&world, &["--bearer", "API_KEY"], "https://elsewhere.test/");
    envelope(&world, &["--bearer", "NOT_THERE"], &world.url("/"));
    let records = world.home.audit();
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
fn inside_an_agent_it_is_that_agents_own_request() {
    let world = World::new();
    let copy = AgentsCopy::new();
    world.rule("secrets: [API_KEY]\nplaces: [auth, query]\nmethods: [GET]");
    let inside = |arguments: &[&str], path: &str| {
        let url = world.url(path);
        finish(world.home.run_agent([copy.0.as_str(), "call", "--url", &url]).args(arguments))
    };
    let outcome = inside(&["--bearer", "API_KEY", "--query", "apiKey=API_KEY"], "/echo-raw");
    assert_eq!(outcome.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    let received = world.api.only();
    assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(received.path, format!("/echo-raw?apiKey={SECRET}"));
    assert!(received.headers.keys().all(|name| !name.starts_with("x-as-")), "{received:#?}");
    for arguments in [&["--bearer", "OTHER"][..], &["--method", "POST"], &["--header", "X-Note=API_KEY"]] {
        let refused = inside(arguments, "/echo");
        assert_eq!(refused.code, Some(4), "{arguments:?}: {refused:#?}");
        assert!(refused.stderr.contains("policy_denied"), "{refused:#?}");
    }
    assert_eq!(world.home.audit()[0]["agent_id"], "coder");
}
