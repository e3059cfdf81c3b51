//! Tokens that a server rejects, and exchanged refresh tokens: the previous token may be invalid, so the new
//! one is never lost and never sent twice.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};

use super::oauth::{OAuthFixture, REFRESH, form_fields, token_response};
use crate::support::endpoints::{Body, ReceivedRequest, full_response};
use crate::support::process::{run, start, wait_with_output};

const REFRESH_GRANT: &str =
    "grant: refresh_token, refresh_token: REFRESH_TOKEN, client_secret: CLIENT_SECRET";

/// A long-lived token with the next refresh token.
fn rotated_token_response(n: usize) -> Option<Response<Body>> {
    let body = json!({
        "access_token": format!("access-token-number-{n}"),
        "expires_in": 3600,
        "refresh_token": nth_refresh_token(n),
    });
    Some(full_response("application/json", body.to_string()))
}

fn nth_refresh_token(n: usize) -> String {
    format!("rt{n}-rotated-77ab")
}

fn sent_refresh_token(received: &ReceivedRequest) -> String {
    let pairs = form_fields(received);
    pairs.into_iter().find(|(name, _)| name == "refresh_token").unwrap().1
}

impl OAuthFixture {
    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    fn used_refresh_tokens(&self) -> Vec<String> {
        self.login.received().iter().map(sent_refresh_token).collect()
    }
}

#[test]
fn rejected_token_is_renewed_once() {
    let setup = OAuthFixture::new(|n, _| token_response(n, 3600));
    // A fresh token is not renewed: the API rejects the request itself.
    let script = "ask() { curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' $1; }; \
                  ask $1; ask $2; sleep 10.5; ask $1; ask $1; ask $1; ask $2";
    let urls = ["/status?code=401", "/echo"].map(|path| setup.url(path));
    run(setup.fixture.agent(&["sh", "-c", script, "sh"]).args(urls)).ok();
    let expected = [1, 1, 1, 2, 2, 2].map(|n| format!("Bearer access-token-number-{n}"));
    assert_eq!(setup.tokens_at_the_api(), expected);
    assert_eq!(setup.login.received().len(), 2);
}

#[test]
fn unsaved_refresh_token_is_not_reused() {
    let folder = Arc::new(OnceLock::<PathBuf>::new());
    let (target_folder, in_the_way) = (folder.clone(), Arc::new(OnceLock::<PathBuf>::new()));
    let put = in_the_way.clone();
    // While the first token is exchanged, a folder appears at the path of the second.
    let setup = OAuthFixture::new(move |n, _| {
        put.get_or_init(|| {
            let names =
                fs::read_dir(target_folder.get().unwrap()).unwrap().map(|entry| entry.unwrap().path());
            let lock =
                names.into_iter().find(|path| path.extension().is_some_and(|end| end == "lock")).unwrap();
            let file = lock.with_extension("");
            fs::create_dir(&file).unwrap();
            file
        });
        rotated_token_response(n)
    });
    folder.set(setup.fixture.home.path().join("rotated")).unwrap();
    setup.credential("/token", REFRESH_GRANT);
    let script = "ask() { curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' $1 | tr -d '\\n'; echo; }; \
                  again() { said=$(ask $1); case $said in *'not asked again'*) sleep 0.1; again $1;; *) echo $said;; \
                  esac; }; \
                  ask $1; again $1; read removed; again $1";
    let mut agent = setup.fixture.agent(&["sh", "-c", script, "sh"]);
    let mut agent = start(agent.arg(setup.url("/echo")).stdin(Stdio::piped()));
    let mut output = BufReader::new(agent.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let rejection: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(rejection["error"], "store_unavailable", "{rejection}");
        let message = rejection["message"].as_str().unwrap();
        assert!(message.contains("what was rotated cannot be kept in"), "{message}");
        assert!(!message.contains(&nth_refresh_token(1)) && !message.contains(REFRESH), "{message}");
    }
    assert_eq!(setup.used_refresh_tokens(), [REFRESH]);
    assert!(setup.api.received().is_empty());

    // Once the path is free, the second token is saved and used.
    fs::remove_dir(in_the_way.get().unwrap()).unwrap();
    agent.stdin.take().unwrap().write_all(b"\n").unwrap();
    let answer = output.next().unwrap().unwrap();
    assert!(answer.contains("REDACTED"), "{answer}");
    wait_with_output(agent, "the agent".to_owned());
    assert_eq!(setup.used_refresh_tokens(), [REFRESH.to_owned(), nth_refresh_token(1)]);
}

#[test]
fn concurrent_refresh_keeps_valid_token() {
    let good = Mutex::new(REFRESH.to_owned());
    // Like servers with reuse detection: an exchanged refresh token is invalid.
    let setup = OAuthFixture::new(move |n, received| {
        let mut good = good.lock().unwrap();
        if sent_refresh_token(received) != *good {
            *good = String::new();
            return Some(full_response("application/json", r#"{"error":"invalid_grant"}"#.to_owned()));
        }
        // Long enough for the other run to need it too.
        std::thread::sleep(Duration::from_secs(1));
        *good = nth_refresh_token(n);
        rotated_token_response(n)
    });
    setup.credential("/token", REFRESH_GRANT);
    let url = setup.url("/echo");
    let curl = ["curl", "-sS", "-H", "Authorization: Bearer AS_SECRET_API_TOKEN", &url];
    let runs = [(); 2].map(|()| start(&mut setup.fixture.agent(&curl)));
    for run in runs {
        let output = wait_with_output(run, "a run".to_owned()).ok();
        assert!(output.contains("REDACTED"), "{output}");
    }
    assert!(run(&mut setup.fixture.agent(&curl)).ok().contains("REDACTED"));
    assert_eq!(setup.used_refresh_tokens(), [REFRESH.to_owned(), nth_refresh_token(1), nth_refresh_token(2)]);
}
