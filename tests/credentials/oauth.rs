//! OAuth 2 tokens: shared fetches, renewal, rotation, and clear rejections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};

use super::Fixture;
use crate::support::endpoints::{Body, ReceivedRequest, full_response};
use crate::support::home::Home;
use crate::support::process::run;
use crate::support::upstream::{Options, Upstream};

const CLIENT_SECRET: &str = "cs/9+Zk3=secret:of&the client";
pub(super) const REFRESH: &str = "rt0-original-8f2a6c";

/// An API that takes tokens, and its token endpoint.
pub(super) struct OAuthFixture {
    pub(super) fixture: Fixture,
    pub(super) api: Upstream,
    pub(super) login: Upstream,
}

impl OAuthFixture {
    /// `answer` is the token endpoint's response to its n-th request (from 1); none for the test server's
    /// default.
    pub(super) fn new(
        answer: impl Fn(usize, &ReceivedRequest) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let fixture = Fixture::new(&["api.test", "login.test"]);
        let api = Upstream::start(Options::https(&fixture.authority, &["api.test"]));
        let count = Arc::new(AtomicUsize::new(0));
        let answers =
            move |received: &ReceivedRequest| answer(count.fetch_add(1, Ordering::SeqCst) + 1, received);
        let login =
            Upstream::start(Options::https(&fixture.authority, &["login.test"]).with_handler(answers));
        fixture.home.set_secret("CLIENT_SECRET", CLIENT_SECRET);
        fixture.home.set_secret("REFRESH_TOKEN", REFRESH);
        let setup = Self { fixture, api, login };
        setup.credential(
            "/token",
            "grant: client_credentials, client_secret: CLIENT_SECRET, scopes: [read, write]",
        );
        setup
    }

    pub(super) fn credential(&self, path: &str, oauth: &str) {
        let url = format!("https://login.test:{}{path}", self.login.port());
        self.policy(&format!(
            "private: true\n    oauth: {{ token_url: '{url}', client_id: 'the app', {oauth} }}"
        ));
    }

    fn policy(&self, credential: &str) {
        self.fixture.policy(
            &format!("credentials:\n  - name: API_TOKEN\n    {credential}"),
            &format!(
                "- host: api.test\n  ports: [{}]\n  private: true\n  secrets: [API_TOKEN]",
                self.api.port()
            ),
        );
    }

    /// The response to an agent that sends its placeholder.
    #[track_caller]
    fn curl_with_placeholder(&self, path: &str) -> String {
        self.curl_with(&[], path)
    }

    #[track_caller]
    fn curl_with(&self, more: &[&str], path: &str) -> String {
        let url = format!("https://api.test:{}{path}", self.api.port());
        self.fixture.curl(&[more, &["-H", "Authorization: Bearer AS_SECRET_API_TOKEN", &url]].concat())
    }

    /// Status, error code and message of the rejection.
    #[track_caller]
    fn rejected(&self) -> (String, String, String) {
        let output = self.curl_with(&["-w", "\n%{http_code}"], "/echo");
        let (body, status) = output.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {output}"));
        (
            status.to_owned(),
            body["error"].as_str().unwrap().to_owned(),
            body["message"].as_str().unwrap().to_owned(),
        )
    }

    pub(super) fn tokens_at_the_api(&self) -> Vec<String> {
        self.api.received().iter().map(|got| got.header("authorization").to_owned()).collect()
    }
}

pub(super) fn token_response(n: usize, seconds: u64) -> Option<Response<Body>> {
    let body = json!({ "access_token": format!("access-token-number-{n}"), "token_type": "Bearer", "expires_in": seconds });
    Some(full_response("application/json", body.to_string()))
}

pub(super) fn form_fields(received: &ReceivedRequest) -> Vec<(String, String)> {
    url::form_urlencoded::parse(received.body.as_bytes()).into_owned().collect()
}

#[test]
fn concurrent_requests_share_one_token_fetch() {
    let setup = OAuthFixture::new(|n, _| {
        // Long enough for all requests to wait.
        std::thread::sleep(Duration::from_millis(300));
        token_response(n, 3600)
    });
    let output =
        setup.curl_with(&["--parallel", "--parallel-immediate", "--parallel-max", "25"], "/echo?n=[1-25]");
    assert_eq!(setup.tokens_at_the_api(), vec!["Bearer access-token-number-1"; 25]);
    assert!(
        !output.contains("access-token-number")
            && output.matches("Bearer [REDACTED_BY_AGENTSECRETS]").count() == 25
    );

    let question = setup.login.only_request();
    assert_eq!((question.method.as_str(), question.path.as_str()), ("POST", "/token"));
    let pairs = form_fields(&question);
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("grant_type", "client_credentials"), ("scope", "read write")]);
    let encoded = "the+app:cs%2F9%2BZk3%3Dsecret%3Aof%26the+client";
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, encoded);
    assert_eq!(question.header("authorization"), format!("Basic {basic}"));

    let records = setup.fixture.home.audit();
    let fetches: Vec<&Value> = records.iter().filter(|record| record["domain"] == "login.test").collect();
    assert_eq!(fetches.len(), 1);
    assert_eq!(fetches[0]["auth_styles"], json!(["oauth"]));
    assert_eq!(fetches[0]["secret_keys"], json!(["CLIENT_SECRET"]));
    assert!(fetches[0]["rule"].as_str().unwrap().starts_with("credential API_TOKEN (policy.yaml:"));
    assert_eq!(records.len(), 26);
    assert!(records.iter().any(|record| record["secret_keys"] == json!(["API_TOKEN"])));
}

