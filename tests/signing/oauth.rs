//! Tokens of OAuth 2: fetched once for all who wait, renewed, rotated, and refused clearly where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};

use super::World;
use crate::support::endpoints::{Body, Received, whole};
use crate::support::home::Home;
use crate::support::process::finish;
use crate::support::upstream::{Options, Upstream};

const CLIENT_SECRET: &str = "cs/9+Zk3=secret:of&the client";
pub(super) const REFRESH: &str = "rt0-original-8f2a6c";

/// An API that takes tokens, and who gives them.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) api: Upstream,
    pub(super) login: Upstream,
}

impl Scene {
    /// `answer` is what the token endpoint says to its n-th question, from 1; nothing for what the tests'
    /// server always says.
    pub(super) fn new(
        answer: impl Fn(usize, &Received) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let world = World::new(&["api.test", "login.test"]);
        let api = Upstream::start(Options::https(&world.authority, &["api.test"]));
        let count = Arc::new(AtomicUsize::new(0));
        let answers = move |received: &Received| answer(count.fetch_add(1, Ordering::SeqCst) + 1, received);
        let login = Upstream::start(Options::https(&world.authority, &["login.test"]).answering(answers));
        world.home.secret("CLIENT_SECRET", CLIENT_SECRET);
        world.home.secret("REFRESH_TOKEN", REFRESH);
        let scene = Self { world, api, login };
        scene.credential(
            "/token",
            "grant: client_credentials, client_secret: CLIENT_SECRET, scopes: [read, write]",
        );
        scene
    }

    pub(super) fn credential(&self, path: &str, oauth: &str) {
        let url = format!("https://login.test:{}{path}", self.login.port());
        self.policy(&format!(
            "private: true\n    oauth: {{ token_url: '{url}', client_id: 'the app', {oauth} }}"
        ));
    }

    fn policy(&self, credential: &str) {
        self.world.policy(
            &format!("credentials:\n  - name: API_TOKEN\n    {credential}"),
            &format!(
                "- host: api.test\n  ports: [{}]\n  private: true\n  secrets: [API_TOKEN]",
                self.api.port()
            ),
        );
    }

    /// What an agent is answered that sends its placeholder.
    #[track_caller]
    fn ask(&self, path: &str) -> String {
        self.asks(&[], path)
    }

    #[track_caller]
    fn asks(&self, more: &[&str], path: &str) -> String {
        let url = format!("https://api.test:{}{path}", self.api.port());
        self.world.curl(&[more, &["-H", "Authorization: Bearer AS_SECRET_API_TOKEN", &url]].concat())
    }

    /// Status, slug and message of the refusal.
    #[track_caller]
    fn refused(&self) -> (String, String, String) {
        let said = self.asks(&["-w", "\n%{http_code}"], "/echo");
        let (body, status) = said.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {said}"));
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

pub(super) fn token(n: usize, seconds: u64) -> Option<Response<Body>> {
    let body = json!({ "access_token": format!("access-token-number-{n}"), "token_type": "Bearer", "expires_in": seconds });
    Some(whole("application/json", body.to_string()))
}

pub(super) fn form(received: &Received) -> Vec<(String, String)> {
    url::form_urlencoded::parse(received.body.as_bytes()).into_owned().collect()
}

#[test]
fn many_who_wait_are_served_by_one_fetch_and_the_token_never_comes_back() {
    let scene = Scene::new(|n, _| {
        // Long enough for all to wait.
        std::thread::sleep(Duration::from_millis(300));
        token(n, 3600)
    });
    let said = scene.asks(&["--parallel", "--parallel-immediate", "--parallel-max", "25"], "/echo?n=[1-25]");
    assert_eq!(scene.tokens_at_the_api(), vec!["Bearer access-token-number-1"; 25]);
    assert!(
        !said.contains("access-token-number")
            && said.matches("Bearer [REDACTED_BY_AGENTSECRETS]").count() == 25
    );

    let question = scene.login.only();
    assert_eq!((question.method.as_str(), question.path.as_str()), ("POST", "/token"));
    let pairs = form(&question);
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("grant_type", "client_credentials"), ("scope", "read write")]);
    let encoded = "the+app:cs%2F9%2BZk3%3Dsecret%3Aof%26the+client";
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, encoded);
    assert_eq!(question.header("authorization"), format!("Basic {basic}"));

    let records = scene.world.home.audit();
    let fetches: Vec<&Value> = records.iter().filter(|record| record["domain"] == "login.test").collect();
    assert_eq!(fetches.len(), 1);
    assert_eq!(fetches[0]["auth_styles"], json!(["oauth"]));
    assert_eq!(fetches[0]["secret_keys"], json!(["CLIENT_SECRET"]));
    assert!(fetches[0]["rule"].as_str().unwrap().starts_with("credential API_TOKEN (policy.yaml:"));
    assert_eq!(records.len(), 26);
    assert!(records.iter().any(|record| record["secret_keys"] == json!(["API_TOKEN"])));
}

