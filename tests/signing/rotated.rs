//! What becomes of a token that a server refuses, and of a refresh token that was exchanged: the one before
//! may be good no more, so it is never lost and never sent twice.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hyper::Response;
use serde_json::{Value, json};

use super::oauth::{REFRESH, Scene, form, token};
use crate::support::endpoints::{Body, Received, whole};
use crate::support::process::{finish, finish_child, start};

const EXCHANGED: &str = "grant: refresh_token, refresh_token: REFRESH_TOKEN, client_secret: CLIENT_SECRET";

/// A token that lasts, and the refresh token for the next one.
fn rotation(n: usize) -> Option<Response<Body>> {
    let body = json!({
        "access_token": format!("access-token-number-{n}"),
        "expires_in": 3600,
        "refresh_token": refresh(n),
    });
    Some(whole("application/json", body.to_string()))
}

fn refresh(n: usize) -> String {
    format!("rt{n}-rotated-77ab")
}

fn sent(received: &Received) -> String {
    let pairs = form(received);
    pairs.into_iter().find(|(name, _)| name == "refresh_token").unwrap().1
}

impl Scene {
    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.api.port())
    }

    fn refreshed(&self) -> Vec<String> {
        self.login.received().iter().map(sent).collect()
    }
}

#[test]
fn a_token_that_the_api_answers_with_401_is_made_anew_once() {
    let scene = Scene::new(|n, _| token(n, 3600));
    // A token that has just come is not doubted: it is the request that may not be made.
    let script = "ask() { curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' $1; }; \
                  ask $1; ask $2; sleep 10.5; ask $1; ask $1; ask $1; ask $2";
    let urls = ["/status?code=401", "/echo"].map(|path| scene.url(path));
    finish(scene.world.agent(&["sh", "-c", script, "sh"]).args(urls)).ok();
    let expected = [1, 1, 1, 2, 2, 2].map(|n| format!("Bearer access-token-number-{n}"));
    assert_eq!(scene.tokens_at_the_api(), expected);
    assert_eq!(scene.login.received().len(), 2);
}

#[test]
fn a_refresh_token_whose_successor_cannot_be_saved_is_not_sent_again() {
    let folder = Arc::new(OnceLock::<PathBuf>::new());
    let (kept, in_the_way) = (folder.clone(), Arc::new(OnceLock::<PathBuf>::new()));
    let put = in_the_way.clone();
    // While the first is exchanged, a folder comes to be where the second is to be saved.
    let scene = Scene::new(move |n, _| {
        put.get_or_init(|| {
            let names = fs::read_dir(kept.get().unwrap()).unwrap().map(|entry| entry.unwrap().path());
            let lock =
                names.into_iter().find(|path| path.extension().is_some_and(|end| end == "lock")).unwrap();
            let file = lock.with_extension("");
            fs::create_dir(&file).unwrap();
            file
        });
        rotation(n)
    });
    folder.set(scene.world.home.path().join("rotated")).unwrap();
    scene.credential("/token", EXCHANGED);
    let script = "ask() { curl -sS -H 'Authorization: Bearer AS_SECRET_API_TOKEN' $1 | tr -d '\\n'; echo; }; \
                  again() { said=$(ask $1); case $said in *'not asked again'*) sleep 0.1; again $1;; *) echo $said;; \
                  esac; }; \
                  ask $1; again $1; read removed; again $1";
    let mut agent = scene.world.agent(&["sh", "-c", script, "sh"]);
    let mut agent = start(agent.arg(scene.url("/echo")).stdin(Stdio::piped()));
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let refusal: Value = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
        assert_eq!(refusal["error"], "store_unavailable", "{refusal}");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains("what was rotated cannot be kept in"), "{message}");
        assert!(!message.contains(&refresh(1)) && !message.contains(REFRESH), "{message}");
    }
    assert_eq!(scene.refreshed(), [REFRESH]);
    assert!(scene.api.received().is_empty());

    // Once there is room again, the second is saved, and goes on from there.
    fs::remove_dir(in_the_way.get().unwrap()).unwrap();
    agent.stdin.take().unwrap().write_all(b"\n").unwrap();
    let answer = said.next().unwrap().unwrap();
    assert!(answer.contains("REDACTED"), "{answer}");
    finish_child(agent, "the agent".to_owned());
    assert_eq!(scene.refreshed(), [REFRESH.to_owned(), refresh(1)]);
}

#[test]
fn two_runs_that_exchange_one_refresh_token_end_with_one_that_is_good() {
    let good = Mutex::new(REFRESH.to_owned());
    // As servers do that look for theft: one that was exchanged before is good no more.
    let scene = Scene::new(move |n, received| {
        let mut good = good.lock().unwrap();
        if sent(received) != *good {
            *good = String::new();
            return Some(whole("application/json", r#"{"error":"invalid_grant"}"#.to_owned()));
        }
        // Long enough for the other run to want it too.
        std::thread::sleep(Duration::from_secs(1));
        *good = refresh(n);
        rotation(n)
    });
    scene.credential("/token", EXCHANGED);
    let url = scene.url("/echo");
    let curl = ["curl", "-sS", "-H", "Authorization: Bearer AS_SECRET_API_TOKEN", &url];
    let runs = [(); 2].map(|()| start(&mut scene.world.agent(&curl)));
    for run in runs {
        let said = finish_child(run, "a run".to_owned()).ok();
        assert!(said.contains("REDACTED"), "{said}");
    }
    assert!(finish(&mut scene.world.agent(&curl)).ok().contains("REDACTED"));
    assert_eq!(scene.refreshed(), [REFRESH.to_owned(), refresh(1), refresh(2)]);
}