#[test]
fn token_is_renewed_before_expiry() {
    let setup = OAuthFixture::new(|n, _| token_response(n, 2));
    let url = format!("https://api.test:{}/echo", setup.api.port());
    let script = "for pause in 0 0 2; do sleep $pause; curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' -H \
                  'X-Guess: access-token-number-1' $1; done";
    let output = run(setup.fixture.agent(&["sh", "-c", script, "sh"]).arg(url)).ok();
    let tokens = setup.tokens_at_the_api();
    let expected = [1, 1, 2].map(|n| format!("Bearer access-token-number-{n}"));
    assert_eq!(tokens, expected);
    assert!(!output.contains("access-token-number"), "{output}");
}

#[test]
fn rotated_refresh_token_is_saved_and_operator_value_wins() {
    let setup = OAuthFixture::new(|n, _| {
        let body = json!({
            "access_token": format!("access-token-number-{n}"),
            "expires_in": 3600,
            "refresh_token": format!("rt{n}-rotated-77ab"),
        });
        Some(full_response("application/json", body.to_string()))
    });
    setup.credential(
        "/token",
        "grant: refresh_token, refresh_token: REFRESH_TOKEN, client_secret: CLIENT_SECRET, auth: body",
    );
    // Each run has its own interceptor.
    for _ in 0..3 {
        assert!(setup.curl_with_placeholder("/echo").contains("REDACTED"));
    }
    setup.fixture.home.set_secret("REFRESH_TOKEN", "rt-stored-anew-by-the-person");
    setup.curl_with_placeholder("/echo");
    let sent: Vec<_> = setup.login.received().iter().map(form_fields).collect();
    let value = |pairs: &Vec<(String, String)>, name: &str| {
        pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap()
    };
    let refreshed: Vec<String> = sent.iter().map(|pairs| value(pairs, "refresh_token")).collect();
    assert_eq!(refreshed, [REFRESH, "rt1-rotated-77ab", "rt2-rotated-77ab", "rt-stored-anew-by-the-person"]);
    assert_eq!(value(&sent[0], "client_secret"), CLIENT_SECRET);
    assert_eq!(value(&sent[0], "client_id"), "the app");
    assert!(!holds(&setup.fixture.home, b"-rotated-77ab"), "a refresh token lies on disk as it is");
}

/// Whether a file of `home` contains `text`.
fn holds(home: &Home, text: &[u8]) -> bool {
    let mut folders = vec![home.path()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text) {
                return true;
            }
        }
    }
    false
}

#[test]
fn token_endpoint_error_is_rejected_without_echo() {
    let answers: [(&str, &str, &str); 6] = [
        ("/garbage", "<html>hunter2-in-the-body</html>", "no token of OAuth 2"),
        ("/empty", "{}", "no usable access_token"),
        (
            "/client",
            r#"{"error":"invalid_client","error_description":"hunter2-in-the-body"}"#,
            "invalid_client",
        ),
        ("/grant", r#"{"error":"invalid_grant"}"#, "store a new one"),
        ("/status?code=500", "", "it answers 500"),
        ("/redirect?to=https://api.test/", "", "redirects, which is not followed"),
    ];
    let setup = OAuthFixture::new(move |_, received| {
        let (_, body, _) = answers.iter().find(|(path, ..)| received.path == *path)?;
        (!body.is_empty()).then(|| full_response("application/json", (*body).to_owned()))
    });
    for (path, _, expected) in answers {
        setup.credential(path, "grant: client_credentials, client_secret: CLIENT_SECRET");
        let (status, code, message) = setup.rejected();
        assert_eq!((status.as_str(), code.as_str()), ("502", "credential_unavailable"), "{path}");
        assert!(
            message.contains(expected) && message.contains("'API_TOKEN' (policy.yaml:3)"),
            "{path}: {message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(setup.api.received().is_empty());
}

#[test]
fn slow_token_endpoint_times_out_and_backs_off() {
    let setup = OAuthFixture::new(|_, _| None);
    setup.fixture.home.write_config("timeouts:\n  answer: 1s\n");
    setup.credential("/never", "grant: client_credentials, client_secret: CLIENT_SECRET");
    let (status, code, message) = setup.rejected();
    assert_eq!((status.as_str(), code.as_str()), ("504", "upstream_timeout"), "{message}");

    setup.credential("/status?code=500", "grant: client_credentials, client_secret: CLIENT_SECRET");
    let before = setup.login.received().len();
    let output = setup.curl_with(&["--parallel", "--parallel-max", "5"], "/echo?n=[1-40]");
    assert_eq!(output.matches("credential_unavailable").count(), 40, "{output}");
    assert!(output.contains("not asked again for"), "{output}");
    let requests = setup.login.received().len() - before;
    assert!((1..=3).contains(&requests), "it was asked {requests} times");
}

#[test]
fn private_token_endpoint_is_not_dialled() {
    let setup = OAuthFixture::new(|n, _| token_response(n, 3600));
    let url = format!("https://login.test:{}/token", setup.login.port());
    setup.policy(&format!(
        "oauth: {{ token_url: '{url}', grant: client_credentials, client_id: a, client_secret: CLIENT_SECRET }}"
    ));
    let (status, code, message) = setup.rejected();
    assert_eq!((status.as_str(), code.as_str()), ("502", "credential_unavailable"));
    assert!(message.contains("127.0.0.1") || message.contains("private"), "{message}");
    assert_eq!(setup.login.connections(), 0);
}

#[test]
fn oauth_inputs_cannot_be_injected() {
    let setup = OAuthFixture::new(|n, _| token_response(n, 3600));
    let url = format!("https://api.test:{}/echo", setup.api.port());
    let refused = setup.fixture.curl(&["-H", "Authorization: Bearer AS_SECRET_CLIENT_SECRET", &url]);
    assert!(refused.contains("policy_denied"), "{refused}");
    assert!(setup.login.received().is_empty());
}