#[test]
fn a_token_is_renewed_before_it_ends_and_both_are_kept_from_the_agent() {
    let scene = Scene::new(|n, _| token(n, 2));
    let url = format!("https://api.test:{}/echo", scene.api.port());
    let script = "for pause in 0 0 2; do sleep $pause; curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' -H \
                  'X-Guess: access-token-number-1' $1; done";
    let said = finish(scene.world.agent(&["sh", "-c", script, "sh"]).arg(url)).ok();
    let tokens = scene.tokens_at_the_api();
    let expected = [1, 1, 2].map(|n| format!("Bearer access-token-number-{n}"));
    assert_eq!(tokens, expected);
    assert!(!said.contains("access-token-number"), "{said}");
}

#[test]
fn a_rotated_refresh_token_is_kept_before_it_is_needed_and_a_new_one_of_the_person_wins() {
    let scene = Scene::new(|n, _| {
        let body = json!({
            "access_token": format!("access-token-number-{n}"),
            "expires_in": 3600,
            "refresh_token": format!("rt{n}-rotated-77ab"),
        });
        Some(whole("application/json", body.to_string()))
    });
    scene.credential(
        "/token",
        "grant: refresh_token, refresh_token: REFRESH_TOKEN, client_secret: CLIENT_SECRET, auth: body",
    );
    // Each is a run of its own, with an interceptor of its own.
    for _ in 0..3 {
        assert!(scene.ask("/echo").contains("REDACTED"));
    }
    scene.world.home.secret("REFRESH_TOKEN", "rt-stored-anew-by-the-person");
    scene.ask("/echo");
    let sent: Vec<_> = scene.login.received().iter().map(form).collect();
    let value = |pairs: &Vec<(String, String)>, name: &str| {
        pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap()
    };
    let refreshed: Vec<String> = sent.iter().map(|pairs| value(pairs, "refresh_token")).collect();
    assert_eq!(refreshed, [REFRESH, "rt1-rotated-77ab", "rt2-rotated-77ab", "rt-stored-anew-by-the-person"]);
    assert_eq!(value(&sent[0], "client_secret"), CLIENT_SECRET);
    assert_eq!(value(&sent[0], "client_id"), "the app");
    assert!(!holds(&scene.world.home, b"-rotated-77ab"), "a refresh token lies on disk as it is");
}

/// Whether a file of `home` holds `text`.
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
fn an_endpoint_that_gives_no_token_is_a_clear_refusal_that_repeats_nothing() {
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
    let scene = Scene::new(move |_, received| {
        let (_, body, _) = answers.iter().find(|(path, ..)| received.path == *path)?;
        (!body.is_empty()).then(|| whole("application/json", (*body).to_owned()))
    });
    for (path, _, told) in answers {
        scene.credential(path, "grant: client_credentials, client_secret: CLIENT_SECRET");
        let (status, slug, message) = scene.refused();
        assert_eq!((status.as_str(), slug.as_str()), ("502", "credential_unavailable"), "{path}");
        assert!(
            message.contains(told) && message.contains("'API_TOKEN' (policy.yaml:3)"),
            "{path}: {message}"
        );
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(scene.api.received().is_empty());
}

#[test]
fn an_endpoint_that_is_slow_is_waited_for_so_long_and_a_broken_one_is_left_alone() {
    let scene = Scene::new(|_, _| None);
    scene.world.home.configure("timeouts:\n  answer: 1s\n");
    scene.credential("/never", "grant: client_credentials, client_secret: CLIENT_SECRET");
    let (status, slug, message) = scene.refused();
    assert_eq!((status.as_str(), slug.as_str()), ("504", "upstream_timeout"), "{message}");

    scene.credential("/status?code=500", "grant: client_credentials, client_secret: CLIENT_SECRET");
    let before = scene.login.received().len();
    let said = scene.asks(&["--parallel", "--parallel-max", "5"], "/echo?n=[1-40]");
    assert_eq!(said.matches("credential_unavailable").count(), 40, "{said}");
    assert!(said.contains("not asked again for"), "{said}");
    let asked = scene.login.received().len() - before;
    assert!((1..=3).contains(&asked), "it was asked {asked} times");
}

#[test]
fn an_endpoint_at_an_address_that_is_not_public_is_not_dialled() {
    let scene = Scene::new(|n, _| token(n, 3600));
    let url = format!("https://login.test:{}/token", scene.login.port());
    scene.policy(&format!(
        "oauth: {{ token_url: '{url}', grant: client_credentials, client_id: a, client_secret: CLIENT_SECRET }}"
    ));
    let (status, slug, message) = scene.refused();
    assert_eq!((status.as_str(), slug.as_str()), ("502", "credential_unavailable"));
    assert!(message.contains("127.0.0.1") || message.contains("private"), "{message}");
    assert_eq!(scene.login.connections(), 0);
}

#[test]
fn what_a_token_is_made_from_cannot_be_spent_by_itself() {
    let scene = Scene::new(|n, _| token(n, 3600));
    let url = format!("https://api.test:{}/echo", scene.api.port());
    let refused = scene.world.curl(&["-H", "Authorization: Bearer AS_SECRET_CLIENT_SECRET", &url]);
    assert!(refused.contains("policy_denied"), "{refused}");
    assert!(scene.login.received().is_empty());
}
