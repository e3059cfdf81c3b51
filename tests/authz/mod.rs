//! Sessions, agent tokens and the agent registry, and attempts to gain more than they grant.

mod escalation;
mod sessions;
mod tokens;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::end_to_end::Fixture;
use crate::proxy::Proxy;
use crate::support::process::{Outcome, run, wait_until};

/// Runs `agentsecrets` as the operator.
#[track_caller]
fn operator(fixture: &Fixture, words: &[&str]) -> Outcome {
    run(&mut fixture.home.agentsecrets(words))
}

/// Registers `agent` if it is new, and issues a token to it.
#[track_caller]
fn issue_token(fixture: &Fixture, agent: &str, more: &[&str]) -> String {
    let _ = operator(fixture, &["agent", "register", agent]);
    let token = operator(fixture, &[&["agent", "token", "issue", "--agent", agent], more].concat()).ok();
    token.trim().to_owned()
}

/// The id part of a token.
fn token_id(token: &str) -> &str {
    token.split('_').nth(2).unwrap()
}

/// Starts a session; returns its id or its token.
#[track_caller]
fn start_session(fixture: &Fixture, words: &[&str]) -> String {
    operator(fixture, &[&["session", "start"], words].concat()).ok().trim().to_owned()
}

/// Starts a session for this process; every program that a test starts is its child.
#[track_caller]
fn start_own_session(fixture: &Fixture, words: &[&str]) -> String {
    let pid = std::process::id().to_string();
    start_session(fixture, &[&["--pid", &pid], words].concat())
}

/// Writes a policy with these agents (name and further keys); each may use the secret at the server.
fn policy(fixture: &Fixture, agents: &[(&str, &str)]) {
    let mut text = String::from("version: 1\nagents:\n");
    for (name, more) in agents {
        text += &format!(
            "  - name: {name}\n{more}    allow:\n      - {{ host: api.test, ports: [{}], private: true, \
             secrets: [API_KEY] }}\n",
            fixture.api.port()
        );
    }
    fixture.home.write_policy(&text);
}

/// Requests `/echo-raw` with the secret through the proxy endpoint; returns status and body.
#[track_caller]
fn request_with_secret(fixture: &Fixture, proxy: &Proxy, headers: &[&str]) -> (String, String) {
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo-raw"));
    let all = [&[target.as_str(), "X-AS-Inject-Bearer: API_KEY"], headers].concat();
    let arguments: Vec<&str> = all.iter().flat_map(|header| ["-H", header]).collect();
    proxy.request(&arguments, "/proxy")
}

/// The error code and message of a rejection.
#[track_caller]
fn rejection((code, body): (String, String)) -> (String, String) {
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {code} {body}"));
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (text("error"), text("message"))
}
